"""Looks up stored values without a launch, which is all that most calls need.

Everything else (no value, one that cannot be read, one of another project) is left to the launch.
"""

from __future__ import annotations

import functools
import logging
import os
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.code import active
from hydra_exca.errors import CacheError
from hydra_exca.identity import uid
from hydra_exca.identity.uid import Identity
from hydra_exca.job.enclosing import use_result
from hydra_exca.launch import actions
from hydra_exca.launch.actions import Action
from hydra_exca.launch.current_code import CurrentCode
from hydra_exca.provenance import project
from hydra_exca.status import Mode, Status
from hydra_exca.store import CacheFolder, Entry, FactoryFolder, Outcome

log = logging.getLogger("exca.infra")
_REMEMBERED = 4096


class Hit(tp.NamedTuple):
    """A stored value."""

    value: tp.Any


def find_hit(
    cache: CacheFolder,
    identity: Identity,
    cls: type,
    mode: Mode,
    code: CurrentCode | None = None,
    is_strict: bool = False,
) -> Hit | None:
    """The value that a launch would return for an object of ``cls``; None where only a launch can tell.

    That is so for a value that other code than ``code`` has computed, or, if ``is_strict``, unknown code.
    """
    if actions.decide(Status.COMPLETED, mode) is not Action.REUSE:
        return None
    stored = stored_outcome(cache, identity)
    if stored is None:
        return None
    entry, outcome = stored
    if outcome.status is not Status.COMPLETED or uid.changed_defaults(outcome.identity, identity):
        return None
    if code is not None and not code.is_that_of(outcome, is_strict):
        return None
    try:
        _check_project(cls, cache, _factory_folder(str(cache.path), identity.factory, identity.version))
        value = entry.load_value(outcome)
        if outcome.writer is not None:
            _say_whose(outcome.writer)
        files.clear_linked()
        use_result(cache.path, outcome.used)
        return Hit(value)
    except CacheError:
        return None


@functools.cache  # once
def _say_whose(writer: int) -> None:
    log.info("exca: stored results were computed by %s", files.user_name(writer))


def stored_outcome(cache: CacheFolder, identity: Identity) -> tuple[Entry, Outcome] | None:
    """The entry of an identity and its outcome, None if there is no outcome under the identity's own uid."""
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
    """For single lookups only, which do not use its listing: that would become outdated."""
    return CacheFolder(Path(folder)).factory_folder(factory, version)


def _check_project(cls: type, cache: CacheFolder, folder: FactoryFolder) -> None:
    """Raises CacheError for the results of another project."""
    copy = active.current()
    if copy is None:
        _check_unless_known(cls, cache.path, folder, file_state(f"{folder.path}/{paths.PROJECT}"))
    else:
        folder.check_project(project.describe_project(cls, cache.path, copy=copy))


@functools.lru_cache(maxsize=_REMEMBERED)
def _check_unless_known(cls: type, cache: Path, folder: FactoryFolder, state: tuple[int, ...] | None) -> None:
    """Reads the record of the project once for each ``state`` of its file, in which it was found to be the class's."""
    described = project.describe_project(cls, cache, copy=None)
    folder.check_project(described)
    folder.record_remote(described)


def file_state(path: str) -> tuple[int, ...] | None:
    """What differs if another file is in its place, or it was written; None if there is none."""
    try:
        stat = os.lstat(path)
    except OSError:  # reading it says why
        return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size
