"""Tasks that a launch runs again by itself: lost to the machine, or out of memory or time, then with more."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from apps import App, Result, Started, wait_until
from faults import OwnSlurms, end_time_of
from infra_models import Greedy, Slow

from hydra_exca.errors import JobLostError

GREEDY = """
note("start", cfg.seed)
much = b"1" * 500_000_000
wait_for("enough", 300)
return 10 * cfg.seed
"""
WAITS = """
note("start", cfg.seed, HydraConfig.get().launcher.mem_gb)
saved = Path(HydraConfig.get().runtime.output_dir, "saved")
if not saved.exists():
    saved.touch()
    wait_for("never", 300)
return 10 * cfg.seed
"""
MEMORY = "+hydra.launcher.additional_parameters={mem: 300M}"
MORE_MEMORY = "hydra.launcher.on_oom={mem_gb: 3x}"
MORE_TIME = "hydra.launcher.on_timeout={timeout_min: 2x}"
NO_REQUEUE = "+hydra.launcher.additional_parameters={no-requeue: true}"


def retries(count: int) -> str:
    return f"hydra.launcher.retries={count}"


def start(app: App, *overrides: str, env: Mapping[str, str] | None = None, seeds: str = "seed=1") -> Started:
    return app.start(seeds, "hydra.launcher.poll_s=1", *overrides, cluster="slurm", env=dict(env or {}))


def run(app: App, *overrides: str, seeds: str = "seed=1") -> Result:
    with start(app, *overrides, seeds=seeds) as launch:
        return launch.result()


def job(app: App, launch: int = -1) -> str:
    """The id of the job of one of the launches, once it has one."""
    record = lambda: sorted(app.launches)[launch] / "launch.json"  # noqa: E731
    wait_until(lambda: len(app.launches) > max(launch, 0) and record().exists() and _jobs(record()), "the job")
    return str(_jobs(record())["0"])


def _jobs(record: Path) -> dict[str, str]:
    jobs: dict[str, str] = json.loads(record.read_text())["jobs"]
    return jobs


def provenance(app: App, seed: int = 1) -> dict[str, Any]:
    (path,) = app.cache.glob(f"*/seed={seed}-*/provenance.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


# -- out of memory -----------------------------------------------------------------------------------------------------


def test_what_ran_out_of_memory_gets_a_multiple_of_what_it_had(tmp_path: Path) -> None:
    app = App(tmp_path, GREEDY)
    with start(app, MEMORY, MORE_MEMORY, retries(2)) as launch:
        wait_until(lambda: len(app.notes) == 2, "the task to run with more")
        app.write("enough", "")
        result = launch.result()
    assert result.values == [10], result.text
    line = r"exca: seed=1: its job \d+ ended: out of memory: \d+ of 300 MB \(OUT_OF_MEMORY\); submitted again"
    assert len(re.findall(rf"{line} with mem_gb=0.879 \(retry 1 of 2\)", result.text)) == 1
    record = provenance(app)
    assert record["resources"]["mem_gb"] == pytest.approx(900 / 1024)
    (earlier,) = record["attempts"]
    assert earlier["resources"]["mem"] == "300M" and "OUT_OF_MEMORY" in earlier["end"]
    assert (earlier["attempt"], len(app.entries)) == (1, 1)
    assert "exceeded memory limit" in (app.entries[0] / "logs" / "1.log").read_text()
    again = run(app, MEMORY, MORE_MEMORY, retries(2))
    assert again.counts["cached"] == 1


def test_what_needs_more_than_its_retries_give_has_failed(tmp_path: Path) -> None:
    app = App(tmp_path, "note('start', 1)\nmuch = b'1' * 900_000_000\nwait_for('never', 300)")
    result = run(app, MEMORY, "hydra.launcher.on_oom={mem_gb: 1.1x}", retries(1))
    assert result.statuses == ["FAILED"] and len(app.notes) == 2 and len(app.entries) == 1
    assert "not run again: hydra.launcher.retries=1 allows no more" in result.text


def test_no_attempt_gets_more_than_the_limit(tmp_path: Path) -> None:
    app = App(tmp_path, "note('start', 1)\nmuch = b'1' * 900_000_000\nwait_for('never', 300)")
    result = run(app, MEMORY, "hydra.launcher.on_oom={mem_gb: 2x}", retries(5), "hydra.launcher.max_mem_gb=0.4")
    assert len(app.notes) == 2 and "with mem_gb=0.4 (retry 1 of 5)" in result.text
    assert "not run again: it had mem_gb=0.4, and hydra.launcher.max_mem_gb=0.4" in result.text


def test_a_factor_needs_a_memory_that_is_known_before_the_launch(tmp_path: Path, own_slurm: OwnSlurms) -> None:
    slurm, app = own_slurm(accounting=False, DefMemPerCPU=0), App(tmp_path)
    options = ["hydra.launcher.on_oom={mem_gb: 2x}", retries(1)]
    with start(app, *options, env=slurm.environment) as launch:
        result = launch.result()
    assert result.returncode == 1 and "hydra.launcher.on_oom" in result.text and app.launches == []
    assert "Set hydra.launcher.mem_gb" in result.text
    with start(app, *options, "hydra.launcher.mem_gb=1", env=slurm.environment) as launch:
        assert launch.result().values == [10]


@pytest.mark.parametrize("enforced", ["NO", "ALL"])
def test_what_slurm_refuses_as_it_is_too_much_leaves_the_failure(
    tmp_path: Path, own_slurm: OwnSlurms, enforced: str
) -> None:
    """Some sites refuse the job, others accept it and end it, or let it wait."""
    slurm = own_slurm(accounting=False, EnforcePartLimits=enforced)
    app = App(tmp_path, "note('start', 1)\nmuch = b'1' * 500_000_000\nwait_for('never', 300)")
    with start(app, MEMORY, "hydra.launcher.on_oom={mem_gb: 9999}", retries(2), env=slurm.environment) as launch:
        result = launch.result()
    assert result.statuses == ["FAILED"] and "OUT_OF_MEMORY" in result.returns[0]["details"]["state"], result.text
    assert len(app.entries) == 1 and len(app.notes) == 1 and "not run again with more" in result.text


def test_the_next_launch_gives_more_to_what_ran_out_of_memory_while_nobody_waited(tmp_path: Path) -> None:
    app = App(tmp_path, GREEDY)
    with start(app, MEMORY, "hydra.launcher.wait=false") as launch:
        launch.result()
    wait_until(lambda: not subprocess.run(["squeue", "-h", "-j", job(app)], capture_output=True).stdout, "its end")
    app.write("enough", "")
    result = run(app, MEMORY, MORE_MEMORY, retries(1))
    assert result.values == [10] and "submitted again with mem_gb=0.879 (retry 1 of 1)" in result.text, result.text


@pytest.mark.parametrize("reads", ["${hydra:launcher.mem_gb}", "${oc.env:SLURM_MEM_PER_NODE,0}"])
def test_a_config_that_reads_the_memory_is_not_run_with_more(tmp_path: Path, reads: str) -> None:
    app = App(tmp_path, "note('start', 1)\nmuch = b'1' * 1_500_000_000\nwait_for('never', 300)")
    result = run(app, f"+batch={reads}", "hydra.launcher.mem_gb=1", MORE_MEMORY, retries(2))
    assert len(app.notes) == 1 and result.statuses == ["FAILED"]
    assert "it would be another task" in result.text and "batch reads mem_gb" in result.text


# -- out of time -------------------------------------------------------------------------------------------------------


def test_what_ran_out_of_time_gets_more_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    app = App(tmp_path, WAITS)
    with start(app, "hydra.launcher.timeout_min=90", MORE_TIME, retries(1)) as launch:
        wait_until(lambda: app.notes, "the task to run")
        end_time_of(job(app))
        result = launch.result()
    assert result.values == [10] and len(app.notes) == 2, result.text
    assert "(TIMEOUT); submitted again with timeout_min=180 (retry 1 of 1)" in result.text
    record = provenance(app)
    assert record["resources"]["timeout_min"] == 180 and record["attempts"][0]["resources"]["timeout_min"] == 90


def test_a_real_time_limit_of_a_minute_is_doubled(tmp_path: Path) -> None:
    app = App(tmp_path, WAITS)
    result = run(app, "hydra.launcher.timeout_min=1", MORE_TIME, retries(1))
    assert result.values == [10] and "time limit of 1 min (TIMEOUT); submitted again with timeout_min=2" in result.text


def test_the_call_that_a_checkpoint_has_returned_is_what_the_retry_calls(tmp_path: Path) -> None:
    head = """
    from submitit.helpers import DelayedSubmission

    def resume(step):
        note("resumed", step)
        return step

    def checkpoint(cfg):
        note("saved")
        return DelayedSubmission(resume, 7)
    """
    app = App(tmp_path, "note('start', cfg.seed)\nwait_for('never', 300)", head=head)
    script = (tmp_path / "train.py").read_text()
    (tmp_path / "train.py").write_text(
        script.replace("\n\nif __name__", "\ntrain.checkpoint = checkpoint\n\nif __name__")
    )
    options = ["hydra.launcher.timeout_min=5", "hydra.launcher.signal_delay_s=245", MORE_TIME, retries(1)]
    with start(app, *options) as launch:
        wait_until(lambda: app.notes, "the task to run")
        subprocess.run(["scancel", "--signal=USR2", job(app)], check=True)
        wait_until(lambda: "saved" in app.notes, "its checkpoint")
        end_time_of(job(app))
        result = launch.result()
    assert result.values == [7] and app.notes[0] == "start 1" and app.notes[-1] == "resumed 7", result.text
    assert set(app.notes[1:-1]) == {"saved"}  # Slurm warns, too


# -- lost to the machine -----------------------------------------------------------------------------------------------


def test_a_task_whose_node_failed_runs_again_as_often_as_its_retries_allow(
    tmp_path: Path, own_slurm: OwnSlurms
) -> None:
    slurm, app = own_slurm(accounting=False, JobRequeue=0), App(tmp_path, "note('start', 1)\nwait_for('never', 300)")
    with start(app, retries(1), env=slurm.environment) as launch:
        for count in (1, 2):
            wait_until(lambda count=count: len(app.notes) == count, "the task to run")  # type: ignore[misc]
            node = slurm.squeue("-o", "%N", "-t", "RUNNING")
            slurm.node_down(node)
        result = launch.result()
    assert "its node is down (NODE_FAIL: NodeDown); submitted again (retry 1 of 1)" in result.text
    assert result.statuses == ["FAILED"] and len(app.notes) == 2 and app.entries == []


def test_a_task_whose_job_is_preempted_for_good_runs_again(tmp_path: Path, own_slurm: OwnSlurms) -> None:
    slurm, app = own_slurm(accounting=False), App(tmp_path, WAITS)
    on_n1 = "+hydra.launcher.additional_parameters={nodelist: n1}"
    with start(app, on_n1, "hydra.launcher.partition=cancelled", retries(1), env=slurm.environment) as launch:
        wait_until(lambda: app.notes, "the task to run")
        slurm.run(
            "sbatch", "-p", "high", "-w", "n1", "-c", "8", "--output=/dev/null", f"--chdir={tmp_path}", "--wrap=true"
        )
        result = launch.result()
    assert result.values == [10] and len(app.notes) == 2, result.text
    assert "(PREEMPTED); submitted again (retry 1 of 1)" in result.text


def test_what_a_person_cancels_is_not_run_again(tmp_path: Path) -> None:
    app = App(tmp_path, WAITS)
    with start(app, retries(3)) as launch:
        wait_until(lambda: app.notes, "the task to run")
        subprocess.run(["scancel", job(app)], check=True)
        result = launch.result()
    assert result.statuses == ["FAILED"] and len(app.notes) == 1


def test_a_task_that_raises_is_not_run_again(tmp_path: Path) -> None:
    app = App(tmp_path, "note('start', 1)\nraise MemoryError('mine')")
    assert run(app, MORE_MEMORY, MORE_TIME, retries(3)).statuses == ["FAILED"] and len(app.notes) == 1


# -- infras ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def infra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    return {"folder": tmp_path / "cache", "cluster": "slurm", "retries": 1}


def notes(folder: Path) -> list[str]:
    return (folder / "notes").read_text().splitlines() if (folder / "notes").exists() else []


def test_a_method_that_ran_out_of_memory_gets_more(infra: dict[str, Any], tmp_path: Path) -> None:
    memory = {"slurm_additional_parameters": {"mem": "300M"}, "on_oom": {"mem_gb": "4x"}}
    job = Greedy(megabytes=500, go=str(tmp_path / "go"), infra={**infra, **memory}).infra.job()
    wait_until(lambda: job.done() or len(notes(tmp_path)) == 2, "the method to run with more")
    (tmp_path / "go").touch()
    assert job.result() == 500


def test_a_method_that_ran_out_of_time_gets_more(infra: dict[str, Any], tmp_path: Path) -> None:
    task = Slow(infra={**infra, "timeout_min": 9, "on_timeout": {"timeout_min": 20}, "max_timeout_min": 15})
    submitted = task.infra.job()
    for count in (1, 2):
        wait_until(lambda count=count: not submitted.done() and len(notes(tmp_path)) == count, "the method")  # type: ignore[misc]
        end_time_of(str(submitted.job_id))
    with pytest.raises(JobLostError, match="TIMEOUT"):
        submitted.result()
    (record,) = (tmp_path / "cache").glob("*/*/provenance.json")
    assert json.loads(record.read_text())["resources"]["timeout_min"] == 15


def test_an_infra_refuses_what_cannot_be(infra: dict[str, Any]) -> None:
    for wrong in (
        {"on_oom": {"memory": "2x"}},
        {"on_oom": {"mem_gb": "0.5x"}},
        {"on_oom": {"mem_gb": 0}},
    ):
        with pytest.raises(ValueError, match="on_oom"):
            Slow(infra={**infra, **wrong})
