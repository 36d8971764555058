"""Typed tasks in one process: making them, their uids, loading what is stored, and looking for many."""

from __future__ import annotations

import functools
import importlib
import logging
import typing as tp
from pathlib import Path

import pydantic
from harness import EXCA, FLOOR, JOBLIB, OURS, Asked, Bench, Row, Target, in_turn, per_task, python

LOOKED_UP = 10  # times as many as are called, of which half exist


class Data(pydantic.BaseModel, extra="forbid"):
    size: tuple[int, int] = (32, 32)
    augmented: bool = False


class Task(pydantic.BaseModel):
    """Ten fields, two of them in another model."""

    seed: int = 12
    lr: float = 0.1
    epochs: int = 10
    optimizer: tp.Literal["sgd", "adam"] = "sgd"
    layers: list[int] = [32, 32]
    dropout: float | None = None
    tags: dict[str, str] = {"kind": "trial"}
    name: str = "resnet"
    data: Data = Data()


def arguments(seed: int) -> dict[str, tp.Any]:
    return {"seed": seed, "lr": 0.03, "layers": [64, 64], "data": {"size": (64, 64)}}


class Infras:
    """What is timed of one of the libraries with infras, in microseconds a task. Results are stored at first."""

    def __init__(self, library: str, tasks: int, folder: Path) -> None:
        logging.getLogger("exca").setLevel(logging.WARNING)  # of both libraries
        self._kind = _with_infra(importlib.import_module(library).TaskInfra)
        self._tasks, self._folder = tasks, folder
        self._called = self._made(range(tasks))
        for each in self._called:
            each.fit()

    def _made(self, seeds: tp.Iterable[int]) -> list[tp.Any]:
        return [self._kind(**arguments(seed), infra={"folder": self._folder}) for seed in seeds]

    def uid(self) -> float:
        """Makes the object, and asks it for its uid."""
        infra = {"folder": None}
        return per_task(
            lambda: [self._kind(**arguments(seed), infra=infra).infra.uid() for seed in range(self._tasks)], self._tasks
        )

    def call(self) -> float:
        """Makes the object, and calls it."""
        return per_task(lambda: [each.fit() for each in self._made(range(self._tasks))], self._tasks)

    def call_first(self) -> float:
        """Calls objects that are there, and were never asked for anything."""
        made = self._made(range(self._tasks))
        return per_task(lambda: [each.fit() for each in made], self._tasks)

    def call_again(self) -> float:
        """Calls objects that have been called before."""
        return per_task(lambda: [each.fit() for each in self._called], self._tasks)

    def look_up(self) -> float:
        """Asks objects for their status, half of which have a result."""
        made = self._made(range(2 * self._tasks))
        return per_task(lambda: [each.infra.status() for each in made], len(made))


class Ours(Infras):
    """The same of ours, where a launch has shorter ways."""

    def plain_uid(self) -> float:
        """As a launch does it: the validated model, and its identity."""
        from hydra_exca.identity import uid

        factory, seeds = "calls.Task", range(self._tasks)
        return per_task(
            lambda: [uid.model_identity(factory, "1", Task(**arguments(k))).uid() for k in seeds], self._tasks
        )

    def load(self) -> float:
        entries = self._entries()
        return per_task(lambda: [entry.load_value(entry.outcome()) for entry in entries], len(entries))

    def look_up(self) -> float:
        from hydra_exca.launch.lookup import Lookup
        from hydra_exca.status import Mode
        from hydra_exca.store import CacheFolder

        asked = [each.infra.identity() for each in self._made(range(2 * self._tasks))]
        lookup = Lookup(CacheFolder(self._folder))
        return per_task(lambda: lookup.look_up(asked, lambda result: Mode.CACHED), len(asked))

    def list_results(self) -> float:
        """Lists all results, and makes the table of what differs."""
        from hydra_exca import results

        return per_task(lambda: repr(results(self._folder)), self._tasks)

    def _entries(self) -> list[tp.Any]:
        from hydra_exca.store import CacheFolder

        identity = self._made([0])[0].infra.identity()
        return CacheFolder(self._folder).factory_folder(identity.factory, identity.version).entries()


class Remembered:
    """The same of joblib.Memory: a function of the arguments."""

    def __init__(self, tasks: int, folder: Path) -> None:
        import joblib

        self._function = joblib.Memory(folder, verbose=0).cache(_product)
        self._tasks = tasks
        self._stored = [self._function.call_and_shelve(**arguments(seed)) for seed in range(tasks)]

    def call(self) -> float:
        return per_task(lambda: [self._function(**arguments(seed)) for seed in range(self._tasks)], self._tasks)

    def load(self) -> float:
        return per_task(lambda: [each.get() for each in self._stored], self._tasks)

    def look_up(self) -> float:
        asked = range(2 * self._tasks)
        return per_task(lambda: [self._function.check_call_in_cache(**arguments(seed)) for seed in asked], len(asked))


def _product(seed: int, lr: float, layers: list[int], data: dict[str, tp.Any]) -> float:
    return seed * lr


def _with_infra(task_infra: tp.Any) -> tp.Any:
    class Train(Task):
        infra: task_infra = task_infra(version="1")

        @infra.apply  # type: ignore[untyped-decorator]
        def fit(self) -> float:
            return self.seed * self.lr

    return Train


# -- rows -------------------------------------------------------------------------------------------------------------

ROWS = {
    "uid": ("typed tasks: validate and uid, ten fields", Target(most=30)),
    "infra": ("the same with an infra", None),
    "load": ("cached scalar: load what an entry holds", Target(most=35)),
    "call_again": ("cached scalar: call an object again", Target(times={JOBLIB: 2})),
    "call_first": ("cached scalar: the first call of an object that is there", Target(times={JOBLIB: 2, EXCA: 15})),
    "call": ("cached scalar: make the object and call it", None),
    "look_up": ("looking up uids of which half exist", Target(most=20)),
    "list": ("listing results as a table", Target(most=100)),
}
CALLS = ("call_again", "call_first", "call")  # as many with each library: what a cache of the processor holds counts
METHODS = {
    "uid": {OURS: "plain_uid", EXCA: "uid"},
    "infra": {OURS: "uid", EXCA: "uid"},
    "load": {OURS: "load", JOBLIB: "load"},
    "call_again": {OURS: "call_again", EXCA: "call_again", JOBLIB: "call"},
    "call_first": {OURS: "call_first", EXCA: "call_first", JOBLIB: "call"},
    "call": {OURS: "call", EXCA: "call", JOBLIB: "call"},
    "look_up": {OURS: "look_up", EXCA: "look_up", JOBLIB: "look_up"},
    "list": {OURS: "list_results"},
}
NOTES = {
    "uid": "",
    "load": "joblib: MemorizedResult.get(); exca has no equivalent",
    "call_again": "joblib: a call of the function, as it has no objects; exca keeps the value in memory",
    "call_first": "joblib: a call of the function, as it has no objects",
    "list": "hydra_exca.results; exca and joblib have no equivalent",
}
FLOORS = {"uid": "validated", "load": "loaded", "look_up": "looked_up", "list": "loaded"}


def rows(bench: Bench) -> tp.Iterator[Row]:
    """Each library in a process of its own; 5,000 results are stored with ours, 500 with the others."""
    many, few = bench.count(5000, 20), bench.count(500, 10)
    places = {who: bench.place("calls") for who in (OURS, EXCA, JOBLIB)}
    bench.say(f"storing {many} results, and {few} with exca and joblib")
    with (
        Asked(Ours, "hydra_exca", many, places[OURS]) as ours,
        Asked(Infras, "hydra_exca", few, bench.place("calls")) as calling,
        Asked(Infras, "exca", few, places[EXCA]) as exca,
        Asked(Remembered, few, places[JOBLIB]) as joblib,
    ):
        asked = {OURS: ours, EXCA: exca, JOBLIB: joblib}
        for name, (title, target) in ROWS.items():
            bench.say(title)
            of = {**asked, OURS: calling} if name in CALLS else asked
            measured = {who: functools.partial(of[who].ask, method) for who, method in METHODS[name].items()}
            if name in FLOORS:
                measured[FLOOR] = functools.partial(_floor, FLOORS[name], places[OURS], 2 * many)
            title = f"{title} ({2 * many:,})" if name == "look_up" else title
            note = NOTES.get(name, "" if name in CALLS else f"exca and joblib with {few} results")
            yield Row("calls", title, "us", in_turn(bench.turns(), measured), target, note)


def _floor(loop: str, folder: Path, count: int) -> float:
    from harness import HERE

    return float(python(folder, str(HERE / "floors.py"), loop, str(folder), str(count)).output)
