"""What the installed plugin, the callback and the launcher add to the start of a program."""

from __future__ import annotations

import functools
import itertools
import statistics
import typing as tp
from pathlib import Path

from harness import HERE, OURS, Bench, Row, Samples, Target, in_turn, python
from sweeps import App, finished

import hydra_plugins

PLUGIN = "hydra_exca_launcher"
WITHOUT = "without it"
_number = itertools.count()


def rows(bench: Bench) -> tp.Iterator[Row]:
    """Programs with the plugin and without it in turn; what it adds is the median of the differences."""
    app = App.copied(bench, "small")
    plugins = {who: bench.place("plugins") for who in (OURS, WITHOUT)}
    for who, folder in plugins.items():
        _link_plugins(folder, but=None if who == OURS else PLUGIN)
    starts: dict[str, list[str]] = {"--help": ["--help"], "a single run": ["hydra.run.dir=outputs/one"]}
    for what, arguments in starts.items():
        bench.say(f"start-up, {what}")
        run = functools.partial(_started, app)
        measured = {who: functools.partial(run, folder, arguments) for who, folder in plugins.items()}
        samples = in_turn(bench.turns(31), measured)
        yield _added(f"start-up added by the plugin, {what}", samples, Target(most=15))
    yield from _of_choices(bench, app)


def _of_choices(bench: Bench, app: App) -> tp.Iterator[Row]:
    bench.say("start-up, the callback and the launcher")
    run = functools.partial(app.run, "hydra.run.dir=outputs/one")
    measured = {
        OURS: lambda: 1e3 * app.run("hydra.run.dir=outputs/one", "hydra/callbacks=exca").seconds,
        WITHOUT: lambda: 1e3 * run().seconds,
    }
    yield _added("start-up added by hydra/callbacks=exca, a single run", in_turn(bench.turns(11), measured))
    app.compute(1)
    measured = {
        OURS: lambda: 1e3 * finished(app, 1).seconds,
        WITHOUT: lambda: 1e3 * app.sweep(1, "basic").seconds,
    }
    title = "a sweep of one finished job, above one of the basic launcher"
    yield _added(title, in_turn(bench.turns(11), measured), Target(most=150))


def _added(title: str, samples: Samples, target: Target | None = None) -> Row:
    """The differences of two that were measured one after the other: between turns machines change more."""
    added = [ours - without for ours, without in zip(samples[OURS], samples[WITHOUT], strict=True)]
    return Row(
        "startup", title, "ms", {OURS: added}, target, f"{statistics.median(samples[WITHOUT]):.0f} ms without it"
    )


def _started(app: App, plugins: Path, arguments: list[str]) -> float:
    """Milliseconds."""
    return 1e3 * python(app.folder, str(HERE / "hide.py"), str(plugins), "train.py", *arguments).seconds


def _link_plugins(folder: Path, but: str | None) -> None:
    found = {each.name: each for place in hydra_plugins.__path__ for each in Path(place).iterdir() if each.is_dir()}
    for name, place in found.items():
        if name not in (but, "__pycache__"):
            (folder / name).symlink_to(place.resolve())
