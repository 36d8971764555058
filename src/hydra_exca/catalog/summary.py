"""What a cache folder holds in sum: of each factory and version, of its launches and its copies of code."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import os
import re
from pathlib import Path

from hydra_exca import files, paths

from .listing import list_entries, list_factory_folders, read_records


@dataclasses.dataclass(frozen=True)
class FactorySummary:
    """The results of one factory and version. ``statuses`` counts them, ``newest`` is when the last one ended."""

    factory: str
    version: str
    statuses: dict[str, int]
    newest: datetime.datetime | None
    size: int | None


def summarize_factories(cache: Path, with_sizes: bool = True) -> list[FactorySummary]:
    """A summary of each factory and version, by name; ``size`` in bytes is left out if it is not wanted."""
    return [_summarize(cache, name, with_sizes) for name in list_factory_folders(cache) if (cache / name).is_dir()]


def list_snapshots(cache: Path) -> list[str]:
    """The names of all copies of code."""
    return sorted(name for name in files.list_folder(cache / paths.CODE) if re.fullmatch(paths.SNAPSHOT, name))


def folder_size(folder: Path | str) -> int:
    """The bytes of all files below a folder, each counted once. What cannot be read, or disappears, counts nothing."""
    return sum(_file_sizes(str(folder)).values())


def _summarize(cache: Path, name: str, with_sizes: bool) -> FactorySummary:
    records = read_records(list_entries(cache, name))
    ended = [record.ended for record in records if record.ended is not None]
    factory, _, version = name.rpartition(",")
    counts = dict(collections.Counter(record.status for record in records))
    size = folder_size(cache / name) if with_sizes else None
    return FactorySummary(factory, version, counts, max(ended, default=None), size)


def _file_sizes(folder: str) -> dict[tuple[int, int], int]:
    sizes: dict[tuple[int, int], int] = {}
    waiting = [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    continue
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    sizes[status.st_dev, status.st_ino] = status.st_size
    return sizes
