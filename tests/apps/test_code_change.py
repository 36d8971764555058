"""A sweep whose code was edited since: what is stored is told of, refused or computed anew; and other versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from apps import PACKED, App, Result, is_one_message, wait_until

CLUSTERS = ["inline", "local", pytest.param("slurm", marks=pytest.mark.slurm)]
BODY = 'note("start", cfg.seed)\nreturn model.VALUE\n'
KILLED = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
OTHER_CODE = "computed with different code"
DIFFERS = "were computed with different code (changed: model.py)"


class Edited(App):
    """An app with a module, of which it returns the value."""

    def __init__(self, folder: Path, body: str = BODY) -> None:
        super().__init__(folder, body, head="import model", files={"model.py": "VALUE = 'old'\n"})

    def sweep(self, *overrides: str, **how: Any) -> Result:
        return self.run("seed=1,2", *overrides, **how)

    def edit(self, value: str = "new") -> None:
        self.write("model.py", f"VALUE = {value!r}  # and some more\n")

    def codes(self) -> list[str | None]:
        """The code of each outcome."""
        return [json.loads((entry / "outcome.json").read_text())["code"] for entry in self.entries]


@pytest.fixture
def app(tmp_path: Path) -> Edited:
    return Edited(tmp_path)


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Edited:
    """One with two stored results, of code that was edited since."""
    app = Edited(tmp_path_factory.mktemp("edited"))
    app.sweep()
    app.edit()
    return app


def test_after_an_edit_what_is_stored_is_used_and_told_of(edited: Edited) -> None:
    again = edited.sweep()
    assert (again.values, again.text.count(f"2 stored results {DIFFERS}")) == (["old", "old"], 1)


def test_without_an_edit_nothing_is_said(app: Edited) -> None:
    app.sweep(cluster="local")
    again = app.run("seed=1,2,3", cluster="local")
    assert again.counts["cached"] == 2 and OTHER_CODE not in again.text


def test_the_code_of_a_task_does_not_depend_on_where_it_runs(app: Edited) -> None:
    app.run("seed=1", cluster="inline")
    app.run("seed=2", cluster="local")
    first, second = app.codes()
    assert first is not None and first == second


def test_the_code_of_a_task_is_the_snapshot_that_its_entry_links_to(app: Edited) -> None:
    app.run("seed=1", cluster="local")
    assert app.codes() == [(app.entries[0] / "code").resolve().name]


@pytest.mark.parametrize("cluster", [*CLUSTERS[1:], PACKED])
def test_a_killed_task_says_of_which_code_it_was(tmp_path: Path, cluster: str) -> None:
    app = Edited(tmp_path, KILLED)
    app.run("seed=1,2", cluster=cluster)
    assert app.codes() == 2 * [app.record()["code"]] != [None, None]


def test_a_killed_task_of_a_launch_that_has_left_says_of_which_code_it_was(tmp_path: Path) -> None:
    app = Edited(tmp_path, KILLED)
    app.run("seed=1", "hydra.launcher.wait=false", cluster="local")
    wait_until(lambda: app.entries, "its end to be written down")
    assert app.codes() == [app.record()["code"]] != [None]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_rerun_computes_anew_what_other_code_has_computed(app: Edited, cluster: str) -> None:
    app.run("seed=1", cluster=cluster)
    app.edit()
    app.run("seed=2", cluster=cluster)
    again = app.sweep("hydra.launcher.on_code_change=rerun", cluster=cluster)
    assert again.values == ["new", "new"] and app.notes == ["start 1", "start 2", "start 1"]


def test_what_was_computed_anew_is_told_of_no_more(app: Edited) -> None:
    app.sweep()
    app.edit()
    app.sweep("hydra.launcher.on_code_change=rerun")
    again = app.sweep()
    assert (again.values, OTHER_CODE in again.text) == (["new", "new"], False)


def test_error_runs_nothing_and_is_one_message(edited: Edited) -> None:
    refused = edited.run("seed=1,2,3", "hydra.launcher.on_code_change=error")
    assert is_one_message(refused) and "2 stored results were computed" in refused.stderr
    assert edited.notes == ["start 1", "start 2"]


def test_error_names_the_task_by_its_overrides(edited: Edited) -> None:
    assert "  seed=1: seed=1-" in edited.sweep("hydra.launcher.on_code_change=error").stderr


def test_ignore_says_nothing(edited: Edited) -> None:
    assert OTHER_CODE not in edited.sweep("hydra.launcher.on_code_change=ignore").text


def test_each_batch_of_a_sweep_is_told_of_its_own_results(edited: Edited) -> None:
    assert edited.sweep("hydra.sweeper.max_batch_size=1").text.count(f"1 stored result was {OTHER_CODE}") == 2


def test_error_refuses_to_join_a_task_that_runs_from_other_code(tmp_path: Path) -> None:
    app = Edited(tmp_path, "note('start')\nwait_for('go')\nreturn model.VALUE\n")
    with app.start("seed=1", cluster="local") as started:
        wait_until(lambda: app.notes, "the task to run")
        app.edit()
        refused = app.run("seed=1", "hydra.launcher.on_code_change=error", cluster="local")
        app.write("go", "")
        started.result()
    assert is_one_message(refused) and "1 running task is being computed with different code" in refused.stderr


def test_a_stored_failure_of_other_code_is_told_of(tmp_path: Path) -> None:
    app = Edited(tmp_path, "if model.VALUE == 'old':\n    raise ValueError('no luck')\nreturn model.VALUE\n")
    app.sweep()
    app.edit()
    assert f"2 stored failures {DIFFERS}" in app.sweep().text


def test_without_a_copy_nothing_is_said_of_other_code(app: Edited) -> None:
    app.sweep("hydra.launcher.workdir.copied=null")
    app.edit()
    assert OTHER_CODE not in app.sweep("hydra.launcher.workdir.copied=null").text


def test_a_dry_run_shows_other_code_and_other_versions(app: Edited) -> None:
    app.sweep()
    app.sweep("hydra.launcher.version=1")
    app.edit()
    shown = app.run("seed=1,2,3", "hydra.launcher.dry_run=true").text
    assert DIFFERS in shown and "version 1 has 2 results that this launch does not use" in shown


def test_a_dry_run_with_error_shows_that_it_would_be_refused(app: Edited) -> None:
    app.sweep()
    app.edit()
    shown = app.sweep("hydra.launcher.dry_run=true", "hydra.launcher.on_code_change=error")
    assert shown.returncode == 0 and "on_code_change=error refuses that" in shown.text


# -- other versions


def unused(result: Result) -> list[str]:
    """What was said of other versions."""
    return [line.partition("exca: ")[2] for line in result.stdout.splitlines() if "does not use" in line]


def test_the_results_of_another_version_are_told_of(app: Edited) -> None:
    app.sweep("hydra.launcher.version=1")
    again = app.sweep("hydra.launcher.version=2")
    assert unused(again) == ["version 1 has 2 results that this launch does not use"]


def test_a_single_result_of_another_version_is_told_of(app: Edited) -> None:
    app.run("seed=1", "hydra.launcher.version=1")
    assert unused(app.run("seed=1")) == ["version 1 has 1 result that this launch does not use"]


def test_several_other_versions_are_told_of_newest_first(app: Edited) -> None:
    for version in "abcd":
        app.run("seed=1", f"hydra.launcher.version={version}")
    assert [line.split()[1] for line in unused(app.run("seed=1"))] == ["d", "c", "b"]


def test_other_versions_are_not_told_of_where_nothing_is_to_be_run(app: Edited) -> None:
    app.sweep("hydra.launcher.version=1")
    app.sweep()
    assert unused(app.sweep()) == []


def test_other_versions_are_told_of_once_in_a_sweep_of_several_batches(app: Edited) -> None:
    app.sweep("hydra.launcher.version=1")
    assert len(unused(app.sweep("hydra.sweeper.max_batch_size=1"))) == 1
