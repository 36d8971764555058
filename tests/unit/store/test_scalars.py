"""Scalars of numpy and torch in results: readable in outcome.json, and of the same type when they are read."""

import json
import math
import typing as tp
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from stored import store_value

from hydra_exca.errors import CacheError
from hydra_exca.store import values
from hydra_exca.store.formats import scalars

torch = pytest.importorskip("torch")


def _stored(folder: Path, value: tp.Any) -> dict[str, tp.Any]:
    """The record of a stored value, as outcome.json returns it."""
    record: dict[str, tp.Any] = json.loads(json.dumps(store_value(folder, 1, value)))
    return record


READABLE = {
    "a mean": (np.mean([0.5, 1.0]), 0.75),
    "a float of 32 bits": (np.float32(0.1), 0.10000000149011612),
    "a float of 16 bits": (np.float16(0.5), 0.5),
    "a count": (np.int64(3), 3),
    "the largest integer": (np.uint64(2**64 - 1), 2**64 - 1),
    "a bool": (np.bool_(True), True),
    "a label": (np.array(["cat"])[0], "cat"),
    "infinity": (np.float64("inf"), math.inf),
    "minus zero": (np.float64(-0.0), -0.0),
    "a loss": (torch.tensor(0.5), 0.5),
    "a loss in half precision": (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
    "a loss with a gradient": (torch.tensor(0.5, requires_grad=True), 0.5),
    "a count of torch": (torch.tensor(3), 3),
    "metrics": ({"acc": np.float64(0.5), "n/a": [np.int32(1), 2]}, {"acc": 0.5, "n/a": [1, 2]}),
    "keys that look like places": ({"a/b": np.int8(1), "a~1b": 2, "a": {"b": 3}}, {"a/b": 1, "a~1b": 2, "a": {"b": 3}}),
    "a loss in a dict": ({"loss": torch.tensor(1.5), "epoch": 2}, {"loss": 1.5, "epoch": 2}),
}


def _alike(value: tp.Any, other: tp.Any) -> bool:
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(_alike(value[key], other[key]) for key in value)
    if isinstance(value, list):
        return len(value) == len(other) and all(map(_alike, value, other))
    if isinstance(value, torch.Tensor):
        return value.dtype == other.dtype and value.requires_grad == other.requires_grad and torch.equal(value, other)
    return type(value) is type(other) and repr(value) == repr(other)


@pytest.mark.parametrize(("value", "plain"), READABLE.values(), ids=READABLE)
def test_a_scalar_is_readable_and_comes_back_as_it_was(value: tp.Any, plain: tp.Any, tmp_path: Path) -> None:
    record = _stored(tmp_path, value)
    assert repr(record["inline"]) == repr(plain)
    assert _alike(values.load_value(tmp_path, record, ()), value)
    assert not list(tmp_path.iterdir())


OTHERS = {
    "a wide float": np.longdouble(1) / 3,
    "an integer of C": np.longlong(3),
    "a complex number": np.complex64(1j),
    "a time": np.datetime64("2026-01-01"),
    "a tuple": (np.float64(1), 2),
    "a key": {np.int64(1): 2},
    "a tensor with a dimension": {"x": torch.zeros(1)},
    "a lone surrogate": np.str_("\ud800"),
    "a subclass": {"x": type("Metrics", (dict,), {})()},
}


@pytest.mark.parametrize("value", OTHERS.values(), ids=OTHERS)
def test_what_json_cannot_hold_exactly_is_not_stored_as_json(value: tp.Any) -> None:
    assert scalars.split_types(value) is None


def test_a_value_that_contains_itself_is_not_stored_as_json() -> None:
    value: list[tp.Any] = [np.float64(1)]
    value.append(value)
    assert "inline" not in values.encode_value(1, value).record


def test_a_large_value_gets_a_file(tmp_path: Path) -> None:
    value = list(np.zeros(2000))
    record = _stored(tmp_path, value)
    assert record["format"] == "pickle"
    assert _alike(values.load_value(tmp_path, record, ()), value)


@pytest.mark.parametrize("kind", ["numpy.float7", "pandas.float64", "os.system", "torch.load"])
def test_an_unknown_type_is_an_error_of_the_cache(kind: str, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="cannot load it"):
        values.load_value(tmp_path, {"format": "json", "inline": 1, "types": {"": kind}}, ())


@given(hnp.scalar_dtypes().flatmap(hnp.from_dtype) | st.integers() | st.floats())
def test_any_scalar_of_numpy_that_is_stored_inline_comes_back(value: tp.Any) -> None:
    record = values.encode_value(1, {"value": value}).record
    if "inline" in record:
        loaded = values.load_value("", json.loads(json.dumps(record)), ())
        assert _alike(loaded, {"value": value})
