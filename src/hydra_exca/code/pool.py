"""The files of all copies that a user has in a cache, each once; copies are hard links to them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from pathlib import Path

from hydra_exca import paths

from .snapshot import is_trusted_owner

_DAY_NS = 86_400 * 10**9
_WRITABLE = 0o222


class FilePool:
    """Files named by their content. Only their owner and root can have written them."""

    def __init__(self, cache: Path) -> None:
        self._folder = paths.code_files(cache, os.getuid())

    def link(self, fingerprint: str, size: int, path: str) -> bool:
        """Makes ``path`` a hard link to the file with this fingerprint; False if there is none.

        Root can write to read-only files, and hard links would spread the change to every copy. A file that has changed
        is removed, so that `add` replaces it.
        """
        stored = self._path(fingerprint)
        try:
            if not self._is_private():
                return False
            if not is_unchanged(stored, fingerprint, size):
                os.unlink(stored)
                return False
            mode = stat.S_IMODE(os.lstat(stored).st_mode)
            if mode & _WRITABLE:  # made so through a copy, before that was removed
                os.chmod(stored, mode & ~_WRITABLE)
            renew(stored)
            os.link(stored, path, follow_symlinks=False)
            return True
        except OSError:  # none there, too many links, no links on this file system
            return False

    def add(self, fingerprint: str, path: str) -> None:
        """Stores a file of a copy for later copies, if the file system has hard links."""
        with contextlib.suppress(OSError):
            if not self._folder.is_dir():
                self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if self._is_private():
                os.link(path, self._path(fingerprint), follow_symlinks=False)

    def _is_private(self) -> bool:
        """Whether nobody else can rename files in the pool."""
        found = os.lstat(self._folder)
        others = stat.S_IWGRP | stat.S_IWOTH
        return stat.S_ISDIR(found.st_mode) and is_trusted_owner(found.st_uid) and not found.st_mode & others

    def _path(self, fingerprint: str) -> str:
        return f"{self._folder}/{fingerprint.replace(' ', '.')}"


def is_unchanged(path: str, fingerprint: str, size: int, *, with_mode: bool = True) -> bool:
    """Whether a file or link of a copy still is what its fingerprint says, and belongs to a trusted owner.

    A file is read only if its size has changed, or its time is not one that `renew` gives. Unless ``with_mode``, it may
    have become executable, or no longer be.
    """
    try:
        if fingerprint.startswith("-> "):
            return f"-> {os.readlink(path)}" == fingerprint
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode) or not is_trusted_owner(found.st_uid):
            return False
        if with_mode and bool(found.st_mode & 0o100) is not fingerprint.endswith(" x"):
            return False
        if found.st_size == size and found.st_mtime_ns % _DAY_NS == 0:
            return True
        return sha256(Path(path).read_bytes()) == fingerprint.partition(" ")[0]
    except OSError:
        return False


def renew(path: str) -> None:
    """Gives a file the time of the last midnight: cleaners of old files spare it, and any later change shows."""
    now = time.time_ns()
    os.utime(path, ns=(now, now - now % _DAY_NS), follow_symlinks=False)


def sha256(data: bytes) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
