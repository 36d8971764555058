"""The JobReturns of tasks: as Hydra's own, but for failures that are held back and jobs that have not run."""

from __future__ import annotations

import pickle
import types
import typing as tp

import pytest
from hydra.conf import HydraConf
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from hydra_exca.sweep.job_returns import HeldTaskReturn, TaskReturn, unrun_return


def task() -> tp.Any:
    """As much of a task as its JobReturn asks for."""
    config = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf), "seed": 1})
    config.hydra.job.chdir = True
    composition = types.SimpleNamespace(lines=["seed=1"])
    job = types.SimpleNamespace(composition=composition, sweep_folder="/sweep", subfolder="0")
    return types.SimpleNamespace(job=job, overrides=("seed=1",), config=lambda: config)


def also_pickled(returned: JobReturn) -> list[JobReturn]:
    return [returned, pickle.loads(pickle.dumps(returned))]


def test_a_failed_task_raises_its_error_when_its_value_is_asked_for() -> None:
    for returned in also_pickled(TaskReturn(task(), "7", JobStatus.FAILED, ValueError("no"))):
        with pytest.raises(ValueError, match="no"):
            _ = returned.return_value


def test_a_failure_that_is_held_back_is_the_value() -> None:
    for returned in also_pickled(HeldTaskReturn(task(), "7", JobStatus.FAILED, ValueError("no"))):
        assert (str(returned.return_value), returned.status) == ("no", JobStatus.FAILED)


def test_configs_are_those_of_the_job() -> None:
    for returned in also_pickled(TaskReturn(task(), "7", JobStatus.COMPLETED, 10)):
        assert (returned.return_value, returned.overrides, returned.working_dir) == (10, ["seed=1"], "/sweep/0")
        assert returned.cfg == {"seed": 1}
        assert returned.hydra_cfg is not None and returned.hydra_cfg.hydra.job.id == "7"


def test_overrides_are_as_they_were_typed() -> None:
    held = task()
    held.job.composition.lines = None
    held.config().hydra.overrides.task.append("+z=${.x}")
    for returned in also_pickled(TaskReturn(held, "7", JobStatus.COMPLETED, 10)):
        assert returned.overrides == ["+z=${.x}"]


def test_a_job_that_has_not_run_says_why() -> None:
    for returned in also_pickled(unrun_return(task(), "submitted: seed=1-abc")):
        assert (returned.return_value, returned.status) == ("submitted: seed=1-abc", JobStatus.UNKNOWN)
