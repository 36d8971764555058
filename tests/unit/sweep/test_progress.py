"""The lines in which a sweep says how far it is."""

import io
import logging
import os
import pty
import sys
import types
import typing as tp
from collections import Counter

import pytest

from hydra_exca.launch.progress import Progress
from hydra_exca.status import ProgressKind, Status
from hydra_exca.sweep import progress


class FakeLaunch:
    """As much of a launch as is looked at."""

    def __init__(self) -> None:
        self.on_result: tp.Callable[[tp.Any], None] = lambda result: None
        self.on_poll: tp.Callable[[], None] = lambda: None

    def progress(self) -> Progress:
        return Progress(3, 1, 1, 1, 0, 0, Counter({"Priority": 1}))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize(("kind", "lines"), [("auto", 2), ("plain", 2), ("off", 0)])
def test_without_a_terminal_there_is_a_line_every_minute(
    kind: str, lines: int, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "exca.sweep")
    launch: tp.Any = FakeLaunch()
    with progress.shown_progress(launch, ProgressKind(kind), is_here=False):
        for now in range(0, 150, 5):
            clock[0] = now
            launch.on_poll()
    assert caplog.messages == ["exca: 1 of 3 done, 1 running, 1 queued (Priority)"] * lines


def test_the_time_left_follows_from_how_long_tasks_took_and_how_many_run() -> None:
    shown = progress.SweepProgress(tp.cast(tp.Any, FakeLaunch()))
    outcome = types.SimpleNamespace(started=10.0, ended=30.0, status=Status.COMPLETED)
    shown.count(tp.cast(tp.Any, types.SimpleNamespace(outcome=outcome, error=None, how="run")))
    assert str(shown).endswith("about 30 s left")  # half of the one that runs, and the queued one


def test_a_failed_task_counts_as_failed_and_one_that_was_not_run_does_not() -> None:
    shown = progress.SweepProgress(tp.cast(tp.Any, FakeLaunch()))
    for how in ("run", "joined", "not run"):
        shown.count(tp.cast(tp.Any, types.SimpleNamespace(outcome=None, error=ValueError(), how=how)))
    assert "2 failed" in str(shown)


@pytest.fixture
def terminal() -> tp.Iterator[tp.TextIO]:
    controller, end = pty.openpty()
    with os.fdopen(end, "w") as stream, os.fdopen(controller):
        yield stream


class PresentStderrHandler(logging.StreamHandler[tp.Any]):
    """A handler whose stream is always the present sys.stderr, as that of `logging.lastResort`."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> tp.Any:  # type: ignore[override]
        return sys.stderr


def test_handlers_keep_streams_that_they_get_meanwhile_and_those_that_nobody_sets(
    terminal: tp.TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    logger = logging.getLogger("of the user")
    logger.handlers = [PresentStderrHandler(), logging.StreamHandler(terminal), logging.StreamHandler(terminal)]
    own = io.StringIO()
    with progress.shown_progress(tp.cast(tp.Any, FakeLaunch()), ProgressKind.AUTO, is_here=False):
        logger.handlers[1].setStream(own)  # type: ignore[attr-defined]
    assert [handler.stream for handler in logger.handlers] == [terminal, own, terminal]  # type: ignore[attr-defined]
    logger.handlers.clear()


def test_a_closed_standard_error_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    with progress.shown_progress(tp.cast(tp.Any, FakeLaunch()), ProgressKind.AUTO, is_here=False):
        pass
