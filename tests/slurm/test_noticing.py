"""What becomes of jobs is noticed: failures with their reasons, waiting for ever, a Slurm that does not answer.

The seconds until something is noticed are printed, see them with ``pytest -rP``.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from apps import App, Started, wait_until
from faults import OwnSlurm, OwnSlurms, calls, counted, end_time_of

from hydra_exca.clusters import JobEnd, JobState
from hydra_exca.clusters.slurm import commands

DOWN_S = float(os.environ.get("EXCA_TESTS_DOWN_S", "40"))
POLL = "hydra.launcher.poll_s=2"
HOLD = "+hydra.launcher.additional_parameters={hold: true}"
FIRST_WAITS = """
note("start", cfg.seed)
print("at work on", cfg.seed, file=sys.stderr)  # where the warning of a time limit is written, too
if cfg.seed == 1:
    wait_for("go", 300)
    {then}
    wait_for("never", 300)
return 10 * cfg.seed
"""
ALL_WAIT = 'note("start", cfg.seed)\nwait_for("go", 600)\nreturn 10 * cfg.seed\n'
Fault = Callable[[App, Mapping[str, str]], object]


def told(*command: str, env: Mapping[str, str]) -> str:
    """What a command of Slurm's prints."""
    return subprocess.run(command, env={**os.environ, **env}, check=True, capture_output=True, text=True).stdout.strip()


def jobs(app: App) -> dict[str, str]:
    """The ids of the last launch's jobs, once Slurm has given them."""
    wait_until(lambda: app.launches and (app.launches[-1] / "launch.json").exists() and app.record()["jobs"], "jobs")
    return dict(app.record()["jobs"])


def array(app: App) -> str:
    return jobs(app)["0"].partition("_")[0]


def runs(app: App) -> list[int]:
    """The seed of each start of a task."""
    return sorted(int(line.split()[1]) for line in app.notes)


def noticed(what: str, launch: Started, *says: str) -> None:
    """Once the launch has said one of these; prints how long it took from now on."""
    since = time.monotonic()
    wait_until(
        lambda: any(map(launch.says, says)) or launch.process.poll() is not None, f"the launch to say {says}", 150
    )
    print(f"noticed after {time.monotonic() - since:.1f} s: {what}")


# -- jobs that end without an outcome ----------------------------------------------------------------------------------


def goes_on(app: App, env: Mapping[str, str]) -> None:
    app.write("go", "")


def runs_out_of_time(app: App, env: Mapping[str, str]) -> None:
    end_time_of(jobs(app)["0"], env)


LIMITED = "+hydra.launcher.additional_parameters={mem: 300M}"
ENDS: dict[str, tuple[str, Fault, list[str], str]] = {
    "killed itself": ("os.kill(os.getpid(), 9)", goes_on, [], "killed by SIGKILL (FAILED)"),
    "used too much memory": ("much = b'1' * 900_000_000", goes_on, [LIMITED], "out of memory: "),
    "ran out of time": ("", runs_out_of_time, [], "it reached its time limit of "),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_job_that_ended_without_an_outcome_is_a_failed_task_with_slurms_reason_and_the_end_of_its_log(
    tmp_path: Path, end: str
) -> None:
    then, fault, options, reason = ENDS[end]
    app = App(tmp_path, FIRST_WAITS.format(then=then))
    with app.start("seed=1,2,3", POLL, *options, cluster="slurm") as launch:
        wait_until(lambda: len(app.notes) == 3, "the tasks to run")
        fault(app, {})
        noticed(f"a job that {end}", launch, "seed=1 failed: ")
        result = launch.result()
    assert (result.statuses, result.values) == (["FAILED", "COMPLETED", "COMPLETED"], [None, 20, 30])
    assert result.returns[0]["details"]["state"].startswith(reason)
    assert "| at work on 1" in result.returns[0]["error"]


def test_a_job_that_lost_its_node_for_good_is_an_error_that_is_not_stored(tmp_path: Path, own_slurm: OwnSlurms) -> None:
    app, slurm = App(tmp_path, FIRST_WAITS.format(then="")), own_slurm(accounting=False)
    options = "+hydra.launcher.additional_parameters={no-requeue: true}"
    with app.start("seed=1,2", POLL, options, cluster="slurm", env=slurm.environment) as launch:
        wait_until(lambda: len(app.notes) == 2 and len(app.entries) == 1, "the second task to end")
        slurm.node_down(slurm.squeue("-j", jobs(app)["0"], "-o", "%N"))
        noticed("a job that lost its node for good", launch, "seed=1 failed: ")
        result = launch.result()
    assert (result.statuses, result.values) == (["FAILED", "COMPLETED"], [None, 20])
    assert "NODE_FAIL" in result.returns[0]["details"]["state"]
    assert "| at work on 1" in result.returns[0]["error"] and len(app.entries) == 1


@pytest.fixture(params=["accounting", "no accounting"])
def env(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """The environment of the Slurm that all tests share, and of one without accounting."""
    if request.param == "accounting":
        return {}
    own_slurm: OwnSlurms = request.getfixturevalue("own_slurm")
    return own_slurm(accounting=False).environment


def test_a_task_cancelled_while_pending_in_an_array_is_an_error_that_is_not_stored(
    tmp_path: Path, env: Mapping[str, str]
) -> None:
    app = App(tmp_path, FIRST_WAITS.format(then="return 10"))
    options = [POLL, "hydra.launcher.array_parallelism=1"]
    with app.start("seed=1,2,3", *options, cluster="slurm", env=dict(env)) as launch:
        wait_until(lambda: app.notes, "the first task to run")
        told("scancel", jobs(app)["1"], env=env)
        noticed("a task cancelled while pending in an array", launch, "seed=2 failed: ")
        app.write("go", "")
        result = launch.result()
    assert (result.statuses, result.values) == (["COMPLETED", "FAILED", "COMPLETED"], [10, None, 30])
    assert "CANCELLED" in result.returns[1]["details"]["state"] and runs(app) == [1, 3] and len(app.entries) == 2


def test_a_whole_array_cancelled_while_pending_is_as_many_errors_that_are_not_stored(
    tmp_path: Path, env: Mapping[str, str]
) -> None:
    app = App(tmp_path)
    with app.start("seed=1,2,3", POLL, HOLD, cluster="slurm", env=dict(env)) as launch:
        told("scancel", array(app), env=env)
        noticed("a whole pending array that was cancelled", launch, "(CANCELLED)")
        result = launch.result()
    assert (result.statuses, app.notes, app.entries) == (["FAILED"] * 3, [], [])
    assert all("CANCELLED" in each["details"]["state"] for each in result.returns)


def test_without_accounting_a_sweep_returns_its_values(tmp_path: Path, own_slurm: OwnSlurms) -> None:
    app = App(tmp_path)
    result = app.run("seed=range(8)", POLL, cluster="slurm", env=own_slurm(accounting=False).environment)
    assert (result.values, runs(app)) == ([10 * seed for seed in range(8)], list(range(8)))


def test_without_accounting_a_killed_job_is_a_failed_task(tmp_path: Path, own_slurm: OwnSlurms) -> None:
    app = App(tmp_path, FIRST_WAITS.format(then="os.kill(os.getpid(), 9)"))
    env = own_slurm(accounting=False).environment
    with app.start("seed=1,2", POLL, cluster="slurm", env=env) as launch:
        wait_until(lambda: len(app.notes) == 2, "the tasks to run")
        app.write("go", "")
        noticed("a job that killed itself, no accounting", launch, "seed=1 failed: ")
        result = launch.result()
    assert (result.statuses, result.values) == (["FAILED", "COMPLETED"], [None, 20])
    assert "FAILED" in result.returns[0]["details"]["state"]


# -- a controller that is gone -----------------------------------------------------------------------------------------


def test_while_the_controller_is_down_results_come_and_nothing_is_lost(tmp_path: Path, own_slurm: OwnSlurms) -> None:
    app, slurm = App(tmp_path, ALL_WAIT), own_slurm(accounting=False)
    options = [POLL, "hydra.launcher.array_parallelism=2"]
    with app.start("seed=1,2,3,4", *options, cluster="slurm", env=slurm.environment) as launch:
        wait_until(lambda: len(app.notes) == 2, "two tasks to run")
        slurm.wait_until_saved()
        slurm.kill_controller()
        back = time.monotonic() + DOWN_S
        noticed("a controller that does not answer", launch, "Slurm does not answer")
        app.write("go", "")
        wait_until(lambda: len(app.entries) == 2, "the results of what runs")
        wait_until(lambda: time.monotonic() > back, "the controller's time", DOWN_S + 1)
        slurm.start_controller()
        noticed("a controller that answers again", launch, "Slurm answers again")
        result = launch.result(seconds=300)
    assert (result.values, runs(app)) == ([10, 20, 30, 40], [1, 2, 3, 4])
    assert (result.text.count("Slurm does not answer"), result.text.count("Slurm answers again")) == (1, 1)


@pytest.mark.parametrize("accounting", [True, False], ids=["accounting", "no accounting"])
def test_what_a_killed_controller_has_forgotten_is_submitted_again(
    tmp_path: Path, own_slurm: OwnSlurms, accounting: bool
) -> None:
    app, slurm = App(tmp_path, ALL_WAIT), own_slurm(accounting=accounting)
    for _ in range(10):  # ids begin anew: Slurm itself cannot start a job by the id of one that a node still runs
        slurm.run("sbatch", "--hold", "--output", "/dev/null", "--wrap", "true")
    options = [POLL, "hydra.launcher.array_parallelism=2"]
    with app.start("seed=1,2,3,4", *options, cluster="slurm", env=slurm.environment) as launch:
        submitted = array(app)
        if accounting:
            known = lambda: slurm.run("sacct", "-nPX", "-j", submitted, "-o", "state")  # noqa: E731
            wait_until(known, "the accounting to know the jobs")
        slurm.kill_controller()
        forget_jobs(slurm)
        slurm.start_controller()
        noticed(f"jobs that a controller has forgotten, accounting {accounting}", launch, "submitted again")
        app.write("go", "")
        result = launch.result()
    print(f"started: {runs(app)}")
    assert (result.values, result.statuses) == ([10, 20, 30, 40], ["COMPLETED"] * 4)
    assert " failed: " not in result.text


@pytest.mark.parametrize(
    ("told", "end"),
    [
        ("CANCELLED|None", JobEnd.VANISHED),
        ("CANCELLED by 0|None", JobEnd.REMOVED),
        ("CANCELLED|DependencyNeverSatisfied", JobEnd.REMOVED),
    ],
)
def test_what_the_accounting_says_nobody_cancelled_has_vanished(told: str, end: JobEnd) -> None:
    (row,) = commands.read_accounts(f"12|{told}|1:00:00|sbatch x.sh\n")
    assert row.report().state is JobState.ENDED and row.report().end is end


def forget_jobs(slurm: OwnSlurm) -> None:
    """Takes from a dead controller what it has saved of its jobs, as if it had died before that."""
    (state,) = Path(f"/var/lib/exca-slurm-{slurm.name}").glob("ctld")
    for file in state.glob("job_state*"):
        file.unlink()


# -- jobs that wait for ever -------------------------------------------------------------------------------------------


def waits(app: App, slurm: OwnSlurm, reason: str, *options: str) -> Started:
    """A launch of three tasks that has said that they wait, and why."""
    launch = app.start("seed=1,2,3", POLL, *options, cluster="slurm", env=slurm.environment)
    noticed(f"jobs that wait with {reason}", launch, reason)
    return launch


def named_once(launch: Started, reason: str) -> bool:
    result = launch.result()
    assert result.values == [10, 20, 30], result.text
    return result.text.count(reason) == 1


def test_jobs_over_the_time_limit_of_their_partition_are_named_once(tmp_path: Path, own_slurm: OwnSlurms) -> None:
    app, slurm = App(tmp_path), own_slurm(accounting=False)
    options = ("hydra.launcher.partition=short", "hydra.launcher.timeout_min=20")
    with waits(app, slurm, "PartitionTimeLimit", *options) as launch:
        slurm.scontrol("update", f"jobid={array(app)}", "TimeLimit=5")
        assert named_once(launch, "PartitionTimeLimit")


def test_jobs_whose_dependency_has_failed_are_named_once(tmp_path: Path, own_slurm: OwnSlurms) -> None:
    app, slurm = App(tmp_path), own_slurm(accounting=False)
    failed = slurm.run("sbatch", "--parsable", "--output", "/dev/null", "--wrap", "exit 1")
    options = f"+hydra.launcher.additional_parameters={{dependency: 'afterok:{failed}'}}"
    with waits(app, slurm, "DependencyNeverSatisfied", options) as launch:
        slurm.scontrol("update", f"jobid={array(app)}", "Dependency=")
        assert named_once(launch, "DependencyNeverSatisfied")


def test_held_jobs_are_named_once(tmp_path: Path, own_slurm: OwnSlurms) -> None:
    app, slurm = App(tmp_path), own_slurm(accounting=False)
    with waits(app, slurm, "JobHeld", HOLD) as launch:
        slurm.scontrol("release", array(app))
        assert named_once(launch, "JobHeld")


# -- how often Slurm is asked ------------------------------------------------------------------------------------------


def asked(folder: Path, times: int) -> list[float]:
    """The seconds between so many questions to the queue."""
    wait_until(lambda: len(calls(folder, "squeue")) > times, f"{times} questions")
    return [later.at - earlier.at for earlier, later in pairwise(calls(folder, "squeue"))]


@pytest.mark.parametrize(("largest", "arrays"), [(1001, 1), (15, 3)], ids=["one array", "three arrays"])
def test_one_question_at_a_time_is_for_all_jobs_of_a_launch(
    tmp_path: Path, own_slurm: OwnSlurms, largest: int, arrays: int
) -> None:
    app, slurm = App(tmp_path), own_slurm(accounting=False, MaxArraySize=largest)
    env = slurm.environment | counted(tmp_path / "counted")
    with app.start("seed=range(40)", "hydra.launcher.poll_s=1", HOLD, cluster="slurm", env=env) as launch:
        wait_until(lambda: len(jobs(app)) == 40, "all jobs to be submitted")
        pauses = asked(tmp_path / "counted", 6)
        launch.kill()
    slurm.run("scancel", *{job.partition("_")[0] for job in jobs(app).values()})
    print(f"seconds between questions for 40 jobs in {arrays} arrays: {[round(pause, 2) for pause in pauses]}")
    assert len(calls(tmp_path / "counted", "sbatch")) == 1 + arrays  # one asks for its version
    assert min(pauses) > 0.9 and calls(tmp_path / "counted", "sacct") == []


def test_a_launch_that_waits_for_another_ones_jobs_comes_to_ask_every_poll_s(
    tmp_path: Path, own_slurm: OwnSlurms
) -> None:
    app, slurm = App(tmp_path), own_slurm(accounting=False)
    env = slurm.environment | counted(tmp_path / "counted")
    with app.start("seed=1,2", HOLD, cluster="slurm", env=slurm.environment) as first:
        jobs(app)
        with app.start(
            "seed=1,2", "hydra.launcher.poll_s=5", "hydra.sweep.dir=two", cluster="slurm", env=env
        ) as second:
            pauses = asked(tmp_path / "counted", 5)
            second.kill()
        first.kill()
    slurm.run("scancel", array(app))
    assert max(pauses) > 4.5
