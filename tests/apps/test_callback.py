"""When the callback fails, nothing is submitted, and its message is all that the user sees."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import hydra
import pytest
from apps import App, Result, is_one_message
from repositories import git, in_its_place

CALLBACK = "hydra/callbacks=exca"
OURS, OTHERS = "hydra.launcher.workdir", "hydra.callbacks.exca.workdir"
LAUNCHERS: dict[str, dict[str, Any]] = {
    "exca": {"launcher": "exca", "cluster": "local"},
    "basic": {"launcher": "basic"},
    "joblib": {"launcher": "joblib"},
    "submitit_local": {"launcher": "submitit_local"},
}


def project(folder: Path) -> App:
    """An app in a git repository with one commit."""
    app = App(folder, files={"model.py": "VALUE = 1\n"})
    git(folder, "init", "-q")
    git(folder, "add", "train.py", "model.py", "conf")
    git(folder, "commit", "-q", "-m", "first")
    return app


def sweep(app: App, launcher: str, *options: str) -> Result:
    """Of two jobs, with options of the copy, which have another place with launchers that are not ours."""
    place = OURS if launcher == "exca" else OTHERS
    given = [CALLBACK, *(option.replace("WORKDIR", place) for option in options)]
    return app.run("seed=1,2", *given, **LAUNCHERS[launcher])


def assert_nothing_ran(app: App, result: Result, *words: str) -> None:
    """But a message with these words was shown."""
    assert is_one_message(result), result.text
    assert [word for word in words if word not in result.stderr] == [], result.stderr
    left = {str(path.relative_to(app.folder)) for path in app.folder.rglob("*") if "." in path.name and path.is_file()}
    kept = {name for name in left if not name.startswith((".git", "command.", "exca/"))}
    assert kept <= {"conf/config.yaml", "train.py", "model.py", "sweep/multirun.yaml"}
    assert (app.notes, app.entries, app.launches, list(app.cache.glob("code/[!.]*"))) == ([], [], [], [])


every_launcher = pytest.mark.parametrize("launcher", LAUNCHERS)


@every_launcher
def test_a_name_that_does_not_exist_stops_the_launch_under_every_launcher(tmp_path: Path, launcher: str) -> None:
    app = project(tmp_path)
    result = sweep(app, launcher, "WORKDIR.copied=[nothing_such]")
    assert_nothing_ran(app, result, "'nothing_such' is not a file", f"{OURS if launcher == 'exca' else OTHERS}.copied")


@every_launcher
def test_uncommitted_changes_are_listed_under_every_launcher(tmp_path: Path, launcher: str) -> None:
    app = project(tmp_path)
    app.write("model.py", "VALUE = 2\n")
    result = sweep(app, launcher, "WORKDIR.log_commit=true")
    assert_nothing_ran(app, result, "uncommitted changes", str(tmp_path / "model.py"))
    assert "train.py" not in result.stderr


@every_launcher
def test_what_nobody_foresaw_stops_the_launch_under_every_launcher(
    tmp_path: Path, launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = project(tmp_path)
    in_its_place(tmp_path / "bin", r"printf 'no\000path'", monkeypatch)
    result = sweep(app, launcher)
    assert_nothing_ran(app, result, "ValueError: embedded null byte", "HYDRA_FULL_ERROR=1")


@pytest.mark.parametrize("launcher", ["exca", "basic"])
def test_a_link_out_of_the_tree_stops_the_launch(tmp_path: Path, launcher: str) -> None:
    app = project(tmp_path / "app")
    (tmp_path / "outside.py").write_text("")
    os.symlink(tmp_path / "outside.py", tmp_path / "app/link")
    result = sweep(app, launcher, "WORKDIR.includes=[]")
    assert_nothing_ran(app, result, f"{tmp_path}/app/link", f"{tmp_path}/outside.py")


@pytest.mark.parametrize("launcher", ["exca", "basic"])
def test_more_than_max_mb_stops_the_launch(tmp_path: Path, launcher: str) -> None:
    app = project(tmp_path)
    result = sweep(app, launcher, "WORKDIR.max_mb=0.0001")
    assert_nothing_ran(app, result, "max_mb", str(tmp_path / "train.py"))


@pytest.mark.parametrize("options", [["max_mb=-1", "copied=3"], ["log_commit=perhaps", "chdir=here", "includes=py"]])
def test_all_options_of_a_wrong_kind_are_named(tmp_path: Path, options: list[str]) -> None:
    app = project(tmp_path)
    result = sweep(app, "basic", *(f"WORKDIR.{option}" for option in options))
    assert_nothing_ran(app, result, *(f"workdir.{option.partition('=')[0]}" for option in options))


def test_another_launcher_runs_no_job_in_the_copy_and_says_so(tmp_path: Path) -> None:
    app = project(tmp_path)
    assert_nothing_ran(app, sweep(app, "joblib", "WORKDIR.chdir=true"), f"{OTHERS}.chdir", "hydra/launcher=exca")


@pytest.mark.parametrize("option", ["max_mb=-1", "log_commit=perhaps"])
def test_with_our_launcher_an_option_of_a_wrong_kind_stops_the_launch(tmp_path: Path, option: str) -> None:
    app = project(tmp_path)
    assert_nothing_ran(app, sweep(app, "exca", f"WORKDIR.{option}"), f"{OURS}.{option.partition('=')[0]}")


@pytest.mark.parametrize("launcher", ["exca", "basic"])
def test_a_mistyped_option_stops_the_launch(tmp_path: Path, launcher: str) -> None:
    app = project(tmp_path)
    assert_nothing_ran(app, sweep(app, launcher, "WORKDIR.copies=[model.py]"), "copies")


@pytest.mark.skipif(not hydra.__version__.startswith("1.3."), reason="Hydra 1.4 shows a traceback")
def test_a_mistyped_option_of_the_callback_stops_the_launch(tmp_path: Path) -> None:
    app = project(tmp_path)
    assert_nothing_ran(app, sweep(app, "basic", "+hydra.callbacks.exca.workdirs=[model.py]"), "workdirs")


@every_launcher
def test_a_cache_folder_that_cannot_be_written_stops_the_launch(tmp_path: Path, launcher: str) -> None:
    app = project(tmp_path)
    folder = app.write("blocked", "")
    key = "hydra.launcher.folder" if launcher == "exca" else "hydra.callbacks.exca.folder"
    assert_nothing_ran(app, sweep(app, launcher, f"{key}={folder}"), str(folder))


@pytest.mark.parametrize("option", ["max_mb=-1", "copies=3"])
def test_a_wrong_option_stops_a_single_run(tmp_path: Path, option: str) -> None:
    app = project(tmp_path)
    result = app.run(CALLBACK, f"{OTHERS}.{option}", launcher=None, multirun=False)
    assert_nothing_ran(app, result, f"workdir.{option.partition('=')[0]}")


def test_uncommitted_changes_stop_a_single_run(tmp_path: Path) -> None:
    app = project(tmp_path)
    app.write("model.py", "VALUE = 2\n")
    result = app.run(CALLBACK, f"{OTHERS}.log_commit=true", launcher=None, multirun=False)
    assert_nothing_ran(app, result, str(tmp_path / "model.py"))


def test_what_nobody_foresaw_stops_a_single_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = project(tmp_path)
    in_its_place(tmp_path / "bin", r"printf 'no\000path'", monkeypatch)
    result = app.run(CALLBACK, launcher=None, multirun=False)
    assert_nothing_ran(app, result, "ValueError: embedded null byte")


def test_a_full_trace_is_shown_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = project(tmp_path)
    in_its_place(tmp_path / "bin", r"printf 'no\000path'", monkeypatch)
    result = app.run(CALLBACK, launcher="basic", env={"HYDRA_FULL_ERROR": "1"})
    assert (result.returncode, app.notes) == (1, []) and "Traceback" in result.stderr
