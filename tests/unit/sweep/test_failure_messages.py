"""What a sweep logs of failed tasks."""

import logging
import traceback
import typing as tp
from pathlib import Path

import pytest

from hydra_exca.errors import CacheError, ExcaError, JobLostError, NotRunError, TaskFailedError
from hydra_exca.identity.uid import Identity
from hydra_exca.launch.results import Result
from hydra_exca.launch.settings import Task
from hydra_exca.launch.user_frames import own_frames
from hydra_exca.status import Status
from hydra_exca.sweep import failure_messages

TRACEBACK = """Traceback (most recent call last):
  File "/cache/exca/code/0123456789abcdef/pkg/train.py", line 14, in main
    return inner(cfg.a)
           ^^^^^^^^^^^^
  File "/venv/lib/python3.11/site-packages/numpy/linalg.py", line 2, in inv
    raise LinAlgError(
  File "<__array_function__ internals>", line 5, in inv
ValueError: {message}
"""
CHAINED = f"""Traceback (most recent call last):
  File "/project/first.py", line 1, in read
    open(path)
OSError: gone

During handling of the above exception, another exception occurred:

{TRACEBACK}"""


def failed(seed: int, error: ExcaError, how: str = "run") -> Result:
    identity = Identity.__new__(Identity)
    task = Task(identity, None, (f"seed={seed}",), lambda: ("", ""))
    return Result(task, how, Status.FAILED, f"seed={seed}", error=error)


def raised(seed: int, message: str = "no luck", template: str = TRACEBACK) -> Result:
    text = template.format(message=message)
    error = TaskFailedError(
        f"seed={seed} raised ValueError: {message}\n{text}", type="ValueError", text=message, traceback=text
    )
    return failed(seed, error)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> tp.Callable[[], list[str]]:
    caplog.set_level(logging.ERROR, "exca.sweep")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("text", [TRACEBACK, CHAINED], ids=["alone", "chained"])
def test_the_frames_of_the_user_are_shown_and_files_are_named_as_in_the_project(text: str) -> None:
    frames = own_frames(text)
    assert list(map(str, frames)) == ["pkg/train.py:14, in main: return inner(cfg.a)"]


def _group(*errors: Exception) -> str:
    try:
        raise ExceptionGroup("many", errors)
    except ExceptionGroup as group:
        return "".join(traceback.format_exception(group))


def test_of_a_group_of_errors_the_frames_are_shown() -> None:
    (frame,) = own_frames(_group(ValueError("one"), TypeError("two")))
    assert frame.name == "_group" and frame.code == 'raise ExceptionGroup("many", errors)'


def test_of_a_group_of_errors_that_were_raised_the_frames_of_the_last_are_shown() -> None:
    def fails() -> None:
        raise ValueError("one")

    try:
        fails()
    except ValueError as error:
        frames = own_frames(_group(error, error))
    assert frames[-1].code == 'raise ValueError("one")'


def test_a_long_message_is_cut_and_not_left_out(logged: tp.Any) -> None:
    failure_messages.say_failure({}, raised(1, "no" * 500))
    failure_messages.say_failures([raised(1, "no" * 500)])
    assert all("ValueError: nono" in line and "no..." in line and len(line) < 500 for line in logged())


def test_of_an_error_in_a_library_alone_the_frames_of_the_library_are_shown() -> None:
    text = 'Traceback (most recent call last):\n  File "/x/site-packages/a.py", line 1, in f\nKeyError: 1\n'
    assert [frame.file for frame in own_frames(text)] == ["/x/site-packages/a.py"]


@pytest.mark.parametrize("text", ["", "SystemExit: 3\n"])
def test_an_error_without_a_traceback_has_no_frames(text: str) -> None:
    assert own_frames(text) == []


def test_a_failure_is_logged_with_its_message_its_place_and_its_log(logged: tp.Any) -> None:
    result = raised(1)
    tp.cast(TaskFailedError, result.error).log = str(Path.cwd() / "exca/1.log")
    failure_messages.say_failure({}, result)
    assert logged() == [
        "exca: seed=1 failed: ValueError: no luck\n"
        "    pkg/train.py:14, in main: return inner(cfg.a)\n"
        "    log: exca/1.log"
    ]


def test_three_hundred_equal_failures_take_two_lines_as_they_happen_and_one_at_the_end(logged: tp.Any) -> None:
    results = [raised(seed, f"no luck with {seed}") for seed in range(300)]
    said: dict[tp.Hashable, int] = {}
    for result in results:
        failure_messages.say_failure(said, result)
    failure_messages.say_failures(results)
    first, second, end = logged()
    assert first.startswith("exca: seed=0 failed: ValueError: no luck with 0\n")
    assert second == "exca: seed=1 failed in the same way; more like it are counted at the end"
    names = "seed=0, seed=1, seed=2, seed=3, seed=4 and 295 more"
    assert end == f"exca: failed: {names} -> for example seed=0 raised ValueError: no luck with 0"


def test_failures_of_another_place_or_kind_have_lines_of_their_own(logged: tp.Any) -> None:
    elsewhere = TRACEBACK.replace("line 14", "line 15")
    losses = [failed(3, JobLostError("gone", state=state)) for state in ("TIMEOUT", "NODE_FAIL")]
    results = [raised(1), raised(2, template=elsewhere), *losses, failed(4, CacheError("the disk is full"))]
    failure_messages.say_failures(results)
    assert len(logged()) == 5


def test_other_messages_from_the_same_place_are_counted(logged: tp.Any) -> None:
    failure_messages.say_failures([raised(1, "no file a.npy"), raised(2, "a bad shape"), raised(3, "a bad shape")])
    [line] = logged()
    assert line.endswith("-> 2 different messages, for example seed=1 raised ValueError: no file a.npy")


def test_tasks_that_miss_others_are_told_with_the_reason(logged: tp.Any) -> None:
    results = [failed(seed, JobLostError(f"seed={seed} asks for another task: {seed} is lost")) for seed in (1, 2)]
    failure_messages.say_failure({}, results[0])
    failure_messages.say_failures(results)
    assert [line.count("is lost") for line in logged()] == [1, 1, 1]


def test_a_task_that_was_not_run_has_not_failed(logged: tp.Any) -> None:
    failure_messages.say_failure({}, failed(1, NotRunError("not run"), "not run"))
    assert logged() == []


def test_jobs_that_ended_in_the_same_way_are_told_of_together(logged: tp.Any) -> None:
    failure_messages.say_failures([failed(seed, JobLostError("gone", state="TIMEOUT")) for seed in (1, 2)])
    assert logged() == ["exca: failed: seed=1, seed=2 -> each job ended without a result: TIMEOUT"]
