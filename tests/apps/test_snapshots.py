"""The copy of the code that a sweep makes: the same one as long as the code is the same, whatever runs write."""

from __future__ import annotations

from pathlib import Path

import pytest
from apps import App, is_one_message
from repositories import git


def codes(app: App) -> list[str]:
    return sorted(path.name for path in (app.cache / "code").glob("[!.]*"))


MODEL = {"model.py": "VALUE = 1\n"}
IMPORTING = "import model\nreturn model.__file__\n"


def test_a_sweep_copies_the_project_of_its_script_unless_said_otherwise(tmp_path: Path) -> None:
    app = App(tmp_path, IMPORTING, files=MODEL)
    (value,) = app.run(cluster="local").values
    (code,) = codes(app)
    assert value == str(app.cache.resolve() / "code" / code / "model.py")


SWEEPS = [
    ["hydra.sweep.dir=multirun/${now:%Y-%m-%d}/${now:%H-%M-%S-%f}"],
    ["hydra.sweep.dir=."],
    ["hydra.sweep.dir=found/here", "hydra.launcher.link_outputs=false"],
    ["hydra.sweep.dir=${now:%f}", "hydra.output_subdir=told"],
]


def test_what_a_sweep_writes_does_not_change_the_code(tmp_path: Path) -> None:
    app = App(tmp_path, 'open("notes.yaml", "w").close()\nreturn 1\n', files=MODEL)
    app.write(".gitignore", "notes.yaml\n")
    git(tmp_path, "init", "-q")
    includes = "hydra.launcher.workdir.includes=['*.py','*.yaml']"
    for seed, overrides in enumerate([*SWEEPS, SWEEPS[0]]):
        result = app.run(f"seed={seed}", *overrides, includes, cluster="local")
        assert (result.returncode, len(codes(app))) == (0, 1), f"{overrides}: {result.text}"


def test_what_a_single_run_writes_does_not_change_the_code(tmp_path: Path) -> None:
    app = App(tmp_path, files=MODEL)
    app.run("seed=1", cluster="local")
    for folder in ("outputs/${now:%f}", ".", "runs", "run_${now:%f}"):
        run = app.run(f"hydra.run.dir={folder}", launcher=None, multirun=False)
        assert run.returncode == 0, run.text
    app.run("seed=2", cluster="local")
    assert len(codes(app)) == 1


def test_the_code_is_copied_where_runs_are_written_beside_it(tmp_path: Path) -> None:
    app = App(tmp_path, IMPORTING, files=MODEL)
    app.run("hydra.run.dir=.", launcher=None, multirun=False)
    (value,) = app.run("hydra.run.dir=.", "hydra.sweep.dir=.", cluster="local").values
    assert Path(value).is_relative_to(app.cache.resolve() / "code")


def test_runs_that_are_written_into_a_folder_of_the_code_hide_no_code(tmp_path: Path) -> None:
    app = App(tmp_path, files={"experiments/later.py": ""})
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "experiments")
    for seed in ("1", "2"):
        app.run(f"seed={seed}", "hydra.sweep.dir=experiments/${now:%f}", cluster="local")
    (code,) = codes(app)
    assert (app.cache / "code" / code / "experiments/later.py").exists()


def test_a_copy_in_a_folder_that_was_named_is_no_code(tmp_path: Path) -> None:
    app = App(tmp_path, IMPORTING, files=MODEL)
    found = []
    for number, name in enumerate(("one", "one", "two")):
        (value,) = app.run(f"seed={number}", f"hydra.launcher.workdir.folder={name}", cluster="local").values
        assert value == str(tmp_path.resolve() / name / "model.py")
        found.append((tmp_path / name / ".exca-code").read_text())
    assert len(set(found)) == 1


def test_everything_can_be_copied_and_stays_the_same_code(tmp_path: Path) -> None:
    """Without patterns the logs and records of runs would be code, too."""
    app = App(tmp_path, files=MODEL)
    app.write("data.bin", "x")
    git(tmp_path, "init", "-q")
    app.write(".gitignore", "command.*\nnotes.txt\n")
    every = ["hydra.launcher.workdir.includes=[]", "hydra.sweep.dir=.", "hydra.run.dir=."]
    for seed in ("1", "2"):
        app.run(f"seed={seed}", *every, cluster="local")
        app.run(f"seed={seed}", "hydra.run.dir=.", launcher=None, multirun=False)
    (code,) = codes(app)
    assert (app.cache / "code" / code / "data.bin").exists()


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("hydra.launcher.workdir.copied=3", "hydra.launcher.workdir.copied"),
        ("hydra.launcher.workdir.max_mb=0", "hydra.launcher.workdir.max_mb"),
        ("hydra.launcher.workdir.max_mb=0.0001", "are more than 0.0001 MB; the largest are"),
        ("hydra.launcher.workdir.copied=[auto,nothing_such]", "'nothing_such' is not a file, a folder or a package"),
        ("hydra.launcher.workdir.folder=no/such/place", "does not exist; create it"),
        ("hydra.launcher.workdir.log_commit=true", "is in no git repository"),
    ],
)
def test_options_that_cannot_work_are_told_and_nothing_is_run(tmp_path: Path, override: str, told: str) -> None:
    app = App(tmp_path)
    result = app.run(override, cluster="local")
    assert is_one_message(result) and told in result.stderr
    assert (app.notes, app.launches) == ([], [])


def test_an_option_that_there_is_not_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    app = App(tmp_path)
    result = app.run("hydra/callbacks=exca", "+hydra.callbacks.exca.workdir.copyed=[.]", launcher="basic")
    assert is_one_message(result) and "there is no such option; there are copied, includes" in result.stderr


def test_what_is_copied_can_come_from_a_variable(tmp_path: Path) -> None:
    app = App(tmp_path, files=MODEL)
    result = app.run("hydra.launcher.workdir.copied=['${oc.env:COPIED}']", cluster="local", env={"COPIED": "model.py"})
    (code,) = codes(app)
    assert result.returncode == 0 and list((app.cache / "code" / code).glob("[!.]*")) == [
        app.cache / "code" / code / "model.py"
    ]


@pytest.fixture
def committed(tmp_path: Path) -> App:
    app = App(tmp_path, files=MODEL)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return app


# not what the tests themselves import from their repository
LOG_COMMIT = ["hydra.launcher.workdir.log_commit=true", "hydra.launcher.workdir.copied=[.]"]


def test_code_that_is_committed_may_run_where_it_has_to_be(committed: App) -> None:
    for seed in ("1", "2"):
        result = committed.run(f"seed={seed}", *LOG_COMMIT, cluster="local")
        assert result.returncode == 0, result.text


def test_all_that_is_not_committed_is_told_where_it_has_to_be(committed: App) -> None:
    committed.write("model.py", "VALUE = 2\n")
    committed.write("new.py", "")
    committed.write("data.csv", "")
    result = committed.run(*LOG_COMMIT, cluster="local")
    assert is_one_message(result) and committed.launches == []
    assert all(str(committed.folder / name) in result.stderr for name in ("model.py", "new.py"))
    assert "data.csv" not in result.stderr
