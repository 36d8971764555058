"""Jobs of tasks: submitted together, queried one by one."""

from __future__ import annotations

import logging
import threading
import time
import typing as tp

from hydra_exca import clusters, files
from hydra_exca.errors import CacheError, ExcaError
from hydra_exca.job import checkpoints
from hydra_exca.job.attempt import Attempt
from hydra_exca.launch.launch import Launch
from hydra_exca.launch.results import Result
from hydra_exca.launch.settings import Task
from hydra_exca.launch.waits import RecordedWaits

from .binding import AppliedMethod
from .progress import ProgressBar

log = logging.getLogger("exca.infra")
_PAUSE_S = 0.02


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
        """The standard output of the last attempt, None if there is none."""
        return self._log(0)

    def stderr(self) -> str | None:
        """The standard error of the last attempt, None if there is none."""
        return self._log(1)

    def _result(self) -> tuple[tp.Any, ExcaError | None]:
        with self._lock:
            result = self._launch.result(self._task)
        return result.value, result.error

    def _log(self, which: int) -> str | None:
        with self._lock:
            path = self._launch.log_paths(self._task)[which]
        return files.read_end(path) if path is not None and path.exists() else None


class ComputedTask(TaskJob):
    """A task without a folder: its method ran when the job was asked for, and nothing else is kept of it."""

    def __init__(self, value: tp.Any = None, error: ExcaError | None = None) -> None:
        self._computed = (value, error)

    def done(self) -> bool:
        return True

    def _result(self) -> tuple[tp.Any, ExcaError | None]:
        return self._computed

    def _log(self, which: int) -> None:
        return None


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
    """Starts jobs until all have been; while the disk refuses that, again and again, as others wait for them."""
    warned = False
    while True:
        with lock:
            try:
                launch.poll()
            except CacheError as error:
                if not warned:
                    log.warning("exca: jobs cannot be started: %s. Trying again", error)
                warned = True
            if not launch.has_unstarted():
                return
        time.sleep(_PAUSE_S)
