"""What Slurm 22.05 and 23.11, the shell and srun write about the end of a job, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from hydra_exca.clusters import JobEnd, JobReport
from hydra_exca.clusters.slurm import job_log
from hydra_exca.clusters.slurm.commands import Row

FIGURES = "slurmstepd: error: StepId=182.0 exceeded memory limit (281018368 > 157286400), being killed\n"
EVENT = "slurmstepd: error: Detected 1 oom_kill event in StepId=12.batch. Some of its tasks have been OOM Killed.\n"
OLDER_EVENT = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=12.0 cgroup.\n"
KILLED = "srun: error: n1: task 0: Killed\n"


def report(folder: Path, log: str, state: str = "FAILED", reason: str = "None") -> JobReport:
    (folder / "12_0_log.out").write_text(log)
    return job_log.add_reasons(Row("12", state, reason, "").report(), folder)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (FIGURES + KILLED, "out of memory: 268 of 150 MB (OUT_OF_MEMORY)"),
        (EVENT + KILLED, "out of memory (OUT_OF_MEMORY)"),
        (OLDER_EVENT + KILLED, "out of memory (OUT_OF_MEMORY)"),
        (KILLED, "killed by SIGKILL (FAILED)"),
        ("srun: error: n1: tasks 0,2-3: Segmentation fault (core dumped)\n", "killed by SIGSEGV (FAILED)"),
        ("/spool/slurm_script: line 18: 16879 Killed                  /bin/sh -c x\n", "killed by SIGKILL (FAILED)"),
        ("srun: error: n1: task 1: Exited with exit code 3\n" + KILLED, "exit code 3 (FAILED)"),
        ("Lmod has detected the following error\n", "it exited with an error (FAILED)"),
        ("", "it exited with an error (FAILED)"),
    ],
)
def test_the_end_of_a_job_that_failed_is_told_by_the_messages_in_its_log(tmp_path: Path, log: str, words: str) -> None:
    assert report(tmp_path, log).explanation == words


@pytest.mark.parametrize(
    ("state", "reason"), [("FAILED", "None"), ("FAILED", "JobLaunchFailure"), ("OUT_OF_MEMORY", "OutOfMemory")]
)
def test_a_kill_for_memory_is_that_whatever_state_slurm_gives_it(tmp_path: Path, state: str, reason: str) -> None:
    ended = report(tmp_path, FIGURES, state, reason)
    assert (ended.end, ended.words) == (JobEnd.OUT_OF_MEMORY, "out of memory: 268 of 150 MB")


@pytest.mark.parametrize("state", ["CANCELLED by 0", "NODE_FAIL", "PREEMPTED"])
def test_a_job_that_outlived_the_kill_of_a_process_and_was_then_taken_away_is_no_failure(
    tmp_path: Path, state: str
) -> None:
    assert report(tmp_path, EVENT, state).end in (JobEnd.REMOVED, JobEnd.LOST)


def test_what_was_written_before_the_last_start_is_not_of_it(tmp_path: Path) -> None:
    ended = report(tmp_path, f"{KILLED}{job_log.RESTART}\nloading modules\n")
    assert (ended.slurm_output, ended.never_began) == ("loading modules\n", True)
    assert ended.explanation == "it exited with an error (FAILED)"
    begun = report(tmp_path, f"{FIGURES}{job_log.RESTART}\n{job_log.BEGUN}\n{KILLED}")
    assert (begun.slurm_output, begun.never_began, begun.words) == (KILLED, False, "killed by SIGKILL")
