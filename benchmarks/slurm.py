"""Sweeps on Slurm beside those of hydra-submitit-launcher: the small app, whole programs, in turn.

A sweep is run with its jobs held for what there is before any task can start, and as users run it for the rest.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

from harness import FLOOR, OURS, Bench, Program, RefusedError, Row, Samples, Target
from sweeps import App

COUNTED = ("sbatch", "squeue", "sacct", "scontrol", "scancel")
THEIRS = "submitit, Slurm"
_PAUSE_S = 0.05
_SETTLED = 4  # looks in a row that see the same files
_SETTLE_S = 0.25
_LIMIT_S = 3600.0
_OURS = ("exca", "hydra/launcher/cluster=slurm")
PACKED = "hydra.launcher.tasks_per_job=16"
VARIANTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "one job a task": (_OURS,),
    "16 tasks a job": ((*_OURS, PACKED),),
}
# the time in the shell's own words: a process for it would be part of what is measured
WRAPPER = """\
#!/bin/bash
echo "${{EPOCHREALTIME/,/.}} {name} start" >> {calls}
exec {real} "$@"
"""
SBATCH = """\
#!/bin/bash
echo "${{EPOCHREALTIME/,/.}} sbatch start" >> {calls}
said=$({real} $BENCHMARK_HOLD "$@"); status=$?
submitted='^(Submitted batch job )?([0-9]+)( |;|$)'  # and not what --version says
[[ $said =~ $submitted ]] && echo "${{EPOCHREALTIME/,/.}} sbatch end ${{BASH_REMATCH[2]}}" >> {calls}
echo "$said"
exit $status
"""


# -- what Slurm is asked ----------------------------------------------------------------------------------------------


class Scheduler:
    """Slurm's commands, and wrappers of them that note each call."""

    def __init__(self, folder: Path) -> None:
        check()
        self.calls = folder / "calls"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self._real = {name: str(shutil.which(name)) for name in COUNTED}
        for name, real in self._real.items():
            text = (SBATCH if name == "sbatch" else WRAPPER).format(name=name, calls=self.calls, real=real)
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)

    def ask(self, name: str, *arguments: str) -> str:
        """What a command says; not one of those that are counted."""
        done = subprocess.run([self._real[name], *arguments], capture_output=True, text=True, check=False, timeout=60)
        return done.stdout

    def environment(self, *, hold: bool) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "BENCHMARK_HOLD": "--hold" if hold else "",
        }

    def forget(self) -> None:
        self.calls.unlink(missing_ok=True)

    def started(self) -> int:
        """How many calls there were."""
        return sum(line.endswith(" start") for line in self._lines())

    def submissions(self) -> list[tuple[float, str]]:
        """When each sbatch was through, and the job it made."""
        ends = [line.split() for line in self._lines() if " sbatch end " in line]
        return [(float(when), job) for when, _, _, job in ends]

    def jobs(self) -> list[str]:
        return [job for _, job in self.submissions()]

    def end(self) -> None:
        """Ends what was submitted and is not over, and waits for its end."""
        if self.jobs():
            self.ask("scancel", *self.jobs())
            self.wait()

    def wait(self) -> None:
        """Waits for the end of everything that was submitted."""
        until = time.time() + _LIMIT_S
        while self.ask("squeue", "-h", "-j", ",".join(self.jobs())).strip():
            if time.time() > until:
                raise RefusedError(f"jobs were not over after {_LIMIT_S:g} s")
            time.sleep(_PAUSE_S)

    def cpu_s(self) -> float:
        """CPU seconds of all jobs, with those of Slurm's own srun in them; NaN if the accounting does not tell."""
        if not self.jobs() or not self._accounted():
            return float("nan")
        told = self.ask("sacct", "-n", "-P", "-o", "JobID,TotalCPU", "-j", ",".join(self.jobs()))
        rows = [row.split("|") for row in told.split()]
        return sum(_seconds(spent) for job, spent in rows if "." not in job)  # with a dot: a step, counted in its job

    def _accounted(self) -> bool:
        """Waits a little for the accounting to have all ends."""
        for _ in range(80):
            states = self.ask("sacct", "-n", "-P", "-X", "-o", "State", "-j", ",".join(self.jobs())).split()
            if states and not {"PENDING", "RUNNING", "COMPLETING"} & set(states):
                return True
            time.sleep(_PAUSE_S)
        return False

    def _lines(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


def check() -> None:
    """Raises RefusedError if Slurm does not answer."""
    missing = [name for name in COUNTED if shutil.which(name) is None]
    if missing:
        raise RefusedError(f"there is no {missing[0]} on this machine; CONTRIBUTING.md tells how to start a Slurm")
    done = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, check=False, timeout=60)
    if " is UP" not in done.stdout:
        raise RefusedError('Slurm does not answer; to start one for tests, as root: eval "$(tests/slurm/start)"')


def _seconds(spelled: str) -> float:
    """
    >>> _seconds("01:02.500"), _seconds("1-00:00:01")
    (62.5, 86401.0)
    """
    days, _, clock = spelled.rpartition("-")
    total = 0.0
    for part in clock.split(":"):
        total = 60 * total + float(part)
    return total + 86400 * int(days or 0)


# -- runs -------------------------------------------------------------------------------------------------------------


def submit(app: App, scheduler: Scheduler, tasks: int, launcher: str, *arguments: str) -> tuple[float, float]:
    """Seconds until everything is in the queue, where it is held, and the bytes that are there then; per task."""
    with _sweep(app, scheduler, tasks, launcher, *arguments, hold=True) as program:
        while len(scheduler.submissions()) == 0:
            if program.is_over():
                raise RefusedError("nothing was submitted")
            time.sleep(_PAUSE_S)
        size = _settled(app.folder)
        return (scheduler.submissions()[-1][0] - program.started) / tasks, size / tasks


def sweep(app: App, scheduler: Scheduler, tasks: int, launcher: str, *arguments: str) -> dict[str, float]:
    """What a sweep costs, from its start to its end."""
    with _sweep(app, scheduler, tasks, launcher, *arguments, hold=False) as program:
        done = program.wait()
        found = {"back, s": done.seconds, "launch CPU, s": done.cpu_s, "calls of Slurm's commands": scheduler.started()}
        return {**found, "jobs CPU, s": scheduler.cpu_s()}


def bare(folder: Path, scheduler: Scheduler, tasks: int) -> dict[str, float]:
    """One sbatch of an array of as many jobs of `python -c pass`."""
    scheduler.forget()
    command = ["--parsable", f"--array=0-{tasks - 1}", "--output=/dev/null", f"--wrap={sys.executable} -c pass"]
    with Program([str(scheduler.bin / "sbatch"), *command], folder, scheduler.environment(hold=False)) as program:
        done = program.wait()
        scheduler.wait()
    found = {"back, s": time.time() - program.started, "launch CPU, s": done.cpu_s}
    return {**found, "calls of Slurm's commands": 1.0, "jobs CPU, s": scheduler.cpu_s()}


@contextlib.contextmanager
def _sweep(
    app: App, scheduler: Scheduler, tasks: int, launcher: str, *arguments: str, hold: bool
) -> tp.Iterator[Program]:
    scheduler.forget()
    for written in ("exca", "multirun"):
        shutil.rmtree(app.folder / written, ignore_errors=True)
    command = [sys.executable, "train.py", *app.command(tasks, launcher), *arguments]
    try:
        with Program(command, app.folder, scheduler.environment(hold=hold)) as program:
            yield program
    finally:
        scheduler.end()


def _settled(folder: Path) -> int:
    """The bytes below a folder, without the app itself, once nothing more is written."""
    seen = [_size(folder)]
    while len(seen) < _SETTLED or len(set(seen[-_SETTLED:])) > 1:
        time.sleep(_SETTLE_S)
        seen.append(_size(folder))
    return seen[-1]


def _size(folder: Path) -> int:
    """What goes away while it is counted does not count."""
    total = 0
    for written in ("exca", "multirun"):
        for place, _, names in os.walk(folder / written):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += os.lstat(os.path.join(place, name)).st_size
    return total


# -- rows -------------------------------------------------------------------------------------------------------------


def rows(bench: Bench) -> tp.Iterator[Row]:
    """What is submitted, and whole sweeps."""
    scheduler = Scheduler(bench.place("slurm"))
    app = App.copied(bench, "small")
    yield from _submitted(bench, app, scheduler)
    for name, (arguments,) in VARIANTS.items():
        yield from _swept(bench, app, scheduler, name, arguments)


def _submitted(bench: Bench, app: App, scheduler: Scheduler) -> tp.Iterator[Row]:
    tasks, others = bench.count(1000, 3), bench.count(100, 2)
    times: Samples = {OURS: [], THEIRS: []}
    sizes: Samples = {OURS: [], THEIRS: []}
    for _ in range(bench.turns(3)):
        for who, count, command in ((OURS, tasks, _OURS), (THEIRS, others, ("submitit_slurm",))):
            bench.say(f"submitting {count} tasks to Slurm, {who}")
            start = app.start_up()
            seconds, size = submit(app, scheduler, count, *command)
            times[who].append(1e3 * (seconds - start / count))
            sizes[who].append(size)
    note = f"jobs held; {others} tasks with submitit; minus a plain run"
    title = f"submitting {tasks:,} tasks, Slurm"
    target = Target(times={THEIRS: 10})
    yield Row("slurm", f"{title}, client time a task", "ms", times, target, note)
    yield Row("slurm", f"{title}, a task", "bytes", sizes, target, "all files on disk while the jobs are held")


def _swept(bench: Bench, app: App, scheduler: Scheduler, name: str, arguments: tuple[str, ...]) -> tp.Iterator[Row]:
    tasks = bench.count(100, 2)
    runs: dict[str, tp.Callable[[], dict[str, float]]] = {
        OURS: lambda: sweep(app, scheduler, tasks, *arguments),
        THEIRS: lambda: sweep(app, scheduler, tasks, "submitit_slurm"),
        FLOOR: lambda: bare(app.folder, scheduler, tasks),
    }
    found: dict[str, Samples] = {}
    for _ in range(bench.turns(1)):
        for who, run in runs.items():
            bench.say(f"a sweep of {tasks} tasks on Slurm, {name}, {who}")
            for what, figure in run().items():
                found.setdefault(what, {}).setdefault(who, []).append(figure)
    for what, samples in found.items():
        title, unit = (*what.split(", "), "")[:2]
        yield Row("slurm", f"{tasks} tasks on Slurm, {name}: {title}", unit, samples)
