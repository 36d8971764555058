"""The JobReturns of tasks: as Hydra's own, but for failures that are held back and jobs that have not run."""

from __future__ import annotations

import dataclasses
import json
import pickle
import traceback
import types
import typing as tp

import pytest
from hydra.conf import HydraConf
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from hydra_exca.errors import TaskFailedError
from hydra_exca.job.error_report import describe_error
from hydra_exca.sweep.hydra_errors import task_exception
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


class OfTaskError(Exception):
    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} failed")
        self.code = code

    def __str__(self) -> str:
        return f"{self.args[0]} with {self.code}"


class PicklingError(Exception):
    def __reduce__(self) -> tuple[tp.Any, ...]:
        raise AssertionError("not called")


class WithoutTextError(Exception):
    def __str__(self) -> str:
        return str(self.args[0])


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    pass


class OnceError(Exception):
    made: tp.ClassVar[list[str]] = []

    def __new__(cls, *args: str) -> tp.Self:
        if cls.made:
            raise AssertionError("made again")
        cls.made.append("")
        return super().__new__(cls, *args)


def raised(error: Exception) -> tuple[dict[str, tp.Any], Exception]:
    """What is stored of an error of a task, and the error that a program gets which is not below hydra.main."""
    try:
        try:
            raise KeyError("the reason")
        except KeyError as reason:
            raise error from reason
    except Exception as caught:  # noqa: BLE001  whichever is raised
        stored = describe_error(caught)
    stored = json.loads(json.dumps(stored))
    failed = TaskFailedError("seed=1 raised", **{"text": stored["message"], "traceback": stored["traceback"]})
    return stored, task_exception(failed, stored["content"])


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        KeyError("a"),
        OSError(2, "is not there", "/a/b"),
        OfTaskError("it", 3),
        ImportError("x", name="y"),
    ],
)
def test_the_exception_of_a_task_is_made_again_from_what_is_stored(error: Exception) -> None:
    made = raised(error)[1]
    assert type(made) is type(error) and str(made) == str(error) and made.args == error.args
    assert vars(made) == vars(error) and getattr(made, "filename", None) == getattr(error, "filename", None)
    assert isinstance(made.__cause__, TaskFailedError)


@pytest.mark.parametrize(
    "error",
    [
        *(ValueError(object()), PicklingError("it"), UnicodeDecodeError("ascii", b"x", 0, 1, "no")),
        *(FrozenError(), OnceError("it")),
    ],
)
def test_an_exception_of_which_json_does_not_keep_all_is_the_stored_error(error: Exception) -> None:
    assert isinstance(raised(error)[1], TaskFailedError)


def test_an_exception_without_a_text_is_made_again() -> None:
    assert isinstance(raised(WithoutTextError())[1], WithoutTextError)


def test_what_is_stored_makes_no_object_but_an_exception() -> None:
    stored = raised(ValueError("no"))[0]["content"] | {"module": "builtins", "class": "bytearray", "args": [1 << 62]}
    assert isinstance(task_exception(TaskFailedError("seed=1 raised", text="no"), stored), TaskFailedError)


def test_an_exception_whose_class_is_gone_is_the_stored_error() -> None:
    stored = raised(ValueError("no"))[0]["content"]
    failed = TaskFailedError("seed=1 raised", text="no")
    for changed in ({"module": "gone"}, {"class": "Gone"}, {"args": ["yes"]}, {"module": "builtins", "class": "print"}):
        assert isinstance(task_exception(failed, stored | changed), TaskFailedError)


@pytest.mark.hydra_14
def test_a_job_return_raises_with_the_frames_of_the_task() -> None:
    stored, error = raised(ValueError("no"))
    for returned in also_pickled(TaskReturn(task(), "7", JobStatus.FAILED, error, stored["traceback"])):
        with pytest.raises(ValueError, match="no") as caught:
            _ = returned.return_value
        assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][-1] == "raised"
