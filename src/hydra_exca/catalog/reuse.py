"""Why a task is not reused: the nearest stored entry of its factory, and what differs."""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import os
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.errors import CorruptEntryError
from hydra_exca.identity import names, uid
from hydra_exca.identity.label import readable_value
from hydra_exca.identity.redaction import is_same_redacted
from hydra_exca.identity.uid import Identity
from hydra_exca.launch.code_changes import CodeChanges
from hydra_exca.launch.lookup import LookupResult
from hydra_exca.launch.slurm_job import read_counting, read_description
from hydra_exca.status import Status
from hydra_exca.store import Entry
from hydra_exca.text import name_some, one_line

from .column_names import MISSING

Json = dict[str, tp.Any]
_READ = 50  # entries for one task, those whose names are nearest
_COMPARED = 2_000_000  # names for all tasks of one launch
_CHARACTERS = 60  # of a value


class Difference(tp.NamedTuple):
    """A part of an identity that two tasks do not share; `MISSING` where one does not have it."""

    name: str
    stored: tp.Any
    wanted: tp.Any

    def __str__(self) -> str:
        return f"{self.name}: {_value_text(self.stored)} -> {_value_text(self.wanted)}"


class TaskIdentity(tp.NamedTuple):
    """What tells tasks apart: dotted names with canonical forms. ``counting`` are the names that are in the uid.

    ``shown`` has digests in the place of secrets.
    """

    version: str
    counting: tp.Collection[str]
    leaves: tp.Mapping[str, tp.Any]
    shown: tp.Mapping[str, tp.Any]

    @classmethod
    def of_identity(cls, identity: Identity) -> TaskIdentity:
        shown = names.flatten(identity.to_json()["full"])
        return cls(identity.version, names.flatten(identity.fields), names.flatten(identity.full), shown)

    @classmethod
    def of_stored(cls, identity: tp.Mapping[str, tp.Any]) -> TaskIdentity:
        leaves = names.flatten(identity["full"])
        return cls(identity["version"], names.flatten(identity["fields"]), leaves, leaves)


class NearestEntry(tp.NamedTuple):
    """The stored entry that differs least."""

    path: Path
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        return f"{self.path.name}, {name_some([str(difference) for difference in self.differences])}"


def find_differences(stored: TaskIdentity, wanted: TaskIdentity) -> tuple[Difference, ...]:
    """What counts and differs. What an identity does not spell out has its default, which the other may spell out."""
    version = [Difference("version", stored.version, wanted.version)] if stored.version != wanted.version else []
    counting = dict.fromkeys([*wanted.counting, *stored.counting])
    differing = [name for name in counting if not _is_same(stored.leaves, wanted.leaves, name)]
    found = [Difference(name, stored.shown.get(name, MISSING), wanted.shown.get(name, MISSING)) for name in differing]
    return (*version, *found)


def entry_identity(path: Path) -> TaskIdentity | None:
    """The identity of an entry: from its outcome or, before it has one, from its configuration for people."""
    entry = Entry(path)
    outcome = entry.readable_outcome()
    identity = entry.identity_of_items() if outcome is None else outcome.identity
    if identity is not None:
        return TaskIdentity.of_stored(identity)
    try:
        counting, full = (read(path / paths.CONFIG_YAML).flat() for read in (read_counting, read_description))
    except (CorruptEntryError, OSError):
        return None
    leaves = {name: uid.canonical(value) for name, value in {**full, **counting}.items()}
    return TaskIdentity(path.parent.name.rpartition(",")[2], counting, leaves, leaves)


class StoredEntries:
    """The entries of one factory, of all versions, by their names: each folder is listed once."""

    def __init__(self, cache: Path, factory: str) -> None:
        self._cache = cache
        self._factory = factory
        self._budget = _COMPARED
        self._read = functools.lru_cache(maxsize=10 * _READ)(_read_outcome)

    @functools.cached_property
    def _folders(self) -> list[str]:
        """The folder of each version."""
        names = files.list_folder(self._cache)
        return sorted(name for name in names if paths.version_of(name, self._factory) is not None)

    def has_more_than(self, number: int) -> bool:
        """Whether there are more entries than that, give or take a few other files; no more of them are listed."""
        for folder in self._folders:
            with contextlib.suppress(OSError), os.scandir(self._cache / folder) as entries:
                number -= sum(1 for _ in itertools.islice(entries, number + 1))
            if number < 0:
                return True
        return False

    @functools.cached_property
    def _names(self) -> list[tuple[str, frozenset[str]]]:
        """Each entry's ``factory,version/uid``, and the parts of the readable half of its name."""
        return [
            (f"{folder}/{name}", frozenset(name.rpartition("-")[0].split(",")))
            for folder in self._folders
            for name in sorted(files.list_folder(self._cache / folder))
            if name != paths.PROJECT and not name.startswith(".")
        ]

    def find_nearest(self, wanted: TaskIdentity, label: str, left_out: Path | None = None) -> NearestEntry | None:
        """The entry that differs least from a task; None if there is none, or once many names were compared.

        Of many entries it is looked for among those whose names share most with ``label``, so that few are read.
        """
        if self._budget <= 0:
            return None
        self._budget -= len(self._names)
        parts = frozenset(label.split(","))
        near = heapq.nlargest(_READ + 1, self._names, key=lambda named: len(named[1] & parts))
        paths_of = [path for name, _ in near if (path := self._cache / name) != left_out]
        found = []
        for path in paths_of:
            status, stored = self._read(path)
            if stored is not None:
                differences = find_differences(stored, wanted)
                found.append((len(differences), status is not Status.COMPLETED, NearestEntry(path, differences)))
        return min(found, key=lambda each: each[:2])[2] if found else None


class ReuseExplainer:
    """Says why tasks of a launch are not reused. ``code_changes`` is what it found of different code."""

    def __init__(self, cache: Path, code_changes: CodeChanges | None = None) -> None:
        cases = [] if code_changes is None else [case for case in code_changes.cases if case.is_rerun]
        self._other_code = {case.result.identity.key: name_some(case.files or ["somewhere"]) for case in cases}
        self._stored = functools.cache(lambda factory: StoredEntries(cache, factory))

    def explain(self, result: LookupResult) -> str | None:
        """Why a task is to run, in one line; None if there is nothing to say."""
        if result.identity.key in self._other_code:
            return f"its code has changed: {self._other_code[result.identity.key]}"
        if result.corrupt is not None:
            return f"what is stored is damaged: {result.corrupt}"
        if result.outcome is not None:
            return "it failed" if result.status is Status.FAILED else f"mode={result.mode}"
        if result.claim is not None:
            return "it was begun, and not completed"
        nearest = self.find_nearest(result.identity)
        return None if nearest is None else f"nearest stored: {nearest}"

    def has_more_than(self, number: int, factory: str) -> bool:
        """Whether the factory has more entries than that, in all versions."""
        return self._stored(factory).has_more_than(number)

    def find_nearest(self, identity: Identity) -> NearestEntry | None:
        stored = self._stored(identity.factory)
        return stored.find_nearest(TaskIdentity.of_identity(identity), identity.label)


def _read_outcome(path: Path) -> tuple[Status | None, TaskIdentity | None]:
    entry = Entry(path)
    outcome = entry.readable_outcome()
    identity = entry.identity_of_items() if outcome is None else outcome.identity
    status = None if outcome is None else outcome.status
    return status, None if identity is None else TaskIdentity.of_stored(identity)


def _is_same(stored: tp.Mapping[str, tp.Any], wanted: tp.Mapping[str, tp.Any], name: str) -> bool:
    if name in stored and name in wanted:
        return is_same_redacted(stored[name], wanted[name])
    return name not in stored and name not in wanted


def _value_text(form: tp.Any) -> str:
    return "(none)" if form is MISSING else one_line(str(readable_value(form)), _CHARACTERS)
