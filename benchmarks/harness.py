"""What all benchmarks share: running a program, asking a process of a library, taking turns, rows of samples."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import textwrap
import time
import typing as tp
from multiprocessing.connection import Connection
from pathlib import Path

HERE = Path(__file__).parent
OURS, FLOOR, EXCA, JOBLIB = "hydra-exca", "floor", "exca 0.6", "joblib"
Samples = dict[str, list[float]]  # by who was measured


class RefusedError(Exception):
    """A program that failed, or that this machine cannot run."""


@dataclasses.dataclass(frozen=True)
class Target:
    """What a row is to reach: at most ``most`` in its unit, at least ``times`` as fast as another, or both."""

    most: float | None = None
    times: tp.Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        words = [] if self.most is None else [f"at most {self.most:g}"]
        return ", ".join([*words, *(f"{each:g} x {who}" for who, each in self.times.items())])

    def is_met(self, medians: tp.Mapping[str, float]) -> bool:
        ours = medians[OURS]
        fast = all(medians[who] >= each * ours for who, each in self.times.items() if who in medians)
        return fast and (self.most is None or ours <= self.most)


@dataclasses.dataclass
class Row:
    """One line of the table. ``note`` says what was measured in another way than the row says."""

    group: str
    title: str
    unit: str
    samples: Samples
    target: Target | None = None
    note: str = ""

    @property
    def medians(self) -> dict[str, float]:
        return {who: statistics.median(each) for who, each in self.samples.items() if each}

    @property
    def is_met(self) -> bool | None:
        """None where there is no target, or ours was not measured."""
        return self.target.is_met(self.medians) if self.target is not None and OURS in self.medians else None


@dataclasses.dataclass(frozen=True)
class Bench:
    """How much is measured, and where."""

    folder: Path
    quick: bool = False
    repeats: int = 5

    def count(self, usual: int, quick: int) -> int:
        return quick if self.quick else usual

    def turns(self, usual: int | None = None) -> int:
        return 1 if self.quick else usual or self.repeats

    def place(self, name: str) -> Path:
        """An empty folder."""
        place = self.folder / f"{name}-{len(os.listdir(self.folder))}"
        place.mkdir()
        return place

    def say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} load {os.getloadavg()[0]:.1f}  {text}", file=sys.stderr, flush=True)


def in_turn(turns: int, measured: tp.Mapping[str, tp.Callable[[], float]]) -> Samples:
    """The samples of each, which take turns: what else the machine does meets all. Who fails is left out, and why.

    Every other turn goes the other way round: nobody always comes after the same one.
    """
    found: Samples = {who: [] for who in measured}
    for turn in range(turns):
        order = list(measured) if turn % 2 == 0 else list(reversed(measured))
        for who in filter(found.__contains__, order):
            try:
                found[who].append(measured[who]())
            except RefusedError as error:
                print(f"{who} is left out: {error}", file=sys.stderr, flush=True)
                del found[who]
    return found


def per_task(run: tp.Callable[[], object], tasks: int) -> float:
    """Microseconds."""
    gc.collect()
    start = time.perf_counter()
    run()
    return 1e6 * (time.perf_counter() - start) / tasks


# -- programs ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a program took, with those that it has waited for."""

    seconds: float
    cpu_s: float
    peak_mb: float
    output: str


class Program(contextlib.AbstractContextManager["Program"]):
    """A program that is measured; it ends with the block."""

    def __init__(
        self, command: tp.Sequence[str], folder: Path, environment: tp.Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self._output = folder.with_suffix(f".{time.monotonic_ns()}.txt")  # not in the folder, which may be weighed
        with open(self._output, "wb") as output:
            self.started = time.time()
            self._process = subprocess.Popen(
                command, cwd=folder, env=usual_environment(environment), stdout=output, stderr=subprocess.STDOUT
            )

    def is_over(self) -> bool:
        """Raises RefusedError if it ended with an error."""
        if self._process.poll():
            raise RefusedError(self._said())
        return self._process.returncode is not None

    def wait(self) -> Ended:
        """What it took; RefusedError if it ended with an error."""
        _, status, usage = os.wait4(self._process.pid, 0)
        seconds = time.time() - self.started
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.is_over()
        text = self._output.read_text(errors="replace")
        return Ended(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _said(self) -> str:
        lines = [line for line in self._output.read_text(errors="replace").splitlines() if line.strip()]
        return textwrap.shorten(" ".join(lines[-4:]), 300)


def usual_environment(more: tp.Mapping[str, str] | None = None) -> dict[str, str]:
    """That of a user: the libraries are compiled, which some environments of developers forbid."""
    left_out = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "EXCA_FOLDER")
    return {**{name: value for name, value in os.environ.items() if name not in left_out}, **(more or {})}


def python(folder: Path, *arguments: str, environment: tp.Mapping[str, str] | None = None) -> Ended:
    """Runs this python to its end."""
    with Program([sys.executable, *arguments], folder, environment) as program:
        return program.wait()


# -- a process for each library ---------------------------------------------------------------------------------------


class Asked(contextlib.AbstractContextManager["Asked"]):
    """A process of its own that holds what ``make(*arguments)`` gives, and is asked to call its methods."""

    def __init__(self, make: tp.Callable[..., object], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments))
        self._process.start()
        theirs.close()  # else nothing tells that the process has ended
        self._ours.recv()

    def ask(self, method: str) -> tp.Any:
        self._ours.send(method)
        return self._ours.recv()

    def __exit__(self, *error: object) -> None:
        self._ours.close()
        self._process.join()


def _serve(pipe: Connection, make: tp.Callable[..., object], arguments: tuple[object, ...]) -> None:
    made = make(*arguments)
    pipe.send("ready")
    with contextlib.suppress(EOFError):  # no more questions
        while True:
            pipe.send(getattr(made, pipe.recv())())


# -- showing ----------------------------------------------------------------------------------------------------------


def tables(rows: tp.Sequence[Row]) -> str:
    """As text, and as Markdown: a table for each group, beside the medians how many times ours is faster or smaller."""
    groups = dict.fromkeys(row.group for row in rows)
    return "\n\n".join(_table([row for row in rows if row.group == group]) for group in groups)


def _table(rows: tp.Sequence[Row]) -> str:
    others = list(dict.fromkeys(who for row in rows for who in row.samples if who not in (OURS, FLOOR)))
    heads = ["", "unit", OURS, FLOOR, *others, "target", "met"]
    lines = [heads, ["---", "---", *["--:"] * (2 + len(others)), "---", "---"], *(_cells(row, others) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def _cells(row: Row, others: tp.Sequence[str]) -> list[str]:
    medians = row.medians
    met = {None: "", True: "yes", False: "NO"}[row.is_met]
    target = "" if row.target is None else str(row.target)
    own = [number(medians.get(who)) for who in (OURS, FLOOR)]
    theirs = [_beside(medians.get(who), medians.get(OURS)) for who in others]
    return [row.title, row.unit, *own, *theirs, target, met]


def _beside(theirs: float | None, ours: float | None) -> str:
    return number(theirs) if theirs is None or not ours else f"{number(theirs)} ({theirs / ours:.1f} x)"


def number(value: float | None) -> str:
    """
    >>> number(1234.5), number(12.345), number(0.01234), number(None)
    ('1,234', '12.3', '0.0123', '')
    """
    if value is None or not math.isfinite(value):
        return ""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{digits}f}"
