"""Records: small files with a JSON object each. They are read with `files`, and checked against the types of a schema.

A schema tolerates what a later version has added: fields that it does not know are ignored.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import types
import typing as tp
from pathlib import Path

from hydra_exca import checksums, files
from hydra_exca.errors import CorruptEntryError

T = tp.TypeVar("T")
Json = dict[str, tp.Any]
DAMAGES = (ValueError, TypeError, KeyError, OverflowError, RecursionError)  # by which the parser of a file may fail
_LARGEST = 1 << 63  # no size, number or time of ours comes near
_NAME = re.compile(r"(?!-)[^/\s\0]{1,255}")


def read_record(path: str | Path) -> Json:
    """The fields of a record. Raises CorruptEntryError if it is damaged, FileNotFoundError if there is none."""
    return parse(path, files.read_file(path))


def parse(path: str | Path, data: bytes) -> Json:
    """The fields of a record with this content. Raises CorruptEntryError if it is damaged."""
    with damage_named(path):
        return checksums.parse_record(data)


@contextlib.contextmanager
def damage_named(path: str | Path) -> tp.Iterator[None]:
    """Raises CorruptEntryError, with the path of the file, for what its damage makes a parser raise."""
    try:
        yield
    except DAMAGES as error:
        raise CorruptEntryError(f"{path} is damaged: {error}") from error


def build(cls: type[T], fields: tp.Mapping[str, tp.Any]) -> T:
    """An object of a dataclass from the fields of a record.

    Raises ValueError if a field is missing, or of another type. Lists and enumerations are to be converted before.
    """
    doubtful, known = _check_shape(tp.cast(tp.Hashable, cls), *fields, *map(type, fields.values()))
    for name, kinds in doubtful.items():
        check_type(name, fields[name], kinds)
    if known is not None:
        return cls(**{name: fields[name] for name in known})
    built = object.__new__(cls)
    built.__dict__.update(fields)  # as the dataclass would, one by one, in as much time as all the rest takes
    return built


def check_fields(fields: tp.Any, schema: tp.Mapping[str, tuple[type, ...]]) -> None:
    """Raises ValueError if a field of the schema is missing, or of another type; None stands for a missing one."""
    if not isinstance(fields, dict):
        raise ValueError(f"{fields!r:.60} is not an object of JSON")
    for name, kinds in schema.items():
        check_type(name, fields.get(name), kinds)


def check_type(name: str, value: tp.Any, kinds: tp.Collection[type]) -> None:
    """Raises ValueError if the field of this name cannot have this value."""
    kind = type(value)
    if kind not in kinds or (kind is int and not -_LARGEST < value < _LARGEST):
        raise ValueError(f"{name!r} cannot be {value!r:.60}")


def check_name(name: str, value: tp.Any) -> None:
    """Raises ValueError if the field of this name cannot be the name of a file, host or job.

    Folders are found by such names, and programs are called with them: they lead nowhere else, and are no options.
    """
    if not (isinstance(value, str) and _NAME.fullmatch(value) and value not in (".", "..")):
        raise ValueError(f"{name!r} cannot be {value!r:.60}")


@functools.lru_cache(maxsize=1024)  # thousands of records look the same
def _check_shape(cls: tp.Any, *shape: tp.Any) -> tuple[dict[str, frozenset[type]], list[str] | None]:
    """The fields whose values are to be checked one by one: numbers, and those of a wrong type.

    ``shape`` has the names of the fields, then their types: as one tuple, it is found fastest. Also returns the fields
    that the dataclass knows, None if it has these and no others. Raises ValueError if one is missing.
    """
    names = shape[: len(shape) // 2]
    kinds = dict(zip(names, shape[len(names) :], strict=True))
    hints, missing = tp.get_type_hints(cls), dataclasses.MISSING
    own = {field.name: field for field in dataclasses.fields(cls) if field.init}
    required = {name for name, f in own.items() if f.default is missing and f.default_factory is missing}
    if not required.issubset(names):
        raise ValueError(f"it has no {min(required.difference(names))!r}")
    allowed = {name: frozenset(_kinds(hints[name])) for name in names if name in own}
    doubtful = {name: fits for name, fits in allowed.items() if kinds[name] is int or kinds[name] not in fits}
    return doubtful, None if own.keys() == kinds.keys() else list(allowed)


def _kinds(hint: tp.Any) -> tp.Iterator[type]:
    origin = tp.get_origin(hint)
    if origin in (tp.Union, types.UnionType):
        for option in tp.get_args(hint):
            yield from _kinds(option)
        return
    yield origin or hint
    if hint is float:
        yield int
