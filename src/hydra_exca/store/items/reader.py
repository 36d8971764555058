"""Reads items, which are many values in a few files: each writer has its own files, and readers see all of them.

``<writer>.index`` says where the items are; ``<writer>.<format>`` holds their bytes, one after another. An item exists
once its line is in the index, which is written when the bytes are safely on disk.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
import typing as tp
import weakref
from pathlib import Path

from hydra_exca import files, paths, records
from hydra_exca.errors import CacheError, CorruptEntryError
from hydra_exca.store.formats import builtin, registry
from hydra_exca.text import log_once

from . import index as item_index
from .data_files import DataFiles
from .index import Header, Line, Rank
from .writer import ItemWriter

__all__ = ["ItemWriter", "Items"]

log = logging.getLogger("exca.store")
_GONE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class Items:
    """The items in ``folder`` that any writer had committed before the last `refresh`.

    Arrays are read-only views of the mapped file. Threads may share the object; it can be forked and pickled.
    """

    def __init__(self, folder: Path, trust_users: tp.Collection[str] = ()) -> None:
        self.folder = folder
        self.trust_users = trust_users
        self._places: dict[str, tuple[Header, Line]] = {}
        self._indexes: dict[str, _Index] = {}
        self._trusted: set[str] = set()
        self._files = DataFiles()
        self.after_fork()
        _all.add(self)
        self.refresh()

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return Items, (self.folder, self.trust_users)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> tp.Iterator[str]:
        return iter(tuple(self._places))

    def writer_number(self, key: str) -> int:
        """The number that the name of the item's writer begins with. Raises KeyError."""
        return self._places[key][0].rank[0]

    def code(self, key: str) -> str | None:
        """The code that computed an item, None if it is not known. Raises KeyError."""
        code = self._places[key][0].fields.get("code")
        return code if isinstance(code, str) else None

    def get(self, key: str) -> tp.Any:
        """The value of an item.

        Raises KeyError if there is none, CorruptEntryError if it is not what was written, CacheError if it cannot be
        read, cannot be trusted, or cannot be loaded by today's code.
        """
        header, line = self._places[key]
        try:
            return self._load(header, line, fresh=False)
        except (CorruptEntryError, OSError):
            pass
        path = self._path(header.rank[1], header.format)
        try:
            return self._load(header, line, fresh=True)
        except CorruptEntryError as error:
            raise error if str(error).startswith("item ") else CorruptEntryError(f"item {key!r}: {error}") from error
        except _GONE as error:
            raise CorruptEntryError(f"item {key!r}: {path} cannot be read: {error.strerror}") from error
        except OSError as error:
            raise CacheError(f"item {key!r}: {path} cannot be read: {error.strerror}") from error

    def discard(self, key: str) -> None:
        """Forgets an item in this process, until a new line for it is written."""
        with self._lock:
            self._places.pop(key, None)

    def refresh(self) -> None:
        """Reads what was appended to the indexes since the last time."""
        with self._lock:
            writers = sorted(self._writers(), key=item_index.line_rank)
            if not self._indexes.keys() <= set(writers):  # files were removed
                self._indexes.clear()
                self._places.clear()
            for writer in writers:
                self._update(self._indexes.setdefault(writer, _Index(item_index.line_rank(writer))))

    def after_fork(self) -> None:
        """Makes it usable in a forked child, where no thread is left that could release the lock."""
        self._lock = threading.Lock()

    def _path(self, writer: str, suffix: str) -> str:
        return os.path.join(self.folder, paths.items_name(writer, suffix))

    def _writers(self) -> list[str]:
        names = map(paths.index_writer, files.list_folder(self.folder))
        return [writer for writer in names if writer is not None]

    def _update(self, index: _Index) -> None:
        data = self._appended(index)
        lines = data.split(b"\n")[:-1]
        for text, line in zip(lines, item_index.parse_lines(lines), strict=True):
            if item_index.is_header(line):
                index.header = Header(index.rank, text, line)
            elif index.header is not None and item_index.is_item(line):
                place = self._places.get(line[0])
                if place is None or place[0].rank <= index.rank:
                    self._places[line[0]] = index.header, line
        index.offset += len(data)

    def _appended(self, index: _Index) -> bytes:
        """The complete lines of an index that were not read yet.

        Nothing after a zero byte is read: where pages arrive out of order, zeros stand for those still missing.
        """
        path = os.path.join(self.folder, paths.index_name(index.rank[1]))
        try:
            data = files.read_until_zero(path, index.offset)
        except FileNotFoundError:
            return b""
        except CorruptEntryError as error:
            log_once(log, logging.WARNING, "exca: %s; the items that it lists are computed again", str(error))
            return b""
        return data[: data.rfind(b"\n") + 1]

    def _load(self, header: Header, line: Line, fresh: bool) -> tp.Any:
        key, offset, size, _ = line
        writer = header.rank[1]
        stored_format = registry.format_for(header.format, f"item {key!r} in {self.folder}")
        path = self._path(writer, stored_format.name)
        if stored_format is registry.ARRAY:
            return self._array(header, line, path, fresh)
        file = self._files.open_file(path, fresh)
        if stored_format.runs_code:
            files.check_trusted(file.status, path, self.trust_users)
            self._check_index(writer)
        data = file.read(offset, size)
        _check(header, line, path, data)
        return registry.decode_value(stored_format.load, data, f"item {key!r} in {path}")

    def _array(self, header: Header, line: Line, path: str, fresh: bool) -> tp.Any:
        key, offset, size, checksum = line
        buffer, start = self._files.read_buffer(path, offset, size, fresh) if size else (b"", 0)
        if checksum is not None or len(buffer) < start + size:
            _check(header, line, path, memoryview(buffer)[start : start + size])
        if header.layout is None:
            header.layout = _layout(header, key, path)
        shape, dtype = header.layout
        with records.damage_named(path):
            array = sys.modules["numpy"].ndarray(shape, dtype, buffer, start)
        if array.nbytes != size:
            raise CorruptEntryError(f"item {key!r} in {path} has {size} bytes, and its shape takes {array.nbytes}")
        line[3] = None  # a process compares it only once
        return array

    def _check_index(self, writer: str) -> None:
        """Checks the index, too: it decides which bytes are loaded, and a part of a pickle can be another pickle."""
        if writer not in self._trusted:
            path = self.folder / paths.index_name(writer)
            descriptor, status = files.open_file(path)
            os.close(descriptor)
            files.check_trusted(status, path, self.trust_users)
            self._trusted.add(writer)


class _Index:
    """How far one writer's index has been read."""

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self.offset = 0
        self.header: Header | None = None


_all: weakref.WeakSet[Items] = weakref.WeakSet()


def _after_fork() -> None:
    for items in _all:
        items.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def _check(header: Header, line: Line, path: str, data: bytes | memoryview) -> None:
    key, _, size, checksum = line
    if len(data) < size:
        raise CorruptEntryError(f"item {key!r}: {path} is shorter than what was written to it")
    if header.checksum(item_index.dump_key(key), data) != checksum:
        raise CorruptEntryError(f"item {key!r} in {path} is not what was written: its checksum differs")


def _layout(header: Header, key: str, path: str) -> tuple[tuple[int, ...], tp.Any]:
    try:
        numpy = importlib.import_module("numpy")
        with records.damage_named(path):
            dtype = numpy.dtype(header.fields["dtype"])
    except ImportError as error:
        raise CacheError(
            f"item {key!r} in {path} is an array, and this process cannot import numpy: {error}"
        ) from error
    if dtype.kind not in builtin.ARRAY_KINDS:
        raise CorruptEntryError(f"item {key!r} in {path} cannot be an array of {dtype}, which is never written")
    with records.damage_named(path):
        return tuple(header.fields["shape"]), dtype
