"""Where the tasks of a launch stand: the question before every launch, which changes nothing on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import time
import typing as tp
from pathlib import Path

from hydra_exca import clusters, paths
from hydra_exca.errors import CacheError, CorruptEntryError, DefaultsChangedError, ExcaError
from hydra_exca.identity import uid
from hydra_exca.identity.uid import Identity
from hydra_exca.status import Mode, Status
from hydra_exca.store import CacheFolder, Claim, ClaimState, Entry, FactoryFolder, Outcome, is_committing

from . import plan
from .plan import Action

_COMMIT_S = 60.0


@dataclasses.dataclass(eq=False, slots=True)
class LookupResult:
    """One distinct identity of a launch: where it stands and what is done about it.

    ``mode`` is the one that this task is treated by. ``gone`` is what its cluster says of a job that is no more but
    left no outcome. ``corrupt`` tells why what is stored cannot be used and is computed again. ``passed_over`` is the
    claim of a stored outcome that does not count, since a launch is about to replace it.
    """

    identity: Identity
    entry: Entry | None = None
    status: Status = Status.NOT_SUBMITTED
    action: Action = Action.RUN
    mode: Mode = Mode.CACHED
    outcome: Outcome | None = None
    claim: Claim | None = None
    gone: clusters.JobReport | None = None
    corrupt: CorruptEntryError | None = None
    problem: ExcaError | None = None
    passed_over: int = -1
    value: tp.Any = None

    @property
    def entry_uid(self) -> str:
        return self.identity.uid() if self.entry is None else self.entry.uid

    def pass_over(self) -> None:
        """What is stored does not count: only what is stored after it does."""
        if self.outcome is not None:
            self.passed_over = max(self.passed_over, self.outcome.claim)
        self.outcome = None

    def stored(self) -> Outcome | None:
        """The outcome that is there now, if it counts."""
        assert self.entry is not None
        outcome = self.entry.outcome()
        return None if outcome is None or outcome.claim <= self.passed_over else outcome

    def is_passed_over(self) -> bool:
        """Whether what does not count is what is there, or there again: whoever was to replace it has not."""
        assert self.entry is not None
        outcome = None if self.passed_over < 0 else self.entry.outcome()
        return outcome is not None and outcome.claim <= self.passed_over


class Lookup:
    """Looks identities up in a cache folder, in bulk: one listing a shelf, one question a cluster."""

    def __init__(self, folder: CacheFolder) -> None:
        self._folder = folder
        self._shelves: dict[tuple[str, str], FactoryFolder] = {}
        self._records: dict[str, tuple[int, dict[str, tp.Any]]] = {}

    def shelf(self, identity: Identity) -> FactoryFolder:
        key = (identity.factory, identity.version)
        if key not in self._shelves:
            self._shelves[key] = self._folder.factory_folder(*key)
        return self._shelves[key]

    def look(self, identities: tp.Sequence[Identity], mode_of: tp.Callable[[LookupResult], Mode]) -> list[LookupResult]:
        """Where each identity stands, what its mode makes of it, and the value where one is reused."""
        for shelf in self._shelves.values():
            shelf.refresh()
        with _without_collecting():  # here alone: it takes moments, and runs no code of the user
            found = [self._find(identity) for identity in identities]
        for standing in found:
            standing.mode = mode_of(standing)
            if plan.decide(standing.status, standing.mode) is Action.RUN:
                _note_owner(standing)
        self._ask_owners([standing for standing in found if standing.status is Status.RUNNING])
        for standing in found:
            _settle_plan(standing, mode_of(standing))
        return found

    def ask(self, standings: tp.Sequence[LookupResult]) -> list[clusters.JobReport]:
        """What the clusters say of the owners of running entries; one question each, however many entries."""
        reports: dict[int, clusters.JobReport] = {}
        by_cluster: dict[str, list[LookupResult]] = {}
        for standing in standings:
            assert standing.claim is not None
            by_cluster.setdefault(standing.claim.cluster, []).append(standing)
        for name, members in by_cluster.items():
            answers = clusters.get_cluster(name, clusters.Options()).query_jobs(
                [self.reference(member.claim) for member in members]
            )
            reports.update({id(member): answer for member, answer in zip(members, answers, strict=True)})
        return [reports[id(standing)] for standing in standings]

    def reference(self, claim: Claim | None) -> clusters.JobReference:
        """What a cluster needs to know a claim's job by. The job id of a queued one is in its launch's record."""
        assert claim is not None
        started = claim.state is not ClaimState.QUEUED
        job = claim.job if started or claim.cluster != "slurm" else self._recorded_job(claim)
        return clusters.JobReference(claim.token, claim.number_of_job, job, claim.owner, started, claim.time)

    def _find(self, identity: Identity) -> LookupResult:
        entry, outcome = self.shelf(identity).lookup(identity, of_many=True)
        standing = LookupResult(identity, entry, outcome=outcome)
        if entry is not None and outcome is None:
            try:
                known = entry.read_state()
            except CorruptEntryError as error:
                standing.corrupt = error
                return standing
            standing.outcome, standing.claim = known.outcome, known.claim
        if standing.outcome is not None:
            standing.status = standing.outcome.status
        elif standing.claim is not None and not is_given_up(standing.claim):
            standing.status = Status.RUNNING
        return standing

    def _ask_owners(self, running: tp.Sequence[LookupResult]) -> None:
        for standing, report in zip(running, self.ask(running), strict=True):
            if report.state is clusters.JobState.ENDED:
                standing.gone = report
                standing.status = _status_of_gone(standing, report)

    def code(self, claim: Claim) -> str | None:
        """The digest of the code that the job of a claim runs from, if it runs from a snapshot."""
        return tp.cast("str | None", self._record(claim).get("code"))

    def log_folder(self, claim: Claim) -> Path:
        """Where the job of a claim prints to before its task has a log of its own."""
        told = self._record(claim).get("logs")
        return Path(told) if told else paths.launch_folder(self._folder.path, claim.token)

    def beside(self, claim: Claim) -> list[Entry]:
        """The entries of the other tasks of the job of a claim."""
        record = self._record(claim)
        jobs, entries = record.get("tasks", []), record.get("entries", [])
        positions = jobs[claim.number_of_job] if claim.number_of_job < len(jobs) else []
        return [Entry(self._folder.path / entries[position]) for position in positions if position < len(entries)]

    def has_let_go(self, entry: Entry, claim: Claim) -> bool:
        """Whether the process that computed under a claim, which it has lost, is gone."""
        if claim.state is not ClaimState.RUNNING or entry.has_attempt_ended(claim):
            return True
        if clusters.process_alive(claim.owner) is False:
            return True
        cluster = clusters.get_cluster(claim.cluster, clusters.Options())
        return cluster.query_jobs([self.reference(claim)])[0].state is clusters.JobState.ENDED

    def _recorded_job(self, claim: Claim) -> str | None:
        return tp.cast("str | None", self._record(claim).get("jobs", {}).get(str(claim.number_of_job)))

    def _record(self, claim: Claim) -> dict[str, tp.Any]:
        """What the launch of a claim has written down about itself; of one that has just begun, nothing."""
        path = paths.launch_folder(self._folder.path, claim.token) / paths.LAUNCH_RECORD
        try:
            changed = path.stat().st_mtime_ns
            if self._records.get(claim.token, (0, {}))[0] != changed:
                self._records[claim.token] = (changed, json.loads(path.read_bytes()))
            return self._records[claim.token][1]
        except (OSError, ValueError):
            return {}


def is_given_up(claim: Claim) -> bool:
    """Whether a claim without an outcome is nobody's any more.

    Committing takes moments; an owner that is long past it has lost its outcome to somebody who removed it, and so has
    this process where none of its threads is at it. Should it be alive after all, of two outcomes the first one stays.
    """
    if claim.state is not ClaimState.COMMITTING:
        return claim.state is ClaimState.RELEASED
    is_own = claim.owner == clusters.describe_process() and not is_committing(claim)
    return is_own or time.time() - claim.time > _COMMIT_S


def is_to_blame(claim: Claim, report: clusters.JobReport) -> bool:
    """Whether a task has failed with its job, and is not simply to be computed by another one.

    Whoever cancels a job means all its tasks. Any other end is the fault of what had the job from its beginning: what
    came later may have had too little time, or not have been reached.
    """
    return report.failed and (report.cancelled or not claim.shared)


def _note_owner(standing: LookupResult) -> None:
    """The claim after which the next is taken. Of a settled entry: unless somebody is at it again already."""
    if standing.entry is None or standing.claim is not None:
        return
    standing.claim = standing.entry.current_claim()
    if standing.claim is not None and standing.claim.state in (ClaimState.QUEUED, ClaimState.RUNNING):
        standing.status = Status.RUNNING


def _status_of_gone(standing: LookupResult, report: clusters.JobReport) -> Status:
    """An owner that is gone: its cluster says that it failed, or an older value is to come back, or nobody runs it."""
    assert standing.entry is not None
    if standing.entry.has_previous():
        standing.outcome = standing.entry.previous_outcome()
        return Status.COMPLETED
    if standing.outcome is not None:
        return standing.outcome.status
    assert standing.claim is not None
    return Status.FAILED if is_to_blame(standing.claim, report) else Status.NOT_SUBMITTED


def _settle_plan(standing: LookupResult, mode: Mode) -> None:
    """What is done about it. Who joins a launch that replaces what is stored keeps the mode that wanted it replaced."""
    standing.action = plan.decide(standing.status, mode)
    if standing.action is Action.JOIN and standing.outcome is not None:
        standing.pass_over()
        return
    standing.mode = mode
    _check_reuse(standing, mode)


def _check_reuse(standing: LookupResult, mode: Mode) -> None:
    """Before a stored outcome is used: is it what the code of today means, and can it be read?"""
    if standing.corrupt is not None and mode is Mode.READ_ONLY:
        standing.problem = standing.corrupt
    if standing.action not in (Action.REUSE, Action.RAISE) or standing.outcome is None:
        return
    changed = uid.changed_defaults(standing.outcome.identity, standing.identity)
    if changed:
        standing.problem = _defaults_changed(standing, changed)
    elif standing.action is Action.REUSE:
        _load(standing, mode)


def _load(standing: LookupResult, mode: Mode) -> None:
    assert standing.entry is not None and standing.outcome is not None
    try:
        standing.value = standing.entry.load_value(standing.outcome)
    except CorruptEntryError as error:
        standing.corrupt, standing.status = error, Status.NOT_SUBMITTED
        _note_owner(standing)
        standing.action = plan.decide(standing.status, mode)
        standing.problem = error if mode is Mode.READ_ONLY else None
    except CacheError as error:
        standing.problem = error


def _defaults_changed(standing: LookupResult, changed: tp.Sequence[str]) -> DefaultsChangedError:
    assert standing.entry is not None
    return DefaultsChangedError(
        f"{standing.entry.uid} was computed under other defaults: {'; '.join(changed)}. What is stored would "
        "silently mean something else: bump the version, or put the defaults back"
    )


@contextlib.contextmanager
def _without_collecting() -> tp.Iterator[None]:
    """Here Python does not look for garbage in cycles: in thousands of records that all stay it would look often."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
