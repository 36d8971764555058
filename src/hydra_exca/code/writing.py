"""Copies code to folders, and checks that a copy is still as it was written."""

from __future__ import annotations

import contextlib
import importlib.machinery
import logging
import os
import shutil
import stat
import time
import typing as tp
from pathlib import Path

from hydra_exca import files, paths

from . import manifest, snapshot
from . import selection as finding
from .manifest import Manifest
from .rules import Rules
from .selection import Selection
from .snapshot import Module, Snapshot, Sources

log = logging.getLogger("exca.workdir")
_DAY_NS = 86_400 * 10**9  # every file of a snapshot was last changed at a midnight, so that a later change shows
_OLD_NS = 7 * _DAY_NS
_WRITABLE = 0o222
_MODULES = tuple(importlib.machinery.all_suffixes())


class ChangedError(Exception):
    """A file is no longer what its digest says."""


class FilePool:
    """The files of all copies that a user has in a cache, each once, named by what is in it; copies link to them."""

    def __init__(self, cache: Path) -> None:
        self._folder = paths.code_files(cache, os.getuid())

    def link(self, content: str, size: int, path: str) -> bool:
        """Makes ``path`` a hard link to the file with this content; False if there is none.

        Root can write to read-only files, and hard links would spread the change to every copy. A file whose content no
        longer has its digest is removed, so that `add` replaces it.
        """
        place = self._path(content)
        try:
            found = os.lstat(place)
            if not self._is_private():
                return False
            if not _is_as_written(found, content, size) and not _has_content(place, content):
                os.unlink(place)
                return False
            mode = stat.S_IMODE(os.lstat(place).st_mode)
            if mode & _WRITABLE:  # made so through a copy, before that was removed
                os.chmod(place, mode & ~_WRITABLE)
            _renew(place)
            os.link(place, path, follow_symlinks=False)
            return True
        except OSError:  # none there, too many links, no links on this file system
            return False

    def add(self, content: str, path: str) -> None:
        """Keeps a file of a copy for later ones, where the file system has hard links."""
        with contextlib.suppress(OSError):
            if not self._folder.exists():
                self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if self._is_private():
                os.link(path, self._path(content), follow_symlinks=False)

    def _is_private(self) -> bool:
        """Whether nobody else can give a file of the pool the name of another."""
        found = os.lstat(self._folder)
        others = stat.S_IWGRP | stat.S_IWOTH
        return stat.S_ISDIR(found.st_mode) and snapshot.is_trusted_owner(found.st_uid) and not found.st_mode & others

    def _path(self, content: str) -> str:
        return f"{self._folder}/{content.replace(' ', '.')}"


def _has_content(path: str, content: str) -> bool:
    """Whether a file of ours, which somebody has touched, still is what it was."""
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode) or not snapshot.is_trusted_owner(found.st_uid):
        return False
    same_mode = bool(found.st_mode & 0o100) is _is_executable(content)
    return same_mode and manifest.sha256(Path(path).read_bytes()) == content.partition(" ")[0]


def copy_places(cache: Path, digest: str) -> tuple[Path, Path]:
    """Where a copy is, and where it is if another user has something in that place."""
    folder = cache / paths.CODE / digest
    return folder, folder.with_name(f"{digest}.{os.getuid()}")


def write_copy(tree: Manifest, folder: Path, pool: FilePool | None) -> None:
    """Fills a folder, read-only with links to the files of a pool, or writable without one.

    Raises ChangedError when a file is no longer what its digest says.
    """
    made: set[str] = set()
    for name, file in tree.files.items():
        path = f"{folder}/{name}"
        parent = name.rpartition("/")[0]
        if parent not in made:
            os.makedirs(f"{folder}/{parent}", exist_ok=True)
            made.add(parent)
        fingerprint = tree.fingerprints[name]
        if file.link is not None:
            os.symlink(file.link, path)
        elif pool is None or not pool.link(fingerprint, file.stat.st_size, path):
            _write(path, _content(tree, name), executable=_is_executable(fingerprint), read_only=pool is not None)
            if pool is not None:
                pool.add(fingerprint, path)
    if pool is not None:
        for here, _, _ in os.walk(folder, topdown=False):
            os.chmod(here, stat.S_IMODE(os.stat(here).st_mode) & ~_WRITABLE)


def is_intact(folder: Path, tree: Manifest) -> bool:
    """Whether a copy has every file, nobody has written to any, and there are no more modules in it.

    A file or folder of another user is not trusted.
    """
    expected: dict[str, dict[str, str]] = {"": {}}
    for name in tree.files:
        parent, _, last = name.rpartition("/")
        expected.setdefault(parent, {})[last] = name
    try:
        return all(_is_intact_folder(f"{folder}/{parent}", names, tree) for parent, names in expected.items())
    except OSError:
        return False


def renew_copy(folder: Path, tree: Manifest) -> None:
    """Touches the files of a copy in use at least once a week, so that cleaners of old files spare it."""
    limit = time.time_ns() - _OLD_NS
    for name, file in tree.files.items():
        path = f"{folder}/{name}"
        with contextlib.suppress(OSError):  # another user's
            found = os.lstat(path)
            is_ours = file.link is not None or _is_as_written(found, tree.fingerprints[name], file.stat.st_size)
            if found.st_mtime_ns < limit and is_ours:
                _renew(path)


def _renew(path: str | int) -> None:
    now = time.time_ns()
    times = (now, now - now % _DAY_NS)
    if isinstance(path, int):
        os.utime(path, ns=times)
    else:
        os.utime(path, ns=times, follow_symlinks=False)


def _is_intact_folder(folder: str, names: dict[str, str], tree: Manifest) -> bool:
    seen = 0
    if not snapshot.is_trusted_owner(os.lstat(folder).st_uid):
        return False
    with os.scandir(folder) as entries:
        for entry in entries:
            name = names.get(entry.name)
            if name is None:
                if entry.name.endswith(_MODULES) and not entry.is_dir():
                    return False
            elif not _is_unchanged(entry, name, tree):
                return False
            else:
                seen += 1
    return seen == len(names)


def _is_unchanged(entry: os.DirEntry[str], name: str, tree: Manifest) -> bool:
    file = tree.files[name]
    if file.link is not None:
        return os.readlink(entry.path) == file.link
    return _is_as_written(entry.stat(follow_symlinks=False), tree.fingerprints[name], file.stat.st_size)


def _is_as_written(found: os.stat_result, fingerprint: str, size: int) -> bool:
    if not stat.S_ISREG(found.st_mode) or found.st_size != size or found.st_mtime_ns % _DAY_NS:
        return False
    if not snapshot.is_trusted_owner(found.st_uid):
        return False
    return bool(found.st_mode & 0o100) is _is_executable(fingerprint)


def _is_executable(fingerprint: str) -> bool:
    return fingerprint.endswith(" x")


def _content(tree: Manifest, name: str) -> bytes:
    if name in tree.contents:
        return tree.contents[name]
    data = Path(tree.files[name].path).read_bytes()
    if manifest.sha256(data) != tree.fingerprints[name].partition(" ")[0]:
        raise ChangedError
    return data


def _write(path: str, data: bytes, *, executable: bool, read_only: bool) -> None:
    mode = (0o444 if read_only else 0o666) | (0o111 if executable else 0)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        files.write_all(descriptor, data)
        if read_only:
            _renew(descriptor)
    finally:
        os.close(descriptor)


def _fingerprint_of(path: Path) -> str | None:
    """The fingerprint of a file of a copy, as `Manifest.fingerprints` has it, but for whether it can be executed."""
    if path.is_symlink():
        return f"-> {os.readlink(path)}"
    return manifest.sha256(path.read_bytes()) if path.is_file() else None


def remove_copy(folder: Path) -> None:
    """Removes what was not finished; its folders may be read-only."""
    if not folder.exists():
        return
    for here, _, _ in os.walk(folder):
        os.chmod(here, 0o700)
    shutil.rmtree(folder)


_TRIES = 5
_EVERYTHING = Rules()


def check_place(folder: Path, rules: Rules) -> None:
    """Raises ConfigError if no copy can be at ``folder``."""
    if not folder.parent.is_dir():
        raise rules.error(f"{folder.parent} does not exist; create it", "folder")
    is_free = not folder.exists() or (folder.is_dir() and not os.listdir(folder))
    if not is_free and not (folder / paths.CODE_MARK).is_file():
        raise rules.error(f"{folder} is there and is no copy of code; name another folder", "folder")


def take_snapshot(
    selection: Selection,
    cache: Path,
    rules: Rules = _EVERYTHING,
    folder: Path | None = None,
    never_copied: tp.Collection[Path] = (),
    known: Manifest | None = None,
) -> Snapshot:
    """Copies what `select_sources` found below ``<cache>/code/<digest>``, unless that copy is there.

    Files are read-only, and those with the same content in several copies are hard links to one. With ``folder`` the
    copy is there instead, and can be written; ConfigError if that holds anything else. ``known`` is what
    `make_manifest` has just found.
    """
    never_copied = [*never_copied, *([] if folder is None else [folder])]
    for _ in range(_TRIES):
        tree = known or manifest.make_manifest(selection.sources, cache, rules, never_copied)
        known = None
        with contextlib.suppress(ChangedError, FileNotFoundError):
            target = (
                _copy_to_cache(tree, selection, cache, rules)
                if folder is None
                else _copy_to_folder(tree, selection, cache, folder, rules)
            )
            sources = tuple((source.resolve(), copy) for source, copy in selection.sources)
            modules = tuple(module for module in finding.imported_modules() if _is_of(module, sources))
            return Snapshot(target, tree.digest, sources, selection.roots, modules, not_copied=tree.not_copied)
    raise rules.error("files change while they are copied; try again")


def _is_of(module: Module, sources: Sources) -> bool:
    return any(place.is_relative_to(source) for place in module.places for source, _ in sources)


def _copy_to_cache(tree: Manifest, selection: Selection, cache: Path, rules: Rules) -> Path:
    """The copy below the cache. Of two launches that make the same one at once, one copy stays."""
    target = _choose_place(tree, cache, rules)
    if target.exists():
        if is_intact(target, tree):
            renew_copy(target, tree)
        else:
            _set_aside(target)
    if not target.exists():
        with _filled_folder(target, rules) as temporary:
            write_copy(tree, temporary, FilePool(cache))
        if not target.exists():
            raise ChangedError
    manifest.store_manifest(cache, tree, selection.sources)
    return target


def _choose_place(tree: Manifest, cache: Path, rules: Rules) -> Path:
    """Where the copy is to be; never in place of one of another user: jobs may run from that."""
    candidates = copy_places(cache, tree.digest)
    for place in candidates:
        owner = _owner(place)
        if owner in (None, os.getuid()) or (snapshot.is_trusted_owner(owner) and is_intact(place, tree)):
            return place
    raise rules.error(
        f"{candidates[-1]} is there, and belongs to another user; remove it, or name another cache folder"
    )


def _owner(place: Path) -> int | None:
    try:
        return os.lstat(place).st_uid
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _filled_folder(target: Path, rules: Rules) -> tp.Iterator[Path]:
    """A folder to fill, which then is at ``target``, unless another launch was quicker; if that fails, nothing is."""
    temporary = target.with_name(paths.temporary_name(target.name, files.random_token()))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _rename(temporary, target)
    except FileNotFoundError:
        raise
    except OSError as error:
        place = "" if error.filename is None else f" ({os.fsdecode(error.filename)})"
        raise rules.error(f"it cannot be copied to {target}: {error.strerror or error}{place}") from error
    finally:
        remove_copy(temporary)


def _rename(temporary: Path, target: Path) -> None:
    try:
        os.rename(temporary, target)
    except OSError:
        if not os.path.lexists(target):  # else another launch was quicker
            raise


def _set_aside(target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        aside = files.move_aside(target)
        log.warning("exca: the copy of the code %s was changed after it was made; it is set aside as %s", target, aside)


def _copy_to_folder(tree: Manifest, selection: Selection, cache: Path, folder: Path, rules: Rules) -> Path:
    """The copy in a folder that was named. A mark in it tells later what it is."""
    if not _is_copied_to(folder, tree, rules):
        with _filled_folder(folder, rules) as temporary:
            write_copy(tree, temporary, None)
            (temporary / paths.CODE_MARK).write_text(f"{tree.digest}\n")
        if not _is_copied_to(folder, tree, rules):  # another launch was quicker
            raise ChangedError
    manifest.store_manifest(cache, tree, selection.sources)
    return folder


def _is_copied_to(folder: Path, tree: Manifest, rules: Rules) -> bool:
    """Whether this code was copied to ``folder`` before. ConfigError if anything else is there."""
    check_place(folder, rules)
    mark = folder / paths.CODE_MARK
    if not mark.exists():
        return False
    if mark.read_text().strip() != tree.digest:
        raise rules.error(
            f"{folder} holds a copy of other code, which jobs may still run from. Remove it when none does, or name "
            "another folder",
            "folder",
        )
    changed = [
        name for name in tree.files if _fingerprint_of(folder / name) != tree.fingerprints[name].removesuffix(" x")
    ]
    if changed:
        raise rules.error(f"{folder / changed[0]} was changed after it was copied; remove {folder}", "folder")
    return True
