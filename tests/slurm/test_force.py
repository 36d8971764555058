"""mode=force where Slurm computes already: the old job ends first, others go on, and no value is lost on the way."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest
from apps import App, Started, wait_until
from faults import OwnSlurms, sbatch_that
from infra_models import Slow

from hydra_exca import checksums

FORCE = ["hydra.launcher.mode=force", "hydra.sweep.dir=forced", "hydra.launcher.poll_s=2"]
LATER = "+hydra.launcher.additional_parameters={begin: now+1hour}"
# the forced one finds "changed" and returns something else at once
HOLD = """
held = not Path("changed").exists()
note("start", cfg.seed)
try:
    if held:
        wait_for("go", 300)
        return cfg.seed
    return 10 * cfg.seed
finally:
    note("end", cfg.seed)
"""


def start(app: App, *overrides: str) -> Started:
    return app.start(*overrides, "hydra.launcher.poll_s=2", cluster="slurm")


def wait_for_jobs(app: App, number: int = 1) -> list[str]:
    """The ids of the jobs of the last launch, once it has noted them."""
    wait_until(lambda: len(app.launches) == number and (app.launches[-1] / "launch.json").exists(), "the launch")
    wait_until(lambda: app.record()["jobs"], "the ids of the jobs")
    return list(app.record()["jobs"].values())


def state(job: str) -> str:
    asked = subprocess.run(["squeue", "-h", "-t", "all", "-j", job, "-o", "%T"], capture_output=True, text=True)
    return asked.stdout.strip()


def test_a_running_job_is_ended_before_the_forced_one_begins(tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with start(app, "seed=1"):
        wait_until(lambda: app.notes, "the task to run")
        app.write("changed", "")
        assert app.run("seed=1", *FORCE, cluster="slurm").values == [10]
    assert app.notes == ["start 1", "end 1", "start 1", "end 1"]


def test_who_waits_for_the_old_job_gets_the_new_outcome(tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with start(app, "seed=1") as first:
        wait_until(lambda: app.notes, "the task to run")
        app.write("changed", "")
        app.run("seed=1", *FORCE, cluster="slurm")
        result = first.result()
    assert (result.values, result.counts) == ([10], {"cached": 0, "joined": 1, "run": 0, "failed": 0})


def test_a_pending_job_is_taken_out_of_the_queue(tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with start(app, "seed=1", LATER) as first:
        (job,) = wait_for_jobs(app)
        app.write("changed", "")
        assert app.run("seed=1", *FORCE, cluster="slurm").values == [10]
        assert first.result().values == [10]
    assert (state(job), app.notes) == ("CANCELLED", ["start 1", "end 1"])


def test_the_other_jobs_of_its_array_go_on(tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with start(app, "seed=1,2,3") as first:
        wait_until(lambda: len(app.notes) == 3, "all tasks to run")
        app.write("changed", "")
        assert app.run("seed=2", *FORCE, cluster="slurm").values == [20]
        app.write("go", "")
        assert first.result().values == [1, 20, 3]
    assert [app.notes.count(f"start {seed}") for seed in (1, 2, 3)] == [1, 2, 1]


def test_the_other_pending_jobs_of_its_array_go_on(tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with start(app, "seed=1,2,3", "hydra.launcher.array_parallelism=1") as first:
        wait_until(lambda: app.notes, "the first task to run")
        app.write("changed", "")
        assert app.run("seed=2", *FORCE, cluster="slurm").values == [20]
        app.write("go", "")
        assert first.result().values == [1, 20, 30]
    assert [app.notes.count(f"start {seed}") for seed in (1, 2, 3)] == [1, 1, 1]


def test_of_a_job_of_several_tasks_only_the_forced_one_is_ended_and_before_it_begins_anew(tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with start(app, "seed=1,2", "hydra.launcher.tasks_per_job=2", "hydra.launcher.workers_per_job=2") as first:
        wait_until(lambda: len(app.notes) == 2, "both tasks to run")
        app.write("changed", "")
        assert app.run("seed=1", *FORCE, cluster="slurm").values == [10]
        app.write("go", "")
        assert first.result().values == [10, 2]
    of_first = [note for note in app.notes if note.endswith("1")]
    assert (of_first, app.notes.count("start 2")) == (["start 1", "end 1", "start 1", "end 1"], 1)


def test_what_a_job_of_several_tasks_has_not_come_to_is_not_computed_by_it_any_more(tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with start(app, "seed=1,2,3", "hydra.launcher.tasks_per_job=3") as first:
        wait_until(lambda: app.notes, "the first task to run")
        app.write("changed", "")
        assert app.run("seed=2", *FORCE, cluster="slurm").values == [20]
        app.write("go", "")
        assert first.result().values == [1, 20, 30]
    assert [app.notes.count(f"start {seed}") for seed in (1, 2, 3)] == [1, 1, 1]


# -- a controller that is down -----------------------------------------------------------------------------------------


def test_a_forcing_launch_that_slurm_does_not_answer_says_so_and_changes_nothing(
    tmp_path: Path, own_slurm: OwnSlurms
) -> None:
    app, slurm = App(tmp_path, HOLD), own_slurm(accounting=False)
    with app.start("seed=1", "hydra.launcher.poll_s=2", cluster="slurm", env=slurm.environment) as first:
        wait_until(lambda: app.notes, "the task to run")
        slurm.wait_until_saved()
        slurm.kill_controller()
        forced = app.run("seed=1", *FORCE, cluster="slurm", env=slurm.environment)
        slurm.start_controller()
        app.write("go", "")
        assert first.result().values == [1]
    assert forced.returncode == 1 and "Slurm has not answered squeue" in forced.text
    assert "is being computed on Slurm, which does not answer: try again when it does" in forced.text


def test_clearing_a_job_while_slurm_does_not_answer_says_so_and_cancels_it_when_it_does(
    tmp_path: Path, own_slurm: OwnSlurms, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slurm, notes = own_slurm(accounting=False), tmp_path / "notes"
    for name, value in {**slurm.environment, "NOTES": str(notes)}.items():
        monkeypatch.setenv(name, value)
    task = Slow(infra={"folder": tmp_path / "cache", "cluster": "slurm"})
    task.infra.job()
    wait_until(notes.exists, "the method to run")
    slurm.wait_until_saved()
    slurm.kill_controller()
    clearing = threading.Thread(target=task.infra.clear_job)
    clearing.start()
    wait_until(lambda: "cannot see whether job" in caplog.text, "it to be said", 90)
    slurm.start_controller()
    clearing.join(90)
    wait_until(lambda: "CANCELLED" in slurm.squeue("-t", "all", "-o", "%T").split(), "the job to end")


# -- the old value is there until the new one is -----------------------------------------------------------------------

REPLACED = """
made = Path("kind").read_text()
Path(HydraConfig.get().runtime.output_dir, "made").write_text(made)
note("start", made)
if made == "new":
    wait_for("never", 300)
return made * 3000  # in a file of its own
"""


def with_a_value(tmp_path: Path) -> App:
    """An app that has computed one, and would compute something else now."""
    app = App(tmp_path, REPLACED, files={"kind": "old"})
    assert app.run(cluster="slurm").values == ["old" * 3000]
    app.write("kind", "new")
    return app


def assert_the_old_value_is_back(app: App) -> None:
    result = app.run(cluster="slurm")
    assert result.values == ["old" * 3000], result.text
    assert (app.job(0) / "made").read_text() == "old"


def test_a_forcing_launch_that_is_killed_before_it_has_submitted_leaves_the_old_value(tmp_path: Path) -> None:
    app = with_a_value(tmp_path)
    fault = sbatch_that(tmp_path / "fault", "kills its launch before")
    app.run(*FORCE, cluster="slurm", env=fault)
    assert_the_old_value_is_back(app)


def test_a_forcing_launch_and_its_pending_job_that_are_ended_leave_the_old_value(tmp_path: Path) -> None:
    app = with_a_value(tmp_path)
    with start(app, *FORCE, LATER) as forcing:
        (job,) = wait_for_jobs(app, 2)
        forcing.kill()
    subprocess.run(["scancel", job], check=True)
    assert_the_old_value_is_back(app)


@pytest.mark.parametrize("how", [(), ("--signal=KILL",)], ids=["cancelled", "killed"])
def test_a_forcing_launch_and_its_running_job_that_are_ended_leave_the_old_value(
    tmp_path: Path, how: tuple[str, ...]
) -> None:
    app = with_a_value(tmp_path)
    with start(app, *FORCE) as forcing:
        wait_until(lambda: "start new" in app.notes, "the new task to run")
        (job,) = wait_for_jobs(app, 2)
        forcing.kill()
    subprocess.run(["scancel", *how, job], check=True)
    wait_until(lambda: state(job) in ("CANCELLED", "FAILED", "COMPLETED"), "its end")
    assert_the_old_value_is_back(app)


def test_while_the_new_value_is_computed_the_old_one_is_not_deleted(tmp_path: Path) -> None:
    app = with_a_value(tmp_path)
    (old,) = app.cache.glob("*/*/value.*")
    with start(app, *FORCE):
        wait_until(lambda: "start new" in app.notes, "the new task to run")
        assert old.exists()
        assert [path.read_text() for path in app.cache.glob("*/*/*/made")].count("old") == 1
        subprocess.run(["scancel", wait_for_jobs(app, 2)[0]], check=True)


def test_when_the_new_value_is_complete_the_old_one_is_gone(tmp_path: Path) -> None:
    app = with_a_value(tmp_path)
    (old,) = app.cache.glob("*/*/value.*")
    app.write("never", "")
    assert app.run(*FORCE, cluster="slurm").values == ["new" * 3000]
    assert not old.exists()


def test_the_job_of_somebody_else_is_not_cancelled_and_the_error_says_whose_it_is(tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with start(app, "seed=1"):
        wait_until(lambda: app.notes, "the task to run")
        (job,) = wait_for_jobs(app)
        newest = max(app.cache.glob("*/*/claim.*.json"), key=lambda path: int(path.name.split(".")[1]))
        claim = checksums.parse_record(newest.read_bytes())
        claim["owner"]["user"] = 65534
        newest.write_bytes(checksums.dump_record(claim))
        result = app.run("seed=1", *FORCE, cluster="slurm")
        assert (result.returncode, state(job)) == (1, "RUNNING")
        assert "nobody" in result.stderr
        app.write("go", "")
