"""What a job costs on its node: before its first task is called, and between further ones."""

from __future__ import annotations

import functools
import json
import shutil
import typing as tp

from harness import FLOOR, OURS, Bench, RefusedError, Row, Target, in_turn, python
from sweeps import App

BARE = "bare run_job"


def rows(bench: Bench) -> tp.Iterator[Row]:
    """Jobs of the local cluster beside a program that does nothing but Hydra's own run_job on composed configs."""
    app, further = App.copied(bench, "small"), bench.count(100, 3)
    python(app.folder, "timed.py", "--compose")
    bench.say("the start of a job")
    measured = {
        OURS: functools.partial(_cold, app, _ours),
        BARE: functools.partial(_cold, app, _bare),
        FLOOR: lambda: 1e3 * python(app.folder, "-c", "pass").seconds,
    }
    samples = in_turn(bench.turns(9), measured)
    note = "from the start of the process to the call of the function; the floor is `python -c pass`"
    yield Row("jobs", "a job's first task: process start to its call", "ms", samples, note=note)
    yield _above("worker: cold start, above a bare run_job", samples, Target(most=300))
    bench.say("further tasks of a job")
    measured = {
        OURS: functools.partial(_further, app, _ours, further),
        BARE: functools.partial(_further, app, _bare, further),
        FLOOR: lambda: float("nan"),
    }
    samples = in_turn(bench.turns(), measured)
    yield Row("jobs", "a further task of the same job", "ms", samples)
    yield _above("worker: further task, above a bare run_job", samples, Target(most=5))


def _above(title: str, samples: dict[str, list[float]], target: Target) -> Row:
    pairs = zip(samples[OURS], samples[BARE], strict=True)
    return Row("jobs", title, "ms", {OURS: [ours - bare for ours, bare in pairs]}, target)


Times = list[tuple[float, float]]


def _cold(app: App, run: tp.Callable[[App, int], Times]) -> float:
    """Milliseconds from the start of the process to the first call."""
    started, called = run(app, 1)[0]
    return 1e3 * (called - started)


def _further(app: App, run: tp.Callable[[App, int], Times], tasks: int) -> float:
    """Milliseconds from call to call."""
    called = [each[1] for each in run(app, tasks + 1)]
    return 1e3 * (called[-1] - called[0]) / tasks


def _ours(app: App, tasks: int) -> Times:
    shutil.rmtree(app.folder / "exca", ignore_errors=True)
    command = app.command(tasks, "exca")
    more = ["hydra/launcher/cluster=local", f"hydra.launcher.tasks_per_job={tasks}"]
    python(app.folder, "timed.py", *command, *more)
    outcomes = (json.loads(path.read_bytes()) for path in app.folder.glob("exca/timed.main,0/*/outcome.json"))
    found: Times = [tuple(outcome["value"]["inline"]) for outcome in outcomes if outcome["status"] == "completed"]
    if len(found) != tasks:
        raise RefusedError(f"{len(found)} of {tasks} values were found")
    return sorted(found, key=lambda times: times[1])


def _bare(app: App, tasks: int) -> Times:
    lines = python(app.folder, "timed.py", "--bare", str(tasks)).output.splitlines()
    return [tuple(json.loads(line)) for line in lines if line.startswith("[1") and line.endswith("]")]
