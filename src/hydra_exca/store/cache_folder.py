"""The cache folder, and the folders ``<factory>,<version>`` in it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import typing as tp
from pathlib import Path

from hydra_exca import checksums, files, paths, records
from hydra_exca.errors import CacheError, ConfigError, CorruptEntryError, Problem

from .entry import Entry, Outcome

if tp.TYPE_CHECKING:
    from hydra_exca.identity.uid import Identity  # and with it pydantic, without which a job starts

MOST_COUNTED = 1000
"""Results of another version that are counted for a message: each is a file to open."""

log = logging.getLogger("exca.store")
_NAME = {"name": (str,), "digest": (str,)}
_PROJECT = dict.fromkeys(("name", "package", "remote", "path", "folder"), (str, type(None)))
Schema = tp.Mapping[str, tuple[type, ...]]
_SEARCHED = 32  # names that are searched for one by one
_LENGTHS = (8, 16)  # digits of the digest in a name; more are used if another identity has the same first ones


class CacheFolder:
    """The folder of all entries, snapshots and launches."""

    def __init__(self, path: Path, trust_users: tp.Collection[str] = ()) -> None:
        self.path = path
        self.trust_users = frozenset(trust_users)

    def factory_folder(self, factory: str, version: str) -> FactoryFolder:
        return FactoryFolder(paths.factory_folder(self.path, factory, version), self.trust_users)

    def other_versions(self, factory: str, *used: str, at_most: int = 3) -> dict[str, int]:
        """The number of results of each version of a factory that is not in ``used``: the newest few, newest first.

        Of each, `MOST_COUNTED` are counted at most.

        Versions without results, and unreadable ones, are left out.
        """
        counts: dict[str, int] = {}
        for version in self._versions(factory):
            count = 0 if version in used else self.factory_folder(factory, version).count_results()
            if count:
                counts[version] = count
            if len(counts) == at_most:
                break
        return counts

    def _versions(self, factory: str) -> list[str]:
        """The versions of a factory, the most recently changed first."""
        changed: dict[str, float] = {}
        with contextlib.suppress(OSError), os.scandir(self.path) as folders:
            for folder in folders:
                version = paths.version_of(folder.name, factory)
                if version is not None:
                    changed[version] = folder.stat().st_mtime
        return sorted(changed, key=lambda version: (-changed[version], version))

    def check_writable(self) -> None:
        """Raises ConfigError if results could not be written here. Writes nothing."""
        parent = next(folder for folder in (self.path, *self.path.parents) if os.path.lexists(folder))
        with files.disk_errors_translated(parent):
            is_folder = parent.is_dir()
        if not is_folder:
            raise _folder_error(f"{parent} is not a folder; choose another place for the results")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise _folder_error(f"{parent} cannot be written by {files.user_name(os.getuid())}")

    def create(self) -> None:
        """Makes the folder and its parents. It is marked as a cache for backup programs and ignored by git."""
        self.check_writable()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            files.clear_leftovers(self.path)
            if not any(self.path.iterdir()):  # git should not ignore a folder that holds other files
                files.publish_file(self.path / paths.CACHEDIR_TAG, paths.CACHEDIR_TAG_TEXT.encode())
                files.publish_file(self.path / paths.GITIGNORE, b"*\n")
        except OSError as error:
            raise _folder_error(f"{self.path} cannot be written: {error.strerror}") from error


class FactoryFolder:
    """All entries of one factory and version."""

    def __init__(self, path: Path, trust_users: tp.Collection[str] = ()) -> None:
        self.path = path
        self.trust_users = trust_users
        self._text = str(path)
        self._listing: _Listing | None = None
        self._leftovers: list[str] = []

    def find_entry(self, identity: Identity) -> Entry | None:
        """The entry of ``identity``, None if it never had one."""
        return self.lookup(identity)[0]

    def lookup(self, identity: Identity, of_many: bool = False) -> tuple[Entry | None, Outcome | None]:
        """The entry of ``identity`` and its outcome, None where there is none.

        Most entries have the name that today's code gives to their task, and one read finds them. For the others the
        folder is listed once, for all lookups until `refresh`. ``of_many`` says that the listing is current, so that an
        entry that is not listed does not exist.
        """
        stored = self.read_stored(identity) if self._listing is None or not of_many else None
        if stored is not None:
            return stored
        for name in self._candidates(identity):
            entry = self._entry(name)
            outcome = entry.readable_outcome(identity)
            if outcome is not None or self._belongs(entry, identity):
                return entry, outcome
        return None, None

    def read_stored(self, identity: Identity) -> tuple[Entry, Outcome] | None:
        """The entry of ``identity`` with its outcome, if it has one and the name that the task has today: one read."""
        entry = self._entry(identity.uid())
        try:
            outcome = entry.outcome_for(identity)
        except (CorruptEntryError, OSError):  # the listing, and then the state of the entry, tell more
            return None
        return None if outcome is None else (entry, outcome)

    def entries(self) -> list[Entry]:
        """All entries, by name."""
        names = sorted(name for name in files.list_folder(self.path) if name != paths.PROJECT)
        return [self._entry(name) for name in names if not name.startswith(".")]

    def count_results(self) -> int:
        """How many entries have a value, `MOST_COUNTED` at most; 0 where that cannot be read."""
        try:
            with os.scandir(self.path) as entries:
                named = (entry.name for entry in entries if entry.name[0] != "." and entry.name != paths.PROJECT)
                with_value = (name for name in named if self._entry(name).has_value())
                return sum(1 for _ in itertools.islice(with_value, MOST_COUNTED))
        except OSError:
            return 0

    def refresh(self) -> None:
        """Drops the listing: the next lookup sees what others have created since."""
        self._listing = None

    def open_entry(self, identity: Identity) -> Entry:
        """The entry of ``identity``, created if need be.

        The readable part of its name depends on how the task was asked for. So the first process decides the name, once
        and for all, with more digits of the digest if another identity has the same first ones.
        """
        with files.disk_errors_translated(self.path):
            entry = self.find_entry(identity)
            if entry is None:
                return self._create(identity)
            if not entry.create():
                entry.clear_leftovers()
            return entry

    def check_project(self, project: dict[str, tp.Any]) -> None:
        """Raises CacheError if the entries here come from another project; an empty ``project`` is not checked.

        Writes nothing.
        """
        recorded = self._read_project()
        if recorded and project and not _same_project(recorded, project):
            raise CacheError(
                f"{self.path} holds results of another project (in {_project_text(recorded)}), and this one (in "
                f"{_project_text(project)}) has the same name for what computes. Tell them apart by another folder or "
                "another version; a sweep can also have hydra.launcher.project=<a name>. If it is the same project, "
                f"cloned, moved or renamed: remove {self.path / paths.PROJECT}"
            )

    def create(self, project: dict[str, tp.Any]) -> None:
        """Creates the folder and records its project, if known; raises CacheError if it is another project's."""
        with files.disk_errors_translated(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.path / paths.NAMES):
                files.make_folder(folder)
            for name in self._leftovers:
                files.clear_leftover(f"{self._text}/{name}")
            if project and not self._read_project(set_aside=True):
                files.publish_file(self.path / paths.PROJECT, checksums.dump_record(project), durable=True)
        self.check_project(project)
        self.record_remote(project)

    def record_remote(self, project: dict[str, tp.Any]) -> None:
        """Adds the git remote of ``project`` to a record that was written before there was one: its clones share it.

        Does nothing if the record is of another project, or if it cannot be written.
        """
        recorded = self._read_project()
        if recorded and "remote" in project and "remote" not in recorded and _same_project(recorded, project):
            with contextlib.suppress(OSError):
                files.write_file(self.path / paths.PROJECT, checksums.dump_record(project))

    def _read_project(self, *, set_aside: bool = False) -> dict[str, tp.Any] | None:
        record = _read_record(self.path / paths.PROJECT, _PROJECT, set_aside=set_aside)
        return record if record and not _PROJECT.keys().isdisjoint(record) else None

    def _entry(self, name: str) -> Entry:
        return Entry(f"{self._text}/{name}", self.trust_users)

    def _candidates(self, identity: Identity) -> tp.Sequence[str]:
        """The listed names that may belong to ``identity``: usually one, or none."""
        if self._listing is None:
            self._listing = _Listing(files.list_folder(self.path))
            self._leftovers = [name for name in self._listing.names_with(".tmp/") if name.endswith(".tmp")]
        named = self._listing.named(*(identity.digest[:length] for length in _LENGTHS))
        return named if identity.fields else [*self._listing.named("default"), *named]

    def _belongs(self, entry: Entry, identity: Identity) -> bool:
        """Whether an entry without an outcome belongs to this identity, according to the record of its name."""
        return entry.readable_outcome() is None and any(
            record is not None and record["digest"] == identity.digest and record["name"] == entry.uid
            for record in (_read_record(self._name_path(identity, length), _NAME) for length in _LENGTHS)
        )

    def _create(self, identity: Identity) -> Entry:
        """Creates an entry for this identity, by a name of its own also where the record of another's name is lost."""
        for length in _LENGTHS:
            path = self._name_path(identity, length)
            name = identity.uid(length) if length == _LENGTHS[0] else f"{identity.label}-{identity.digest[:length]}"
            wanted = {"name": name.lstrip("-"), "digest": identity.digest}
            record = self._decide_name(path, wanted, identity)
            if record["digest"] == identity.digest:
                entry = Entry(self.path / record["name"], self.trust_users)
                if entry.create():
                    return entry
                if self._is_free(entry, identity):
                    entry.clear_leftovers()
                    return entry
        raise CacheError(f"{self.path}: two identities share {_LENGTHS[-1]} digits, {identity.digest}")

    def _decide_name(self, path: Path, wanted: dict[str, tp.Any], identity: Identity) -> dict[str, tp.Any]:
        """Publishes the record of a name, or returns the one that was first; a damaged one is set aside."""
        while not files.publish_file(path, checksums.dump_record(wanted), within=self.path):
            record = _read_record(path, _NAME, set_aside=True)
            if record is None:
                continue
            if record["digest"] != identity.digest or _is_name_of(record["name"], identity):
                return record
            _set_aside(path, f"{path} is damaged: 'name' cannot be {record['name']!r:.60}")
        return wanted

    def _is_free(self, entry: Entry, identity: Identity) -> bool:
        outcome = entry.readable_outcome()
        return outcome is None or identity.same_as(outcome.identity)

    def _name_path(self, identity: Identity, length: int) -> Path:
        return self.path / paths.NAMES / identity.digest[:length]


class _Listing:
    """The names in a folder. A few of 100,000 are found in their text: sorting all of them takes as long as listing."""

    def __init__(self, names: tp.Sequence[str]) -> None:
        self._names = names
        self._text = "/".join(("", *names, ""))
        self._asked = 0

    def named(self, *digits: str) -> list[str]:
        """The names that end in any of these, after the last hyphen; each of these begins with the one before."""
        self._asked += 1
        if self._asked > _SEARCHED:
            return [name for each in digits for name in self._sorted.get(each, ())]
        named = [name for name in self.names_with(digits[0]) if name.rpartition("-")[2] in digits]
        return sorted(named, key=lambda name: len(name.rpartition("-")[2]))

    def names_with(self, part: str) -> list[str]:
        """The names with this text in them, or at their end if it ends in a slash."""
        names = []
        start = self._text.find(part)
        while start >= 0:
            end = self._text.index("/", start)
            names.append(self._text[self._text.rindex("/", 0, start) + 1 : end])
            start = self._text.find(part, end)
        return names

    @functools.cached_property
    def _sorted(self) -> dict[str, list[str]]:
        by_digits: dict[str, list[str]] = {}
        for name in self._names:
            by_digits.setdefault(name.rpartition("-")[2], []).append(name)
        return by_digits


def _is_name_of(name: str, identity: Identity) -> bool:
    """Whether an entry of this identity can have this name: it is never elsewhere."""
    digits = name.rpartition("-")[2]
    is_own = digits in [identity.digest[:length] for length in _LENGTHS] or (name == "default" and not identity.fields)
    return is_own and "/" not in name and not name.startswith(".")


def _read_record(path: Path, schema: Schema, *, set_aside: bool = False) -> dict[str, tp.Any] | None:
    """The fields of a record, None if there is none or it is damaged, and then ``set_aside`` if that is asked for."""
    try:
        record = records.read_record(path)
        with records.damage_named(path):
            records.check_fields(record, schema)
        return record
    except FileNotFoundError:
        return None
    except CorruptEntryError as error:
        if set_aside:
            _set_aside(path, error)
        return None


def _set_aside(path: Path, damage: object) -> None:
    with contextlib.suppress(FileNotFoundError):  # another launch was quicker
        log.warning("exca: %s; it is set aside as %s", damage, files.move_aside(path))


def _same_project(recorded: dict[str, tp.Any], project: dict[str, tp.Any]) -> bool:
    """Whether two records are of one project: by its name or installed package, else by the place of its code.

    The place is that in the git repository if both have a remote, else the folder.
    """
    for key in ("name", "package"):
        if key in recorded or key in project:
            return bool(recorded.get(key) == project.get(key))
    keys = ("remote", "path") if "remote" in recorded and "remote" in project else ("folder",)
    return all(recorded.get(key) == project.get(key) for key in keys)


def _project_text(project: dict[str, tp.Any]) -> str:
    if "remote" in project:
        return f"{project['remote']}/{project.get('path', '')}"
    if "package" in project:
        return f"the installed package {project['package']}"
    return str(project.get("name") or project.get("folder"))


def _folder_error(message: str) -> ConfigError:
    return ConfigError("The cache folder cannot be used; nothing was run.", [Problem(message, "folder")])
