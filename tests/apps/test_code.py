"""The code and the config that jobs run: those of the launch, recorded and, where asked for, copied."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

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
    assert edited_while_queued(app, "local", "hydra.launcher.workdir.copied=null")[1] == ["edited", 0.1]


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
    assert len(list((app.cache / "code").glob("[!.]*"))) == 1


def test_a_name_to_copy_that_does_not_exist_stops_the_launch(tmp_path: Path) -> None:
    app = App(tmp_path)
    result = app.run("seed=1,2", "hydra.launcher.workdir.copied=[no_such_code]", cluster="local")
    assert is_one_message(result) and "'no_such_code' is not a file, a folder or a package" in result.stderr
    assert (app.notes, app.launches) == ([], [])


def test_the_launch_record_has_version_commit_and_command_line(tmp_path: Path) -> None:
    app = App(tmp_path)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=me", "-c", "user.email=me@host"]
    for command in (["init", "-q"], ["add", "train.py"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    app.run("seed=3", "hydra.launcher.version=7")
    record = app.record()
    assert (record["version"], record["git"]["commit"]) == ("7", commit)
    assert record["argv"][0] == "train.py" and "seed=3" in record["argv"]


def test_a_class_of_the_script_is_the_same_in_the_next_run(tmp_path: Path) -> None:
    head = "import dataclasses\n@dataclasses.dataclass\nclass Score:\n    value: int\n"
    app = App(tmp_path, "note('start')\nreturn Score(cfg.seed)\n", head=head)
    assert app.run("seed=1", cluster="local").values == ["Score(value=1)"]
    assert (app.run("seed=1", cluster="local").values, app.notes) == (["Score(value=1)"], ["start"])


# -- what a task finds around it ---------------------------------------------------------------------------------------

PACKAGE = {
    "own/__init__.py": "",
    "own/part.py": "class Score:\n    def __init__(self, value=0):\n        self.value = value\n",
    "own/table.yaml": "a: 1\n",
}


def copy(app: App) -> Path:
    """The one snapshot of an app."""
    (found,) = (app.cache / "code").glob("[!.]*")
    return found


def of_package(folder: Path, body: str, **how: str) -> App:
    return App(folder, body, files=PACKAGE, **how)  # type: ignore[arg-type]


def test_each_entry_shows_the_code_that_computed_it(tmp_path: Path) -> None:
    app = App(tmp_path, files={"model.py": ""}, head="import model\n")
    app.run("seed=1", cluster="local")
    app.write("model.py", "# edited\n")
    app.run("seed=2", cluster="local")
    links = [entry / "code" for entry in app.entries]
    assert [(link / "model.py").read_text() for link in links] == ["", "# edited\n"]
    assert not any(os.path.isabs(os.readlink(link)) for link in links)


Around = tuple[App, dict[str, Any]]
LOOKS_AROUND = """
score = hydra.utils.instantiate(cfg.score)
part_of_target = sys.modules["own.part"].__file__
import importlib, importlib.resources, pkgutil, subprocess, own.part
own.part.__file__ = "forgotten"
return {
    "working directory": os.getcwd(),
    "original directory": hydra.utils.get_original_cwd(),
    "absolute path of data": hydra.utils.to_absolute_path("data"),
    "text of data/numbers.txt": Path("data/numbers.txt").read_text(),
    "twice the seed": cfg.double,
    "score": score.value,
    "module of the score": part_of_target,
    "text of own/table.yaml": importlib.resources.files("own").joinpath("table.yaml").read_text(),
    "modules of own": [module.name for module in pkgutil.iter_modules(own.__path__)],
    "module after a reload": importlib.reload(own.part).__file__,
    "printed by a program": subprocess.check_output([sys.executable, "helper.py"], text=True),
}
"""


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Around:
    """An app, and what its task has found around it, in a job that imports a package from the copy."""
    app = of_package(
        tmp_path_factory.mktemp("around"),
        LOOKS_AROUND,
        config="seed: 1\ndouble: ${twice:${seed}}\nscore: {_target_: own.part.Score, value: 3}\n",
        head='from omegaconf import OmegaConf\nOmegaConf.register_new_resolver("twice", lambda x: 2 * x)\n',
    )
    app.write("data/numbers.txt", "1 2 3")
    app.write("helper.py", "import own.part, sys\nprint(own.part.__file__, sys.flags.safe_path)\n")
    (value,) = app.run("seed=2", cluster="local").values
    return app, value


def test_the_working_directory_of_a_job_is_that_of_the_launch(around: Around) -> None:
    app, found = around
    assert found["working directory"] == os.path.realpath(app.folder)


def test_hydras_original_directory_is_that_of_the_launch(around: Around) -> None:
    app, found = around
    assert (found["original directory"], found["absolute path of data"]) == (str(app.folder), f"{app.folder}/data")


def test_relative_paths_to_data_lead_where_they_did(around: Around) -> None:
    assert around[1]["text of data/numbers.txt"] == "1 2 3"


def test_resolvers_that_the_script_registers_are_there_in_a_job(around: Around) -> None:
    assert around[1]["twice the seed"] == 4


def test_a_target_of_the_config_is_of_the_copy(around: Around) -> None:
    app, found = around
    assert (found["score"], found["module of the score"]) == (3, str(copy(app) / "own/part.py"))


def test_the_files_of_a_copied_package_are_found_through_it(around: Around) -> None:
    assert (around[1]["text of own/table.yaml"], around[1]["modules of own"]) == ("a: 1\n", ["part"])


def test_a_reloaded_module_is_that_of_the_copy(around: Around) -> None:
    app, found = around
    assert found["module after a reload"] == str(copy(app) / "own/part.py")


def test_a_program_that_a_task_starts_is_run_as_without_a_copy(around: Around) -> None:
    app, found = around
    assert found["printed by a program"] == f"{app.folder}/own/part.py False\n"


@pytest.mark.parametrize("cluster", ["inline", "debug"])
def test_a_task_in_the_launching_process_imports_from_the_copy_what_is_not_imported_yet(
    tmp_path: Path, cluster: str
) -> None:
    app = of_package(tmp_path, "import own.part\nreturn own.part.__file__\n")
    assert app.run(cluster=cluster).values == [str(copy(app) / "own/part.py")]


CHDIR = "hydra.launcher.workdir.chdir=true"


@pytest.mark.parametrize("cluster", [*CLUSTERS, "inline"])
def test_with_chdir_the_copy_is_the_working_directory(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, "return [os.getcwd(), hydra.utils.get_original_cwd()]\n")
    result = app.run(CHDIR, cluster=cluster)
    assert result.values == [[str(copy(app)), str(tmp_path)]], result.text
    assert app.job(0).exists()


def test_with_chdir_a_launch_from_a_subfolder_runs_in_that_of_the_copy(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    app = App(tmp_path / "scripts", "return os.getcwd()\n")
    assert app.run(CHDIR, cluster="local").values == [str(copy(app) / "scripts")]


def test_with_chdir_of_hydra_too_a_task_runs_in_its_output_directory(tmp_path: Path) -> None:
    app = App(tmp_path, "return [os.getcwd(), HydraConfig.get().runtime.output_dir]\n")
    ((here, output),) = app.run(CHDIR, "hydra.job.chdir=true", cluster="local").values
    assert Path(here) == Path(output).resolve() == app.job(0).resolve()


def test_with_chdir_relative_sweep_folders_count_from_the_launch(tmp_path: Path) -> None:
    app = App(tmp_path, "Path(HydraConfig.get().runtime.output_dir, 'made').touch()\n")
    app.run(CHDIR, "hydra.sweep.dir=sweeps/first", cluster="local")
    assert (tmp_path / "sweeps/first/0/made").exists() and not list(copy(app).rglob("made"))


# -- what python does with modules -------------------------------------------------------------------------------------


def test_an_object_of_a_copied_class_is_the_same_in_the_next_launch(tmp_path: Path) -> None:
    body = "from own.part import Score\nnote('start')\nreturn Score(cfg.seed)\n"
    app = of_package(
        tmp_path, body, head="import own.part\nown.part.Score.__repr__ = lambda self: f'it is {self.value}'"
    )
    assert [app.run("seed=1", cluster="local").values for _ in range(2)] == [["it is 1"], ["it is 1"]]
    assert app.notes == ["start"]


def test_a_traceback_shows_the_lines_that_ran(tmp_path: Path) -> None:
    files = {"model.py": "def fail():\n    raise ValueError('as launched')\n"}
    body = "note('start')\nimport model\nwait_for('go')\nmodel.fail()\n"
    app = App(tmp_path, body, files=files)
    with app.start(cluster="local") as launch:
        wait_until(lambda: app.notes, "the task to run")
        app.write("model.py", "\n\n\n")
        app.write("go", "")
        (returned,) = launch.result().returns
    assert f'{copy(app)}/model.py", line 2, in fail\n    raise ValueError(' in returned["details"]["traceback"]


INNER = """
import pydantic
from hydra_exca import TaskInfra

class Inner(pydantic.BaseModel):
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> str:
        import own.part
        return own.part.__file__
"""


@pytest.mark.parametrize("cluster", ["null", "local"])
def test_a_task_of_a_task_imports_from_the_same_copy(tmp_path: Path, cluster: str) -> None:
    given = f"cluster={None if cluster == 'null' else cluster!r}"
    app = of_package(tmp_path, f"return Inner(infra=TaskInfra(folder='inner', {given})).fit()\n", head=INNER)
    assert app.run(cluster="local").values == [str(copy(app) / "own/part.py")]


def test_a_sweep_of_a_task_runs_the_code_that_is_there(tmp_path: Path) -> None:
    body = """
    import subprocess
    if cfg.seed == 1:
        command = [sys.executable, "train.py", "-m", "seed=2", "hydra/launcher=exca", "hydra/launcher/cluster=local"]
        subprocess.run(command, check=True, env={**os.environ, "RETURNS": "inner"})
    import own.part
    return own.part.__file__
    """
    app = of_package(tmp_path, body)
    (value,) = app.run("seed=1", cluster="local").values
    assert (tmp_path / "inner").read_text().count(value) == 1
