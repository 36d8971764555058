"""The faults of `faults`: that each is what it says it is, with plain jobs of a real Slurm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from apps import wait_until
from faults import How, OwnSlurm, OwnSlurms, accepted, calls, counted, sbatch_that, stop_orphans, without

LAUNCH = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
HOLD = "echo $$ >> pids; echo start; sleep 600"


@pytest.fixture
def slurm(own_slurm: OwnSlurms) -> OwnSlurm:
    """In the place of the one that all tests share; without accounting it takes a quarter of the time."""
    return own_slurm(accounting=False)


@pytest.fixture
def limited(own_slurm: OwnSlurms) -> OwnSlurm:
    return own_slurm(AccountingStorageEnforce="limits")


def submit(slurm: OwnSlurm, folder: Path, *options: str, script: str = HOLD) -> str:
    """The id of a job that runs ``script`` in ``folder``."""
    output = ("--chdir", str(folder), "--output", "out-%A", "--open-mode", "append")
    return slurm.run("sbatch", "--parsable", *output, *options, "--wrap", script)


def launched(slurm: OwnSlurm, fault: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """What became of a process that submits a job with a fault, as a launch does."""
    sbatch = ["sbatch", "--output", "/dev/null", *options, "--wrap", "true"]
    environment = os.environ | slurm.environment | fault
    return subprocess.run([sys.executable, "-c", LAUNCH, *sbatch], env=environment, capture_output=True, text=True)


def jobs(slurm: OwnSlurm, name: str) -> list[str]:
    """The ids of all jobs of this name that Slurm ever accepted."""
    return slurm.squeue("--states", "all", "--name", name, "-o", "%A").split()


def state(slurm: OwnSlurm, job: str) -> str:
    return slurm.squeue("--states", "all", "-j", job, "-o", "%T")


def wait_for_state(slurm: OwnSlurm, job: str, *states: str) -> None:
    wait_until(lambda: state(slurm, job) in states, f"job {job} to be {' or '.join(states)}")


def started(folder: Path, times: int = 1) -> list[psutil.Process]:
    """The processes of the jobs in ``folder``, once so many attempts of them have begun."""
    file = folder / "pids"
    wait_until(lambda: file.exists() and len(file.read_text().split()) >= times, f"{times} starts in {folder}")
    return [psutil.Process(int(pid)) for pid in file.read_text().split() if psutil.pid_exists(int(pid))]


# -- a Slurm of one's own ----------------------------------------------------------------------------------------------


def test_a_slurm_of_ones_own_knows_no_jobs_of_the_shared_one(slurm: OwnSlurm) -> None:
    assert "ClusterName             = exca" + slurm.name in slurm.scontrol("show", "config")
    assert slurm.squeue() == ""


def test_it_has_the_lines_of_slurm_conf_that_a_test_asks_for(own_slurm: OwnSlurms, tmp_path: Path) -> None:
    slurm = own_slurm(accounting=False, MaxArraySize=21)
    assert submit(slurm, tmp_path, "--array=0-20", script="true")
    with pytest.raises(AssertionError, match="Invalid job array specification"):
        submit(slurm, tmp_path, "--array=0-21", script="true")


def test_without_accounting_sacct_fails(own_slurm: OwnSlurms) -> None:
    with pytest.raises(AssertionError, match="accounting storage is disabled"):
        own_slurm(accounting=False).run("sacct")


def test_a_test_finds_no_jobs_of_the_one_before(own_slurm: OwnSlurms, tmp_path: Path) -> None:
    submit(own_slurm(accounting=False), tmp_path)
    assert own_slurm(accounting=False).squeue() == ""


def test_a_test_finds_it_whole_whatever_the_one_before_broke(own_slurm: OwnSlurms, tmp_path: Path) -> None:
    broken = own_slurm(accounting=False)
    broken.node_down("n1")
    broken.lose_node("n2")
    broken.kill_controller()
    whole = own_slurm(accounting=False)
    wait_for_state(whole, submit(whole, tmp_path, "--nodes=2", script="true"), "COMPLETED")


def test_the_slurm_of_a_test_process_that_was_killed_is_stopped(slurm: OwnSlurm) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    orphan = OwnSlurm(f"gw0p{process.pid}")
    assert orphan.start(accounting=False) == ""
    stop_orphans()
    assert not Path(orphan.environment["SLURM_CONF"]).exists() and slurm.squeue() == ""


def test_jobs_outlive_the_controller(slurm: OwnSlurm, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path)
    (process,) = started(tmp_path)
    slurm.wait_until_saved()
    slurm.kill_controller()
    assert "is DOWN" in slurm.run("scontrol", "ping", check=False) and process.is_running()
    slurm.start_controller()
    assert state(slurm, job) == "RUNNING"
    assert len(started(tmp_path)) == 1


def test_jobs_outlive_the_daemon_of_their_node(slurm: OwnSlurm, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path, "--nodelist=n1")
    (process,) = started(tmp_path)
    slurm.kill_node_daemon("n1")
    assert process.is_running()
    slurm.resume("n1")
    assert state(slurm, job) == "RUNNING" and len(started(tmp_path)) == 1


def test_a_lost_node_takes_its_jobs_with_it_and_no_others(slurm: OwnSlurm, tmp_path: Path) -> None:
    for node in ("n1", "n2"):
        (tmp_path / node).mkdir()
        submit(slurm, tmp_path / node, f"--nodelist={node}")
    (lost,), (other,) = started(tmp_path / "n1"), started(tmp_path / "n2")
    slurm.lose_node("n1")
    wait_until(lambda: not lost.is_running(), "the job to be gone")
    assert other.is_running()


def test_a_job_whose_node_is_down_runs_again_on_another(slurm: OwnSlurm, tmp_path: Path) -> None:
    submit(slurm, tmp_path, "--requeue")
    started(tmp_path)
    slurm.node_down("n1")
    assert started(tmp_path, times=2)


def test_a_node_that_was_lost_comes_back(slurm: OwnSlurm, tmp_path: Path) -> None:
    slurm.lose_node("n1")
    slurm.node_down("n1")
    slurm.resume("n1")
    wait_for_state(slurm, submit(slurm, tmp_path, "--nodelist=n1", script="true"), "COMPLETED")


@pytest.mark.parametrize(("qos", "limit"), [(None, "MaxSubmitJobs"), ("normal", "MaxSubmitJobsPerUser")])
def test_a_limit_refuses_what_is_over_it(limited: OwnSlurm, tmp_path: Path, qos: str | None, limit: str) -> None:
    limited.set_limit(qos, **{limit: 2})
    assert submit(limited, tmp_path, "--hold", "--array=0-1")
    with pytest.raises(AssertionError, match="Job violates accounting/QOS policy"):
        submit(limited, tmp_path, "--hold")


def test_with_accounting_sacct_tells_of_jobs(limited: OwnSlurm, tmp_path: Path) -> None:
    job = submit(limited, tmp_path, script="true")
    wait_until(lambda: limited.run("sacct", "-nPX", "-j", job, "-o", "state") == "COMPLETED", "sacct to tell")


def test_a_limit_ends_with_its_test(own_slurm: OwnSlurms, tmp_path: Path) -> None:
    own_slurm(AccountingStorageEnforce="limits").set_limit(MaxSubmitJobs=0)
    assert submit(own_slurm(AccountingStorageEnforce="limits"), tmp_path)


def test_a_job_of_low_is_requeued_for_one_of_high_and_runs_again(slurm: OwnSlurm, tmp_path: Path) -> None:
    both = ("--nodes=2", "--ntasks-per-node=8")
    low = submit(slurm, tmp_path, "--partition=low", *both)
    started(tmp_path)
    high = submit(slurm, tmp_path, "--partition=high", *both, script="true")
    wait_for_state(slurm, high, "COMPLETED")
    started(tmp_path, times=2)
    assert state(slurm, low) == "RUNNING"


def test_a_job_of_cancelled_ends_for_one_of_high(slurm: OwnSlurm, tmp_path: Path) -> None:
    both = ("--nodes=2", "--ntasks-per-node=8")
    cancelled = submit(slurm, tmp_path, "--partition=cancelled", *both)
    started(tmp_path)
    submit(slurm, tmp_path, "--partition=high", *both, script="true")
    wait_for_state(slurm, cancelled, "PREEMPTED")


# -- an sbatch that does not what it should ----------------------------------------------------------------------------

KILLS: list[tuple[How, int]] = [
    ("kills its launch before", 0),
    ("kills its launch while", 1),
    ("kills its launch after", 1),
]
FAILS: list[tuple[How, int]] = [("fails after it was accepted", 1), ("times out without accepting", 0), ("refuses", 0)]


@pytest.fixture
def name(tmp_path: Path) -> str:
    """Of the jobs of one test."""
    return f"{os.getpid()}-{tmp_path.name}"


@pytest.mark.parametrize(("how", "submitted"), KILLS)
def test_an_sbatch_kills_its_launch(slurm: OwnSlurm, tmp_path: Path, name: str, how: How, submitted: int) -> None:
    fault = sbatch_that(tmp_path / "fault", how)
    assert launched(slurm, fault, "--job-name", name).returncode == -signal.SIGKILL
    wait_until(lambda: len(accepted(tmp_path / "fault")) == submitted, "the submission")
    assert jobs(slurm, name) == accepted(tmp_path / "fault")


@pytest.mark.parametrize(("how", "submitted"), FAILS)
def test_an_sbatch_fails(slurm: OwnSlurm, tmp_path: Path, name: str, how: How, submitted: int) -> None:
    result = launched(slurm, sbatch_that(tmp_path / "fault", how), "--job-name", name)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("sbatch: error: Batch job submission failed: ")
    assert len(jobs(slurm, name)) == submitted and jobs(slurm, name) == accepted(tmp_path / "fault")


@pytest.mark.parametrize(("how", "submitted"), KILLS + FAILS)
def test_the_next_sbatch_is_as_ever(slurm: OwnSlurm, tmp_path: Path, name: str, how: How, submitted: int) -> None:
    fault = sbatch_that(tmp_path / "fault", how)
    launched(slurm, fault)
    wait_until(lambda: len(accepted(tmp_path / "fault")) == submitted, "the submission")
    assert launched(slurm, fault, "--job-name", name).stdout == f"Submitted batch job {jobs(slurm, name)[0]}\n"


def test_an_sbatch_fails_from_a_call_on(slurm: OwnSlurm, tmp_path: Path) -> None:
    fault = sbatch_that(tmp_path / "fault", "refuses", first=3, times=None)
    assert [launched(slurm, fault).returncode for _ in range(5)] == [0, 0, 1, 1, 1]


def test_an_sbatch_fails_so_many_times(slurm: OwnSlurm, tmp_path: Path) -> None:
    fault = sbatch_that(tmp_path / "fault", "times out without accepting", first=2, times=2)
    assert [launched(slurm, fault).returncode for _ in range(4)] == [0, 1, 1, 0]


def test_what_slurm_itself_refuses_is_not_taken_for_accepted(slurm: OwnSlurm, tmp_path: Path) -> None:
    fault = sbatch_that(tmp_path / "fault", "fails after it was accepted")
    result = launched(slurm, fault, "--partition", "nowhere")
    assert result.returncode == 1 and "invalid partition" in result.stderr
    assert accepted(tmp_path / "fault") == []


# -- other commands ----------------------------------------------------------------------------------------------------


def test_calls_are_counted_with_time_and_arguments(slurm: OwnSlurm, tmp_path: Path) -> None:
    before = time.time()
    environment = os.environ | slurm.environment | counted(tmp_path / "counted")
    for command in (["squeue", "-h"], ["scontrol", "show", "a\nb"], ["squeue", "-h", "-t", "all"]):
        subprocess.run(command, env=environment, capture_output=True)
    found = calls(tmp_path / "counted")
    assert [(each.command, each.arguments) for each in found] == [
        ("squeue", "-h"),
        ("scontrol", "show a b"),
        ("squeue", "-h -t all"),
    ]
    assert before <= found[0].at <= found[1].at <= found[2].at <= time.time()


def test_calls_of_one_command_are_told_apart(slurm: OwnSlurm, tmp_path: Path) -> None:
    environment = os.environ | slurm.environment | counted(tmp_path / "counted")
    for command in ("squeue", "sacct", "squeue"):
        subprocess.run([command], env=environment, capture_output=True)
    assert len(calls(tmp_path / "counted", "squeue")) == 2


def test_a_counted_command_does_what_it_does(slurm: OwnSlurm, tmp_path: Path) -> None:
    assert launched(slurm, counted(tmp_path / "counted")).stdout.startswith("Submitted batch job ")


def test_a_command_is_taken_away(slurm: OwnSlurm, tmp_path: Path) -> None:
    environment = os.environ | slurm.environment | without(tmp_path / "without", "sacct")
    result = subprocess.run(["sacct"], env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "sacct: error: Connection refused\n")


def test_faults_are_laid_over_one_another(slurm: OwnSlurm, tmp_path: Path) -> None:
    refused = sbatch_that(tmp_path / "fault", "refuses")
    both = counted(tmp_path / "counted", over=refused)
    assert launched(slurm, both).returncode == 1
    assert len(calls(tmp_path / "counted", "sbatch")) == 1
