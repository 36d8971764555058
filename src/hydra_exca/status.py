"""The status of a task, and the choices of a launch."""

from __future__ import annotations

import enum


class Status(enum.StrEnum):
    """The status of a task. The four values are public."""

    NOT_SUBMITTED = "not submitted"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether an outcome is stored: the status changes only by running the task again."""
        return self in (Status.COMPLETED, Status.FAILED)


class Mode(enum.StrEnum):
    """How a launch treats tasks that were run before. The four values are public."""

    CACHED = "cached"
    RETRY = "retry"
    FORCE = "force"
    READ_ONLY = "read-only"


class OnFailure(enum.StrEnum):
    """How a launch goes on when a task has failed. The three values are public."""

    CONTINUE = "continue"
    STOP = "stop"
    CANCEL = "cancel"


class OnInterrupt(enum.StrEnum):
    """What happens to the jobs of an interrupted launch. The two values are public."""

    DETACH = "detach"
    CANCEL = "cancel"


class OnUnresolved(enum.StrEnum):
    """What a sweep does about a leaf that does not resolve, as a variable is unset or a resolver fails."""

    ERROR = "error"
    WARN = "warn"


class OnCodeChange(enum.StrEnum):
    """How a launch treats stored results that were computed with different code. The four values are public."""

    WARN = "warn"
    IGNORE = "ignore"
    ERROR = "error"
    RERUN = "rerun"


class ProgressKind(enum.StrEnum):
    """How a launch that waits says how far it is."""

    AUTO = "auto"  # a line that lives on a terminal, else as plain
    PLAIN = "plain"
    OFF = "off"
