"""Reads many entries at once. A damaged file costs one record and a warning; nothing is ever written."""

from __future__ import annotations

import logging
import re
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.clusters import JobReport, JobState
from hydra_exca.errors import CacheError, ExcaError
from hydra_exca.launch.lookup import JobEffect, Lookup, effect_of_end, is_given_up, without_garbage_collection
from hydra_exca.status import Status
from hydra_exca.store import CacheFolder, Claim, ClaimState, Entry, launches

from .record import EntryState, ListedTask, ListingFacts, Record

log = logging.getLogger("exca.catalog")
_UNREADABLE = (CacheError, OSError)
_QUEUED = "queued"
_OPEN = (_QUEUED, Status.RUNNING)


def list_factory_folders(cache: Path) -> list[str]:
    """The names ``factory,version`` in a cache folder, sorted."""
    names = (name for name in files.list_folder(cache) if not name.startswith("."))
    return sorted(name for name in names if "," in name and paths.is_version(name.rpartition(",")[2]))


def list_launches(cache: Path) -> list[str]:
    """The tokens of all launches, in their order."""
    names = files.list_folder(cache / paths.LAUNCHES)
    return sorted(name for name in names if re.fullmatch(launches.TOKEN_PATTERN, name))


def list_entries(cache: Path, factory_folder: str) -> list[ListedTask]:
    """All entries of a factory folder, by name."""
    folder = CacheFolder(cache).factory_folder(*factory_folder.rsplit(",", 1))
    try:
        return [ListedTask(f"{folder.path}/{entry.uid}", cache) for entry in folder.entries()]
    except OSError as error:
        log.warning("exca: the results in %s are left out: %s", folder.path, error)
        return []


def list_map_jobs(tasks: tp.Iterable[ListedTask]) -> list[ListedTask]:
    """The jobs of maps in place of the maps; a map without jobs stays."""
    jobs = []
    for task in tasks:
        folder = f"{task.entry}/{paths.ITEMS}/{paths.ITEM_JOBS}"
        names = sorted(name for name in files.list_folder(folder) if not name.startswith("."))
        jobs += [ListedTask(f"{folder}/{name}", task.cache) for name in names] or [task]
    return jobs


def read_records(tasks: tp.Iterable[ListedTask], trust_users: tp.Collection[str] = ()) -> list[Record]:
    """A record of each task whose entry is there."""
    with without_garbage_collection():
        states = [state for task in tasks if (state := _read_state(task, trust_users)) is not None]
    running = [index for index, state in enumerate(states) if state.status in _OPEN]
    for cache in {states[index].task.cache for index in running}:
        here = [index for index in running if states[index].task.cache == cache]
        claims = [claim for index in here if (claim := states[index].claim) is not None]
        for index, report in zip(here, _ask_clusters(cache, claims), strict=True):
            states[index] = states[index]._replace(report=report)
            if report.state is JobState.ENDED:
                states[index] = _state_after(states[index], report)
    shared = ListingFacts()
    with without_garbage_collection():
        return [Record(state, shared) for state in states]


def _read_state(task: ListedTask, trust_users: tp.Collection[str]) -> EntryState | None:
    """What the files of a task say; None if there is no entry, or not yet."""
    if task.entry is None:
        return EntryState(task, None, Status.NOT_SUBMITTED)
    entry = Entry(task.entry, trust_users)
    try:
        outcome, claim = entry.read_state()
    except _UNREADABLE as error:
        return _damaged(task, entry, error)
    if outcome is not None:
        return EntryState(task, entry, outcome.status, outcome)
    if claim is None:
        items = entry.identity_of_items()
        return None if items is None else EntryState(task, entry, Status.COMPLETED, items=items)
    if is_given_up(entry, claim):
        return EntryState(task, entry, Status.NOT_SUBMITTED, claim=claim)
    return EntryState(task, entry, _QUEUED if claim.state is ClaimState.QUEUED else Status.RUNNING, claim=claim)


def _state_after(state: EntryState, report: JobReport) -> EntryState:
    """The state once the job has ended: its outcome may have come since it was looked for."""
    assert state.entry is not None and state.claim is not None
    try:
        outcome = state.entry.outcome()
    except _UNREADABLE as error:
        return _damaged(state.task, state.entry, error)
    if outcome is not None:
        return state._replace(status=outcome.status, outcome=outcome)
    is_failure = effect_of_end(state.claim, report) is JobEffect.FAILURE
    problem = f"its job ended: {report.explanation}" if report.explanation else "its job ended without a result"
    return state._replace(status=Status.FAILED if is_failure else "lost", problem=problem)


def _damaged(task: ListedTask, entry: Entry, error: Exception) -> EntryState:
    log.warning("exca: %s", error)
    return EntryState(task, entry, "damaged", problem=str(error))


def _ask_clusters(cache: Path, claims: tp.Sequence[Claim]) -> list[JobReport]:
    """The state of the jobs of claims; unknown where a cluster cannot be asked from here."""
    try:
        return Lookup(CacheFolder(cache)).ask_clusters(claims)
    except (ExcaError, OSError) as error:
        log.warning("the state of %d running tasks is that of their claims: %s", len(claims), error)
        return [JobReport(JobState.UNKNOWN)] * len(claims)
