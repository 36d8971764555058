"""With ``--no-programs`` a test that starts a program and has no mark for it fails, so that the marks stay true.

What is seen are Python's audit events, and the call by which multiprocessing starts a process, which has none.
"""

from __future__ import annotations

import _posixsubprocess
import sys
from typing import Any

import pytest

_EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"}


def may_start_programs(test: pytest.Item) -> bool:
    return any(test.get_closest_marker(mark) for mark in ("app", "slurm"))


def explain(started: list[str]) -> str:
    return (
        f"this test starts a program, {started[0][:300]}, and is not marked: mark it with @pytest.mark.app, "
        "or have it do without (CONTRIBUTING.md, Tests)"
    )


class ProgramGuard:
    """Refuses to start programs between `start` and `stop`."""

    def __init__(self) -> None:
        self._is_on = False
        self._started: list[str] = []
        sys.addaudithook(self._see)  # for good: Python has no way to remove one
        fork_exec = _posixsubprocess.fork_exec

        def seen_fork_exec(*arguments: Any) -> int:
            self._refuse(f"by multiprocessing: {arguments[0]}")
            return fork_exec(*arguments)

        _posixsubprocess.fork_exec = seen_fork_exec

    def start(self) -> None:
        self._is_on = True
        self._started.clear()

    def stop(self) -> list[str]:
        """What was to be started since `start`."""
        self._is_on = False
        return list(self._started)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS:
            self._refuse(f"by {event}{arguments[:2]}")

    def _refuse(self, what: str) -> None:
        if self._is_on:
            self._started.append(what)
            pytest.fail(explain(self._started))  # not an Exception, which what is tested may catch
