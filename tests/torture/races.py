"""Launches that want the same tasks at the same time, some of which are killed at a random call of the file system."""

from __future__ import annotations

import collections
import functools
import os
import random
import typing as tp
from collections.abc import Callable, Iterator
from pathlib import Path

import fault_points
import programs
import pydantic
from apps import note
from file_system import KILL, FileSystem

from hydra_exca import MapInfra, TaskInfra

LAUNCHES = 6
_LAST_CALL = 250  # of those by which a launch is killed: about as many as it makes


class Raced(pydantic.BaseModel):
    """Notes which process computes."""

    x: int = 1
    infra: TaskInfra = TaskInfra(keep_in_ram=False)
    items: MapInfra = MapInfra(keep_in_ram=False)

    @infra.apply
    def fit(self) -> int:
        note("fit", self.x, os.getpid())
        return 10 * self.x

    @items.apply(item_uid=str)
    def each(self, numbers: list[int]) -> Iterator[int]:
        for number in numbers:
            note("item", number, os.getpid())
            yield 10 * number


def launch(folder: Path, cluster: str | None, mode: str = "cached") -> list[int]:
    places = {name: {"folder": folder / "cache", "cluster": cluster, "mode": mode} for name in ("infra", "items")}
    first = Raced(**places)  # type: ignore[arg-type]
    with first.infra.job_array() as tasks:
        tasks.extend(first.infra.clone_obj({"x": x}) for x in (1, 2, 3))
    return [*(task.fit() for task in tasks), *first.each([1, 2, 3])]


VALUES = [10, 20, 30, 10, 20, 30]


def check_race(number: int, seed: int, launches: int = LAUNCHES) -> list[str]:
    """What is wrong after one race: its cluster, and who is killed where, follow from its number and the seed."""
    chance = random.Random(f"{seed}:{number}")
    cluster = chance.choice([None, None, "local"])
    deaths = [chance.randrange(_LAST_CALL) if chance.random() < 0.4 else 0 for _ in range(launches)]
    with fault_points.scratch_folder() as folder:
        return list(_race(folder, cluster, deaths))


def _race(folder: Path, cluster: str | None, deaths: list[int]) -> Iterator[str]:
    begin_r, begin_w = os.pipe()
    running = [
        fault_points.start_process(functools.partial(_one, folder, cluster, at, begin_r), folder) for at in deaths
    ]
    os.write(begin_w, b"." * len(running))
    killed = set()
    for process in running:
        answers = process.collect()
        if not answers:
            killed.add(process.pid)
        elif answers[0] != VALUES:
            yield f"a launch gave {answers[0]}"
    os.close(begin_r)
    os.close(begin_w)
    (last,) = fault_points.start_process(functools.partial(_one, folder, None, 0, None), folder).collect() or [None]
    if last != VALUES:
        yield f"the next launch gave {last}"
    by_task: dict[str, list[int]] = collections.defaultdict(list)
    for line in (folder / "notes").read_text().splitlines():
        task, _, pid = line.rpartition(" ")
        by_task[task].append(int(pid))
    for task, pids in by_task.items():
        if len([pid for pid in pids if pid not in killed]) > 1:
            yield f"{task} was computed by {pids}, of which {sorted(killed)} were killed"


def _one(folder: Path, cluster: str | None, at: int, begin: int | None, send: Callable[[tp.Any], None]) -> None:
    programs.start_jobs_by_forks(None)
    if begin is not None:
        os.read(begin, 1)
    if at:
        FileSystem([folder / "cache", folder / "machine"], at, KILL).install()
    try:
        send(launch(folder, cluster))
    except Exception as error:  # noqa: BLE001  it is what is looked for
        send(f"{type(error).__name__}: {error}")
