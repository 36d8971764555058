"""What a launch returns for each task, and how the error of one without a value is told."""

from __future__ import annotations

import dataclasses
import typing as tp
from pathlib import Path

from hydra_exca.errors import ExcaError, JobLostError, TaskFailedError
from hydra_exca.store import Entry

from .lookup import LookupResult
from .settings import Task


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of one task: a value or an error, and whether it was cached, joined or run."""

    task: Task
    standing: LookupResult
    how: str
    value: tp.Any = None
    error: ExcaError | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is still to come."""
        return self.standing.outcome is None and self.standing.problem is None

    @property
    def entry(self) -> Entry:
        assert self.standing.entry is not None
        return self.standing.entry


def stored_error(standing: LookupResult) -> ExcaError:
    """The error of a task without a value: what it raised, or how its job was lost."""
    if standing.problem is not None:
        return standing.problem
    entry, outcome = standing.entry, standing.outcome
    assert entry is not None and outcome is not None and outcome.error is not None
    stored = outcome.error
    job: dict[str, tp.Any] = {"factory": standing.identity.factory, "uid": entry.uid}
    log_path = entry.log_path(outcome)
    job.update(job_id=outcome.job, log=log_path)
    log_line = f"\n  log: {log_path}" if log_path else ""
    if stored["kind"] == "lost":
        tail = _tail(log_path)
        job_name = " ".join(filter(None, [outcome.cluster, outcome.job]))
        message = f"{entry.uid}: its job ({job_name}) ended without a result: {stored['message']}"
        message += "; the earlier value is stored again" if entry.has_value() else ""
        return JobLostError(f"{message}{log_line}{tail}", state=stored["message"], **job)
    kept_line = f"\n  an earlier value is kept in {entry.path}" if entry.has_previous() else ""
    message = f"{entry.uid} raised {stored['type']}: {stored['message']}{log_line}{kept_line}\n{stored['traceback']}"
    kept = {"type": stored["type"], "text": stored["message"], "traceback": stored["traceback"]}
    return TaskFailedError(message, **kept, **job)


def _tail(path: str | None, lines: int = 10) -> str:
    """The end of a log, indented, for a message."""
    try:
        text = Path(path).read_text(errors="replace") if path else ""
    except OSError:
        return ""
    return "".join(f"\n    | {line}" for line in text.splitlines()[-lines:])
