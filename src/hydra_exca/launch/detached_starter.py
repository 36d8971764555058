"""A process that starts the remaining local jobs of a launch that has detached.

The command is ``python -m hydra_exca.launch.detached_starter <launch folder>``. It reads the jobs from its standard
input, takes over their claims, and then prints that it is ready: the launch may end.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

from hydra_exca import clusters, paths
from hydra_exca.errors import SubmissionError
from hydra_exca.job import lost, payload
from hydra_exca.job.attempt import is_wanted
from hydra_exca.store import ClaimState, Entry, describe_owner

from .lookup import JobEffect, effect_of_end, has_begun

_READY = "ready"
_PAUSE_S = 0.05


def start_detached(folder: Path, options: clusters.Options, jobs: tp.Sequence[clusters.JobSpec]) -> None:
    """Passes jobs of the launch in ``folder`` to a new process, which starts them as the launch would have done.

    Returns when that process owns their claims. Raises SubmissionError if it ends before.
    """
    if not jobs:
        return
    with open(paths.keeper_log(folder), "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    assert process.stdin is not None and process.stdout is not None
    with process.stdin as sends, process.stdout as says:
        sends.write(pickle.dumps((options, list(jobs))))
        sends.close()
        if says.readline().strip() != _READY.encode():
            process.wait()
            raise SubmissionError(
                f"the process that was to start the remaining jobs has ended; see {paths.keeper_log(folder)}"
            )
    clusters.keep_until_ended(process)


def start_jobs(
    folder: Path, options: clusters.Options, jobs: tp.Sequence[clusters.JobSpec], say_ready: tp.Callable[[], None]
) -> None:
    """Starts the jobs when there are cores and GPUs for them, and stores the loss of jobs that leave no outcome.

    Returns when all have ended.
    """
    header = payload.read_payload(folder)
    entries = {job.number: _claim_job(folder, header, job.number) for job in jobs}
    say_ready()
    cluster = clusters.get_cluster("local", options)
    jobs_here = [job for job in jobs if entries[job.number]]
    submission = cluster.prepare(clusters.Batch(folder, jobs_here, "hydra_exca.job.worker", lambda number: None))
    submission.start()
    left = {job.number for job in jobs_here}
    while left:
        for number, report in submission.poll().items():
            if report.state is clusters.JobState.ENDED:
                left.discard(number)
                _record_end(folder, header, entries[number], report)
        time.sleep(_PAUSE_S)


def _claim_job(folder: Path, header: payload.Payload, number: int) -> list[tuple[int, Entry]]:
    """Takes over the claims of a job; returns the positions and entries of the tasks for which that was possible."""
    parts = payload.PartReader(folder, header)
    entries = [(position, Entry(parts.read(position).entry)) for position in header.jobs[number]]
    return [(position, entry) for position, entry in entries if _claim_entry(entry, folder.name)]


def _claim_entry(entry: Entry, token: str) -> bool:
    claim = entry.current_claim()
    if claim is None or claim.token != token or claim.state is not ClaimState.QUEUED:
        return False
    return entry.publish_claim(claim.next(ClaimState.QUEUED, owner=describe_owner(entry.path)))


def _record_end(
    folder: Path, header: payload.Payload, tasks: list[tuple[int, Entry]], report: clusters.JobReport
) -> None:
    """Stores the end of a job as the failure of the tasks that failed with it, and gives the others up."""
    is_begun = any(has_begun(entry, folder.name) for _, entry in tasks)
    for position, entry in tasks:
        claim = entry.current_claim()
        if claim is None or not is_wanted(claim, folder.name) or entry.outcome() is not None:
            continue
        resumed = paths.resumed_call(folder, position)
        effect = effect_of_end(claim, report, is_begun, lambda: entry.has_saved_output() or resumed.exists())  # noqa: B023
        if effect is JobEffect.NOT_REACHED:
            entry.release_claim(claim)
            continue
        identity = payload.read_part(folder, header, position).identity
        loss = lost.describe_lost_job(entry, claim, identity, report, header.code)
        end_task = lost.record_lost_job if effect is JobEffect.FAILURE else lost.give_up_lost_job
        end_task(entry, claim, loss)


def _say_ready() -> None:
    print(_READY, flush=True)
    sys.stdout.close()


if __name__ == "__main__":
    options, jobs = pickle.load(sys.stdin.buffer)
    start_jobs(Path(sys.argv[1]), options, jobs, _say_ready)
