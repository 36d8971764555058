"""Cluster ``local``: processes of this machine, bounded, that outlive the launch that started them."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
import typing as tp

import psutil

from hydra_exca import paths
from hydra_exca.errors import ConfigError, Problem

from . import environment
from .base import Batch, Cluster, Options, Reference, Report, State, Submission
from .inline import process_report

log = logging.getLogger("exca.clusters")
_GRACE_S = 5.0  # between SIGTERM and SIGKILL
_PAUSE_S = 0.01


class LocalCluster(Cluster):
    """Processes of this machine, each in a session of its own: they do not die with the launch."""

    name = "local"

    def check(self) -> None:
        environment.check(self.options.environment, "hydra_exca.worker")
        if self._gpus_per_task() and len(self._slots) == 0:
            raise ConfigError(
                "More GPUs are asked for than this machine has; nothing was run.",
                [
                    Problem(
                        f"{self._gpus_per_task()} asked, {len(visible_gpus() or ())} here",
                        "hydra.launcher.gpus_per_node",
                    )
                ],
            )

    def submit(self, batch: Batch) -> Submission:
        return _LocalSubmission(batch, self._slots, self.options)

    def ask(self, references: tp.Sequence[Reference]) -> list[Report]:
        return [process_report(reference) for reference in references]

    def cancel(self, reference: Reference) -> None:
        if process_report(reference).state is State.RUNNING:
            end(reference.owner["pid"])

    def _gpus_per_task(self) -> int:
        return int(self.options.common.get("gpus_per_node") or 0)

    @functools.cached_property
    def _slots(self) -> list[tuple[str, ...]]:
        """One item for each task that may run at a time: the GPUs it sees."""
        count = max(1, min(cores(), self.options.array_parallelism))
        wanted = self._gpus_per_task()
        if not wanted:
            return [()] * count
        gpus = visible_gpus()
        if gpus is None:
            log.warning("this machine shows no GPU: the tasks are given numbers from 0 on")
            gpus = [str(index) for index in range(count * wanted)]
        groups = [tuple(gpus[start : start + wanted]) for start in range(0, len(gpus) - wanted + 1, wanted)]
        return groups[:count]


def cores() -> int:
    """How many cores this process may use, which can be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str] | None:
    """The GPUs this process may use, None if it cannot be told."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return None
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    return [str(index) for index in range(sum(line.startswith("GPU ") for line in done.stdout.splitlines()))]


def end(*pids: int) -> None:
    """Ends the processes of jobs and all they started: SIGTERM, then SIGKILL for what is left."""
    family = [member for pid in pids for member in _family(pid)]
    for member in family:
        _signal(member, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    # psutil's own wait would collect the exit codes of children, which subprocess is to have
    while (left := [member for member in family if _runs(member)]) and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    for member in left:
        _signal(member, signal.SIGKILL)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _family(pid: int) -> list[psutil.Process]:
    try:
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def exit_reason(code: int) -> str:
    """What an exit code of subprocess tells.

    >>> exit_reason(-9), exit_reason(3)
    ('killed by SIGKILL (signal 9)', 'exit code 3')
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name} (signal {-code})"
    except ValueError:
        return f"killed by signal {-code}"


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        pass


@dataclasses.dataclass
class _Running:
    process: subprocess.Popen[bytes]
    gpus: tuple[str, ...]
    deadline: float | None


class _LocalSubmission(Submission):
    def __init__(self, batch: Batch, slots: list[tuple[str, ...]], options: Options) -> None:
        self._batch = batch
        self._python = environment.python(options.environment)
        self._free = list(reversed(slots))
        minutes = options.common.get("timeout_min")
        self._limit_s = None if minutes is None else 60.0 * minutes
        self._waiting = list(reversed(batch.positions))
        self._running: dict[int, _Running] = {}
        self._cancelled: list[int] = []
        self._jobs: dict[int, str | None] = dict.fromkeys(batch.positions)

    @property
    def jobs(self) -> dict[int, str | None]:
        return dict(self._jobs)

    def cancel(self, position: int) -> bool:
        if position in self._running:
            end(self._running[position].process.pid)
        elif position in self._waiting:
            self._waiting.remove(position)
            self._cancelled.append(position)
        return True

    def step(self) -> dict[int, Report]:
        reports = {position: self._ended(position) for position in self._exited()}
        reports |= {position: Report(State.ENDED, "cancelled before it started") for position in self._cancelled}
        self._cancelled.clear()
        while self._free and self._waiting:
            self._start(self._waiting.pop())
        return reports

    def close(self) -> None:
        deadline = time.monotonic() + _GRACE_S
        for running in self._running.values():
            try:
                running.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("process %d has stored its result and does not exit", running.process.pid)
        self._running.clear()

    def has_unstarted(self) -> bool:
        return bool(self._waiting or self._cancelled)

    def abandon(self) -> tp.Sequence[int]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def interrupt(self) -> tp.Sequence[int]:
        positions = [*self.abandon(), *self._running]
        end(*(running.process.pid for running in self._running.values()))
        for running in self._running.values():
            running.process.wait()
        self._running.clear()
        return positions

    def _exited(self) -> list[int]:
        now = time.monotonic()
        return [p for p, r in self._running.items() if r.process.poll() is not None or _late(r, now)]

    def _ended(self, position: int) -> Report:
        running = self._running.pop(position)
        self._free.append(running.gpus)
        if running.process.poll() is None:
            end(running.process.pid)
            running.process.wait()
            return Report(State.ENDED, f"TIMEOUT: it ran longer than timeout_min={_minutes(self._limit_s)}")
        return Report(State.ENDED, exit_reason(running.process.returncode))

    def _start(self, position: int) -> None:
        entry_point = self._batch.entry_point
        gpus = self._free.pop()
        with open(paths.position_log(self._batch.folder, position), "ab") as output:
            process = subprocess.Popen(
                # -P: the working directory is not to shadow what is installed
                [self._python, "-P", "-m", entry_point.__module__, str(self._batch.folder), str(position)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})},
            )
        _keep(process)
        deadline = None if self._limit_s is None else time.monotonic() + self._limit_s
        self._running[position] = _Running(process, gpus, deadline)
        self._jobs[position] = str(process.pid)


_processes: set[subprocess.Popen[bytes]] = set()
_lock = threading.Lock()


def _keep(process: subprocess.Popen[bytes]) -> None:
    """Until it has ended: it may outlive the launch's objects, and a Popen that goes before its process warns."""
    with _lock:
        _processes.difference_update([each for each in _processes if each.poll() is not None])
        _processes.add(process)


def _late(running: _Running, now: float) -> bool:
    return running.deadline is not None and now > running.deadline


def _minutes(seconds: float | None) -> str:
    return f"{(seconds or 0) / 60:g}"
