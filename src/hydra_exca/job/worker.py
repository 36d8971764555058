"""Computes the tasks of one job.

The command is ``python -m hydra_exca.job.worker <launch folder> <job number>``.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from hydra_exca.clusters.base import AGAIN
from hydra_exca.provenance.task_record import Recorder
from hydra_exca.status import Status
from hydra_exca.store import Entry

from . import payload as payloads
from .attempt import Attempt, Compute, LoadedProgram, Program, attempt_task, redirect_to_log
from .error_report import describe_error
from .ranks import Ranks, as_first_rank, run_secondary_rank
from .signals import RunningJob, SingleTaskSignals

__all__ = ["AGAIN", "Attempt", "Compute", "Program", "attempt_task", "describe_error", "run"]

log = logging.getLogger("exca.worker")


def run(launch: str, number: int) -> None:
    """Computes the tasks of job ``number`` of the launch in folder ``launch``."""
    folder = Path(launch)
    payload = payloads.read_payload(folder)
    job = RunningJob(folder, number, payload)
    positions = payload.jobs[number]
    if len(positions) > 1:
        from . import task_pool  # a job of one task starts without it

        task_pool.run_task_pool(job, positions)
        return
    ranks = Ranks.of_this_process(folder, positions[0]) if job.on_slurm else None
    if ranks is not None and ranks.rank > 0:
        run_secondary_rank(ranks, job)
    else:
        _run_alone(job, positions[0], None if ranks is None or ranks.count == 1 else ranks)


def _run_alone(job: RunningJob, position: int, several: Ranks | None) -> None:
    handlers = SingleTaskSignals(job, position, lambda: None if several is None else several.decide())
    handlers.install()
    part = payloads.read_part(job.launch, job.payload, position)
    compute = LoadedProgram(job.launch, job.payload, handlers.install).computing(part, position)
    status = attempt_task(
        Entry(Path(part.entry)),
        part.identity,
        job.launch.name,
        compute if several is None else as_first_rank(several, compute),
        redirect=lambda attempt: redirect_to_log(attempt, job.payload),
        copy=job.payload.copy,
        recorder=Recorder(job.launch, job.payload.provenance, part.overrides),
        guard=handlers,
    )
    if several is not None and status is not Status.COMPLETED:
        raise SystemExit(1)  # which ends the other ranks: they may wait for this one


# jobs of several ranks: all run the program, the value of the first one counts


if __name__ == "__main__":
    # not this module's own copy, which is __main__

    run(sys.argv[1], int(sys.argv[2]))
