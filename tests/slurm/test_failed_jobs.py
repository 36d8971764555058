"""Slurm sees that a task has failed, and no launch takes its job for lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from apps import App, Result, wait_until
from faults import OwnSlurms
from infra_models import Fails
from map_models import Scaled

from hydra_exca.errors import TaskFailedError

FAILS = """
note("start", cfg.seed)
if cfg.seed == 2:
    raise ValueError("no luck")
return 10 * cfg.seed
"""


def run(app: App, *overrides: str, seeds: str = "seed=1,2,3", env: Mapping[str, str] | None = None) -> Result:
    return app.run(seeds, "hydra.launcher.poll_s=1", *overrides, cluster="slurm", env=dict(env or {}))


def jobs(app: App) -> list[str]:
    return list(app.record()["jobs"].values())


def ends(jobs: list[str], env: Mapping[str, str] | None = None) -> list[str]:
    """The states of jobs that have left the queue."""

    def states() -> list[str]:
        command = ["squeue", "-h", "-t", "all", "-o", "%T", "-j"]
        asked = (
            subprocess.run([*command, job], env={**os.environ, **(env or {})}, capture_output=True) for job in jobs
        )
        return [answer.stdout.decode().strip() for answer in asked]

    wait_until(lambda: not {"PENDING", "RUNNING", "COMPLETING", "REQUEUED"}.intersection(states()), "the jobs to end")
    return states()


@pytest.mark.parametrize("srun", [True, False])
def test_the_job_of_a_task_that_raised_has_failed_and_the_launch_stores_the_error_of_the_task(
    tmp_path: Path, srun: bool
) -> None:
    app = App(tmp_path, FAILS)
    result = run(app, f"+hydra.launcher.use_srun={srun}")
    assert result.statuses == ["COMPLETED", "FAILED", "COMPLETED"] and "no luck" in result.text
    assert ends(jobs(app)) == ["COMPLETED", "FAILED", "COMPLETED"]
    assert result.returns[1]["details"]["type"] == "ValueError" and len(app.notes) == 3


def test_a_job_of_several_tasks_fails_if_any_of_them_does(tmp_path: Path) -> None:
    app = App(tmp_path, FAILS)
    result = run(app, "hydra.launcher.tasks_per_job=2", seeds="seed=1,2,3,4")
    assert result.statuses == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]
    assert ends(jobs(app)) == ["FAILED", "COMPLETED"]


@pytest.mark.parametrize("tasks_per_job", [1, 3])
def test_an_option_lets_jobs_complete_whose_task_failed(tmp_path: Path, tasks_per_job: int) -> None:
    app = App(tmp_path, FAILS)
    run(app, "hydra.launcher.fail_jobs=false", f"hydra.launcher.tasks_per_job={tasks_per_job}")
    assert set(ends(jobs(app))) == {"COMPLETED"}


def test_what_runs_after_a_job_that_is_ok_does_not_start(tmp_path: Path) -> None:
    app = App(tmp_path, FAILS)
    with app.start("seed=2", "+hydra.launcher.additional_parameters={hold: true}", cluster="slurm") as launch:
        wait_until(lambda: list(app.cache.glob("launches/*/launch.json")) and jobs(app), "the job")
        (job,) = jobs(app)
        sbatch = ["sbatch", "--parsable", "--output=/dev/null", f"--dependency=afterok:{job}", "--wrap", "true"]
        after = subprocess.run(sbatch, capture_output=True, text=True, check=True).stdout.strip()
        subprocess.run(["scontrol", "release", job], check=True)
        launch.result()
    reason = lambda: subprocess.run(["squeue", "-h", "-j", after, "-o", "%r"], capture_output=True, text=True).stdout  # noqa: E731
    wait_until(lambda: "DependencyNeverSatisfied" in reason(), "Slurm to say that it never starts")
    subprocess.run(["scancel", after], check=True)


def test_the_jobs_of_infras_fail_with_their_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    task = Fails(infra={"folder": tmp_path / "cache", "cluster": "slurm"})
    with pytest.raises(TaskFailedError):
        task.fit()
    assert ends([str(task.infra.job().job_id)]) == ["FAILED"]
    quiet = Fails(x=2, infra={"folder": tmp_path / "cache", "cluster": "slurm", "fail_jobs": False})
    with pytest.raises(TaskFailedError):
        quiet.fit()
    assert ends([str(quiet.infra.job().job_id)]) == ["COMPLETED"]
    assert Scaled(infra={"fail_jobs": False}).infra.fail_jobs is False


@pytest.mark.parametrize("shape", [(), ("hydra.launcher.tasks_per_job=3",), ("hydra.launcher.tasks_per_node=2",)])
@pytest.mark.parametrize("code", [1, 70])
def test_a_site_that_requeues_by_exit_code_runs_no_failed_task_again(
    tmp_path: Path, own_slurm: OwnSlurms, shape: tuple[str, ...], code: int
) -> None:
    """With the code that the job has, Slurm does start it again: that start finds the failure, and is the last.

    srun may end another rank by a signal, and then the code is that of the signal.
    """
    slurm, app = own_slurm(accounting=False, RequeueExit=code), App(tmp_path, FAILS)
    result = run(app, *shape, env=slurm.environment)
    assert result.statuses == ["COMPLETED", "FAILED", "COMPLETED"]
    states, ranks = ends(jobs(app), slurm.environment), 2 if "hydra.launcher.tasks_per_node=2" in shape else 1
    if ranks == 1:
        assert ("FAILED" in states) is (code == 1)
    assert app.notes.count("start 2") == ranks
