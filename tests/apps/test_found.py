"""What testers found by using it: each was wrong once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from apps import App, is_one_message

MODEL = "\nimport pydantic\n\n\nclass Config(pydantic.BaseModel):\n    seed: int = 1\n    out: str = ''\n{more}\n"
TYPED = {"main": "hydra_exca.main", "argument": "Config"}


def typed(tmp_path: Path, config: str, more: str = "", body: str = "return cfg.out.rpartition('/')[2]") -> App:
    return App(tmp_path, config=config, head="import hydra_exca" + MODEL.format(more=more), body=body, **TYPED)


def test_a_launch_from_another_folder_says_where_the_project_has_its_results(tmp_path: Path) -> None:
    app = App(tmp_path / "project")
    app.run()
    elsewhere = App(tmp_path / "elsewhere")
    with elsewhere.start(script=["../project/train.py"]) as first:
        assert f"To use them: hydra.launcher.folder={app.cache}" in first.result().text
    with elsewhere.start(script=["../project/train.py"]) as again:
        assert "To use them" not in again.result().text  # it is not new any more


def test_a_folder_that_is_named_in_full_is_meant_so(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.run()
    assert "To use them" not in app.run(f"hydra.launcher.folder={tmp_path}/new").text


def test_a_typed_field_that_depends_on_the_run_does_not_hide_what_else_it_is_made_of(tmp_path: Path) -> None:
    app = typed(tmp_path, "seed: 1\nname: a\nout: ${hydra:runtime.output_dir}/${name}\n")
    assert app.run("name=a,b").values == ["a", "b"]


def test_a_typed_field_that_depends_on_the_run_is_found_again(tmp_path: Path) -> None:
    app = typed(tmp_path, "seed: 1\nname: a\nout: ${hydra:runtime.output_dir}/${name}\n")
    app.run("name=a,b")
    assert app.run("name=a,b", "hydra.sweep.dir=again").counts["cached"] == 2


def test_a_model_with_a_random_default_is_refused_by_the_fields_name(tmp_path: Path) -> None:
    more = "    token: str = pydantic.Field(default_factory=lambda: __import__('uuid').uuid4().hex)\n"
    result = typed(tmp_path, "seed: 1\n", more).run()
    assert is_one_message(result) and "token: is not deterministic" in result.stderr


def test_a_discriminated_field_can_be_left_out(tmp_path: Path) -> None:
    head = """import hydra_exca
import pydantic
from typing import Annotated, Literal


class Adam(pydantic.BaseModel):
    kind: Literal["adam"] = "adam"


class Sgd(pydantic.BaseModel):
    kind: Literal["sgd"] = "sgd"


class Config(pydantic.BaseModel):
    seed: int = 1
    opt: Annotated[Adam | Sgd, pydantic.Field(discriminator="kind")] = Adam()
"""
    app = App(tmp_path, config="seed: 1\nopt: {kind: adam}\n", head=head, body='note("start")\nreturn 1', **TYPED)
    app.run("opt.kind=adam,sgd", "hydra.launcher.exclude_from_uid=[opt]")
    assert app.notes == ["start"]


def test_allow_missing_holds_for_typed_functions_too(tmp_path: Path) -> None:
    app = typed(tmp_path, "seed: 1\nout: ???\n", body="return cfg.out")
    assert app.run("hydra.launcher.allow_missing=[out]").values == [""]


@pytest.mark.parametrize("pattern", ["sub", "sub.*", "*.out"])
def test_a_key_above_what_may_be_missing_is_enough_for_typed_functions_too(tmp_path: Path, pattern: str) -> None:
    head = "import hydra_exca\nimport pydantic\n\n\nclass Sub(pydantic.BaseModel):\n    out: str = 'own'\n\n\n"
    head += "class Config(pydantic.BaseModel):\n    seed: int = 1\n    sub: Sub = Sub()\n"
    app = App(tmp_path, config="seed: 1\nsub:\n  out: ???\n", head=head, body="return cfg.sub.out", **TYPED)
    assert app.run(f"hydra.launcher.allow_missing=['{pattern}']").values == ["own"]


def test_structured_configs_of_different_classes_are_different_tasks(tmp_path: Path) -> None:
    head = """from dataclasses import dataclass
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf


@dataclass
class Adam:
    lr: float = 0.1


@dataclass
class Sgd:
    lr: float = 0.1


ConfigStore.instance().store(group="opt", name="adam", node=Adam)
ConfigStore.instance().store(group="opt", name="sgd", node=Sgd)
"""
    body = "return type(OmegaConf.to_object(cfg.opt)).__name__"
    app = App(tmp_path, config="defaults: [{opt: adam}]\n", head=head, body=body)
    assert app.run("opt=adam,sgd").values == ["Adam", "Sgd"]


def test_versions_that_look_like_one_number_are_two(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.run("hydra.launcher.version=1.1")
    assert app.run("hydra.launcher.version=1.10").counts["run"] == 1


@pytest.mark.parametrize("first", ["true", "false"])
def test_with_and_without_links_in_one_sweep_folder_every_output_stays_its_own(tmp_path: Path, first: str) -> None:
    body = """Path(HydraConfig.get().runtime.output_dir, "mine").write_text(str(cfg.seed))
return cfg.seed"""
    app = App(tmp_path, body=body)
    second = "false" if first == "true" else "true"
    for seeds, link in (("1,2", first), ("1,2", second), ("5,1", first), ("2,1", second)):
        result = app.run(f"seed={seeds}", "hydra.sweep.dir=mr", f"hydra.launcher.link_outputs={link}")
        assert result.returncode == 0, result.text
    for row in json.loads((tmp_path / "mr" / "sweep.json").read_text()):
        assert Path(row["output"], "mine").read_text() == row["overrides"][0].removeprefix("seed=")


def test_an_empty_folder_option_is_the_default_one(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.run("hydra.launcher.folder=")
    assert (tmp_path / "exca" / "CACHEDIR.TAG").exists() and not (tmp_path / "CACHEDIR.TAG").exists()


def test_the_loggers_of_the_script_are_called_main_in_jobs(tmp_path: Path) -> None:
    head = "import logging\nlog = logging.getLogger(__name__)"
    app = App(tmp_path, head=head, body='log.debug("told")\nreturn log.name')
    result = app.run("hydra.verbose=[__main__]", cluster="local")
    assert result.values == ["__main__"] and "told" in (app.entries[0] / "output" / "train.log").read_text()
