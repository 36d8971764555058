"""DataFrames as parquet, if exactly the same frame can be read back."""

from __future__ import annotations

import importlib
import io
import json
import sys
import typing as tp

from . import builtin

_EXACT = (str, bytes, bool, int, float)  # values of these types that are equal are the same


def is_frame(value: tp.Any) -> bool:
    return type(value) is getattr(sys.modules.get("pandas"), "DataFrame", None)


def dump_frame(frame: tp.Any) -> bytes:
    """Encodes a frame. Raises ValueError that names the part which parquet would change."""
    if frame.columns.inferred_type.startswith("mixed"):  # which pandas would change, with a warning
        raise ValueError("parquet would change its columns")
    data: bytes = frame.to_parquet(engine="pyarrow")
    changed = next(_differences(frame, load_frame(data)), None)
    if changed is not None:
        raise ValueError(f"parquet would change its {changed}")
    return data


def load_frame(data: bytes) -> tp.Any:
    pandas = importlib.import_module("pandas")
    return pandas.read_parquet(io.BytesIO(data), engine="pyarrow", use_threads=False)


def _differences(frame: tp.Any, back: tp.Any) -> tp.Iterator[str]:
    """Names the parts in which two frames differ."""
    if not (builtin.is_json(frame.attrs) and json.dumps(frame.attrs) == json.dumps(back.attrs)):
        yield "attrs"
    if frame.flags != back.flags:
        yield "flags"
    if not _same_index(frame.columns, back.columns):
        yield "columns"
    elif not _same_index(frame.index, back.index):
        yield "index"
    else:
        for position, name in enumerate(frame.columns):
            if not _same_array(frame.iloc[:, position].array, back.iloc[:, position].array):
                yield f"column {name!r}"


def _same_index(one: tp.Any, other: tp.Any) -> bool:
    if type(one) is not type(other) or not _same_objects(one.names, other.names):
        return False
    if hasattr(one, "codes") and hasattr(one, "levels"):
        same_codes = all(map(_same_numbers, one.codes, other.codes))
        return same_codes and all(map(_same_index, one.levels, other.levels))
    if hasattr(one, "step"):
        return bool((one.start, one.stop, one.step) == (other.start, other.stop, other.step))
    return getattr(one, "freq", None) == getattr(other, "freq", None) and _same_array(one.array, other.array)


def _same_array(one: tp.Any, other: tp.Any) -> bool:
    """Whether types, dtypes and values of two columns are the same; False for kinds of columns without a rule."""
    if type(one) is not type(other) or one.dtype != other.dtype or len(one) != len(other):
        return False
    rule = _RULES.get(type(one).__name__)
    return rule is not None and rule(one, other)


def _same_numpy(one: tp.Any, other: tp.Any) -> bool:
    one, other = one.to_numpy(), other.to_numpy()
    return _same_objects(one, other) if one.dtype.kind == "O" else _same_numbers(one, other)


def _same_numbers(one: tp.Any, other: tp.Any) -> bool:
    numpy = sys.modules["numpy"]
    return one.dtype.kind in "biuf" and bool(numpy.array_equal(one, other, equal_nan=one.dtype.kind == "f"))


def _same_times(one: tp.Any, other: tp.Any) -> bool:
    zone, others = getattr(one, "tz", None), getattr(other, "tz", None)
    return type(zone) is type(others) and str(zone) == str(others) and _same_numbers(one.asi8, other.asi8)


def _same_masked(one: tp.Any, other: tp.Any) -> bool:
    """Compares the types, too: for `equals`, nan can be NA."""
    return bool(one.equals(other)) and list(map(type, one)) == list(map(type, other))


def _same_categories(one: tp.Any, other: tp.Any) -> bool:
    """Compares the categories, too: dtypes are equal whatever their order is."""
    return (
        one.ordered == other.ordered
        and _same_index(one.categories, other.categories)
        and _same_numbers(one.codes, other.codes)
    )


def _same_text(one: tp.Any, other: tp.Any) -> bool:
    return one.dtype.storage == other.dtype.storage and _same_objects(one, other)


def _same_objects(one: tp.Any, other: tp.Any) -> bool:
    return len(one) == len(other) and all(map(_same_object, one, other))


def _same_object(one: tp.Any, other: tp.Any) -> bool:
    if one is other:
        return True
    return type(one) is type(other) and isinstance(one, _EXACT) and (one == other or (one != one and other != other))


_RULES: dict[str, tp.Callable[[tp.Any, tp.Any], bool]] = {
    "NumpyExtensionArray": _same_numpy,
    "PandasArray": _same_numpy,  # its name before pandas 2.1
    "DatetimeArray": _same_times,
    "TimedeltaArray": _same_times,
    "Categorical": _same_categories,
    "IntegerArray": _same_masked,
    "FloatingArray": _same_masked,
    "BooleanArray": _same_masked,
    "StringArray": _same_text,
    "ArrowStringArray": _same_text,
    "ArrowStringArrayNumpySemantics": _same_text,
}
