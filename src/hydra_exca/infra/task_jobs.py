"""Jobs of tasks: submitted together, queried one by one."""

from __future__ import annotations

import dataclasses
import threading
import time
import typing as tp
from pathlib import Path

from hydra_exca import clusters
from hydra_exca.errors import ExcaError, TaskFailedError
from hydra_exca.job import checkpoints
from hydra_exca.job.attempt import Attempt
from hydra_exca.launch.launch import Launch
from hydra_exca.launch.results import Result
from hydra_exca.launch.settings import Settings, Task
from hydra_exca.status import Mode
from hydra_exca.store import CacheFolder

from .binding import AppliedMethod

_PAUSE_S = 0.02


class HasTask(tp.Protocol):
    """An infra with a task, as far as its jobs need it."""

    folder: Path | str | None
    _name: str
    _computed: set[str]

    @property
    def mode(self) -> str: ...
    def task(self) -> Task: ...
    def _cache(self) -> CacheFolder | None: ...
    def _project(self, cache: CacheFolder) -> dict[str, tp.Any]: ...
    def _settings(self, cache: CacheFolder, cluster: clusters.Cluster, mode: Mode) -> Settings: ...
    def _call(self) -> tp.Any: ...


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


class TaskJob:
    """The computation of one task: running, stored before, or (without a folder) done on the spot."""

    def __init__(
        self, launch: SharedLaunch | None, task: Task | None, value: tp.Any = None, error: ExcaError | None = None
    ) -> None:
        self._launch = launch
        self._task = task
        self._value = value
        self._error = error

    def result(self) -> tp.Any:
        """The value, waited for. Raises TaskFailedError, or JobLostError if the job ended without a word."""
        error = self.exception()
        if error is not None:
            raise error
        return self._value if self._launch is None else self._result().value

    def exception(self) -> ExcaError | None:
        """The error, waited for; None if there is a value."""
        self.wait()
        return self._error if self._launch is None else self._result().error

    def wait(self) -> None:
        """Returns when the task is done."""
        while not self.done():
            time.sleep(_PAUSE_S)

    def done(self) -> bool:
        """Whether there is a value or an error."""
        return self._launch is None or self._launch.is_done(tp.cast(Task, self._task))

    def cancel(self) -> None:
        """Asks for the job's end; waiting for it then gives an error."""
        if self._launch is not None and not self.done():
            self._launch.cancel(tp.cast(Task, self._task))

    def stdout(self) -> str | None:
        """The standard output of the last attempt, None if there is none."""
        return self._log(0)

    def stderr(self) -> str | None:
        """The standard error of the last attempt, None if there is none."""
        return self._log(1)

    def _result(self) -> Result:
        assert self._launch is not None and self._task is not None
        return self._launch.result(self._task)

    def _log(self, which: int) -> str | None:
        if self._launch is None:
            return None
        path = self._launch.log_paths(tp.cast(Task, self._task))[which]
        return path.read_text(errors="replace") if path is not None and path.exists() else None


class SharedLaunch:
    """A launch that several jobs share; may be used from any thread."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._lock = threading.RLock()

    def start(self) -> None:
        """Submits; where this process is what starts further ones, a thread does it until all have been.

        What runs in this process has run when this returns.
        """
        self._launch.submit()
        if isinstance(self._launch.settings.cluster, clusters.InlineCluster):
            while self._launch.has_unstarted():
                self._launch.poll()
        elif self._launch.has_unstarted():
            threading.Thread(target=self._start_rest, name="exca-starts-jobs").start()

    def is_done(self, task: Task) -> bool:
        with self._lock:
            if self._launch.is_open(task):
                self._launch.poll()
            return not self._launch.is_open(task)

    def result(self, task: Task) -> Result:
        with self._lock:
            return self._launch.result(task)

    def cancel(self, task: Task) -> None:
        with self._lock:
            self._launch.cancel(task)

    def log_paths(self, task: Task) -> tuple[Path | None, Path | None]:
        with self._lock:
            return self._launch.log_paths(task)

    def _start_rest(self) -> None:
        while True:
            with self._lock:
                self._launch.poll()
                if not self._launch.has_unstarted():
                    return
            time.sleep(_PAUSE_S)


def start_jobs(infras: tp.Sequence[HasTask], cluster: clusters.Cluster, by: HasTask | None = None) -> list[TaskJob]:
    """Submits what is missing of these tasks, one array for each folder, mode and project; one job a task, in order.

    How jobs run is what ``by`` says, or else the first of each array.
    """
    jobs: dict[int, TaskJob] = {}
    groups: dict[tuple[tp.Any, ...], tuple[CacheFolder, dict[str, tp.Any], list[HasTask]]] = {}
    for infra in infras:
        cache = infra._cache()
        if cache is None:
            jobs[id(infra)] = _compute_here(infra)
        else:
            project = infra._project(cache)
            key = (str(cache.path), infra.mode, *project.items())
            groups.setdefault(key, (cache, project, []))[2].append(infra)
    for cache, project, members in groups.values():
        settings = (by or members[0])._settings(cache, cluster, Mode(members[0].mode))
        submitted = _submit_group(members, dataclasses.replace(settings, project=project))
        jobs.update(zip(map(id, members), submitted, strict=True))
    return [jobs[id(infra)] for infra in infras]


def _compute_here(infra: HasTask) -> TaskJob:
    try:
        return TaskJob(None, None, infra._call())
    except TaskFailedError as error:
        return TaskJob(None, None, error=error)


def _submit_group(members: tp.Sequence[HasTask], settings: Settings) -> list[TaskJob]:
    tasks = [infra.task() for infra in members]
    computed = set().union(*(infra._computed for infra in members))
    launch = Launch(tasks, MethodProgram(members[0]._name), settings, computed)
    shared = SharedLaunch(launch)
    shared.start()
    for infra in members:
        infra._computed.update(computed)
    return [TaskJob(shared, task) for task in tasks]
