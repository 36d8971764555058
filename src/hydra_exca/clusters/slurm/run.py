"""Runs Slurm's commands."""

from __future__ import annotations

import typing as tp

from hydra_exca.clusters.process import run_program

if tp.TYPE_CHECKING:
    import subprocess

ANSWER_S = 30.0  # a scheduler that takes longer does not answer


def read_output(command: list[str], timeout_s: float = ANSWER_S) -> str | None:
    """The output of a Slurm command, None if it failed or gave no answer in time."""
    done = run_program(command, timeout_s)
    return None if done is None or done.returncode != 0 else done.stdout


def run_command(
    command: list[str], timeout_s: float = ANSWER_S, environment: tp.Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str] | None:
    """The answer to a Slurm command, None if there is none in time."""
    return run_program(command, timeout_s, environment)
