"""The token of a launch, and the record of what it submitted."""

from __future__ import annotations

import os
import time
import typing as tp
from pathlib import Path

from hydra_exca import checksums, files, paths, records
from hydra_exca.errors import CorruptEntryError

_NONE = type(None)
_SCHEMA = {
    "code": (str, _NONE),
    "logs": (str, _NONE),
    "reused": (int, _NONE),
    "argv": (list, _NONE),
    "working_directory": (str, _NONE),
    "entries": (list, _NONE),
    "tasks": (list, _NONE),
    "jobs": (dict, _NONE),
    "slurm_clusters": (dict, _NONE),
}
TOKEN_PATTERN = r"\d{8}-\d{6}-[0-9a-f]{12}"


def new_token() -> str:
    """Makes the token of a new launch, unique across hosts. Tokens sort by the second of their creation."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{files.random_token()}"


def make_folder(launch: Path) -> None:
    """Makes the folder of a new launch, in which nobody else may write: its jobs run what is in it."""
    files.make_shared_folder(launch.parent)
    os.mkdir(launch, 0o755)


def read_record(launch: Path, writer: int | None = None) -> dict[str, tp.Any]:
    """Reads the record of the launch in this folder; empty if it is not written yet, removed or damaged.

    So is one that belongs to another user than ``writer``.
    """
    path = launch / paths.LAUNCH_RECORD
    try:
        data, owner = files.read_owned(path)
        if writer not in (None, owner):
            return {}
        record = records.parse(path, data)
        records.check_fields(record, _SCHEMA)
        for name in ("jobs", "slurm_clusters"):
            for value in (record.get(name) or {}).values():
                if value is not None:
                    records.check_name(name, value)
        return record if _is_consistent(record) else {}
    except (OSError, CorruptEntryError, ValueError):
        return {}


def write_record(launch: Path, record: tp.Mapping[str, tp.Any]) -> None:
    """Writes the record of the launch in this folder."""
    files.write_file(launch / paths.LAUNCH_RECORD, checksums.dump_record(record))


def _is_consistent(record: tp.Mapping[str, tp.Any]) -> bool:
    """Whether the parts of a record's lists have their types; no entry is outside of the cache folder."""
    entries, tasks = (record.get(name) or () for name in ("entries", "tasks"))
    return all(map(is_inside, entries)) and all(_are_positions(task, len(entries)) for task in tasks)


def _are_positions(positions: object, count: int) -> bool:
    return (
        isinstance(positions, list)
        and positions != []
        and all(type(each) is int and 0 <= each < count for each in positions)
    )


def is_inside(name: object) -> bool:
    """Whether it is a relative path to what is below a folder."""
    return isinstance(name, str) and bool(name) and not name.startswith("/") and ".." not in name.split("/")
