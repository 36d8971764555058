"""Ending what computes a task, whatever launch it is of, and being sure of its end."""

from __future__ import annotations

import os
import typing as tp
from pathlib import Path

from hydra_exca import clusters
from hydra_exca.clusters import JobState
from hydra_exca.errors import CacheError, ExcaError
from hydra_exca.polling import Pause
from hydra_exca.store import Claim, ClaimState, Entry
from hydra_exca.store import files as store_files

from .lookup import Lookup, LookupResult

_OF_A_PROCESS = ("inline", "debug")  # what computes in another process's own thread is not to be ended


def why_not_cancelled(standing: LookupResult, report: clusters.JobReport) -> ExcaError | None:
    """An error if the running job is another user's, which is never cancelled, or cannot be asked for."""
    assert standing.claim is not None
    if report.state is JobState.UNKNOWN:
        return CacheError(f"{standing.entry_uid} is being computed {report.reason}: it cannot be cancelled from here")
    user = standing.claim.owner.get("user")
    if user in (None, os.getuid()):
        return None
    return CacheError(
        f"{standing.identity.uid()} is being computed by {store_files.user_name(int(user))}; their job is not "
        "cancelled. Wait for it (mode=cached), or ask them"
    )


def has_no_other_task(survey: Lookup, claim: Claim, among: set[Path]) -> bool:
    """Whether the job of a claim computes nothing but some of these entries."""
    return all(each.path in among or each.outcome() is not None for each in survey.beside(claim))


def wait_for_processes(survey: Lookup, standings: tp.Sequence[LookupResult]) -> None:
    """Waits for the end of what computes in other processes' own threads; notes the claims that they leave."""
    waiting = [(s, s.claim) for s in standings if s.claim is not None and s.claim.cluster in _OF_A_PROCESS]
    pause = Pause()
    while waiting:
        left = []
        for standing, claim in waiting:
            assert standing.entry is not None
            now = standing.entry.current_claim()
            gone = survey.ask([standing])[0].state is JobState.ENDED
            if now is not None and now.token == claim.token and now.state is ClaimState.RUNNING and not gone:
                left.append((standing, claim))
            elif now is not None and now.token == claim.token:
                standing.claim = now
        waiting = left
        pause.sleep()


def end_owner(survey: Lookup, taken: tp.Sequence[tuple[Entry, Claim]]) -> None:
    """Ends the jobs of claims that were taken over, and waits for their end: two never write the same output.

    A job that computes other tasks as well goes on: it ends the one whose claim it has lost by itself.
    """
    taken = [(entry, claim) for entry, claim in taken if claim.cluster not in _OF_A_PROCESS]
    every = {entry.path for entry, _ in taken}
    alone = [claim for _, claim in taken if has_no_other_task(survey, claim, every)]
    shared = [(entry, claim) for entry, claim in taken if claim not in alone]
    by_cluster: dict[str, list[clusters.JobReference]] = {}
    for claim in alone:
        by_cluster.setdefault(claim.cluster, []).append(survey.reference(claim))
    left = []
    for name, references in by_cluster.items():
        cluster = clusters.get_cluster(name, clusters.Options())
        cluster.cancel_jobs(references)
        left.append((cluster, [reference for reference in references if reference.started]))
    pause = Pause()
    while any(references for _, references in left) or shared:
        left = [(cluster, _still_there(cluster, references)) for cluster, references in left]
        shared = [(entry, claim) for entry, claim in shared if not survey.has_let_go(entry, claim)]
        pause.sleep()


def _still_there(
    cluster: clusters.Cluster, references: tp.Sequence[clusters.JobReference]
) -> list[clusters.JobReference]:
    reports = cluster.query_jobs(references) if references else []
    return [each for each, report in zip(references, reports, strict=True) if report.state is not JobState.ENDED]
