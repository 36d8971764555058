"""Atomic writing of files, and the one way in which files are read back.

Others may be able to write where the files are, and disks fail. So a file is opened without waiting and without
following a link in its place; it must be a regular file, and no larger than what can have been written.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import pwd
import stat
import time
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.errors import CacheError, CorruptEntryError, UnreadableFileError

log = logging.getLogger("exca.store")
SHARED = 0o666  # as the umask allows
OWN_CODE = 0o644  # what is executed on loading: nobody else may write it
PRIVATE = 0o600  # what may hold secrets
MOST_BYTES = 1 << 28  # of a record: far more than any has
_KINDS = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
_DAY_S = 86_400
_CHUNK = 1 << 22
_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}  # link(2), and FUSE
PASSING_ERRORS = {  # the same call may succeed a little later
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EMFILE, errno.ENFILE)
}
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)  # in all less than a claim that commits is waited for
_T = tp.TypeVar("_T")


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
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def publish_file(path: Path, data: bytes, *, durable: bool = False, within: Path | None = None) -> bool:
    """Creates ``path`` with all its content, unless it exists; True if this call created it.

    link(2) fails when the name is taken, so of any number of callers one wins. It need not be durable where it
    matters only while processes live. Over NFS a link may be reported as failed though it was made (link(2),
    BUGS); the link count of the temporary file tells. Raises CacheError on a file system without hard links.
    The temporary file is in the folder ``within`` if that of ``path`` is never listed.
    """
    temporary = _temporary_path(path if within is None else within / path.name)
    try:
        _create(temporary, data, SHARED, durable)
        is_made = link_file(temporary, path)
        if is_made and durable:
            sync_folder(path.parent)
        return is_made
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def keep_trying(write: tp.Callable[[], _T], path: Path) -> _T:
    """Calls ``write``, again and again for half a minute while the disk is full or does not answer.

    Raises CacheError, with ``path``, if that does not help or if it fails for another reason.
    """
    for pause in (*_PAUSES_S, None):
        try:
            return write()
        except OSError as error:
            if pause is None or error.errno not in PASSING_ERRORS:
                raise CacheError(f"{path} cannot be written: {error.strerror}") from error
            if pause == _PAUSES_S[0]:
                log.warning("exca: %s cannot be written: %s. Trying again", path, error.strerror)
            time.sleep(pause)
    raise AssertionError


@contextlib.contextmanager
def disk_errors_translated(path: Path) -> tp.Iterator[None]:
    """Raises CacheError for errors of the disk, with the file that has one, else ``path``."""
    try:
        yield
    except CacheError:  # an error of the disk, too, maybe
        raise
    except OSError as error:
        raise disk_error(path, error) from error
    except ValueError as error:  # `logging.config` makes one of the error of a log file
        if not isinstance(error.__cause__, OSError):
            raise
        raise disk_error(path, error.__cause__) from error.__cause__


def disk_error(path: Path, error: OSError) -> CacheError:
    """The error for a disk that fails, with the file that has one, else ``path``; to be raised from ``error``."""
    return CacheError(f"{error.filename or path} cannot be read or written: {error.strerror or error}")


def link_file(source: str | Path, path: Path) -> bool:
    """Gives a file a second name, whatever link(2) says about it; False if the name is taken."""
    try:
        os.link(source, path)
        return True
    except OSError as error:
        if os.stat(source).st_nlink == 2:
            return True
        if error.errno == errno.EEXIST:
            return False
        if error.errno not in _NO_LINKS:
            raise
        raise CacheError(
            f"{path.parent} is on a file system without hard links ({error.strerror}), and two launches could compute "
            "the same task there: keep the results on another one"
        ) from error


def open_file(path: str | Path) -> tuple[int, os.stat_result]:
    """A descriptor of a file that is read back, and the state of the file.

    Raises CorruptEntryError if something else is in its place: a link, a folder, a FIFO, a device. Raises
    FileNotFoundError or NotADirectoryError if nothing is, and UnreadableFileError if that cannot be told.
    """
    try:
        descriptor = os.open(path, _READING)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise CorruptEntryError(f"{path} is not a file: {_kind(path)} is in its place") from error
        raise _read_error(path, error) from error
    try:
        status = _reading(path, os.fstat, descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CorruptEntryError(f"{path} is not a file: {_kind(path)} is in its place")
    except CacheError:
        os.close(descriptor)
        raise
    return descriptor, status


def read_file(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file. Raises CorruptEntryError if it is none, or has more than ``most`` bytes."""
    return _read(path, most)[0]


def list_folder(path: str | Path) -> list[str]:
    """The names in a folder, none if there is no folder. Raises UnreadableFileError if that cannot be told."""
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _read_error(path, error) from error


def read_start(path: str | Path, size: int) -> bytes:
    """The first bytes of a file. Raises CorruptEntryError if it is none."""
    descriptor, _ = open_file(path)
    try:
        return _reading(path, os.read, descriptor, size)
    finally:
        os.close(descriptor)


def read_until_zero(path: str | Path, offset: int) -> bytes:
    """What is in a file from ``offset`` up to a zero byte, which no text has: a sparse file is not read whole."""
    descriptor, _ = open_file(path)
    parts: list[bytes] = []
    try:
        while not parts or (parts[-1] and b"\0" not in parts[-1]):
            parts.append(_reading(path, os.pread, descriptor, _CHUNK, offset + sum(map(len, parts))))
    finally:
        os.close(descriptor)
    return b"".join(parts).partition(b"\0")[0]


def read_owned(path: str | Path) -> tuple[bytes, int]:
    """The content of a file, and the user who wrote it. Raises CorruptEntryError as `read_file` does."""
    data, status = _read(path, MOST_BYTES)
    if status.st_nlink > 1:
        _linked.add(os.path.dirname(path))
    return data, status.st_uid


def read_text(path: str | Path) -> str:
    """The text of a file, without white space around it. Raises CorruptEntryError as `read_file` does."""
    try:
        return read_file(path).decode().strip()
    except UnicodeDecodeError as error:
        raise CorruptEntryError(f"{path} is damaged: {error}") from error


def read_end(path: str | Path, most: int = MOST_BYTES) -> str:
    """The text at the end of a log, which can have any size, and be a link to where the user wants logs."""
    descriptor = os.open(path, _READING & ~os.O_NOFOLLOW)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CorruptEntryError(f"{path} is not a file: {_kind(path)} is in its place")
        size = min(status.st_size, most)
        return os.pread(descriptor, size, status.st_size - size).decode(errors="replace")
    finally:
        os.close(descriptor)


def _read(
    path: str | Path, most: int, check: tp.Callable[[os.stat_result], object] | None = None
) -> tuple[bytes, os.stat_result]:
    """The content and the state of a file, after a check of its state."""
    descriptor, status = open_file(path)
    try:
        if check is not None:
            check(status)
        return _read_all(descriptor, status.st_size, path, most), status
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, size: int, path: str | Path, most: int) -> bytes:
    if size > most:
        raise CorruptEntryError(f"{path} is damaged: it has {size} bytes, and what was written had {most} at most")
    data = _reading(path, os.read, descriptor, size + 1)
    if len(data) == size:  # as nearly always: it saves a call
        return data
    parts = [data]
    while parts[-1] and sum(map(len, parts)) <= most:  # Linux reads 2 GiB at once; it may be appended to
        parts.append(_reading(path, os.read, descriptor, _CHUNK))
    return b"".join(parts)


def _reading(path: str | Path, call: tp.Callable[..., _T], *arguments: int) -> _T:
    """What a call gives for an open file. Raises UnreadableFileError, with its path."""
    try:
        return call(*arguments)
    except OSError as error:
        raise _read_error(path, error) from error


def _read_error(path: str | Path, error: OSError) -> OSError:
    """The error for a file that is there and cannot be read; the same one if there is none."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return error
    return UnreadableFileError(error.errno, error.strerror, str(path))


def _kind(path: str | Path) -> str:
    """What is at a path, in words."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return "something else"
    return _KINDS.get(stat.S_IFMT(mode), "a device")


_linked: set[str] = set()  # folders with a file that has a second name: usually what its killed writer has left
_cleared: set[str] = set()


def temporary_name(name: str) -> str:
    """A name beside ``name`` that says which process uses it."""
    return paths.temporary_name(name, random_token() + _process_mark(os.getpid()))


def clear_leftovers(folder: str | Path, remove: tp.Callable[[str], object] = os.unlink) -> None:
    """Removes the temporary files in a folder whose processes are gone; on other machines, those that are a day old."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            clear_leftover(f"{folder}/{name}", remove)


def clear_leftover(path: str, remove: tp.Callable[[str], object] = os.unlink) -> None:
    """Removes a file if it is a temporary one, and its process is gone."""
    owner = paths.temporary_owner(os.path.basename(path))
    with contextlib.suppress(OSError):
        if owner is not None and _is_left(path, owner):
            remove(path)


def clear_linked() -> None:
    """Does so in the folders where this process has read a file that has a second name."""
    with contextlib.suppress(KeyError):  # none is left: another thread may have taken the last one
        while True:
            folder = _linked.pop()
            if folder not in _cleared:
                _cleared.add(folder)
                clear_leftovers(folder)


def _is_left(path: str, owner: str) -> bool:
    _, machine, pid, started = owner.split("-") if owner else ("", "", "0", "")
    if machine and machine == _machine_mark():
        with contextlib.suppress(PermissionError):  # it is another user's, and alive
            try:
                os.kill(int(pid, 16), 0)
            except ProcessLookupError:
                return True
        ticks = start_ticks(int(pid, 16))
        return ticks is not None and ticks != int(started, 16)
    try:
        return time.time() - os.lstat(path).st_mtime > _DAY_S
    except OSError:
        return False


@functools.lru_cache(maxsize=1)
def _process_mark(pid: int) -> str:
    """What tells whether a process is gone: its machine since the boot, its number and its start."""
    machine, ticks = _machine_mark(), start_ticks(pid)
    return "" if not machine or ticks is None else f"-{machine}-{pid:x}-{ticks:x}"


def _machine_mark() -> str:
    """The boot of this machine and the numbering of its processes; "" where /proc does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        return hashlib.blake2b(boot + os.readlink("/proc/self/ns/pid").encode(), digest_size=4).hexdigest()
    except OSError:
        return ""


def start_ticks(pid: int) -> int | None:
    """When a process has started, in ticks since the boot: these do not change with the clock.

    None if it has ended, though its exit code may not have been collected yet. Raises OSError if that cannot be told.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(b")")[2].split()  # what is before, the name, may hold anything
    return None if state == b"Z" else int(fields[18])  # proc(5): field 22


def make_folder(path: str | Path) -> bool:
    """Makes a folder of the cache; False if it was there. What else is in its place is set aside."""
    set_foreign_link_aside(path)
    for _ in range(2):
        try:
            os.mkdir(path)
            return True
        except FileExistsError:
            if os.path.isdir(path):
                return False
            log.warning("exca: %s is no folder; it is set aside as %s", path, move_aside(Path(path)))
    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def make_shared_folder(path: Path) -> None:
    """Makes a folder in which others may make files and folders, but may not rename or remove those of this user."""
    if make_folder(path):
        with contextlib.suppress(OSError):  # some file systems have no such bit
            os.chmod(path, stat.S_IMODE(os.lstat(path).st_mode) | stat.S_ISVTX)


def is_exchangeable(path: Path) -> bool:
    """Whether another user could put another file in the place of one: there, or by renaming a folder around it."""
    inner = path.parent.resolve()
    for folder in (inner, *inner.parents):
        status = os.lstat(folder)
        is_sticky = folder != inner and status.st_mode & stat.S_ISVTX
        if (status.st_mode & _WRITABLE_BY_OTHERS and not is_sticky) or status.st_uid not in (os.getuid(), 0):
            return True
    return False


def is_foreign_link(path: str | Path) -> bool:
    """Whether another user has put a link there: it could lead to files of this user's."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISLNK(status.st_mode) and status.st_uid not in (os.getuid(), 0)


def set_foreign_link_aside(path: str | Path) -> None:
    """Sets a link aside that another user has put in the place of a file or folder that is to be written."""
    if is_foreign_link(path):
        owner = user_name(os.lstat(path).st_uid)
        log.warning("exca: %s is a link that %s has made; it is set aside as %s", path, owner, move_aside(Path(path)))


def now_at(folder: Path) -> float:
    """The time by the clock of the file system that a folder is on. Writes there, and raises OSError if it cannot."""
    temporary = _temporary_path(folder / "now")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
        try:
            os.write(descriptor, b".")  # a server sets the time of what is written
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def move_aside(path: Path) -> Path:
    """Renames a file or folder that is in the way, and returns its new path; nothing is deleted."""
    target = path.with_name(paths.aside_name(path.name, random_token()))
    os.rename(path, target)
    return target


def read_trusted(path: str | Path, trust_users: tp.Collection[str], most: int = MOST_BYTES) -> bytes:
    """The content of a file whose loading runs code, if nobody but its reader, root or a trusted user wrote it."""
    return _read(path, most, lambda status: check_trusted(status, path, trust_users))[0]


def check_trusted(status: os.stat_result, path: str | Path, trust_users: tp.Collection[str]) -> None:
    """Raises CacheError if the file with this ``status`` could hold what another user wrote.

    The status is that of the open file, not of the path: it cannot be exchanged between the check and the reading.
    """
    own = status.st_uid in (os.getuid(), 0)
    is_private = own and not status.st_mode & _WRITABLE_BY_OTHERS
    if not is_private and user_name(status.st_uid) not in trust_users:
        raise CacheError(_untrusted(path, status, own))


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


def _untrusted(path: str | Path, status: os.stat_result, own: bool) -> str:
    owner = user_name(status.st_uid)
    if own:
        return (
            f"{path} can be written by others (mode {status.st_mode & 0o777:o}), and loading it runs code. "
            f"If you trust all who can write it: chmod go-w {path}"
        )
    return (
        f"{path} belongs to {owner}, and loading it runs code. "
        f"If you trust them, a sweep can have hydra.launcher.trust_users=[{owner}]"
    )


def _temporary_path(path: Path) -> str:
    folder, name = os.path.split(path)  # text: a Path takes as long to make as a small file to write
    return os.path.join(folder, temporary_name(name))


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
