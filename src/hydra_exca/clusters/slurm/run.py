"""Runs Slurm's commands."""

from __future__ import annotations

import logging
import os
import threading
import typing as tp

from hydra_exca.clusters.process import run_program

if tp.TYPE_CHECKING:
    import subprocess

log = logging.getLogger("exca.clusters")
_LATE_S = 5.0  # after which a user wonders
_silent = threading.Event()  # set where that was said, until Slurm answers
ANSWER_S = 30.0  # a scheduler that takes longer does not answer
_DEFAULTS = ("SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SBATCH_")


def read_output(command: list[str], timeout_s: float = ANSWER_S) -> str | None:
    """The output of a Slurm command, None if it failed or gave no answer in time."""
    done = run_command(command, timeout_s)
    return None if done is None or done.returncode != 0 else done.stdout


def run_command(
    command: list[str],
    timeout_s: float = ANSWER_S,
    environment: tp.Mapping[str, str] | None = None,
    text: str | None = None,
) -> subprocess.CompletedProcess[str] | None:
    """The answer to a Slurm command that reads ``text``, None if there is none in time.

    Says so, once, if that takes long.
    """
    late = threading.Timer(_LATE_S, _say_that_slurm_is_silent, (command[0],))
    late.daemon = True
    late.start()
    try:
        done = run_program(command, timeout_s, _without_defaults() if environment is None else environment, text)
    finally:
        late.cancel()
    if done is not None and done.returncode == 0:
        _silent.clear()
    return done


def _say_that_slurm_is_silent(command: str) -> None:
    if not _silent.is_set():
        _silent.set()
        log.warning("exca: Slurm has not answered %s for %g s; it is waited for", command, _LATE_S)


def _without_defaults() -> dict[str, str]:
    """The environment without the user's default options, which would hide jobs (SQUEUE_STATES) or lines."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_DEFAULTS)}
