"""Slurm's commands, as pure functions, on what Slurm 22.05 and its manual really print."""

from __future__ import annotations

import subprocess

import pytest

from hydra_exca.clusters import JobEnd, JobState
from hydra_exca.clusters.slurm import commands as slurm_commands
from hydra_exca.clusters.slurm.commands import Row, array_index, expand_ids, read_limit, read_rows, read_submitted

LAUNCHES = "/data/exca/launches"
TOKEN = "20261122-123105-f556800cc3bb"
SCRIPT = f"{LAUNCHES}/{TOKEN}/0.sh"
QUEUE = f"""\
116_[1-2%2]|PENDING|JobArrayTaskLimit|1:00:00|{SCRIPT}
116_0|RUNNING|None|1:00:00|{SCRIPT}
112_0|CANCELLED|None|1:00:00|{SCRIPT}
81|COMPLETED|None|1:00:00|{SCRIPT}
77|PENDING|PartitionTimeLimit|1:00:00|{SCRIPT}
78|COMPLETING|None|1:00:00|{SCRIPT}
79|OUT_OF_MEMORY|OutOfMemory|1:00:00|{SCRIPT}
80|FAILED|NonZeroExitCode|1:00:00|{SCRIPT}
"""
ACCOUNTING = f"""\
100_2|COMPLETED|JobArrayTaskLimit|1:00:00|sbatch {SCRIPT}
108_0|CANCELLED by 0|None|1:00:00|sbatch {SCRIPT}
109_[3-4]|CANCELLED by 1000|None|1:00:00|sbatch --comment=a|b {SCRIPT}
110|TIMEOUT|None|1:00:00|sbatch {SCRIPT}
111|NODE_FAIL|None|1:00:00|sbatch {SCRIPT}
"""


def reports(output: str) -> dict[str, tuple[JobState, str]]:
    return {row.job: (row.report().state, row.report().reason) for row in read_rows(output)}


def test_the_queue_is_read_one_row_a_task() -> None:
    assert reports(QUEUE) == {
        "116_1": (JobState.PENDING, "JobArrayTaskLimit"),
        "116_2": (JobState.PENDING, "JobArrayTaskLimit"),
        "116_0": (JobState.RUNNING, "None"),
        "112_0": (JobState.ENDED, "CANCELLED"),
        "81": (JobState.ENDED, "COMPLETED"),
        "77": (JobState.PENDING, "PartitionTimeLimit"),
        "78": (JobState.RUNNING, "None"),
        "79": (JobState.ENDED, "OUT_OF_MEMORY"),
        "80": (JobState.ENDED, "FAILED"),
    }


def test_the_accounting_is_read_one_row_a_task() -> None:
    found = {job: state for job, (state, _) in reports(ACCOUNTING).items()}
    assert found == dict.fromkeys(["100_2", "108_0", "109_3", "109_4", "110", "111"], JobState.ENDED)


def test_who_cancelled_a_job_is_told() -> None:
    (row,) = [row for row in read_rows(ACCOUNTING) if row.job == "108_0"]
    assert row.report().words == "root cancelled it"


def test_a_bar_in_the_command_does_not_end_it() -> None:
    assert {row.command for row in read_rows(ACCOUNTING) if row.job.startswith("109")} == {
        f"sbatch --comment=a|b {SCRIPT}"
    }


@pytest.mark.parametrize("output", ["", "\n", "slurm_load_jobs error: Invalid job id specified\n", "a|b\n"])
def test_what_is_no_row_is_left_out(output: str) -> None:
    assert read_rows(output) == []


# https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES
STATES = {
    "BOOT_FAIL": JobState.ENDED,
    "CANCELLED": JobState.ENDED,
    "CANCELLED+": JobState.ENDED,
    "CANCELLED by 1000": JobState.ENDED,
    "COMPLETED": JobState.ENDED,
    "COMPLETING": JobState.RUNNING,
    "CONFIGURING": JobState.RUNNING,
    "DEADLINE": JobState.ENDED,
    "FAILED": JobState.ENDED,
    "NODE_FAIL": JobState.ENDED,
    "OUT_OF_MEMORY": JobState.ENDED,
    "PENDING": JobState.PENDING,
    "PREEMPTED": JobState.ENDED,  # one that is to start again is PENDING or REQUEUED
    "REQUEUED": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING,
    "RESIZING": JobState.RUNNING,
    "RESV_DEL_HOLD": JobState.PENDING,
    "REVOKED": JobState.RUNNING,
    "RUNNING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "SPECIAL_EXIT": JobState.PENDING,
    "STAGE_OUT": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "TIMEOUT": JobState.ENDED,
    "A_STATE_OF_THE_FUTURE": JobState.RUNNING,  # nothing may be concluded from it
}


@pytest.mark.parametrize(("state", "meaning"), STATES.items())
def test_every_state_of_slurm_has_a_meaning(state: str, meaning: JobState) -> None:
    assert Row("1", state, "None", SCRIPT).report().state is meaning


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
    assert expand_ids(job) == single


def test_a_list_that_slurm_cut_off_is_never_misread() -> None:
    """sacct shows 64 characters of an array's list (SLURM_BITSTR_LEN), so the last number may lack digits."""
    rows = read_rows(f"131_[1,3-4,7,60,66,71,80,99,101,1...]|CANCELLED by 0|JobHeldUser|1:00:00|sbatch {SCRIPT}\n")
    known = {1, 3, 4, 7, 60, 66, 71, 80, 99, 101}
    assert {array_index(row.job) for row in rows} <= known


@pytest.mark.parametrize(("job", "expected"), [("12", 0), ("12_0", 0), ("12_7", 7)])
def test_a_job_has_an_index_in_its_array(job: str, expected: int) -> None:
    assert array_index(job) == expected


@pytest.mark.parametrize(("job", "number"), [("12", 1000), ("12_0", 1000), ("12_7", 1007)])
def test_the_number_of_a_job_is_that_of_its_arrays_first_and_its_index(job: str, number: int) -> None:
    assert Row(job, "RUNNING", "None", f"sbatch --parsable {LAUNCHES}/{TOKEN}/1000.sh").place == (TOKEN, number)


@pytest.mark.parametrize("command", ["(null)", "", "/home/me/train.sh", "sbatch train.sh", "/home/me/7.sh.bak"])
def test_what_no_launch_submitted_has_no_place(command: str) -> None:
    assert Row("12", "RUNNING", "None", command).place is None


@pytest.mark.parametrize(
    ("state", "reason", "end"),
    [
        ("FAILED", "NonZeroExitCode", JobEnd.EXITED),
        ("COMPLETED", "None", JobEnd.EXITED),
        ("TIMEOUT", "TimeLimit", JobEnd.OUT_OF_TIME),
        ("DEADLINE", "None", JobEnd.PAST_DEADLINE),
        ("OUT_OF_MEMORY", "OutOfMemory", JobEnd.OUT_OF_MEMORY),
        ("CANCELLED", "None", JobEnd.REMOVED),
        ("CANCELLED by 1000", "None", JobEnd.REMOVED),
        ("CANCELLED+", "None", JobEnd.REMOVED),
        ("PREEMPTED", "None", JobEnd.LOST),
        ("NODE_FAIL", "None", JobEnd.LOST),
        ("BOOT_FAIL", "None", JobEnd.LOST),
        ("FAILED", "BadConstraints", JobEnd.REMOVED),
        ("FAILED", "JobLaunchFailure", JobEnd.LOST),
        ("FORGOTTEN", "None", JobEnd.VANISHED),
    ],
)
def test_what_ended_a_job_is_told_apart(state: str, reason: str, end: JobEnd) -> None:
    assert Row("1", state, reason, SCRIPT).report().end is end


def test_an_end_is_explained_by_slurms_state_and_what_it_means() -> None:
    report = Row("1", "FAILED", "BadConstraints", SCRIPT).report()
    assert report.explanation == "no node can give it what it asks for (FAILED: BadConstraints)"
    assert Row("1", "CANCELLED by 0", "None", SCRIPT).report().explanation == "root cancelled it (CANCELLED)"
    timeout = Row("1", "TIMEOUT", "TimeLimit", SCRIPT, limit="1:30:00").report()
    assert timeout.explanation == "it reached its time limit of 90 min (TIMEOUT)"


def test_a_reason_for_which_a_job_once_waited_is_no_reason_of_its_end() -> None:
    assert Row("1", "CANCELLED by 0", "JobHeldUser", SCRIPT).report().explanation == "root cancelled it (CANCELLED)"


@pytest.mark.parametrize(
    "output", ["", "Submitted batch job 12", "12 jobs", "12\n13", "error: 12;other;x", "Welcome", "-1", "12;"]
)
def test_an_answer_that_is_not_the_id_of_one_job_is_none(output: str) -> None:
    assert read_submitted(output) is None


@pytest.mark.parametrize("output", ["12\n", "Dear user\n12\n", "12\nyou have used 7 hours\n", "  12  \n\n"])
def test_an_id_is_read_among_the_lines_of_a_wrapper(output: str) -> None:
    assert read_submitted(output) == ("12", None)


@pytest.mark.parametrize(
    ("reason", "stuck"),
    [
        ("PartitionTimeLimit", True),
        ("QOSMaxJobsPerUserLimit", True),
        ("JobHeldUser", True),
        ("launch failed requeued held", True),  # by a node that cannot start jobs
        ("DependencyNeverSatisfied", True),
        ("InvalidAccount", True),
        ("Resources", False),
        ("Priority", False),
        ("JobArrayTaskLimit", False),
        ("None", False),
    ],
)
def test_a_reason_that_ends_only_if_somebody_acts_is_told(reason: str, stuck: bool) -> None:
    assert bool(slurm_commands.STUCK.search(reason)) is stuck


def test_the_queue_is_asked_for_all_jobs_at_once() -> None:
    assert slurm_commands.queue_command({"2", "1"}, ())[-2:] == ["-j", "1,2"]


def test_where_an_id_is_not_known_all_jobs_of_the_users_are_asked_for() -> None:
    assert slurm_commands.queue_command({"1"}, {"1001", "1000"})[-2:] == ["-u", "1000,1001"]


def test_accounting_of_users_reaches_back_to_the_submission() -> None:
    command = slurm_commands.accounting_command((), {"0"}, since=1_000_000_000)
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
    assert {row.job: row.state for row in slurm_commands.read_shown(SHOWN)} == {
        "487_2": "PENDING",
        "487_3": "PENDING",
        "487_1": "RUNNING",
        "488": "FAILED",
    }


def test_the_script_of_a_job_that_is_shown_may_have_spaces() -> None:
    assert {row.command for row in slurm_commands.read_shown(SHOWN)} == {SCRIPT, "/data/my results/x.sh"}


@pytest.mark.parametrize("output", ["", "slurm_load_jobs error: Invalid job id specified\n", "JobId=1 \n"])
def test_what_shows_no_job_is_left_out(output: str) -> None:
    assert slurm_commands.read_shown(output) == []


def test_a_job_is_shown_by_any_id() -> None:
    assert slurm_commands.show_command("12_3") == ["scontrol", "show", "job", "-o", "12_3"]


def test_one_command_cancels_several_jobs() -> None:
    assert slurm_commands.cancel_command(["12_3", "12_1"]) == ["scancel", "12_1", "12_3"]


def test_what_has_not_begun_can_be_cancelled_alone() -> None:
    assert slurm_commands.cancel_command(["12"], pending=True) == ["scancel", "-t", "PENDING", "12"]


def test_an_array_may_be_let_run_more_at_a_time() -> None:
    assert slurm_commands.throttle_command("12", 7) == ["scontrol", "update", "JobId=12", "ArrayTaskThrottle=7"]


# -- how much may be submitted

CONFIGURATION = """\
Configuration data as of 2026-11-22T12:31:05
AccountingStorageEnforce = associations,limits
ClusterName             = exca
MaxArraySize            = 1001
SchedulerParameters     = sched_interval=1,bf_interval=1
TaskPluginParam         = (null type)

Slurmctld(primary) at node is UP
"""


def test_the_configuration_is_read_by_its_names() -> None:
    found = slurm_commands.read_configuration(CONFIGURATION)
    assert (found["MaxArraySize"], found["AccountingStorageEnforce"]) == ("1001", "associations,limits")


def test_a_value_of_the_configuration_may_hold_an_equals_sign() -> None:
    assert slurm_commands.read_configuration(CONFIGURATION)["SchedulerParameters"] == "sched_interval=1,bf_interval=1"


@pytest.mark.parametrize("output", ["", "slurm_load_ctl_conf error: Unable to contact slurm controller\n"])
def test_what_is_no_configuration_has_no_names(output: str) -> None:
    assert slurm_commands.read_configuration(output) == {}


# DefaultAccount, Cluster, Account, Partition, DefaultQOS, MaxSubmitJobs, GrpSubmitJobs
ASSOCIATIONS = """\
lab|exca|lab||normal|100|
lab|exca|lab|short||20|
lab|exca|project||long||500
lab|elsewhere|lab||normal|3|
"""
# Name, MaxSubmitJobsPerUser, GrpSubmitJobs
QUALITIES = "normal||\nlong|40|\nurgent|5|8\n"


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({}, 100),
        ({"account": "lab"}, 100),
        ({"partition": "main"}, 100),
        ({"partition": "short"}, 20),
        ({"account": "project"}, 40),  # by its default quality of service
        ({"account": "project", "qos": "normal"}, 500),
        ({"qos": "urgent"}, 5),
        ({"account": "nobodys"}, None),
    ],
)
def test_the_least_limit_that_holds_for_the_jobs_counts(options: dict[str, str], limit: int | None) -> None:
    assert read_limit(ASSOCIATIONS, QUALITIES, "exca", options) == limit


def test_a_quality_of_service_limits_jobs_that_name_none() -> None:
    assert read_limit("lab|exca|lab||||\n", "normal|7|\n", "exca", {}) == 7


@pytest.mark.parametrize(("associations", "qualities"), [("", ""), ("lab|exca|lab||normal||\n", "normal||\n")])
def test_where_nothing_is_limited_there_is_no_limit(associations: str, qualities: str) -> None:
    assert read_limit(associations, qualities, "exca", {}) is None


def test_the_questions_about_limits_name_what_their_answers_are_read_by() -> None:
    associations, qualities = slurm_commands.limits_commands("ann")
    assert associations[-1] == "format=DefaultAccount,Cluster,Account,Partition,DefaultQOS,MaxSubmitJobs,GrpSubmitJobs"
    assert qualities[-1] == "format=Name,MaxSubmitJobsPerUser,GrpSubmitJobs"


@pytest.mark.slurm
def test_a_real_slurm_answers_the_questions_about_limits() -> None:
    commands = slurm_commands.limits_commands("root")
    answers = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands]
    assert {line.count("|") for line in answers[0].splitlines()} == {6}
    assert {line.count("|") for line in answers[1].splitlines()} == {2}
