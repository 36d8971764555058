"""Measures sweeps on Slurm beside those of hydra-submitit-launcher: the same app and tasks, whole processes, in turn.

python benchmarks/slurm.py                                    # on the Slurm that squeue talks to (SLURM_CONF)
python benchmarks/slurm.py --tasks 40 --repeats 3 --only submitit exca --json figures.json
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
import typing as tp
from pathlib import Path

COUNTED = ("sbatch", "squeue", "sacct", "scontrol", "scancel")
THEIRS = "submitit"
_OURS = ("hydra/launcher=exca", "hydra/launcher/cluster=slurm")
_PAUSE_S = 0.25
_SETTLED = 4  # looks in a row that see the same files
_LIMIT_S = 3600.0

# by name: the overrides of a sweep, None for the floor
VARIANTS: dict[str, tuple[str, ...] | None] = {
    THEIRS: ("hydra/launcher=submitit_slurm",),
    "exca": _OURS,
    "exca-16": (*_OURS, "hydra.launcher.tasks_per_job=16"),
    "exca-32x2": (*_OURS, "hydra.launcher.tasks_per_job=32", "hydra.launcher.workers_per_job=2"),
    "floor": None,
}
MEANING = {
    THEIRS: "hydra-submitit-launcher, one job a task",
    "exca": "hydra-exca-launcher, one job a task",
    "exca-16": "the same, tasks_per_job=16",
    "exca-32x2": "the same, tasks_per_job=32 workers_per_job=2",
    "floor": "sbatch of as many jobs of `python -c pass`",
}
APP = """
    import hydra


    @hydra.main(version_base=None, config_path=".", config_name="config")
    def main(config):
        return config.seed


    if __name__ == "__main__":
        main()
"""
CONFIG = """
    seed: 0
    lr: 0.1
    optimizer: sgd
    model: {name: resnet, layers: [32, 32]}
"""
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


@dataclasses.dataclass(frozen=True)
class Figures:
    """One run: seconds since its start, what it had written before a task could run, and what it cost."""

    submitted_s: float
    back_s: float
    bytes: float
    files: float
    calls: float
    launch_cpu_s: float
    job_cpu_s: float


HEADS = {
    "submitted_s": "submitted, s",
    "back_s": "back, s",
    "bytes": "bytes",
    "files": "files",
    "calls": "calls",
    "launch_cpu_s": "launch CPU, s",
    "job_cpu_s": "jobs CPU, s",
}


class RefusedError(Exception):
    """A variant that this version of the launcher does not have, or that failed."""


# -- what Slurm is asked ----------------------------------------------------------------------------------------------


class Scheduler:
    """Slurm's commands, and wrappers of them that note each call."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self._real = {name: _which(name) for name in COUNTED}
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
        if not self.jobs():
            return
        self.ask("scancel", *self.jobs())
        while self.ask("squeue", "-h", "-j", ",".join(self.jobs())).strip():
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


def _which(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        sys.exit(f"There is no {name} on this machine. CONTRIBUTING.md, Slurm, tells how to start one for tests.")
    return found


def check(scheduler: Scheduler) -> None:
    """Ends the program if Slurm does not answer."""
    if " is UP" not in scheduler.ask("scontrol", "ping"):
        sys.exit(
            "Slurm does not answer `scontrol ping`. Export SLURM_CONF if its configuration is not in the usual place; "
            'to start one for tests, as root: eval "$(tests/slurm/start)"'
        )


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


# -- a run ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Run:
    """One variant, in a folder of its own."""

    name: str
    tasks: int
    folder: Path
    scheduler: Scheduler

    def measure(self) -> Figures:
        """Once with the jobs held, for the bytes; once for all else."""
        size, count = self._weigh()
        self.scheduler.forget()
        try:
            return self._time(size, count)
        finally:
            self.scheduler.end()

    def _time(self, size: int, count: int) -> Figures:
        with self._started("run", hold=False) as process:
            if self._command() is None:
                self._wait_for_jobs(process.started)
            usage = process.wait()
        back = time.time() - process.started
        if not self.scheduler.submissions():
            raise RefusedError("nothing was submitted")
        return Figures(
            submitted_s=self.scheduler.submissions()[-1][0] - process.started,
            back_s=back,
            bytes=size,
            files=count,
            calls=self.scheduler.started(),
            launch_cpu_s=usage,
            job_cpu_s=self.scheduler.cpu_s(),
        )

    def _weigh(self) -> tuple[int, int]:
        """Bytes and files that are there before any task may run."""
        self.scheduler.forget()
        try:
            with self._started("held", hold=True) as process:
                while not self.scheduler.submissions():
                    if process.is_over() and not self.scheduler.submissions():
                        raise RefusedError("nothing was submitted")
                    time.sleep(_PAUSE_S)
                return _settled(process.folder)
        finally:
            self.scheduler.end()

    @contextlib.contextmanager
    def _started(self, what: str, *, hold: bool) -> tp.Iterator[Process]:
        folder = self.folder / what
        folder.mkdir(parents=True)
        for name, text in (("app.py", APP), ("config.yaml", CONFIG)):
            (folder / name).write_text(textwrap.dedent(text).lstrip())
        command = self._command() or self._floor()
        process = Process(command, folder, self.scheduler.environment(hold=hold))
        try:
            yield process
        finally:
            process.end()

    def _command(self) -> list[str] | None:
        overrides = VARIANTS[self.name]
        if overrides is None:
            return None
        return [sys.executable, "app.py", "--multirun", f"seed=range({self.tasks})", *overrides]

    def _floor(self) -> list[str]:
        wrapped = f"--wrap={sys.executable} -c pass"
        return ["sbatch", "--parsable", f"--array=0-{self.tasks - 1}", "--output=%A_%a.out", wrapped]

    def _wait_for_jobs(self, started: float) -> None:
        while time.time() < started + _LIMIT_S:
            jobs = ",".join(self.scheduler.jobs())
            if jobs and not self.scheduler.ask("squeue", "-h", "-t", "PENDING,RUNNING", "-j", jobs).strip():
                return
            time.sleep(_PAUSE_S)


class Process:
    """A program that is measured."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._output = folder.with_suffix(".txt")  # not in the folder that is weighed
        found = shutil.which(command[0], path=environment["PATH"]) or command[0]
        with open(self._output, "wb") as output:
            self.started = time.time()
            self._process = subprocess.Popen(
                [found, *command[1:]], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    def is_over(self) -> bool:
        """Raises RefusedError if it ended with an error."""
        if self._process.poll():
            raise RefusedError(self._said())
        return self._process.returncode is not None

    def wait(self) -> float:
        """Its CPU seconds, with those of what it has called, at its end."""
        before = os.times()
        try:
            self._process.wait(timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise RefusedError(f"it was not over after {_LIMIT_S:g} s") from None
        self.is_over()
        now = os.times()
        return now.children_user + now.children_system - before.children_user - before.children_system

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _said(self) -> str:
        lines = [line for line in self._output.read_text(errors="replace").splitlines() if line.strip()]
        return textwrap.shorten(" ".join(lines[-4:]), 300)


def _settled(folder: Path) -> tuple[int, int]:
    """What is in a folder once nothing more is written."""
    seen = [_size(folder)]
    while len(seen) < _SETTLED or len(set(seen[-_SETTLED:])) > 1:
        time.sleep(_PAUSE_S)
        seen.append(_size(folder))
    return seen[-1]


def _size(folder: Path) -> tuple[int, int]:
    """Bytes and files, without the app itself; what goes away while it is counted does not count."""
    total = count = 0
    for place, _, names in os.walk(folder):
        for name in names:
            if Path(place) == folder and name in ("app.py", "config.yaml"):
                continue
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size
                count += 1
    return total, count


# -- all of them ------------------------------------------------------------------------------------------------------


def measure(names: tp.Sequence[str], tasks: int, repeats: int, folder: Path) -> dict[str, list[Figures]]:
    """The figures of each variant; they take turns, so what else the machine does meets all."""
    scheduler = Scheduler(folder)
    check(scheduler)
    found: dict[str, list[Figures]] = {name: [] for name in names}
    for repeat in range(repeats):
        for name in [name for name in names if name in found]:
            _say(f"{name}, {repeat + 1} of {repeats}, load average {os.getloadavg()[0]:.1f}, {_others(scheduler)}")
            try:
                found[name].append(Run(name, tasks, folder / f"{name}-{repeat}", scheduler).measure())
            except RefusedError as error:
                _say(f"{name} is left out: {error}")
                del found[name]
    return found


def _others(scheduler: Scheduler) -> str:
    return f"{len(scheduler.ask('squeue', '-h', '-r').splitlines())} other jobs in the queue"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def medians(found: tp.Mapping[str, tp.Sequence[Figures]]) -> dict[str, Figures]:
    fields = [field.name for field in dataclasses.fields(Figures)]
    return {
        name: Figures(**{field: statistics.median(getattr(run, field) for run in runs) for field in fields})
        for name, runs in found.items()
    }


def table(middle: tp.Mapping[str, Figures]) -> str:
    """As text, and as Markdown. Behind each figure its ratio to that of hydra-submitit-launcher."""
    lines = ["| | " + " | ".join(HEADS.values()) + " |", "|---|" + "--:|" * len(HEADS)]
    for name, figures in middle.items():
        cells = [_cell(getattr(figures, field), middle.get(THEIRS), field) for field in HEADS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(figure: float, theirs: Figures | None, field: str) -> str:
    shown = f"{figure:.1f}" if field.endswith("_s") else f"{figure:,.0f}"
    base = None if theirs is None else getattr(theirs, field)
    return f"{shown} ({figure / base:.2f})" if base else shown


def machine(scheduler_version: str) -> dict[str, tp.Any]:
    packages = ("hydra-exca-launcher", "hydra-submitit-launcher", "submitit", "hydra-core", "omegaconf", "pydantic")
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "slurm": scheduler_version,
        **{package: _version(package) for package in packages},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def slurm_version() -> str:
    done = subprocess.run([_which("sbatch"), "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"[\d.]+", done.stdout)
    return found[0] if found else "unknown"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures, machine and versions")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="shared with the nodes; else a temporary folder's")
    return parser.parse_args()


def main() -> None:
    options = parse()
    before = machine(slurm_version())
    with tempfile.TemporaryDirectory(prefix="slurm-benchmark-", dir=options.folder) as folder:
        found = measure(options.only, options.tasks, options.repeats, Path(folder).resolve())
    after = os.getloadavg()
    print(table(medians(found)))
    print(f"\n{options.tasks} tasks, medians of {options.repeats}; in brackets: times the figure of {THEIRS}.")
    print("\n".join(f"{name}: {MEANING[name]}" for name in found))
    print(
        f"{before['cores']} cores, load average {before['load_average'][0]:.1f} before and {after[0]:.1f} after (the "
        f"jobs' own, and whatever else runs here); Slurm {before['slurm']}, python {before['python']}"
    )
    if options.json is not None:
        runs = {name: [dataclasses.asdict(run) for run in each] for name, each in found.items()}
        options.json.write_text(json.dumps({"machine": before, "tasks": options.tasks, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
