"""What is raised on purpose: the tree, the messages, and that all of it travels between processes."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
from hydra.errors import CompactHydraException

from hydra_exca import errors
from hydra_exca.errors import (
    CacheError,
    ConfigError,
    CorruptEntryError,
    DefaultsChangedError,
    ExcaError,
    JobError,
    JobLostError,
    NotRunError,
    Problem,
    SubmissionError,
    TaskFailedError,
    UnreadableFileError,
)
from hydra_exca.sweep.hydra_errors import as_compact_error

JOB = {"factory": "train.main", "uid": "lr=1-0a1b2c3d", "job_id": "12_3", "log": "logs/2.out"}
EXAMPLES = [
    ExcaError("what happened"),
    ConfigError("cannot work", [Problem("is no number", "optim.lr", ("optim.lr=a",)), Problem("is missing")]),
    CacheError("what happened"),
    DefaultsChangedError("what happened"),
    CorruptEntryError("what happened"),
    UnreadableFileError(5, "Input/output error", "/cache/outcome.json"),
    JobError("what happened", **JOB),
    NotRunError("what happened", **JOB),
    SubmissionError("what happened", **JOB),
    TaskFailedError("what happened", type="ValueError", text="no", traceback="Traceback ...", **JOB),
    JobLostError("what happened", state="OUT_OF_MEMORY", **JOB),
]
PARENTS = {
    ExcaError: RuntimeError,
    ConfigError: ExcaError,
    CacheError: ExcaError,
    DefaultsChangedError: CacheError,
    CorruptEntryError: CacheError,
    UnreadableFileError: CacheError,
    JobError: ExcaError,
    SubmissionError: JobError,
    TaskFailedError: JobError,
    JobLostError: JobError,
    NotRunError: JobError,
}


def test_the_tree_is_the_one_that_the_module_draws() -> None:
    found = {cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, BaseException)}
    assert {cls: cls.__bases__[0] for cls in found} == PARENTS


def test_errors_are_also_the_builtin_ones_that_callers_catch() -> None:
    assert issubclass(errors.ExcaError, RuntimeError) and issubclass(errors.ConfigError, ValueError)


def test_every_error_has_an_example_here() -> None:
    assert {type(error) for error in EXAMPLES} == set(PARENTS)


def test_the_module_draws_every_error() -> None:
    assert [cls.__name__ for cls in PARENTS if cls.__name__ not in (errors.__doc__ or "")] == []


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_crosses_processes_whole(error: ExcaError, protocol: int) -> None:
    back = pickle.loads(pickle.dumps(error, protocol))
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_can_be_one_that_hydra_prints_without_a_traceback(error: ExcaError) -> None:
    compact = as_compact_error(error)
    assert isinstance(compact, CompactHydraException) and isinstance(compact, type(error))
    assert str(compact) == str(error)
    assert type(pickle.loads(pickle.dumps(compact))) is type(compact)


def test_a_problem_of_many_tasks_is_told_of_once() -> None:
    problems = [Problem("is no number", "lr", (f"seed={seed}",)) for seed in range(60)]
    error = ConfigError("60 tasks are invalid", [*problems, Problem("is missing", "x", ("seed=1",)), Problem("is odd")])
    assert str(error).splitlines() == [
        "60 tasks are invalid",
        "    lr: is no number",
        "      with seed=0",
        "      with seed=1",
        "      with seed=2",
        "      and with 57 more tasks",
        "    x: is missing",
        "      with seed=1",
        "    is odd",
    ]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_can_be_copied(error: ExcaError) -> None:
    back = copy.copy(error)
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


def test_a_subclass_of_the_users_crosses_processes_too() -> None:
    assert type(pickle.loads(pickle.dumps(TheirError("x", uid="u")))).__name__ == "TheirError"


class TheirError(JobLostError):
    pass


def test_a_config_error_names_each_problem_with_its_key_above_its_overrides() -> None:
    problems = [
        Problem("is no number", "lr", ("lr=a",)),
        Problem("is missing", "data", ("lr=a",)),
        Problem("is too small", "lr", ("lr=0",)),
    ]
    assert str(ConfigError("Nothing was run.", problems)).splitlines() == [
        "Nothing was run.",
        "    lr: is no number",
        "      with lr=a",
        "    data: is missing",
        "      with lr=a",
        "    lr: is too small",
        "      with lr=0",
    ]


def test_a_problem_of_all_tasks_is_shown_without_overrides() -> None:
    assert str(ConfigError("Nothing was run.", [Problem("is no folder", "folder")])).splitlines() == [
        "Nothing was run.",
        "    folder: is no folder",
    ]


def test_a_problem_without_a_key_is_its_message() -> None:
    assert str(Problem("is wrong")) == "is wrong"


def test_an_unreadable_file_is_named_also_in_another_process() -> None:
    error = UnreadableFileError(5, "Input/output error", "/cache/outcome.json")
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert (each.errno, str(each)) == (5, "/cache/outcome.json cannot be read: Input/output error")
