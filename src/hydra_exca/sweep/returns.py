"""What a launch gives back to Hydra for each job: JobReturn, and its like for what has no value (yet)."""

from __future__ import annotations

import dataclasses
import os
import typing as tp

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, filter_overrides
from omegaconf import DictConfig, OmegaConf, flag_override

from hydra_exca.errors import ConfigError, Problem
from hydra_exca.results import Result
from hydra_exca.status import Status

from . import tasks
from .compact import compact
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


@dataclasses.dataclass
class HeldReturn(JobReturn):
    """Of a failed job while the sweep goes on: ``return_value`` is the error, and does not raise it."""

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
        raise ConfigError("The launcher's options cannot work; nothing was run.", [problem])


def planned(task: SweepTask, plan: str) -> JobReturn:
    """Of a job that has not run."""
    return PlannedReturn(overrides=list(filter_overrides(task.overrides)), plan=plan)


def of_result(task: SweepTask, result: Result, hold: bool) -> JobReturn:
    """As Hydra's own launcher would return it; ``hold`` keeps a failure from being raised when it is looked at."""
    if result.is_open:
        state = "running" if result.how == "joined" else "submitted"
        return planned(task, f"{state}: {result.entry.uid}")
    config = task.config
    shown = os.path.join(task.sweep_folder, task.subfolder)
    with flag_override(config.hydra, ["readonly", "struct"], [False, False]):
        config.hydra.runtime.output_dir = os.path.abspath(shown)
        job = result.standing.outcome.job if result.standing.outcome else None
        config.hydra.job.id = job or str(task.number)
    failed = result.standing.status is not Status.COMPLETED or result.error is not None
    return (HeldReturn if hold and failed else JobReturn)(
        overrides=OmegaConf.to_container(config.hydra.overrides.task),  # type: ignore[arg-type]
        cfg=tasks.without_hydra(config),
        hydra_cfg=_hydra_config(config),
        working_dir=shown if _changes_directory(config) else os.getcwd(),
        task_name=JobRuntime.instance().get("name"),
        status=JobStatus.FAILED if failed else JobStatus.COMPLETED,
        _return_value=compact(result.error) if result.error is not None else result.value,
    )


def _hydra_config(config: DictConfig) -> DictConfig:
    """As run_job leaves it in a JobReturn: the hydra node alone, interpolating into the whole."""
    singleton: tp.Any = Singleton.instance(HydraConfig)
    before = singleton.cfg
    try:
        singleton.set_config(config)
        return tp.cast(DictConfig, singleton.cfg)
    finally:
        singleton.cfg = before


def _changes_directory(config: DictConfig) -> bool:
    from hydra import version

    chosen = config.hydra.job.chdir
    return bool(not version.base_at_least("1.2") if chosen is None else chosen)
