"""What a process knows of the tasks around it, also after an interrupt."""

from __future__ import annotations

import os
import sys
import types

import pytest

from hydra_exca.clusters.base import ENCLOSING_TASKS
from hydra_exca.job import enclosing
from hydra_exca.job.enclosing import EnclosingTask, computing, enclosing_tasks

TASK = EnclosingTask("launch", 0, "entry", "key")


def test_an_interrupt_at_any_point_leaves_no_task_around_this_process() -> None:
    left: list[tuple[int, object]] = []
    number = 1
    while _is_interrupted_at(number):
        if ENCLOSING_TASKS in os.environ or enclosing_tasks():
            left.append((number, os.environ.pop(ENCLOSING_TASKS, None)))
        number += 1
    assert number > 15
    assert left == []


def _is_interrupted_at(number: int) -> bool:
    calls = 0

    def profile(frame: types.FrameType, event: str, argument: object) -> None:
        nonlocal calls
        if frame.f_globals is vars(enclosing) and event in ("call", "c_return"):  # where Python handles signals
            calls += 1
            if calls == number:
                raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        with computing(TASK, ()):
            pass
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def test_the_environment_names_the_task_that_began_last_of_those_that_run() -> None:
    first, second = (computing(EnclosingTask("launch", position, "entry", "key"), ()) for position in (0, 1))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert '"launch", 1' in os.environ[ENCLOSING_TASKS]
    second.__exit__(None, None, None)
    assert ENCLOSING_TASKS not in os.environ


@pytest.mark.parametrize("before", [None, "[]"])
def test_what_the_environment_named_before_stands_again(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if before is None:
        monkeypatch.delenv(ENCLOSING_TASKS, raising=False)
    else:
        monkeypatch.setenv(ENCLOSING_TASKS, before)
    with computing(TASK, ()):
        assert "entry" in os.environ[ENCLOSING_TASKS]
    assert os.environ.get(ENCLOSING_TASKS) == before
