"""One start of a task: takes the claim, computes, and writes the outcome.

No other process has to be alive: the result is stored before the attempt returns.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import logging
import os
import pickle
import time
import traceback
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.clusters import describe_process, process_alive
from hydra_exca.clusters.slurm import own_job
from hydra_exca.code.snapshot import Snapshot
from hydra_exca.code.uses import UseRecorder
from hydra_exca.errors import CacheError, ExcaError
from hydra_exca.provenance import launch_record
from hydra_exca.provenance.task_record import Recorder
from hydra_exca.status import Status
from hydra_exca.store import Claim, ClaimState, Entry, Outcome, describe_owner, values

from . import lost
from .checkpoints import Checkpoint, CheckpointCall, read_resumed_call
from .enclosing import EnclosingTask, computing, identity_key
from .error_report import RankError, describe_error
from .logs import (
    Logs,
    flush_output,
    link_latest,
    link_logs,
    redirect_output,
    remove_empty_logs,
    write_missing_traceback,
)
from .payload import Part, Payload

log = logging.getLogger("exca.worker")


@dataclasses.dataclass(eq=False)
class Attempt:
    """One start of a task, as the program sees it: the entry that it fills, and the claim under which it runs.

    The program sets ``checkpoint``, which is called when the task has to end. It calls ``resumed`` instead of the
    user's function if the checkpoint of an earlier start has left that. ``code`` is the digest of the code, if it is
    known, and ``uses`` records what the task uses of it.
    """

    entry: Entry
    claim: Claim
    checkpoint: Checkpoint | None = None
    resumed: CheckpointCall | None = None
    is_computed: bool = False  # from here on the result is stored, whatever signal comes
    code: str | None = None
    uses: UseRecorder | None = None
    logs: Logs | None = None  # for standard output and standard error; None in the process of the launch

    @property
    def job_id(self) -> str:
        return self.claim.job or str(os.getpid())


Program = tp.Callable[[tp.Any, Attempt], tp.Any]
Compute = tp.Callable[[Attempt], tp.Any]


class AttemptGuard:
    """What may end a process while it computes: in this class, nothing.

    Once ``exit_request`` is set, the process is about to end: nothing that the user's code returns or raises counts.
    """

    exit_request: SystemExit | None = None

    def watch_attempt(self, attempt: Attempt) -> None:
        """Makes this attempt the one that would be ended."""


def attempt_task(
    entry: Entry,
    identity: dict[str, tp.Any],
    token: str,
    compute: Compute,
    *,
    redirect: tp.Callable[[Attempt], None] = lambda attempt: None,
    copy: Snapshot | None = None,
    code: str | None = None,
    uses: UseRecorder | None = None,
    recorder: Recorder | None = None,
    shared: bool = False,
    guard: AttemptGuard | None = None,
) -> Status | None:
    """Takes the claim that the launch ``token`` holds on ``entry``, computes, and commits a value or an error.

    Does nothing, and returns None, if the claim is no longer that launch's or the outcome is there. Otherwise returns
    the status. ``shared`` says that the job has computed other tasks before. ``code`` is the digest of the code, if
    that is known, and ``uses`` records what the task uses of it.

    Raises CacheError if the disk does not take what has to be written: that is not the task's outcome. Nor is an error
    that `_is_passing`, which is raised, too. The claim is released then.
    """
    claim = None
    try:
        claim = _take_claim(entry, token, shared)
        if claim is None:
            return None
        _link_code(entry, copy)
        # what an earlier start has left, say a checkpoint, may depend on files that only that has used
        attempt = Attempt(entry, claim, code=code, uses=None if entry.has_saved_output() else uses)
        redirect(attempt)
        return _compute_and_commit(attempt, identity, compute, guard or AttemptGuard(), recorder)
    except (ExcaError, OSError) as error:
        problem = error if isinstance(error, ExcaError) else files.disk_error(entry.path, error)
        if claim is not None:
            _give_up(entry, claim, identity, problem)
        if problem is error:
            raise
        raise problem from error


def _is_passing(raised: BaseException) -> bool:
    """Whether a task has no result of another one, say its features, as the disk failed or the job was lost."""
    is_disk_error = isinstance(raised, CacheError) and isinstance(raised.__cause__ or raised, OSError)
    return is_disk_error or (isinstance(raised, ExcaError) and raised.is_passing)


def _link_code(entry: Entry, copy: Snapshot | None) -> None:
    """Links the copy of the code from the entry, or removes the link of an earlier attempt."""
    link = entry.path / paths.CODE
    if copy is not None:
        copy.link(entry.path)
    elif link.is_symlink():
        link.unlink()


def _give_up(entry: Entry, claim: Claim, identity: dict[str, tp.Any], problem: ExcaError) -> None:
    """Releases the claim of an attempt, or the one under which it was to commit, with a note of the problem."""
    kind = "disk" if isinstance(problem, CacheError) else "nested"
    loss = Outcome(
        status=Status.FAILED,
        claim=claim.number,
        identity=identity,
        error={"kind": kind, "type": type(problem).__name__, "message": str(problem), "traceback": ""},
        ended=time.time(),
        cluster=claim.cluster,
        job=claim.job,
        token=claim.token,
        attempt=claim.attempt,
    )
    with contextlib.suppress(OSError, CacheError):
        owner = entry.current_claim()
        if owner is None or owner.token != claim.token or entry.outcome() is not None:
            return
        if owner.number == claim.number or (owner.number, owner.state) == (claim.number + 1, ClaimState.COMMITTING):
            files.keep_trying(lambda: lost.give_up_lost_job(entry, owner, loss), entry.path)


def attempt_part(
    launch: Path,
    payload: Payload,
    part: Part,
    compute: Compute,
    guard: AttemptGuard,
    *,
    shared: bool = False,
    ranks: tuple[Path, ...] = (),
) -> Status | None:
    """Computes a task of a job as `attempt_task` does, from its payload, with the output in the task's log.

    In files of the launch, ``ranks``, the other ranks of the job share what they use of the code.
    """
    copy = payload.copy
    uses = None if copy is None else UseRecorder(launch.parents[1], copy.sources, copy.folder, ranks)
    return attempt_task(
        Entry(part.entry),
        part.identity,
        launch.name,
        compute,
        redirect=lambda attempt: redirect_to_log(attempt, payload),
        copy=payload.copy,
        code=payload.all_code,
        uses=uses,
        recorder=Recorder(launch, payload.provenance, part.overrides, part.attempts),
        shared=shared,
        guard=guard,
    )


def is_wanted(owner: Claim | None, token: str) -> bool:
    """Whether the launch ``token`` still wants the task that ``owner`` claims."""
    return owner is not None and owner.token == token and owner.state is not ClaimState.RELEASED


def _take_claim(entry: Entry, token: str, shared: bool) -> Claim | None:
    owner = entry.current_claim()
    if owner is None or not is_wanted(owner, token) or entry.outcome() is not None:
        log.warning("%s is not computed here: another launch has it, or it is done", entry.uid)
        return None
    job = current_job_id(owner.cluster)
    if _runs_elsewhere(owner, job):
        log.warning("%s is not computed here: job %s of the same launch computes it", entry.uid, owner.job)
        return None
    process = describe_process() if owner.cluster == "slurm" else describe_owner(entry.path)  # Slurm knows its jobs
    claim = owner.next(ClaimState.RUNNING, owner=process, job=job, shared=shared, attempt=entry.num_attempts(owner) + 1)
    if not entry.publish_claim(claim):
        log.warning("%s is not computed here: another job was faster", entry.uid)
        return None
    return claim


def _runs_elsewhere(owner: Claim, job: str) -> bool:
    """Whether another job computes the task, as it was submitted twice by accident. A restarted job is the same one."""
    if owner.state is ClaimState.QUEUED:
        return False
    if owner.cluster == "slurm":
        return owner.job is not None and owner.job != job and not own_job.has_ended(owner.job)
    return owner.owner.get("pid") != os.getpid() and process_alive(owner.owner) is True


def _compute_and_commit(
    attempt: Attempt, identity: dict[str, tp.Any], compute: Compute, guard: AttemptGuard, recorder: Recorder | None
) -> Status | None:
    entry, claim, started = attempt.entry, attempt.claim, time.time()
    value = error = None
    if recorder is not None:
        recorder.record_start(entry, claim, started, attempt.code)
    guard.watch_attempt(attempt)
    try:
        encoded = values.encode_value(claim.number, _compute_value(attempt, compute, guard))
    except KeyboardInterrupt:
        raise
    except BaseException as raised:
        if (guard.exit_request is not None and raised is guard.exit_request) or _is_passing(raised):
            raise
        error = log_error(attempt, raised)
    else:
        value = entry.write_value(encoded)
    outcome = make_outcome(attempt, identity, started, value=value, error=error, used=_record_uses(attempt))
    if recorder is not None:
        recorder.record_end(entry, claim, outcome)
    if not entry.commit_outcome(claim, outcome):
        os.stat(entry.path.parent)  # if that is gone, say with its disk, nobody has taken over
        log.warning("%s: another job has taken over; what this one computed is not accepted", entry.uid)
        return None
    return outcome.status


def _record_uses(attempt: Attempt) -> str | None:
    """Records what the task has used of the code, if that is known: what an earlier start used is not."""
    with contextlib.suppress(
        OSError, ValueError, LookupError
    ):  # of a place that cannot be looked at; the value is not to be lost
        return None if attempt.uses is None or attempt.resumed is not None else attempt.uses.record()
    return None


def log_error(attempt: Attempt, raised: BaseException) -> dict[str, tp.Any]:
    """The description of an error, which the log of the attempt has in any case."""
    error = raised.description if isinstance(raised, RankError) else describe_error(raised)
    if attempt.logs is not None:
        write_missing_traceback(error["traceback"], attempt.logs[1])
    return error


def _compute_value(attempt: Attempt, compute: Compute, guard: AttemptGuard) -> tp.Any:
    """Computes the value. If the process has to end, neither a value nor an error of the user's code counts."""
    process = os.getpid()
    try:
        value = compute(attempt)
        _exit_if_forked(process, None)
    except BaseException as raised:
        _exit_if_forked(process, raised)
        if guard.exit_request is not None:
            raise guard.exit_request from None
        raise
    finally:
        attempt.is_computed = True
    if guard.exit_request is not None:
        raise guard.exit_request
    return value


def _exit_if_forked(process: int, raised: BaseException | None) -> None:
    """Ends a process that the task forked and that returns from it, too: it must not write the outcome."""
    if os.getpid() == process:
        return
    code = 0 if raised is None else 1
    if isinstance(raised, SystemExit):
        code = raised.code if isinstance(raised.code, int) else int(raised.code is not None)
    elif raised is not None:
        traceback.print_exception(raised)
    flush_output()
    os._exit(code & 0xFF)


def make_outcome(
    attempt: Attempt,
    identity: dict[str, tp.Any],
    started: float,
    *,
    value: dict[str, tp.Any] | None = None,
    error: dict[str, tp.Any] | None = None,
    used: str | None = None,
) -> Outcome:
    """The outcome of an attempt that ends now, with a value or with an error. Its log is the one with the traceback."""
    claim = attempt.claim
    log_path = None if attempt.logs is None else attempt.logs[0 if error is None else 1]
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
        log=None if log_path is None else attempt.entry.relative_log(log_path),
        code=attempt.code,
        used=used,
        attempt=claim.attempt,
    )


# logs


def redirect_to_log(attempt: Attempt, payload: Payload, rank: int = 0) -> None:
    """Redirects the output of this process, and of those that it starts, to the log of the attempt."""
    stem = paths.rank_log_stem(attempt.job_id, rank) if rank else str(attempt.claim.attempt)
    folder = attempt.entry.path / paths.LOGS
    out, err = paths.log_names(stem, is_split=not payload.stderr_to_stdout)
    logs = attempt.logs = folder / out, folder / err
    files.make_folder(folder)
    if payload.logs is not None:
        place = payload.logs.replace("%j", attempt.job_id).replace("{folder}", str(attempt.entry.path))
        stem = logs[0].stem if "{folder}" in payload.logs else f"{attempt.entry.uid}.{logs[0].stem}"
        link_logs(logs, Path(place), stem)
    redirect_output(logs)
    if not rank:
        link_latest(logs[0])
        atexit.register(_remove_if_unused, attempt, os.getpid())  # after all that the task registers


def _remove_if_unused(attempt: Attempt, process: int) -> None:
    """Removes the log of an attempt that has a value and printed nothing."""
    if attempt.logs is not None and os.getpid() == process and attempt.entry.has_value():
        flush_output()
        remove_empty_logs(attempt.logs)


def current_job_id(cluster: str) -> str:
    """The id of the Slurm job that this process belongs to, as ``<array>_<index>`` in an array; otherwise its pid."""
    environment = os.environ
    if cluster != "slurm":
        return str(os.getpid())
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]


class LoadedProgram:
    """The user's program in this process. It is loaded for the first task: if that fails, it is the error of that task.

    ``ready`` is called once it is loaded, with all that loading changes in the process.
    """

    def __init__(self, launch: Path, payload: Payload, ready: tp.Callable[[], None]) -> None:
        self._launch = launch
        self._payload = payload
        self._ready = ready
        self._program: Program | None = None

    def compute_function(self, part: Part, position: int) -> Compute:
        """The function that computes the task at ``position``."""

        def compute(attempt: Attempt) -> tp.Any:
            program = self._program or self._load()
            task = EnclosingTask(str(self._launch), position, part.entry, identity_key(part.identity))
            attempt.resumed = read_resumed_call(self._launch, position)
            with computing(task, self._payload.enclosing):
                return program(pickle.loads(part.argument), attempt)

        return compute

    def _load(self) -> Program:
        launch_record.set_enclosing_launch(self._payload.provenance, self._launch / paths.PATCH)
        program: Program = self._payload.load_program()
        os.chdir(self._payload.working_directory)  # its modules may have changed it, too
        self._ready()
        self._program = program
        return program
