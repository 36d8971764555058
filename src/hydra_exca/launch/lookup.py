"""Looks up what is stored or running for the tasks of a launch. A lookup changes nothing on disk."""

from __future__ import annotations

import contextlib
import enum
import gc
import os
import typing as tp
from pathlib import Path

from hydra_exca import clusters, paths
from hydra_exca.clusters import JobEnd
from hydra_exca.clusters.slots import held_slots
from hydra_exca.errors import CacheError, CorruptEntryError, DefaultsChangedError, ExcaError
from hydra_exca.identity import uid
from hydra_exca.identity.uid import Identity
from hydra_exca.job import lost
from hydra_exca.status import Mode, Status
from hydra_exca.store import (
    CacheFolder,
    Claim,
    ClaimState,
    Entry,
    FactoryFolder,
    Outcome,
    is_committing,
    launches,
    own_calls,
)

from . import actions
from .actions import Action

_COMMIT_S = 60.0


class LookupResult(tp.NamedTuple):
    """The result of a lookup for one identity, with the action that it means for the launch.

    ``entry`` is None if nothing was ever stored or claimed for the identity, ``claim`` is the one after which the next
    is taken. ``mode`` is the mode that applies to this task. ``running`` is the report on the job of a running entry,
    ``ended`` that on one that has ended and left no outcome. ``corrupt`` says why the stored outcome cannot be used;
    the task is then computed again. ``problem`` is why the launch has to refuse the task. ``value`` is loaded if it is
    to be reused.

    A named tuple, as that takes a fraction of the time of a frozen dataclass, and there may be thousands.
    """

    identity: Identity
    entry: Entry | None = None
    status: Status = Status.NOT_SUBMITTED
    action: Action = Action.RUN
    mode: Mode = Mode.CACHED
    outcome: Outcome | None = None
    claim: Claim | None = None
    running: clusters.JobReport | None = None
    ended: clusters.JobReport | None = None
    corrupt: CorruptEntryError | None = None
    problem: ExcaError | None = None
    value: tp.Any = None

    @property
    def uid(self) -> str:
        """The name of the entry, or the one that it would have."""
        return self.identity.uid() if self.entry is None else self.entry.uid


class Lookup:
    """Looks identities up in a cache folder, in bulk: one listing for each factory, one question to each cluster."""

    def __init__(self, folder: CacheFolder) -> None:
        self._folder = folder
        self._factory_folders: dict[tuple[str, str], FactoryFolder] = {}
        self._records: dict[tuple[str, int | None], tuple[int, dict[str, tp.Any]]] = {}

    def factory_folder(self, identity: Identity) -> FactoryFolder:
        """The folder with all entries of the identity's factory and version."""
        key = (identity.factory, identity.version)
        if key not in self._factory_folders:
            self._factory_folders[key] = self._folder.factory_folder(*key)
        return self._factory_folders[key]

    def look_up(
        self, identities: tp.Sequence[Identity], choose_mode: tp.Callable[[LookupResult], Mode]
    ) -> list[LookupResult]:
        """The result for each identity, in order, with the value where one is reused.

        ``choose_mode`` is called with what is on disk, and again once the clusters have said which jobs have ended.
        """
        for folder in self._factory_folders.values():
            folder.refresh()
        with without_garbage_collection():  # here alone: it takes moments, and runs no code of the user
            results = [self._read_entry(identity) for identity in identities]
        for index, result in enumerate(results):
            mode = choose_mode(result)
            if actions.decide(result.status, mode) is Action.RUN:
                results[index] = _with_owner(result._replace(mode=mode))
        running = {i: r.claim for i, r in enumerate(results) if r.status is Status.RUNNING and r.claim is not None}
        for index, report in zip(running, self.ask_clusters(list(running.values())), strict=True):
            if report.state is clusters.JobState.ENDED:
                results[index] = _with_ended_job(results[index], report)
            else:
                results[index] = results[index]._replace(running=report)
        return [_decide(result, choose_mode(result)) for result in results]

    def ask_clusters(self, claims: tp.Sequence[Claim]) -> list[clusters.JobReport]:
        """The state of the jobs of running claims; one question to each cluster, however many claims."""
        reports: dict[int, clusters.JobReport] = {}
        for name, members in by_cluster(claims).items():
            references = [self.job_reference(claim) for claim in members]
            answers = clusters.get_cluster(name, clusters.Options()).query_jobs(references)
            reports.update({id(claim): answer for claim, answer in zip(members, answers, strict=True)})
        return [reports[id(claim)] for claim in claims]

    def job_reference(self, claim: Claim) -> clusters.JobReference:
        """The reference by which a cluster knows a claim's job. The id of a queued one is in its launch's record."""
        started = claim.state is not ClaimState.QUEUED
        number, record = str(claim.number_of_job), self._read_record(claim.token, claim.writer)
        is_queued_there = claim.cluster == "slurm" and not started
        job = record.get("jobs", {}).get(number) if is_queued_there else claim.job
        where, logs = record.get("slurm_clusters", {}).get(number), self.log_folder(claim)
        place = claim.token, claim.number_of_job
        return clusters.JobReference(*place, job, claim.owner, started, claim.time, where, logs)

    def lost_jobs(self, entry: Entry, claim: Claim) -> list[clusters.JobReference]:
        """The jobs for this entry that are believed to be lost, of the launches that a claim of this user names."""
        jobs = []
        for token in claim.lost if claim.writer in (None, os.getuid()) else ():
            record = self._read_record(token, os.getuid())
            positions = self._positions(entry, record)
            for number, tasks in enumerate(record.get("tasks", [])):
                if record.get("cluster") == "slurm" and positions & set(tasks):
                    job = record.get("jobs", {}).get(str(number))
                    where = record.get("slurm_clusters", {}).get(str(number))
                    jobs.append(clusters.JobReference(token, number, job, {}, True, claim.time, where))
        return jobs

    def has_checkpoint(self, entry: Entry, claim: Claim) -> bool:
        """Whether the job of a claim has left something from which its task can go on."""
        return entry.has_saved_output() or self.resumed_call(entry, claim) is not None

    def resumed_call(self, entry: Entry, claim: Claim) -> Path | None:
        """Where the job of a claim has left what the task wants to be called next; None if it has left nothing."""
        launch = paths.launch_folder(self._folder.path, claim.token)
        places = (paths.resumed_call(launch, each) for each in self._positions(entry, self._read_record(claim.token)))
        return next((path for path in places if path.exists()), None)

    def _positions(self, entry: Entry, record: tp.Mapping[str, tp.Any]) -> set[int]:
        """The positions of the task of an entry in a launch, of which there is one or none."""
        place = os.path.relpath(entry.path, self._folder.path)
        return {position for position, path in enumerate(record.get("entries", [])) if path == place}

    def code_digest(self, claim: Claim) -> str | None:
        """The digest of the snapshot that the job of a claim runs from, if it runs from one."""
        return self.code_of_launch(claim.token)

    def code_of_launch(self, token: str) -> str | None:
        """The digest of the snapshot that the jobs of a launch run from, if they run from one."""
        return tp.cast("str | None", self._read_record(token).get("code"))

    def log_folder(self, claim: Claim) -> Path:
        """The folder that the job of a claim prints to before its task has a log of its own."""
        recorded = self._read_record(claim.token).get("logs")
        return Path(recorded) if recorded else paths.launch_folder(self._folder.path, claim.token)

    def entries_of_job(self, token: str, number: int) -> list[Entry] | None:
        """The entries of all tasks in a job of a launch, None if its record is missing or damaged."""
        record = self._read_record(token)
        if "tasks" not in record:
            return None
        jobs, entries = record["tasks"], record.get("entries", [])
        positions = jobs[number] if number < len(jobs) else []
        return [Entry(self._folder.path / entries[position]) for position in positions if position < len(entries)]

    def has_ended(self, entry: Entry, claim: Claim) -> bool:
        """Whether the process that computed under a claim, which it has lost, is gone."""
        if claim.state is not ClaimState.RUNNING or entry.has_attempt_ended(claim):
            return True
        if clusters.process_alive(claim.owner) is False:
            return True
        return self.ask_clusters([claim])[0].state is clusters.JobState.ENDED

    def _read_entry(self, identity: Identity) -> LookupResult:
        entry, outcome = self.factory_folder(identity).lookup(identity, of_many=True)
        claim = None
        if entry is not None and outcome is None:
            try:
                outcome, claim = entry.read_state()
            except CorruptEntryError as error:
                return LookupResult(identity, entry, corrupt=error)
        if outcome is not None:
            status = outcome.status
        else:
            status = (
                Status.NOT_SUBMITTED if claim is None or entry is None or is_given_up(entry, claim) else Status.RUNNING
            )
        return LookupResult(identity, entry, status, outcome=outcome, claim=claim)

    def _read_record(self, token: str, writer: int | None = None) -> dict[str, tp.Any]:
        """The record of a launch, read again when it has changed; empty if the launch has just begun.

        Another one than that of ``writer`` is not believed.
        """
        launch = paths.launch_folder(self._folder.path, token)
        try:
            changed = (launch / paths.LAUNCH_RECORD).stat().st_mtime_ns
        except OSError:
            return {}
        read_at, record = self._records.get((token, writer), (0, {}))
        if read_at != changed or not record:  # a record that could not be read may be readable now
            record = launches.read_record(launch, writer)
            self._records[token, writer] = (changed, record)
        return record


def by_cluster(claims: tp.Iterable[Claim]) -> dict[str, list[Claim]]:
    """The claims by the clusters of their jobs."""
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(claim.cluster, []).append(claim)
    return groups


def is_given_up(entry: Entry, claim: Claim) -> bool:
    """Whether nobody computes under a claim on ``entry``, or will store an outcome under it.

    That is so for a claim of this process whose call was interrupted. Committing takes moments; an owner that is long
    past it has lost its outcome to somebody who removed it, and so has this process where none of its threads is at it.
    Should it be alive after all, of two outcomes the first one stays.
    """
    if claim.state is ClaimState.RELEASED:
        return True
    is_own = clusters.is_this_process(claim.owner)
    if is_own and own_calls.is_abandoned(claim.token, claim.number_of_job):
        return True
    if claim.state is not ClaimState.COMMITTING:
        return False
    return (is_own and not is_committing(claim)) or entry.claim_age(claim) > _COMMIT_S


def is_behind_this_job(claim: Claim | None) -> bool:
    """Whether a task waits for cores or GPUs of this machine, while this process is part of a job that holds some."""
    if claim is None or claim.cluster != "local" or claim.state is not ClaimState.QUEUED or held_slots() is None:
        return False
    return clusters.process_alive(claim.owner) is True


class JobEffect(enum.Enum):
    """What the end of a job without an outcome means for one of its tasks."""

    FAILURE = "failure"  # the outcome of the task
    LOSS = "loss"  # the task is to run again, but not by a launch that has submitted it
    NOT_REACHED = "not reached"  # the job had other tasks before this one: the next job goes on where it ended
    VANISHED = "vanished"  # the job may be alive: it is to be cancelled before the task runs again


def effect_of_end(
    claim: Claim,
    report: clusters.JobReport,
    has_begun: bool = True,
    has_checkpoint: tp.Callable[[], bool] = lambda: False,
) -> JobEffect:
    """What the end of its job means for the task of a claim. ``has_begun``: the job has begun any of its tasks.

    A task has failed if it was being loaded or computed as the job exited, or if the job ran out of memory or time. Of
    several tasks in a job that is the fault of those that it began first: later ones may have had too little time, or
    were not reached. A local job that was killed is a loss if its task can go on from a checkpoint.
    """
    if report.end is JobEnd.VANISHED:
        return JobEffect.VANISHED
    if report.end in (JobEnd.REMOVED, JobEnd.LOST):
        return JobEffect.LOSS
    if claim.shared and has_begun:
        return JobEffect.NOT_REACHED
    if report.end is JobEnd.KILLED and has_checkpoint():
        return JobEffect.LOSS
    is_failure = report.end.is_exhausted or lost.has_begun(claim, report)
    return JobEffect.FAILURE if is_failure else JobEffect.LOSS


def has_begun(entry: Entry, token: str) -> bool:
    """Whether a job of a launch has begun the task of an entry."""
    outcome, claim = entry.readable_outcome(), entry.current_claim()
    if outcome is not None and outcome.token == token:
        return True
    return claim is not None and claim.token == token and claim.state in (ClaimState.RUNNING, ClaimState.COMMITTING)


def _with_owner(result: LookupResult) -> LookupResult:
    """The result with the claim after which the next is taken; running if somebody computes the task again already."""
    if result.entry is None or result.claim is not None:
        return result
    claim = result.entry.current_claim()
    states = (ClaimState.QUEUED, ClaimState.RUNNING)
    is_running = claim is not None and claim.state in states and not is_given_up(result.entry, claim)
    return result._replace(claim=claim, status=Status.RUNNING if is_running else result.status)


def _with_ended_job(result: LookupResult, report: clusters.JobReport) -> LookupResult:
    """The result once the job has ended: an older value comes back, or the task has failed, or nobody runs it.

    A job that ended just now may have stored its outcome after that was looked for.
    """
    committed = _committed_since(result)
    if committed is not None:
        return committed
    outcome, status = result.outcome, Status.NOT_SUBMITTED
    previous = None if result.entry is None else result.entry.previous_outcome()
    if previous is not None:
        outcome, status = previous, Status.COMPLETED
    elif outcome is not None:
        status = outcome.status
    elif result.claim is not None and effect_of_end(result.claim, report) is JobEffect.FAILURE:
        status = Status.FAILED
    return result._replace(ended=report, status=status, outcome=outcome)


def _committed_since(result: LookupResult) -> LookupResult | None:
    """The result with the outcome of the claim that it has, None if there is none."""
    if result.entry is None or result.claim is None:
        return None
    with contextlib.suppress(CorruptEntryError):  # the next lookup says so
        outcome = result.entry.outcome()
        if outcome is not None and outcome.claim > result.claim.number:
            return result._replace(status=outcome.status, outcome=outcome, claim=result.entry.current_claim())
    return None


def _decide(result: LookupResult, mode: Mode) -> LookupResult:
    """The result with what to do about it, and the value if that is to be reused."""
    action, outcome = actions.decide(result.status, mode), result.outcome
    if action is Action.JOIN and outcome is not None:  # who joins a launch that replaces what is stored wants it, too
        return result._replace(action=action)
    if action is Action.JOIN and mode is not Mode.READ_ONLY and is_behind_this_job(result.claim):
        action = Action.RUN
    result = result._replace(action=action, mode=mode, problem=result.corrupt if mode is Mode.READ_ONLY else None)
    return result if outcome is None or not action.uses_stored else _use_outcome(result, outcome)


def _use_outcome(result: LookupResult, outcome: Outcome) -> LookupResult:
    """The result with the value where that is reused, or with the reason why the stored outcome cannot be used."""
    changed = uid.changed_defaults(outcome.identity, result.identity)
    if changed:
        return result._replace(problem=_defaults_changed(result.uid, changed))
    if result.entry is None or result.action is Action.RAISE:
        return result
    try:
        return result._replace(value=result.entry.load_value(outcome))
    except CorruptEntryError as error:
        result = _with_owner(result._replace(corrupt=error, status=Status.NOT_SUBMITTED))
        action = actions.decide(result.status, result.mode)
        return result._replace(action=action, problem=error if action is Action.REFUSE else None)
    except CacheError as error:
        return result._replace(problem=error)


def _defaults_changed(name: str, changed: tp.Sequence[str]) -> DefaultsChangedError:
    return DefaultsChangedError(
        f"{name} was computed under other defaults: {'; '.join(changed)}. What is stored would silently mean "
        "something else: bump the version, or put the defaults back"
    )


@contextlib.contextmanager
def without_garbage_collection() -> tp.Iterator[None]:
    """Turns the collector off: among thousands of records that all stay, it would run often and find nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
