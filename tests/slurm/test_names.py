"""Names and comments of jobs: which task, which launch, and what the user set instead."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from apps import App, wait_until

HOLD = 'note("start", cfg.seed)\nwait_for("go")\nreturn cfg.seed'


def names_of_jobs(app: App, *options: str, count: int) -> list[str]:
    """The names and comments of the jobs of a sweep, once all its tasks run."""
    seeds = ",".join(map(str, range(count)))
    with app.start(f"seed={seeds}", *options, cluster="slurm") as launch:
        wait_until(lambda: len(app.notes) == count, "the tasks to run")
        (array,) = {job.partition("_")[0] for job in app.record()["jobs"].values()}
        command = ["squeue", "-h", "-r", "-j", array, "-o", "%j|%k"]
        listed = lambda: subprocess.check_output(command, text=True).splitlines()  # noqa: E731
        wait_until(lambda: not any("tasks]" in row for row in listed()), "the names of the tasks")
        rows = listed()
        app.write("go", "")
        launch.result()
    return sorted(rows)


@pytest.mark.parametrize("count", [1, 3])
def test_the_name_of_a_running_job_tells_its_task_and_the_comment_its_launch(count: int, tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    rows = names_of_jobs(app, count=count)
    launch = app.launches[-1].name
    assert rows == [f"train[seed={seed}]|exca launch {launch}" for seed in range(count)]


def test_a_name_and_a_comment_of_the_users_own_stay(tmp_path: Path) -> None:
    options = ["hydra.launcher.name=mine", "hydra.launcher.comment=why"]
    assert names_of_jobs(App(tmp_path, HOLD), *options, count=2) == ["mine|why"] * 2


def test_a_comment_may_be_an_additional_parameter(tmp_path: Path) -> None:
    options = ["+hydra.launcher.additional_parameters={comment: because}"]
    assert names_of_jobs(App(tmp_path, HOLD), *options, count=1) == ["train[seed=0]|because"]
