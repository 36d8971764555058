"""Computes the tasks of one job.

The command is ``python -m hydra_exca.job.worker <launch folder> <job number>``.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from hydra_exca import paths
from hydra_exca.clusters.base import DISK_ERROR, TASK_FAILED
from hydra_exca.clusters.slots import hold_slots
from hydra_exca.clusters.slurm import job_log, own_job
from hydra_exca.code.observer import observe
from hydra_exca.errors import CacheError
from hydra_exca.status import Status
from hydra_exca.store import Entry

from .attempt import LoadedProgram, attempt_part
from .logs import remove_empty_log
from .payload import read_part, read_payload
from .ranks import Ranks, as_first_rank, run_secondary_rank
from .signals import RunningJob, SignalHandlers


def run(launch: str, number: int) -> None:
    """Computes the tasks of job ``number`` of the launch in folder ``launch``.

    The exit code says whether a task failed, for those who ask the scheduler. A job whose disk takes nothing more from
    it says so by its exit code, too, as it can leave nothing on the disk.
    """
    process = os.getpid()
    try:
        _run_tasks(launch, number)
    except CacheError as error:
        if not isinstance(error.__cause__ or error, OSError):
            raise
        traceback.print_exception(error)
        raise SystemExit(DISK_ERROR) from error
    except SystemExit:
        _remove_log(launch, number, process)
        raise
    _remove_log(launch, number, process)


def _remove_log(launch: str, number: int, process: int) -> None:
    """Removes the log of a local job that is empty; on Slurm, the script of the job does so.

    A forked process leaves it alone: it may still print when it exits.
    """
    if os.getpid() == process:
        remove_empty_log(paths.job_log(Path(launch), number))


def _run_tasks(launch: str, number: int) -> None:
    hold_slots()
    observe()
    folder = Path(launch)
    payload = read_payload(folder)
    if payload.cluster == "local":
        _set_submitit_variables(folder)
    job = RunningJob(folder, number, payload)
    if job.on_slurm and os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
        print(job_log.BEGUN, file=sys.stderr, flush=True)
    positions = payload.jobs[number]
    if len(positions) > 1:
        from . import task_pool  # a job of one task starts faster without it

        pool = task_pool.TaskPool(job, positions)
        pool.run()
        if payload.fail_jobs and pool.has_failed_task():
            raise SystemExit(TASK_FAILED)
        return
    ranks = Ranks.of_this_process(folder, positions[0]) if job.on_slurm else None
    if ranks is not None and ranks.rank > 0:
        run_secondary_rank(ranks, job)
    else:
        _run_task(job, positions[0], None if ranks is None or ranks.count == 1 else ranks)


def _run_task(job: RunningJob, position: int, ranks: Ranks | None) -> None:
    handlers = SignalHandlers(job, position, before_exit=lambda: None if ranks is None else ranks.acquire_decision())
    handlers.install()
    part = read_part(job.launch, job.payload, position)
    if job.on_slurm:
        own_job.name_element(Entry(part.entry).uid.rpartition("-")[0])
    compute = LoadedProgram(job.launch, job.payload, handlers.install).compute_function(part, position)
    compute = compute if ranks is None else as_first_rank(ranks, compute)
    others = () if ranks is None else ranks.used_by_others()
    status = attempt_part(job.launch, job.payload, part, compute, handlers, ranks=others)
    is_failed = status is Status.FAILED and job.payload.fail_jobs
    if is_failed or (ranks is not None and _must_end_others(ranks, status)):
        raise SystemExit(TASK_FAILED)


def _must_end_others(ranks: Ranks, status: Status | None) -> bool:
    """Whether other ranks may wait for the first one, which has no value: srun ends them if its exit code says so.

    If it finds an outcome in a job that was requeued, so do the others, and the job must not be requeued again.
    """
    return status is Status.FAILED or (status is None and not ranks.is_requeued)


def _set_submitit_variables(folder: Path) -> None:
    """Lets ``submitit.JobEnvironment()`` work in a local job: on Slurm it reads Slurm's own variables."""
    ids = {"JOB_ID": os.getpid(), "NTASKS": 1, "JOB_NUM_NODES": 1, "NODEID": 0, "GLOBALID": 0, "LOCALID": 0}
    os.environ.update({f"SUBMITIT_LOCAL_{name}": str(value) for name, value in ids.items()})
    os.environ.update(SUBMITIT_EXECUTOR="local", SUBMITIT_FOLDER=str(folder))


if __name__ == "__main__":
    from hydra_exca.job.worker import run as run_job  # pickles must name the module, not __main__

    run_job(sys.argv[1], int(sys.argv[2]))
