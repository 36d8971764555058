"""What a launch does about a task: the whole table."""

from __future__ import annotations

import pytest

from hydra_exca.launch.actions import Action, decide
from hydra_exca.status import Mode, Status

TABLE = {
    Status.NOT_SUBMITTED: {"cached": "run", "retry": "run", "force": "run", "read-only": "refuse"},
    Status.RUNNING: {"cached": "join", "retry": "join", "force": "cancel, then run", "read-only": "join"},
    Status.COMPLETED: {"cached": "reuse", "retry": "reuse", "force": "run", "read-only": "reuse"},
    Status.FAILED: {
        "cached": "raise the stored error",
        "retry": "run",
        "force": "run",
        "read-only": "raise the stored error",
    },
}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("mode", Mode)
def test_every_status_has_an_action_in_every_mode(status: Status, mode: Mode) -> None:
    assert str(decide(status, mode)) == TABLE[status][mode.value]


def test_read_only_never_runs_anything() -> None:
    assert {decide(status, Mode.READ_ONLY) for status in Status} & {Action.RUN, Action.CANCEL_AND_RUN} == set()


def test_the_public_words_are_these() -> None:
    words = [str(word) for word in (*Status, *Mode)]
    assert words == [
        "not submitted", "running", "completed", "failed", "cached", "retry", "force", "read-only",
    ]  # fmt: skip


def test_a_status_is_final_when_an_outcome_is_stored() -> None:
    assert [status for status in Status if status.is_final] == [Status.COMPLETED, Status.FAILED]
