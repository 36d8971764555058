"""A program that starts its own command line again, as Lightning's ddp does for its other ranks.

Under a launcher that would be a launch of the whole sweep. Instead, the new process computes the task that started it:
from the same copy of the code and with the same configuration. It takes no claim and stores nothing, and its exit code
tells how it went. Started as ``python -m hydra_exca.job.repeated_command <launch folder> <position>``.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import typing as tp
from pathlib import Path

from hydra_exca.clusters import process
from hydra_exca.clusters.base import SECOND_START
from hydra_exca.errors import ExcaError, JobError
from hydra_exca.store import ClaimState, Entry

from .attempt import Attempt, LoadedProgram
from .enclosing import EnclosingTask, starting_task
from .payload import read_part, read_payload

log = logging.getLogger("exca.job")


class Starter(tp.NamedTuple):
    """The task that started this program: its uid, and the command line of its launch."""

    task: EnclosingTask
    uid: str
    argv: tuple[str, ...]

    def has_this_command(self) -> bool:
        """Whether this process runs the command line of the launch, perhaps with more arguments."""
        is_same_program = os.path.basename(sys.argv[0]) == os.path.basename(self.argv[0])
        return is_same_program and tuple(sys.argv[1 : len(self.argv)]) == self.argv[1:]


def computed_starter() -> Starter | None:
    """The task that started this program, if it is still being computed; None for any other program."""
    task = starting_task()
    if task is None:
        return None
    launch = Path(task.launch)
    try:
        payload = read_payload(launch)
        entry = Entry(Path(read_part(launch, payload, task.position).entry))
        claim, outcome = entry.current_claim(), entry.outcome()
    except (OSError, ExcaError, pickle.UnpicklingError):  # a task of this process has no payload, old ones are removed
        return None
    if outcome is not None or claim is None or claim.state is not ClaimState.RUNNING or claim.token != launch.name:
        return None
    return None if process.is_alive(claim.owner) is False else Starter(task, entry.uid, payload.argv)


def compute_instead(starter: Starter) -> tp.NoReturn:
    """Makes this process one that computes the task. It keeps its id, its environment and its output.

    Raises JobError in a process that was started by such a process: it would go on so without end.
    """
    task, uid = starter.task, starter.uid
    if SECOND_START in os.environ:
        raise JobError(
            f"{uid} starts its own command line again in every process that it starts so: there is no end to it"
        )
    log.info("exca: this process computes %s, the task that started it, and stores nothing", uid)
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-u", "-P", "-m", __name__, task.launch, str(task.position)]
    os.execve(sys.executable, command, {**os.environ, SECOND_START: "1"})


def run(launch: Path, position: int) -> None:
    """Computes a task once more beside its attempt. Prints the traceback and raises SystemExit if the task raises."""
    payload = read_payload(launch)
    part = read_part(launch, payload, position)
    entry = Entry(Path(part.entry))
    claim = entry.current_claim()
    if claim is None or claim.token != launch.name:
        raise JobError(f"{entry.uid}: the task that started this process is not computed any more by {launch.name}")
    attempt = Attempt(entry, claim, code=payload.all_code)
    try:
        LoadedProgram(launch, payload, ready=lambda: None).compute_function(part, position)(attempt)
    except Exception:  # noqa: BLE001  its traceback is printed already
        raise SystemExit(1) from None


if __name__ == "__main__":
    from hydra_exca.job.repeated_command import run as run_again  # not this module's own copy, which is __main__

    run_again(Path(sys.argv[1]), int(sys.argv[2]))
