"""The results of sweeps: in the order of their jobs, with what was reused, also while they run and after a move."""

from __future__ import annotations

from pathlib import Path

import pytest
from apps import App, wait_until

from hydra_exca import results

BODY = """
if cfg.seed == 9:
    note("waits")
    wait_for("go")
return {"acc": cfg.seed / 10}
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    """One with two sweeps, of which the second reuses a result of the first."""
    app = App(tmp_path_factory.mktemp("results"), BODY)
    app.run("seed=2")
    app.run("seed=3,2,1", "hydra.sweep.dir=second")
    return app


def test_a_sweep_has_its_jobs_in_their_order_and_what_was_reused(app: App) -> None:
    found = results(app.folder / "second")
    assert [record["seed"] for record in found] == [3, 2, 1] == [int(r.overrides[0].partition("=")[2]) for r in found]
    assert [record.how for record in found] == ["run", "reused", "run"] and "how" in found.columns
    assert found.best("acc")["seed"] == 3


def test_the_directory_of_a_job_means_its_result(app: App) -> None:
    (record,) = results(app.job(1, "second"))
    assert record["seed"] == 2 and record.output is not None and (record.output / ".hydra").is_dir()


def test_a_record_runs_again_outside_the_cache(app: App, tmp_path: Path) -> None:
    compared = results(app.folder / "second")[0].rerun(into=tmp_path / "again")
    assert compared.same and Path(compared.output).is_relative_to(tmp_path / "again")


def test_a_sweep_that_was_moved_with_its_cache_has_the_same_results(tmp_path: Path) -> None:
    app = App(tmp_path / "here", BODY)
    app.run("seed=1,2")
    (tmp_path / "here").rename(tmp_path / "there")
    found = results(tmp_path / "there/sweep")
    assert [record.value for record in found] == [{"acc": 0.1}, {"acc": 0.2}]
    assert all(record.output is not None and record.output.is_dir() for record in found)


def test_while_a_sweep_runs_each_task_has_its_status(tmp_path: Path) -> None:
    app = App(tmp_path, BODY)
    with app.start("seed=1,9", cluster="local") as started:
        wait_until(lambda: "waits" in app.notes and len(app.entries) == 1, "one task has ended and one runs")
        statuses = {record["seed"]: record.status for record in results(app.cache)}
        launched = {record["seed"]: record.status for record in results(app.launches[0])}
        (tmp_path / "go").touch()
        started.result()
    assert statuses == launched == {1: "completed", 9: "running"}
    assert [record.status for record in results(app.cache)] == ["completed"] * 2
