"""What a sweep does when a task fails: goes on, submits nothing more, or takes back what has not begun."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from apps import App, is_one_message, wait_until

CLUSTERS = ["inline", "local", pytest.param("slurm", marks=pytest.mark.slurm)]
OF_THEIR_OWN = CLUSTERS[1:]
UNLUCKY = """
note("start", cfg.seed)
if cfg.seed == 2:
    raise ValueError("unlucky")
return 10 * cfg.seed
"""
# the first task fails once the second one runs, which ends when the test says so
BESIDE = """
note("start", cfg.seed)
if cfg.seed == 1:
    wait_for("fail")
    raise ValueError("unlucky")
if cfg.seed == 2:
    wait_for("go")
return 10 * cfg.seed
"""
BATCHES = "hydra.sweeper.max_batch_size=2"
ONE_AT_A_TIME = "hydra.launcher.array_parallelism=1"
TWO_AT_A_TIME = "hydra.launcher.array_parallelism=2"


def on_failure(what: str) -> str:
    return f"hydra.launcher.on_failure={what}"


@pytest.mark.parametrize("cluster", OF_THEIR_OWN)
def test_with_continue_the_sweepers_further_batches_run(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, UNLUCKY)
    result = app.run("seed=1,2,3,4", BATCHES, cluster=cluster)
    assert sorted(app.notes) == ["start 1", "start 2", "start 3", "start 4"]
    assert result.statuses == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]


def test_a_sweep_that_went_on_over_a_failure_ends_with_status_1_and_says_why(tmp_path: Path) -> None:
    app = App(tmp_path, UNLUCKY)
    result = app.run("seed=1,2,3,4", BATCHES)
    assert app.notes == ["start 1", "start 2", "start 3", "start 4"]
    assert (result.returncode, "Traceback" in result.stderr) == (1, False)
    assert "1 task of the sweep failed" in result.stderr and "mode=retry" in result.stderr


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_a_log_of_hydra_that_cannot_be_written_is_no_failure_of_the_task(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path)
    result = app.run("hydra.job_logging.handlers.file.filename=/not/there.log", cluster=cluster)
    assert result.returncode == 1 and app.entries == []
    assert "/not/there.log cannot be read or written: No such file or directory" in result.text
    assert app.run(cluster=cluster).values == [10]


def test_a_sweep_without_a_failure_ends_with_status_0(tmp_path: Path) -> None:
    assert App(tmp_path).run("seed=1,3,4", BATCHES).returncode == 0


def test_an_error_that_ends_the_sweep_is_what_the_user_sees_also_after_failures(tmp_path: Path) -> None:
    app = App(tmp_path, UNLUCKY, files={"conf/model/there.yaml": "size: 1\n"})
    result = app.run("seed=2", "+model=there,nowhere", "hydra.sweeper.max_batch_size=1")
    assert (result.returncode, app.notes) == (1, ["start 2"])
    assert "Could not find 'model/nowhere'" in result.stderr and "of the sweep failed" not in result.stderr


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_with_stop_nothing_more_is_started(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, UNLUCKY)
    result = app.run("seed=1,2,3,4", on_failure("stop"), ONE_AT_A_TIME, *held_back(cluster), cluster=cluster)
    assert app.notes == ["start 1", "start 2"]
    assert result.statuses == ["COMPLETED", "FAILED", "FAILED", "FAILED"]


def held_back(cluster: str) -> list[str]:
    """What Slurm has been given is not this launch's to start."""
    return ["hydra.launcher.max_queued=1"] if cluster == "slurm" else []


def test_with_stop_the_sweepers_further_batches_do_not_run(tmp_path: Path) -> None:
    app = App(tmp_path, UNLUCKY)
    result = app.run("seed=1,2,3,4", BATCHES, on_failure("stop"))
    assert (result.returncode, app.notes) == (1, ["start 1", "start 2"])


@pytest.mark.parametrize("cluster", OF_THEIR_OWN)
def test_with_stop_what_runs_is_waited_for(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, BESIDE)
    with app.start("seed=1,2", on_failure("stop"), TWO_AT_A_TIME, cluster=cluster) as launch:
        wait_until(lambda: len(app.notes) == 2, "both tasks to run")
        app.write("fail", "")
        wait_until(lambda: launch.says("seed=1 failed"), "the failure")
        app.write("go", "")
        assert launch.result().values == [None, 20]


@pytest.mark.slurm
def test_with_cancel_what_waits_in_the_queue_is_taken_back(tmp_path: Path) -> None:
    app = App(tmp_path, UNLUCKY.replace("== 2", "== 1"))
    result = app.run(
        "seed=1,2,3", on_failure("cancel"), ONE_AT_A_TIME, "+hydra.launcher.use_srun=false", cluster="slurm"
    )
    assert "start 1" in app.notes and "start 3" not in app.notes
    assert result.statuses[0] == result.statuses[2] == "FAILED"
    job = app.record()["jobs"]["2"]
    left = subprocess.run(["squeue", "-h", "-j", job], capture_output=True, text=True)
    assert left.stdout == ""


@pytest.mark.parametrize("cluster", OF_THEIR_OWN)
def test_with_cancel_what_runs_is_waited_for(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, BESIDE)
    with app.start("seed=1,2,3", on_failure("cancel"), TWO_AT_A_TIME, cluster=cluster) as launch:
        wait_until(lambda: {"start 1", "start 2"} <= set(app.notes), "both tasks to run")
        app.write("fail", "")
        wait_until(lambda: launch.says("seed=1 failed"), "the failure")
        app.write("go", "")
        assert launch.result().values[1] == 20
    assert "start 3" not in app.notes


def test_with_cancel_the_tasks_of_a_running_job_that_it_has_not_begun_are_taken_back(tmp_path: Path) -> None:
    body = UNLUCKY.replace("== 2", "== 1") + "\n"
    app = App(tmp_path, body.replace("return", "wait_for('go')\nreturn"))
    packed = ["hydra.launcher.tasks_per_job=2", TWO_AT_A_TIME]
    with app.start("seed=3,4,1,5", on_failure("cancel"), *packed, cluster="local") as launch:
        wait_until(lambda: launch.says("seed=1 failed"), "the failure")
        app.write("go", "")
        result = launch.result()
    assert "start 4" not in app.notes and result.values[0] == 30


@pytest.mark.parametrize(("what", "cluster"), [("stop", "inline"), ("cancel", "local")])
def test_what_was_not_run_is_not_submitted_and_runs_with_the_same_command(
    tmp_path: Path, what: str, cluster: str
) -> None:
    app = App(tmp_path, UNLUCKY)
    app.run("seed=1,2,3", on_failure(what), ONE_AT_A_TIME, cluster=cluster)
    assert [row["status"] for row in app.index()] == ["completed", "failed", "not submitted"]
    again = app.run("seed=1,3", on_failure(what), cluster=cluster)
    assert (again.values, again.counts["run"]) == ([10, 30], 1)


def test_a_stored_failure_stops_like_one_that_happens_now(tmp_path: Path) -> None:
    app = App(tmp_path, UNLUCKY)
    app.run("seed=2")
    result = app.run("seed=2,3", on_failure("stop"))
    assert (app.notes, result.returncode) == (["start 2"], 1)
    assert "mode=retry" in result.text


def test_a_task_that_was_not_run_names_the_one_that_failed_and_is_counted(tmp_path: Path) -> None:
    result = App(tmp_path, UNLUCKY).run("seed=2,3", on_failure("stop"))
    assert "2 tasks: 1 failed, 1 not run in" in result.stdout
    assert "seed=2 failed" in result.returns[1]["error"] and "on_failure=stop" in result.returns[1]["error"]


def test_a_failure_is_shown_when_it_happens(tmp_path: Path) -> None:
    app = App(tmp_path, BESIDE)
    with app.start("seed=1,2", cluster="local") as launch:
        app.write("fail", "")
        wait_until(lambda: launch.says("seed=1 failed: ValueError"), "the failure, while the other task runs")
        app.write("go", "")
        launch.result()


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_an_error_of_the_disk_while_hydra_prepares_a_task_is_no_failure_of_it(tmp_path: Path, cluster: str) -> None:
    head = """
    import errno, os
    import hydra.core.utils

    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "config.yaml")

    if os.path.exists(os.environ["NOTES"] + ".full"):
        hydra.core.utils._save_config = fail
    """
    app = App(tmp_path, head=head)
    full = app.write("notes.txt.full", "")
    failed = app.run("seed=1", cluster=cluster)
    assert (failed.returncode, app.entries) == (1, []) and "No space left on device" in failed.text
    full.unlink()
    assert app.run("seed=1", cluster=cluster).values == [10]


def test_no_other_word_is_taken(tmp_path: Path) -> None:
    result = App(tmp_path).run(on_failure("explode"))
    assert is_one_message(result) and "invalid on_failure 'explode': choose continue, stop or cancel" in result.stderr
