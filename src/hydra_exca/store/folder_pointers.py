"""Files of one line that name a folder: that of a task's outputs, and the entry whose outputs a folder holds."""

from __future__ import annotations

from pathlib import Path

from hydra_exca import checksums, files
from hydra_exca.errors import CorruptEntryError


def write_pointer(path: Path, folder: Path | str) -> None:
    """Writes the name of a folder, with a checksum: one flipped bit could name the outputs of another task."""
    files.write_file(path, checksums.add_checksum(str(folder).encode()))


def read_pointer(path: Path | str) -> str | None:
    """The folder that is named there, None without a file. Raises CorruptEntryError if it is not what was written."""
    try:
        return checksums.remove_checksum(files.read_file(path)).decode()
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CorruptEntryError(f"{path} is not what was written: {error}") from error
