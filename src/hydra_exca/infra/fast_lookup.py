"""Stored values found without a launch: most calls need nothing else.

Whatever is out of the ordinary (no value, one that cannot be read or used, another project's) is left to the launch.
"""

from __future__ import annotations

import functools
import os
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.code import active
from hydra_exca.errors import CacheError
from hydra_exca.identity import uid
from hydra_exca.identity.uid import Identity
from hydra_exca.launch import plan
from hydra_exca.launch.plan import Action
from hydra_exca.provenance import project
from hydra_exca.status import Mode, Status
from hydra_exca.store import CacheFolder, Entry, FactoryFolder, Outcome

_REMEMBERED = 4096


class Hit(tp.NamedTuple):
    """A stored value."""

    value: tp.Any


def find_hit(cache: CacheFolder, identity: Identity, cls: type, mode: Mode) -> Hit | None:
    """The value that a launch would return for an object of ``cls``; None where only a launch can tell."""
    if plan.decide(Status.COMPLETED, mode) is not Action.REUSE:
        return None
    found = stored_outcome(cache, identity)
    if found is None or found[1].status is not Status.COMPLETED or uid.changed_defaults(found[1].identity, identity):
        return None
    try:
        _check_project(cls, cache, _factory_folder(str(cache.path), identity.factory, identity.version))
        return Hit(found[0].load_value(found[1]))
    except CacheError:
        return None


def stored_outcome(cache: CacheFolder, identity: Identity) -> tuple[Entry, Outcome] | None:
    """The entry with an outcome that has the name which the identity has today."""
    return _factory_folder(str(cache.path), identity.factory, identity.version).read_stored(identity)


def cache_folder(folder: Path | str) -> CacheFolder:
    """The cache in a folder of the settings; of an absolute one always the same."""
    text = str(folder)
    return _absolute(text) if text[:1] == os.sep else CacheFolder(active.located(folder))


@functools.lru_cache(maxsize=_REMEMBERED)
def _absolute(folder: str) -> CacheFolder:
    return CacheFolder(active.located(folder))


@functools.lru_cache(maxsize=_REMEMBERED)
def _factory_folder(folder: str, factory: str, version: str) -> FactoryFolder:
    """Only asked for what it does not remember: its listing would grow old."""
    return CacheFolder(Path(folder)).factory_folder(factory, version)


_checked_projects: dict[tuple[type, str], tuple[int, ...] | None] = {}
"""For a class and a folder: the record of the project that was found to be the class's own, as `os.stat` knows it."""


def _check_project(cls: type, cache: CacheFolder, folder: FactoryFolder) -> None:
    """Raises CacheError for the results of another project; reads its record once, and again if that is another."""
    copy, key = active.current(), (cls, str(folder.path))
    state = _stat_fields(f"{key[1]}/{paths.PROJECT}")
    if copy is None and _checked_projects.get(key, ()) == state:
        return
    folder.check_project(project.describe_project(cls, cache.path, copy=copy))
    if copy is None:
        if len(_checked_projects) >= _REMEMBERED:
            _checked_projects.clear()
        _checked_projects[key] = state


def _stat_fields(path: str) -> tuple[int, ...] | None:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size
