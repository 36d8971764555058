"""The launches of a cache folder, and how their tasks are."""

from __future__ import annotations

import collections
import datetime
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.store import launches

from .entry_record import script_of
from .listing import list_launches, read_records
from .places import tasks_of_launch
from .record import ListedTask, Record

REPLACED = "replaced"
"""The state of a task whose entry another launch has computed since, or which was removed."""


class TaskState(tp.NamedTuple):
    """A task of a launch: its name, its state as of `Record`, or `REPLACED`, and its record, None if it is gone."""

    uid: str
    state: str
    record: Record | None
    job: str | None


class LaunchStatus:
    """One launch: who started what, where and when, and the tasks that it has submitted."""

    def __init__(self, folder: Path, record: tp.Mapping[str, tp.Any], states: tp.Sequence[TaskState]) -> None:
        self.token = folder.name
        self.folder = folder
        self.tasks = states
        self.reused = record.get("reused") or 0
        self.user: str | None = record.get("user")
        self.host: str | None = record.get("host")
        self.cluster: str | None = record.get("cluster")
        self.program = script_of(record)
        self.is_known = "entries" in record

    @property
    def started(self) -> datetime.datetime:
        return datetime.datetime.strptime(self.token[:15], "%Y%m%d-%H%M%S").astimezone()

    @property
    def counts(self) -> dict[str, int]:
        """How many tasks are in each state; ``reused`` are those that the launch found stored."""
        counts = collections.Counter(task.state for task in self.tasks)
        return {**counts, **({"reused": self.reused} if self.reused else {})}


def read_launches(cache: Path, limit: int | None = None) -> list[LaunchStatus]:
    """The launches of a cache folder, the newest first, ``limit`` at most: no other one is read."""
    tokens = list_launches(cache)[::-1]
    return read_statuses([paths.launch_folder(cache, token) for token in tokens[:limit]])


def read_statuses(folders: tp.Sequence[Path]) -> list[LaunchStatus]:
    """The status of each launch. Their tasks are read together, with one question to each cluster."""
    read = {folder: launches.read_record(folder) for folder in folders}
    tasks = {folder: tasks_of_launch(folder).tasks if "entries" in record else [] for folder, record in read.items()}
    distinct: dict[str | None, ListedTask] = {task.entry: task for each in tasks.values() for task in each}
    found = {str(record.path): record for record in read_records(distinct.values())}
    return [
        LaunchStatus(folder, record, _states_of(folder, record, tasks[folder], found))
        for folder, record in read.items()
    ]


def _states_of(
    folder: Path, record: tp.Mapping[str, tp.Any], tasks: tp.Sequence[ListedTask], found: tp.Mapping[str, Record]
) -> list[TaskState]:
    jobs = record.get("jobs") or {}
    numbers = {position: str(number) for number, job in enumerate(record.get("tasks") or []) for position in job}
    states = []
    for position, task in enumerate(tasks):
        result = found.get(str(task.entry))
        is_own = result is not None and result.launch in (None, folder.name)
        state = result.status if result is not None and is_own else REPLACED
        job = (result.job if result is not None and is_own else None) or jobs.get(numbers.get(position, ""))
        states.append(TaskState(Path(str(task.entry)).name, state, result if is_own else None, job))
    return states


def since(record: Record) -> datetime.datetime | None:
    """When a task came into its state, as far as that is known."""
    return record.ended or record.started or record.submitted
