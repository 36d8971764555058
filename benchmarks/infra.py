"""Measures the infras beside those of exca: the same models and calls, in one process for each library, in turn.

python benchmarks/infra.py                       # all cases
python benchmarks/infra.py uid status --tasks 200 --repeats 9
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib
import io
import logging
import multiprocessing
import statistics
import tempfile
import time
import typing as tp
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pydantic

OURS, THEIRS = "hydra_exca", "exca"
Figures = dict[str, float]  # by what was measured, with its unit


class Data(pydantic.BaseModel, extra="forbid"):
    path: str = "/data/images"
    size: tuple[int, int] = (32, 32)
    augmented: bool = False
    workers: int = 4
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("workers",)


class Bench:
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
        gc.collect()
        start = time.perf_counter()
        run()
        return 1e6 * (time.perf_counter() - start) / self.tasks


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


def uid(bench: Bench) -> Figures:
    without, stored = bench.objects(stored=False), bench.objects()
    return {
        "uid() without a folder, us": bench.time(lambda: [task.infra.uid() for task in without]),
        "uid() of what is stored, us": bench.time(lambda: [task.infra.uid() for task in stored]),
    }


def clone(bench: Bench) -> Figures:
    first, *_ = tasks = bench.objects()
    return {
        "clone_obj() of one object, us": bench.time(
            lambda: [first.infra.clone_obj({"seed": seed}) for seed in range(bench.tasks)]
        ),
        "clone_obj() of many objects, us": bench.time(lambda: [task.infra.clone_obj({"seed": 3}) for task in tasks]),
    }


def status(bench: Bench) -> Figures:
    tasks = bench.objects()
    return {"status() of what is stored, us": bench.time(lambda: [task.infra.status() for task in tasks])}


def call(bench: Bench) -> Figures:
    tasks = bench.objects()
    return {"a call of what is stored, us": bench.time(lambda: [task.fit() for task in tasks])}


def array(bench: Bench) -> Figures:
    tasks = bench.objects()

    def run() -> None:
        with tasks[0].infra.job_array() as listed:
            listed.extend(tasks)

    return {"job_array() of what is stored, us": bench.time(run)}


def items(bench: Bench) -> Figures:
    """Ten small arrays for each task."""
    asked = range(10 * bench.tasks)
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder, contextlib.redirect_stderr(io.StringIO()):
        infra = {"folder": Path(folder) / "items", "keep_in_ram": False}
        written = bench.time(lambda: bench.map_model(infra=infra).of(asked)) / 10
        reader = bench.map_model(infra=infra)
        read = bench.time(lambda: [row.sum() for row in reader.of(asked)]) / 10
        again = bench.time(lambda: [row.sum() for row in reader.of(asked)]) / 10
        size = sum(path.stat().st_size for path in infra["folder"].rglob("*") if path.is_file())
    return {
        "writing one of many items, us": written,
        "reading one of many items, us": read,
        "reading it again, us": again,
        "on disk for each item, bytes": size / len(asked),
    }


CASES: dict[str, tp.Callable[[Bench], Figures]] = {
    case.__name__: case for case in (uid, clone, status, call, array, items)
}

# -- running ----------------------------------------------------------------------------------------------------------


class Worker(contextlib.AbstractContextManager["Worker"]):
    """A process that imports one of the libraries."""

    def __init__(self, library: str, tasks: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, library, tasks))
        self._process.start()
        theirs.close()  # else nothing tells that the process has ended
        self._ours.recv()

    def measure(self, case: str) -> Figures:
        self._ours.send(case)
        return tp.cast(Figures, self._ours.recv())

    def __exit__(self, *error: object) -> None:
        self._ours.close()
        self._process.join()


def _serve(pipe: Connection, library: str, tasks: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(library, tasks, Path(folder))
        logging.getLogger("exca").setLevel(logging.WARNING)  # of both libraries
        pipe.send("ready")
        with contextlib.suppress(EOFError):  # no more questions
            while True:
                pipe.send(CASES[pipe.recv()](bench))


def measure(cases: tp.Sequence[str], tasks: int, repeats: int) -> dict[str, dict[str, float]]:
    """The median of each row, by library; the two take turns, so what else the machine does meets both."""
    found: dict[str, dict[str, list[float]]] = {}
    with Worker(OURS, tasks) as ours, Worker(THEIRS, tasks) as theirs:
        for case in cases:
            for _ in range(repeats):
                for library, worker in ((OURS, ours), (THEIRS, theirs)):
                    for row, figure in worker.measure(case).items():
                        found.setdefault(row, {}).setdefault(library, []).append(figure)
    return {row: {library: statistics.median(each) for library, each in by.items()} for row, by in found.items()}


def table(rows: tp.Mapping[str, tp.Mapping[str, float]]) -> str:
    """As text, and as Markdown."""
    lines = ["| | hydra_exca | exca | ratio |", "|---|--:|--:|--:|"]
    for row, by in rows.items():
        lines.append(f"| {row} | {by[OURS]:.0f} | {by[THEIRS]:.0f} | {by[THEIRS] / by[OURS]:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all if none is given")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    print(table(measure(options.cases or list(CASES), options.tasks, options.repeats)))


if __name__ == "__main__":
    main()
