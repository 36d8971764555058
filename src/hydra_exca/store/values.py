"""How values are written and read: JSON for what it returns unchanged, .npy for arrays, pickle for the rest.

A format is chosen by the value's type, named in the marker, and what is read is held against size and digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import sys
import types
import typing as tp
from pathlib import Path

import cloudpickle

from hydra_exca import paths, script
from hydra_exca.errors import CacheError, ConfigError, CorruptEntryError

from . import files

INLINE_BYTES = 4096
_INT_BITS = 4096  # Python refuses to read longer integers from text (sys.set_int_max_str_digits)
Record = dict[str, tp.Any]


def store(folder: Path, number: int, value: tp.Any) -> Record:
    """Writes ``value`` below an entry's folder (or inline when small) and returns what the marker says of it."""
    if _fits_json(value):
        data = json.dumps(value, ensure_ascii=True).encode()
        if len(data) <= INLINE_BYTES:
            return {"format": "json", "inline": value}
        return _write(folder, number, "json", data, files.SHARED)
    if _is_plain_array(value):
        return _write(folder, number, "npy", _npy(value), files.SHARED)
    return _write(folder, number, "pickle", dumps(value, "the result"), files.OWN_CODE)


def load(folder: Path, record: Record, trust_users: tp.Collection[str]) -> tp.Any:
    """The value that ``record`` speaks of.

    Raises CorruptEntryError when the file is gone or differs from what was written, CacheError when it may not
    be trusted or when today's code cannot load it.
    """
    if "inline" in record:
        return record["inline"]
    if not {"file", "size", "sha256"} <= record.keys() or record.get("format") not in _LOADERS:
        raise CorruptEntryError(f"{folder} has an outcome that does not say where its value is, or in which format")
    path = folder / record["file"]
    try:
        data = files.read_trusted(path, trust_users) if record["format"] == "pickle" else path.read_bytes()
    except PermissionError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise CorruptEntryError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) != record["size"] or hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise CorruptEntryError(f"{path} is not what was written: its size or digest differs")
    return _LOADERS[record["format"]](data, path)


def dumps(value: tp.Any, what: str) -> bytes:
    """Pickles ``value``; classes and functions of the user's script by name, so that the next run's are equal.

    Raises ConfigError that names ``what`` and the part that cannot be pickled.
    """
    buffer = io.BytesIO()
    try:
        _Pickler(buffer, protocol=5).dump(value)
    except Exception as error:
        raise ConfigError(f"{what} cannot be pickled: {_culprit(value, error)}") from error
    return buffer.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc,unused-ignore]
    """Pickles what the script defines by name; cloudpickle alone would copy it, and no two runs would agree."""

    def reducer_override(self, obj: tp.Any) -> tp.Any:
        if isinstance(obj, (type, types.FunctionType)):
            reference = script.reference(obj)
            if reference is not None:
                return script.attribute, reference
        return super().reducer_override(obj)


def _fits_json(value: tp.Any) -> bool:
    """Whether JSON gives back exactly this: the same types, not just equal values."""
    try:
        return _is_json(value)
    except (RecursionError, UnicodeEncodeError):  # it contains itself; half a character
        return False


def _is_json(value: tp.Any) -> bool:
    kind = type(value)
    if kind is int:
        return bool(value.bit_length() <= _INT_BITS)
    if kind is str:
        value.encode()  # lone surrogates are no text: JSON joins two of them
    if value is None or kind in (bool, float, str):
        return True
    if kind is list:
        return all(map(_is_json, value))
    return (
        kind is dict and all(type(key) is str and _is_json(key) for key in value) and all(map(_is_json, value.values()))
    )


def _is_plain_array(value: tp.Any) -> bool:
    numpy = sys.modules.get("numpy")
    # records and objects: .npy does not give back all of them
    return numpy is not None and type(value) is numpy.ndarray and value.dtype.kind in "biufcmMSU"


def _npy(value: tp.Any) -> bytes:
    import numpy

    buffer = io.BytesIO()
    numpy.save(buffer, value, allow_pickle=False)
    return buffer.getvalue()


def _write(folder: Path, number: int, suffix: str, data: bytes, mode: int) -> Record:
    name = paths.value_name(number, suffix)
    files.write(folder / name, data, mode=mode)
    return {"format": suffix, "file": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _load_npy(data: bytes, path: Path) -> tp.Any:
    import numpy

    return numpy.load(io.BytesIO(data), allow_pickle=False)


def _load_pickle(data: bytes, path: Path) -> tp.Any:
    try:
        return pickle.loads(data)
    except Exception as error:
        raise CacheError(
            f"{path} is intact, but the code of today cannot load it: {type(error).__name__}: {error}. "
            "Bring back what it names, or compute it anew with mode=force"
        ) from error


_LOADERS: dict[str, tp.Callable[[bytes, Path], tp.Any]] = {
    "json": lambda data, path: json.loads(data),
    "npy": _load_npy,
    "pickle": _load_pickle,
}


def _culprit(value: tp.Any, error: Exception) -> str:
    """Which part of ``value`` does not pickle: found by trying the parts, deepest first."""
    path, part = _deepest(value, (), 0)
    where = f"its {path} is" if path else "it is"
    return f"{where} of type {type(part).__module__}.{type(part).__qualname__} ({type(error).__name__}: {error})"


def _deepest(value: tp.Any, trail: tuple[str, ...], depth: int) -> tuple[str, tp.Any]:
    for name, part in _parts(value) if depth < 8 else ():
        if not _pickles(part):
            return _deepest(part, (*trail, name), depth + 1)
    return " -> ".join(trail), value


def _parts(value: tp.Any) -> tp.Iterator[tuple[str, tp.Any]]:
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif isinstance(value, types.FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=False)
        yield from ((f"captured variable {name!r}", cell.cell_contents) for name, cell in cells)
        known = value.__globals__
        yield from ((f"global {name!r}", known[name]) for name in value.__code__.co_names if name in known)
    elif hasattr(value, "__dict__") and not isinstance(value, (type, types.ModuleType)):
        yield from ((f"attribute {name!r}", part) for name, part in vars(value).items())


def _pickles(value: tp.Any) -> bool:
    try:
        _Pickler(io.BytesIO(), protocol=5).dump(value)
    except Exception:  # noqa: BLE001  see dumps
        return False
    return True
