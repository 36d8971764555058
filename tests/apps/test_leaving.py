"""A launch that does not stay: `wait=false`, Ctrl-C, and coming back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from apps import PACKED, App, Started, is_one_message, wait_until

CLUSTERS = ["local", pytest.param("slurm", marks=pytest.mark.slurm)]
HOLD = 'note("start", cfg.seed, os.getpid())\nwait_for("go")\nreturn 10 * cfg.seed\n'
NO_WAIT = "hydra.launcher.wait=false"


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_without_waiting_the_launch_returns_while_the_tasks_run(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, HOLD)
    result = app.run("seed=1,2", NO_WAIT, cluster=cluster)
    assert result.returncode == 0
    wait_until(lambda: len(app.notes) == 2, "the tasks to run")
    app.write("go", "")
    again = app.run("seed=1,2", cluster=cluster)
    assert (again.values, len(app.notes)) == ([10, 20], 2)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_what_is_returned_for_a_submitted_task_says_so(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path)
    result = app.run("seed=1,2", NO_WAIT, cluster=cluster)
    assert (result.statuses, [value.partition("=")[0] for value in result.values]) == (
        ["UNKNOWN", "UNKNOWN"],
        ["submitted: seed", "submitted: seed"],
    )
    wait_until(lambda: len(app.entries) == 2, "the tasks to end")


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_what_is_stored_is_returned_without_waiting(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path)
    app.run("seed=1", cluster=cluster)
    result = app.run("seed=1,2", NO_WAIT, cluster=cluster)
    assert (result.statuses, result.values[0]) == (["COMPLETED", "UNKNOWN"], 10)
    wait_until(lambda: len(app.entries) == 2, "the other task to end")


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_the_console_says_how_many_were_submitted(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path)
    result = app.run("seed=1,2", NO_WAIT, cluster=cluster)
    assert "2 tasks: 2 submitted in" in result.stdout
    wait_until(lambda: len(app.entries) == 2, "the tasks to end")


@pytest.mark.parametrize(("more", "cluster"), [((NO_WAIT,), "local"), ((), "local")])
def test_the_index_of_a_sweep_is_there_as_soon_as_its_tasks_are_submitted(
    tmp_path: Path, more: tuple[str, ...], cluster: str
) -> None:
    app = App(tmp_path, HOLD)
    with app.start("seed=1,2", *more, cluster=cluster) as launch:
        wait_until(lambda: len(app.notes) == 2, "the tasks to run")
        rows = app.index()
        app.write("go", "")
        launch.result()
    assert [(row["how"], row["overrides"]) for row in rows] == [("submitted", ["seed=1"]), ("submitted", ["seed=2"])]
    wait_until(lambda: len(app.entries) == 2, "the tasks to end")
    assert [Path(row["output"]).parent for row in rows] == app.entries


def test_what_a_launch_that_left_has_not_started_is_joined(tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    one = "hydra.launcher.array_parallelism=1"
    app.run("seed=1,2,3", NO_WAIT, one, cluster="local")
    wait_until(lambda: app.notes, "the first task to run")
    with app.start("seed=1,2,3", cluster="local") as second:
        wait_until(lambda: second.says("3 joined"), "the second launch")
        app.write("go", "")
        assert second.result().values == [10, 20, 30]
    assert len(app.notes) == 3


def test_a_task_that_dies_after_its_launch_has_left_has_failed(tmp_path: Path) -> None:
    app = App(tmp_path, "note(os.getpid())\nwait_for('go')\nos._exit(7)\n")
    app.run("seed=1", NO_WAIT, cluster="local")
    wait_until(lambda: app.notes, "the task to run")
    app.write("go", "")
    wait_until(lambda: app.entries, "its outcome")
    result = app.run("seed=1", cluster="local")
    assert (result.statuses, result.returns[0]["details"]["state"]) == (["FAILED"], "exit code 7")


def test_a_sweeper_that_needs_values_is_refused_before_anything_runs(tmp_path: Path) -> None:
    sweeper = """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    class Needy(BasicSweeper):
        pass
    """
    target = "_target_: hydra_plugins.needy.Needy\nmax_batch_size: null\nparams: null\n"
    files = {"hydra_plugins/needy/__init__.py": sweeper, "conf/hydra/sweeper/needy.yaml": target}
    app = App(tmp_path, files=files)
    result = app.run("seed=1", NO_WAIT, "hydra/sweeper=needy", cluster="local")
    assert is_one_message(result) and "Needy needs them" in result.stderr and app.notes == []


def test_in_this_process_there_is_nothing_to_leave_behind(tmp_path: Path) -> None:
    app = App(tmp_path)
    result = app.run(NO_WAIT, cluster="inline")
    assert is_one_message(result) and "hydra.launcher.wait" in result.stderr and app.notes == []


@pytest.mark.slurm
def test_what_the_queue_has_no_room_for_is_left_to_the_next_command(tmp_path: Path) -> None:
    app = App(tmp_path)
    result = app.run("seed=1,2,3", NO_WAIT, "hydra.launcher.max_queued=2", cluster="slurm")
    assert "no room for 1 of them" in result.stdout
    assert app.run("seed=1,2,3", cluster="slurm").values == [10, 20, 30]
    assert sorted(app.notes) == ["start 1", "start 2", "start 3"]


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


def interrupt(app: App, launch: Started) -> None:
    """One Ctrl-C, once a task runs and what was submitted is known."""
    wait_until(lambda: app.notes and launch.says("submitted to"), "a task to run")
    launch.process.send_signal(signal.SIGINT)


@pytest.mark.slurm
def test_on_slurm_the_jobs_go_on_after_ctrl_c_and_the_same_command_comes_back(tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with app.start("seed=1,2", cluster="slurm") as launch:
        interrupt(app, launch)
        result = launch.result()
    assert (result.returncode, "Traceback" in result.text) == (130, False)
    assert "The jobs keep running" in result.stdout and "the same command" in result.stdout
    app.write("go", "")
    assert app.run("seed=1,2", cluster="slurm").values == [10, 20]
    assert sorted(line.split()[1] for line in app.notes) == ["1", "2"]


@pytest.mark.slurm
@pytest.mark.parametrize(("answer", "goes_on"), [("y\n", False), ("n\n", True), ("", True)])
def test_a_second_ctrl_c_asks_whether_to_cancel(tmp_path: Path, answer: str, goes_on: bool) -> None:
    app = App(tmp_path, HOLD)
    with app.start("seed=1", cluster="slurm", stdin=answer) as launch:
        interrupt(app, launch)
        wait_until(lambda: launch.says("Ctrl-C again"), "the offer")
        launch.process.send_signal(signal.SIGINT)
        result = launch.result()
    assert "[y/N]" in result.stderr and result.returncode == 130
    assert psutil.pid_exists(int(app.notes[0].split()[2])) is goes_on
    app.write("go", "")
    assert app.run("seed=1", cluster="slurm").values == [10]
    assert len(app.notes) == (1 if goes_on else 2)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_with_cancel_ctrl_c_ends_the_jobs(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, HOLD)
    with app.start("seed=1", "hydra.launcher.on_interrupt=cancel", cluster=cluster) as launch:
        interrupt(app, launch)
        assert launch.result().returncode == 130
    assert not psutil.pid_exists(int(app.notes[0].split()[2]))
    app.write("go", "")
    assert app.run("seed=1", cluster=cluster).values == [10]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_second_ctrl_c_does_not_leave_half_of_the_jobs_cancelled(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + HOLD)
    with app.start("seed=1", "hydra.launcher.on_interrupt=cancel", cluster=cluster) as launch:
        interrupt(app, launch)
        launch.process.send_signal(signal.SIGINT)
        result = launch.result()
    assert result.returncode == 130 and "The jobs keep running" not in result.text
    app.write("go", "")
    again = app.run("seed=1", cluster=cluster)
    assert (again.statuses, again.values) == (["COMPLETED"], [10])


def test_with_detach_local_jobs_go_on_and_those_that_wait_are_started(tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    options = ["hydra.launcher.on_interrupt=detach", "hydra.launcher.array_parallelism=1"]
    with app.start("seed=1,2", *options, cluster="local") as launch:
        interrupt(app, launch)
        result = launch.result()
    assert result.returncode == 130 and "The jobs keep running" in result.stdout
    app.write("go", "")
    wait_until(lambda: len(app.entries) == 2, "both tasks to end")
    assert sorted(line.split()[1] for line in app.notes) == ["1", "2"]


def test_the_process_that_stays_for_a_launch_ends_with_its_last_job(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.run("seed=1,2", NO_WAIT, cluster="local")
    wait_until(lambda: len(app.entries) == 2, "the tasks to end")
    wait_until(lambda: keepers(tmp_path) == [], "the end of the process")


def keepers(folder: Path) -> list[list[str]]:
    running = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [
        line
        for line in running
        if "hydra_exca.launch.detached_starter" in line and any(str(folder) in part for part in line)
    ]


def test_tasks_that_a_lost_job_had_not_from_its_beginning_are_run_by_the_next_command(tmp_path: Path) -> None:
    """As they would be run again by a launch that waits: the task before may have left them too little."""
    app = App(tmp_path, 'note("start", cfg.seed, os.getppid())\nif cfg.seed == 2:\n    wait_for("go")\nreturn cfg.seed')
    assert app.run("seed=1,2,3", NO_WAIT, cluster=PACKED).returncode == 0
    wait_until(lambda: len(app.notes) == 2, "the second task to run")
    os.kill(int(app.notes[1].split()[2]), signal.SIGKILL)
    claims = tmp_path / "exca"
    wait_until(lambda: "released" in "".join(path.read_text() for path in claims.glob("*/*/claim.*.json")), "the end")
    app.write("go", "")
    assert app.run("seed=1,2,3", cluster=PACKED).values == [1, 2, 3]
    assert [line.split()[1] for line in app.notes] == ["1", "2", "2", "3"]
