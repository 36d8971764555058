"""Records how a job ended that left no outcome."""

from __future__ import annotations

import dataclasses
import time
import typing as tp
from pathlib import Path

from hydra_exca import clusters, files, paths, records
from hydra_exca.errors import CorruptEntryError
from hydra_exca.status import Status
from hydra_exca.store import Claim, ClaimState, Entry, Outcome


def record_lost_job(
    entry: Entry,
    claim: Claim,
    identity: dict[str, tp.Any],
    report: clusters.JobReport,
    cache: Path,
    logs: Path,
    code: str | None = None,
) -> bool:
    """Makes a lost job's end the outcome, or gives back the value that it was to replace.

    Returns False if ``claim`` owns the entry no more: nothing was written. ``report`` has the cluster's reason,
    ``cache`` is the cache folder, ``logs`` where the job printed to before its task had a log, ``code`` the digest of
    the snapshot that it ran from.
    """
    outcome = describe_lost_job(entry, claim, identity, report, cache, logs, code)
    return give_up_lost_job(entry, claim, outcome) if entry.has_previous() else entry.commit_outcome(claim, outcome)


def give_up_lost_job(entry: Entry, claim: Claim, loss: Outcome) -> bool:
    """Gives up the claim of a job that is gone through no fault of the task; False if it owns the entry no more.

    No outcome is stored, so that the next launch runs the task, but a note for launches that wait: ``loss``, of
    `describe_lost_job`. Should the job be alive after all, the outcome that it commits is accepted. A value that was to
    be replaced is restored. Then the next claim is published first, as `Entry.commit_outcome` does, so that a job that
    is about to store what it has computed is not disturbed.
    """
    if entry.has_previous():
        owner, committing = entry.current_claim(), claim.next(ClaimState.COMMITTING)
        if owner is None or owner.number != claim.number or not entry.publish_claim(committing):
            return False
        claim = committing
    path = entry.path / paths.LOGS / paths.lost_attempt(claim.token)
    files.make_folder(path.parent)
    files.write_file(path, dataclasses.replace(loss, claim=claim.number).to_json())
    return entry.release_claim(claim, is_lost=True)


def describe_lost_job(
    entry: Entry,
    claim: Claim,
    identity: dict[str, tp.Any],
    report: clusters.JobReport,
    cache: Path,
    logs: Path,
    code: str | None = None,
) -> Outcome:
    """The end of a lost job as an outcome. The arguments are those of `record_lost_job`; nothing is written."""
    job, reason = report.job or claim.job, report.explanation
    if claim.state is ClaimState.QUEUED and report.end is clusters.JobEnd.EXITED:
        reason += ", before the task began"
    return Outcome(
        status=Status.FAILED,
        claim=claim.number,
        identity=identity,
        error={"kind": "lost", "type": "JobLostError", "message": reason, "traceback": ""},
        started=claim.time if claim.state is ClaimState.RUNNING else None,
        ended=time.time(),
        host=claim.owner.get("host"),
        cluster=claim.cluster,
        job=job,
        token=claim.token,
        log=_find_log(entry, claim, job, cache, logs),
        code=code,
    )


def read_lost_outcome(entry: Entry, token: str, since: int) -> Outcome | None:
    """What became of a launch's job that was given up since claim ``since``; None if that is not known."""
    try:
        outcome = Outcome.from_json(files.read_file(entry.path / paths.LOGS / paths.lost_attempt(token)))
    except (OSError, CorruptEntryError, *records.DAMAGES):
        return None
    return outcome if outcome.claim >= since else None


def _find_log(entry: Entry, claim: Claim, job: str | None, cache: Path, logs: Path) -> str | None:
    """The log with the last output: that of the attempt, or else that of the job."""
    job_log = paths.job_log(paths.launch_folder(cache, claim.token), claim.number_of_job)
    candidates = [*reversed(entry.log_paths(claim) or ()), job_log]
    candidates += sorted(logs.glob(f"{job}_0_log.*")) if job is not None else []
    written = [path for path in candidates if path.exists() and path.stat().st_size]
    return entry.relative_log(written[0]) if written else None
