"""What only Slurm does: one array, its options, and jobs that the scheduler ends."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from apps import App, is_one_message, wait_until

pytestmark = pytest.mark.slurm
HOLD = """
note("start", cfg.seed)
if cfg.seed == 1:
    wait_for("go")
return 10 * cfg.seed
"""


def submission_script(app: App) -> str:
    (script,) = app.launches[-1].glob("*.sh")
    return script.read_text()


def jobs(app: App) -> dict[str, str]:
    """The id of each position of the last launch, once Slurm has given them."""
    wait_until(lambda: app.launches and (app.launches[-1] / "launch.json").exists() and app.record()["jobs"], "jobs")
    return dict(app.record()["jobs"])


def test_a_sweep_is_one_job_array(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.run("seed=1,2,3", "hydra.launcher.array_parallelism=2", cluster="slurm")
    assert "--array=0-2%2" in submission_script(app) and "srun " in submission_script(app)
    assert {job.partition("_")[0] for job in jobs(app).values()} == {jobs(app)["0"].partition("_")[0]}


def test_auto_is_slurm_where_there_is_sbatch(tmp_path: Path) -> None:
    app = App(tmp_path)
    assert app.run(cluster=None).values == [10]
    assert app.record()["cluster"] == "slurm"


def test_options_known_and_added_reach_submitit_under_its_names(tmp_path: Path) -> None:
    app = App(tmp_path)
    options = ["partition=short", "timeout_min=7", "mem_gb=1", "gpus_per_node=2", "name=mine", "comment=ours"]
    result = app.run(*(f"hydra.launcher.{each}" for each in options), "+hydra.launcher.use_srun=false", cluster="slurm")
    assert result.values == [10]
    script = submission_script(app)
    wanted = ["--partition=short", "--time=7", "--mem=1GB", "--gpus-per-node=2", "--job-name=mine", "--comment=ours"]
    assert [each for each in wanted if each not in script.replace('"', "")] == []
    assert "srun " not in script


def test_a_preset_of_the_user_runs_on_slurm_with_its_options(tmp_path: Path) -> None:
    mine = "# @package hydra.launcher\ndefaults: [slurm]\npartition: short\ntimeout_min: 9\n"
    experiment = "# @package _global_\ndefaults: [{override /hydra/launcher/cluster: mine}]\nseed: 5\n"
    files = {"conf/hydra/launcher/cluster/mine.yaml": mine, "conf/experiment/big.yaml": experiment}
    app = App(tmp_path, config="defaults: [_self_, {experiment: null}]\nseed: 1\n", files=files)
    assert app.run("experiment=big", cluster=None).values == [50]
    assert "--time=9" in submission_script(app) and "--partition=short" in submission_script(app)


def test_a_cancelled_running_task_is_a_failed_task_with_the_reason(tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with app.start("seed=1,2", cluster="slurm") as launch:
        wait_until(lambda: "start 1" in app.notes, "the task to run")
        subprocess.run(["scancel", jobs(app)["0"]], check=True)
        result = launch.result()
    assert (result.statuses, result.values, result.returncode) == (["FAILED", "COMPLETED"], [None, 20], 1)
    assert "CANCELLED" in result.returns[0]["details"]["state"]


def test_one_cancelled_pending_task_of_an_array_is_a_failed_task_with_the_reason(tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with app.start("seed=1,2,3", "hydra.launcher.array_parallelism=1", cluster="slurm") as launch:
        wait_until(lambda: "start 1" in app.notes, "the first task to run")
        subprocess.run(["scancel", jobs(app)["1"]], check=True)
        app.write("go", "")
        result = launch.result()
    assert (result.statuses, result.values) == (["COMPLETED", "FAILED", "COMPLETED"], [10, None, 30])
    assert "cancelled" in result.returns[1]["details"]["state"].lower()
    assert app.notes == ["start 1", "start 3"]


def test_what_was_cancelled_while_nobody_waited_is_run_by_the_next_launch(tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with app.start("seed=1,2", cluster="slurm") as launch:
        wait_until(lambda: "start 1" in app.notes and jobs(app), "the task to run")
        launch.kill()
    ended = ["squeue", "-h", "-j", jobs(app)["0"], "-t", "RUNNING,COMPLETING"]
    subprocess.run(["scancel", jobs(app)["0"]], check=True)
    wait_until(lambda: not subprocess.run(ended, capture_output=True, text=True).stdout.strip(), "its end")
    app.write("go", "")
    result = app.run("seed=1,2", cluster="slurm")
    assert (result.statuses, result.values) == (["COMPLETED"] * 2, [10, 20]), result.text


def test_an_option_that_sbatch_refuses_is_shown_with_what_it_says_and_can_be_corrected(tmp_path: Path) -> None:
    app = App(tmp_path)
    result = app.run("seed=1,2", "hydra.launcher.partition=nowhere", cluster="slurm")
    assert is_one_message(result)
    assert "invalid partition specified: nowhere" in result.stderr and "slurm_partition = 'nowhere'" in result.stderr
    assert app.run("seed=1,2", cluster="slurm").values == [10, 20]


def test_an_option_that_submitit_does_not_know_is_refused(tmp_path: Path) -> None:
    app = App(tmp_path)
    result = app.run("+hydra.launcher.no_such_option=1", cluster="slurm")
    assert is_one_message(result) and "no_such_option" in result.stderr
    assert app.notes == []


def test_a_controller_that_does_not_answer_is_an_error_and_nothing_runs(tmp_path: Path) -> None:
    real = Path(os.environ["SLURM_CONF"]).read_text()
    dead = re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=9", real)
    conf = tmp_path / "slurm.conf"
    conf.write_text(dead)
    app = App(tmp_path)
    result = app.run(cluster=None, env={"SLURM_CONF": str(conf)})
    assert is_one_message(result) and "Slurm does not answer" in result.stderr
    assert (app.notes, app.cache.exists()) == ([], False)


def test_a_variable_that_was_counted_is_what_the_task_gets_whatever_the_node_has(tmp_path: Path) -> None:
    app = App(tmp_path, "return os.environ['TOKEN']\n")
    setup = 'hydra.launcher.setup=["export GIVEN=on_the_node"]'
    result = app.run("+hydra.job.env_set.TOKEN=${oc.env:GIVEN}", setup, cluster="slurm", env={"GIVEN": "at_the_launch"})
    assert result.values == ["at_the_launch"]
