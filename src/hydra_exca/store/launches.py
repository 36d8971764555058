"""The token of a launch, and the record of what it submitted."""

from __future__ import annotations

import time
import typing as tp
from pathlib import Path

from hydra_exca import checksums, files, paths

TOKEN_PATTERN = r"\d{8}-\d{6}-[0-9a-f]{12}"


def new_token() -> str:
    """Makes the token of a new launch, unique across hosts. Tokens sort by the second of their creation."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{files.random_token()}"


def read_record(launch: Path) -> dict[str, tp.Any]:
    """Reads the record of the launch in this folder; empty if it is not written yet, removed or damaged."""
    try:
        return checksums.parse_record((launch / paths.LAUNCH_RECORD).read_bytes())
    except (OSError, ValueError):
        return {}


def write_record(launch: Path, record: tp.Mapping[str, tp.Any]) -> None:
    """Writes the record of the launch in this folder."""
    files.write_file(launch / paths.LAUNCH_RECORD, checksums.dump_record(record))
