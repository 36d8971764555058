"""The words for where a task stands and for what a launch does about it."""

from __future__ import annotations

import enum


class Status(enum.StrEnum):
    """Where a task stands. The four values are public."""

    NOT_SUBMITTED = "not submitted"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether an outcome is stored: the status changes only by running the task again."""
        return self in (Status.COMPLETED, Status.FAILED)


class Mode(enum.StrEnum):
    """What a launch does with tasks that were asked for before. The four values are public."""

    CACHED = "cached"
    RETRY = "retry"
    FORCE = "force"
    READ_ONLY = "read-only"


class OnFailure(enum.StrEnum):
    """What a launch does when a task has failed. The three values are public."""

    CONTINUE = "continue"
    STOP = "stop"
    CANCEL = "cancel"


class OnInterrupt(enum.StrEnum):
    """What becomes of the jobs of a launch that is interrupted. The two values are public."""

    DETACH = "detach"
    CANCEL = "cancel"


class OnCodeChange(enum.StrEnum):
    """What a launch does with stored results that other code has computed. The four values are public."""

    WARN = "warn"
    IGNORE = "ignore"
    ERROR = "error"
    RERUN = "rerun"
