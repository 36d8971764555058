"""What a launch gives back to Hydra for each job: JobReturn, and its like for what has no value (yet)."""

from __future__ import annotations

import dataclasses
import functools
import os
import typing as tp

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, filter_overrides
from omegaconf import DictConfig, OmegaConf, flag_override

from hydra_exca.errors import ConfigError, Problem
from hydra_exca.launch.results import Result
from hydra_exca.status import Status

from .configs.tree import without_hydra
from .hydra_errors import raise_compact
from .tasks import SweepTask

_WITHOUT_VALUES = ("hydra._internal.core_plugins.basic_sweeper.BasicSweeper",)


@dataclasses.dataclass
class PlannedReturn(JobReturn):
    """Of a job that has not run (yet): its status is UNKNOWN, and ``return_value`` says in words why."""

    plan: str = ""

    @property
    def return_value(self) -> tp.Any:
        return self.plan

    @return_value.setter
    def return_value(self, value: tp.Any) -> None:
        raise AttributeError("a job that has not run has no value")


class TaskReturn(JobReturn):
    """Of a task that has ended, as Hydra's own launcher would return it.

    Few sweepers look at configs, so these are composed when one does. A failed job that ``is_held`` has its error as
    ``return_value``, which then does not raise it.
    """

    _task: SweepTask
    _job_id: str
    _started_in: str
    _is_held = False

    @classmethod
    def of(
        cls, task: SweepTask, task_name: str, job_id: str, status: JobStatus, value: tp.Any, is_held: bool
    ) -> TaskReturn:
        self = cls.__new__(cls)  # by __init__, all would have to be there
        self._task = task
        self._job_id = job_id
        self._is_held = is_held
        self._started_in = os.getcwd()
        self.task_name = task_name
        self.status = status
        self._return_value = value
        return self

    @property
    def return_value(self) -> tp.Any:
        return self._return_value if self._is_held else super().return_value

    @return_value.setter
    def return_value(self, value: tp.Any) -> None:
        self._return_value = value

    @functools.cached_property
    def overrides(self) -> tp.Sequence[str]:  # type: ignore[override]
        lines = self._task.composition.lines
        return list(self._config.hydra.overrides.task if lines is None else lines)

    @functools.cached_property
    def cfg(self) -> DictConfig:  # type: ignore[override]
        return without_hydra(self._config)

    @functools.cached_property
    def hydra_cfg(self) -> DictConfig:  # type: ignore[override]
        return _hydra_config(self._config)

    @functools.cached_property
    def working_dir(self) -> str:  # type: ignore[override]
        return self._shown if _changes_directory(self._config) else self._started_in

    @property
    def _shown(self) -> str:
        return os.path.join(self._task.sweep_folder, self._task.subfolder)

    @functools.cached_property
    def _config(self) -> DictConfig:
        config = self._task.config()
        with flag_override(config.hydra, ["readonly", "struct"], [False, False]):
            config.hydra.runtime.output_dir = os.path.abspath(self._shown)
            config.hydra.job.id = self._job_id
        return config

    def __reduce__(self) -> tuple[tp.Any, ...]:
        kind = HeldReturn if self._is_held else JobReturn
        names = ("overrides", "cfg", "hydra_cfg", "working_dir", "task_name", "status", "_return_value")
        return kind, tuple(getattr(self, name) for name in names)


@dataclasses.dataclass
class HeldReturn(JobReturn):
    """What becomes of a held `TaskReturn` when it is pickled."""

    @property
    def return_value(self) -> tp.Any:
        return self._return_value

    @return_value.setter
    def return_value(self, value: tp.Any) -> None:
        self._return_value = value


def uses_values(config: DictConfig) -> bool:
    """Whether the sweeper looks at what jobs return."""
    return OmegaConf.select(config, "hydra.sweeper._target_") not in _WITHOUT_VALUES


def check_sweeper(config: DictConfig, option: str) -> None:
    """Raises ConfigError if an option leaves jobs without a value that the sweeper needs."""
    if uses_values(config):
        sweeper = OmegaConf.select(config, "hydra.sweeper._target_")
        problem = Problem(f"{option} returns no values, and {sweeper} needs them", f"hydra.launcher.{option}")
        raise ConfigError("The launcher's options are invalid; nothing was submitted.", [problem])


def planned_returns(task: SweepTask, plan: str) -> JobReturn:
    """Of a job that has not run."""
    return PlannedReturn(overrides=list(filter_overrides(task.overrides)), plan=plan)


def task_returns(tasks: tp.Sequence[SweepTask], results: tp.Sequence[Result], hold: bool) -> list[JobReturn]:
    """As Hydra's own launcher would return them; ``hold`` keeps a failure from being raised when it is looked at."""
    task_name = str(JobRuntime.instance().get("name"))
    return [_of_result(task, task_name, result, hold) for task, result in zip(tasks, results, strict=True)]


def _of_result(task: SweepTask, task_name: str, result: Result, hold: bool) -> JobReturn:
    if result.is_open:
        state = "running" if result.how == "joined" else "submitted"
        return planned_returns(task, f"{state}: {result.entry.uid}")
    outcome = result.outcome
    job_id = outcome.job if outcome is not None and outcome.job else str(task.number)
    failed = result.status is not Status.COMPLETED or result.error is not None
    status = JobStatus.FAILED if failed else JobStatus.COMPLETED
    value = raise_compact(result.error) if result.error is not None else result.value
    return TaskReturn.of(task, task_name, job_id, status, value, hold and failed)


def _hydra_config(config: DictConfig) -> DictConfig:
    """As run_job leaves it in a JobReturn: the hydra node alone, interpolating into the whole."""
    holder = object.__new__(HydraConfig)  # calling the class would give the one of the process
    holder.set_config(config)
    return tp.cast(DictConfig, holder.cfg)


def _changes_directory(config: DictConfig) -> bool:
    from hydra import version

    chosen = config.hydra.job.chdir
    return bool(not version.base_at_least("1.2") if chosen is None else chosen)
