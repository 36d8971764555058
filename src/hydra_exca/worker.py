"""The job's side: computes the tasks of one job. Also ``python -m hydra_exca.worker <launch folder> <job number>``."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
import typing as tp
from pathlib import Path

from . import payload as payloads
from .attempt import (
    Attempt,
    Compute,
    Loaded,
    Program,
    RankError,
    attempt_task,
    describe_error,
    is_wanted,
    job_id,
    log_paths,
    make_outcome,
    to_log,
)
from .clusters import process
from .clusters.base import AGAIN
from .clusters.ranks import Ranks
from .ending import Alone, Beside, Job
from .recording import Recorder
from .status import Status
from .store import Entry, Outcome

__all__ = ["AGAIN", "Attempt", "Compute", "Program", "attempt_task", "describe_error", "run"]

log = logging.getLogger("exca.worker")
_PATIENCE_S = 10.0  # how long the first rank may still take to end when another has raised
_PAUSE_S = 0.2


def run(launch: str, number: int) -> None:
    """Computes the tasks of job ``number`` of the launch in folder ``launch``."""
    folder = Path(launch)
    payload = payloads.read(folder)
    job = Job(folder, number, payload)
    positions = payload.jobs[number]
    if len(positions) > 1:
        from . import pack  # a job of one task starts without it

        pack.run(job, positions)
        return
    ranks = Ranks.of_this_process(folder, positions[0]) if job.on_slurm else None
    if ranks is not None and ranks.rank > 0:
        _run_beside(ranks, job)
    else:
        _run_alone(job, positions[0], None if ranks is None or ranks.count == 1 else ranks)


def _run_alone(job: Job, position: int, several: Ranks | None) -> None:
    handlers = Alone(job, position, lambda: None if several is None else several.decide())
    handlers.install()
    part = payloads.read_part(job.launch, job.payload, position)
    compute = Loaded(job.launch, job.payload, handlers.install).computing(part, position)
    status = attempt_task(
        Entry(Path(part.entry)),
        part.identity,
        job.launch.name,
        compute if several is None else _among(several, compute),
        redirect=lambda attempt: to_log(attempt, job.payload),
        copy=job.payload.copy,
        recorder=Recorder(job.launch, job.payload.provenance, part.overrides),
        guard=handlers,
    )
    if several is not None and status is not Status.COMPLETED:
        raise SystemExit(1)  # which ends the other ranks: they may wait for this one


# jobs of several ranks: all run the program, the value of the first one counts


def _among(ranks: Ranks, compute: Compute) -> Compute:
    """What the first rank does: its value counts once it is there; until then what another rank raised does."""

    def first(attempt: Attempt) -> tp.Any:
        try:
            value = compute(attempt)
        except Exception as raised:
            told = ranks.told()
            if told is None:
                raise
            also = f"\nThen the first rank raised:\n{describe_error(raised)['traceback']}"
            raise RankError({**told, "traceback": told["traceback"] + also}) from raised
        told = ranks.told()
        if not ranks.decide() and told is not None:
            raise RankError(told)
        if told is not None:
            log.warning("%s; the first rank's value counts\n%s", told["message"], told["traceback"])
        return value

    return first


def _run_beside(ranks: Ranks, job: Job) -> None:
    """What another rank than the first one does."""
    handlers = Beside(job)
    handlers.install()
    part = payloads.read_part(job.launch, job.payload, ranks.position)
    entry, started = Entry(Path(part.entry)), time.time()
    owner = entry.claim()
    if owner is None or not is_wanted(owner, job.launch.name) or (ranks.requeued and entry.outcome() is not None):
        log.warning("%s is not computed here: another launch has it, or it is done", entry.uid)
        return
    claim = dataclasses.replace(owner, job=job_id(owner.cluster), owner=process.describe())
    attempt = Attempt(entry, claim, code=None if job.payload.copy is None else job.payload.copy.digest)
    to_log(attempt, job.payload, ranks.rank)
    try:
        Loaded(job.launch, job.payload, handlers.install).computing(part, ranks.position)(attempt)
    except BaseException as raised:
        if isinstance(raised, KeyboardInterrupt) or (isinstance(raised, SystemExit) and not raised.code):
            raise
        error = describe_error(raised)
        error["message"] = f"{error['message']} (in rank {ranks.rank} of {ranks.count})"
        ranks.tell(error)
        log_path = log_paths(attempt, ranks.rank)[0]
        if _fail_for_all(ranks, attempt, make_outcome(attempt, part.identity, started, error=error, log_path=log_path)):
            raise
        log.exception("this rank raised; the first rank has ended")


def _fail_for_all(ranks: Ranks, attempt: Attempt, outcome: Outcome) -> bool:
    """Gives the first rank a moment to end by itself; then the task has failed, and this returns True.

    Once the first rank has a value, it takes the time it needs to store it.
    """
    entry, patience, decided = attempt.entry, time.monotonic() + _PATIENCE_S, False
    while entry.outcome() is None:
        decided = decided or (time.monotonic() > patience and ranks.decide())
        claim = entry.claim()
        if decided and claim is not None and claim.token == attempt.claim.token and entry.commit(claim, outcome):
            return True
        time.sleep(_PAUSE_S)
    return False


if __name__ == "__main__":
    from hydra_exca.worker import run as run_job  # not this module's own copy, which is __main__

    run_job(sys.argv[1], int(sys.argv[2]))
