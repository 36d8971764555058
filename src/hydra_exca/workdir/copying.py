"""Writes copies of code, and tells whether one is still as it was written."""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import shutil
import stat
import time
from pathlib import Path

from hydra_exca import paths

from . import tree as trees
from .tree import Tree

_DAY_NS = 86_400 * 10**9  # every file of a snapshot was last changed at a midnight, so that a later change shows
_OLD_NS = 7 * _DAY_NS
_WRITABLE = 0o222
_MODULES = tuple(importlib.machinery.all_suffixes())


class ChangedError(Exception):
    """A file is no longer what its digest says."""


class Last:
    """The files of an earlier copy, by what is in them."""

    def __init__(self, cache: Path, digest: str | None) -> None:
        known = None if digest is None else trees.manifest(cache, digest, trusted=True)
        folder, own = places(cache, str(digest))
        self._folder = str(own if own.exists() else folder)
        self._names = {told: name for name, told in (known or {}).items()}

    def link(self, told: str, size: int, path: str) -> bool:
        """Makes ``path`` a hard link to a file with the same in it; False if there is none, or it was changed."""
        name = self._names.get(told)
        if name is None:
            return False
        place = f"{self._folder}/{name}"
        try:
            if not _is_as_written(os.lstat(place), told, size):
                return False
            _renew(place)  # first: who may not do this copies the file
            os.link(place, path, follow_symlinks=False)
            return True
        except OSError:  # too many links, another file system, somebody else's file
            return False


def is_own(owner: int) -> bool:
    """Whether nobody else can change what that user owns."""
    return trees.is_own(owner)


def places(cache: Path, digest: str) -> tuple[Path, Path]:
    """Where a copy is, and where it is if another user has something in that place."""
    folder = cache / paths.CODE / digest
    return folder, folder.with_name(f"{digest}.{os.getuid()}")


def fill(tree: Tree, folder: Path, last: Last, *, read_only: bool) -> None:
    """Raises ChangedError when a file is no longer what its digest says."""
    made: set[str] = set()
    for name, file in tree.files.items():
        path = f"{folder}/{name}"
        parent = name.rpartition("/")[0]
        if parent not in made:
            os.makedirs(f"{folder}/{parent}", exist_ok=True)
            made.add(parent)
        told = tree.told[name]
        if file.link is not None:
            os.symlink(file.link, path)
        elif not last.link(told, file.stat.st_size, path):
            _write(path, _content(tree, name), executable=_is_executable(told), read_only=read_only)
    if read_only:
        for here, _, _ in os.walk(folder, topdown=False):
            os.chmod(here, stat.S_IMODE(os.stat(here).st_mode) & ~_WRITABLE)


def is_whole(folder: Path, tree: Tree) -> bool:
    """Whether a copy has every file, nobody has written to any, and there are no more modules in it.

    A file or folder of another user is not trusted.
    """
    expected: dict[str, dict[str, str]] = {"": {}}
    for name in tree.files:
        parent, _, last = name.rpartition("/")
        expected.setdefault(parent, {})[last] = name
    try:
        return all(_is_whole_folder(f"{folder}/{parent}", names, tree) for parent, names in expected.items())
    except OSError:
        return False


def renew(folder: Path, tree: Tree) -> None:
    """Lets what removes old files keep a copy that is used: its files are no older than a week."""
    limit = time.time_ns() - _OLD_NS
    for name, file in tree.files.items():
        path = f"{folder}/{name}"
        with contextlib.suppress(OSError):  # another user's
            found = os.lstat(path)
            is_ours = file.link is not None or _is_as_written(found, tree.told[name], file.stat.st_size)
            if found.st_mtime_ns < limit and is_ours:
                _renew(path)


def _renew(path: str | int) -> None:
    now = time.time_ns()
    times = (now, now - now % _DAY_NS)
    if isinstance(path, int):
        os.utime(path, ns=times)
    else:
        os.utime(path, ns=times, follow_symlinks=False)


def _is_whole_folder(folder: str, names: dict[str, str], tree: Tree) -> bool:
    seen = 0
    if not trees.is_own(os.lstat(folder).st_uid):
        return False
    with os.scandir(folder) as entries:
        for entry in entries:
            name = names.get(entry.name)
            if name is None:
                if entry.name.endswith(_MODULES) and not entry.is_dir():
                    return False
            elif not _is_same(entry, name, tree):
                return False
            else:
                seen += 1
    return seen == len(names)


def _is_same(entry: os.DirEntry[str], name: str, tree: Tree) -> bool:
    file = tree.files[name]
    if file.link is not None:
        return os.readlink(entry.path) == file.link
    return _is_as_written(entry.stat(follow_symlinks=False), tree.told[name], file.stat.st_size)


def _is_as_written(found: os.stat_result, told: str, size: int) -> bool:
    if not stat.S_ISREG(found.st_mode) or found.st_size != size or found.st_mtime_ns % _DAY_NS:
        return False
    if not trees.is_own(found.st_uid):
        return False
    return bool(found.st_mode & 0o100) is _is_executable(told)


def _is_executable(told: str) -> bool:
    return told.endswith(" x")


def _content(tree: Tree, name: str) -> bytes:
    if name in tree.contents:
        return tree.contents[name]
    data = Path(tree.files[name].path).read_bytes()
    if trees.sha256(data) != tree.told[name].partition(" ")[0]:
        raise ChangedError
    return data


def _write(path: str, data: bytes, *, executable: bool, read_only: bool) -> None:
    mode = (0o444 if read_only else 0o666) | (0o111 if executable else 0)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, data[written:])
        if read_only:
            _renew(descriptor)
    finally:
        os.close(descriptor)


def told(path: Path) -> str | None:
    """What is in a file of a copy, as `Tree.told` has it, but for whether it can be executed."""
    if path.is_symlink():
        return f"-> {os.readlink(path)}"
    return trees.sha256(path.read_bytes()) if path.is_file() else None


def remove(folder: Path) -> None:
    """Removes what was not finished; its folders may be read-only."""
    if not folder.exists():
        return
    for here, _, _ in os.walk(folder):
        os.chmod(here, 0o700)
    shutil.rmtree(folder)
