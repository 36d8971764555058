"""Models whose method works on items, for jobs to import too. Each notes its items in the file ``NOTES``."""

from __future__ import annotations

import os
import signal
import typing as tp
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pydantic
from apps import note, wait_for

from hydra_exca import MapInfra


class Scaled(pydantic.BaseModel):
    """The simplest one: three times the scaled item."""

    scale: int = 2
    offset: float = 0.0
    device: str = "cpu"
    infra: MapInfra = MapInfra(version="1")
    _exclude_from_class_uid = ("device",)

    @infra.apply(item_uid=str, exclude_from_cache_uid=("offset",))
    def of(self, items: Sequence[int]) -> Iterator[np.ndarray]:
        for item in items:
            note("of", item)
            yield np.full(3, self.scale * item)


class Listed(pydantic.BaseModel):
    """Returns a list, of whatever type its items ask for."""

    kind: str = "int"
    infra: MapInfra = MapInfra()

    @infra.apply(item_uid=str)
    def of(self, items: list[int]) -> list[tp.Any]:
        for item in items:
            note("of", item)
        makers: dict[str, tp.Callable[[int], tp.Any]] = {
            "int": int,
            "str": str,
            "dict": lambda item: {"item": item},
            "tuple": lambda item: (item, str(item)),
            "none": lambda item: None,
            "array": lambda item: np.arange(item, dtype=np.float32).reshape(1, item),
            "class": Found,
        }
        return [makers[self.kind](item) for item in items]


class Found:
    def __init__(self, item: int) -> None:
        self.item = item

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Found) and other.item == self.item

    __hash__ = None  # type: ignore[assignment]


class Breaks(pydantic.BaseModel):
    """Goes wrong at item ``at``: raises, stops early, goes on too long, kills its process, leaves for good."""

    how: str = "raises"
    at: int = 3
    infra: MapInfra = MapInfra()

    @infra.apply(item_uid=str, exclude_from_cache_uid=("how", "at"))
    def of(self, items: Iterable[int]) -> Iterator[int]:
        for item in items:
            if item == self.at and self.how == "raises":
                raise KeyError("no such thing")
            if item == self.at and self.how == "few":
                return
            if item == self.at and self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            note("of", item)
            yield item
        if self.how == "many":
            yield -1


class Waits(pydantic.BaseModel):
    """Yields each item once there is a file ``go``."""

    go: str = ""
    infra: MapInfra = MapInfra()

    @infra.apply(item_uid=str, exclude_from_cache_uid=("go",))
    def of(self, items: Sequence[int]) -> Iterator[int]:
        for item in items:
            note("of", item)
            wait_for(self.go)
            yield 10 * item


class NotIterable(pydantic.BaseModel):
    infra: MapInfra = MapInfra()

    @infra.apply(item_uid=str)
    def of(self, items: list[int]) -> int:
        return len(items)


class Where(pydantic.BaseModel):
    """Tells the working directory."""

    infra: MapInfra = MapInfra()

    @infra.apply(item_uid=str)
    def of(self, items: list[int]) -> list[str]:
        return [os.getcwd()] * len(items)


class Fibonacci(pydantic.BaseModel):
    """Asks itself for the items before."""

    infra: MapInfra = MapInfra()

    @infra.apply(item_uid=str)
    def of(self, items: list[int]) -> Iterator[int]:
        for item in items:
            yield item if item < 2 else sum(self.of([item - 1, item - 2]))
