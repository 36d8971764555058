"""The names of columns: a bare name where it has one meaning, else with the space that it is in."""

from __future__ import annotations

import typing as tp

from hydra_exca.errors import ConfigError

SPACES = ("config", "value", "record")
MISSING: tp.Any = object()
"""Stands for what a record does not have: None is a value."""


class ColumnPlace(tp.NamedTuple):
    """A column: of the configuration, of the value or of the record itself."""

    space: str
    key: str

    def __str__(self) -> str:
        """The name that always means it; a value that is no dictionary has no key."""
        return f"{self.space}.{self.key}" if self.key else self.space


def find_place(name: str, exists: tp.Callable[[ColumnPlace], bool]) -> ColumnPlace | None:
    """The place that a name means, None if it means none. Raises ConfigError if it means several.

    >>> there = [ColumnPlace("config", "loss"), ColumnPlace("value", "loss"), ColumnPlace("value", "acc")]
    >>> str(find_place("acc", there.__contains__)), str(find_place("config.loss", there.__contains__))
    ('value.acc', 'config.loss')
    """
    space, _, key = name.partition(".")
    exact = ColumnPlace(space, key)
    if space in SPACES and (key or space == "value") and exists(exact):
        return exact
    places = [place for place in (ColumnPlace(space, name) for space in SPACES) if exists(place)]
    if len(places) > 1:
        raise ConfigError(f"{name!r} has several meanings here: write {' or '.join(map(str, places))}")
    return places[0] if places else None
