"""The log of an attempt has the traceback of its error, once."""

from __future__ import annotations

import os
import traceback
import typing as tp
from pathlib import Path

import pytest
from job_side import JobSide

from hydra_exca.job.attempt import Attempt
from hydra_exca.job.logs import write_missing_traceback


@pytest.mark.app
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("change", ["close", "remove", "replace"])
def test_a_task_that_closes_or_replaces_its_streams_fails_with_its_own_error(
    tmp_path: Path, stream: str, change: str
) -> None:
    def program(argument: tp.Any, attempt: Attempt) -> None:
        import sys

        if change == "close":
            getattr(sys, stream).close()
        else:
            setattr(sys, stream, None if change == "remove" else object())
        raise ValueError("a name: \udcff\n}")

    side = JobSide(tmp_path, program)
    side.run()
    assert side.values() == ["a name: \udcff\n}"]
    log = (side.entry.path / "logs" / "1.log").read_text()
    assert log.count("ValueError: a name: \\udcff") == 1


def raised() -> str:
    try:
        raise ValueError("{\n}")
    except ValueError:
        return traceback.format_exc()


@pytest.mark.parametrize("printed", ["", "}\n", "ValueError: {\n}\n", "Traceback (most recent call last):\n"])
def test_a_traceback_is_added_to_a_log_that_does_not_end_with_it(tmp_path: Path, printed: str) -> None:
    log = tmp_path / "1.log"
    log.write_text(printed)
    text = raised()
    for _ in range(2):
        write_missing_traceback(text, log)
    assert log.read_text() == printed + text


def test_a_log_that_is_gone_is_no_error(tmp_path: Path) -> None:
    write_missing_traceback(raised(), tmp_path / "gone" / "1.log")
    assert os.listdir(tmp_path) == []
