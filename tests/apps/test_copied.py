"""Which code a sweep copies: the script whatever is named, what configs lead to, and nothing where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from apps import App, wait_until
from places import SUPPORT
from repositories import git

WAITING = """
note("start", cfg.seed)
if cfg.seed == 1:
    wait_for("go")
return "launched"
"""
ONE_AT_A_TIME = "hydra.launcher.array_parallelism=1"


def test_the_script_is_copied_whatever_else_is_named(tmp_path: Path) -> None:
    app = App(tmp_path, WAITING, files={"lib.py": ""})
    with app.start("seed=1,2", ONE_AT_A_TIME, "hydra.launcher.workdir.copied=[lib.py]", cluster="local") as launch:
        wait_until(lambda: app.notes, "the first task to run")
        app.write_script(WAITING.replace("launched", "edited"))
        app.write("go", "")
        assert launch.result().values == ["launched", "launched"]


def test_a_script_in_a_package_of_which_another_part_is_named_is_copied_too(tmp_path: Path) -> None:
    """In the copy it is not in a package, but it still is what the launch calls ``__main__``."""
    app = App(tmp_path, files={"src/__init__.py": "", "src/lib/one.py": ""})
    app.write_script("return __file__", name="src/train.py")
    app.write("src/train.py", (tmp_path / "src/train.py").read_text().replace('"conf"', '"../conf"'))
    named = "hydra.launcher.workdir.copied=[src/lib]"
    (value,) = app.run("seed=1", named, cluster="local", script=["src/train.py"]).values
    assert Path(value).is_relative_to(app.cache / "code")


def test_a_script_under_a_profiler_is_copied_too(tmp_path: Path) -> None:
    app = App(tmp_path, "import lib\nreturn lib.__file__\n", files={"lib.py": ""})
    result = app.run(script=("-m", "cProfile", "-o", "profile", "train.py"), cluster="local")
    assert [Path(value).is_relative_to(app.cache / "code") for value in result.values] == [True]


@pytest.fixture
def choosing(tmp_path: Path) -> tuple[App, dict[str, str]]:
    """An app whose config chooses one of two modules outside of its project, and the environment that leads to them.

    Neither is imported by the script.
    """
    files = {f"conf/model/{name}.yaml": f"_target_: {name}.where\n" for name in ("one", "two")}
    modules = {f"../outside/{name}.py": "def where():\n    return __file__\n" for name in ("one", "two")}
    body = "from hydra.utils import instantiate\nreturn instantiate(cfg.model)\n"
    app = App(tmp_path / "app", body, config="defaults: [{model: one}]\nseed: 1\n", files={**files, **modules})
    path = [str(tmp_path / "outside"), str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return app, {"PYTHONPATH": os.pathsep.join(path)}


def test_what_the_config_of_any_job_leads_to_is_copied(choosing: tuple[App, dict[str, str]]) -> None:
    app, env = choosing
    result = app.run("model=one,two", cluster="local", env=env)
    assert [Path(value).is_relative_to(app.cache / "code") for value in result.values] == [True, True]


def test_another_choice_of_models_is_no_other_code(choosing: tuple[App, dict[str, str]]) -> None:
    app, env = choosing
    app.run("model=one", cluster="local", env=env)
    again = app.run("model=one,two", "hydra.launcher.on_code_change=error", cluster="local", env=env)
    assert [Path(value).name for value in again.values] == ["one.py", "two.py"]


def test_the_config_files_of_later_batches_are_those_of_the_first(tmp_path: Path) -> None:
    body = """
    note("start", cfg.seed)
    Path("conf/config.yaml").write_text("seed: 1\\nlr: edited\\n")
    return cfg.lr
    """
    app = App(tmp_path, body, config="seed: 1\nlr: launched\n")
    result = app.run("seed=1,2", "hydra.sweeper.max_batch_size=1", cluster="local")
    assert result.values == ["launched", "launched"]


@pytest.fixture
def ignoring(tmp_path: Path) -> App:
    """An app with a config that git ignores: optional, and of which only some machines have one."""
    config = """
    defaults: [{g: a}, {optional local: default}, _self_]
    cd: ${hydra:runtime.config_sources.1.path}
    """
    groups = {f"conf/g/{name}.yaml": f"v: {name}\n" for name in "abc"}
    local = {"conf/local/default.yaml": "# @package _global_\nsecret: mine\n", ".gitignore": "/conf/local/\n"}
    body = """
    Path("conf/g/c.yaml").write_text("v: edited")
    return [cfg.g.v, cfg.get("secret"), str(Path(cfg.cd).relative_to(Path.cwd()))]
    """
    app = App(tmp_path, body, config=config, files={**groups, **local})
    git(tmp_path, "init", "-q")
    return app


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_later_batches_have_the_configs_that_git_ignores_too(ignoring: App, cluster: str) -> None:
    result = ignoring.run("g=a,b,c", "hydra.sweeper.max_batch_size=1", cluster=cluster)
    assert result.values == [[name, "mine", "conf"] for name in "abc"]


def test_later_batches_have_the_configs_of_a_search_path_that_were_launched(tmp_path: Path) -> None:
    config = "defaults: [{g: a}]\nhydra: {searchpath: [file://more]}\n"
    body = "Path('more/g/b.yaml').write_text('v: edited')\nreturn cfg.g.v\n"
    app = App(tmp_path, body, config=config, files={f"more/g/{name}.yaml": f"v: {name}\n" for name in "ab"})
    result = app.run("g=a,b", "hydra.sweeper.max_batch_size=1", "hydra.launcher.workdir.copied=[more]", cluster="local")
    assert result.values == ["a", "b"]


def test_a_yaml_beside_the_script_is_code_where_configs_are_beside_it_too(tmp_path: Path) -> None:
    app = App(tmp_path, "return Path(__file__).with_name('vocab.yaml').read_text()\n")
    app.write("vocab.yaml", "a: 1")
    app.write("config.yaml", "seed: 1")
    script = tmp_path / "train.py"
    script.write_text(script.read_text().replace('config_path="conf"', 'config_path="."'))
    app.run(cluster="local")
    app.write("vocab.yaml", "a: 2")
    result = app.run("hydra.launcher.on_code_change=rerun", cluster="local")
    assert result.values == ["a: 2"]


def test_a_task_whose_copy_is_gone_has_not_failed_and_runs_with_the_same_command(tmp_path: Path) -> None:
    app = App(tmp_path, WAITING, files={"lib.py": ""})
    with app.start("seed=1,2", ONE_AT_A_TIME, cluster="local") as launch:
        wait_until(lambda: app.notes, "the first task to run")
        os.rename(app.cache / "code", app.cache / "gone")
        app.write("go", "")
        result = launch.result()
    assert result.statuses == ["COMPLETED", "FAILED"]
    assert "code that this job was launched with, is gone: launch it again. Nothing is stored" in result.text
    assert "the same command runs what failed" in result.text
    assert "1 reused, 1 computed" in app.run("seed=1,2", cluster="local").text


def test_a_program_without_a_file_is_not_copied_and_that_is_said(tmp_path: Path) -> None:
    app = App(tmp_path)
    program = "import hydra\n@hydra.main(version_base='1.3', config_path=None)\ndef train(cfg): print('ran')\ntrain()\n"
    result = app.run(script=("-c", program), cluster="inline")
    assert "ran" in result.stdout and "no code was found that jobs could run from" in result.stderr
