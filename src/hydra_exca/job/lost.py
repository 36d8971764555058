"""Records how a job ended that left no outcome."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import typing as tp

from hydra_exca import clusters, files, paths, records
from hydra_exca.errors import CorruptEntryError
from hydra_exca.status import Status
from hydra_exca.store import Claim, ClaimState, Entry, Outcome

from .logs import append_to_log


def record_lost_job(entry: Entry, claim: Claim, loss: Outcome) -> bool:
    """Makes ``loss``, of `describe_lost_job`, the outcome, or gives back the value that it was to replace.

    Returns False if ``claim`` owns the entry no more: nothing was written.
    """
    return give_up_lost_job(entry, claim, loss) if entry.has_previous() else entry.commit_outcome(claim, loss)


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


def has_begun(claim: Claim, report: clusters.JobReport) -> bool:
    """Whether the job of a claim, in its last start, began to compute the task before it ended."""
    return claim.state is ClaimState.RUNNING and not report.never_began


def append_slurm_output(entry: Entry, claim: Claim, report: clusters.JobReport) -> None:
    """Writes what Slurm says of a job to the end of the log of the attempt, if that can be written and has it not."""
    logs = entry.log_paths(claim) if has_begun(claim, report) else None
    output = report.slurm_output.strip()
    if logs is None or not output:
        return
    with contextlib.suppress(OSError, CorruptEntryError):
        if output not in files.read_end(logs[1]):
            append_to_log(logs[1], f"{output}\n")


def describe_lost_job(
    entry: Entry, claim: Claim, identity: dict[str, tp.Any], report: clusters.JobReport, code: str | None = None
) -> Outcome:
    """The end of a lost job as an outcome; nothing is written. ``code`` is the digest of the snapshot it ran from."""
    reason, is_begun = report.explanation, has_begun(claim, report)
    if not is_begun and report.end in (clusters.JobEnd.EXITED, clusters.JobEnd.KILLED):
        reason += ", before the task began"
    logs = (*reversed((entry.log_paths(claim) if is_begun else None) or ()), report.log)
    log_path = next((path for path in logs if path is not None and path.exists() and path.stat().st_size), None)
    return Outcome(
        status=Status.FAILED,
        claim=claim.number,
        identity=identity,
        error={"kind": "lost", "type": "JobLostError", "message": reason, "traceback": ""},
        started=claim.time if is_begun else None,
        ended=time.time(),
        host=claim.owner.get("host"),
        cluster=claim.cluster,
        job=report.job or claim.job,
        token=claim.token,
        log=None if log_path is None else entry.relative_log(log_path),
        code=code,
        attempt=claim.attempt,
    )


def read_lost_outcome(entry: Entry, token: str, since: int) -> Outcome | None:
    """What became of a launch's job that was given up since claim ``since``; None if that is not known."""
    try:
        outcome = Outcome.from_json(files.read_file(entry.path / paths.LOGS / paths.lost_attempt(token)))
    except (OSError, CorruptEntryError, *records.DAMAGES):
        return None
    return outcome if outcome.claim >= since else None
