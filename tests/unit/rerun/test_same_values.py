"""Whether two values are the same, where their bytes are not."""

from __future__ import annotations

import dataclasses
import threading
import typing as tp
from pathlib import Path

import numpy as np
import pandas as pd
import pydantic
import pytest

from hydra_exca.rerun.same_values import IncomparableError, difference

NAN = float("nan")


@dataclasses.dataclass
class Record:
    array: tp.Any
    name: str = "x"


@dataclasses.dataclass
class Slotted:
    __slots__ = ("array",)
    array: tp.Any


class Model(pydantic.BaseModel, arbitrary_types_allowed=True, extra="allow"):
    array: tp.Any = None


class Plain:
    def __init__(self, value: tp.Any) -> None:
        self.value = value


class Own:
    """One that says itself when two of it are equal, and of which no part counts."""

    def __init__(self, key: int) -> None:
        self.key, self.lock = key, threading.Lock()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own) and self.key == other.key

    __hash__ = None  # type: ignore[assignment]


def nans(last: float = 2.0) -> np.ndarray:
    return np.array([NAN, 1.0, last])


def within_itself(value: int) -> list[tp.Any]:
    held: list[tp.Any] = [value]
    held.append(held)
    return held


MAKERS: dict[str, tuple[tp.Callable[[], tp.Any], tp.Callable[[], tp.Any], str]] = {
    "float": (lambda: NAN, lambda: 1.0, ""),
    "complex": (lambda: complex(NAN, 1), lambda: 1j, ""),
    "type": (lambda: 1, lambda: 1.0, ""),
    "text": (lambda: "a b", lambda: "a", ""),
    "path": (lambda: Path("a"), lambda: Path("b"), ""),
    "list": (lambda: [1, [NAN]], lambda: [1, [2.0]], "[1][0]"),
    "length": (lambda: [1, 2], lambda: [1], ""),
    "dict": (lambda: {"a": {1: NAN}}, lambda: {"a": {1: 2.0}}, "['a'][1]"),
    "keys": (lambda: {"a": 1}, lambda: {"b": 1}, ""),
    "array": (nans, lambda: nans(3.0), ""),
    "dtype": (lambda: np.arange(3), lambda: np.arange(3.0), ""),
    "shape": (lambda: np.zeros((2, 3)), lambda: np.zeros((3, 2)), ""),
    "scalar": (lambda: np.float32(NAN), lambda: np.float32(1), ""),
    "times": (lambda: np.array(["NaT"], "M8[s]"), lambda: np.array(["2026-01-01"], "M8[s]"), ""),
    "objects": (
        lambda: np.array([nans(), "a"], dtype=object),
        lambda: np.array([nans(3.0), "a"], dtype=object),
        "[0]",
    ),
    "frame": (lambda: pd.DataFrame({"a": nans()}), lambda: pd.DataFrame({"a": nans(3.0)}), ""),
    "column": (lambda: pd.Series(nans()), lambda: pd.Series(nans(3.0)), ""),
    "dataclass": (lambda: Record(nans()), lambda: Record(nans(3.0)), ".array"),
    "slots": (lambda: Slotted([nans()]), lambda: Slotted([nans(3.0)]), ".array[0]"),
    "model": (lambda: Model(array=nans()), lambda: Model(array=nans(3.0)), ".array"),
    "extra field": (lambda: Model(more=nans()), lambda: Model(more=nans(3.0)), ".extra fields['more']"),
    "plain object": (lambda: Plain([nans()]), lambda: Plain([nans(3.0)]), ".value[0]"),
    "object with an own equality": (lambda: Own(1), lambda: Own(2), ""),
    "value within itself": (lambda: within_itself(1), lambda: within_itself(2), "[0]"),
}


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "type"])
def test_two_that_hold_the_same_are_the_same(kind: str) -> None:
    make, _, _ = MAKERS[kind]
    assert difference(make(), make()) is None


@pytest.mark.parametrize("kind", MAKERS)
def test_of_two_that_differ_the_place_is_told(kind: str) -> None:
    make, other, place = MAKERS[kind]
    assert difference(make(), other()) == place


def test_what_does_not_say_when_it_is_equal_cannot_be_compared() -> None:
    with pytest.raises(IncomparableError, match="list_iterator does not say when two of it are equal"):
        difference([iter([1])], [iter([1])])


def test_an_equality_that_raises_cannot_be_compared() -> None:
    with pytest.raises(IncomparableError, match="ValueError"):
        difference({1: {nans().tobytes(): Refuses()}}, {1: {nans().tobytes(): Refuses()}})


class Refuses:
    def __eq__(self, other: object) -> bool:
        raise ValueError("no")

    __hash__ = None  # type: ignore[assignment]


def test_a_tensor_with_nan_is_itself() -> None:
    torch = pytest.importorskip("torch")
    assert difference(torch.tensor([NAN, 1.0]), torch.tensor([NAN, 1.0])) is None


def test_tensors_that_differ_are_told() -> None:
    torch = pytest.importorskip("torch")
    assert difference({"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}) == "['w']"
