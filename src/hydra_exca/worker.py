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

from . import paths
from . import payload as payloads
from .clusters import output, process
from .clusters.ranks import Ranks
from .errors import ConfigError
from .status import Status
from .store import Claim, ClaimState, Entry, Outcome
from .workdir import Snapshot

log = logging.getLogger("exca.worker")
_PLUMBING = {"hydra_exca", "hydra", "hydra_plugins", "submitit", "runpy"}
_PATIENCE_S = 10.0  # how long the first rank may still take to end when another has raised
_PAUSE_S = 0.2


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
    entry = Entry(Path(job.entry))

    def compute(attempt: Attempt) -> tp.Any:
        payload.enter()
        program = payloads.loads(payload.program)
        try:
            return program(payloads.loads(job.argument), attempt)
        except Exception as error:  # whoever reads only the log is told too
            print(describe_error(error)["traceback"], file=sys.stderr, flush=True)
            raise

    ranks = Ranks.of_this_process(folder, position) if payload.cluster == "slurm" else None
    if ranks is not None and ranks.rank > 0:
        _run_beside(ranks, entry, payload, job.identity, compute)
        return
    several = None if ranks is None or ranks.count == 1 else ranks
    status = attempt_task(
        entry,
        job.identity,
        folder.name,
        compute if several is None else _among(several, compute),
        requeued=requeued,
        redirect=lambda attempt: _to_log(attempt, payload),
        copy=payload.copy,
    )
    if several is not None and status is not Status.COMPLETED:
        raise SystemExit(1)  # which ends the other ranks: they may wait for this one


def attempt_task(
    entry: Entry,
    identity: dict[str, tp.Any],
    token: str,
    compute: Compute,
    *,
    requeued: tp.Callable[[], bool] = lambda: False,
    redirect: tp.Callable[[Attempt], None] = lambda attempt: None,
    copy: Snapshot | None = None,
) -> Status | None:
    """Takes the claim that the launch ``token`` holds on ``entry``, computes, and commits value or error.

    Does nothing when the claim is no longer that launch's, or when the outcome is there. Returns how it ended.
    """
    owner = entry.claim()
    if owner is None or owner.token != token or owner.state is ClaimState.RELEASED or entry.outcome() is not None:
        log.warning("%s is not computed here: another launch has it, or it is done", entry.uid)
        return None
    claim = owner.next(ClaimState.RUNNING, owner=process.describe(), job=_job_id(owner.cluster))
    if not entry.take(claim):
        log.warning("%s is not computed here: another job was quicker", entry.uid)
        return None
    shown = entry.path / paths.CODE
    if copy is not None:
        copy.link(entry.path)
    elif shown.is_symlink():  # of an earlier attempt
        shown.unlink()
    attempt = Attempt(entry, claim)
    redirect(attempt)
    return _finish(attempt, identity, compute, requeued)


def _finish(
    attempt: Attempt, identity: dict[str, tp.Any], compute: Compute, requeued: tp.Callable[[], bool]
) -> Status | None:
    entry, claim, started = attempt.entry, attempt.claim, time.time()
    value = error = None
    try:
        value = entry.store_value(claim, compute(attempt))
    except KeyboardInterrupt:
        raise
    except BaseException as raised:
        if isinstance(raised, SystemExit) and requeued():
            raise
        error = raised.told if isinstance(raised, _RankError) else describe_error(raised)
    outcome = _outcome(attempt, identity, started, value, error, _log_paths(attempt)[0])
    if not entry.commit(claim, outcome):
        log.warning("%s: another job has taken over; what this one computed is not accepted", entry.uid)
        return None
    return outcome.status


def _outcome(
    attempt: Attempt,
    identity: dict[str, tp.Any],
    started: float,
    value: dict[str, tp.Any] | None,
    error: dict[str, tp.Any] | None,
    log_path: Path,
) -> Outcome:
    claim = attempt.claim
    return Outcome(
        status=Status.FAILED if error else Status.COMPLETED,
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
        log=attempt.entry.relative_log(log_path),
    )


# jobs of several ranks: all run the program, the value of the first one counts


class _RankError(Exception):
    """What another rank has raised, as it is stored."""

    def __init__(self, told: dict[str, tp.Any]) -> None:
        super().__init__(told["message"])
        self.told = told


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
            raise _RankError({**told, "traceback": told["traceback"] + also}) from raised
        told = ranks.told()
        if not ranks.decide() and told is not None:
            raise _RankError(told)
        if told is not None:
            log.warning("%s; the first rank's value counts\n%s", told["message"], told["traceback"])
        return value

    return first


def _run_beside(
    ranks: Ranks, entry: Entry, payload: payloads.Payload, identity: dict[str, tp.Any], compute: Compute
) -> None:
    """What another rank than the first one does."""
    owner, started = entry.claim(), time.time()
    lost = owner is None or owner.token != ranks.folder.name or owner.state is ClaimState.RELEASED
    if owner is None or lost or (ranks.requeued and entry.outcome() is not None):
        log.warning("%s is not computed here: another launch has it, or it is done", entry.uid)
        return
    attempt = Attempt(entry, dataclasses.replace(owner, job=_job_id(owner.cluster), owner=process.describe()))
    _to_log(attempt, payload, ranks.rank)
    try:
        compute(attempt)
    except BaseException as raised:
        if isinstance(raised, KeyboardInterrupt) or (isinstance(raised, SystemExit) and not raised.code):
            raise
        error = describe_error(raised)
        error["message"] = f"{error['message']} (in rank {ranks.rank} of {ranks.count})"
        ranks.tell(error)
        log_path = _log_paths(attempt, ranks.rank)[0]
        if _fail_for_all(ranks, attempt, _outcome(attempt, identity, started, None, error, log_path)):
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


# what is told


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


def _to_log(attempt: Attempt, payload: payloads.Payload, rank: int = 0) -> None:
    """Sends this process's output, and that of what it starts, to the log of the attempt.

    Another rank than the first has a log of its own only where a place for logs was asked for.
    """
    logs = _log_paths(attempt, rank)
    if rank and payload.logs is None:
        return
    logs[0].parent.mkdir(exist_ok=True)
    if payload.logs is not None:
        place = payload.logs.replace("%j", attempt.job_id).replace("{folder}", str(attempt.entry.path))
        stem = logs[0].stem if "{folder}" in payload.logs else f"{attempt.entry.uid}.{logs[0].stem}"
        output.put(logs, Path(place), stem)
    output.redirect(logs, payload.stderr_to_stdout)


def _log_paths(attempt: Attempt, rank: int = 0) -> tuple[Path, Path]:
    if rank == 0:
        return attempt.entry.log_paths(attempt.claim.number)
    out, err = paths.rank_log_names(attempt.job_id, rank)
    return attempt.entry.path / paths.LOGS / out, attempt.entry.path / paths.LOGS / err


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
