"""Writes items: first their bytes, then the line in the index that makes them exist."""

from __future__ import annotations

import os
import threading
import time
import types
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.errors import CacheError
from hydra_exca.store.formats import registry
from hydra_exca.store.formats.registry import Format

from . import index
from .data_files import NewFile
from .index import Header

_INTERVAL_S = 0.25  # a process that is killed loses what it has computed for this long
_Kind = tuple[Format, tp.Any, tp.Any]  # dtype and shape: None of what is no array


class ItemWriter:
    """Writes items to ``folder``, under a name of its own. It begins with a number: the highest one counts.

    ``format`` names the only format to use; otherwise the type of a value decides. ``code`` names the code that
    computes them, if it is known. Added items are safe, and visible to others, after a `commit`. `add` commits, too, if
    the last commit was ``interval`` seconds ago. Each commit calls ``allowed``; once that returns False, nothing is
    written any more. Threads may share a writer.
    """

    def __init__(
        self,
        folder: Path,
        writer: str,
        *,
        format: str | None = None,
        code: str | None = None,
        allowed: tp.Callable[[], bool] = lambda: True,
        interval: float = _INTERVAL_S,
        clock: tp.Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.writer = writer
        self._index_path = os.path.join(folder, paths.index_name(writer))
        self._format = registry.format_named(format)
        self._code = code
        self._allowed = allowed
        self._interval = interval
        self._clock = clock
        self._committed = clock()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._ended: str | None = None  # why nothing can be added any more
        self._index: NewFile | None = None
        self._data: dict[str, NewFile] = {}
        self._lines: list[bytes] = []  # to be committed
        self._current: tuple[_Kind, Header] | None = None  # that of the next line
        self._is_listed = True  # whether the folder's listing of the files is safely on disk
        if os.path.exists(self._index_path):
            raise self._exists()

    @property
    def is_open(self) -> bool:
        """Whether items can be added: not after `close`, a disk error or a fork, nor if the files are gone."""
        try:
            self._check_open()
            self._check_files()
        except (CacheError, OSError):
            return False
        return True

    def add(self, key: str, value: tp.Any) -> None:
        """Adds one item; of several with the same key, the last one counts.

        Raises ConfigError if it cannot be stored as it is, CacheError if it cannot be written.
        """
        if not isinstance(key, str):
            raise TypeError(f"the key of an item is text, not {key!r}")
        chosen, data = registry.encode_value(value, f"the result of item {key!r}", self._format, array=_bytes)
        kind = (chosen, value.dtype, value.shape) if chosen is registry.ARRAY else (chosen, None, None)
        header, text = self._header(kind), index.dump_key(key)
        checksum = header.checksum(text, data)
        alignment = value.dtype.alignment if chosen is registry.ARRAY else 1
        with self._lock:
            self._check_open()
            try:
                offset = self._append(chosen, data, alignment)
            except OSError as error:
                raise CacheError(f"the result of item {key!r} cannot be stored: {self._reason(error)}") from error
            if self._current != (kind, header):
                self._lines.append(b"%b\n" % header.text)
                self._current = kind, header
            self._lines.append(index.dump_item(text, offset, len(data), checksum))
            if self._clock() - self._committed >= self._interval:
                self._commit()

    def commit(self) -> None:
        """Returns when all added items are safely on disk. Raises CacheError if they cannot be stored, or must not."""
        if self._pid == os.getpid():
            with self._lock:
                if self._lines:
                    self._commit()

    def close(self) -> None:
        """Commits, and closes the files. In a process that was forked since, it only closes them."""
        if self._pid != os.getpid():
            self._close_files()
            return
        with self._lock:
            try:
                if self._lines:
                    self._commit()
            finally:
                self._close_files()

    def __enter__(self) -> tp.Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        try:
            self.close()
        except CacheError as late:
            if error is None:
                raise
            error.add_note(str(late))

    def _header(self, kind: _Kind) -> Header:
        """The header for an item of this kind: the current one, if it fits."""
        current = self._current
        if current is not None and current[0] == kind:
            return current[1]
        chosen, dtype, shape = kind
        fields: dict[str, tp.Any] = {"format": chosen.name}
        if chosen is registry.ARRAY:
            fields |= {"dtype": dtype.str, "shape": shape}
        if self._code is not None:
            fields["code"] = self._code
        return Header(index.line_rank(self.writer), index.dump_header(fields), fields)

    def _append(self, chosen: Format, data: bytes, alignment: int) -> int:
        file = self._data.get(chosen.name)
        if file is None:
            try:
                file = self._create(chosen)
            except OSError:
                raise
            except BaseException:  # the file may be there, and cannot be created once more
                self._ended = "it was interrupted"
                raise
        try:
            return file.append(data, alignment)
        except OSError:
            file.truncate_unwritten()  # for what waits to be committed
            raise

    def _create(self, chosen: Format) -> NewFile:
        """Creates a data file. The first one comes after the index, which reserves the writer's name."""
        self._is_listed = False
        if self._index is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._index = NewFile(self._index_path, files.OWN_CODE)
            except FileExistsError:
                raise self._exists() from None
        path = os.path.join(self.folder, paths.items_name(self.writer, chosen.name))
        file = self._data[chosen.name] = NewFile(path, files.OWN_CODE if chosen.runs_code else files.SHARED)
        return file

    def _commit(self) -> None:
        try:
            for file in self._data.values():
                file.sync()
            if not self._is_listed:
                files.sync_folder(self.folder)
                self._is_listed = True
            self._check_files()
            if not self._allowed():
                raise self._end("another process has taken over")
            assert self._index is not None
            self._index.append(b"".join(self._lines))
            self._index.sync()
        except (
            OSError
        ) as error:  # no second attempt: after a failed fsync the next one can succeed although data is lost
            raise self._end(self._reason(error)) from error
        self._lines.clear()
        self._committed = self._clock()

    def _close_files(self) -> None:
        self._ended = self._ended or "it is closed"
        for file in (*self._data.values(), self._index):
            if file is not None:
                file.close()

    def _check_files(self) -> None:
        for file in (*self._data.values(), self._index):
            if file is not None:
                file.check_linked()

    def _check_open(self) -> None:
        if self._ended is not None or self._pid != os.getpid():
            raise CacheError(f"nothing can be added to {self._index_path}: {self._ended or 'this process is a fork'}")

    def _end(self, why: str) -> CacheError:
        self._ended = why
        self._lines.clear()
        return CacheError(f"{self._index_path}: {why}. What was committed before is stored, the last results are not")

    def _exists(self) -> CacheError:
        return CacheError(f"{self._index_path} exists: there was a writer of that name. Each needs a name of its own")

    @staticmethod
    def _reason(error: OSError) -> str:
        return f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror)


def _bytes(array: tp.Any) -> bytes:
    """The elements in C order."""
    data: bytes = array.tobytes()
    return data
