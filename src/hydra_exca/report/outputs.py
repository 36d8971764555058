"""What tasks have written into their output folders: pictures, and curves of metrics."""

from __future__ import annotations

import base64
import contextlib
import csv
import dataclasses
import io
import json
import math
import os
import typing as tp
from pathlib import Path

from hydra_exca import files
from hydra_exca.errors import CorruptEntryError

Json = dict[str, tp.Any]
_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
_DEPTH = 4  # Lightning writes lightning_logs/version_0/metrics.csv
_MOST_FILES = 200  # looked at in one folder
_LARGEST = 1 << 20  # of one picture
_CURVE_BYTES = 20 << 20  # of one file of metrics
_POINTS = 120_000
_MOST_POINTS = 300
_AXES = ("step", "global_step", "_step", "iteration", "epoch")


@dataclasses.dataclass
class Found:
    """What is shown, and how many are not."""

    items: list[Json] = dataclasses.field(default_factory=list)
    left_out: int = 0


def read_outputs(folders: tp.Sequence[Path | None], budget: int) -> tuple[Found, Found]:
    """The curves and the pictures of output folders; the pictures within a budget of bytes."""
    curves, pictures = Found(), Found()
    for row, folder in enumerate(folders):
        for path in [] if folder is None else _walk(folder):
            if path.suffix in _TYPES:
                budget -= _add_picture(pictures, row, path, str(path.relative_to(folder or path)), budget)
            elif path.name == "metrics.csv" or path.suffix == ".jsonl":
                curves.items += [{"row": row, **curve} for curve in _read_curves(path)]
    most = max(4, min(_MOST_POINTS, _POINTS // max(1, len(curves.items))))
    shown = curves.items[: _POINTS // 4]
    return Found([_thin(curve, most) for curve in shown], len(curves.items) - len(shown)), pictures


def _walk(folder: Path) -> list[Path]:
    """The files in a folder that a report may show, by name; links are not followed."""
    found: list[Path] = []
    for place, folders, names in os.walk(os.path.realpath(folder)):
        depth = len(Path(place).relative_to(os.path.realpath(folder)).parts)
        folders[:] = [] if depth >= _DEPTH else sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in sorted(names) if _is_shown(name)]
        if len(found) >= _MOST_FILES:
            break
    real = Path(os.path.realpath(folder))
    return [folder / path.relative_to(real) for path in found[:_MOST_FILES]]


def _is_shown(name: str) -> bool:
    return name == "metrics.csv" or os.path.splitext(name)[1] in {*_TYPES, ".jsonl"}


def _read(path: Path, most: int) -> bytes | None:
    with contextlib.suppress(OSError, CorruptEntryError):
        return files.read_file(Path(os.path.realpath(path.parent), path.name), most)
    return None


def _add_picture(found: Found, row: int, path: Path, name: str, budget: int) -> int:
    """The bytes that it takes."""
    data = _read(path, _LARGEST)
    source = "" if data is None else f"data:{_TYPES[path.suffix]};base64,{base64.b64encode(data).decode()}"
    if not source or len(source) > budget:
        found.left_out += 1
        return 0
    found.items.append({"row": row, "name": name, "source": source})
    return len(source)


def _read_curves(path: Path) -> list[Json]:
    """A curve of each number in a file of metrics, against its step."""
    text = (_read(path, _CURVE_BYTES) or b"").decode("utf8", errors="replace")
    rows = _read_lines(text) if path.suffix == ".jsonl" else list(csv.DictReader(io.StringIO(text)))
    numbers = [{str(key): number for key, cell in row.items() if (number := _number(cell)) is not None} for row in rows]
    names = dict.fromkeys(key for row in numbers for key in row)
    axis = next((name for name in _AXES if name in names), "")
    curves = []
    for name in names:
        points = [(row.get(axis, index), row[name]) for index, row in enumerate(numbers) if name in row]
        if name not in _AXES and len(points) > 1:
            x, y = zip(*points, strict=True)
            curves.append({"name": name, "axis": axis or "row", "x": list(x), "y": list(y)})
    return curves


def _read_lines(text: str) -> list[Json]:
    """The objects of JSON lines; the last line may not be complete yet."""
    rows = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def _number(cell: tp.Any) -> float | None:
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        return None
    with contextlib.suppress(ValueError, OverflowError):
        number = float(cell)
        return number if math.isfinite(number) else None
    return None


def _thin(curve: Json, most: int) -> Json:
    """At most that many points, the last among them."""
    step = math.ceil(len(curve["x"]) / most)
    x, y = curve["x"][::-1][::step][::-1], curve["y"][::-1][::step][::-1]
    return {**curve, "x": x, "y": [float(f"{value:.5g}") for value in y]}
