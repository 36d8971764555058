"""Values of all kinds, and when two are exactly alike."""

from __future__ import annotations

import math
import typing as tp

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


def exactly(one: tp.Any, other: tp.Any) -> bool:
    """The same type and value, all the way down; nan is nan, -0.0 is not 0.0, the order of keys counts."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            exactly(a, c) and exactly(b, d) for (a, b), (c, d) in zip(one.items(), other.items(), strict=True)
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(exactly, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, complex):
        return exactly(one.real, other.real) and exactly(one.imag, other.imag)
    if isinstance(one, float):
        same_sign = math.copysign(1, one) == math.copysign(1, other)
        return (math.isnan(one) and math.isnan(other)) or (one == other and same_sign)
    return bool(one == other)


TEXT = st.text(st.characters(), max_size=8)  # lone surrogates too
JSON_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
LEAVES = JSON_LEAVES | st.binary(max_size=8) | st.complex_numbers()
KEYS = TEXT | st.integers() | st.booleans() | st.none() | st.floats() | st.tuples(st.integers(), TEXT)


def nested(leaves: st.SearchStrategy[tp.Any], keys: st.SearchStrategy[tp.Any]) -> st.SearchStrategy[tp.Any]:
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=4).map(tuple)
            | st.dictionaries(keys, inner, max_size=4)
        ),
        max_leaves=12,
    )


DTYPES = hnp.scalar_dtypes() | hnp.unicode_string_dtypes() | hnp.byte_string_dtypes() | hnp.array_dtypes()
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=3)))


class Text(str):
    __slots__ = ()


OVERLAPPING = np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 2], "itemsize": 8})
UNUSUAL: dict[str, tp.Any] = {
    "an int of 5000 digits": 10**5000,
    "a list with an int of 5000 digits": [10**5000],
    "a subclass of str": Text("a"),
    "a list of a subclass of str": [Text("a")],
    "a bool in a list of ints": [1, True, 0, False],
    "a scalar of numpy": np.float32(1.5),
    "an array in Fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "every second column": np.arange(12).reshape(3, 4)[:, ::2],
    "an array of objects": np.array([None, "a"], dtype=object),
    "an array of big-endian numbers": np.arange(3, dtype=">i2"),
    "an array with overlapping fields": np.zeros(2, OVERLAPPING),
    "an array of times": np.array(["2020-01-01", "NaT"], "M8[ns]"),
    "an empty tuple": (),
    "an exception": ValueError("a", 1).args,
    "a frozenset": frozenset({1, "a"}),
}
