"""Jobs of tasks: submitted together, queried one by one."""

from __future__ import annotations

import logging
import threading
import time
import typing as tp
from pathlib import Path

from hydra_exca import clusters, files, paths
from hydra_exca.errors import CacheError, ExcaError, TaskFailedError
from hydra_exca.identity.uid import Identity
from hydra_exca.job import checkpoints
from hydra_exca.job.attempt import Attempt
from hydra_exca.launch.launch import Launch
from hydra_exca.launch.results import Result
from hydra_exca.launch.settings import Settings, Task
from hydra_exca.launch.slurm_job import JobPaths
from hydra_exca.launch.waits import RecordedWaits
from hydra_exca.status import Mode
from hydra_exca.store import CacheFolder, Claim, ClaimState, Entry

from .binding import AppliedMethod
from .progress import ProgressBar

log = logging.getLogger("exca.infra")
_PAUSE_S = 0.02
_STATES = {ClaimState.QUEUED: "PENDING", ClaimState.RUNNING: "RUNNING"}


class MethodProgram:
    """The program of a job: runs the method itself, without its cache."""

    def __init__(self, infra_name: str) -> None:
        self.infra_name = infra_name

    def __call__(self, obj: tp.Any, attempt: Attempt) -> tp.Any:
        applied: AppliedMethod = getattr(obj, self.infra_name)._bound()[1]
        resumed = attempt.resumed
        if resumed is not None and not resumed.is_method(type(obj), applied.method.__name__):
            attempt.checkpoint = resumed.checkpoint
            return resumed()
        owner = obj if resumed is None else resumed.function.__self__  # type: ignore[attr-defined]
        attempt.checkpoint = checkpoints.checkpoint_of_object(owner)
        return applied.method(owner)


class ArrayProgress:
    """The progress bar of the tasks that a launch had to wait for. It is there once somebody waits for one of them."""

    def __init__(self, name: str, launch: Launch) -> None:
        self._name = name
        self._total = launch.open_count()
        self._done = 0
        self._bar: ProgressBar | None = None
        launch.on_result = self._count

    def show(self) -> None:
        if self._bar is None and self._done < self._total:
            self._bar = ProgressBar(self._name, self._total, "task")
            self._bar.update(self._done)

    def _count(self, result: Result) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.update()
            if self._done >= self._total:
                self._bar.close()


class TaskJob:
    """The computation of one task by a launch, which other jobs may share. It can be used from any thread."""

    def __init__(self, launch: Launch, lock: threading.RLock, task: Task, progress: ArrayProgress) -> None:
        self._launch = launch
        self._lock = lock
        self._task = task
        self._progress = progress

    def result(self) -> tp.Any:
        """Waits for the value. Raises TaskFailedError, or JobLostError if the job ended without a result."""
        error = self.exception()
        if error is not None:
            raise error
        return self._result()[0]

    def exception(self) -> ExcaError | None:
        """Waits for the end of the task; returns its error, None if there is a value."""
        self.wait()
        return self._result()[1]

    def wait(self) -> None:
        """Returns when the task is done."""
        if self.done():
            return
        with RecordedWaits() as waits:
            while not self.done():
                with self._lock:
                    self._launch.record_wait(waits, self._task)
                    self._progress.show()
                time.sleep(_PAUSE_S)

    def done(self) -> bool:
        """Whether there is a value or an error."""
        with self._lock:
            if self._launch.is_open(self._task):
                self._launch.poll()
            return not self._launch.is_open(self._task)

    def cancel(self) -> None:
        """Cancels the job, if it has not ended; waiting for it then gives an error."""
        if not self.done():
            with self._lock:
                self._launch.cancel(self._task)

    def stdout(self) -> str | None:
        """The standard output of the last attempt, None before it has a log."""
        return self._log(0)

    def stderr(self) -> str | None:
        """The standard error of the last attempt, None before it has a log."""
        return self._log(1)

    @property
    def job_id(self) -> str | None:
        """The id of the job that computes the task, or has computed it: of Slurm (``12_3``), or else of a process."""
        claim = self._claim()
        return None if claim is None else claim.job

    @property
    def paths(self) -> JobPaths:
        """The logs of the last attempt, and their folder; they may not exist yet."""
        entry, claim = self._entry(), self._claim()
        folder = Path() if entry is None else entry.path / paths.LOGS
        logs = (entry and claim and entry.log_paths(claim)) or (folder / paths.LATEST_LOG,) * 2
        return JobPaths(*logs, folder, *logs)

    def state(self) -> str:
        """PENDING, RUNNING, COMPLETED or FAILED; UNKNOWN if nobody computes it any more."""
        if self.done():
            return self._end()
        claim = self._claim()
        return _STATES.get(claim.state, "RUNNING") if claim is not None else "PENDING"

    def __repr__(self) -> str:
        job = "" if self.job_id is None else f", job {self.job_id}"
        return f"<{type(self).__name__} {self._task.identity.uid()}: {self.state()}{job}>"

    def __reduce__(self) -> tuple[tp.Any, ...]:
        folder = self._launch.settings.folder
        return restore_job, (folder.path, tuple(folder.trust_users), self._task.identity)

    def _end(self) -> str:
        with self._lock:
            status = self._launch.result(self._task).status
        return status.name if status.is_final else "UNKNOWN"

    def _entry(self) -> Entry | None:
        with self._lock:
            return self._launch.entry(self._task)

    def _claim(self) -> Claim | None:
        entry = self._entry()
        return None if entry is None else entry.current_claim()

    def _result(self) -> tuple[tp.Any, ExcaError | None]:
        with self._lock:
            result = self._launch.result(self._task)
        return result.value, result.error

    def _log(self, which: int) -> str | None:
        path = (self.paths.stdout, self.paths.stderr)[which]
        if path.exists():
            return files.read_end(path)
        return "" if self._end_of_attempt() else None  # an empty log does not stay

    def _end_of_attempt(self) -> bool:
        claim = self._claim()
        return claim is not None and claim.attempt > 0 and claim.state is ClaimState.COMMITTING


class ComputedTask(TaskJob):
    """A task without a folder: its method ran when the job was asked for, and nothing else is kept of it."""

    job_id = None

    def __init__(self, value: tp.Any = None, error: ExcaError | None = None) -> None:
        self._computed = (value, error)

    def done(self) -> bool:
        return True

    def _end(self) -> str:
        error = self._computed[1]
        return "COMPLETED" if error is None else "FAILED" if isinstance(error, TaskFailedError) else "UNKNOWN"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.state()}>"

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return ComputedTask, self._computed

    def _entry(self) -> None:
        return None

    def _result(self) -> tuple[tp.Any, ExcaError | None]:
        return self._computed

    def _log(self, which: int) -> None:
        return None


def restore_job(folder: Path, trust_users: tp.Collection[str], identity: Identity) -> TaskJob:
    """The job of a task that was submitted before, from another process maybe; it is never submitted again."""
    cluster = clusters.get_cluster(None, clusters.Options())
    settings = Settings(CacheFolder(folder, trust_users), cluster, mode=Mode.READ_ONLY, option_prefix="infra.")
    try:
        return submit_launch(Launch([Task(identity, None)], _no_program, settings), identity.factory)[0]
    except CacheError as error:
        gone = f"{identity.uid()} has no result, and nobody computes it any more: it was cancelled, lost or removed"
        return ComputedTask(error=CacheError(gone) if type(error) is CacheError else error)


def _no_program(argument: tp.Any, attempt: Attempt) -> tp.Any:
    raise AssertionError("a restored job computes nothing")


def submit_launch(launch: Launch, name: str) -> list[TaskJob]:
    """Submits the tasks that are missing; one job for each task of the launch, in order. ``name`` is the method's.

    Where this process starts the jobs itself, a thread does it until all have been started. What runs in this process
    has run when this returns.
    """
    lock = threading.RLock()
    launch.submit()
    progress = ArrayProgress(name, launch)
    if isinstance(launch.settings.cluster, clusters.InlineCluster):
        progress.show()
        while launch.has_unstarted():
            launch.poll()
    elif launch.has_unstarted():
        threading.Thread(target=_start_rest, args=(launch, lock), name="exca-starts-jobs").start()
    return [TaskJob(launch, lock, task, progress) for task in launch.tasks]


def _start_rest(launch: Launch, lock: threading.RLock) -> None:
    """Starts jobs until all have been, also after errors of the disk that may pass: others wait for them."""
    warned = False
    while True:
        with lock:
            try:
                launch.poll()
            except CacheError as error:
                cause = error.__cause__ or error
                if not isinstance(cause, OSError) or cause.errno not in files.PASSING_ERRORS:
                    log.error("exca: the other jobs are not started: %s", error)
                    launch.give_up_unstarted(error)
                    return
                if not warned:
                    log.warning("exca: jobs cannot be started: %s. Trying again", error)
                warned = True
            if not launch.has_unstarted():
                return
        time.sleep(_PAUSE_S)
