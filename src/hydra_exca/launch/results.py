"""The result of each task of a launch, and the error of one without a value."""

from __future__ import annotations

import dataclasses
import time
import typing as tp

from hydra_exca import files
from hydra_exca.errors import CacheError, CorruptEntryError, ExcaError, JobLostError, TaskFailedError
from hydra_exca.status import Status
from hydra_exca.store import Entry, Outcome
from hydra_exca.text import with_message

from .settings import Task

LOG_LINE = "    | "
"""What a line of a log begins with in a message."""
_TAIL_BYTES = 1 << 16
_NOTHING_STORED = "Nothing is stored: the same command computes {} again"


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of one task: a value or an error, and whether it was cached, joined, run or not run.

    ``entry_or_none`` is None if nothing was ever stored or claimed for it; ``uid`` is then the name it would have.
    """

    task: Task
    how: str
    status: Status
    uid: str
    entry_or_none: Entry | None = None
    outcome: Outcome | None = None
    value: tp.Any = None
    error: ExcaError | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is still to come."""
        return self.outcome is None and self.error is None

    @property
    def entry(self) -> Entry:
        """Its entry, which a task that was cached, joined or run always has."""
        assert self.entry_or_none is not None, "nothing was stored or claimed"
        return self.entry_or_none


def describe_earlier_failure(outcome: Outcome, option_prefix: str) -> str:
    """When a stored failure happened, and the option that runs the task again."""
    ended = time.strftime("%Y-%m-%d %H:%M", time.localtime(outcome.ended))
    return f"it failed on {ended} and was not run again: {option_prefix}mode=retry runs what failed"


def stored_error(entry: Entry, outcome: Outcome, factory: str, note: str = "") -> ExcaError:
    """The error that an outcome without a value stands for: what the task raised, or how its job was lost.

    ``note`` is a further line of the message.
    """
    assert outcome.error is not None
    stored = {"type": "an error", "message": "", "traceback": "", **outcome.error}
    if stored["kind"] == "lost":
        return lost_job_error(entry, outcome, factory, note=note)
    log_path = entry.log_path(outcome)
    lines = [f"{entry.uid} raised {with_message(stored['type'], stored['message'])}"]
    lines += [f"  log: {log_path}"] if log_path else []
    lines += [f"  {note}"] if note else []
    lines += [f"  an earlier value is kept in {entry.path}"] if entry.has_previous() else []
    job: dict[str, tp.Any] = {"factory": factory, "uid": entry.uid, "job_id": outcome.job, "log": log_path}
    return TaskFailedError("\n".join([*lines, stored["traceback"]]), **original_error(stored), **job)


def original_error(description: dict[str, tp.Any]) -> dict[str, tp.Any]:
    """What a TaskFailedError says of the error that the task raised, of its description."""
    kept = {name: description[name] for name in ("type", "traceback")}
    return {**kept, "text": description["message"], "notes": description.get("notes") or ()}


def lost_job_error(entry: Entry, outcome: Outcome, factory: str, is_stored: bool = True, note: str = "") -> ExcaError:
    """The error of a task whose job has left no outcome. ``is_stored``: it is the outcome of the task now."""
    assert outcome.error is not None
    if outcome.error["kind"] == "disk":
        return _passing(CacheError(f"{outcome.error['message']}. {_NOTHING_STORED.format(entry.uid)}"))
    if outcome.error["kind"] == "nested":
        message = f"{entry.uid} asks for another task: {outcome.error['message']}\n{_NOTHING_STORED.format(entry.uid)}"
        return _passing(JobLostError(message, factory=factory, uid=entry.uid, job_id=outcome.job))
    reason, log_path = outcome.error["message"], entry.log_path(outcome)
    job = " ".join(filter(None, [outcome.cluster, outcome.job]))
    if entry.has_value():
        then = "; the earlier value is stored again"
    else:
        then = "" if is_stored else ". Nothing is stored: the same command or call submits the task again"
    lines = [f"{entry.uid}: its job ({job}) ended without a result: {reason}{then}"]
    lines += [f"  {note}"] if note else []
    lines += [f"  log: {log_path}{_tail(log_path)}" if log_path else "  log: none, it printed nothing"]
    error = JobLostError(
        "\n".join(lines), state=reason, factory=factory, uid=entry.uid, job_id=outcome.job, log=log_path
    )
    return error if is_stored else _passing(error)


def _passing(error: ExcaError) -> ExcaError:
    error.is_passing = True
    return error


def _tail(path: str | None, lines: int = 10) -> str:
    """The end of a log, indented, for a message."""
    try:
        text = files.read_end(path, _TAIL_BYTES) if path else ""
    except (OSError, CorruptEntryError):
        return ""
    return "".join(f"\n{LOG_LINE}{line}" for line in text.splitlines()[-lines:])
