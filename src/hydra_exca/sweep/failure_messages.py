"""The messages about failed tasks: equal failures once as they happen, and once, with their number, at the end."""

from __future__ import annotations

import logging
import re
import typing as tp
from pathlib import Path

from hydra_exca.errors import ExcaError, JobLostError, NotRunError, TaskFailedError
from hydra_exca.launch.results import LOG_LINE, Result, describe_earlier_failure
from hydra_exca.launch.user_frames import own_frames
from hydra_exca.status import Status
from hydra_exca.text import name_some, one_line, relative_path, with_message

log = logging.getLogger("exca.sweep")
_SHOWN_FRAMES = 3
_SHOWN_LOG_LINES = 5
_MESSAGE_LENGTH = 300
_NUMBER = re.compile(r"\d+")


def say_failure(said: dict[tp.Hashable, int], result: Result) -> None:
    """Logs a failure as it happens, unless equal ones were logged before; ``said`` counts them."""
    error = result.error
    if error is None or isinstance(error, NotRunError):
        return
    kind = _kind_of_failure(result)
    said[kind] = said.get(kind, 0) + 1
    if said[kind] == 1:
        log.error("exca: %s failed: %s", name_task(result), _describe(error))
    elif said[kind] == 2:
        log.error("exca: %s failed in the same way; more like it are counted at the end", name_task(result))


def say_failures(failed: tp.Sequence[Result]) -> None:
    """Logs the failures of a sweep at its end: each kind in one line, with an example."""
    groups: dict[tp.Hashable, list[Result]] = {}
    for result in failed:
        groups.setdefault(_kind_of_failure(result), []).append(result)
    for group in groups.values():
        log.error("exca: failed: %s -> %s", name_some([name_task(result) for result in group]), _headline(group))


def name_task(result: Result) -> str:
    """The task by its overrides."""
    return " ".join(result.task.overrides) or result.uid


def _kind_of_failure(result: Result) -> tp.Hashable:
    """Equal for tasks that failed in the same way: by the same error at the same place, or by one end of their jobs."""
    error = result.error
    if isinstance(error, JobLostError) and error.state:
        return error.state, result.status, result.how
    if isinstance(error, TaskFailedError):
        place = [frame[:3] for frame in own_frames(error.traceback)[-1:]]
        return error.type, place[0] if place else error.text, result.how
    return type(error), str(error).replace(result.uid, ""), result.how


def _describe(error: ExcaError) -> str:
    """What happened, where in the user's code, and the log."""
    if not isinstance(error, TaskFailedError):
        log_lines = [line for line in str(error).splitlines() if line.startswith(LOG_LINE)]
        reason = f"{getattr(error, 'state', '') or _shorten(str(error))}{_log_hint(error)}"
        return "\n".join([reason, *log_lines[-_SHOWN_LOG_LINES:]])
    frames = own_frames(error.traceback)[-_SHOWN_FRAMES:]
    lines = [with_message(_class_name(error), _shorten(error.text)), *map(_shorten, error.notes), *map(str, frames)]
    lines += [f"log: {relative_path(Path(error.log))}"] if error.log else []
    return "\n    ".join(lines)


def _headline(group: tp.Sequence[Result]) -> str:
    """What became of a task, and of others like it, in one line."""
    first, error = group[0], group[0].error
    assert error is not None
    if isinstance(error, JobLostError) and error.state and len(group) > 1:
        then = "" if first.status is Status.FAILED else ". Nothing is stored: the same command submits the tasks again"
        log_hint = _log_hint(error, "one log")
        return f"each job ended without a result: {error.state}{log_hint}{then}{_retry_hint(first)}"
    message = str(error).replace(getattr(error, "type", "") or "\0", _class_name(error))
    messages = {_NUMBER.sub("", getattr(result.error, "text", "")) for result in group}  # at one place many may fail
    example = f"{len(messages)} different messages, for example " if len(messages) > 1 else "for example "
    return f"{example if len(group) > 1 else ''}{_shorten(message)}{_log_hint(error)}{_retry_hint(first)}"


def _shorten(text: str) -> str:
    return one_line((text.splitlines() or [""])[0], _MESSAGE_LENGTH)


def _retry_hint(result: Result) -> str:
    if result.how != "cached" or result.outcome is None or result.outcome.error is None:
        return ""
    return f"; {describe_earlier_failure(result.outcome, 'hydra.launcher.')}"


def _log_hint(error: ExcaError, name: str = "log") -> str:
    path = getattr(error, "log", None)
    return f" ({name}: {relative_path(Path(path))})" if path else ""


def _class_name(error: ExcaError) -> str:
    """The class of what a task raised, without its module."""
    return str(getattr(error, "type", "") or type(error).__name__).rpartition(".")[2]
