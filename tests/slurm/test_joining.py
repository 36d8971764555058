"""Nothing is submitted or computed twice, and nothing is lost, whatever becomes of sbatch or of who called it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from apps import App, Result, Started, wait_until
from faults import How, OwnSlurms, accepted, sbatch_that

TASKS = int(os.environ.get("EXCA_TESTS_TASKS", "20"))
IN_JOBS_OF_8 = "hydra.launcher.tasks_per_job=8"
IN_FIVE_JOBS = f"hydra.launcher.tasks_per_job={TASKS // 5}"
KILLS: list[How] = ["kills its launch before", "kills its launch while", "kills its launch after"]
OF_TWO_PARTITIONS = {"conf/model/small.yaml": "partition: main\n", "conf/model/huge.yaml": "partition: later\n"}
MODEL = "defaults: [_self_, {model: small}]\nseed: 1\n"


def sweep(app: App, *overrides: str, tasks: int = TASKS, to: str = "sweep", **how: Any) -> Started:
    return app.start(f"seed=range({tasks})", f"hydra.sweep.dir={to}", *overrides, cluster="slurm", **how)


def swept(app: App, *overrides: str, tasks: int = TASKS, to: str = "sweep", **how: Any) -> Result:
    with sweep(app, *overrides, tasks=tasks, to=to, **how) as launch:
        return launch.result()


def all_of(tasks: int) -> list[int]:
    return [10 * seed for seed in range(tasks)]


def runs(app: App) -> list[int]:
    """The seed of each start of a task."""
    return sorted(int(line.split()[1]) for line in app.notes)


def once(tasks: int = TASKS) -> list[int]:
    return list(range(tasks))


def ready(started: Started, text: str) -> None:
    wait_until(lambda: started.says(text) or started.process.poll() is not None, f"the launch to say {text!r}")


def fault(folder: Path, how: How, first: int = 1, times: int | None = 1, held: bool = False) -> dict[str, str]:
    """Does this to submissions alone. A ``held`` one waits for a file ``go``, and makes a file ``called``."""
    real = shutil.which("sbatch")
    faulty = sbatch_that(folder / "fault", how, first, times)
    wait = f"touch {folder}/called; until [ -e {folder}/go ]; do sleep 0.05; done" if held else ""
    script = f'[ "$1" != --version ] || exec {real} --version\n{wait}\nexec {folder}/fault/sbatch "$@"\n'
    sbatch = folder / "submits" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(f"#!/bin/bash\n{script}")
    sbatch.chmod(0o755)
    return {"PATH": f"{sbatch.parent}{os.pathsep}{faulty['PATH']}"}


# -- two launches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tasks", "packed"), [(min(TASKS, 20), None), (TASKS, IN_JOBS_OF_8)], ids=["plain", "packed"])
def test_two_launches_at_the_same_moment_compute_each_task_once(tmp_path: Path, tasks: int, packed: str | None) -> None:
    app = App(tmp_path)
    with (
        sweep(app, tasks=tasks, to="one") as one,
        sweep(app, *filter(None, [packed]), tasks=tasks, to="two") as two,
    ):
        results = [one.result(), two.result()]
    assert [result.values for result in results] == [all_of(tasks)] * 2
    assert runs(app) == once(tasks)


@pytest.mark.parametrize("how", KILLS)
def test_a_launch_goes_on_alone_when_the_one_it_has_joined_is_killed_at_its_sbatch(tmp_path: Path, how: How) -> None:
    app = App(tmp_path)
    with sweep(app, IN_FIVE_JOBS, to="one", env=fault(tmp_path, how, held=True)) as one:
        wait_until((tmp_path / "called").exists, "the first launch to call sbatch")
        with sweep(app, IN_FIVE_JOBS, to="two") as two:
            ready(two, f"{TASKS} joined")
            app.write("go", "")
            result = two.result()
        assert one.process.wait() == -signal.SIGKILL
    assert (result.values, runs(app)) == (all_of(TASKS), once())


@pytest.mark.parametrize("how", KILLS)
def test_the_same_command_goes_on_when_the_launch_was_killed_at_its_sbatch(tmp_path: Path, how: How) -> None:
    app = App(tmp_path)
    killed = swept(app, IN_FIVE_JOBS, env=fault(tmp_path, how))
    assert killed.returncode == -signal.SIGKILL
    assert (swept(app, IN_FIVE_JOBS).values, runs(app)) == (all_of(TASKS), once())


def test_the_same_command_goes_on_when_the_launch_was_killed_between_two_arrays(
    tmp_path: Path, own_slurm: OwnSlurms
) -> None:
    app = App(tmp_path)
    environment = own_slurm(accounting=False, MaxArraySize=3).environment
    faulty = fault(tmp_path, "kills its launch while", first=2)
    assert swept(app, IN_FIVE_JOBS, env={**environment, **faulty}).returncode == -signal.SIGKILL
    assert (swept(app, IN_FIVE_JOBS, env=environment).values, runs(app)) == (all_of(TASKS), once())


def test_ctrl_c_in_one_launch_cancels_no_job_of_another(tmp_path: Path) -> None:
    body = 'note("start", cfg.seed)\nwait_for("go")\nreturn 10 * cfg.seed\n'
    app = App(tmp_path, body)
    with app.start("seed=1", cluster="slurm") as first:
        wait_until(lambda: app.notes, "the first task to run")
        options = ("hydra.launcher.on_interrupt=cancel", "hydra.sweep.dir=two")
        with app.start("seed=1,2", *options, cluster="slurm") as second:
            wait_until(lambda: len(app.notes) == 2, "the second task to run")
            second.process.send_signal(signal.SIGINT)
            ended = second.result()
        app.write("go", "")
        assert first.result().values == [10]
    assert ended.returncode == 130 and "1 task is cancelled" in ended.text
    assert app.notes == ["start 1", "start 2"]


def test_ctrl_c_while_sbatch_hangs_gives_up_what_the_same_command_then_runs(tmp_path: Path) -> None:
    app = App(tmp_path)
    with sweep(app, IN_FIVE_JOBS, env=fault(tmp_path, "refuses", times=0, held=True)) as first:
        wait_until((tmp_path / "called").exists, "the launch to call sbatch")
        first.process.send_signal(signal.SIGINT)
        assert first.result().returncode == 130
    app.write("go", "")
    assert (swept(app, IN_FIVE_JOBS).values, runs(app)) == (all_of(TASKS), once())


# -- an sbatch that fails ----------------------------------------------------------------------------------------------


def test_jobs_that_were_accepted_by_an_sbatch_that_failed_are_not_submitted_again(tmp_path: Path) -> None:
    app = App(tmp_path)
    result = swept(app, IN_FIVE_JOBS, env=fault(tmp_path, "fails after it was accepted"))
    assert (result.values, runs(app)) == (all_of(TASKS), once())
    assert len(accepted(tmp_path / "fault")) == 1


def test_an_sbatch_that_timed_out_without_accepting_is_called_again(tmp_path: Path) -> None:
    app = App(tmp_path)
    faulty = fault(tmp_path, "times out without accepting", times=2)
    assert (swept(app, IN_FIVE_JOBS, env=faulty).values, runs(app)) == (all_of(TASKS), once())
    assert len(accepted(tmp_path / "fault")) == 1


def test_a_refused_array_is_an_error_with_the_options_that_were_sent(tmp_path: Path) -> None:
    faulty = fault(tmp_path, "refuses", times=None)
    result = swept(App(tmp_path), IN_FIVE_JOBS, env=faulty)
    assert (result.returncode, "Traceback" in result.text) == (1, False)
    for told in ("nothing was submitted", "Job violates accounting/QOS policy", "timeout_min = 60"):
        assert told in result.stderr


def test_what_was_refused_is_given_up_and_runs_with_the_same_command(tmp_path: Path) -> None:
    app = App(tmp_path)
    swept(app, IN_FIVE_JOBS, env=fault(tmp_path, "refuses", times=None))
    result = swept(app, IN_FIVE_JOBS)
    assert (result.values, runs(app), result.counts["joined"]) == (all_of(TASKS), once(), 0)


REFUSED_LATER = ("model=small,huge", "hydra.launcher.per_task={partition: model.partition}")


def refused_later(tmp_path: Path) -> App:
    """An app whose second array is for a partition that is not there yet."""
    body = 'note(cfg.model.partition, cfg.seed)\nwait_for("go")\nreturn cfg.model.partition\n'
    return App(tmp_path, body, config=MODEL, files=OF_TWO_PARTITIONS)


def test_when_a_later_array_is_refused_the_first_goes_on_and_the_error_names_it(tmp_path: Path) -> None:
    app = refused_later(tmp_path)
    result = app.run(*REFUSED_LATER, "seed=1,2", cluster="slurm")
    (array,) = {job.partition("_")[0] for job in app.record()["jobs"].values()}
    app.write("go", "")
    assert result.returncode == 1 and f"2 of 4 were submitted before, as {array}, and go on" in result.stderr
    wait_until(lambda: len(app.entries) == 2, "the first array's outcomes")


def test_what_was_submitted_before_an_array_was_refused_is_joined_by_the_same_command(
    tmp_path: Path, own_slurm: OwnSlurms
) -> None:
    app, slurm = refused_later(tmp_path), own_slurm(accounting=False)
    command = (*REFUSED_LATER, "seed=1,2")
    assert app.run(*command, cluster="slurm", env=slurm.environment).returncode == 1
    slurm.scontrol("create", "partitionname=later", "nodes=ALL")
    with app.start(*command, cluster="slurm", env=slurm.environment) as second:
        ready(second, "2 joined, 2 to run")
        app.write("go", "")
        result = second.result()
    slurm.scontrol("delete", "partitionname=later")
    assert result.values == ["main", "main", "later", "later"]
    assert sorted(app.notes) == ["later 1", "later 2", "main 1", "main 2"]


def test_too_many_for_the_queue_come_after_the_others(tmp_path: Path, own_slurm: OwnSlurms) -> None:
    app = App(tmp_path)
    environment = own_slurm(accounting=False, MaxArraySize=3).environment
    faulty = fault(tmp_path, "refuses", first=2)
    result = swept(app, IN_FIVE_JOBS, env={**environment, **faulty})
    assert (result.values, runs(app)) == (all_of(TASKS), once())


def test_an_array_that_never_finds_room_is_an_error_once_the_others_are_recorded(
    tmp_path: Path, own_slurm: OwnSlurms
) -> None:
    app = App(tmp_path)
    environment = own_slurm(accounting=False, MaxArraySize=3).environment
    faulty = fault(tmp_path, "refuses", first=2, times=None)
    result = swept(app, IN_FIVE_JOBS, env={**environment, **faulty})
    assert result.returncode == 1 and "3 of 5 were submitted before" in result.stderr
    assert len(app.entries) == 3 * TASKS // 5
    assert swept(app, IN_FIVE_JOBS, env=environment).counts["cached"] == 3 * TASKS // 5
    assert runs(app) == once()


def test_jobs_of_a_killed_launch_that_wait_in_the_queue_are_joined(tmp_path: Path) -> None:
    app = App(tmp_path)
    hold = "+hydra.launcher.additional_parameters={hold: true}"
    with sweep(app, hold, tasks=3, to="one") as first:
        wait_until(lambda: any(app.cache.glob("launches/*/launch.json")) and app.record()["jobs"], "the array")
        first.kill()
    with sweep(app, tasks=3, to="two") as second:
        ready(second, "3 joined")
        subprocess.run(["scontrol", "release", app.record()["jobs"]["0"].partition("_")[0]], check=True)
        result = second.result()
    assert (result.values, runs(app), len(app.launches)) == (all_of(3), once(3), 1)
