"""Plain data: dicts with names, lists, numbers, text. Its canonical form is a copy of it, made in one short walk."""

from __future__ import annotations

import math
import typing as tp

from .leaves import LEAVES, Json

SCALARS = frozenset((str, int, float, bool, type(None)))


class UnusualError(Exception):
    """There is more in a value than plain data: the general rules say what it is."""


def form(value: tp.Any) -> Json:
    """The canonical form of plain data, which no rule about records concerns; UnusualError for all other values."""
    kind = type(value)
    if kind is dict:
        return _mapping(value)
    if kind is list or kind is tuple:
        return list(map(form, value))
    rule = LEAVES.get(kind)
    if rule is None:
        raise UnusualError
    return rule(value)


def _mapping(value: dict[tp.Any, tp.Any]) -> Json:
    made = {}
    for key in _names(value):
        child = value[key]
        kind = type(child)
        if (kind is str and child.isascii()) or kind is bool:  # a call saved is a third of what a leaf takes
            made[key] = child
        else:
            made[key] = _mapping(child) if kind is dict else form(child)
    return made


def _names(value: dict[tp.Any, tp.Any]) -> list[str]:
    """The keys in order, if they are names that stand for themselves."""
    for key in value:
        if type(key) is not str or key[:1] == "~" or not key.isascii():
            raise UnusualError
    return sorted(value)


def add(value: tp.Any, found: list[tp.Any]) -> None:
    """Adds what plain data is made of: the scalars, which cannot change, and what tells how they stand together."""
    kind = type(value)
    if kind in SCALARS:
        found.append(value)
    elif kind is dict:
        found.append(dict)
        for key, child in value.items():
            if type(key) is not str:
                raise UnusualError
            found.append(key)
            add(child, found)
        found.append(_END)
    elif kind is list or kind is tuple:
        found.append(kind)
        for child in value:
            add(child, found)
        found.append(_END)
    else:
        raise UnusualError


_END: tp.Any = object()


def same(one: Json, other: Json) -> bool:
    """Whether two canonical forms are the same; ``==`` is not enough: ``1 == True == 1.0`` and ``0.0 == -0.0``."""
    kind = type(one)
    if one is other or kind is not type(other):
        return one is other
    if kind is dict:
        return one.keys() == other.keys() and all(map(same, one.values(), map(other.__getitem__, one)))
    if kind is list:
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) and (kind is not float or math.copysign(1, one) == math.copysign(1, other))
