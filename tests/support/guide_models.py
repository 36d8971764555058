"""Models as users bring them along, for jobs to import too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pydantic
from apps import note, wait_for

from hydra_exca import MapInfra, TaskInfra


class TutorialTask(pydantic.BaseModel):
    param: int = 12
    infra: TaskInfra = TaskInfra(version="1")

    @infra.apply
    def process(self) -> float:
        note("process", self.param)
        return float(self.param * np.random.default_rng().random())


class TutorialMap(pydantic.BaseModel):
    param: int = 12
    infra: MapInfra = MapInfra(version="1")

    @infra.apply(item_uid=str)
    def process(self, items: Iterable[int]) -> Iterator[np.ndarray]:
        for item in items:
            note("process", item)
            yield np.random.default_rng().random((item, self.param))


class Failing(pydantic.BaseModel):
    cure: Path = Path("cure")
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def process(self) -> int:
        note("process", "again")
        if not self.cure.exists():
            raise KeyError("no cure")
        return 12


class Waiting(pydantic.BaseModel):
    go: Path = Path("go")
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def process(self) -> int:
        wait_for(str(self.go))
        return 12
