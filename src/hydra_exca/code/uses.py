"""The record of the files of a project that a task used, and which later changes count by it.

It is stored beside the fingerprints of the code, and tasks that use the same files share it. It has the name in the
copy of each file, folder and module, with how it was used:

- ``file``: it was opened or imported;
- ``folder``: a package that was imported from, or a folder that was listed: a new file in it counts;
- ``name``: a module of this name would be found, where none or a later one was: its file counts if it is new;
- ``any``: so would a folder without an ``__init__.py``: any new file in it counts.
"""

from __future__ import annotations

import dataclasses
import json
import os
import typing as tp
from pathlib import Path

from . import observer
from .compare import CopyComparison, Fingerprints
from .manifest import read_manifest, store_fingerprints
from .observer import FILE, FOLDER, NAME, Fact
from .pool import sha256
from .snapshot import Sources

ANY = "any"
_USED = "used-"
_DIGITS = 16
_PYTHON = (".py", ".pyw", ".ipynb")
_HIDDEN = (".yaml", ".yml", ".toml")
_MOST_FOLDERS = 1000
_LINK = "->"
_NEVER_SHADOWED = ("built-in", "frozen")
Uses: tp.TypeAlias = dict[str, str]


class _Names:
    """The names in a copy of the code, for paths in the originals or in the copy."""

    def __init__(self, sources: Sources, copy: Path | None) -> None:
        places = [(str(source), str(place)) for source, place in sources]
        places += [(str(copy), ".")] if copy is not None else []
        resolved = [(os.path.realpath(source), place) for source, place in places]
        self._places = sorted({*places, *resolved}, key=lambda pair: -len(pair[0]))
        self._known: dict[str, set[str]] = {}

    def _name(self, path: str) -> str | None:
        """The name of the copy, "" for the folder of all; None for a path outside."""
        for source, place in self._places:
            if path == source or path.startswith(f"{source}/"):
                name = os.path.normpath(f"{place}{path[len(source) :]}")
                return "" if name == "." else name
        return None

    def names(self, path: str) -> set[str]:
        """The names of a file or folder, as it was called, and where links lead; none for a path outside."""
        if path not in self._known:
            places = {path, os.path.realpath(path)}
            self._known[path] = {name for name in map(self._name, places) if name is not None}
        return self._known[path]


def used_code(facts: tp.Iterable[Fact], sources: Sources, copy: Path | None) -> Uses:
    """What facts of `observer` mean for code that was copied from these sources, or is run from the copy."""
    names, kinds = _Names(sources, copy), dict[str, set[str]]()
    for fact in dict.fromkeys(facts):
        for name, kind in _meaning(fact, names):
            kinds.setdefault(name, set()).add(kind)
    if sum(FOLDER in how for how in kinds.values()) > _MOST_FOLDERS:  # it looks through its project, or its data there
        kinds = {name: how - {FOLDER} for name, how in kinds.items()} | {"": {ANY}}
    return {name: " ".join(sorted(how)) for name, how in sorted(kinds.items()) if how}


def _meaning(fact: Fact, names: _Names) -> tp.Iterator[tuple[str, str]]:
    kind, what, *path = fact if len(fact) > 1 else (*fact, "")
    if kind == NAME:
        yield from _lookups(what, path, names)
    elif kind in (FILE, FOLDER):
        for name in names.names(what):
            yield name, kind
            if kind == FILE and name.endswith("/__init__.py"):
                yield os.path.dirname(name), FOLDER


class _Found(tp.NamedTuple):
    """The folder that a module was found in, None if it was not found there; ``portions`` are those of a package."""

    folder: str | None
    portions: tuple[str, ...] | None


def _find(module: str) -> _Found | None:
    """Where this process has found a module; None if that is always in Python itself."""
    spec = observer.module_attribute(module, "__spec__")
    origin, portions = getattr(spec, "origin", None), getattr(spec, "submodule_search_locations", None)
    if origin in _NEVER_SHADOWED or module == "__main__":
        return None
    portions = None if portions is None else tuple(portions)
    if not isinstance(origin, str) or not os.path.isabs(origin):
        return _Found(None, portions)
    folder = os.path.dirname(origin)
    return _Found(folder if portions is None else os.path.dirname(folder), portions)


def _lookups(module: str, path: tp.Sequence[str], names: _Names) -> tp.Iterator[tuple[str, str]]:
    """The modules that would be found for the name of another one, in the folders before that one's."""
    found = _find(module)
    if found is None:
        return
    tail, is_sub, folder, portions = module.rpartition(".")[2], "." in module, found.folder, found.portions
    home = set[str]() if folder is None else names.names(folder)
    for place in path:
        places = names.names(place)
        is_here = place == folder or not home.isdisjoint(places)
        for name in places:
            yield from [(name, FOLDER)] if is_sub else []
            inside = os.path.normpath(f"{name}/{tail}") if name else tail
            yield from [(inside, NAME)] if not is_here or portions is None else []
            yield from [(inside, ANY)] if folder is None and f"{place}/{tail}" not in (portions or ()) else []
        if is_here:
            return


def counting_changes(comparison: CopyComparison, uses: Uses) -> list[str]:
    """Those of the differing files that count for a task that used this of the old copy.

    A new file in a new folder counts as that folder does in the one around it.
    """
    before, after, uses = comparison.before, comparison.after, _renamed(uses, comparison.old_names)
    folders = {True: _folders(before), False: _folders(after)}

    def counts(name: str) -> bool:
        if name in before and name in after:  # a link on the way to a file is not opened
            return _is_used(name, uses) or _LINK in (before[name][:2], after[name][:2])
        return _is_used(name, uses) or _would_be_used(name, folders[name not in before], uses)

    return [name for name in comparison.differing if counts(name)]


def _renamed(uses: Uses, names: tp.Mapping[str, str]) -> Uses:
    """What was used, under the names that the files have in the other copy."""
    folders = {os.path.dirname(name): os.path.dirname(other) for name, other in names.items()}
    renamed = {}
    for name, kinds in uses.items():
        folder, last = os.path.split(name)
        other = os.path.join(folders[folder], last) if folder in folders else name
        renamed[names.get(name) or folders.get(name, other)] = kinds
    return renamed


def _folders(files: Fingerprints) -> set[str]:
    return {str(folder) for folder in {Path(name).parent for name in files} for folder in (folder, *folder.parents)}


def _is_used(name: str, uses: Uses) -> bool:
    """Whether a file was opened, or is one of those of which that is not known."""
    is_hidden = "/." in f"/{name}" and name.endswith(_HIDDEN)
    return FILE in _kinds(uses, name) or not (is_hidden or name.endswith(_PYTHON))


def _would_be_used(name: str, known: set[str], uses: Uses) -> bool:
    """Whether a file would be used that only one of the copies has; the other one has the ``known`` folders."""
    folder = os.path.dirname(name)
    while FOLDER not in _kinds(uses, folder):
        if folder in known or not folder:
            return name.endswith(_PYTHON) and _would_be_found(name, uses)
        folder = os.path.dirname(folder)
    return True


def _would_be_found(name: str, uses: Uses) -> bool:
    """Whether a new module, or the folder of a new one, would be found for a name that was imported."""
    module = os.path.splitext(name)[0].removesuffix("/__init__")
    if NAME in _kinds(uses, module):
        return True
    return any(ANY in _kinds(uses, str(folder).removeprefix(".")) for folder in Path(name).parents)


def _kinds(uses: Uses, name: str) -> list[str]:
    return uses.get(name, "").split()


@dataclasses.dataclass(frozen=True)
class UseRecorder:
    """Records what tasks of this process use of code with these ``sources``, or of its ``copy``, in ``cache``.

    ``ranks`` are the files in which other ranks share what they use. Of processes that cannot be observed, ``unknown``
    were started before the task.
    """

    cache: Path
    sources: Sources
    copy: Path | None
    ranks: tuple[Path, ...] = ()
    unknown: int = 0

    def record(self) -> str | None:
        """Stores what was used so far, and returns its digest; None if that is not known."""
        facts = observer.observed_facts(map(str, self.ranks), self.unknown)
        if facts is None:
            return None
        uses = used_code(facts, self.sources, self.copy)
        for _, cache, used in (fact for fact in facts if fact[0] == observer.RESULT):
            inner = read_manifest(Path(cache), used) if used else None
            if inner is None or not self._has_files(inner):
                return None
            uses |= {name: " ".join(sorted({*kinds.split(), *_kinds(uses, name)})) for name, kinds in inner.items()}
        uses = dict(sorted(uses.items()))
        digest = f"{_USED}{sha256(json.dumps(uses).encode())[:_DIGITS]}"
        store_fingerprints(self.cache, digest, uses, ())
        return digest

    def _has_files(self, uses: Uses) -> bool:
        """Whether the copy has the files that were used of another one, which may have had other names in that."""
        files = (name for name in uses if FILE in _kinds(uses, name))
        return self.copy is not None and all(os.path.lexists(self.copy / name) for name in files)
