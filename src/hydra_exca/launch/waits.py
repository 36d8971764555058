"""Which tasks wait for which: what runs inside of a task must not wait for it, or for one that waits for it.

While a launch or a map inside of tasks waits for tasks that others compute, it says so in the folder of each launch
around it.
"""

from __future__ import annotations

import contextlib
import time
import typing as tp
from pathlib import Path

from hydra_exca import checksums, clusters, files, paths
from hydra_exca.errors import CacheError
from hydra_exca.job.enclosing import EnclosingTask, enclosing_tasks
from hydra_exca.store import ClaimState, Entry


class WaitedTask(tp.NamedTuple):
    """A task that is waited for: its entry, and the key of its identity."""

    entry: Path
    key: str


def would_wait_for_itself(task: WaitedTask, around: tp.Sequence[EnclosingTask]) -> bool:
    """Whether a task, or one that it waits for, is one of those ``around``."""
    own = {(Path(each.launch).name, each.key) for each in around}
    pending, seen = [task] if own else [], set()
    while pending:
        path, key = pending.pop()
        claim = None if path in seen else Entry(path).current_claim()
        seen.add(path)
        if claim is None or claim.state not in (ClaimState.QUEUED, ClaimState.RUNNING):
            continue
        if (claim.token, key) in own:
            return True
        pending += _read_waits(paths.launch_folder(paths.cache_folder(path), claim.token), key, claim.time)
    return False


def wait_error(name: str) -> CacheError:
    """The error for what must not be waited for."""
    return CacheError(
        f"{name} is being computed by the task that asks for it here, or by one that waits for that task: it would "
        "wait for itself"
    )


class RecordedWaits:
    """The tasks that this thread waits for and others compute. Outside of a task there is nothing to record.

    A context, which ends the record.
    """

    def __init__(self) -> None:
        self._around = enclosing_tasks()
        self._name = f"{files.random_token()}.json"
        self._recorded: set[WaitedTask] = set()

    def __enter__(self) -> tp.Self:  # type: ignore[name-defined,unused-ignore]
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Ends the record: nothing is waited for now."""
        for task in self._around if self._recorded else ():
            with contextlib.suppress(OSError):
                (paths.waits(Path(task.launch)) / self._name).unlink()
        self._recorded.clear()

    def replace(self, waited: tp.Collection[WaitedTask]) -> list[WaitedTask]:
        """Records these tasks and no others, and returns what `record` does."""
        if not self._recorded.issubset(waited):
            self.clear()
        return self.record(waited)

    def record(self, waited: tp.Collection[WaitedTask]) -> list[WaitedTask]:
        """Records tasks that are waited for, too; returns those that must not be waited for.

        First it records, and then it looks: of two threads that do so at once, at least one sees the other.
        """
        if not self._around or self._recorded.issuperset(waited):
            return []
        self._recorded.update(waited)
        waits_for = [(str(task.entry), task.key) for task in self._recorded]
        owner, now = clusters.describe_process(), time.time()
        for task in self._around:
            record = {"task": task.key, "waits_for": waits_for, "owner": owner, "time": now}
            with contextlib.suppress(OSError):
                folder = paths.waits(Path(task.launch))
                folder.mkdir(exist_ok=True)
                files.write_file(folder / self._name, checksums.dump_record(record), durable=False)
        return [task for task in waited if would_wait_for_itself(task, self._around)]


def _read_waits(launch: Path, key: str, since: float) -> tp.Iterator[WaitedTask]:
    """What a task of a launch waits for in its attempt that began at a time."""
    for path in sorted(paths.waits(launch).glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = checksums.parse_record(files.read_file(path))
            is_current = record["task"] == key and record["time"] >= since
            if is_current and clusters.process_alive(record["owner"]) is not False:
                yield from [WaitedTask(Path(entry), waited_for) for entry, waited_for in record["waits_for"]]
