"""The action of a launch for a task, by its status and the mode: one table, no side effects."""

from __future__ import annotations

import enum

from hydra_exca.status import Mode, OnCodeChange, Status


class Action(enum.StrEnum):
    """The action of a launch for one task."""

    REUSE = "reuse"
    RAISE = "raise the stored error"
    JOIN = "join"
    RUN = "run"
    CANCEL_AND_RUN = "cancel, then run"
    REFUSE = "refuse"

    @property
    def uses_stored(self) -> bool:
        """Whether the stored value or error is used as it is."""
        return self in (Action.REUSE, Action.RAISE)


_TABLE = {
    Status.NOT_SUBMITTED: (Action.RUN, Action.RUN, Action.RUN, Action.REFUSE),
    Status.RUNNING: (Action.JOIN, Action.JOIN, Action.CANCEL_AND_RUN, Action.JOIN),
    Status.COMPLETED: (Action.REUSE, Action.REUSE, Action.RUN, Action.REUSE),
    Status.FAILED: (Action.RAISE, Action.RUN, Action.RUN, Action.RAISE),
}
_MODES = (Mode.CACHED, Mode.RETRY, Mode.FORCE, Mode.READ_ONLY)


def decide(status: Status, mode: Mode) -> Action:
    """The action for a task with this status in this mode.

    >>> decide(Status.FAILED, Mode.RETRY)
    <Action.RUN: 'run'>
    """
    return _TABLE[status][_MODES.index(mode)]


def mode_for_other_code(status: Status, mode: Mode, on_change: OnCodeChange) -> Mode:
    """The mode for a task whose stored outcome comes from different code.

    A failure is run again, as that is what an edit is for. Read-only stays so: whoever asks for it wants nothing to
    run.

    >>> mode_for_other_code(Status.COMPLETED, Mode.CACHED, OnCodeChange.RERUN)
    <Mode.FORCE: 'force'>
    >>> mode_for_other_code(Status.FAILED, Mode.CACHED, OnCodeChange.WARN)
    <Mode.RETRY: 'retry'>
    """
    if mode is Mode.READ_ONLY or not decide(status, mode).uses_stored:
        return mode
    if on_change is OnCodeChange.RERUN:
        return Mode.FORCE
    return Mode.RETRY if on_change is OnCodeChange.WARN and status is Status.FAILED else mode
