"""Several tasks in a job: what each of them keeps to itself, and what becomes of them when something goes wrong."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest
from apps import App, is_one_message, wait_until
from faults import end_time_of

PACKED = ["local", pytest.param("slurm", marks=pytest.mark.slurm)]
NOTE_PID = 'note(cfg.seed, os.getpid())\nprint("printed by", cfg.seed)\nreturn 10 * cfg.seed\n'


def packed(tasks: int, workers: int = 1) -> list[str]:
    return [f"hydra.launcher.tasks_per_job={tasks}", f"hydra.launcher.workers_per_job={workers}"]


def pids(app: App) -> dict[str, list[str]]:
    """The tasks that each process has computed, in their order."""
    found: dict[str, list[str]] = {}
    for line in app.notes:
        seed, pid = line.split()[:2]
        found.setdefault(pid, []).append(seed)
    return found


@pytest.mark.parametrize("cluster", PACKED)
def test_the_tasks_of_a_job_run_one_after_another_in_one_process(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, NOTE_PID)
    result = app.run("seed=1,2,3,4,5", *packed(3), cluster=cluster)
    assert result.values == [10, 20, 30, 40, 50]
    assert sorted(pids(app).values()) == [["1", "2", "3"], ["4", "5"]]


@pytest.mark.parametrize("cluster", PACKED)
def test_workers_per_job_compute_at_a_time(tmp_path: Path, cluster: str) -> None:
    body = f"{NOTE_PID.splitlines()[0]}\nwait_for('go')\nreturn cfg.seed\n"
    app = App(tmp_path, body)
    with app.start("seed=1,2,3,4", *packed(4, workers=2), cluster=cluster) as launch:
        wait_until(lambda: len(app.notes) == 2, "two tasks to run at a time")
        app.write("go", "")
        assert launch.result().values == [1, 2, 3, 4]
    assert len(pids(app)) == 2


def test_each_task_of_a_job_has_a_log_of_its_own(tmp_path: Path) -> None:
    app = App(tmp_path, NOTE_PID)
    app.run("seed=1,2,3", *packed(3), cluster="local")
    logs = [[path.read_text() for path in entry.glob("logs/*.log")] for entry in app.entries]
    assert logs == [["printed by 1\n"], ["printed by 2\n"], ["printed by 3\n"]]


def test_each_task_of_a_job_has_an_output_directory_of_its_own(tmp_path: Path) -> None:
    app = App(tmp_path, "Path(HydraConfig.get().runtime.output_dir, 'mine').write_text(str(cfg.seed))\nreturn 1")
    app.run("seed=1,2,3", *packed(3), cluster="local")
    assert [(app.job(number) / "mine").read_text() for number in range(3)] == ["1", "2", "3"]


DIES = """
note(cfg.seed, os.getpid())
if cfg.seed == 2:
    os.kill(os.getpid(), 9)
if cfg.seed == 3:
    raise ValueError("unlucky")
return 10 * cfg.seed
"""


@pytest.mark.parametrize("cluster", PACKED)
def test_a_task_that_fails_or_kills_its_process_takes_no_other_with_it(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, DIES)
    result = app.run("seed=1,2,3,4", *packed(4), cluster=cluster)
    assert result.statuses == ["COMPLETED", "FAILED", "FAILED", "COMPLETED"]
    assert sorted(line.split()[0] for line in app.notes) == ["1", "2", "3", "4"]
    assert "SIGKILL" in result.returns[1]["details"]["state"]


@pytest.mark.slurm
def test_a_job_of_several_tasks_is_one_job_of_an_array(tmp_path: Path) -> None:
    app = App(tmp_path, NOTE_PID)
    app.run("seed=1,2,3,4,5", *packed(2), cluster="slurm")
    (script,) = app.launches[-1].glob("*.sh")
    assert "--array=0-2%" in script.read_text()


@pytest.mark.slurm
def test_what_a_job_that_timed_out_did_not_finish_is_submitted_again(tmp_path: Path) -> None:
    body = """
    held = cfg.seed == 2 and not Path("timed-out").exists()
    note("start", cfg.seed)
    if held:
        wait_for("never", 100)
    return 10 * cfg.seed
    """
    app = App(tmp_path, body)
    with app.start("seed=1,2,3", *packed(3), cluster="slurm") as launch:
        wait_until(lambda: "start 2" in app.notes, "the second task to run")
        app.write("timed-out", "")
        end_the_time_of(app)
        result = launch.result()
    assert (result.values, app.notes) == ([10, 20, 30], ["start 1", "start 2", "start 2", "start 3"])
    assert len(app.launches) == 2


@pytest.mark.slurm
def test_a_task_that_had_its_jobs_whole_time_and_did_not_finish_has_failed(tmp_path: Path) -> None:
    body = 'note("start", cfg.seed)\nif cfg.seed == 1:\n    wait_for("never", 100)\nreturn cfg.seed\n'
    app = App(tmp_path, body)
    with app.start("seed=1,2", *packed(2), cluster="slurm") as launch:
        wait_until(lambda: "start 1" in app.notes, "the first task to run")
        end_the_time_of(app)
        result = launch.result()
    assert (result.statuses, result.values) == (["FAILED", "COMPLETED"], [None, 2])
    assert "TIMEOUT" in result.returns[0]["details"]["state"]


def end_the_time_of(app: App) -> None:
    wait_until(lambda: app.record()["jobs"], "the id of the job")
    end_time_of(app.record()["jobs"]["0"])


def test_what_runs_in_a_job_of_a_dead_launch_is_joined(tmp_path: Path) -> None:
    body = 'note("start", cfg.seed)\nif cfg.seed == 1:\n    wait_for("go")\nreturn cfg.seed\n'
    app = App(tmp_path, body)
    with app.start("seed=1,2,3", *packed(3), cluster="local") as launch:
        wait_until(lambda: app.notes, "the first task to run")
        launch.kill()
    with app.start("seed=1,2,3", *packed(3), cluster="local") as second:
        wait_until(lambda: second.says("joined"), "the second launch")
        app.write("go", "")
        result = second.result()
    assert (result.values, sorted(app.notes)) == ([1, 2, 3], ["start 1", "start 2", "start 3"])


def test_force_ends_one_task_of_a_job_and_the_others_go_on(tmp_path: Path) -> None:
    body = 'note("start", cfg.seed, os.getpid())\nif cfg.seed == 1:\n    wait_for("go")\nreturn cfg.seed\n'
    app = App(tmp_path, body)
    with app.start("seed=1,2", *packed(2), cluster="local") as first:
        wait_until(lambda: app.notes, "the first task to run")
        pid = int(app.notes[0].split()[2])
        with app.start("seed=1", "hydra.launcher.mode=force", "hydra.sweep.dir=forced", cluster="local") as forced:
            wait_until(lambda: not psutil.pid_exists(pid), "the end of the task that is forced")
            app.write("go", "")
            assert forced.result().values == [1]
        assert first.result().values == [1, 2]
    assert sorted(line.split()[1] for line in app.notes) == ["1", "1", "2"]


@pytest.mark.slurm
def test_without_the_record_of_its_launch_a_job_is_not_cancelled_as_it_may_compute_other_tasks(tmp_path: Path) -> None:
    body = 'note("start", cfg.seed)\nwait_for("go")\nreturn cfg.seed\n'
    app = App(tmp_path, body)
    with app.start("seed=1,2", *packed(2), cluster="slurm") as first:
        wait_until(lambda: app.notes and app.record()["jobs"], "the first task to run")
        (app.launches[0] / "launch.json").unlink()
        forced = app.run("seed=1", "hydra.launcher.mode=force", "hydra.sweep.dir=forced", cluster="slurm")
        assert forced.returncode != 0 and "may compute other tasks" in forced.text
        app.write("go", "")
        assert first.result().values == [1, 2]
    assert app.notes == ["start 1", "start 2"]


def test_when_the_process_of_a_job_is_killed_what_it_did_not_reach_is_run_again(tmp_path: Path) -> None:
    body = 'note("start", cfg.seed, os.getppid())\nif cfg.seed == 1:\n    wait_for("go")\nreturn cfg.seed\n'
    app = App(tmp_path, body)
    with app.start("seed=1,2", *packed(2), cluster="local") as launch:
        wait_until(lambda: app.notes, "the first task to run")
        psutil.Process(int(app.notes[0].split()[2])).send_signal(signal.SIGKILL)
        app.write("go", "")
        result = launch.result()
    assert result.returns[1]["value"] == 2
    assert [line.split()[1] for line in app.notes].count("2") == 1


def test_more_workers_than_tasks_in_a_job_are_refused(tmp_path: Path) -> None:
    app = App(tmp_path)
    result = app.run("seed=1,2", *packed(2, workers=4), cluster="local")
    assert is_one_message(result) and "workers_per_job" in result.stderr and app.notes == []


def test_several_tasks_do_not_go_into_a_job_of_several_ranks(tmp_path: Path) -> None:
    app = App(tmp_path)
    result = app.run("seed=1,2", *packed(2), "hydra.launcher.tasks_per_node=2", cluster="local")
    assert is_one_message(result) and "tasks_per_job" in result.stderr and app.notes == []


# -- resources from the task -------------------------------------------------------------------------------------------

MODELS = {"conf/model/small.yaml": "minutes: 3\ngpus: null\n", "conf/model/huge.yaml": "minutes: 9\ngpus: 2\n"}
PER_TASK = "hydra.launcher.per_task={timeout_min: model.minutes, gpus_per_node: model.gpus}"


def sized(tmp_path: Path) -> App:
    return App(tmp_path, config="defaults: [_self_, {model: small}]\nseed: 1\n", files=MODELS)


@pytest.mark.slurm
def test_tasks_of_equal_resources_make_one_array(tmp_path: Path) -> None:
    app = sized(tmp_path)
    assert app.run("model=small,huge", "seed=1,2", PER_TASK, cluster="slurm").values == [10, 20, 10, 20]
    scripts = [path.read_text() for path in sorted(app.launches[-1].glob("*.sh"))]
    assert [("--time=3" in text, "--gpus-per-node=2" in text, "--array=0-1%" in text) for text in scripts] == [
        (True, False, True),
        (False, True, True),
    ]


def test_a_place_that_the_config_does_not_have_is_refused(tmp_path: Path) -> None:
    app = sized(tmp_path)
    result = app.run("hydra.launcher.per_task={timeout_min: model.nowhere}", cluster="local")
    assert is_one_message(result) and "model.nowhere" in result.stderr and app.notes == []


def test_a_value_that_is_no_value_of_the_option_is_refused_with_its_task(tmp_path: Path) -> None:
    app = sized(tmp_path)
    result = app.run("model.minutes=3,soon", PER_TASK, cluster="local")
    assert is_one_message(result) and "with model.minutes=soon" in result.stderr and app.notes == []


def test_an_option_that_is_none_of_a_job_is_refused(tmp_path: Path) -> None:
    app = sized(tmp_path)
    result = app.run("hydra.launcher.per_task={folder: model.minutes}", cluster="local")
    assert is_one_message(result) and "invalid option 'folder'" in result.stderr and app.notes == []


def test_the_launch_record_says_which_tasks_share_a_job(tmp_path: Path) -> None:
    app = App(tmp_path, NOTE_PID)
    app.run("seed=1,2,3", *packed(2), cluster="local")
    record = json.loads((app.launches[-1] / "launch.json").read_text())
    assert record["tasks"] == [[0, 1], [2]]
