"""`hydra/callbacks=exca` with launchers that are not ours, and in single runs: the code that jobs run, the record."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path
from typing import Any

import pytest
from apps import App, Result, wait_until
from places import SUPPORT
from repositories import git

RETURN_SEED = "return cfg.seed\n"
CALLBACK = "hydra/callbacks=exca"
COPIED = "hydra.callbacks.exca.workdir.copied"
LAUNCHERS = ["basic", "joblib", "submitit_local"]
SLURM = pytest.param("submitit_slurm", marks=pytest.mark.slurm)
HEAD = "import model\nSCRIPT = 'launched'\n"
# what the tasks say: where each piece of code that they know is from
VALUES = """
note("start", cfg.seed)
if cfg.seed < cfg.held:
    wait_for(os.environ["GO"])
import lazy
return [SCRIPT, model.VALUE, lazy.VALUE, cfg.value]
"""
BEFORE_AND_AFTER = """\
def state():
    return [os.environ.get(name) for name in ("PYTHONPATH", "PYTHONSAFEPATH")], list(sys.path), list(sys.meta_path)
before = state()
train()
print("the same" if state() == before else (before, state()))
"""
# jobs of submitit on this machine start all at once: this makes them wait as in a queue
HELD = """
import os, sys, time
if "submitit.core._submit" in sys.orig_argv:
    open(os.environ["NOTES"], "a").write("queued\\n")
    while not os.path.exists(os.environ["GO"]):
        time.sleep(0.02)
"""
AT_ONCE = ("seed=1,2",)
SETTINGS = {
    "basic": ("seed=1,2", "+held=2"),
    "joblib": ("seed=1,2", "+held=2", "hydra.launcher.n_jobs=1"),
    "joblib, two at a time": ("seed=1,2,3", "+held=3", "hydra.launcher.n_jobs=2"),
    "submitit_local": ("seed=1,2", "+held=0"),
    "submitit_slurm": ("seed=1,2", "+held=2", "hydra.launcher.array_parallelism=1", "hydra.launcher.timeout_min=5"),
}


def project(folder: Path, body: str = VALUES) -> App:
    """An app in a git repository without a commit."""
    code = {"model.py": "VALUE = 'launched'\n", "lazy.py": "VALUE = 'launched'\n"}
    app = App(folder, body, config="seed: 1\nvalue: launched\n", head=HEAD, files=code)
    git(folder, "init", "-q")
    return app


def committed(folder: Path, body: str = VALUES) -> App:
    app = project(folder, body)
    git(folder, "add", "train.py", "model.py", "lazy.py", "conf")
    git(folder, "commit", "-q", "-m", "first")
    return app


def edit(app: App) -> None:
    for name in ("train.py", "model.py", "lazy.py", "conf/config.yaml"):
        path = app.folder / name
        path.write_text(path.read_text().replace("launched", "edited"))


def edited_while_queued(app: App, launcher: str, *overrides: str) -> list[Any]:
    environment = {"GO": str(app.folder / "go")}
    if launcher == "submitit_local":
        app.write("held/sitecustomize.py", HELD)
        environment["PYTHONPATH"] = os.pathsep.join([str(app.folder / "held"), str(SUPPORT)])
    name = launcher.partition(",")[0]
    with app.start(CALLBACK, *SETTINGS[launcher], *overrides, launcher=name, env=environment) as launch:
        wait_until(lambda: app.notes or launch.process.poll() is not None, "the first job")
        edit(app)
        app.write("go", "")
        result = launch.result()
    assert result.returncode == 0, result.text
    return result.values


@pytest.mark.parametrize("launcher", [*LAUNCHERS, "joblib, two at a time", SLURM])
def test_what_is_edited_after_the_launch_reaches_no_job(tmp_path: Path, launcher: str) -> None:
    values = edited_while_queued(project(tmp_path), launcher)
    assert values == [["launched"] * 4] * len(values)


def test_without_a_copy_jobs_import_the_code_where_it_is(tmp_path: Path) -> None:
    values = edited_while_queued(project(tmp_path), "joblib", f"{COPIED}=null")
    assert values[0] == ["launched", "launched", "edited", "launched"]


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "provenance.json").read_text())


ENVIRONMENT = ("PYTHONPATH", "PYTHONSAFEPATH")


def sweep_of_edited(folder: Path, launcher: str) -> tuple[App, Result]:
    """A sweep of committed code that was edited; its script says whether it is what it was before."""
    app = committed(folder, f"return [os.environ.get(name) for name in {ENVIRONMENT}]\n")
    edit(app)
    script = folder / "train.py"
    script.write_text(script.read_text().removesuffix("    train()\n") + textwrap.indent(BEFORE_AND_AFTER, "    "))
    result = app.run(CALLBACK, *AT_ONCE, launcher=launcher)
    assert result.returncode == 0, result.text
    return app, result


@pytest.fixture(scope="module", params=LAUNCHERS)
def swept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[App, Result]:
    return sweep_of_edited(tmp_path_factory.mktemp("swept"), request.param)


def are_recorded(app: App) -> None:
    records = [record(app.job(number)) for number in (0, 1)]
    assert [each["overrides"] for each in records] == [["seed=1"], ["seed=2"]]
    assert [each["exit"] for each in records] == ["completed"] * 2
    assert {each["git"]["commit"] for each in records} == {git(app.folder, "rev-parse", "HEAD")}
    assert {each["code"] for each in records} == {path.name for path in (app.cache / "code").glob("[!.]*")}
    assert "+SCRIPT = 'edited'" in (app.job(1) / "changes.patch").read_text()


def test_each_job_has_a_record_and_the_patch_in_its_output_directory(swept: tuple[App, Result]) -> None:
    are_recorded(swept[0])


@pytest.mark.slurm
def test_each_job_of_submitit_on_slurm_has_a_record_and_the_patch_in_its_output_directory(tmp_path: Path) -> None:
    app, _ = sweep_of_edited(tmp_path, "submitit_slurm")
    are_recorded(app)


def test_what_a_task_starts_has_the_environment_of_the_launch(swept: tuple[App, Result]) -> None:
    app, result = swept
    assert result.values == [[app._environment()["PYTHONPATH"], None]] * 2


def test_the_launching_process_is_afterwards_what_it_was(swept: tuple[App, Result]) -> None:
    assert "the same\n" in swept[1].stdout


def test_without_changes_there_is_no_patch(tmp_path: Path) -> None:
    app = committed(tmp_path, RETURN_SEED)
    app.run(CALLBACK, launcher="basic")
    assert not (app.job(0) / "changes.patch").exists()


def test_a_single_run_has_a_record_and_the_patch(tmp_path: Path) -> None:
    app = committed(tmp_path, RETURN_SEED)
    edit(app)
    result = app.run(CALLBACK, "seed=3", "hydra.run.dir=alone", launcher=None, multirun=False)
    assert result.returncode == 0, result.text
    told = record(tmp_path / "alone")
    assert (told["overrides"], told["exit"], told["code"]) == (["seed=3"], "completed", None)
    assert "+SCRIPT = 'edited'" in (tmp_path / "alone/changes.patch").read_text()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_failed_job_has_a_record_that_says_so(tmp_path: Path, launcher: str) -> None:
    app = project(tmp_path, "raise ValueError('no')\n")
    result = app.run(CALLBACK, launcher=launcher)
    assert result.returncode == 1
    assert record(app.job(0))["exit"] == "failed: ValueError"


def test_a_failed_single_run_has_a_record_that_says_so(tmp_path: Path) -> None:
    app = project(tmp_path, "raise ValueError('no')\n")
    app.run(CALLBACK, "hydra.run.dir=alone", launcher=None, multirun=False)
    assert record(tmp_path / "alone")["exit"] == "failed: ValueError"


def test_a_sweep_after_one_that_has_failed_under_another_launcher_starts_from_what_was_there_before(
    tmp_path: Path,
) -> None:
    app = project(tmp_path, "raise ValueError")
    script = tmp_path / "train.py"
    after = """
    paths = list(sys.path)
    try:
        train()
    except ValueError:
        pass
    assert sys.path != paths  # Hydra 1.3 does not say that such a sweep is over
    sys.argv[1:] = [argument for argument in sys.argv[1:] if not argument.startswith("hydra/launcher=")]
    sys.argv += ["hydra/launcher=exca", "hydra/launcher/cluster=inline", "hydra.launcher.on_failure=continue"]
    try:
        train()
    except SystemExit:
        pass
    print("the same" if sys.path == paths else [sys.path, paths])
"""
    text = script.read_text().removesuffix("    train()\n") + textwrap.indent(textwrap.dedent(after), "    ")
    script.write_text(text)
    assert "the same\n" in app.run(CALLBACK, launcher="basic", env={"HYDRA_FULL_ERROR": "1"}).stdout


def test_another_launcher_that_takes_more_options_takes_ours(tmp_path: Path) -> None:
    app = project(tmp_path, "return model.__file__\n")
    result = app.run(CALLBACK, "+hydra.launcher.workdir.copied=[model.py]", launcher="submitit_local")
    (value,) = result.values
    assert [path.name for path in Path(value).parent.glob("[!._]*")] == ["model.py"]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_what_is_not_copied_is_imported_as_the_launch_would(tmp_path: Path, launcher: str) -> None:
    app = project(tmp_path, "import lazy\nreturn lazy.__file__\n")
    result = app.run(CALLBACK, f"{COPIED}=[model.py]", launcher=launcher)
    assert result.values == [str(tmp_path / "lazy.py")], result.text


OTHERS = """
from apps import note
from hydra.experimental.callback import Callback

class Mine(Callback):
    def on_multirun_start(self, config, **kwargs): note("mine start")
    def on_job_end(self, config, job_return, **kwargs): note("mine job", job_return.return_value)
    def on_multirun_end(self, config, **kwargs): note("mine end")
"""
IN_CONFIG = """
seed: 1
value: launched
hydra:
  callbacks:
    mine:
      _target_: others.Mine
"""


def test_a_job_that_removes_its_output_directory_has_its_value_and_no_record(tmp_path: Path) -> None:
    body = "import shutil\nshutil.rmtree(HydraConfig.get().runtime.output_dir)\nreturn cfg.seed\n"
    result = project(tmp_path, body).run(CALLBACK, launcher="basic")
    assert (result.returncode, result.values) == (0, [1]), result.text
    assert "could not be recorded" in result.text and "Traceback" not in result.text


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_other_callbacks_run_beside_it(tmp_path: Path, launcher: str) -> None:
    app = project(tmp_path, RETURN_SEED)
    app.write("others.py", OTHERS)
    app.write("conf/config.yaml", IN_CONFIG)
    app.run(CALLBACK, launcher=launcher)
    assert app.notes == ["mine start", "mine job 1", "mine end"] and record(app.job(0))["exit"] == "completed"


def test_the_callback_can_be_one_of_a_list(tmp_path: Path) -> None:
    app = project(tmp_path, RETURN_SEED)
    app.write("others.py", OTHERS)
    app.write("conf/hydra/callbacks/mine.yaml", "mine:\n  _target_: others.Mine\n")
    app.run("hydra/callbacks=[exca,mine]", launcher="basic")
    assert app.notes == ["mine start", "mine job 1", "mine end"] and record(app.job(0))["exit"] == "completed"


def test_the_callback_can_be_in_the_defaults_of_an_app(tmp_path: Path) -> None:
    app = project(tmp_path, RETURN_SEED)
    app.write("conf/config.yaml", "defaults:\n  - override hydra/callbacks: exca\n  - _self_\nseed: 1\n")
    result = app.run(launcher="basic")
    assert record(app.job(0))["exit"] == "completed", result.text
