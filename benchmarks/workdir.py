"""Copies of the code beside those of the workdir of exca, and beside `cp -r` of the same files, in turn."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

import copied
from copied import AUTO, COPY, THEIRS
from harness import EXCA, FLOOR, OURS, Bench, Row, usual_environment

VARIANTS = (AUTO, THEIRS, COPY)
STEPS = ("first time", "unchanged", "one file changed")
FOLDERS = 100
SETTLED_S = 0.2  # since a file was written: nobody launches sooner, and before it could still change unseen
Figures = dict[tuple[str, str], float]  # by step and unit


# -- the project ------------------------------------------------------------------------------------------------------


def make_project(folder: Path, files: int, size: int) -> None:
    """Files that read like python, in a repository with some that are ignored; the script is that of `copied`."""
    rng = random.Random(0)
    for number in range(files):
        path = folder / f"part{number % FOLDERS:02}/module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_text(rng, number, size))
    for number in range(50):
        path = folder / f"results/{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(_text(rng, number, size))
    (folder / ".gitignore").write_text("results/\n*.log\n")
    shutil.copy(copied.__file__, folder / "main.py")
    git = ["git", "-C", str(folder), "-c", "user.name=me", "-c", "user.email=me@host.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True)


def _text(rng: random.Random, number: int, size: int) -> str:
    lines = [f'"""Module {number}."""']
    length = 0
    while length < size:
        name, a, b = rng.randrange(10**6), rng.random(), rng.random()
        lines.append(f"def function_{name}(a, b):\n    return {a} * a + {b} * b\n")
        length += len(lines[-1]) + 1
    return "\n".join(lines)


# -- measuring ---------------------------------------------------------------------------------------------------------


class Worker(contextlib.AbstractContextManager["Worker"]):
    """A process that is a script of the project."""

    def __init__(self, project: Path, variant: str, same: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "main.py", variant],
            cwd=project,
            env=usual_environment({"SAME_FILES": str(same)}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def copy(self, target: Path) -> float:
        """Seconds."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(str(target)) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __exit__(self, *error: object) -> None:
        self._process.communicate()


def size_on_disk(folder: Path) -> int:
    """As `du` counts: each file once, in blocks."""
    found: dict[int, int] = {}
    for here, _, names in os.walk(folder):
        for path in (here, *(os.path.join(here, name) for name in names)):
            stat = os.lstat(path)
            found[stat.st_ino] = stat.st_blocks * 512
    return sum(found.values())


def measure_once(worker: Worker, edited: tp.Sequence[Path], target: Path) -> Figures:
    """The three steps in an empty folder; ``edited`` are the file and its copy for `cp`."""
    found: Figures = {}
    before = 0
    for step in STEPS:
        if step == STEPS[2]:
            text = f"# {time.time_ns()}\n{edited[0].read_text()}"
            for path in edited:
                path.write_text(text)
        os.sync()  # nobody pays for what another has written
        time.sleep(SETTLED_S)
        found[step, "ms"] = 1000 * worker.copy(target)
        after = size_on_disk(target)
        found[step, "kB"] = (after - before) / 1000
        before = after
    return found


def measure(folder: Path, files: int, size: int, repeats: int) -> dict[str, dict[tuple[str, str], list[float]]]:
    """The figures of each variant; they take turns, so what else the machine does meets all."""
    found: dict[str, dict[tuple[str, str], list[float]]] = {variant: {} for variant in VARIANTS}
    with contextlib.ExitStack() as stack:
        project, same = folder / "project", folder / "same"
        make_project(project, files, size)
        shutil.copytree(project, same, ignore=shutil.ignore_patterns(".git", "results"))
        edited = [place / "part01/module1.py" for place in (project, same)]
        workers = {variant: stack.enter_context(Worker(project, variant, same)) for variant in VARIANTS}
        for variant in VARIANTS:
            measure_once(workers[variant], edited, folder / f"warm{VARIANTS.index(variant)}")
        for repeat in range(repeats):
            for number, variant in enumerate(VARIANTS):
                figures = measure_once(workers[variant], edited, folder / f"copies{repeat}-{number}")
                for row, figure in figures.items():
                    found[variant].setdefault(row, []).append(figure)
    return found


def rows(bench: Bench) -> tp.Iterator[Row]:
    """A project of 2,000 files of 10 KB, of which some are ignored."""
    files = bench.count(2000, 20)
    bench.say(f"copies of {files} files")
    found = measure(bench.place("workdir"), files, 10_000, bench.turns())
    for step, unit in found[AUTO]:
        samples = {OURS: found[AUTO][step, unit], FLOOR: found[COPY][step, unit], EXCA: found[THEIRS][step, unit]}
        note = "the floor is `cp -r` of the same files" if unit == "ms" else "as `du` counts"
        yield Row("workdir", f"copy of {files:,} files of code, {step}", unit, samples, note=note)
