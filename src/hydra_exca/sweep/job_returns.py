"""The JobReturns that a launch gives back to Hydra, also for jobs that have no value (yet)."""

from __future__ import annotations

import functools
import os
import typing as tp

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, filter_overrides
from omegaconf import DictConfig, OmegaConf, flag_override

from hydra_exca.clusters.base import IN_PROCESS
from hydra_exca.errors import ConfigError, Problem, TaskFailedError
from hydra_exca.launch.results import Result
from hydra_exca.status import Status

from .compose import hydra_private
from .configs.tree import raw, without_hydra
from .hydra_errors import as_compact_error, task_exception
from .options import INVALID_OPTIONS
from .tasks import SweepTask

_USE_NO_VALUES = ("hydra._internal.core_plugins.basic_sweeper.BasicSweeper",)


class UnraisedReturn(JobReturn):
    """The return of a job without a value: ``return_value`` is its error or the reason as text, and raises nothing."""

    @property
    def return_value(self) -> tp.Any:
        return self._return_value

    @return_value.setter
    def return_value(self, value: tp.Any) -> None:
        self._return_value = value


class TaskReturn(JobReturn):
    """The return of a task that has ended, with what Hydra's own launcher would return.

    Few sweepers look at configs, so they are composed on access. It pickles as ``pickled_as``.
    ``traceback`` is that of a task that has raised.
    """

    pickled_as: type[JobReturn] = JobReturn

    def __init__(self, task: SweepTask, job_id: str, status: JobStatus, value: tp.Any, traceback: str = "") -> None:
        # that of JobReturn would set the configs, too
        self._task = task
        self._job_id = job_id
        self._started_in = os.getcwd()
        self.task_name = str(JobRuntime.instance().get("name"))
        self.status = status
        self._return_value = value
        self._traceback = traceback
        vars(self).update(hydra_private.remote_fields(traceback))

    @functools.cached_property
    def overrides(self) -> tp.Sequence[str]:  # type: ignore[override]
        lines = self._task.job.composition.lines
        return list(raw(self._config.hydra.overrides.task) if lines is None else lines)

    @functools.cached_property
    def cfg(self) -> DictConfig:  # type: ignore[override]
        return without_hydra(self._config)

    @functools.cached_property
    def hydra_cfg(self) -> DictConfig:  # type: ignore[override]
        """As run_job leaves it in a JobReturn: the hydra node alone, interpolating into the whole."""
        holder = object.__new__(HydraConfig)  # calling the class would give the one of the process
        holder.set_config(self._config)
        return tp.cast(DictConfig, holder.cfg)

    @functools.cached_property
    def working_dir(self) -> str:  # type: ignore[override]
        chdir = self._config.hydra.job.chdir
        return self._shown_folder if hydra_private.changes_directory(chdir) else self._started_in

    @property
    def _shown_folder(self) -> str:
        return os.path.join(self._task.job.sweep_folder, self._task.job.subfolder)

    @functools.cached_property
    def _config(self) -> DictConfig:
        config = self._task.config()
        with flag_override(config.hydra, ["readonly", "struct"], [False, False]):
            config.hydra.runtime.output_dir = os.path.abspath(self._shown_folder)
            config.hydra.job.id = self._job_id
        return config

    def __reduce__(self) -> tuple[tp.Any, ...]:
        names = ("overrides", "cfg", "hydra_cfg", "working_dir", "task_name", "status", "_return_value")
        return (
            self.pickled_as,
            tuple(getattr(self, name) for name in names),
            hydra_private.remote_fields(self._traceback),
        )


class HeldTaskReturn(UnraisedReturn, TaskReturn):
    """The return of a failed task whose error is reported at the end of the sweep."""

    pickled_as = UnraisedReturn

    def release(self) -> None:
        """Makes ``return_value`` raise the error from now on: the sweep, which asks for it, is over."""
        self.__class__ = TaskReturn  # type: ignore[assignment]


def uses_values(config: DictConfig) -> bool:
    """Whether the sweeper looks at what jobs return."""
    return OmegaConf.select(config, "hydra.sweeper._target_") not in _USE_NO_VALUES


def check_sweeper(config: DictConfig, option: str) -> None:
    """Raises ConfigError if an option leaves jobs without a value that the sweeper needs."""
    if uses_values(config):
        sweeper = OmegaConf.select(config, "hydra.sweeper._target_")
        problem = Problem(f"{option} returns no values, and {sweeper} needs them", f"hydra.launcher.{option}")
        raise ConfigError(INVALID_OPTIONS, [problem])


def unrun_return(task: SweepTask, reason: str) -> JobReturn:
    """The return of a job that has not run (yet): its status is UNKNOWN, and its value is the reason as text."""
    return UnraisedReturn(overrides=list(filter_overrides(task.overrides)), _return_value=reason)


def task_return(task: SweepTask, result: Result, hold: bool) -> JobReturn:
    """The return of a task. With ``hold``, the error of a failed one is not raised on access."""
    if result.is_open:
        state = "running" if result.how == "joined" else "submitted"
        return unrun_return(task, f"{state}: {result.entry.uid}")
    outcome, error = result.outcome, result.error
    has_job = outcome is not None and outcome.job and outcome.cluster not in IN_PROCESS
    job_id = str(outcome.job if outcome is not None and has_job else task.job.number)
    failed = result.status is not Status.COMPLETED or error is not None
    status = JobStatus.FAILED if failed else JobStatus.COMPLETED
    kind = HeldTaskReturn if hold and failed else TaskReturn
    if not isinstance(error, TaskFailedError):
        return kind(task, job_id, status, result.value if error is None else as_compact_error(error))
    content = outcome.error.get("content") if outcome is not None and outcome.error is not None else None
    return kind(task, job_id, status, task_exception(error, content), error.traceback)
