"""What a job asks of Slurm: how much time it has left, to be requeued, a name, and whether another job has ended.

For each command a function that builds it and one that reads what it prints, both pure.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
import typing as tp

from .run import read_output, run_command

_ANSWER_S = 15.0  # a job that is about to end has little time
_EARLY_S = 60.0  # Slurm may send its signal this much earlier than asked for (sbatch(1), --signal)
_UNKNOWN = "Invalid job id"


def time_left_command(job: str) -> list[str]:
    return ["squeue", "-h", "-j", job, "-o", "%L"]


def state_command(job: str) -> list[str]:
    return ["squeue", "-h", "-j", job, "-o", "%T"]


def rename_command(job: str, name: str) -> list[str]:
    return ["scontrol", "update", f"JobId={job}", f"JobName={name}"]


def requeue_command(job: str) -> list[str]:
    return ["scontrol", "requeue", job]


def time_left(job: str) -> float | None:
    """The seconds that this job may still run, None if they are not known."""
    from . import commands  # imported here: most jobs never ask

    left = commands.read_duration(read_output(time_left_command(job), _ANSWER_S) or "")
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    return left if left is not None or not end.isdecimal() else float(end) - time.time()


def is_out_of_time(job: str, delay_s: float) -> bool:
    """Whether a job was warned because of its time limit, and not because it is preempted."""
    left = time_left(job)
    return left is None or left <= delay_s + _EARLY_S


def requeue(job: str) -> str:
    """Requeues a job, whose processes Slurm then ends; returns why it refuses, "" if it does not."""
    answer = run_command(requeue_command(job), _ANSWER_S)
    if answer is None:
        return "Slurm does not answer"
    said = (answer.stderr + answer.stdout).strip()
    return "" if answer.returncode == 0 else said or f"scontrol ended with status {answer.returncode}"


def name_job(name: str, tasks: tp.Sequence[str]) -> str:
    """The name of a job or an array that computes these tasks.

    >>> name_job("train", ["seed=3"]), name_job("train", ["seed=1", "seed=2"])
    ('train[seed=3]', 'train[2 tasks]')
    """
    return f"{name}[{tasks[0] or 'default' if len(tasks) == 1 else f'{len(tasks)} tasks'}]"


def name_element(task: str) -> None:
    """Gives this job the name of its task, if it is in an array that has the name of all; nobody waits for that.

    It takes one call of the controller for each job, beside the several with which Slurm starts it. The command is no
    child of this process: a task may wait for all children that it has.
    """
    of_all = re.fullmatch(r"(.+)\[\d+ tasks\]", os.environ.get("SLURM_JOB_NAME", ""), re.DOTALL)
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if of_all is None or array is None:
        return
    command = rename_command(f"{array}_{index}", name_job(of_all[1], [task]))
    with contextlib.suppress(OSError):
        subprocess.run(["/bin/sh", "-c", '"$0" "$@" </dev/null >/dev/null 2>&1 &', *command], check=False)


def has_ended(job: str) -> bool:
    """Whether Slurm knows that a job has ended."""
    from . import commands  # imported here: most jobs never ask

    answer = run_command(state_command(job), _ANSWER_S)
    if answer is None:
        return False
    if answer.returncode != 0:
        return _UNKNOWN in answer.stderr
    return all(state in commands.ENDED for state in answer.stdout.split())
