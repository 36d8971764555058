"""What a sweep records of itself, of its code and of each of its tasks."""

from __future__ import annotations

import json
import typing as tp
from pathlib import Path

import pytest
from apps import PACKED, App
from repositories import git

from hydra_exca.job import payload

ENTRY = "provenance.json"
PATCH = "changes.patch"
BODY = """
if cfg.seed == 13:
    raise ValueError("an unlucky one")
return 10 * cfg.seed
"""
CLUSTERS = ["inline", "local", PACKED, pytest.param("slurm", marks=pytest.mark.slurm)]


def with_a_change(folder: Path) -> App:
    """An app in a repository with one commit, and a change that is in none."""
    app = App(folder, BODY)
    app.write(".gitignore", "*\n!.gitignore\n!train.py\n!conf\n!conf/*\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    app.write("conf/config.yaml", "seed: 1\nlr: 2\n")
    return app


@pytest.fixture
def app(tmp_path: Path) -> App:
    return with_a_change(tmp_path)


@pytest.fixture(scope="module", params=CLUSTERS)
def swept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> App:
    """One that has run two tasks on a cluster, one of which failed."""
    if request.param == "slurm":
        request.getfixturevalue("slurm")
    app = with_a_change(tmp_path_factory.mktemp("swept"))
    app.run("seed=1,13", "lr=3", cluster=request.param)
    return app


def records(app: App) -> list[dict[str, tp.Any]]:
    """Those of the entries."""
    return [json.loads((entry / ENTRY).read_text()) for entry in app.entries]


def test_launch_and_entries_know_the_code(swept: App) -> None:
    commit = git(swept.folder, "rev-parse", "HEAD")
    found = [(each["git"]["commit"], each["git"]["changed"]) for each in [swept.record(), *records(swept)]]
    assert found == [(commit, ["conf/config.yaml"])] * 3


def test_launch_and_entries_have_the_patch(swept: App) -> None:
    patches = [(folder / PATCH).read_bytes() for folder in [swept.launches[-1], *swept.entries]]
    assert len(set(patches)) == 1 and b"\n+lr: 2\n" in patches[0]


def test_each_task_has_its_overrides_and_its_end(swept: App) -> None:
    found = sorted((each["overrides"], each["exit"]) for each in records(swept))
    assert found == [(["seed=1", "lr=3"], "completed"), (["seed=13", "lr=3"], "failed: ValueError")]


def test_launch_entry_and_outcome_name_the_same_copy_of_the_code(swept: App) -> None:
    outcomes = [json.loads((entry / "outcome.json").read_text())["code"] for entry in swept.entries]
    code = swept.record()["code"]
    assert code and [each["code"] for each in records(swept)] == outcomes == [code, code]


def test_a_record_has_the_command_that_was_typed(app: App) -> None:
    app.run("seed=1", cluster="local")
    (record,) = records(app)
    assert record["argv"][0].endswith("train.py") and "seed=1" in record["argv"]
    assert record["working_directory"] == str(app.folder)


def test_nothing_is_in_the_launch_record_twice(app: App) -> None:
    app.run("seed=1", "hydra.launcher.version=7")
    record = app.record()
    assert not {"git_commit", "commit"} & set(record) and (record["version"], record["started"] > 0) == ("7", True)


def test_a_sweep_without_git_runs_as_any_other(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.run("seed=1")
    (record,) = records(app)
    assert (record["git"], record["exit"]) == (None, "completed")


def test_a_sweep_folder_of_earlier_runs_does_not_make_the_code_dirty(app: App) -> None:
    git(app.folder, "checkout", "-q", "conf")
    app.write(".gitignore", "exca\nnotes.txt\ncommand.*\n__pycache__\n")
    git(app.folder, "commit", "-q", "-a", "-m", "second")
    for seed in (1, 2):
        app.run(f"seed={seed}")
    assert [each["git"]["changed"] for each in records(app)] == [[], []]


# -- what would be sent to jobs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", ["inline", "debug"])
def test_tasks_of_this_process_are_written_down_as_for_jobs(app: App, cluster: str) -> None:
    app.run("seed=1,2", cluster=cluster)
    launch = app.launches[-1]
    header = payload.read_payload(launch)
    parts = [payload.read_part(launch, header, position) for position in range(2)]
    assert [part.entry for part in parts] == [str(app.cache / name) for name in app.record()["entries"]]
    assert [part.overrides for part in parts] == [("seed=1",), ("seed=2",)]


def test_what_cannot_be_written_down_runs_in_this_process_all_the_same(tmp_path: Path) -> None:
    app = App(tmp_path, "with held:\n    return 10 * cfg.seed", head="import threading\n\nheld = threading.Lock()")
    script = tmp_path / "train.py"
    script.write_text(script.read_text().replace('if __name__ == "__main__":', "if True:"))  # it travels by value
    assert app.run("seed=1").values == [10]
    assert not (app.launches[-1] / "payload.pkl").exists()


def test_the_files_for_jobs_are_their_owners_alone(app: App) -> None:
    app.run("seed=1")
    modes = {(app.launches[-1] / name).stat().st_mode & 0o777 for name in ("payload.pkl", "arguments.bin")}
    assert modes == {0o600}
