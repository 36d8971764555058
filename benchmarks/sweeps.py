"""Whole sweeps of jobs that do nothing, under each launcher: found again, computed, submitted."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import shutil
import sys
import typing as tp
from pathlib import Path

from harness import FLOOR, HERE, OURS, Bench, Ended, Program, RefusedError, Row, Samples, Target, in_turn, python

BASIC, JOBLIB, SUBMITIT = "basic launcher", "joblib launcher", "submitit, local"
LAUNCHERS = {BASIC: "basic", JOBLIB: "joblib", SUBMITIT: "submitit_local"}
CONFIGS = {"small": "config", "large": "train"}
_PACKED = 2  # jobs that compute all tasks: one for each of the two cores
_number = itertools.count()


@dataclasses.dataclass(frozen=True)
class App:
    """A copy of one of the apps, in a folder of its own, with its results."""

    name: str
    folder: Path

    @classmethod
    def copied(cls, bench: Bench, name: str) -> App:
        folder = bench.place(name)
        shutil.copytree(HERE / "apps" / name, folder, dirs_exist_ok=True)
        return cls(name, folder)

    def run(self, *arguments: str) -> Ended:
        return python(self.folder, "train.py", *arguments)

    def sweep(self, tasks: int, launcher: str, *arguments: str) -> Ended:
        return self.run(*self.command(tasks, launcher), *arguments)

    def command(self, tasks: int, launcher: str) -> list[str]:
        """Each sweep in a folder of its own: those of one second would have the same."""
        place = f"hydra.sweep.dir=multirun/{next(_number)}"
        return ["--multirun", f"seed=range({tasks})", f"hydra/launcher={launcher}", place]

    def start_up(self) -> float:
        """Seconds of a plain run of the program: python, Hydra, one composition, and the function."""
        return self.run(f"hydra.run.dir=outputs/{next(_number)}").seconds

    def compute(self, tasks: int) -> None:
        """Has the results of a sweep in the cache."""
        packed = f"hydra.launcher.tasks_per_job={-(-tasks // _PACKED)}"
        self.sweep(tasks, "exca", "hydra/launcher/cluster=local", packed)


def finished(app: App, tasks: int) -> Ended:
    done = app.sweep(tasks, "exca", "hydra/launcher/cluster=local")
    if f" {tasks} reused" not in done.output:
        raise RefusedError(f"not everything was cached: {done.output[-300:]}")
    return done


def _above(app: App, tasks: int, run: tp.Callable[[], float]) -> float:
    """Milliseconds a task, of a whole process less the start-up of Hydra."""
    return 1e3 * (run() - app.start_up()) / tasks


def _floor(loop: str, folder: Path, count: int) -> float:
    """Milliseconds a task."""
    return float(python(folder, str(HERE / "floors.py"), loop, str(folder), str(count)).output) / 1e3


def found_again(bench: Bench) -> tp.Iterator[Row]:
    """Finished sweeps."""
    most, many, others = bench.count(10_000, 12), bench.count(1000, 6), bench.count(40, 2)
    small, large = App.copied(bench, "small"), App.copied(bench, "large")
    bench.say(f"computing {most:,} jobs of the small app and {many:,} of the large one")
    small.compute(most)
    large.compute(many)
    yield _found(bench, small, many, others, Target(most=1.2, times={BASIC: 80}))
    yield _found(bench, large, many, max(2, others // 2), Target(most=5))
    yield from _many(bench, small, many, most)


def _found(bench: Bench, app: App, tasks: int, others: int, target: Target) -> Row:
    bench.say(f"a finished sweep of the {app.name} app")
    ours = functools.partial(_above, app, tasks, lambda: finished(app, tasks).seconds)
    measured = {OURS: ours, FLOOR: functools.partial(_floor, "found", app.folder / "exca", tasks)}
    for who, launcher in LAUNCHERS.items():
        count = others if who == BASIC else max(2, others // 2)
        run = functools.partial(lambda count, launcher: app.sweep(count, launcher).seconds, count, launcher)
        measured[who] = functools.partial(_above, app, count, run)
    note = f"the other launchers compute {others} jobs or half of that, scaled up; minus a plain run"
    title = f"finished sweep again, {app.name}, {tasks:,} jobs, a job"
    return Row("found", title, "ms", in_turn(bench.turns(), measured), target, note)


def _many(bench: Bench, app: App, many: int, most: int) -> tp.Iterator[Row]:
    bench.say(f"a finished sweep of {most:,} jobs")
    figures: Samples = {"s": [], "MB": [], "few": [], "most": []}
    for _ in range(bench.turns(3)):
        start, done = app.start_up(), finished(app, most)
        figures["s"].append(done.seconds)
        figures["MB"].append(done.peak_mb)
        figures["most"].append((done.seconds - start) / most)
        figures["few"].append((finished(app, many).seconds - start) / many)
    ratios = [each / few for each, few in zip(figures["most"], figures["few"], strict=True)]
    floor = [_floor("found", app.folder / "exca", most) * most / 1e3]
    title = f"finished sweep again, small, {most:,} jobs"
    yield Row("found", f"{title}, whole process", "s", {OURS: figures["s"], FLOOR: floor}, Target(most=13))
    yield Row("found", f"{title}, peak memory", "MB", {OURS: figures["MB"]}, Target(most=1000))
    growth = f"growth: the cost of a job at {most:,} to that at {many:,}"
    yield Row("found", growth, "ratio", {OURS: ratios}, Target(most=1.2))


def computed(bench: Bench) -> tp.Iterator[Row]:
    """Jobs that do nothing, on this machine."""
    tasks, others = bench.count(1000, 4), bench.count(100, 2)
    app = App.copied(bench, "small")
    bench.say("jobs that do nothing on this machine")

    def ours() -> float:
        shutil.rmtree(app.folder / "exca", ignore_errors=True)
        packed = f"hydra.launcher.tasks_per_job={-(-tasks // _PACKED)}"
        return app.sweep(tasks, "exca", "hydra/launcher/cluster=local", packed).seconds

    measured = {
        OURS: functools.partial(_above, app, tasks, ours),
        FLOOR: functools.partial(_floor, "computed", bench.place("floor"), tasks),
        JOBLIB: functools.partial(
            _above, app, others, lambda: app.sweep(others, "joblib", "hydra.launcher.n_jobs=2").seconds
        ),
    }
    packed = f"{_PACKED} jobs of tasks_per_job={-(-tasks // _PACKED)}"
    note = f"hydra-exca in {packed}; {others} jobs with joblib; minus a plain run"
    title = f"{tasks:,} tasks that do nothing, local, packed, a task"
    yield Row("computed", title, "ms", in_turn(bench.turns(3), measured), Target(times={JOBLIB: 5}), note)


def submitted(bench: Bench) -> tp.Iterator[Row]:
    """What the launching process does for each task, with processes of this machine."""
    tasks, others = bench.count(1000, 4), bench.count(20, 2)
    app = App.copied(bench, "small")
    bench.say("submitting to this machine")
    sizes: Samples = {OURS: [], SUBMITIT: []}

    def ours() -> float:
        shutil.rmtree(app.folder / "exca", ignore_errors=True)
        packed = f"hydra.launcher.tasks_per_job={-(-tasks // _PACKED)}"
        command = app.command(tasks, "exca")
        more = ["hydra/launcher/cluster=local", packed, "hydra.launcher.wait=false"]
        done = app.run(*command, *more)
        sizes[OURS].append(_size(app.folder / "exca") / tasks)
        app.sweep(tasks, "exca", "hydra/launcher/cluster=local", packed)  # waits: nothing is left that goes on
        return done.seconds

    def theirs() -> float:
        place = app.folder / f"multirun/{next(_number)}"
        command = ["train.py", *app.command(others, "submitit_local")[:-1], f"hydra.sweep.dir={place}"]
        with Program([sys.executable, *command], app.folder) as program:
            program.wait()
            handed_over = [path.stat().st_mtime for path in place.rglob("*_submitted.pkl")]
            sizes[SUBMITIT].append(sum(path.stat().st_size for path in place.rglob("*_submitted.pkl")) / others)
            return max(handed_over) - program.started

    measured = {
        OURS: functools.partial(_above, app, tasks, ours),
        FLOOR: functools.partial(_floor, "submitted", bench.place("floor"), tasks),
        SUBMITIT: functools.partial(_above, app, others, theirs),
    }
    found = in_turn(bench.turns(3), measured)
    note = f"hydra-exca with wait=false; {others} jobs with submitit, until the last is handed over; minus a plain run"
    title = f"submitting {tasks:,} tasks, local"
    yield Row("submitted", f"{title}, client time a task", "ms", found, Target(times={SUBMITIT: 10}), note)
    note = "hydra-exca: the cache without what the tasks wrote; submitit: the pickles of its jobs"
    yield Row("submitted", f"{title}, a task", "bytes", sizes, Target(times={SUBMITIT: 10}), note)


def _size(cache: Path) -> int:
    """What the launch itself has written: no copy of the code, and nothing of the tasks that have started meanwhile."""
    launches = sum(path.stat().st_size for path in cache.glob("launches/*/*") if path.is_file())
    of_launch = ("claim.1.json", "config.yaml")
    return launches + sum(path.stat().st_size for name in of_launch for path in cache.glob(f"*/*/{name}"))
