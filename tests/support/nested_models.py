"""A task that asks for a task that asks for a map, one of whose items fails."""

from __future__ import annotations

import typing as tp

import pydantic

from hydra_exca import MapInfra, TaskInfra


def double(item: int) -> int:
    if item == 3:
        raise ValueError("three is bad")
    return 2 * item


class Doubled(pydantic.BaseModel):
    lazy: bool = True
    infra: MapInfra = MapInfra()

    @infra.apply(item_uid=lambda item: f"item-{item}")
    def load(self, items: tp.Iterable[int]) -> tp.Iterable[int]:
        return map(double, items) if self.lazy else list(map(double, items))


class Fit(pydantic.BaseModel):
    doubled: Doubled = Doubled()
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> int:
        return sum(self.doubled.load([1, 2, 3, 4]))


class Study(pydantic.BaseModel):
    part: Fit = Fit()
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def run(self) -> int:
        try:
            return self.part.fit()
        finally:
            self.part.infra.uid()
