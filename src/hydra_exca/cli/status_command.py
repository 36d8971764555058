"""``hydra-exca status``: the launches of a cache folder, and how the tasks of one, or of a factory, are."""

from __future__ import annotations

import collections
import json
import typing as tp
from pathlib import Path

import click

from hydra_exca.catalog import launch_status, places
from hydra_exca.catalog.launch_status import LaunchStatus, TaskState
from hydra_exca.catalog.listing import list_launches, read_records
from hydra_exca.catalog.places import TaskListing
from hydra_exca.catalog.record import Record
from hydra_exca.text import count_noun

from . import consoles

_OF_LAUNCHES = ("launch", "age", "program", "user", "host", "cluster", "tasks")
_OF_TASKS = ("task", "state", "age", "host", "job", "reason")
_OF_FACTORIES = ("factory", "version", "tasks")


def print_status(place: str | None, folder: Path | None, limit: int, as_json: bool) -> None:
    """Prints the newest launches; of a launch or a sweep its tasks, of a factory how many are in each state."""
    if place is None:
        cache = places.cache_folder(folder)
        statuses, total = launch_status.read_launches(cache, limit), len(list_launches(cache))
        _print_launches(cache, statuses, total, as_json)
        return
    listing = places.find_tasks(place, folder)
    if listing.launch is not None:
        (status,) = launch_status.read_statuses([listing.launch])
        known = _launch_json(status)
        _print_tasks(f"launch {status.token}: {_describe(known)}", known, status.tasks, as_json)
    elif any(task.listed is not None for task in listing.tasks):
        states = [TaskState(record.uid, record.status, record, record.job) for record in read_records(listing.tasks)]
        counts = dict(collections.Counter(task.state for task in states))
        _print_tasks(f"{listing.name}: {consoles.format_counts(counts)}", {"counts": counts}, states, as_json)
    else:
        _print_factories(listing, as_json)


def _print_launches(cache: Path, statuses: tp.Sequence[LaunchStatus], total: int, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_launch_json(status) for status in statuses], indent=1))
        return
    rows = [
        [
            status.token,
            consoles.format_age(status.started),
            status.program,
            status.user,
            status.host,
            status.cluster,
            consoles.format_counts(status.counts) if status.is_known else "not known: its record is missing or damaged",
        ]
        for status in statuses
    ]
    shown = f", the newest {len(rows)}" if len(rows) < total else ""
    title = f"{cache}: {count_noun(total, 'launch', 'launches')}{shown}"
    consoles.print_table(title, _OF_LAUNCHES, rows, ends_in_prose=True)


def _print_tasks(title: str, known: dict[str, tp.Any], tasks: tp.Sequence[TaskState], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**known, "tasks": [_task_json(task) for task in tasks]}, indent=1))
        return
    consoles.print_table(title, _OF_TASKS, [_row(task) for task in tasks], ends_in_prose=True)


def _print_factories(listing: TaskListing, as_json: bool) -> None:
    counts: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for record in read_records(listing.tasks):
        counts[str(record.factory), str(record.version)][record.status] += 1
    if as_json:
        rows = [{"factory": name, "version": version, "counts": dict(of)} for (name, version), of in counts.items()]
        click.echo(json.dumps(rows, indent=1))
        return
    cells = [[name, version, consoles.format_counts(of)] for (name, version), of in counts.items()]
    consoles.print_table(listing.name, _OF_FACTORIES, cells, ends_in_prose=True)


def _row(task: TaskState) -> list[tp.Any]:
    age = None if task.record is None else consoles.format_age(launch_status.since(task.record))
    return [task.uid, task.state, age, _of(task.record, "host"), task.job, _of(task.record, "reason") or ""]


def _of(record: Record | None, name: str) -> tp.Any:
    return None if record is None else getattr(record, name)


def _launch_json(status: LaunchStatus) -> dict[str, tp.Any]:
    known = {name: getattr(status, name) for name in ("token", "program", "user", "host", "cluster", "counts")}
    return {**known, "folder": str(status.folder), "started": status.started.isoformat()}


def _task_json(task: TaskState) -> dict[str, tp.Any]:
    came = None if task.record is None else launch_status.since(task.record)
    known = {name: _of(task.record, name) for name in ("host", "reason")}
    path = _of(task.record, "path")
    since = None if came is None else came.isoformat()
    return {"uid": task.uid, "state": task.state, "since": since, "job": task.job, **known, "path": path and str(path)}


def _describe(known: tp.Mapping[str, tp.Any]) -> str:
    where = " on ".join(filter(None, [known["user"], known["host"]]))
    return ", ".join(filter(None, [consoles.format_counts(known["counts"]), known["program"], where, known["cluster"]]))
