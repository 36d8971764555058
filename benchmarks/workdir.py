"""Measures snapshots of code beside the workdir of exca and beside `cp -r` of the same files, in turn.

python benchmarks/workdir.py                       # 2,000 files of 10 KB
python benchmarks/workdir.py --files 200 --repeats 3
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import typing as tp
from pathlib import Path

AUTO, NAMED, THEIRS, COPY = "copied=auto", "copied=[.]", "exca 0.6", "cp -r"
VARIANTS = (AUTO, NAMED, THEIRS, COPY)
STEPS = ("first time", "unchanged", "one file changed")
FOLDERS = 100
SETTLED_S = 0.2  # since a file was written: nobody launches sooner, and before it could still change unseen
Figures = dict[tuple[str, str], float]  # by step and unit


# -- the project ------------------------------------------------------------------------------------------------------


def make_project(folder: Path, files: int, size: int) -> None:
    """Files that read like python, in a repository with some that are ignored; this file is its script."""
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
    shutil.copy(__file__, folder / "main.py")
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


# -- in a process of the project ---------------------------------------------------------------------------------------


def copy_ours(copied: str, target: Path) -> None:
    """As a launch does it: what the code is now, and the copy."""
    from hydra_exca.code import Code, CodeOptions
    from hydra_exca.workdir import Rules

    rules = Rules(("*.py", "*.yaml", "*.yml", "*.toml"), ("__pycache__", ".git"), ignores=True, max_mb=50)
    code = Code(CodeOptions((copied,), rules), target)
    code.check()
    code.snapshot()


def copy_theirs(target: Path) -> None:
    """As an infra does it for a submission: to a folder of its own. By an absolute path: of "." it copies nothing."""
    from exca.workdir import WorkDir

    target.mkdir(exist_ok=True)
    excludes = ("__pycache__", ".git", "results")
    with WorkDir(copied=[os.getcwd()], excludes=excludes, folder=_next(target)).activate():
        pass


def copy_plainly(target: Path) -> None:
    target.mkdir(exist_ok=True)
    subprocess.run(["cp", "-r", os.environ["SAME_FILES"], _next(target)], check=True)


def _next(target: Path) -> Path:
    return target / str(len(os.listdir(target)))


COPIES: dict[str, tp.Callable[[Path], None]] = {
    AUTO: lambda target: copy_ours("auto", target),
    NAMED: lambda target: copy_ours(".", target),
    THEIRS: copy_theirs,
    COPY: copy_plainly,
}


def serve(variant: str) -> None:
    """Copies to the folders that it is told, and answers how long that took."""
    with contextlib.redirect_stdout(sys.stderr):  # what exca says
        logging.disable(logging.WARNING)
        for line in sys.stdin:
            start = time.perf_counter()
            COPIES[variant](Path(json.loads(line)))
            print(json.dumps(time.perf_counter() - start), file=sys.__stdout__, flush=True)


# -- measuring ---------------------------------------------------------------------------------------------------------


class Worker(contextlib.AbstractContextManager["Worker"]):
    """A process that is a script of the project."""

    def __init__(self, project: Path, variant: str, same: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "main.py", "--serve", variant],
            cwd=project,
            env={**os.environ, "SAME_FILES": str(same)},
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


def measure(files: int, size: int, repeats: int) -> dict[str, Figures]:
    """The median of each figure, by variant; they take turns, so what else the machine does meets all."""
    found: dict[str, dict[tuple[str, str], list[float]]] = {variant: {} for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
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
    return {v: {row: statistics.median(each) for row, each in rows.items()} for v, rows in found.items()}


def table(found: tp.Mapping[str, Figures]) -> str:
    """As text, and as Markdown."""
    lines = [f"| | {' | '.join(VARIANTS)} |", f"|---|{'--:|' * len(VARIANTS)}"]
    for row in found[AUTO]:
        figures = " | ".join(f"{found[variant][row]:,.0f}" for variant in VARIANTS)
        lines += [f"| {', '.join(row)} | {figures} |"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--serve", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    else:
        print(table(measure(options.files, options.size, options.repeats)))


if __name__ == "__main__":
    main()
