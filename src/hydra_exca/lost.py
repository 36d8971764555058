"""How the end of a job that left no outcome is written down."""

from __future__ import annotations

import time
import typing as tp
from pathlib import Path

from . import clusters, paths
from .status import Status
from .store import Claim, Entry, Outcome


def note(
    entry: Entry,
    claim: Claim,
    identity: dict[str, tp.Any],
    report: clusters.Report,
    cache: Path,
    logs: Path,
    code: str | None = None,
) -> bool:
    """Commits a failed outcome with the cluster's reason under ``claim``; False if that owns the entry no more.

    ``cache`` is the cache folder, ``logs`` where the job printed to before its task had a log, ``code`` the digest of
    the snapshot that it ran from.
    """
    job = report.job or claim.job
    outcome = Outcome(
        status=Status.FAILED,
        claim=claim.number,
        identity=identity,
        error={"kind": "lost", "type": "JobLostError", "message": report.reason, "traceback": ""},
        ended=time.time(),
        host=claim.owner.get("host"),
        cluster=claim.cluster,
        job=job,
        token=claim.token,
        log=_log(entry, claim, job, cache, logs),
        code=code,
    )
    return entry.commit(claim, outcome)


def _log(entry: Entry, claim: Claim, job: str | None, cache: Path, logs: Path) -> str | None:
    """Where its last words are: in the attempt's own log, or in its job's."""
    job_log = paths.job_log(paths.launch_folder(cache, claim.token), claim.number_of_job)
    candidates = [*reversed(entry.log_paths(claim.number)), job_log]
    candidates += sorted(logs.glob(f"{job}_0_log.*")) if job is not None else []
    written = [path for path in candidates if path.exists() and path.stat().st_size]
    return entry.relative_log(written[0]) if written else None
