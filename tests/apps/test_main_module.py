"""In a job the program is the script: ``__main__`` is what it is without us, for whatever looks for it there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from apps import PACKED, App

CLUSTERS = ["inline", "local", PACKED, pytest.param("slurm", marks=pytest.mark.slurm)]
IMPORTS = """
from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import pickle
import subprocess
import sys
from typing import ClassVar as Shared

import cloudpickle
import hydra
import joblib
from apps import tell_returns


def double(x: int) -> int:
    return 2 * x


@dataclasses.dataclass
class Shape:
    sides: int = 3
    kind: Shared[str] = "flat"


COUNT = [0]


def count() -> int:
    COUNT[0] += 1
    return COUNT[0]
"""
MAIN = """
@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def train(cfg):
    print("the output of", Shape.__module__, flush=True)
    try:
        raise KeyError(Shape())
    except KeyError as error:
        text = repr(error)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        spawned = pool.map(double, [cfg.seed])
    plain = pickle.dumps([Shape, double])
    value = cloudpickle.dumps(Shape(4))
    other = subprocess.run(
        [sys.executable, "-c", f"import pickle; print(pickle.loads({value!r}).sides)"], capture_output=True, text=True
    )
    return {
        "names": [__name__, Shape.__module__, double.__module__, logging.getLogger(__name__).name],
        "main": [sys.modules["__main__"].__dict__ is globals(), sys.modules["__main__"].train is train],
        "fields": [field.name for field in dataclasses.fields(Shape)],
        "error": text,
        "joblib": joblib.Parallel(n_jobs=2)(joblib.delayed(double)(x) for x in range(3)),
        "spawn": spawned,
        "pickle": [b"__main__" in plain, pickle.loads(plain)[0] is Shape],
        "cloudpickle": other.stdout,
        "count": [count(), count(), COUNT[0]],
    }
"""
GUARD = """
if __name__ == "__main__":
    tell_returns()
    train()
"""
SCRIPTS = {
    "a guarded script": IMPORTS + MAIN + GUARD,
    "a function below the guard": IMPORTS
    + "if __name__ == '__main__':\n"
    + (MAIN + "\ntell_returns()\ntrain()\n").replace("\n", "\n    "),
}


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_a_job_computes_what_it_computes_without_us(tmp_path: Path, script: str, cluster: str) -> None:
    app = App(tmp_path)
    app.write("train.py", script)
    without = app.run("seed=2", launcher="basic").values
    assert without[0]["joblib"] == [0, 2, 4], without
    assert app.run("seed=2", cluster=cluster).values == without


BELOW = """
import pickle

import hydra
from apps import tell_returns

if __name__ == "__main__":

    class Shape:
        def __init__(self, sides):
            self.sides = sides

        def bigger(self):
            return Shape(self.sides + 1)

    def make(sides):
        return Shape(sides)

    @hydra.main(version_base="1.3", config_path="conf", config_name="config")
    def train(cfg):
        again = pickle.loads(pickle.dumps([Shape, make, make(cfg.seed).bigger()]))
        return [again[0] is Shape, again[1] is make, again[2].sides, type(again[2]) is Shape, Shape.__module__]

    tell_returns()
    train()
"""


@pytest.mark.parametrize("cluster", ["inline", "local"])
@pytest.mark.parametrize("guarded", [True, False])
def test_plain_pickle_finds_what_travelled_by_value(tmp_path: Path, guarded: bool, cluster: str) -> None:
    app = App(tmp_path)
    app.write("train.py", BELOW if guarded else BELOW.replace('if __name__ == "__main__":', "if True:"))
    expected: list[Any] = [True, True, 2, True, "__main__"]
    assert app.run("seed=1", cluster=cluster).values == [expected]
