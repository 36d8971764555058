"""Atomic writing of files, and reading of trusted ones only."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.errors import CacheError

SHARED = 0o666  # as the umask allows
OWN_CODE = 0o644  # what is executed on loading: nobody else may write it
PRIVATE = 0o600  # what may hold secrets

_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}  # link(2), and FUSE


def random_token() -> str:
    return os.urandom(6).hex()


def dump_json(value: tp.Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()


def write_file(
    path: Path, data: bytes | tp.Callable[[tp.BinaryIO], None], *, mode: int = SHARED, durable: bool = True
) -> None:
    """Replaces ``path`` atomically and durably: temporary file beside it, fsync, rename."""
    with replacing(path) as temporary:
        _create(temporary, data, mode, durable)
    if durable:
        sync_folder(path.parent)


@contextlib.contextmanager
def replacing(path: Path) -> tp.Iterator[str]:
    """Gives a temporary path beside ``path``, and renames what was made there to ``path``. An error removes it."""
    temporary = _temporary_path(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def publish_file(path: Path, data: bytes, *, durable: bool = False) -> bool:
    """Creates ``path`` with all its content, unless it exists; True if this call created it.

    link(2) fails when the name is taken, so of any number of callers one wins. It need not be durable where it
    matters only while processes live. Over NFS a link may be reported as failed though it was made (link(2),
    BUGS); the link count of the temporary file tells. Raises CacheError on a file system without hard links.
    """
    temporary = _temporary_path(path)
    try:
        _create(temporary, data, SHARED, durable)
        _link(temporary, path)
        if durable:
            sync_folder(path.parent)
        return True
    except FileExistsError:
        return os.stat(temporary).st_nlink == 2
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _link(source: str, path: Path) -> None:
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise CacheError(
            f"{path.parent} is on a file system without hard links ({error.strerror}), and two launches could compute "
            "the same task there: keep the results on another one"
        ) from error


def read_file(path: str) -> bytes:
    """The content of a small file, with half as many system calls as ``open`` makes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, 65536), b""))
    finally:
        os.close(descriptor)


def move_aside(path: Path) -> Path:
    """Renames a file or folder that is in the way, and returns its new path; nothing is deleted."""
    target = path.with_name(paths.aside_name(path.name, random_token()))
    os.rename(path, target)
    return target


def read_trusted(path: Path, trust_users: tp.Collection[str]) -> bytes:
    """The content of a file whose loading runs code, if nobody but its reader, root or a trusted user wrote it."""
    with open(path, "rb") as file:
        check_trusted(file, path, trust_users)
        return file.read()


def check_trusted(file: tp.BinaryIO, path: Path, trust_users: tp.Collection[str]) -> None:
    """Raises CacheError if the open ``file`` could hold what another user wrote.

    The open file is checked, not the path: it cannot be exchanged between the check and the reading.
    """
    stat = os.fstat(file.fileno())
    own = stat.st_uid in (os.getuid(), 0)
    if not (own and not stat.st_mode & 0o022) and user_name(stat.st_uid) not in trust_users:
        raise CacheError(_untrusted(path, stat, own))


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _untrusted(path: Path, stat: os.stat_result, own: bool) -> str:
    owner = user_name(stat.st_uid)
    if own:
        return (
            f"{path} can be written by others (mode {stat.st_mode & 0o777:o}), and loading it runs code. "
            f"If you trust all who can write it: chmod go-w {path}"
        )
    return (
        f"{path} belongs to {owner}, and loading it runs code. "
        f"If you trust them, a sweep can have hydra.launcher.trust_users=[{owner}]"
    )


def _temporary_path(path: Path) -> str:
    folder, name = os.path.split(path)  # text: a Path takes as long to make as a small file to write
    return os.path.join(folder, paths.temporary_name(name, random_token()))


def _create(path: str, data: bytes | tp.Callable[[tp.BinaryIO], None], mode: int, durable: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb", buffering=-1 if callable(data) else 0) as file:
        if callable(data):
            data(file)
            file.flush()
        else:
            write_all(file.fileno(), data)
        if durable:
            os.fsync(file.fileno())


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of the data: ``os.write`` may write less than it is given."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
