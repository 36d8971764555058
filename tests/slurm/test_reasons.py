"""Why a job has ended, in words: in the message of the launch, in the error, and at the end of the log."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from apps import App, Result, Started, wait_until
from faults import OwnSlurms, end_time_of

DIES = """
import os, signal
note("start", cfg.seed)
print("it computes", flush=True)
if cfg.seed == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if cfg.seed == 2:
    os.kill(os.getpid(), signal.SIGSEGV)
os._exit(3)
"""
WAITS = """
note("start", cfg.seed)
wait_for("go", 300)
return 10 * cfg.seed
"""
LIMITED = "+hydra.launcher.additional_parameters={mem: 300M}"


def start(app: App, *overrides: str, seeds: str = "seed=1", **how: object) -> Started:
    return app.start(seeds, "hydra.launcher.poll_s=1", *overrides, cluster="slurm", **how)


def run(app: App, *overrides: str, seeds: str = "seed=1") -> Result:
    with start(app, *overrides, seeds=seeds) as launch:
        return launch.result()


def job(app: App) -> str:
    wait_until(lambda: app.launches and (app.launches[-1] / "launch.json").exists() and app.record()["jobs"], "the job")
    return str(app.record()["jobs"]["0"])


def states(result: Result) -> list[str]:
    return [each["details"]["state"] for each in result.returns]


def log(app: App, seed: int = 1) -> str:
    (entry,) = (path for path in app.cache.glob("*/*") if path.name.startswith(f"seed={seed}-"))
    return (entry / "logs" / "latest").read_text()


@pytest.mark.parametrize("srun", [True, False])
def test_a_signal_has_its_name_and_the_log_what_slurm_says_of_it_once(tmp_path: Path, srun: bool) -> None:
    app = App(tmp_path, DIES)
    result = run(app, f"+hydra.launcher.use_srun={srun}", seeds="seed=1,2,3")
    ends = ["killed by SIGKILL (FAILED)", "killed by SIGSEGV (FAILED)"]
    assert states(result)[:2] == ends and states(result)[2].endswith("(FAILED)")
    assert all(f"{end} (log: " in result.text for end in ends) and "    | it computes" in result.text
    run(app, seeds="seed=1,2,3")
    assert log(app).startswith("it computes\n") and log(app).count("Killed") == 1


@pytest.mark.parametrize("srun", [True, False])
def test_out_of_memory_has_figures_and_is_a_failure_whatever_state_slurm_gives(tmp_path: Path, srun: bool) -> None:
    app = App(tmp_path, "much = b'1' * 900_000_000\nwait_for('never', 300)")
    result = run(app, LIMITED, f"+hydra.launcher.use_srun={srun}")
    assert re.fullmatch(r"out of memory: \d+ of 300 MB \(OUT_OF_MEMORY\)", states(result)[0]), result.text
    assert len(app.entries) == 1 and "exceeded memory limit" in log(app)


def test_a_time_out_has_the_limit(tmp_path: Path) -> None:
    app = App(tmp_path, WAITS)
    with start(app, "hydra.launcher.timeout_min=90") as launch:
        wait_until(lambda: app.notes, "the task to run")
        end_time_of(job(app))
        result = launch.result()
    assert re.fullmatch(r"it reached its time limit of \d+ min \(TIMEOUT\)", states(result)[0]), result.text
    assert "DUE TO TIME LIMIT" in log(app)


def test_a_job_that_is_cancelled_while_it_waits_has_not_ended_for_the_reason_for_which_it_waited(
    tmp_path: Path,
) -> None:
    app = App(tmp_path)
    with start(app, "+hydra.launcher.additional_parameters={hold: true}") as launch:
        subprocess.run(["scancel", job(app)], check=True)
        result = launch.result()
    assert re.fullmatch(r"(it was cancelled|\w+ cancelled it) \(CANCELLED\)", states(result)[0])


def test_a_job_that_has_not_started_is_queued_in_what_people_read(tmp_path: Path) -> None:
    app = App(tmp_path)
    with start(app, "+hydra.launcher.additional_parameters={hold: true}") as launch:
        job(app)
        (entry,) = app.cache.glob("*/seed=1-*")
        shown = subprocess.run(
            [sys.executable, "-m", "hydra_exca.cli", "show", str(entry)], capture_output=True, text=True
        )
        subprocess.run(["scancel", job(app)], check=True)
        launch.result()
    assert re.search(r"^  status +queued$", shown.stdout, re.MULTILINE), shown


def test_a_python_that_is_missing_is_named_in_the_message(tmp_path: Path) -> None:
    result = run(App(tmp_path), "hydra.launcher.python=/no/python")
    assert "/no/python: not found" in result.text and "before the task began" in states(result)[0]


def test_a_requeue_is_said_when_it_happens(tmp_path: Path, own_slurm: OwnSlurms) -> None:
    slurm, app = own_slurm(accounting=False), App(tmp_path, WAITS)
    with start(app, env=slurm.environment) as launch:
        wait_until(lambda: app.notes, "the task to run")
        slurm.scontrol("requeue", job(app))
        wait_until(lambda: launch.says("requeued, and queued again by Slurm: seed=1"), "the launch to say so")
        app.write("go", "")
        result = launch.result()
    assert result.values == [10] and "CANCELLED" not in log(app)


def test_a_job_that_fails_in_its_setup_once_it_was_requeued_is_no_failure_of_its_task(
    tmp_path: Path, own_slurm: OwnSlurms
) -> None:
    slurm, app = own_slurm(accounting=False), App(tmp_path, WAITS)
    setup = f"hydra.launcher.setup=['test ! -e {tmp_path}/broken || (echo no module >&2; exit 1) || exit 1']"
    with start(app, setup, env=slurm.environment) as launch:
        wait_until(lambda: app.notes, "the task to run")
        app.write("broken", "")
        slurm.scontrol("requeue", job(app))
        result = launch.result()
    assert states(result)[0].endswith("(FAILED), before the task began") and "| no module" in result.text
    assert app.entries == []
    app.write("go", "")
    (tmp_path / "broken").unlink()
    with start(app, setup, env=slurm.environment) as again:
        assert again.result().values == [10]


def test_a_job_that_dies_once_it_was_requeued_has_failed(tmp_path: Path, own_slurm: OwnSlurms) -> None:
    """The reason is that of the last start, and so is what the log gets."""
    body = """
    import os
    note("start", cfg.seed)
    if len(Path("notes.txt").read_text().splitlines()) == 2:
        os._exit(3)
    wait_for("never", 300)
    """
    slurm, app = own_slurm(accounting=False), App(tmp_path, body)
    with start(app, env=slurm.environment) as launch:
        wait_until(lambda: app.notes, "the task to run")
        slurm.scontrol("requeue", job(app))
        result = launch.result()
    assert states(result) == ["exit code 3 (FAILED)"] and len(app.entries) == 1, result.text
    assert "exit code 3" in log(app) and "REQUEUE" not in log(app)
