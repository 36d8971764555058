"""Jobs that Slurm takes away and starts again: each task in its place, with what it had saved, and with one outcome."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from apps import App, Result, Started, wait_until
from faults import OwnSlurm, OwnSlurms, end_time_of
from places import ROOT, SUPPORT

ON_N1 = "+hydra.launcher.additional_parameters={nodelist: n1}"
ALONE = ["seed=2"]
PACKED = ["seed=1,2,3", "hydra.launcher.tasks_per_job=3"]
ARRAY = ["seed=1,2"]
SHAPES = [pytest.param(ALONE, id="alone"), pytest.param(PACKED, id="packed")]
OF_SEVERAL = [pytest.param(ARRAY, id="array"), pytest.param(PACKED, id="packed")]
# The second task is there when the fault comes, and returns at once after it. The fault comes once the note is there:
# what it must not interrupt is done before.
HOLD = """
held = cfg.seed == 2 and not Path("fault").exists()
saved = Path(HydraConfig.get().runtime.output_dir, "saved")
again = saved.exists()
saved.touch()
print("attempt")
note("start", cfg.seed, again)
if held:
    wait_for("never", 300)
return 10 * cfg.seed
"""


@pytest.fixture
def slurm(own_slurm: OwnSlurms) -> OwnSlurm:
    return own_slurm(accounting=False, MessageTimeout=2)


def start(app: App, slurm: OwnSlurm, *overrides: str) -> Started:
    """A launch whose second task is being computed."""
    launch = app.start(*overrides, "hydra.launcher.poll_s=2", cluster="slurm", env=slurm.environment)
    wait_until(lambda: "start 2 False" in app.notes or launch.process.poll() is not None, "the task to run")
    wait_until(lambda: app.record()["jobs"], "the id of the job")
    return launch


def held_job(app: App) -> str:
    """The id of the job of the second task."""
    jobs = json.loads((app.launches[0] / "launch.json").read_text())["jobs"]
    return str(jobs[max(jobs)])


def want_its_place(slurm: OwnSlurm, tmp_path: Path) -> None:
    """A job of higher priority takes all of the node."""
    slurm.run("sbatch", "-p", "high", "-w", "n1", "-c", "8", "--output=/dev/null", f"--chdir={tmp_path}", "--wrap=true")


def is_as_it_would_have_been(app: App, result: Result, overrides: list[str]) -> bool:
    """Every value is there, and only the task that was interrupted was begun twice, with what it had saved."""
    seeds = [int(seed) for seed in overrides[0].removeprefix("seed=").split(",")]
    begun = [f"start {seed} False" for seed in seeds] + ["start 2 True"]
    return (result.values, sorted(app.notes)) == ([10 * seed for seed in seeds], sorted(begun))


def entry_of(app: App, seed: int) -> Path:
    (entry,) = [each for each in app.entries if f"seed={seed}" in each.name]
    return entry


# -- preempted, requeued -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", SHAPES)
def test_what_is_preempted_runs_again_from_what_it_had_saved(
    slurm: OwnSlurm, tmp_path: Path, overrides: list[str]
) -> None:
    app = App(tmp_path, HOLD)
    with start(app, slurm, *overrides, "hydra.launcher.partition=low", ON_N1) as launch:
        app.write("fault", "")
        want_its_place(slurm, tmp_path)
        result = launch.result()
    assert is_as_it_would_have_been(app, result, overrides), result.text
    assert len(app.launches) == 1  # Slurm has started it again, not the launch
    assert "preempted, and queued again by Slurm: seed=2" in result.text


@pytest.mark.parametrize("overrides", SHAPES)
def test_what_is_preempted_for_good_runs_again_with_the_same_command(
    slurm: OwnSlurm, tmp_path: Path, overrides: list[str]
) -> None:
    app = App(tmp_path, HOLD)
    command = (*overrides, "hydra.launcher.partition=cancelled", ON_N1)
    with start(app, slurm, *command) as launch:
        app.write("fault", "")
        want_its_place(slurm, tmp_path)
        lost = launch.result()
    assert "PREEMPTED" in lost.returns[-1]["details"]["state"] and len(app.launches) == 1
    result = app.run(*command, cluster="slurm", env=slurm.environment)
    assert is_as_it_would_have_been(app, result, overrides), result.text


@pytest.mark.parametrize("overrides", OF_SEVERAL)
def test_what_is_requeued_runs_again_from_what_it_had_saved(
    slurm: OwnSlurm, tmp_path: Path, overrides: list[str]
) -> None:
    app = App(tmp_path, HOLD)
    with start(app, slurm, *overrides) as launch:
        app.write("fault", "")
        slurm.scontrol("requeue", held_job(app))
        result = launch.result()
    assert is_as_it_would_have_been(app, result, overrides), result.text
    logs = [path.read_text() for path in sorted(entry_of(app, 2).glob("logs/*.log"))]
    assert [text.splitlines() for text in logs] == [["attempt"], ["attempt"]]


def test_what_is_requeued_while_nobody_waits_is_joined(slurm: OwnSlurm, tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with start(app, slurm, *ALONE) as launch:
        launch.kill()
    app.write("fault", "")
    slurm.scontrol("requeue", held_job(app))
    result = app.run(*ALONE, cluster="slurm", env=slurm.environment)
    assert is_as_it_would_have_been(app, result, ALONE), result.text
    assert result.counts["joined"] == 1


# -- time limits -------------------------------------------------------------------------------------------------------


def warn(app: App, slurm: OwnSlurm) -> None:
    """As Slurm does before the time limit, which is near enough from the beginning with `SHORT`."""
    app.write("fault", "")
    slurm.run("scancel", "--signal=USR2", held_job(app))


# Slurm itself would send it 25 s after the start
SHORT = ["hydra.launcher.timeout_min=5", "hydra.launcher.signal_delay_s=245"]


def test_a_task_whose_time_is_up_starts_again_where_that_is_allowed(slurm: OwnSlurm, tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with start(app, slurm, *ALONE, "hydra.launcher.max_num_timeout=1", "hydra.launcher.timeout_min=9") as launch:
        app.write("fault", "")
        slurm.scontrol("update", f"jobid={held_job(app)}", "EndTime=now+60")
        result = launch.result()
    assert is_as_it_would_have_been(app, result, ALONE), result.text
    assert len(app.launches) == 1


def test_a_job_of_several_tasks_whose_time_is_up_goes_on_where_it_was(slurm: OwnSlurm, tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with start(app, slurm, *PACKED, *SHORT, "hydra.launcher.max_num_timeout=1") as launch:
        warn(app, slurm)
        result = launch.result()
    assert is_as_it_would_have_been(app, result, PACKED), result.text
    assert len(app.launches) == 1


def test_a_task_that_may_not_start_again_goes_on_to_its_limit_and_has_failed(slurm: OwnSlurm, tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with start(app, slurm, *ALONE) as launch:
        end_time_of(held_job(app), slurm.environment)
        result = launch.result()
    assert (result.statuses, app.notes) == (["FAILED"], ["start 2 False"])
    assert "TIMEOUT" in result.returns[0]["details"]["state"]


def test_a_task_that_may_not_start_again_can_still_end_in_the_time_that_is_left(
    slurm: OwnSlurm, tmp_path: Path
) -> None:
    app = App(tmp_path, 'note("start 2 False")\nwait_for("go")\nreturn 20')
    with start(app, slurm, *ALONE, *SHORT) as launch:
        warn(app, slurm)
        wait_until(lambda: "no restarts are left" in log_of_the_task(app), "the warning to come")
        app.write("go", "")
        assert launch.result().values == [20]


def test_a_task_does_not_start_again_more_often_than_it_may(slurm: OwnSlurm, tmp_path: Path) -> None:
    app = App(tmp_path, 'note("start 2 False")\nwait_for("go")\nreturn 20')
    with start(app, slurm, *ALONE, *SHORT, "hydra.launcher.max_num_timeout=1") as launch:
        warn(app, slurm)
        wait_until(lambda: len(app.notes) == 2, "the second start")
        warn(app, slurm)
        wait_until(lambda: "no restarts are left" in log_of_the_task(app), "the warning to come")
        app.write("go", "")
        assert launch.result().values == [20]
    assert len(app.notes) == 2


@pytest.mark.parametrize("overrides", OF_SEVERAL)
def test_a_warning_long_before_the_limit_is_of_a_preemption_and_uses_up_no_time_out(
    slurm: OwnSlurm, tmp_path: Path, overrides: list[str]
) -> None:
    app = App(tmp_path, HOLD)
    with start(app, slurm, *overrides, "hydra.launcher.max_num_timeout=0") as launch:
        warn(app, slurm)
        result = launch.result()
    assert is_as_it_would_have_been(app, result, overrides), result.text


def log_of_the_task(app: App) -> str:
    return "".join(path.read_text() for path in app.cache.glob("*/*/logs/*"))


def test_a_warning_that_comes_while_python_starts_does_not_end_the_task(slurm: OwnSlurm, tmp_path: Path) -> None:
    slowly = """
    import os
    if "SLURM_PROCID" in os.environ:
        from apps import note, wait_for
        note("booting")
        wait_for("listens")
    """
    app = App(tmp_path, 'note("start 2 False")\nreturn 20', files={"slow/sitecustomize.py": slowly})
    tests = f"{tmp_path / 'slow'}{os.pathsep}{SUPPORT}"
    with app.start(*ALONE, cluster="slurm", env={**slurm.environment, "PYTHONPATH": tests}) as launch:
        wait_until(lambda: "booting" in app.notes and app.record()["jobs"], "python to start")
        warn(app, slurm)
        app.write("listens", "")
        assert launch.result().values == [20]


# -- a checkpoint of the user's own ------------------------------------------------------------------------------------

OBJECT = """
from pathlib import Path

import hydra
from apps import note, tell_returns, wait_for
from hydra.core.hydra_config import HydraConfig
from submitit.helpers import DelayedSubmission


def later(cfg, step):
    note("later", step)
    return step


class Train:
    def __call__(self, cfg):
        held = not Path("fault").exists()
        self.step = 7
        note("start", cfg.seed, False)
        if held:
            wait_for("never", 300)
        return 10 * cfg.seed

    def checkpoint(self, cfg):
        note("checkpoint", cfg.seed, self.step)
        return {returns}


train = hydra.main(version_base="1.3", config_path="conf", config_name="config")(Train())

if __name__ == "__main__":
    tell_returns()
    train()
"""
MAY_AGAIN = [*SHORT, "hydra.launcher.max_num_timeout=1"]
FUNCTION = """
def _checkpoint(cfg):
    note("checkpoint", cfg.seed)
    return True
"""
MODEL = """
import os
from pathlib import Path

import hydra_exca as exca
import pydantic
from apps import note, tell_returns, wait_for


class Train(pydantic.BaseModel):
    seed: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def fit(self) -> int:
        held = not Path("fault").exists()
        note("start", self.seed, False)
        if held:
            wait_for("never", 300)
        return 10 * self.seed

    def checkpoint(self):
        note("checkpoint", self.seed)
        return True


if __name__ == "__main__":
    print("value", Train(seed=2, infra={"folder": "exca", "cluster": "slurm"}).fit())
"""


def warned(slurm: OwnSlurm, app: App, *overrides: str) -> Result:
    with start(app, slurm, *ALONE, *overrides) as launch:
        warn(app, slurm)
        return launch.result()


def test_a_checkpoint_of_a_callable_object_is_called_with_what_the_object_is_called_with(
    slurm: OwnSlurm, tmp_path: Path
) -> None:
    app = App(tmp_path, files={"train.py": OBJECT.replace("{returns}", "True")})
    assert warned(slurm, app, *MAY_AGAIN).values == [20]
    assert app.notes == ["start 2 False", "checkpoint 2 7", "start 2 False"]


def test_what_a_checkpoint_returns_to_be_called_is_called_by_the_next_start(slurm: OwnSlurm, tmp_path: Path) -> None:
    script = OBJECT.replace("{returns}", "DelayedSubmission(later, cfg, step=self.step)")
    app = App(tmp_path, files={"train.py": script})
    assert warned(slurm, app, *MAY_AGAIN).values == [7]
    assert app.notes == ["start 2 False", "checkpoint 2 7", "later 7"]


def test_after_a_checkpoint_that_returns_none_the_task_goes_on_and_does_not_start_again(
    slurm: OwnSlurm, tmp_path: Path
) -> None:
    script = OBJECT.replace("{returns}", "None").replace('"never"', '"go"')
    app = App(tmp_path, files={"train.py": script})
    with start(app, slurm, *ALONE, *MAY_AGAIN) as launch:
        warn(app, slurm)
        wait_until(lambda: "does not start again" in log_of_the_task(app), "the answer of its checkpoint")
        app.write("go", "")
        assert launch.result().values == [20]
    assert app.notes == ["start 2 False", "checkpoint 2 7"]


def test_a_checkpoint_that_is_an_attribute_of_the_function_is_called(slurm: OwnSlurm, tmp_path: Path) -> None:
    app = App(tmp_path, HOLD, head=FUNCTION)
    script = (tmp_path / "train.py").read_text()
    app.write(
        "train.py",
        script.replace('if __name__ == "__main__":', "train.checkpoint = _checkpoint\n\nif __name__ == '__main__':"),
    )
    assert warned(slurm, app, *MAY_AGAIN).values == [20]
    assert app.notes == ["start 2 False", "checkpoint 2", "start 2 True"]


def test_a_checkpoint_of_a_model_in_python_is_called(slurm: OwnSlurm, tmp_path: Path) -> None:
    app = App(tmp_path, files={"model.py": MODEL})
    how = {"cluster": None, "launcher": None, "multirun": False, "script": ["model.py"], "env": slurm.environment}
    with app.start("hydra.sweep.dir=unused", **how) as program:
        wait_until(lambda: "start 2 False" in app.notes, "the task to run")
        wait_until(lambda: app.record()["jobs"], "the id of the job")
        app.write("fault", "")
        slurm.scontrol("requeue", held_job(app))
        assert "value 20" in program.result().stdout
    assert app.notes == ["start 2 False", "checkpoint 2", "start 2 False"]


def test_the_example_of_the_guide_goes_on_from_its_checkpoint(slurm: OwnSlurm, tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "slurm.md").read_text()
    script = guide.partition("<!-- file: train.py -->\n```python\n")[2].partition("```")[0]
    slowly = script.replace("            self.step += 1\n", "            self.step += 1\n            pace(self.step)\n")
    pace = """
    from apps import note, wait_for

    def pace(step):
        note(step)
        if step == 3:
            wait_for("fault")
            wait_for("never-in-the-first-start", 300)
    """
    app = App(tmp_path, config="steps: 5", files={"pace.py": pace, "train.py": f"from pace import pace\n{slowly}"})
    options = ["hydra.launcher.max_num_timeout=1", *SHORT, "hydra.launcher.poll_s=2"]
    with app.start(*options, cluster="slurm", env=slurm.environment) as launch:
        wait_until(lambda: "3" in app.notes and app.record()["jobs"], "the third step")
        warn(app, slurm)
        result = launch.result()
    assert (result.returncode, app.notes) == (0, ["1", "2", "3", "4", "5"]), result.text


# -- lost nodes --------------------------------------------------------------------------------------------------------


def test_what_was_on_a_node_that_is_lost_runs_again_on_another(slurm: OwnSlurm, tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with start(app, slurm, *PACKED) as launch:
        app.write("fault", "")
        node = slurm.squeue("-j", held_job(app), "-o", "%N")
        slurm.lose_node(node)
        result = launch.result()
    slurm.resume(node)
    assert is_as_it_would_have_been(app, result, PACKED), result.text
    assert len(app.launches) == 1


def test_of_two_that_run_since_a_node_was_out_of_reach_one_outcome_is_accepted(slurm: OwnSlurm, tmp_path: Path) -> None:
    body = """
    first = not Path("fault").exists()
    note("start 2 False" if first else "again")
    if first:
        wait_for("second-is-there", 300)
        note("first ends")
        return 1
    Path("second-is-there").touch()
    wait_for("first-has-ended", 300)
    return 2
    """
    app = App(tmp_path, body)
    with start(app, slurm, *ALONE) as launch:
        app.write("fault", "")
        node = slurm.squeue("-j", held_job(app), "-o", "%N")
        slurm.kill_node_daemon(node)
        wait_until(lambda: "first ends" in app.notes, "the first one to end while the second one runs")
        wait_until(lambda: "not accepted" in log_of_the_task(app), "its value to be refused")
        app.write("first-has-ended", "")
        result = launch.result()
    slurm.resume(node)
    assert (result.values, len(app.entries)) == ([2], 1)
