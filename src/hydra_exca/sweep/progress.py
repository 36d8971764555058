"""How far a sweep is, while it waits: a line that lives on a terminal, and a line every minute elsewhere."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import time
import typing as tp

from hydra_exca.launch.launch import Launch
from hydra_exca.launch.progress import Progress
from hydra_exca.launch.results import Result
from hydra_exca.status import ProgressKind, Status

log = logging.getLogger("exca.sweep")
_REFRESH_S = 0.5
_PLAIN_S = 60.0
_SHOWN_REASONS = 2


class SweepProgress:
    """The progress of a launch, in words."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._failed = self._timed = 0
        self._seconds = 0.0

    def count(self, result: Result) -> None:
        """Counts a task that has ended, and how long it took."""
        outcome = result.outcome
        self._failed += result.error is not None and result.how != "not run"
        if outcome is not None and outcome.started and outcome.ended and outcome.status is Status.COMPLETED:
            self._timed += 1
            self._seconds += outcome.ended - outcome.started

    def __str__(self) -> str:
        progress = self._launch.progress()
        return describe_progress(progress, self._failed, self._seconds_left(progress))

    def _seconds_left(self, progress: Progress) -> float | None:
        """About how long the tasks that run or are queued take, by how long others took; None if none has ended."""
        if not self._timed or not progress.running:
            return None
        return self._seconds / self._timed * (progress.running / 2 + progress.queued) / progress.running


def describe_progress(progress: Progress, failed: int, seconds_left: float | None) -> str:
    """The progress in one line.

    >>> from collections import Counter
    >>> progress = Progress(100, 40, 8, 49, 3, 12, Counter({"Priority": 40, "": 9}))
    >>> describe_progress(progress, 3, 200.0)
    '40 of 100 done, 3 failed, 8 running, 49 queued (Priority), 3 joined, 12 reused, about 3 min left'
    """
    reasons = [reason for reason, _ in progress.reasons.most_common() if reason][:_SHOWN_REASONS]
    counts = {
        "failed": failed,
        "running": progress.running,
        f"queued ({', '.join(reasons)})" if reasons else "queued": progress.queued,
        "joined": progress.joined,
        "reused": progress.reused,
    }
    parts = [f"{progress.ended} of {progress.total} done", *(f"{n} {what}" for what, n in counts.items() if n)]
    if seconds_left is not None:
        parts.append(f"about {_describe_duration(seconds_left)} left")
    return ", ".join(parts)


def _describe_duration(seconds: float) -> str:
    """A duration for people.

    >>> _describe_duration(42), _describe_duration(200), _describe_duration(8000), _describe_duration(200000)
    ('42 s', '3 min', '2 h 13 min', '2 d 7 h')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if minutes < 90:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


@contextlib.contextmanager
def shown_progress(launch: Launch, kind: ProgressKind, is_here: bool) -> tp.Iterator[None]:
    """Shows the progress of a launch while it waits. Tasks that run in this process (``is_here``) own its terminal."""
    progress, say_result = SweepProgress(launch), launch.on_result

    def count(result: Result) -> None:
        progress.count(result)
        say_result(result)

    launch.on_result = count
    is_live = (
        kind is ProgressKind.AUTO and not is_here and _is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"
    )
    if kind is ProgressKind.OFF:
        yield
    elif is_live:
        with _live_line(progress) as refresh:
            launch.on_poll = _Throttled(refresh, _REFRESH_S)
            yield
    else:
        launch.on_poll = _Throttled(lambda: log.info("exca: %s", progress), _PLAIN_S)
        yield


class _Throttled:
    """Calls ``show`` at most every ``pause_s`` seconds, the first time after that."""

    def __init__(self, show: tp.Callable[[], object], pause_s: float) -> None:
        self._show = show
        self._pause_s = pause_s
        self._next = time.monotonic() + pause_s

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            self._show()
            self._next = time.monotonic() + self._pause_s


@contextlib.contextmanager
def _live_line(progress: SweepProgress) -> tp.Iterator[tp.Callable[[], object]]:
    """A line at the bottom of the terminal, above which loggers print; gives the function that refreshes it."""
    from rich.console import Console  # only for people at a terminal
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True)
    live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)

    def refresh() -> None:
        with _ignoring_lost_terminal():
            live.update(Text(f"exca: {progress}", overflow="ellipsis", no_wrap=True), refresh=True)

    try:
        with _ignoring_lost_terminal():
            live.start()
        with _printing_above(lambda text: console.out(text, highlight=False)):
            yield refresh
    finally:
        with _ignoring_lost_terminal():
            live.stop()


def _ignoring_lost_terminal() -> contextlib.suppress:
    """A launch goes on without its terminal."""
    return contextlib.suppress(OSError, ValueError)


@contextlib.contextmanager
def _printing_above(print_lines: tp.Callable[[str], None]) -> tp.Iterator[None]:
    """Hands what loggers write to a terminal to ``print_lines``."""
    replaced = []
    for handler in _terminal_handlers():
        stream, writer = handler.stream, _LineWriter(print_lines)
        with contextlib.suppress(AttributeError, OSError, ValueError):  # some always write to the present sys.stderr
            handler.setStream(writer)
            replaced.append((handler, stream, writer))
    try:
        yield
    finally:
        for handler, stream, writer in replaced:
            if handler.stream is writer:  # nobody has given it another one meanwhile
                handler.setStream(stream)


def _terminal_handlers() -> list[logging.StreamHandler[tp.Any]]:
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    handlers = {handler: None for logger in loggers for handler in getattr(logger, "handlers", ())}
    return [h for h in handlers if isinstance(h, logging.StreamHandler) and _is_terminal(h.stream)]


def _is_terminal(stream: tp.Any) -> bool:
    with contextlib.suppress(AttributeError, ValueError):  # closed, or no stream at all
        return bool(stream.isatty())
    return False


class _LineWriter(io.TextIOBase):
    """A stream that hands on whole lines."""

    def __init__(self, print_lines: tp.Callable[[str], None]) -> None:
        self._print_lines = print_lines
        self._rest = ""

    def write(self, text: str) -> int:
        lines, newline, self._rest = (self._rest + text).rpartition("\n")
        if newline:
            self._print_lines(lines)
        return len(text)
