"""What bare loops of the same reads, writes, links and process starts cost: no library can be faster.

python benchmarks/floors.py LOOP FOLDER COUNT     # prints microseconds a task
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import typing as tp
from pathlib import Path

from calls import Task

OUTCOME = "outcome.json"


def found(folder: Path, count: int) -> None:
    """Lists a folder with entries, reads the outcomes, and links to each."""
    links = folder.parents[2] / f"links-{time.monotonic_ns()}"  # not in the app, whose files a launch looks at
    links.mkdir()
    for number, name in enumerate(_entries(folder)[:count]):
        _read(f"{folder}/{name}/{OUTCOME}")
        os.symlink(f"{folder}/{name}", f"{links}/{number}")


def looked_up(folder: Path, count: int) -> None:
    """Lists a folder with entries, and reads the outcomes of those that are there: half of what is asked for."""
    for name in _entries(folder)[: count // 2]:
        _read(f"{folder}/{name}/{OUTCOME}")


def loaded(folder: Path, count: int) -> None:
    """Reads one outcome, again and again."""
    path = f"{folder}/{_entries(folder)[0]}/{OUTCOME}"
    for _ in range(count):
        _read(path)


def submitted(folder: Path, count: int) -> None:
    """Makes a folder for each task, with a claim that is written aside and linked; and one file for all."""
    place = folder / f"submitted-{time.monotonic_ns()}"
    place.mkdir()
    for number in range(count):
        entry = f"{place}/{number}"
        os.mkdir(entry)
        _write(f"{entry}/.claim", b"x" * 300)
        os.link(f"{entry}/.claim", f"{entry}/claim.1.json")
        os.unlink(f"{entry}/.claim")
    _write(f"{place}/payload", b"x" * 100 * count, durable=True)


def computed(folder: Path, count: int) -> None:
    """Makes a folder for each task, and an outcome that is on the disk before it has its name."""
    place = folder / f"computed-{time.monotonic_ns()}"
    place.mkdir()
    for number in range(count):
        entry = f"{place}/{number}"
        os.mkdir(entry)
        _write(f"{entry}/.outcome", b"x" * 500, durable=True)
        os.rename(f"{entry}/.outcome", f"{entry}/{OUTCOME}")


def validated(folder: Path, count: int) -> None:
    """Makes a pydantic model of ten fields, and hashes it as JSON."""
    for number in range(count):
        task = Task(seed=number, lr=0.03, layers=[64, 64], data={"size": (64, 64)})
        hashlib.sha256(json.dumps(task.model_dump(), sort_keys=True).encode()).hexdigest()


def _entries(shelf: Path) -> list[str]:
    with os.scandir(shelf) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _read(path: str) -> tp.Any:
    with open(path, "rb") as file:
        return json.loads(file.read())


def _write(path: str, data: bytes, durable: bool = False) -> None:
    with open(path, "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


IN_SHELF = {loop.__name__: loop for loop in (found, looked_up, loaded)}
LOOPS = {**IN_SHELF, **{loop.__name__: loop for loop in (submitted, computed, validated)}}

if __name__ == "__main__":
    name, place, tasks = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if name in IN_SHELF:
        place = next(place.glob("**/project.json")).parent
    start = time.perf_counter()
    LOOPS[name](place, tasks)
    print(1e6 * (time.perf_counter() - start) / tasks)
