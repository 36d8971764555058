"""The logs of tasks, also of those that run, and their text as it grows."""

from __future__ import annotations

import os
import time
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.errors import CacheError, CorruptEntryError
from hydra_exca.polling import Pause
from hydra_exca.status import Status

from .listing import read_records
from .record import ListedTask, Record

_BLOCK = 1 << 16
_ASK_S = 10.0  # between two questions to a cluster, as for launches that wait
_LONGEST_PAUSE_S = 1.0
_OPEN = (Status.RUNNING, "queued")


def find_logs(record: Record, rank: int = 0) -> list[Path]:
    """The logs of the last attempt of a task: one, or those of both streams; none before it began.

    ``rank`` is that of a process of a job with several.
    """
    first = record.log
    if rank and record.path is not None and record.job is not None:
        stem = paths.rank_log_stem(record.job, rank)
        logs = record.path / paths.LOGS
        return [logs / name for name in sorted(files.list_folder(logs)) if name.rpartition(".")[0] == stem]
    if first is None:
        return []
    other = {".out": ".err", ".err": ".out"}.get(first.suffix)
    pair = sorted({first, first.with_suffix(other or first.suffix)}, reverse=True)
    return [path for path in pair if path.exists()]


class FollowedTask:
    """A task whose logs are read as they grow, until it has ended."""

    def __init__(self, task: ListedTask, rank: int = 0) -> None:
        self._task = task
        self._rank = rank
        self._offsets: dict[Path, int] = {}
        self._asked = 0.0
        self.record: Record | None = None
        self._refresh()

    @property
    def is_open(self) -> bool:
        return self.record is not None and self.record.status in _OPEN

    @property
    def status(self) -> str:
        return Status.NOT_SUBMITTED if self.record is None else self.record.status

    def read_new(self) -> tp.Iterator[tuple[Path, bytes]]:
        """What its logs have got since the last call."""
        if self.is_open and (not self._offsets or self._has_changed()):
            self._refresh()
        for path in [] if self.record is None else find_logs(self.record, self._rank):
            while data := self._read_block(path):
                self._offsets[path] += len(data)
                yield path, data

    def _read_block(self, path: Path) -> bytes:
        """Opened as all files that are read back: without following a link in its place, or waiting."""
        offset = self._offsets.setdefault(path, 0)
        try:
            descriptor, status = files.open_file(os.path.realpath(path))
        except (OSError, CorruptEntryError):
            return b""
        try:
            if status.st_size < offset:  # it was begun anew
                self._offsets[path] = offset = 0
            return os.pread(descriptor, _BLOCK, offset)
        finally:
            os.close(descriptor)

    def _has_changed(self) -> bool:
        """Whether it may have ended: its outcome is there, or it is time to ask its cluster."""
        outcome = self.record is not None and self.record.path is not None and self.record.path / paths.OUTCOME
        return bool(outcome and outcome.exists()) or time.monotonic() - self._asked > _ASK_S

    def _refresh(self) -> None:
        self._asked = time.monotonic()
        self.record = next(iter(read_records([self._task])), None)


def follow(tasks: tp.Sequence[FollowedTask], is_following: bool) -> tp.Iterator[tuple[Path, bytes]]:
    """The texts of the logs of tasks; if ``is_following``, also what comes until all of them have ended."""
    pause = Pause(first_s=0.05, longest_s=_LONGEST_PAUSE_S)
    while True:
        is_open = any(task.is_open for task in tasks)
        is_quiet = True
        for task in tasks:
            for path, data in task.read_new():
                is_quiet = False
                yield path, data
        if not (is_open and is_following):
            return
        pause = pause if is_quiet else Pause(first_s=0.05, longest_s=_LONGEST_PAUSE_S)
        pause.sleep()


def check_has_logs(tasks: tp.Sequence[FollowedTask]) -> None:
    """Raises CacheError if none of the tasks has a log yet."""
    records = [task.record for task in tasks if task.record is not None]
    if not any(find_logs(record) for record in records):
        states = ", ".join(sorted({str(record.status) for record in records})) or Status.NOT_SUBMITTED
        raise CacheError(f"there is no log: {states}, and nothing was printed (-f waits for it)")
