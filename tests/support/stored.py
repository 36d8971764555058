"""Values as they come back from a cache."""

from __future__ import annotations

import tempfile
import typing as tp
from pathlib import Path

from hydra_exca.store import Items, ItemWriter, values


def as_result(value: tp.Any) -> tp.Any:
    """As the value of a task."""
    with tempfile.TemporaryDirectory() as folder:
        return values.load_value(Path(folder), store_value(Path(folder), 1, value), ())


def as_item(value: tp.Any) -> tp.Any:
    """As an item of a map."""
    with tempfile.TemporaryDirectory() as folder:
        with ItemWriter(Path(folder), "1-a") as writer:
            writer.add("key", value)
        return Items(Path(folder)).get("key")


def store_value(folder: Path, number: int, value: tp.Any) -> dict[str, tp.Any]:
    """Writes a value into an entry's folder, as the owner of claim ``number``; the record of it for an outcome."""
    return values.encode_value(number, value).write(folder)
