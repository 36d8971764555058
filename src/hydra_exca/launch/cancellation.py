"""Cancels the jobs that compute a task, of any launch, and waits for their end."""

from __future__ import annotations

import os
import typing as tp
from pathlib import Path

from hydra_exca import clusters
from hydra_exca import files as store_files
from hydra_exca.clusters import JobState
from hydra_exca.clusters.base import IN_PROCESS
from hydra_exca.errors import CacheError, ExcaError
from hydra_exca.polling import Pause
from hydra_exca.store import Claim, ClaimState, Entry

from .launched_task import LaunchedTask
from .lookup import Lookup


def why_not_cancelled(uid: str, claim: Claim, report: clusters.JobReport) -> ExcaError | None:
    """The error if a running job is another user's, which is never cancelled, or its state is not known."""
    if report.state is JobState.UNKNOWN:
        return CacheError(f"{uid} is being computed {report.reason}: it cannot be cancelled from here")
    user = claim.owner.get("user")
    if user in (None, os.getuid()):
        return None
    return CacheError(
        f"{uid} is being computed by {store_files.user_name(int(user))}; their job is not cancelled. "
        "Wait for it (mode=cached), or ask them"
    )


def has_no_other_task(lookup: Lookup, claim: Claim, entries: set[Path]) -> bool:
    """Whether the job of a claim computes none but these entries."""
    return all(entry.path in entries or entry.outcome() is not None for entry in lookup.entries_of_job(claim))


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


def cancel_jobs(lookup: Lookup, superseded: tp.Sequence[tuple[Entry, Claim]]) -> None:
    """Cancels the jobs of claims that were taken over, and waits for their end, so that no two write the same output.

    A job that also computes other tasks continues: by itself it ends the task whose claim it has lost.
    """
    superseded = [(entry, claim) for entry, claim in superseded if claim.cluster not in IN_PROCESS]
    entries = {entry.path for entry, _ in superseded}
    cancelled = [claim for _, claim in superseded if has_no_other_task(lookup, claim, entries)]
    shared = [(entry, claim) for entry, claim in superseded if claim not in cancelled]
    by_cluster: dict[str, list[clusters.JobReference]] = {}
    for claim in cancelled:
        by_cluster.setdefault(claim.cluster, []).append(lookup.job_reference(claim))
    left = []
    for name, references in by_cluster.items():
        cluster = clusters.get_cluster(name, clusters.Options())
        cluster.cancel_jobs(references)
        left.append((cluster, [reference for reference in references if reference.started]))
    pause = Pause()
    while any(references for _, references in left) or shared:
        left = [(cluster, _not_ended(cluster, references)) for cluster, references in left]
        shared = [(entry, claim) for entry, claim in shared if not lookup.has_ended(entry, claim)]
        pause.sleep()


def _not_ended(
    cluster: clusters.Cluster, references: tp.Sequence[clusters.JobReference]
) -> list[clusters.JobReference]:
    reports = cluster.query_jobs(references) if references else []
    return [ref for ref, report in zip(references, reports, strict=True) if report.state is not JobState.ENDED]
