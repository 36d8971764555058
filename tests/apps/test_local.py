"""Processes of this machine and of this process alone: how many at a time, with which GPUs, for how long; pdb."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from apps import App, is_one_message, wait_until
from places import SUPPORT

from hydra_exca.clusters import Batch, JobReport, JobSpec, Options
from hydra_exca.clusters.local import LocalCluster

CORES = sorted(os.sched_getaffinity(0))
ONE_CORE = ["taskset", "-c", str(CORES[0])]
HOLD = """
note("start", os.environ.get("CUDA_VISIBLE_DEVICES"))
wait_for("go")
note("end")
return 1
"""


def most_at_a_time(notes: list[str]) -> int:
    running = most = 0
    for line in notes:
        running += 1 if line.startswith("start") else -1
        most = max(most, running)
    return most


@pytest.mark.parametrize(
    ("prefix", "overrides", "bound"),
    [
        pytest.param([], [], len(CORES), id="cores"),
        pytest.param(ONE_CORE, [], 1, id="affinity"),
        pytest.param([], ["hydra.launcher.array_parallelism=1"], 1, id="array_parallelism"),
    ],
)
def test_at_most_as_many_tasks_run_at_a_time_as_cores_or_array_parallelism_allow(
    tmp_path: Path, prefix: list[str], overrides: list[str], bound: int
) -> None:
    app = App(tmp_path, HOLD)
    seeds = ",".join(map(str, range(bound + 1)))
    with app.start(f"seed={seeds}", *overrides, cluster="local", prefix=prefix) as launch:
        wait_until(lambda: len(app.notes) >= bound, "the first tasks to run")
        started = len(psutil.Process(launch.process.pid).children())
        app.write("go", "")
        assert launch.result().returncode == 0
    assert (started, most_at_a_time(app.notes)) == (bound, bound)


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores, to run two tasks at a time")
def test_with_gpus_per_node_each_running_task_sees_other_gpus(tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    environment = {"CUDA_VISIBLE_DEVICES": "3,5,6,7,8"}
    with app.start("seed=1,2,3", "hydra.launcher.gpus_per_node=2", cluster="local", env=environment) as launch:
        wait_until(lambda: len(app.notes) >= 2, "two tasks to run")
        app.write("go", "")
        assert launch.result().returncode == 0
    seen = [line for line in app.notes if line.startswith("start")]
    assert sorted(seen[:2]) == ["start 3,5", "start 6,7"]
    assert seen[2] in seen[:2]


def test_more_gpus_than_there_are_is_an_error(tmp_path: Path) -> None:
    app = App(tmp_path)
    result = app.run("hydra.launcher.gpus_per_node=2", cluster="local", env={"CUDA_VISIBLE_DEVICES": "0"})
    assert is_one_message(result) and "2 asked, 1 here" in result.stderr
    assert app.notes == []


def test_a_job_past_its_time_limit_is_ended_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option counts whole minutes, the cluster does not."""
    (tmp_path / "endless.py").write_text("import threading; threading.Event().wait()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = Options(common={"timeout_min": 0.01})
    submission = LocalCluster(options).prepare(Batch(tmp_path, [JobSpec(0, options)], "endless", lambda number: None))
    reports: dict[int, JobReport] = {}
    wait_until(lambda: reports.update(submission.poll()) or reports, "the end of the job")
    assert "TIMEOUT" in reports[0].reason and "timeout_min=0.01" in reports[0].reason
    assert not psutil.pid_exists(int(submission.job_ids[0] or 0))


def test_debug_stops_in_pdb_where_a_task_fails_and_goes_on(tmp_path: Path) -> None:
    app = App(tmp_path, "if cfg.seed == 1:\n    wrong = cfg.seed + 41\n    raise ValueError('look')\nreturn 2")
    result = app.run("seed=1,2", cluster="debug", stdin="p 'wrong is', wrong\nq\n")
    assert "('wrong is', 42)" in result.stdout
    assert (result.statuses, result.returncode) == (["FAILED", "COMPLETED"], 1)


def test_without_sbatch_auto_is_this_machine(tmp_path: Path) -> None:
    app = App(tmp_path)
    assert app.run(cluster=None, env={"PATH": str(tmp_path)}).values == [10]
    assert app.record()["cluster"] == "local"


def test_slurm_without_sbatch_is_an_error(tmp_path: Path) -> None:
    app = App(tmp_path)
    result = app.run(cluster="slurm", env={"PATH": str(tmp_path)})
    assert is_one_message(result) and "there is no 'sbatch' on this machine" in result.stderr


def test_an_sbatch_that_does_not_answer_is_an_error_and_nothing_runs(tmp_path: Path) -> None:
    """The one fake: a broken sbatch, first in the path."""
    fake = tmp_path / "fake-and-broken"
    fake.mkdir()
    (fake / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: broken on purpose' >&2\nexit 1\n")
    (fake / "sbatch").chmod(0o755)
    app = App(tmp_path)
    result = app.run(cluster=None, env={"PATH": f"{fake}:{os.environ['PATH']}"})
    assert is_one_message(result) and "broken on purpose" in result.stderr
    assert (app.notes, app.cache.exists()) == ([], False)


def test_ctrl_c_ends_the_jobs_and_the_same_command_goes_on(tmp_path: Path) -> None:
    body = 'note("start", cfg.seed, os.getpid())\nif cfg.seed != 1:\n    wait_for("go")\nreturn 10 * cfg.seed\n'
    app = App(tmp_path, body)
    with app.start("seed=1,2,3", "hydra.launcher.array_parallelism=1", cluster="local") as launch:
        wait_until(lambda: len(app.notes) == 2, "the second task to run")
        launch.process.send_signal(signal.SIGINT)
        result = launch.result()
    assert (result.returncode, "Traceback" in result.text) == (130, False)
    assert not psutil.pid_exists(int(app.notes[1].split()[2]))
    app.write("go", "")
    assert app.run("seed=1,2,3", cluster="local").values == [10, 20, 30]
    assert sorted(line.split()[1] for line in app.notes) == ["1", "2", "2", "3"]


# -- processes that end without an outcome -----------------------------------------------------------------------------

NO_JOBS = """
import os
import sys

if "hydra_exca.job.worker" in " ".join(sys.orig_argv):
    print("no such library")
    sys.stdout.flush()
    os._exit(3)
"""


@pytest.mark.parametrize("packed", [[], ["hydra.launcher.tasks_per_job=2"]], ids=["plain", "packed"])
def test_a_process_that_ends_before_it_begins_its_task_is_an_error_with_its_log_that_is_not_stored(
    tmp_path: Path, packed: list[str]
) -> None:
    app = App(tmp_path, files={"broken/sitecustomize.py": NO_JOBS})
    path = f"{tmp_path / 'broken'}{os.pathsep}{SUPPORT}"
    result = app.run("seed=1,2", *packed, cluster="local", env={"PYTHONPATH": path})
    assert {each["kind"] for each in result.returns} == {"JobLostError"} and app.entries == []
    assert all(each["details"]["state"].startswith("exit code 3") for each in result.returns)
    assert all("| no such library" in each["error"] for each in result.returns) and len(app.launches) == 1
    assert app.run("seed=1,2", *packed, cluster="local").values == [10, 20]


def test_a_process_that_dies_while_it_computes_its_task_is_the_tasks_failure(tmp_path: Path) -> None:
    app = App(tmp_path, "os.kill(os.getpid(), 9)")
    assert "SIGKILL" in app.run("seed=1", cluster="local").returns[0]["details"]["state"] and len(app.entries) == 1
