"""Compares two values whose stored bytes differ: arrays, frames, tensors and nan included.

numpy and torch are looked for where a program that has such values has imported them.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import sys
import typing as tp

Part = tuple[tp.Any, tp.Any, str]  # of one value and the other, and what it is called
Answer = bool | tp.Iterable[Part]  # whether they are the same, or the parts that must be


class IncomparableError(Exception):
    """Nobody can tell whether two values are the same."""


def difference(one: tp.Any, other: tp.Any) -> str | None:
    """The place where two values first differ: ``['loss'][3]``, or "" for all of them. None if they are the same.

    Raises IncomparableError if they cannot be compared.
    """
    try:
        return _difference(one, other, "", set())
    except IncomparableError:
        raise
    except Exception as error:  # the user's classes, and the libraries they use
        raise IncomparableError(f"{type(error).__name__}: {error}") from error


def _difference(one: tp.Any, other: tp.Any, where: str, seen: set[tuple[int, int]]) -> str | None:
    """``seen`` are the pairs that this one is in: values may contain themselves."""
    pair = (id(one), id(other))
    if one is other or pair in seen:
        return None
    if type(one) is not type(other):
        return where
    rule = next(rule for fits, rule in _RULES if fits(one))
    answer = rule(one, other)
    if isinstance(answer, bool):
        return None if answer else where
    found = (_difference(a, b, where + step, seen | {pair}) for a, b, step in answer)
    return next((place for place in found if place is not None), None)


def _compare_dicts(one: tp.Any, other: tp.Any) -> Answer:
    return one.keys() == other.keys() and [(one[key], other[key], f"[{key!r}]") for key in one]


def _compare_sequences(one: tp.Any, other: tp.Any) -> Answer:
    same_length = len(one) == len(other)
    return same_length and [(a, b, f"[{index}]") for index, (a, b) in enumerate(zip(one, other, strict=True))]


def _compare_numbers(one: tp.Any, other: tp.Any) -> Answer:
    return bool(one == other or (one != one and other != other))


def _compare_arrays(one: tp.Any, other: tp.Any) -> Answer:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.hasobject:
        return _compare_sequences(one.ravel().tolist(), other.ravel().tolist())
    return one.tobytes() == other.tobytes() or _are_same_numbers(one, other)


def _compare_tensors(one: tp.Any, other: tp.Any) -> Answer:
    if one.dtype != other.dtype or one.shape != other.shape or one.layout != other.layout:
        return False
    return _are_same_numbers(one.detach().cpu(), other.detach().cpu())


def _are_same_numbers(one: tp.Any, other: tp.Any) -> bool:
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _compare_tables(one: tp.Any, other: tp.Any) -> Answer:
    return bool(one.equals(other))


def _compare_objects(one: tp.Any, other: tp.Any) -> Answer:
    """Compares by the class's own equality; records, and classes without one, by their attributes."""
    kind: tp.Any = type(one)
    if kind.__eq__ is object.__eq__:
        return _compare_attributes(one, other)
    try:
        return bool(one == other) or (_is_record(one) and _compare_attributes(one, other))
    except Exception:
        if not _is_record(one):
            raise
        return _compare_attributes(one, other)


def _compare_attributes(one: tp.Any, other: tp.Any) -> Answer:
    mine, others = _attributes(one), _attributes(other)
    return mine.keys() == others.keys() and [(mine[name], others[name], f".{name}") for name in mine]


def _attributes(value: tp.Any) -> dict[str, tp.Any]:
    if not hasattr(value, "__dict__") and not dataclasses.is_dataclass(value):
        raise IncomparableError(f"{type(value).__qualname__} does not say when two of it are equal")
    parts = dict(getattr(value, "__dict__", {}))
    if dataclasses.is_dataclass(value):
        parts |= {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return parts | {"extra fields": getattr(value, "__pydantic_extra__", None)}


def _is_record(value: tp.Any) -> bool:
    """Whether it is all that its fields are."""
    return dataclasses.is_dataclass(value) or hasattr(type(value), "__pydantic_fields__")


def _is_instance_of(module: str, name: str) -> tp.Callable[[tp.Any], bool]:
    """Whether a value is of a class of a library; without that library it is not."""

    def is_one(value: tp.Any) -> bool:
        kind = getattr(sys.modules.get(module), name, None)
        return kind is not None and isinstance(value, kind)

    return is_one


def _is_number(value: tp.Any) -> bool:
    return isinstance(value, (float, complex)) or _is_instance_of("numpy", "generic")(value)


def _is_sequence(value: tp.Any) -> bool:
    return isinstance(value, collections.abc.Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview))


_RULES: tuple[tuple[tp.Callable[[tp.Any], bool], tp.Callable[[tp.Any, tp.Any], Answer]], ...] = (
    (_is_number, _compare_numbers),
    (lambda value: isinstance(value, dict), _compare_dicts),
    (_is_instance_of("numpy", "ndarray"), _compare_arrays),
    (_is_instance_of("torch", "Tensor"), _compare_tensors),
    # a frame, a column, an index: they have a method that takes nan for nan
    (lambda value: callable(getattr(type(value), "equals", None)), _compare_tables),
    (_is_sequence, _compare_sequences),
    (lambda value: True, _compare_objects),
)
