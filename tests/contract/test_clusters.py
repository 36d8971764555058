"""One contract for every cluster, and what only one of them has."""

from __future__ import annotations

import dataclasses
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
import typing as tp
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from cluster_jobs import Submit, batches, cluster, ends, let_go, never_ran, runs, started, submitting, until
from faults import calls, counted

from hydra_exca import clusters
from hydra_exca.clusters import (
    Batch,
    ClusterSubmission,
    JobEnd,
    JobReference,
    JobSpec,
    JobState,
    Options,
    local,
    process,
)
from hydra_exca.errors import ConfigError, SubmissionError

SLURM = pytest.param("slurm", marks=pytest.mark.slurm)
NAMES = ["inline", "local", SLURM]
JOBS_OF_THEIR_OWN = NAMES[1:]
ONE_AT_A_TIME: dict[str, tp.Any] = {"array_parallelism": 1, "max_queued": 1}


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Batch]:
    return batches(tmp_path, monkeypatch)


@pytest.fixture
def submit() -> Iterator[Submit]:
    with submitting() as submit:
        yield submit


@pytest.fixture(autouse=True)
def _cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the machine had so many."""
    monkeypatch.setattr(local, "usable_cores", lambda: range(8))


def reference(batch: Batch, submission: ClusterSubmission, number: int = 0, **changes: tp.Any) -> JobReference:
    """As the claim of a started job would give it."""
    pid = int((batch.folder / f"{number}.started").read_text().split()[-1])
    owner = (
        process.describe_process(pid)
        if psutil.pid_exists(pid)
        else {**process.describe_process(), "pid": pid, "started": 1.0}
    )
    fields = {"token": batch.token, "number": number, "job": submission.job_ids[number], "owner": owner}
    return JobReference(**{**fields, "started": True, "submitted": time.time(), **changes})


# -- the contract


@pytest.mark.parametrize("name", NAMES)
def test_every_job_runs_once(submit: Submit, batch: Callable[..., Batch], name: str) -> None:
    mine = batch(count=3)
    ends(submit(name, mine), 3)
    assert runs(mine) == [1, 1, 1]


@pytest.mark.parametrize("name", NAMES)
def test_a_job_goes_by_its_own_number_wherever_it_stands(
    submit: Submit, batch: Callable[..., Batch], name: str
) -> None:
    """A launch that takes over a part of another's jobs keeps their numbers."""
    whole = batch(count=4)
    mine = dataclasses.replace(whole, jobs=whole.jobs[2:])
    assert set(ends(submit(name, mine), 2)) == {2, 3}
    assert never_ran(whole) == [0, 1]


@pytest.mark.parametrize("name", NAMES)
def test_every_end_is_told_once(submit: Submit, batch: Callable[..., Batch], name: str) -> None:
    submission = submit(name, batch(), poll_s=0)  # each step of Slurm's asks
    assert set(ends(submission, 2)) == {0, 1}
    assert [submission.poll() for _ in range(3)] == [{}, {}, {}]


@pytest.mark.parametrize("name", NAMES)
def test_one_job_alone_has_the_number_0(submit: Submit, batch: Callable[..., Batch], name: str) -> None:
    mine = batch(count=1)
    assert set(ends(submit(name, mine), 1)) == {0} and (mine.folder / "0.done").exists()


@pytest.mark.parametrize("name", NAMES)
def test_every_job_that_ran_has_an_id(submit: Submit, batch: Callable[..., Batch], name: str) -> None:
    submission = submit(name, batch())
    ends(submission, 2)
    assert all(submission.job_ids.values()) and set(submission.job_ids) == {0, 1}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_runs_before_a_submission_is_started(batch: Callable[..., Batch], name: str) -> None:
    mine = batch()
    submission = cluster(name).prepare(mine)
    assert not any(submission.job_ids.values()) or name == "inline"  # whose id is this process's
    assert set(submission.unstarted_jobs()) == {0, 1} and never_ran(mine) == [0, 1]


@pytest.mark.parametrize("name", NAMES)
def test_a_submission_can_be_closed_when_all_is_there(submit: Submit, batch: Callable[..., Batch], name: str) -> None:
    submission = submit(name, batch())
    ends(submission, 2)
    for number in (0, 1):
        submission.stop_tracking(number)
    submission.close()
    assert submission.poll() == {}


@pytest.mark.parametrize("name", NAMES)
def test_good_options_pass_the_check_and_submit_nothing(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = cluster(name, timeout_min=5, mem_gb=1, cpus_per_task=1)
    good.check_options([good.options, good.options.with_resources({"timeout_min": 7, "slurm_partition": "short"})])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
def test_asking_about_nothing_is_no_question(name: str) -> None:
    assert cluster(name).query_jobs([]) == []


@pytest.mark.parametrize("name", NAMES)
def test_cancelling_nothing_cancels_nothing(name: str) -> None:
    cluster(name).cancel_jobs([])


@pytest.mark.parametrize("name", JOBS_OF_THEIR_OWN)
def test_a_running_job_is_reported_as_running_to_any_launch(
    submit: Submit, batch: Callable[..., Batch], name: str
) -> None:
    mine = batch("wait", count=1)
    submission = submit(name, mine)
    started(mine, submission)
    until(lambda: cluster(name).query_jobs([reference(mine, submission)])[0].state is JobState.RUNNING)


@pytest.mark.parametrize("name", JOBS_OF_THEIR_OWN)
def test_a_job_that_ended_is_reported_as_ended_to_any_launch(
    submit: Submit, batch: Callable[..., Batch], name: str
) -> None:
    mine = batch(count=1)
    submission = submit(name, mine)
    ends(submission, 1)
    assert cluster(name).query_jobs([reference(mine, submission)])[0].state is JobState.ENDED


@pytest.mark.parametrize("name", JOBS_OF_THEIR_OWN)
def test_jobs_of_any_launch_can_be_cancelled(submit: Submit, batch: Callable[..., Batch], name: str) -> None:
    mine = batch("wait", count=3)
    submission = submit(name, mine)
    for number in range(3):
        started(mine, submission, number)
    theirs = [reference(mine, submission, number) for number in (0, 2)]
    cluster(name).cancel_jobs(theirs)
    until(lambda: [report.state for report in cluster(name).query_jobs(theirs)] == [JobState.ENDED] * 2)
    let_go(mine)
    until((mine.folder / "1.done").exists)
    assert sorted(path.name for path in mine.folder.glob("*.done")) == ["1.done"]


@pytest.mark.parametrize("name", JOBS_OF_THEIR_OWN)
def test_a_launch_can_cancel_one_of_its_jobs(submit: Submit, batch: Callable[..., Batch], name: str) -> None:
    mine = batch("wait", count=2)
    submission = submit(name, mine)
    for number in (0, 1):
        started(mine, submission, number)
    assert submission.cancel_job(0)
    assert set(ends(submission, 1)) == {0}
    let_go(mine)
    ends(submission, 1)
    assert sorted(path.name for path in mine.folder.glob("*.done")) == ["1.done"]


@pytest.mark.parametrize(("name", "reason"), [("local", "SIGKILL"), pytest.param("slurm", "FAILED", marks=SLURM.marks)])
def test_why_a_job_was_lost_is_told(submit: Submit, batch: Callable[..., Batch], name: str, reason: str) -> None:
    report = ends(submit(name, batch("killed", count=1)), 1)[0]
    assert reason in report.reason and report.end is (JobEnd.KILLED if name == "local" else JobEnd.EXITED)


@pytest.mark.parametrize("name", JOBS_OF_THEIR_OWN)
def test_the_end_of_an_unknown_job_proves_nothing_about_another(
    submit: Submit, batch: Callable[..., Batch], name: str
) -> None:
    """Both are asked about in one question."""
    mine = batch("wait", count=1)
    submission = submit(name, mine)
    started(mine, submission)
    live = reference(mine, submission)
    gone = reference(mine, submission, token="20250101-000000-000000000000", owner={**live.owner, "started": 1.0})
    until(lambda: [r.state for r in cluster(name).query_jobs([gone, live])] == [JobState.ENDED, JobState.RUNNING])


# -- giving up


@pytest.mark.parametrize("name", JOBS_OF_THEIR_OWN)
def test_what_waits_for_this_process_to_start_it_is_told(
    submit: Submit, batch: Callable[..., Batch], name: str
) -> None:
    mine = batch("wait", count=3)
    submission = submit(name, mine, **ONE_AT_A_TIME)
    started(mine, submission)
    assert list(submission.unstarted_jobs()) == [1, 2]


@pytest.mark.parametrize("name", JOBS_OF_THEIR_OWN)
@pytest.mark.parametrize("verb", ["stop_submitting", "cancel_pending"])
def test_a_launch_that_gives_up_starts_nothing_more_and_lets_go_on_what_runs(
    submit: Submit, batch: Callable[..., Batch], name: str, verb: str
) -> None:
    mine = batch("wait", count=3)
    submission = submit(name, mine, **ONE_AT_A_TIME)
    started(mine, submission)
    if name == "slurm":  # which may say a little later that it runs
        until(lambda: cluster(name).query_jobs([reference(mine, submission)])[0].state is JobState.RUNNING)
    assert list(getattr(submission, verb)()) == [1, 2] and list(submission.unstarted_jobs()) == []
    let_go(mine)
    assert set(ends(submission, 1)) == {0}
    assert submission.poll() == {} and never_ran(mine) == [1, 2] and (mine.folder / "0.done").exists()


@pytest.mark.parametrize("name", JOBS_OF_THEIR_OWN)
@pytest.mark.parametrize("verb", ["stop_submitting", "cancel_pending", "cancel_all"])
def test_what_was_given_up_is_not_given_up_again(
    submit: Submit, batch: Callable[..., Batch], name: str, verb: str
) -> None:
    submission = submit(name, batch("wait", count=2), **ONE_AT_A_TIME)
    getattr(submission, verb)()
    assert list(submission.stop_submitting()) == []


@pytest.mark.parametrize("name", JOBS_OF_THEIR_OWN)
def test_ending_a_launch_ends_every_job_and_waits_for_it(
    submit: Submit, batch: Callable[..., Batch], name: str
) -> None:
    mine = batch("wait", count=3)
    submission = submit(name, mine, array_parallelism=2, max_queued=2)
    for number in (0, 1):
        started(mine, submission, number)
    theirs = [reference(mine, submission, number) for number in (0, 1)]
    assert sorted(submission.cancel_all()) == [0, 1, 2]
    assert [report.state for report in cluster(name).query_jobs(theirs)] == [JobState.ENDED] * 2
    assert never_ran(mine) == [2] and not list(mine.folder.glob("*.done"))


@pytest.mark.parametrize("verb", ["stop_submitting", "cancel_pending", "cancel_all"])
def test_giving_up_inline_gives_up_what_has_not_run(submit: Submit, batch: Callable[..., Batch], verb: str) -> None:
    submission = submit("inline", batch(count=3))
    submission.poll()
    assert list(getattr(submission, verb)()) == [1, 2]


@pytest.mark.slurm
def test_abandoning_slurm_leaves_what_it_has_alone(submit: Submit, batch: Callable[..., Batch]) -> None:
    mine = batch(count=3)
    submission = submit("slurm", mine, array_parallelism=1)
    assert list(submission.stop_submitting()) == []
    ends(submission, 3)
    assert never_ran(mine) == []


@pytest.mark.slurm
def test_withdrawing_from_slurm_cancels_what_it_has_not_begun(submit: Submit, batch: Callable[..., Batch]) -> None:
    mine = batch("wait", count=3)
    submission = submit("slurm", mine, array_parallelism=1)
    started(mine, submission)
    until(lambda: cluster("slurm").query_jobs([reference(mine, submission)])[0].state is JobState.RUNNING)
    assert list(submission.cancel_pending()) == []
    reports = ends(submission, 2)
    let_go(mine)
    ends(submission, 1)
    assert {number: report.end for number, report in reports.items()} == dict.fromkeys((1, 2), JobEnd.REMOVED)
    assert never_ran(mine) == [1, 2] and (mine.folder / "0.done").exists()


# -- which cluster a name means


@pytest.mark.parametrize("name", [None, "inline", "local", "debug"])
def test_a_name_means_its_cluster(name: str | None) -> None:
    assert clusters.get_cluster(name, Options()).name == (name or "inline")


def test_an_unknown_name_is_an_error_that_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"invalid cluster 'slrm': choose auto, local, slurm, inline, debug or null"):
        clusters.get_cluster("slrm", Options())


@pytest.mark.parametrize(("present", "name"), [(True, "slurm"), (False, "local")])
def test_auto_is_slurm_where_there_is_sbatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, present: bool, name: str
) -> None:
    if present:
        (tmp_path / "sbatch").write_text("#!/bin/sh\n")
        (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert clusters.get_cluster("auto", Options()).name == name


# -- processes


def child() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


@pytest.fixture
def alive() -> Iterator[dict[str, tp.Any]]:
    """The description of a process that runs."""
    with child() as running:
        yield process.describe_process(running.pid)
        running.kill()


def test_a_running_process_is_alive(alive: dict[str, tp.Any]) -> None:
    assert process.is_alive(alive) is True


def test_a_process_that_ended_is_not_alive() -> None:
    with child() as running:
        owner = process.describe_process(running.pid)
        running.kill()
    assert process.is_alive(owner) is False


def test_a_process_that_nobody_has_waited_for_is_not_alive() -> None:
    with child() as running:
        owner = process.describe_process(running.pid)
        running.kill()
        until(lambda: process.is_alive(owner) is False)


def test_a_process_that_cannot_be_looked_at_is_not_taken_for_dead(alive: dict[str, tp.Any]) -> None:
    """Say because this process has as many files open as it may have."""
    assert process.is_alive(alive) is True
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        answer = process.is_alive(alive)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert answer is None


def test_another_process_under_the_same_pid_is_not_the_one_meant(alive: dict[str, tp.Any]) -> None:
    assert process.is_alive({**alive, "started": alive["started"] - 60}) is False


def test_a_process_from_before_a_reboot_is_not_alive(alive: dict[str, tp.Any]) -> None:
    assert process.is_alive({**alive, "boot": "another"}) is False


@pytest.mark.parametrize("key", ["host", "machine", "pid_namespace"])
def test_of_a_process_elsewhere_nothing_is_known(alive: dict[str, tp.Any], key: str) -> None:
    assert process.is_alive({**alive, key: "another"}) is None


def test_nothing_is_known_of_a_process_of_another_host_that_was_booted_otherwise(alive: dict[str, tp.Any]) -> None:
    assert process.is_alive({**alive, "host": "another", "boot": "another", "pid": 2**22}) is None


def test_a_live_process_is_alive_also_after_the_clock_was_set(alive: dict[str, tp.Any], tmp_path: Path) -> None:
    """The kernel counts from its start; psutil adds the time of that start, which moves with the clock."""
    for name in ("stat", str(alive["pid"])):
        (tmp_path / name).symlink_to(f"/proc/{name}")
    lines = Path("/proc/stat").read_text().splitlines()
    (tmp_path / "stat").unlink()
    (tmp_path / "stat").write_text(
        "\n".join(f"btime {int(line.split()[1]) + 2}" if line.startswith("btime") else line for line in lines)
    )
    code = (
        f"import psutil; psutil.PROCFS_PATH = {str(tmp_path)!r}\n"
        f"from hydra_exca.clusters import process; print(process.is_alive({alive!r}))"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "True"


@pytest.mark.parametrize("name", ["inline", "local"])
@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, JobState.RUNNING),
        ({"started": 1.0}, JobState.ENDED),
        ({"boot": "another"}, JobState.ENDED),
        ({"host": "another"}, JobState.UNKNOWN),
        ({"pid_namespace": "another"}, JobState.UNKNOWN),
    ],
)
def test_a_claim_of_a_process_is_judged_by_more_than_its_pid(
    alive: dict[str, tp.Any], name: str, changes: dict[str, tp.Any], state: JobState
) -> None:
    asked = JobReference("t", 0, str(alive["pid"]), {**alive, **changes}, started=True, submitted=0)
    assert cluster(name).query_jobs([asked])[0].state is state


def test_a_process_that_only_has_the_pid_of_a_job_is_not_cancelled(alive: dict[str, tp.Any]) -> None:
    cluster("local").cancel_jobs([JobReference("t", 0, str(alive["pid"]), {**alive, "started": 1.0}, True, 0)])
    assert process.is_alive(alive) is True


def test_a_queued_claim_of_a_live_launch_waits(alive: dict[str, tp.Any]) -> None:
    assert cluster("local").query_jobs([JobReference("t", 0, None, alive, False, 0)])[0].state is JobState.PENDING


# -- local


def test_no_more_processes_run_at_a_time_than_allowed(submit: Submit, batch: Callable[..., Batch]) -> None:
    mine = batch("wait", count=3)
    submission = submit("local", mine, array_parallelism=1)
    started(mine, submission)
    submission.poll()
    assert [job is not None for job in submission.job_ids.values()] == [True, False, False]


def test_a_process_that_takes_too_long_is_ended_and_said_to_be_late(
    submit: Submit, batch: Callable[..., Batch]
) -> None:
    report = ends(submit("local", batch("wait", count=1), timeout_min=0.005), 1)[0]
    assert (report.reason, report.end) == ("TIMEOUT: it ran longer than timeout_min=0.005", JobEnd.OUT_OF_TIME)


def test_each_process_has_its_own_time_limit(submit: Submit, batch: Callable[..., Batch]) -> None:
    mine = batch("wait", count=2)
    submission = submit("local", mine, per_job=[{"timeout_min": 0.005}, {}])
    assert ends(submission, 1)[0].end is JobEnd.OUT_OF_TIME
    started(mine, submission, 1)
    let_go(mine)
    assert ends(submission, 1)[1].reason == "exit code 0"


def test_a_process_is_warned_before_its_time_is_up(submit: Submit, batch: Callable[..., Batch]) -> None:
    mine = batch("wait", count=1)
    assert ends(submit("local", mine, timeout_min=0.1, slurm={"signal_delay_s": 2}), 1)[0].end is JobEnd.OUT_OF_TIME
    assert (mine.folder / "0.warned").exists()


def test_a_process_that_does_not_listen_to_the_warning_keeps_its_time(
    submit: Submit, batch: Callable[..., Batch]
) -> None:
    mine = batch("wait", count=1)
    (mine.folder / "deaf").touch()
    assert ends(submit("local", mine, timeout_min=0.05), 1)[0].end is JobEnd.OUT_OF_TIME


def test_nothing_is_started_in_the_step_that_tells_of_an_end(submit: Submit, batch: Callable[..., Batch]) -> None:
    """A failure may end it all."""
    submission = submit("local", batch("killed", count=2), array_parallelism=1)
    ends(submission, 1)
    assert submission.job_ids[1] is None


def test_a_process_keeps_most_of_its_time_before_it_is_warned() -> None:
    spec = JobSpec(0, Options({"timeout_min": 1}, {"signal_delay_s": 50}))
    running = local._LocalProcess(tp.cast(tp.Any, None), spec, started=100.0, timeouts=0)
    assert [running.needs_warning(now) for now in (110.0, 144.0, 146.0)] == [False, False, True]


def test_a_process_that_has_no_limit_is_never_warned() -> None:
    running = local._LocalProcess(tp.cast(tp.Any, None), JobSpec(0, Options()), started=0.0, timeouts=0)
    assert (running.needs_warning(1e9), running.is_late(1e9)) == (False, False)


def test_a_task_that_ends_with_the_exit_code_of_a_job_that_was_out_of_time_has_ended(
    submit: Submit, batch: Callable[..., Batch]
) -> None:
    mine = batch("75", count=1)
    assert ends(submit("local", mine), 1)[0].reason == "exit code 75" and runs(mine) == [1]


def test_a_job_that_was_out_of_time_and_asks_for_it_starts_again(submit: Submit, batch: Callable[..., Batch]) -> None:
    mine = batch("again", count=2)
    reports = ends(submit("local", mine), 2)
    assert {report.reason for report in reports.values()} == {"exit code 0"}
    assert runs(mine) == [2, 2]


def test_a_job_that_starts_again_is_the_next_to_start(submit: Submit, batch: Callable[..., Batch]) -> None:
    mine = batch("again", count=2)
    submission = submit("local", mine, array_parallelism=1)
    assert list(ends(submission, 1)) == [0] and runs(mine) == [2, 0]
    ends(submission, 1)


def test_a_job_that_was_cancelled_before_it_started_is_told_as_ended(
    submit: Submit, batch: Callable[..., Batch]
) -> None:
    mine = batch("wait", count=2)
    submission = submit("local", mine, array_parallelism=1)
    started(mine, submission)
    assert submission.cancel_job(1)
    assert submission.poll()[1].reason == "cancelled before it started"
    assert list(submission.unstarted_jobs()) == [] and never_ran(mine) == [1]


def test_the_processes_of_a_job_count_against_the_cores(
    submit: Submit, batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "usable_cores", lambda: range(4))
    submission = submit("local", batch("wait", count=3), workers=2)
    submission.poll()
    assert [job is not None for job in submission.job_ids.values()] == [True, True, False]


def test_a_job_of_more_processes_than_there_are_cores_runs_alone(
    submit: Submit, batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "usable_cores", lambda: range(2))
    submission = submit("local", batch("wait", count=2), workers=8)
    submission.poll()
    assert [job is not None for job in submission.job_ids.values()] == [True, False]


def test_local_jobs_outlive_a_signal_to_the_terminals_group(submit: Submit, batch: Callable[..., Batch]) -> None:
    mine = batch("wait", count=1)
    submission = submit("local", mine)
    started(mine, submission)
    pid = int((mine.folder / "0.started").read_text())
    assert os.getpgid(pid) == pid != os.getpgid(0)


def test_what_a_job_started_ends_with_it() -> None:
    with subprocess.Popen([sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '60'])"]) as parent:
        family = until(lambda: psutil.Process(parent.pid).children())
        process.end_processes(parent.pid)
        until(lambda: not any(member.is_running() for member in family))


def test_a_process_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_GRACE_S", 0.1)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None and stubborn.stdout.readline()
        process.end_processes(stubborn.pid)
        assert stubborn.wait(10) == -signal.SIGKILL


def test_each_process_sees_gpus_of_its_own(
    submit: Submit, batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7")
    monkeypatch.setattr(local, "usable_cores", lambda: range(2))
    mine = batch("gpus", count=2)
    ends(submit("local", mine, gpus_per_node=2), 2)
    assert {(mine.folder / f"{number}.gpus").read_text() for number in (0, 1)} == {"3,5", "6,7"}


def test_each_process_sees_as_many_gpus_as_its_own_options_say(
    submit: Submit, batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7")
    mine = batch("gpus", count=2)
    ends(submit("local", mine, per_job=[{"gpus_per_node": 1}, {"gpus_per_node": 3}], array_parallelism=2), 2)
    seen = [(mine.folder / f"{number}.gpus").read_text().count(",") + 1 for number in (0, 1)]
    assert seen == [1, 3]


def test_a_job_that_waits_for_gpus_is_not_overtaken(
    submit: Submit, batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7")
    monkeypatch.setattr(local, "usable_cores", lambda: range(8))
    submission = submit("local", batch("wait", count=3), per_job=[{"gpus_per_node": number} for number in (1, 4, 1)])
    submission.poll()
    assert [job is not None for job in submission.job_ids.values()] == [True, False, False]


def test_the_gpus_of_a_job_that_ended_are_the_next_ones(
    submit: Submit, batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6")
    mine = batch("gpus", count=3)
    ends(submit("local", mine, per_job=[{"gpus_per_node": number} for number in (1, 3, 2)]), 3)
    assert [(mine.folder / f"{number}.gpus").read_text() for number in range(3)] == ["3", "3,5,6", "3,5"]


def test_more_gpus_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(ConfigError, match="2 asked, 1 here"):
        cluster("local").check_options([Options(), Options({"gpus_per_node": 2})])


# -- slurm


@pytest.mark.slurm
def test_a_job_of_another_launch_under_the_same_id_is_ignored(submit: Submit, batch: Callable[..., Batch]) -> None:
    """Ids come again after a reset of the scheduler."""
    mine = batch("wait", count=1)
    submission = submit("slurm", mine)
    started(mine, submission)
    theirs = reference(mine, submission, token="20250101-000000-000000000000")
    report = cluster("slurm").query_jobs([theirs])[0]
    assert (report.state, report.end) == (JobState.ENDED, JobEnd.VANISHED)


@pytest.mark.slurm
def test_a_job_whose_id_is_not_known_is_found_by_its_token(submit: Submit, batch: Callable[..., Batch]) -> None:
    """The launch died between sbatch and writing down the id."""
    mine = batch("wait", count=2)
    submission = submit("slurm", mine)
    started(mine, submission, 1)
    dead = {**process.describe_process(), "boot": "before"}
    report = cluster("slurm").query_jobs([reference(mine, submission, 1, job=None, started=False, owner=dead)])[0]
    assert (report.state, report.job) == (JobState.RUNNING, submission.job_ids[1])


@pytest.mark.slurm
def test_a_job_whose_id_is_not_known_is_cancelled_by_its_token(submit: Submit, batch: Callable[..., Batch]) -> None:
    mine = batch("wait", count=2)
    submission = submit("slurm", mine)
    started(mine, submission, 1)
    dead = {**process.describe_process(), "boot": "before"}
    cluster("slurm").cancel_jobs([reference(mine, submission, 1, job=None, started=False, owner=dead)])
    assert set(ends(submission, 1)) == {1}


@pytest.mark.slurm
def test_one_poll_is_one_question_to_slurm_for_all_jobs(
    submit: Submit, batch: Callable[..., Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = batch("wait", count=3)
    submission = submit("slurm", mine, per_job=[{}, {}, {"timeout_min": 7}], poll_s=0)
    until(lambda: not never_ran(mine))
    monkeypatch.setenv("PATH", counted(tmp_path / "counted")["PATH"])
    for _ in range(4):
        submission.poll()
    assert [call.command for call in calls(tmp_path / "counted")] == ["squeue"] * 4


@pytest.mark.slurm
def test_what_is_settled_is_not_asked_for(
    submit: Submit, batch: Callable[..., Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submission = submit("slurm", batch(count=2), poll_s=0)
    for number in (0, 1):
        submission.stop_tracking(number)
    monkeypatch.setenv("PATH", counted(tmp_path / "counted")["PATH"])
    assert (submission.poll(), calls(tmp_path / "counted")) == ({}, [])


@pytest.mark.parametrize("said", ["Unable to contact slurm controller (connect failure)", "Socket timed out"])
def test_nothing_is_concluded_when_slurm_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    (tmp_path / "squeue").write_text(f"#!/bin/sh\necho 'slurm_load_jobs error: {said}' >&2\nexit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    asked = JobReference("t", 0, "1", process.describe_process(), started=True, submitted=time.time())
    assert cluster("slurm").query_jobs([asked])[0].state is JobState.UNKNOWN


@pytest.mark.slurm
def test_an_unknown_option_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        cluster("slurm").check_options([Options(), Options(slurm={"nonsense": 1})])


@pytest.mark.slurm
def test_a_refusal_of_sbatch_shows_what_it_said_and_what_was_sent(submit: Submit, batch: Callable[..., Batch]) -> None:
    with pytest.raises(SubmissionError, match=r"(?s)invalid partition.*slurm_partition = 'nowhere'"):
        submit("slurm", batch(), slurm={"partition": "nowhere"})


def test_slurm_that_does_not_answer_is_an_error_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sbatch", "scontrol"):
        (tmp_path / name).write_text("#!/bin/sh\necho no controller >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ConfigError, match=r"(?s)no controller.*cluster=local"):
        cluster("slurm").check_options([])


@pytest.fixture
def slurm_of_two_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that list a running job 77 of user 1000, as Slurm would, under the filters they are given."""
    row = "77|RUNNING|None|1:00:00|/data/launches/theirs/0.sh"
    for name in ("squeue", "sacct"):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(
            '#!/bin/bash\nusers=; jobs=\nwhile [ $# -gt 0 ]; do case "$1" in\n'
            "-u) users=$2; shift;; -j) jobs=$2; shift;; esac; shift; done\n"
            '[[ -n "$users" && ",$users," != *,1000,* ]] && exit 0\n'
            '[[ -n "$jobs" && ",$jobs," != *,77,* ]] && exit 0\n'
            f"echo '{row}'\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    assert shutil.which("squeue") == str(tmp_path / "bin" / "squeue")


def test_a_running_job_of_another_user_is_seen_beside_one_whose_id_is_not_known(slurm_of_two_users: None) -> None:
    """Asked for by the users of some jobs, the others' must not look as if they had ended."""
    dead = {**process.describe_process(), "boot": "before"}
    mine = JobReference("mine", 0, None, dead, started=False, submitted=time.time())
    theirs = JobReference("theirs", 0, "77", {**dead, "user": 1000}, started=True, submitted=time.time())
    assert cluster("slurm").query_jobs([mine, theirs])[1].state is JobState.RUNNING
