"""Records: small files with a JSON object each. They are read with `files`, and checked against the types of a schema.

A schema tolerates what a later version has added: fields that it does not know are ignored.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import types
import typing as tp
from pathlib import Path

from hydra_exca import checksums, files
from hydra_exca.errors import CorruptEntryError

T = tp.TypeVar("T")
Json = dict[str, tp.Any]
DAMAGES = (ValueError, TypeError, KeyError, OverflowError, RecursionError)  # by which the parser of a file may fail
_REMEMBERED = 1024
_complete: dict[tuple[tp.Any, ...], tuple[str, ...]] = {}
"""The numbers in records with all fields, of these types, which fit the schema: thousands look the same."""
_LARGEST = 1 << 63  # no size, number or time of ours comes near


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
    shape = (cls, *fields, *map(type, fields.values()))
    numbers = _complete.get(shape)
    if numbers is None:
        return _check_and_build(cls, fields, shape)
    for name in numbers:
        check_type(name, fields[name], (int,))
    built = object.__new__(cls)
    built.__dict__.update(fields)  # as the dataclass would, one by one, in as much time as all the rest takes
    return built


def _check_and_build(cls: type[T], fields: tp.Mapping[str, tp.Any], shape: tuple[tp.Any, ...]) -> T:
    allowed, required = _schema(tp.cast(tp.Hashable, cls))
    if not required <= fields.keys():
        raise ValueError(f"it has no {min(required - fields.keys())!r}")
    known = {name: value for name, value in fields.items() if name in allowed}
    for name, value in known.items():
        check_type(name, value, allowed[name])
    if fields.keys() == allowed.keys() and len(_complete) < _REMEMBERED:
        _complete[shape] = tuple(name for name, value in known.items() if type(value) is int)
    return cls(**known)


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


@functools.cache
def _schema(cls: tp.Any) -> tuple[dict[str, frozenset[type]], frozenset[str]]:
    """The types that each field of a dataclass may have, and the fields without a default."""
    hints = tp.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    missing = dataclasses.MISSING
    required = (f.name for f in fields if f.default is missing and f.default_factory is missing)
    return {field.name: frozenset(_kinds(hints[field.name])) for field in fields if field.init}, frozenset(required)


def _kinds(hint: tp.Any) -> tp.Iterator[type]:
    origin = tp.get_origin(hint)
    if origin in (tp.Union, types.UnionType):
        for option in tp.get_args(hint):
            yield from _kinds(option)
        return
    yield origin or hint
    if hint is float:
        yield int
