"""The results of a cache folder, a factory, a sweep, a launch, or a class, as a sequence of records."""

from __future__ import annotations

import collections
import difflib
import functools
import importlib
import math
import types
import typing as tp
from collections.abc import Sequence

from hydra_exca.errors import ConfigError
from hydra_exca.launch.lookup import without_garbage_collection
from hydra_exca.text import choices

from . import tables
from .column_names import MISSING, SPACES, ColumnPlace, find_place
from .expressions import Expression
from .record import FIELDS, Record

_SHOWN_IF_VARYING = ("status", "how", "factory", "version", "user", "error")
_SHOWN_ALWAYS = ("seconds", "uid")
_VALUE = "value"


class Results(Sequence[Record]):
    """Records of tasks, in the order of a sweep's jobs or else by name; see docs/results.md."""

    def __init__(self, name: str, records: tp.Sequence[Record]) -> None:
        self.name = name
        self._records = list(records)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> tp.Iterator[Record]:
        return iter(self._records)

    @tp.overload
    def __getitem__(self, index: int) -> Record: ...

    @tp.overload
    def __getitem__(self, index: slice) -> Results: ...

    def __getitem__(self, index: int | slice) -> Record | Results:
        return Results(self.name, self._records[index]) if isinstance(index, slice) else self._records[index]

    def __repr__(self) -> str:
        return tables.as_text(str(self), self.columns, self._rows(self.columns))

    def _repr_html_(self) -> str:
        return tables.as_html(str(self), self.columns, self._rows(self.columns))

    def __str__(self) -> str:
        counts = collections.Counter(record.status for record in self)
        ended = ", ".join(f"{count} {status}" for status, count in counts.most_common())
        return f"{len(self)} {'result' if len(self) == 1 else 'results'} of {self.name}{f': {ended}' if ended else ''}"

    # which

    def filter(self, condition: str | tp.Callable[[Record], tp.Any]) -> Results:
        """The records for which an expression or a function is true.

        ``"lr > 0.01 and optimizer.name == 'adam'"``: the names are those of the columns. Raises ConfigError for a name
        that no record has, and for what is not an expression.
        """
        if not isinstance(condition, str):
            return Results(self.name, [record for record in self if condition(record)])
        expression = Expression(condition)
        readers = {name: self._reader(name) for name in expression.names}
        kept = [record for record in self if expression.is_true(lambda name, of=record: readers[name](of))]  # type: ignore[misc]
        if not kept and expression.problem is not None:
            raise ConfigError(f"the filter {condition!r} compares what cannot be compared: {expression.problem}")
        return Results(self.name, kept)

    def best(self, name: str = _VALUE, mode: str = "max") -> Record:
        """The record with the largest number of this name; with ``mode="min"`` the smallest.

        Of the same number the first. Records without a number are ignored, as is nan. Raises ConfigError if none has
        one.
        """
        if mode not in ("max", "min"):
            raise ConfigError(f"invalid mode {mode!r}: choose {choices(['max', 'min'])}")
        ordered = self.sort(name, descending=mode == "max")
        if not ordered or _number(self._reader(name, of_value=True)(ordered[0])) is None:
            raise ConfigError(f"no record of {self.name} has a number {name!r}{self._similar(name)}")
        return ordered[0]

    def sort(self, name: str = _VALUE, descending: bool = False) -> Results:
        """The same records by what they have under this name: numbers, then texts; those with neither follow."""
        read = self._reader(name, of_value=True)
        cells = [(read(record), record) for record in self]
        numbers = [(number, record) for cell, record in cells if (number := _number(cell)) is not None]
        texts = [(cell, record) for cell, record in cells if isinstance(cell, str)]
        rest = [record for cell, record in cells if _number(cell) is None and not isinstance(cell, str)]
        for ordered in (numbers, texts):
            ordered.sort(key=lambda pair: pair[0], reverse=descending)
        return Results(self.name, [*(record for _, record in (*numbers, *texts)), *rest])

    # columns

    @property
    def columns(self) -> list[str]:
        """What differs between the records: keys of the configuration, then the values, and what tells them apart."""
        return list(self.shown_places.values())

    @property
    def shown_places(self) -> dict[ColumnPlace, str]:
        """The same columns, with where each is."""
        config = [place for place, varies in self._places.items() if varies and place.space == "config"]
        varying = [ColumnPlace("record", field) for field in _SHOWN_IF_VARYING]
        fields = [place for place in varying if self._places[place]]
        always = [ColumnPlace("record", field) for field in _SHOWN_ALWAYS]
        return {place: self._names[place] for place in (*config, *self._of_space(_VALUE), *fields, *always)}

    @property
    def all_columns(self) -> list[str]:
        """All that is known of the records."""
        return list(self._names.values())

    def column(self, name: str) -> list[tp.Any]:
        """One column; None where a record has nothing there."""
        read = self._reader(name)
        return [None if (value := read(record)) is MISSING else value for record in self]

    def to_dict(self, all_columns: bool = False, columns: tp.Sequence[str] | None = None) -> dict[str, list[tp.Any]]:
        """The columns by name: what differs, all, or those that are named."""
        chosen = columns if columns is not None else self.all_columns if all_columns else self.columns
        return {name: self.column(name) for name in chosen}

    def to_pandas(self, all_columns: bool = False, columns: tp.Sequence[str] | None = None) -> tp.Any:
        """A DataFrame of pandas, with one row for each record."""
        return _import("pandas").DataFrame(_for_frames(self.to_dict(all_columns, columns)))

    def to_polars(self, all_columns: bool = False, columns: tp.Sequence[str] | None = None) -> tp.Any:
        """A DataFrame of polars, with one row for each record."""
        frame = _for_frames(self.to_dict(all_columns, columns), one_type=True)
        return _import("polars").DataFrame(frame, strict=False)

    @functools.cached_property
    def _places(self) -> dict[ColumnPlace, bool]:
        """All columns, in their order, and whether they differ between the records."""
        with without_garbage_collection():
            config = _varying_keys((record.factory, row) for record, row in self._config_rows())
            value = _varying_keys((record.factory, record.value_leaves) for record in self)
        spaces = zip(SPACES, (config, value, {field: self._differs(field) for field in FIELDS}), strict=True)
        return {ColumnPlace(space, key): varies for space, keys in spaces for key, varies in keys.items()}

    def _differs(self, field: str) -> bool:
        """Whether a field tells records apart. Of others than these that takes long, and nobody asks."""
        if field not in _SHOWN_IF_VARYING:
            return False
        values = {getattr(record, field) for record in self} - {None}
        return len(values) > 1 or (field == "error" and bool(values))

    def _config_rows(self) -> tp.Iterator[tuple[Record, dict[str, tp.Any]]]:
        """What counts for the identities. Before a task has ended, only its whole configuration is known."""
        keys: set[str] = set().union(*(record.config_leaves for record in self if record.has_identity))
        for record in self:
            row = record.config_leaves
            yield record, row if record.has_identity or not keys else {key: row[key] for key in row if key in keys}

    @functools.cached_property
    def _names(self) -> dict[ColumnPlace, str]:
        """The names of all columns: short where that is clear."""
        used = collections.Counter(place.key for place in self._places)
        return {place: place.key if place.key and used[place.key] == 1 else str(place) for place in self._places}

    def _of_space(self, space: str) -> list[ColumnPlace]:
        return [place for place in self._places if place.space == space]

    def _rows(self, columns: tp.Sequence[str]) -> list[list[tp.Any]]:
        shown = self[: tables.MOST_ROWS]
        readers = [self._reader(name) for name in columns]
        return [[read(record) for read in readers] for record in shown]

    def _reader(self, name: str, of_value: bool = False) -> tp.Callable[[Record], tp.Any]:
        """Reads what a name means from a record; of several meanings that ``of_value`` if that is wanted.

        Raises ConfigError if no record has it.
        """
        value = ColumnPlace(_VALUE, "" if name == _VALUE else name)
        place = value if of_value and value in self._places else find_place(name, self._places.__contains__)
        if place is not None:
            return lambda record: record.cell(place)
        key = name.removeprefix("config.")
        if any(key in record.config for record in self):
            return lambda record: record.config.get(key, MISSING)
        raise ConfigError(f"no record of {self.name} has {name!r}{self._similar(name)}")

    def _similar(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.all_columns, cutoff=0.5)
        there = close or [self._names[place] for place in self._of_space(_VALUE)][:10]
        return f"; there is {', '.join(there)}" if there else ""


def _varying_keys(rows: tp.Iterable[tuple[str | None, dict[str, tp.Any]]]) -> dict[str, bool]:
    """All keys of the rows in their order, and whether they tell rows of one factory apart.

    That is so if they have several values, or if only some rows of the factory have them.
    """
    first: dict[str, tp.Any] = {}
    counts: collections.defaultdict[str | None, collections.Counter[str]]
    counts = collections.defaultdict(collections.Counter)
    sizes: collections.Counter[str | None] = collections.Counter()
    varying = set()
    for factory, row in rows:
        if row:  # else nothing is known of it
            sizes[factory] += 1
            counts[factory].update(row.keys())
        for key, value in row.items():
            seen = first.setdefault(key, value)
            if seen is not value and (seen != value or type(seen) is not type(value)):
                varying.add(key)
    for factory, keys in counts.items():
        varying.update(key for key, count in keys.items() if count < sizes[factory])
    return {key: key in varying for key in first}


def _number(value: tp.Any) -> float | None:
    """A value that can be sorted: a number but nan, or a time."""
    if hasattr(value, "timestamp"):
        return float(value.timestamp())
    return value if isinstance(value, int | float) and not math.isnan(value) else None


def _import(library: str) -> types.ModuleType:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ImportError(f"to_{library} needs {library}: pip install {library} ({error})") from error


def _for_frames(columns: dict[str, list[tp.Any]], one_type: bool = False) -> dict[str, list[tp.Any]]:
    """The columns without types of ours; with ``one_type``, those of several types as text."""
    plain = (str, int, float, bool, list, dict, type(None))
    converted = {
        name: [value if isinstance(value, plain) or hasattr(value, "timestamp") else str(value) for value in values]
        for name, values in columns.items()
    }
    return {name: _as_one_type(values) if one_type else values for name, values in converted.items()}


def _as_one_type(values: list[tp.Any]) -> list[tp.Any]:
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 or kinds <= {int, float}:
        return values
    return [None if value is None else str(value) for value in values]
