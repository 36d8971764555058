"""The data files of items: appended to by one process, read in parts by any number of others."""

from __future__ import annotations

import errno
import mmap
import os
import typing as tp
import weakref

from hydra_exca import files

Buffer = bytes | bytearray | memoryview

_BUFFER = 1 << 20
_OPEN = 64  # files are kept open: on a network file system, opening one costs more than reading it
_MAPPED = 128  # a map holds a descriptor for as long as an array uses it, and descriptors are limited
_maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


class NewFile:
    """A new file that only this object writes. It writes by position, so that a failed write is overwritten.

    Raises FileExistsError if the file exists.
    """

    _descriptor: int | None = None

    def __init__(self, path: str, mode: int) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        self._written = 0
        self._waiting = bytearray()
        self._unsynced = False

    def append(self, data: Buffer, alignment: int = 1) -> int:
        """Appends data and returns its position in the file. Small data is written by the next `sync`."""
        padding = -(self._written + len(self._waiting)) % alignment
        self._waiting += bytes(padding)
        if len(self._waiting) + len(data) > _BUFFER:
            self._flush()
        start = self._written + len(self._waiting)
        if len(data) > _BUFFER:
            self._write(data)
        else:
            self._waiting += data
        return start

    def sync(self) -> None:
        """Writes what is buffered, and returns when it is safely on disk."""
        self._flush()
        if self._unsynced:
            os.fsync(self._fileno())
            self._unsynced = False

    def check_linked(self) -> None:
        """Raises FileNotFoundError if the file was removed meanwhile: nobody would see what is written to it."""
        if not os.path.samestat(os.stat(self._path), os.fstat(self._fileno())):
            raise FileNotFoundError(errno.ENOENT, "it was replaced", self._path)

    def truncate_unwritten(self) -> None:
        """Frees the space that partly written data takes."""
        os.ftruncate(self._fileno(), self._written)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def _fileno(self) -> int:
        assert self._descriptor is not None
        return self._descriptor

    def _flush(self) -> None:
        if self._waiting:
            self._write(bytes(self._waiting))  # the traceback of an interrupt may keep what is passed, which locks it
            self._waiting = bytearray()

    def _write(self, data: Buffer) -> None:
        self._unsynced = True
        view, done = memoryview(data), 0
        while done < len(view):  # Linux writes 2 GiB at once, and less on a full disk
            done += os.pwrite(self._fileno(), view[done:], self._written + done)
        self._written += done


class DataFile:
    """An open file. It is read by position, so that threads and forked processes can share it."""

    _descriptor: int | None = None

    def __init__(self, path: str) -> None:
        self._descriptor, self._status = files.open_file(path)

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def fileno(self) -> int:
        assert self._descriptor is not None
        return self._descriptor

    @property
    def status(self) -> os.stat_result:
        """Its state when it was opened: who can have written it."""
        return self._status

    def size(self) -> int:
        return os.fstat(self.fileno()).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Reads ``size`` bytes, fewer only if the file ends before."""
        size = max(0, min(size, self.size() - offset))
        parts = [os.pread(self.fileno(), size, offset)]
        while parts[-1] and (got := sum(map(len, parts))) < size:  # Linux reads 2 GiB at once
            parts.append(os.pread(self.fileno(), size - got, offset + got))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def map(self) -> mmap.mmap | None:
        """Maps the file as it is now; None if there are too many maps, or the file system has none."""
        if len(_maps) >= _MAPPED:
            return None
        try:
            mapped = mmap.mmap(self.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError:
            return None
        _maps.add(mapped)
        return mapped


_open: dict[str, DataFile] = {}  # of this process


class DataFiles:
    """Data files by their paths, opened and mapped when needed.

    ``fresh`` reopens a file: on a network file system, only that shows what was appended to it.
    """

    def __init__(self) -> None:
        self._mapped: dict[str, mmap.mmap] = {}

    def open_file(self, path: str, fresh: bool) -> DataFile:
        file = None if fresh else _open.get(path)
        if file is None:
            file = _open[path] = DataFile(path)
            if len(_open) > _OPEN:
                _open.pop(next(iter(tuple(_open))), None)  # it is closed once nobody reads from it
        return file

    def read_buffer(self, path: str, offset: int, size: int, fresh: bool) -> tuple[tp.Any, int]:
        """A buffer with the bytes at ``offset`` of the file, and their position in it. It may end too early."""
        mapped = None if fresh else self._mapped.get(path)
        if mapped is None or len(mapped) < offset + size:
            file = self.open_file(path, fresh=True)
            mapped = file.map() if file.size() >= offset + size else None
            if mapped is None:
                return file.read(offset, size), 0
            self._mapped[path] = mapped
        return mapped, offset
