"""The infras beside those of exca: the same models and calls, in one process for each library, in turn."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import itertools
import logging
import os
import tempfile
import typing as tp
import zlib
from pathlib import Path

import numpy as np
import pydantic
from harness import EXCA, FLOOR, OURS, Asked, Bench, Row, Samples, Target, in_turn, per_task

from hydra_exca import paths

Figures = dict[str, float]  # by what was measured, with its unit


class Data(pydantic.BaseModel, extra="forbid"):
    path: str = "/data/images"
    size: tuple[int, int] = (32, 32)
    augmented: bool = False
    workers: int = 4
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("workers",)


class Library:
    """What the cases of one library use: a model of ten fields, its objects, a folder with their results."""

    def __init__(self, library: str, tasks: int, folder: Path) -> None:
        self.model = _model(importlib.import_module(library).TaskInfra)
        self.map_model = _map_model(importlib.import_module(library).MapInfra)
        self.tasks = tasks
        self.folder = folder

    @functools.cached_property
    def results(self) -> Path:
        """A folder with the results of all tasks."""
        for task in self._objects(self.folder / "results"):
            task.fit()
        return self.folder / "results"

    def objects(self, stored: bool = True) -> list[tp.Any]:
        """New objects, one for each task, as after a restart; not ``stored``: without a folder."""
        return self._objects(self.results if stored else None)

    def _objects(self, folder: Path | None) -> list[tp.Any]:
        data, infra = {"size": (64, 64)}, {"folder": folder}
        return [self.model(seed=k, lr=0.03, layers=[64, 64], data=data, infra=infra) for k in range(self.tasks)]

    def time(self, run: tp.Callable[[], object]) -> float:
        """Microseconds a task."""
        return per_task(run, self.tasks)

    def measure(self) -> list[Figures]:
        """Everything, once."""
        return [case(self) for case in CASES]


def _model(task_infra: tp.Any) -> tp.Any:
    class Train(pydantic.BaseModel):
        seed: int = 12
        lr: float = 0.1
        epochs: int = 10
        optimizer: tp.Literal["sgd", "adam"] = "sgd"
        layers: list[int] = [32, 32]
        dropout: float | None = None
        tags: dict[str, str] = {"kind": "trial"}
        device: str = "cpu"
        name: str = "resnet"
        data: Data = Data()
        infra: task_infra = task_infra(version="1")
        _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("device",)

        @infra.apply  # type: ignore[untyped-decorator]
        def fit(self) -> float:
            return self.seed * self.lr

    return Train


def _map_model(map_infra: tp.Any) -> tp.Any:
    def of(self: tp.Any, items: tp.Any) -> tp.Iterator[np.ndarray]:
        for item in items:
            yield np.full(self.size, item, dtype=np.float32)

    of.__annotations__["items"] = list[int]  # exca reads it, and no text

    method = of

    class Rows(pydantic.BaseModel):
        size: int = 32
        infra: map_infra = map_infra(version="1")
        of = infra.apply(item_uid=str)(method)

    return Rows


# -- cases ------------------------------------------------------------------------------------------------------------


def uid(library: Library) -> Figures:
    without, stored = library.objects(stored=False), library.objects()
    return {
        "uid() without a folder, us": library.time(lambda: [task.infra.uid() for task in without]),
        "uid() of what is stored, us": library.time(lambda: [task.infra.uid() for task in stored]),
    }


def unchanged(library: Library) -> Figures:
    """exca freezes an object when it is asked for its uid first."""
    first, *_ = library.objects()
    first.fit()
    first.infra.uid()
    return {"uid() of an unchanged object, us": library.time(lambda: [first.infra.uid() for _ in range(library.tasks)])}


def clone(library: Library) -> Figures:
    first, *_ = tasks = library.objects()
    return {
        "clone_obj() of one object, us": library.time(
            lambda: [first.infra.clone_obj({"seed": seed}) for seed in range(library.tasks)]
        ),
        "clone_obj() of many objects, us": library.time(lambda: [task.infra.clone_obj({"seed": 3}) for task in tasks]),
    }


def status(library: Library) -> Figures:
    tasks = library.objects()
    return {"status() of what is stored, us": library.time(lambda: [task.infra.status() for task in tasks])}


def call(library: Library) -> Figures:
    tasks = library.objects()
    return {"a call of what is stored, us": library.time(lambda: [task.fit() for task in tasks])}


def array(library: Library) -> Figures:
    tasks = library.objects()

    def run() -> None:
        with tasks[0].infra.job_array() as listed:
            listed.extend(tasks)

    return {"job_array() of what is stored, us": library.time(run)}


def items(library: Library) -> Figures:
    """Ten small arrays for each task."""
    asked = range(10 * library.tasks)
    with tempfile.TemporaryDirectory(dir=library.folder) as folder, contextlib.redirect_stderr(io.StringIO()):
        infra = {"folder": Path(folder) / "items", "keep_in_ram": False}
        written = library.time(lambda: library.map_model(infra=infra).of(asked)) / 10
        reader = library.map_model(infra=infra)
        read = library.time(lambda: [row.sum() for row in reader.of(asked)]) / 10
        again = library.time(lambda: [row.sum() for row in reader.of(asked)]) / 10
        size = sum(path.stat().st_size for path in infra["folder"].rglob("*") if path.is_file())
    return {
        "writing one of many items, us": written,
        "reading one of many items, us": read,
        "reading it again, us": again,
        "on disk for each item, bytes": size / len(asked),
    }


def kept(library: Library) -> Figures:
    """Items in memory, which 48 objects have written."""
    asked = range(4 * library.tasks)
    with tempfile.TemporaryDirectory(dir=library.folder) as folder, contextlib.redirect_stderr(io.StringIO()):
        infra = {"folder": Path(folder) / "items"}
        for start in range(_WRITERS):
            list(library.map_model(infra=infra).of(asked[start::_WRITERS]))
        reader = library.map_model(infra=infra)
        list(reader.of(asked))
        return {
            "a kept item, asked alone, us": library.time(lambda: [list(reader.of([k])) for k in range(library.tasks)]),
            "a kept item, all in one call, us": library.time(lambda: list(reader.of(asked))) / 4,
        }


CASES: tuple[tp.Callable[[Library], Figures], ...] = (uid, unchanged, clone, status, call, array, items, kept)
TARGETS = {"uid() of an unchanged object, us": Target(most=8)}
_WRITERS = 48


class Crowded:
    """Launches of three new tasks, in an empty folder and in one with many entries."""

    def __init__(self, library: str, entries: int, folder: Path) -> None:
        logging.getLogger("exca").setLevel(logging.WARNING)
        self._model = _model(importlib.import_module(library).TaskInfra)
        self._folder = folder
        self._seeds = itertools.count()
        self._launch(folder)
        (project,) = folder.glob(f"*/{paths.PROJECT}")
        for number in range(entries):
            os.mkdir(f"{project.parent}/seed={number},lr=0.03-{zlib.crc32(b'%d' % number):08x}")

    def empty(self) -> float:
        with tempfile.TemporaryDirectory(dir=self._folder.parent) as folder:
            self._launch(Path(folder))
            return self._launch(Path(folder))

    def crowded(self) -> float:
        return self._launch(self._folder)

    def _launch(self, folder: Path) -> float:
        """Milliseconds."""
        tasks = [self._model(seed=next(self._seeds), infra={"folder": folder}) for _ in range(3)]

        def run() -> None:
            with tasks[0].infra.job_array() as listed:
                listed.extend(tasks)

        with contextlib.redirect_stderr(io.StringIO()):
            return per_task(run, 1) / 1000


def rows(bench: Bench) -> tp.Iterator[Row]:
    """Each library in a process of its own."""
    tasks = bench.count(500, 5)
    found: dict[str, Samples] = {}
    with (
        Asked(_of, "hydra_exca", tasks, bench.place("infra")) as ours,
        Asked(_of, "exca", tasks, bench.place("infra")) as exca,
    ):
        for _ in range(bench.turns()):
            for who, asked in ((OURS, ours), (EXCA, exca)):
                bench.say(f"infras, {who}")
                for what, figure in (pair for figures in asked.ask("measure") for pair in figures.items()):
                    found.setdefault(what, {}).setdefault(who, []).append(figure)
    for what, samples in found.items():
        title, _, unit = what.rpartition(", ")
        yield Row("infra", f"infras: {title}", unit, samples, TARGETS.get(what))
    entries = bench.count(100_000, 100)
    bench.say(f"making {entries} entries")
    with Asked(Crowded, "hydra_exca", entries, bench.place("crowded")) as launches:
        measured = {OURS: lambda: launches.ask("crowded"), FLOOR: lambda: launches.ask("empty")}
        title = f"infras: 3 new tasks among {entries:,} entries"
        yield Row("infra", title, "ms", in_turn(bench.turns(), measured), note="floor: in an empty folder")


def _of(name: str, tasks: int, folder: Path) -> Library:
    logging.getLogger("exca").setLevel(logging.WARNING)  # of both libraries
    return Library(name, tasks, folder)
