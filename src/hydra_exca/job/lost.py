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
    job = report.job or claim.job
    outcome = Outcome(
        status=Status.FAILED,
        claim=claim.number,
        identity=identity,
        error={"kind": "lost", "type": "JobLostError", "message": report.reason, "traceback": ""},
        started=claim.time if claim.state is ClaimState.RUNNING else None,
        ended=time.time(),
        host=claim.owner.get("host"),
        cluster=claim.cluster,
        job=job,
        token=claim.token,
        log=_find_log(entry, claim, job, cache, logs),
        code=code,
    )
    return _store_outcome(entry, claim, outcome)


def _store_outcome(entry: Entry, claim: Claim, outcome: Outcome) -> bool:
    """Publishes the next claim first, as `Entry.commit_outcome` does.

    So a job that is alive after all, and about to store what it has computed, is not disturbed.
    """
    if not entry.has_previous():
        return entry.commit_outcome(claim, outcome)
    owner, committing = entry.current_claim(), claim.next(ClaimState.COMMITTING)
    if owner is None or owner.number != claim.number or not entry.publish_claim(committing):
        return False
    path = entry.path / paths.LOGS / paths.lost_attempt(claim.token)
    path.parent.mkdir(exist_ok=True)
    files.write_file(path, dataclasses.replace(outcome, claim=committing.number).to_json())
    entry.release_claim(committing)
    return True


def read_lost_outcome(entry: Entry, token: str, since: int) -> Outcome | None:
    """The lost outcome of a launch's job since claim ``since``, if the earlier value was put back; else None."""
    try:
        outcome = Outcome.from_json(files.read_file(entry.path / paths.LOGS / paths.lost_attempt(token)))
    except (OSError, CorruptEntryError, *records.DAMAGES):
        return None
    return outcome if outcome.claim >= since else None


def _find_log(entry: Entry, claim: Claim, job: str | None, cache: Path, logs: Path) -> str | None:
    """The log with the last output: that of the attempt, or else that of the job."""
    job_log = paths.job_log(paths.launch_folder(cache, claim.token), claim.number_of_job)
    candidates = [*reversed(entry.log_paths(claim.number)), job_log]
    candidates += sorted(logs.glob(f"{job}_0_log.*")) if job is not None else []
    written = [path for path in candidates if path.exists() and path.stat().st_size]
    return entry.relative_log(written[0]) if written else None
