"""Slurm's commands, as pure functions, on what Slurm 22.05 and its manual really print."""

from __future__ import annotations

import pytest

from hydra_exca.clusters import State, scheduler
from hydra_exca.clusters.scheduler import Row, expand, position, read_rows

LAUNCHES = "/data/exca/launches"
SCRIPT = f"{LAUNCHES}/20261122-123105-f556800cc3bb/.submission_file_01ad739cb23e478585e3ddc80ab0ca7f.sh"
QUEUE = f"""\
116_[1-2%2]|PENDING|JobArrayTaskLimit|{SCRIPT}
116_0|RUNNING|None|{SCRIPT}
112_0|CANCELLED|None|{SCRIPT}
81|COMPLETED|None|{SCRIPT}
77|PENDING|PartitionTimeLimit|{SCRIPT}
78|COMPLETING|None|{SCRIPT}
79|OUT_OF_MEMORY|OutOfMemory|{SCRIPT}
80|FAILED|NonZeroExitCode|{SCRIPT}
"""
ACCOUNTING = f"""\
100_2|COMPLETED|JobArrayTaskLimit|sbatch {SCRIPT}
108_0|CANCELLED by 0|None|sbatch {SCRIPT}
109_[3-4]|CANCELLED by 1000|None|sbatch --comment=a|b {SCRIPT}
110|TIMEOUT|None|sbatch {SCRIPT}
111|NODE_FAIL|None|sbatch {SCRIPT}
"""


def reports(output: str) -> dict[str, tuple[State, str]]:
    return {row.job: (row.report().state, row.report().reason) for row in read_rows(output)}


def test_the_queue_is_read_one_row_a_task() -> None:
    assert reports(QUEUE) == {
        "116_1": (State.PENDING, "JobArrayTaskLimit"),
        "116_2": (State.PENDING, "JobArrayTaskLimit"),
        "116_0": (State.RUNNING, "None"),
        "112_0": (State.ENDED, "CANCELLED"),
        "81": (State.ENDED, "COMPLETED"),
        "77": (State.PENDING, "PartitionTimeLimit"),
        "78": (State.RUNNING, "None"),
        "79": (State.ENDED, "OUT_OF_MEMORY (OutOfMemory)"),
        "80": (State.ENDED, "FAILED (NonZeroExitCode)"),
    }


def test_the_accounting_is_read_one_row_a_task() -> None:
    found = {job: state for job, (state, _) in reports(ACCOUNTING).items()}
    assert found == dict.fromkeys(["100_2", "108_0", "109_3", "109_4", "110", "111"], State.ENDED)


def test_who_cancelled_a_job_is_told() -> None:
    assert reports(ACCOUNTING)["108_0"][1] == "CANCELLED by 0"


def test_a_bar_in_the_command_does_not_end_it() -> None:
    assert {row.command for row in read_rows(ACCOUNTING) if row.job.startswith("109")} == {
        f"sbatch --comment=a|b {SCRIPT}"
    }


@pytest.mark.parametrize("output", ["", "\n", "slurm_load_jobs error: Invalid job id specified\n", "a|b\n"])
def test_what_is_no_row_is_left_out(output: str) -> None:
    assert read_rows(output) == []


# https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES
STATES = {
    "BOOT_FAIL": State.ENDED,
    "CANCELLED": State.ENDED,
    "CANCELLED+": State.ENDED,
    "CANCELLED by 1000": State.ENDED,
    "COMPLETED": State.ENDED,
    "COMPLETING": State.RUNNING,
    "CONFIGURING": State.RUNNING,
    "DEADLINE": State.ENDED,
    "FAILED": State.ENDED,
    "NODE_FAIL": State.ENDED,
    "OUT_OF_MEMORY": State.ENDED,
    "PENDING": State.PENDING,
    "PREEMPTED": State.RUNNING,  # may start again: its entry waits
    "REQUEUED": State.PENDING,
    "REQUEUE_FED": State.PENDING,
    "REQUEUE_HOLD": State.PENDING,
    "RESIZING": State.RUNNING,
    "RESV_DEL_HOLD": State.PENDING,
    "REVOKED": State.RUNNING,
    "RUNNING": State.RUNNING,
    "SIGNALING": State.RUNNING,
    "SPECIAL_EXIT": State.PENDING,
    "STAGE_OUT": State.RUNNING,
    "STOPPED": State.RUNNING,
    "SUSPENDED": State.RUNNING,
    "TIMEOUT": State.ENDED,
    "A_STATE_OF_THE_FUTURE": State.RUNNING,  # nothing may be concluded from it
}


@pytest.mark.parametrize(("state", "meaning"), STATES.items())
def test_every_state_of_slurm_has_a_meaning(state: str, meaning: State) -> None:
    assert Row("1", state, "None", SCRIPT).report().state is meaning


def test_only_an_end_is_final() -> None:
    assert [state for state in State if state.final] == [State.ENDED]


@pytest.mark.parametrize(
    ("job", "single"),
    [
        ("12", ["12"]),
        ("12_3", ["12_3"]),
        ("12_[3]", ["12_3"]),
        ("12_[0-2]", ["12_0", "12_1", "12_2"]),
        ("12_[0,5-6,9%2]", ["12_0", "12_5", "12_6", "12_9"]),
    ],
)
def test_an_arrays_row_stands_for_its_single_jobs(job: str, single: list[str]) -> None:
    assert expand(job) == single


def test_a_list_that_slurm_cut_off_is_never_misread() -> None:
    """sacct shows 64 characters of an array's list (SLURM_BITSTR_LEN), so the last number may lack digits."""
    rows = read_rows(f"131_[1,3-4,7,60,66,71,80,99,101,1...]|CANCELLED by 0|JobHeldUser|sbatch {SCRIPT}\n")
    known = {1, 3, 4, 7, 60, 66, 71, 80, 99, 101}
    assert {position(row.job) for row in rows} <= known


@pytest.mark.parametrize(("job", "index"), [("12", 0), ("12_0", 0), ("12_7", 7)])
def test_the_position_of_a_job_is_its_index_in_the_array(job: str, index: int) -> None:
    assert position(job) == index


@pytest.mark.parametrize(
    ("reason", "stuck"),
    [
        ("PartitionTimeLimit", True),
        ("QOSMaxJobsPerUserLimit", True),
        ("JobHeldUser", True),
        ("DependencyNeverSatisfied", True),
        ("InvalidAccount", True),
        ("Resources", False),
        ("Priority", False),
        ("JobArrayTaskLimit", False),
        ("None", False),
    ],
)
def test_a_reason_that_ends_only_if_somebody_acts_is_told(reason: str, stuck: bool) -> None:
    assert bool(scheduler.STUCK.search(reason)) is stuck


def test_the_queue_is_asked_for_all_jobs_at_once() -> None:
    assert scheduler.queue_command({"2", "1"}, ())[-2:] == ["-j", "1,2"]


def test_where_an_id_is_not_known_all_jobs_of_the_users_are_asked_for() -> None:
    assert scheduler.queue_command({"1"}, {"1001", "1000"})[-2:] == ["-u", "1000,1001"]


def test_accounting_of_users_reaches_back_to_the_submission() -> None:
    command = scheduler.accounting_command((), {"0"}, since=1_000_000_000)
    assert command[command.index("-S") + 1].startswith("2001-09-0")


# scontrol show job -o, shortened where it says nothing of interest; the first job's name is what a user may choose
SHOWN = f"""\
JobId=487 ArrayJobId=487 ArrayTaskId=2-3%2 ArrayTaskThrottle=2 JobName=a b=c JobState=X Reason=Y UserId=root(0) \
JobState=PENDING Reason=JobArrayTaskLimit Dependency=(null) Requeue=1 Network=(null) \
Command={SCRIPT} WorkDir=/data StdErr=/dev/null
JobId=490 ArrayJobId=487 ArrayTaskId=1 ArrayTaskThrottle=2 JobName=submitit JobState=RUNNING Reason=None \
Dependency=(null) Command=/data/my results/x.sh SubmitLine=sbatch /data/my results/x.sh WorkDir=/data StdErr=/dev/null
JobId=488 JobName=submitit JobState=FAILED Reason=NonZeroExitCode Dependency=(null) Command={SCRIPT} WorkDir=/data
"""


def test_a_job_is_shown_under_the_id_that_tells_its_position() -> None:
    assert {row.job: row.state for row in scheduler.read_shown(SHOWN)} == {
        "487_2": "PENDING",
        "487_3": "PENDING",
        "487_1": "RUNNING",
        "488": "FAILED",
    }


def test_the_script_of_a_job_that_is_shown_may_have_spaces() -> None:
    assert {row.command for row in scheduler.read_shown(SHOWN)} == {SCRIPT, "/data/my results/x.sh"}


@pytest.mark.parametrize("output", ["", "slurm_load_jobs error: Invalid job id specified\n", "JobId=1 \n"])
def test_what_shows_no_job_is_left_out(output: str) -> None:
    assert scheduler.read_shown(output) == []


def test_a_job_is_shown_by_any_id() -> None:
    assert scheduler.show_command("12_3") == ["scontrol", "show", "job", "-o", "12_3"]


def test_a_cancel_names_one_job() -> None:
    assert scheduler.cancel_command("12_3") == ["scancel", "12_3"]
