"""Stores and loads the value of a task: small ones inside the outcome, others in a file whose format suits their type.

The outcome has the format, the size and the digest of the file; size and digest are checked when it is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import typing as tp
from pathlib import Path

from hydra_exca import files, paths, records
from hydra_exca.errors import CorruptEntryError

from .formats import registry, scalars

__all__ = ["INLINE_BYTES", "EncodedValue", "encode_value", "load_value"]

INLINE_BYTES = 4096
_NPY = "npy"  # an array in a file of its own
_OPAQUE = {"pickle", "torch"}  # formats that nobody can read without loading them
_FILE = {"file": (str,), "format": (str,), "size": (int,), "sha256": (str,)}
Record = dict[str, tp.Any]


@dataclasses.dataclass(frozen=True)
class EncodedValue:
    """A value in the form in which it is stored: its record for the outcome, and the content of its file if it has one.

    ``mode`` is the mode of the file.
    """

    record: Record
    data: bytes | None = None
    mode: int = files.SHARED

    def write(self, folder: Path) -> Record:
        """Writes the file into an entry's folder, and returns the record."""
        if self.data is not None:
            files.write_file(folder / self.record["file"], self.data, mode=self.mode)
        return self.record


def encode_value(number: int, value: tp.Any) -> EncodedValue:
    """Encodes what the owner of claim ``number`` computed: small values inside the record, others for a file."""
    chosen, data = registry.encode_value(value, "the result")
    inline = registry.JSON.dump(value) if chosen is registry.TEXT else data
    if chosen in (registry.TEXT, registry.JSON) and len(inline) <= INLINE_BYTES:
        return EncodedValue({"format": registry.JSON.name, "inline": value})
    if chosen.name in _OPAQUE and (readable := _readable_record(value)):
        return EncodedValue(readable)
    suffix = _NPY if chosen is registry.ARRAY else chosen.name
    name, digest = paths.value_name(number, suffix), hashlib.sha256(data).hexdigest()
    record = {"format": suffix, "file": name, "size": len(data), "sha256": digest}
    return EncodedValue(record, data, files.OWN_CODE if chosen.runs_code else files.SHARED)


def _readable_record(value: tp.Any) -> Record | None:
    """The record of a small value that is JSON but for scalars of numpy and torch, such as metrics; None for others."""
    split = scalars.split_types(value)
    if split is None or len(registry.JSON.dump(split)) > INLINE_BYTES:
        return None
    return {"format": registry.JSON.name, "inline": split[0], "types": split[1]}


def load_value(folder: Path | str, record: Record, trust_users: tp.Collection[str]) -> tp.Any:
    """The value that ``record`` describes.

    Raises CorruptEntryError if the file is missing or differs from what was written, CacheError if it cannot be trusted
    or today's code cannot load it.
    """
    if "types" in record:
        return registry.decode_value(
            lambda types: scalars.join_types(record["inline"], types), record["types"], f"the value in {folder}"
        )
    if "inline" in record:
        return record["inline"]
    _check_record(folder, record)
    path = Path(folder, record["file"])
    chosen = registry.format_for(record["format"], str(path))
    try:
        size = record["size"]
        data = files.read_trusted(path, trust_users, size) if chosen.runs_code else files.read_file(path, size)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptEntryError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) != record["size"] or hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise CorruptEntryError(f"{path} is not what was written: its size or digest differs")
    return registry.decode_value(chosen.load, data, str(path))


def _check_record(folder: Path | str, record: Record) -> None:
    """Raises CorruptEntryError unless the record names a file of the entry itself, with its format."""
    with contextlib.suppress(ValueError):
        records.check_fields(record, _FILE)
        if paths.is_value_name(record["file"]) and record["file"].endswith(f".{record['format']}"):
            return
    raise CorruptEntryError(f"{folder} has an outcome that does not say where its value is, or in which format")
