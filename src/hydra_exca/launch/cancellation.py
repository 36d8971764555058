"""Cancels the jobs that compute a task, of any launch, and waits for their end."""

from __future__ import annotations

import logging
import os
import typing as tp
from pathlib import Path

from hydra_exca import clusters
from hydra_exca import files as store_files
from hydra_exca.clusters import JobEnd, JobState
from hydra_exca.clusters.base import IN_PROCESS
from hydra_exca.errors import CacheError, ExcaError
from hydra_exca.polling import Pause
from hydra_exca.store import Claim, ClaimState, Entry

from .launched_task import LaunchedTask
from .lookup import Lookup, by_cluster

log = logging.getLogger("exca.launch")
_SHOWN_JOBS = 5


def why_not_cancelled(lookup: Lookup, uid: str, claim: Claim, report: clusters.JobReport) -> ExcaError | None:
    """The error if a running job is another user's, which is never cancelled, or its state is not known."""
    if report.state is JobState.UNKNOWN:
        if claim.cluster == "slurm":
            return CacheError(f"{uid} is being computed on Slurm, which does not answer: try again when it does")
        return CacheError(f"{uid} is being computed {report.reason}: it cannot be cancelled from here")
    return _why_not_ours(lookup, uid, claim)


def _why_not_ours(lookup: Lookup, uid: str, claim: Claim) -> ExcaError | None:
    """The error if the job of a claim may be another user's, or may compute other tasks that nobody can name."""
    users = [user for user in (claim.writer, claim.owner.get("user")) if user not in (None, os.getuid())]
    if users:
        return CacheError(
            f"{uid} is being computed by {store_files.user_name(int(users[0]))}; their job is not cancelled. "
            "Wait for it (mode=cached), or ask them"
        )
    is_running_job = claim.state is ClaimState.RUNNING and claim.cluster == "slurm"
    if is_running_job and lookup.entries_of_job(claim.token, claim.number_of_job) is None:
        return CacheError(
            f"{uid} is being computed by job {claim.job}, which may compute other tasks, too: the record of its launch "
            f"{claim.token} is missing or damaged. Wait for it (mode=cached), or end the job yourself and try again"
        )
    return None


def check_ours(lookup: Lookup, owned: tp.Iterable[tuple[Entry, Claim]]) -> None:
    """Raises the error of `_why_not_ours` for the first claim that has one."""
    for entry, claim in owned:
        problem = _why_not_ours(lookup, entry.uid, claim)
        if problem is not None:
            raise problem


def has_no_other_task(lookup: Lookup, job: Claim | clusters.JobReference, entries: set[Path]) -> bool:
    """Whether the job of a claim, or a job itself, computes none but these entries."""
    number = job.number_of_job if isinstance(job, Claim) else job.number
    members = lookup.entries_of_job(job.token, number)
    if members is None:
        return isinstance(job, Claim) and job.cluster != "slurm"  # of others it is the task's own process that is ended
    return all(entry.path in entries or entry.outcome() is not None for entry in members)


def wait_for_processes(lookup: Lookup, tasks: tp.Sequence[LaunchedTask]) -> None:
    """Waits for the end of tasks that run in other processes themselves, and updates the claims of these tasks.

    A thread of another process cannot be ended from here.
    """
    waiting = [(task, task.claim) for task in tasks if task.claim is not None and task.claim.cluster in IN_PROCESS]
    pause = Pause()
    while waiting:
        still_waiting = []
        for task, claim in waiting:
            current = task.entry.current_claim()
            ended = lookup.ask_clusters([claim])[0].state is JobState.ENDED
            if current is None or current.token != claim.token:
                continue
            if current.state is ClaimState.RUNNING and not ended:
                still_waiting.append((task, claim))
            else:
                task.claim = current
        waiting = still_waiting
        pause.sleep()


def cancel_vanished_jobs(lookup: Lookup, owned: tp.Sequence[tuple[Entry, Claim, clusters.JobReport | None]]) -> None:
    """Cancels jobs that Slurm does not list, before their tasks are computed by others: such a job may be alive.

    ``owned`` has entries, the claims that own them, and how their jobs have ended, if they have. A job that also
    computes other tasks continues.
    """
    entries = {entry.path for entry, _, _ in owned}
    jobs: dict[tuple[str, int], clusters.JobReference] = {}
    for entry, claim, ended in owned:
        is_ours = _why_not_ours(lookup, entry.uid, claim) is None
        has_vanished = is_ours and ended is not None and ended.end is JobEnd.VANISHED
        for job in (*([lookup.job_reference(claim)] if has_vanished else []), *lookup.lost_jobs(entry, claim)):
            jobs[job.token, job.number] = job
    if jobs:
        alone = [job for job in jobs.values() if has_no_other_task(lookup, job, entries)]
        clusters.get_cluster("slurm", clusters.Options()).cancel_vanished(alone)


def cancel_jobs(lookup: Lookup, superseded: tp.Sequence[tuple[Entry, Claim]]) -> None:
    """Cancels the jobs of claims that were taken over, and waits for their end, so that no two write the same output.

    A job that also computes other tasks continues: by itself it ends the task whose claim it has lost.
    """
    check_ours(lookup, superseded)
    superseded = [(entry, claim) for entry, claim in superseded if claim.cluster not in IN_PROCESS]
    entries = {entry.path for entry, _ in superseded}
    cancelled = [claim for _, claim in superseded if has_no_other_task(lookup, claim, entries)]
    shared = [(entry, claim) for entry, claim in superseded if claim not in cancelled]
    jobs = [_CancelledJobs(name, claims, lookup) for name, claims in by_cluster(cancelled).items()]
    pause = Pause()
    while any(job.are_left() for job in jobs) or shared:
        shared = [(entry, claim) for entry, claim in shared if not lookup.has_ended(entry, claim)]
        pause.sleep()


class _CancelledJobs:
    """Jobs of one cluster whose end is requested, until they have ended."""

    def __init__(self, name: str, claims: tp.Sequence[Claim], lookup: Lookup) -> None:
        self._cluster = clusters.get_cluster(name, clusters.Options())
        self._jobs = [lookup.job_reference(claim) for claim in claims]
        self._is_silent = False
        if self._jobs:
            log.info("exca: cancelling job %s, and waiting until it has ended", self._names())
        self._cluster.cancel_jobs(self._jobs)

    def are_left(self) -> bool:
        """Whether any of them goes on. Requests their end again if the cluster may not have heard of it."""
        reports = self._cluster.query_jobs(self._jobs) if self._jobs else []
        pairs = list(zip(self._jobs, reports, strict=True))
        unknown = [report for report in reports if report.state is JobState.UNKNOWN]
        if unknown and not self._is_silent:
            log.warning("exca: cannot see whether job %s is cancelled: %s; waiting", self._names(), unknown[0].reason)
        elif self._is_silent and not unknown:
            log.warning("exca: Slurm answers again")
            self._cluster.cancel_jobs(self._jobs)
        self._is_silent = bool(unknown)
        self._jobs = [job for job, report in pairs if self._is_left(job, report)]
        return bool(self._jobs)

    def _names(self) -> str:
        return ", ".join(str(job.job) for job in self._jobs[:_SHOWN_JOBS])

    def _is_left(self, job: clusters.JobReference, report: clusters.JobReport) -> bool:
        """Whether a job is to be waited for. One that has not started will do nothing, once its end is requested."""
        if self._cluster.name == "slurm" and report.state is JobState.UNKNOWN:
            return True
        return job.started and report.state is not JobState.ENDED
