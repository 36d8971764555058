"""The code and the config that jobs run: those of the launch, recorded and, where asked for, copied."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from apps import App, is_one_message, wait_until

CLUSTERS = ["local", pytest.param("slurm", marks=pytest.mark.slurm)]
FIRST_WAITS = """
note("start", cfg.seed)
if cfg.seed == 1:
    wait_for("go")
import model
return [model.VALUE, cfg.get("lr")]
"""
ONE_AT_A_TIME = "hydra.launcher.array_parallelism=1"


def edited_while_queued(app: App, cluster: str, *overrides: str) -> list[object]:
    """The values of two tasks, where the second waits in the queue while ``model.py`` and the yaml are edited."""
    with app.start("seed=1,2", ONE_AT_A_TIME, *overrides, cluster=cluster) as launch:
        wait_until(lambda: "start 1" in app.notes, "the first task to run")
        app.write("model.py", "VALUE = 'edited'\n")
        app.write("conf/config.yaml", "seed: 1\nlr: 99\n")
        app.write("go", "")
        result = launch.result()
    assert result.returncode == 0, result.text
    return result.values


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_what_is_edited_after_submission_reaches_no_queued_job(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, FIRST_WAITS, config="seed: 1\nlr: 0.1\n", files={"model.py": "VALUE = 'launched'\n"})
    values = edited_while_queued(app, cluster, "hydra.launcher.workdir.copied=[model.py]")
    assert values == [["launched", 0.1], ["launched", 0.1]]


def test_without_a_copy_jobs_import_the_code_where_it_is(tmp_path: Path) -> None:
    app = App(tmp_path, FIRST_WAITS, config="seed: 1\nlr: 0.1\n", files={"model.py": "VALUE = 'launched'\n"})
    assert edited_while_queued(app, "local")[1] == ["edited", 0.1]


def test_a_copied_script_is_not_picked_up_when_it_is_edited(tmp_path: Path) -> None:
    body = 'note("start", cfg.seed)\nif cfg.seed == 1:\n    wait_for("go")\nreturn "launched"\n'
    app = App(tmp_path, body)
    with app.start("seed=1,2", ONE_AT_A_TIME, "hydra.launcher.workdir.copied=[train.py]", cluster="local") as launch:
        wait_until(lambda: app.notes, "the first task to run")
        app.write_script(body.replace("launched", "edited"))
        app.write("go", "")
        assert launch.result().values == ["launched", "launched"]


def test_a_copied_package_is_imported_from_the_snapshot(tmp_path: Path) -> None:
    app = App(tmp_path, "import lib.part\nreturn lib.part.__file__\n")
    app.write("lib/__init__.py", "")
    app.write("lib/part.py", "")
    (value,) = app.run("hydra.launcher.workdir.copied=[lib]", cluster="local").values
    assert Path(value).is_relative_to(app.cache / "code")


def test_equal_code_is_copied_once(tmp_path: Path) -> None:
    app = App(tmp_path, files={"model.py": "VALUE = 1\n"})
    for seed in (1, 2):
        app.run(f"seed={seed}", "hydra.launcher.workdir.copied=[model.py]", cluster="local")
    assert len(list((app.cache / "code").iterdir())) == 1


def test_a_name_to_copy_that_does_not_exist_stops_the_launch(tmp_path: Path) -> None:
    app = App(tmp_path)
    result = app.run("seed=1,2", "hydra.launcher.workdir.copied=[no_such_code]", cluster="local")
    assert is_one_message(result) and "'no_such_code' is no file, no folder and no package" in result.stderr
    assert (app.notes, app.launches) == ([], [])


def test_the_launch_record_has_version_commit_and_command_line(tmp_path: Path) -> None:
    app = App(tmp_path)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=me", "-c", "user.email=me@host"]
    for command in (["init", "-q"], ["add", "train.py"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    app.run("seed=3", "hydra.launcher.version=7")
    record = app.record()
    assert (record["version"], record["git_commit"]) == ("7", commit)
    assert record["argv"][0] == "train.py" and "seed=3" in record["argv"]


def test_a_forgotten_multirun_flag_is_a_warning(tmp_path: Path) -> None:
    app = App(tmp_path)
    result = app.run("seed=2", multirun=False)
    assert "without -m" in result.text and "Traceback" not in result.text
    assert (result.returncode, app.notes, app.cache.exists()) == (0, ["start 2"], False)


def test_the_working_directory_of_a_job_is_that_of_the_launch(tmp_path: Path) -> None:
    app = App(tmp_path, "return os.getcwd()\n")
    assert app.run(cluster="local").values == [os.path.realpath(tmp_path)]


def test_resolvers_that_the_script_registers_are_there_in_a_job(tmp_path: Path) -> None:
    head = 'from omegaconf import OmegaConf\nOmegaConf.register_new_resolver("twice", lambda x: 2 * x)\n'
    app = App(tmp_path, "return cfg.double\n", config="seed: 1\ndouble: ${twice:${seed}}\n", head=head)
    assert app.run("seed=1,2", cluster="local").values == [2, 4]


def test_a_class_of_the_script_is_the_same_in_the_next_run(tmp_path: Path) -> None:
    head = "import dataclasses\n@dataclasses.dataclass\nclass Score:\n    value: int\n"
    app = App(tmp_path, "note('start')\nreturn Score(cfg.seed)\n", head=head)
    assert app.run("seed=1", cluster="local").values == ["Score(value=1)"]
    assert (app.run("seed=1", cluster="local").values, app.notes) == (["Score(value=1)"], ["start"])
