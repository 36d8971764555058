"""The job's side: takes the claim, computes, writes the outcome. Also ``python -m hydra_exca.worker``.

It depends on no other process being alive: what it computed is stored before it exits.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import time
import traceback
import types
import typing as tp
from pathlib import Path

from . import payload as payloads
from .clusters import process
from .errors import ConfigError
from .status import Status
from .store import Claim, ClaimState, Entry, Outcome

log = logging.getLogger("exca.worker")
_PLUMBING = {"hydra_exca", "hydra", "hydra_plugins", "submitit", "runpy"}


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One start of a task, as the program sees it: the entry it fills, the job it runs in, which attempt it is."""

    entry: Entry
    claim: Claim

    @property
    def job_id(self) -> str:
        return self.claim.job or str(os.getpid())


Program = tp.Callable[[tp.Any, Attempt], tp.Any]
Compute = tp.Callable[[Attempt], tp.Any]


def run(launch: str, position: int, requeued: tp.Callable[[], bool] = lambda: False) -> None:
    """Computes the task at ``position`` of the launch in folder ``launch``.

    ``requeued()`` tells of an exit under way whether the job starts again after it; any other exit of the
    task's code is an error of the task.
    """
    folder = Path(launch)
    payload, job = payloads.read(folder, position)

    def compute(attempt: Attempt) -> tp.Any:
        payload.enter()
        program = payloads.loads(payload.program)
        return program(payloads.loads(job.argument), attempt)

    if payload.cluster == "slurm" and int(os.environ.get("SLURM_PROCID", 0)) > 0:
        # another rank of a parallel task: the first one's value counts
        compute(Attempt(Entry(Path(job.entry)), Claim(0, ClaimState.RUNNING, folder.name, "", None, position, {})))
        return
    redirect = _to_log_of_attempt(payload.stderr_to_stdout)
    attempt_task(Entry(Path(job.entry)), job.identity, folder.name, compute, requeued=requeued, redirect=redirect)


def attempt_task(
    entry: Entry,
    identity: dict[str, tp.Any],
    token: str,
    compute: Compute,
    *,
    requeued: tp.Callable[[], bool] = lambda: False,
    redirect: tp.Callable[[Attempt], None] = lambda attempt: None,
) -> None:
    """Takes the claim that the launch ``token`` holds on ``entry``, computes, and commits value or error.

    Does nothing when the claim is no longer that launch's, or when the outcome is there.
    """
    owner = entry.claim()
    if owner is None or owner.token != token or owner.state is ClaimState.RELEASED or entry.outcome() is not None:
        log.warning("%s is not computed here: another launch has it, or it is done", entry.uid)
        return
    claim = owner.next(ClaimState.RUNNING, owner=process.describe(), job=_job_id(owner.cluster))
    if not entry.take(claim):
        log.warning("%s is not computed here: another job was quicker", entry.uid)
        return
    attempt = Attempt(entry, claim)
    redirect(attempt)
    _finish(attempt, identity, compute, requeued)


def _finish(attempt: Attempt, identity: dict[str, tp.Any], compute: Compute, requeued: tp.Callable[[], bool]) -> None:
    entry, claim, started = attempt.entry, attempt.claim, time.time()
    value = error = None
    try:
        value = entry.store_value(claim, compute(attempt))
    except KeyboardInterrupt:
        raise
    except BaseException as raised:
        if isinstance(raised, SystemExit) and requeued():
            raise
        error = describe_error(raised)
    status = Status.FAILED if error else Status.COMPLETED
    outcome = Outcome(
        status=status,
        claim=claim.number,
        identity=identity,
        value=value,
        error=error,
        started=started,
        ended=time.time(),
        host=claim.owner["host"],
        cluster=claim.cluster,
        job=attempt.job_id,
        token=claim.token,
        log=entry.relative_log(entry.log_paths(claim.number)[0]),
    )
    if not entry.commit(claim, outcome):
        log.warning("%s: another job has taken over; what this one computed is not accepted", entry.uid)


def describe_error(error: BaseException) -> dict[str, tp.Any]:
    """Type, message and traceback of what a task raised, as text, without the frames above the task's own code."""
    kind = type(error)
    if kind.__module__.startswith("submitit."):  # it raises in the task when the time is up
        return {"kind": "lost", "type": "JobLostError", "message": f"TIMEOUT: {error}", "traceback": ""}
    if isinstance(error, ConfigError):
        return {"kind": "raised", "type": kind.__name__, "message": str(error), "traceback": ""}
    frames = error.__traceback__
    while frames is not None and _is_plumbing(frames):
        frames = frames.tb_next
    try:
        message = str(error)
    except Exception as second:  # noqa: BLE001  the task's own class makes it
        message = f"its text cannot be made: {type(second).__name__}"
    text = "".join(traceback.format_exception(type(error), error, frames or error.__traceback__))
    module = "" if kind.__module__ in ("builtins", "__main__", "__mp_main__") else f"{kind.__module__}."
    return {
        "kind": "raised",
        "type": f"{module}{kind.__qualname__}",
        "message": message,
        "traceback": text.replace("__mp_main__.", ""),
    }


def _is_plumbing(frame: types.TracebackType) -> bool:
    return str(frame.tb_frame.f_globals.get("__name__", "")).partition(".")[0] in _PLUMBING


def _to_log_of_attempt(stderr_to_stdout: bool) -> tp.Callable[[Attempt], None]:
    """Sends this process's output, and that of what it starts, to the log of the attempt."""

    def redirect(attempt: Attempt) -> None:
        out, err = attempt.entry.log_paths(attempt.claim.number)
        out.parent.mkdir(exist_ok=True)
        for stream, path in ((sys.stdout, out), (sys.stderr, out if stderr_to_stdout else err)):
            stream.flush()
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(descriptor, stream.fileno())
            os.close(descriptor)

    return redirect


def _job_id(cluster: str) -> str:
    """The id of the Slurm job around this process, as arrays spell it, else its pid."""
    environment = os.environ
    if cluster != "slurm":
        return str(os.getpid())
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]


if __name__ == "__main__":
    from hydra_exca.worker import run as run_position  # not this module's own copy, which is __main__

    run_position(sys.argv[1], int(sys.argv[2]))
