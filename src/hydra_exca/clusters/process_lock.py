"""The lock by which other processes on the same kernel see that one has ended, in whatever container either of them is.

Each process locks one byte of a file in the cache folder, chosen at random, and its claims name that byte. So one
descriptor serves all its claims. The lock belongs to the open file ("open file description locks" in fcntl(2)): that
of `fcntl.lockf` would be lost as soon as anything in this process closes the file, say a copy of the cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import struct
import threading
import typing as tp

_FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SHARED = 0o666  # as the umask allows; a shared lock needs no more than reading
_POSITIONS = 1 << 62

Lock = dict[str, tp.Any]
"""The ``file``, its ``device`` and ``inode``, and the locked ``byte``."""

_held: dict[str, tuple[int, Lock]] = {}
_mutex = threading.Lock()


def hold_lock(path: str) -> Lock | None:
    """The lock of this process in the file at ``path``, held until the process ends; None where locks do not work."""
    with _mutex:
        if path not in _held:
            with contextlib.suppress(OSError):  # no permission, or ENOLCK
                _take(path)
        return _held[path][1] if path in _held else None


def is_free(lock: tp.Mapping[str, tp.Any]) -> bool:
    """Whether nobody holds a lock any more; False where that cannot be told, as the file is another one by now."""
    try:
        descriptor = os.open(lock["file"], _FLAGS)
    except OSError:
        return False
    try:
        is_locked = _control(descriptor, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, lock["byte"]) != fcntl.F_UNLCK
        return _is_file_of(lock, descriptor) and not is_locked
    except (OSError, struct.error):  # the byte is that of no file
        return False
    finally:
        os.close(descriptor)


def _take(path: str) -> None:
    descriptor = os.open(path, _FLAGS | os.O_CREAT, _SHARED)
    try:
        device, inode = _identify(descriptor)
        lock: Lock = {"file": path, "device": device, "inode": inode, "byte": secrets.randbelow(_POSITIONS)}
        _control(descriptor, fcntl.F_OFD_SETLK, fcntl.F_RDLCK, lock["byte"])
        if not is_free(lock):  # some file systems accept a lock and do nothing
            _held[path] = descriptor, lock
    finally:
        if path not in _held:
            os.close(descriptor)


def _identify(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError("not a file")
    return status.st_dev, status.st_ino


def _is_file_of(lock: tp.Mapping[str, tp.Any], descriptor: int) -> bool:
    return (lock["device"], lock["inode"]) == _identify(descriptor)


def _control(descriptor: int, command: int, kind: int, byte: int) -> int:
    """Sets or tests a lock; the kind of lock that is there."""
    given = _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)
    return int(_FLOCK.unpack(fcntl.fcntl(descriptor, command, given))[0])


def _forget_in_child() -> None:
    """Closes, in a forked process, the files of its parent, which would hold the locks beyond the parent's end."""
    for descriptor, lock in _held.values():
        with contextlib.suppress(OSError):  # the program may have closed all its files
            if _is_file_of(lock, descriptor):
                os.close(descriptor)
    _held.clear()
    _mutex.release()


os.register_at_fork(before=_mutex.acquire, after_in_parent=_mutex.release, after_in_child=_forget_in_child)
