"""A kill, a torn write and each errno at every file-system call of a program; then the same again.

A program is run once to count its calls; then once for each call and fault, in a process forked from this one. Where
it lives on, it runs again in the same process; then it runs in a new process, and once more. Values must be those of a
run without faults, errors must be ours and name the path, and nothing is computed again once it is stored.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
import typing as tp
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import programs
from file_system import KILL, STAYING, TORN, Call, FileSystem

from hydra_exca import files
from hydra_exca.errors import ExcaError

LONGEST_S = 60.0  # what takes longer hangs
SCRATCH = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None  # fsync costs nothing there


@dataclasses.dataclass(frozen=True)
class Point:
    """A fault in the call ``number`` (from 1) of a process, the launch or its first job, of a program."""

    program: str
    process: str
    number: int
    fault: str

    def __str__(self) -> str:
        return f"{self.program}:{self.process}:{self.number}:{self.fault}"

    @classmethod
    def parse(cls, text: str) -> Point:
        program, process, number, fault = text.split(":")
        return cls(program, process, int(number), fault)


@dataclasses.dataclass
class Run:
    """What a process said of one run of a program."""

    value: tp.Any = None
    error: str | None = None
    is_ours: bool = True
    computed: list[str] = dataclasses.field(default_factory=list)
    stored: list[str] = dataclasses.field(default_factory=list)


class HangError(Exception):
    """A process does not end."""


def count_calls(program: str, process: str) -> list[Call]:
    """The file-system calls of a process of the program when nothing fails."""
    with _folder(program) as folder:
        (calls,) = _in_process(lambda send: _count(folder, program, process, send), folder)
        log = folder / "calls"
        return calls or [Call(*line.split(" ", 1)) for line in log.read_text().splitlines()]


def list_points(program: str, process: str) -> list[Point]:
    """The faults of each call. A disk on which a job can write nothing until its end is not among them.

    Then the job cannot release its claim either, and a job that ends while it holds its claim has failed.
    """
    calls = count_calls(program, process)
    points = [Point(program, process, at, fault) for at, call in enumerate(calls, 1) for fault in call.faults()]
    return [point for point in points if process == "launch" or not point.fault.startswith(STAYING)]


def check_point(point: Point) -> list[str]:
    """What is wrong after the fault, in words; nothing if all is as it should be."""
    with _folder(point.program) as folder:
        try:
            return list(_check(point, folder))
        except HangError as error:
            return [f"it hangs: {error}"]


def _check(point: Point, folder: Path) -> Iterator[str]:
    program, before = programs.PROGRAMS[point.program], _state(folder, point.program, Run())
    runs = [("with the fault", run) for run in _in_process(lambda send: _first_process(folder, point, send), folder)]
    if runs[1:]:
        runs[1] = ("again in the same process", runs[1][1])
    after = _state(folder, point.program, Run())
    if point.fault not in (KILL, TORN) and not runs:
        yield "the process died"
    for name in ("again in a new process", "and once more"):
        (run,) = _in_process(lambda send: _next_process(folder, point, send), folder)
        runs.append((name, run))
    for name, run in runs:
        may_fail = point.fault if name == "with the fault" else ""
        yield from (f"{name}: {problem}" for problem in _problems(run, program, folder, may_fail))
    states = [before, *(run for _, run in runs[:-2]), after, *(run for _, run in runs[-2:])]
    for old, new in itertools.pairwise(states):
        if not program.forces or new not in states[1:-2]:  # else it is asked for
            yield from _broken_promises(old, new)


def _broken_promises(old: Run, new: Run) -> Iterator[str]:
    """What was computed in vain, or lost, between two states of a cache."""
    twice = sorted(set(old.stored) & set(new.computed[len(old.computed) :]))
    if twice:
        yield f"computed again though stored: {twice}"
    lost = sorted(set(old.stored) - set(new.stored))
    if lost:
        yield f"stored, and gone: {lost}"


def _problems(run: Run, program: programs.Program, folder: Path, may_fail: str) -> Iterator[str]:
    if run.error is None:
        if run.value != program.value:
            yield f"it gave {run.value!r}"
    elif not may_fail:
        yield f"it failed: {run.error}"
    elif not run.is_ours:
        yield f"it raised {run.error}"
    elif may_fail not in (KILL, TORN) and str(folder) not in run.error:
        yield f"its error names no path: {run.error}"


# -- in the processes


def _first_process(folder: Path, point: Point, send: Callable[[object], None]) -> None:
    system = FileSystem([folder / "cache", folder / "machine", folder / "sweep"], point.number, point.fault)
    if point.process == "launch":
        system.install()
    programs.start_jobs_by_forks(system.install if point.process == "job" else None)
    run = _run(folder, point.program, system)
    send(run)
    system.fault = ""
    send(_run(folder, point.program, system, point))


def _count(folder: Path, program: str, process: str, send: Callable[[object], None]) -> None:
    system = FileSystem([folder / "cache", folder / "machine", folder / "sweep"])
    if process == "launch":
        system.install()
    programs.start_jobs_by_forks(
        (lambda: (system.install(), system.log_to(folder / "calls"))) if process == "job" else None
    )
    _run(folder, program, system)
    send(system.calls if process == "launch" else [])


def _next_process(folder: Path, point: Point, send: Callable[[object], None]) -> None:
    programs.start_jobs_by_forks(None)
    send(_run(folder, point.program, None, point))


def _run(folder: Path, program: str, system: FileSystem | None, after: Point | None = None) -> Run:
    """Runs a program, as after a fault if one is given."""
    chosen, run = programs.PROGRAMS[program], Run()
    call = chosen.run
    if after is not None and after.process == "job" and after.fault in (KILL, TORN) and chosen.retry is not None:
        call = chosen.retry
    elif after is not None and system is None:
        call = chosen.again
    try:
        run.value = call(folder)
    except Exception as error:  # noqa: BLE001  it is what is looked at
        run.error = f"{type(error).__name__}: {error}"
        run.is_ours = isinstance(error, ExcaError) or (
            isinstance(error, programs.SweepFailedError) and "Traceback" not in str(error)
        )
        if not run.is_ours:
            frames = [
                frame for frame in traceback.extract_tb(error.__traceback__) if "torture/tests" not in frame.filename
            ]
            run.error += " at " + " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
    if system is not None:
        system.is_on = False
    run = _state(folder, program, run)
    if system is not None:
        system.is_on = True
    return run


def _state(folder: Path, program: str, run: Run) -> Run:
    notes = folder / "notes"
    run.computed = notes.read_text().splitlines() if notes.exists() else []
    run.stored = programs.PROGRAMS[program].stored(folder)
    return run


@dataclasses.dataclass
class Process:
    """A process that is forked from this one, with the warm imports."""

    pid: int
    pipe: Connection

    def collect(self) -> list[tp.Any]:
        """All that it sends until it ends, by SIGKILL or otherwise. Raises HangError if that takes too long."""
        received = []
        try:
            while self.pipe.poll(LONGEST_S):
                received.append(self.pipe.recv())
            raise HangError(f"after {len(received)} runs")
        except EOFError:
            return received
        finally:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pipe.close()


def start_process(work: Callable[[Callable[[tp.Any], None]], None], folder: Path) -> Process:
    here, there = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            here.close()
            _begin(folder)
            work(there.send)
        os._exit(0)
    there.close()
    return Process(child, here)


def _in_process(work: Callable[[Callable[[tp.Any], None]], None], folder: Path) -> list[tp.Any]:
    return start_process(work, folder).collect()


def _begin(folder: Path) -> None:
    os.setsid()
    os.environ.update(NOTES=str(folder / "notes"), EXCA_MACHINE_FOLDER=str(folder / "machine"))
    os.chdir(folder)
    out = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # pytest has its own
    files._PAUSES_S = (0.0, 0.0)  # the disk stays full for less than half a minute


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="exca-torture-", dir=SCRATCH, ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextlib.contextmanager
def _folder(program: str) -> Iterator[Path]:
    with scratch_folder() as folder:
        _in_process(lambda send: programs.PROGRAMS[program].prepare(folder), folder)
        yield folder
