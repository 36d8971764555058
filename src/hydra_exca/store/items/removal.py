"""Removes items: all of them with their files, or some by taking them out of the indexes."""

from __future__ import annotations

import os
import typing as tp
from pathlib import Path

from hydra_exca import files, paths

from . import index

_NOTHING = b"null"  # a line that readers pass over; it is shorter than that of any item


def remove_items(folder: Path, keys: tp.Collection[str]) -> None:
    """Takes items out of all indexes; their bytes stay in the data files.

    A line keeps its length, so writers can append and readers go on where they are. Raises CacheError for an index that
    cannot be written, such as that of another user.
    """
    for name in _indexes(folder):
        with files.disk_errors_translated(folder / name):
            try:
                descriptor = os.open(folder / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                _remove_lines(descriptor, keys)
            finally:
                os.close(descriptor)


def remove_all_items(folder: Path) -> None:
    """Removes the indexes, and then the data files. Raises CacheError if they cannot be removed."""
    with files.disk_errors_translated(folder):
        for name in _indexes(folder):
            (folder / name).unlink(missing_ok=True)
            writer = paths.index_writer(name)
            for data in files.list_folder(folder):
                if data.rpartition(".")[0] == writer:
                    (folder / data).unlink(missing_ok=True)


def _indexes(folder: Path) -> list[str]:
    return [name for name in files.list_folder(folder) if paths.index_writer(name) is not None]


def _remove_lines(descriptor: int, keys: tp.Collection[str]) -> None:
    data, offset = os.pread(descriptor, os.fstat(descriptor).st_size, 0), 0
    lines = data.split(b"\n")[:-1]
    is_changed = False
    for text, line in zip(lines, index.parse_lines(lines), strict=True):
        if index.is_item(line) and line[0] in keys:
            os.pwrite(descriptor, _NOTHING.ljust(len(text)), offset)
            is_changed = True
        offset += len(text) + 1
    if is_changed:
        os.fsync(descriptor)
