"""A program that starts its own command line again, as Lightning's ddp does for its other ranks.

Under a launcher that would be a launch of the whole sweep. Instead, the new process computes the task that started it:
from the same copy of the code and with the same configuration. It takes no claim and stores nothing, and its exit code
tells how it went. Started as ``python -m hydra_exca.job.second_start <launch folder> <position>``.
"""

from __future__ import annotations

import os
import sys
import typing as tp
from pathlib import Path

from hydra_exca.errors import JobError
from hydra_exca.store import Entry

from .attempt import Attempt, LoadedProgram
from .enclosing import EnclosingTask
from .payload import read_part, read_payload


def repeats_command(task: EnclosingTask) -> bool:
    """Whether this process runs the command line that launched ``task``, perhaps with more arguments."""
    argv = read_payload(Path(task.launch)).argv
    is_same_program = os.path.basename(sys.argv[0]) == os.path.basename(argv[0])
    return is_same_program and tuple(sys.argv[1 : len(argv)]) == argv[1:]


def compute_instead(task: EnclosingTask) -> tp.NoReturn:
    """Makes this process one that computes ``task``. It keeps its id, its environment and its output."""
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-u", "-P", "-m", __name__, task.launch, str(task.position)]
    os.execv(sys.executable, command)


def run(launch: Path, position: int) -> None:
    """Computes a task once more beside its attempt. Prints the traceback and raises SystemExit if the task raises."""
    payload = read_payload(launch)
    part = read_part(launch, payload, position)
    entry = Entry(Path(part.entry))
    claim = entry.current_claim()
    if claim is None or claim.token != launch.name:
        raise JobError(f"{entry.uid}: the task that started this process is not computed any more by {launch.name}")
    attempt = Attempt(entry, claim, code=None if payload.copy is None else payload.copy.digest)
    try:
        LoadedProgram(launch, payload, ready=lambda: None).compute_function(part, position)(attempt)
    except Exception:  # noqa: BLE001  its traceback is printed already
        raise SystemExit(1) from None


if __name__ == "__main__":
    from hydra_exca.job.second_start import run as run_again  # not this module's own copy, which is __main__

    run_again(Path(sys.argv[1]), int(sys.argv[2]))
