"""All tasks are checked before any runs, and one message lists what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from apps import App, Result, is_one_message

MODEL = "import pydantic\nclass Config(pydantic.BaseModel):\n    seed: int\n    name: str = 'x'\n"
DATACLASS = "import dataclasses\n@dataclasses.dataclass\nclass Config:\n    seed: int = 0\n    name: str = 'x'\n"
PLAIN = 'note("start", type(cfg).__name__, cfg.seed)\nreturn 10 * cfg.seed\n'
CONFIG = "seed: 1\nname: x\n"


def received(folder: Path, body: str = PLAIN, **how: str) -> App:
    """An app whose function is handed the validated model."""
    head = f"import hydra_exca\n{MODEL}"
    return App(folder, body, config=CONFIG, **{"head": head, "argument": "Config", "main": "hydra_exca.main", **how})  # type: ignore[arg-type]


def assert_two_problems(result: Result, app: App) -> None:
    assert is_one_message(result), result.text
    assert "2 of 3 tasks have an invalid configuration; nothing was submitted" in result.stderr
    for seed in ("abc", "xyz"):
        assert re.search(rf"\n    seed: .*'{seed}'\)\n      with seed={seed}\n", result.stderr), result.stderr
    assert (app.notes, app.entries) == ([], [])


@pytest.mark.parametrize(
    ("head", "argument", "option"),
    [
        pytest.param("", "DictConfig", "hydra.launcher.schema=schemas.Config", id="option"),
        pytest.param(MODEL, "DictConfig", "hydra.launcher.schema=train.Config", id="option-in-the-script"),
        pytest.param(MODEL, "Config", None, id="annotated-model"),
        pytest.param(DATACLASS, "Config", None, id="annotated-dataclass"),
    ],
)
def test_two_wrong_values_are_two_problems_of_one_message(
    tmp_path: Path, head: str, argument: str, option: str | None
) -> None:
    app = App(tmp_path, PLAIN, config=CONFIG, head=head, argument=argument, files={"schemas.py": MODEL})
    assert_two_problems(app.run("seed=abc,1,xyz", *filter(None, [option]), cluster="local"), app)


def test_hydra_exca_main_is_validated_before_anything_runs(tmp_path: Path) -> None:
    app = received(tmp_path)
    assert_two_problems(app.run("seed=abc,1,xyz", cluster="local"), app)


@pytest.mark.parametrize("head", [pytest.param(MODEL, id="model"), pytest.param(DATACLASS, id="dataclass")])
def test_a_plain_function_gets_its_dictconfig_though_it_is_annotated(tmp_path: Path, head: str) -> None:
    app = App(tmp_path, PLAIN, config=CONFIG, head=head, argument="Config")
    assert app.run("seed=1,2").values == [10, 20]
    assert app.notes == ["start DictConfig 1", "start DictConfig 2"]


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"multirun": False, "launcher": None}, id="single-run"),
        pytest.param({"launcher": "basic"}, id="basic"),
        pytest.param({"launcher": "submitit_local"}, id="submitit"),
        pytest.param({"cluster": "inline"}, id="inline"),
        pytest.param({"cluster": "local"}, id="local"),
        pytest.param({"cluster": "slurm"}, id="slurm", marks=pytest.mark.slurm),
    ],
)
def test_hydra_exca_main_hands_the_function_the_model(tmp_path: Path, how: dict[str, object]) -> None:
    app = received(tmp_path)
    result = app.run("seed=2", **how)
    assert (app.notes, result.returncode) == (["start Config 2"], 0), result.text


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"multirun": False, "launcher": None}, id="single-run"),
        pytest.param({"launcher": "basic"}, id="basic"),
    ],
)
def test_without_our_launcher_a_wrong_value_is_the_same_message(tmp_path: Path, how: dict[str, object]) -> None:
    app = received(tmp_path)
    result = app.run("seed=abc", **how)
    assert is_one_message(result), result.text
    assert re.search(r"\n    seed: Input should be a valid integer.*\n      with seed=abc\n", result.stderr)
    assert app.notes == []


def test_a_model_and_a_schema_option_are_both_held(tmp_path: Path) -> None:
    strict = "import pydantic\nclass Config(pydantic.BaseModel):\n    seed: int = pydantic.Field(lt=3)\n"
    app = received(tmp_path)
    app.write("schemas.py", strict)
    result = app.run("seed=1,5", "hydra.launcher.schema=schemas.Config")
    assert is_one_message(result)
    assert "\n    seed: Input should be less than 3 (given: 5)\n      with seed=5\n" in result.stderr


def test_a_nested_problem_is_told_by_its_dotted_key(tmp_path: Path) -> None:
    head = "import pydantic\nclass Optim(pydantic.BaseModel):\n    lr: float\n\n"
    head += "class Config(pydantic.BaseModel):\n    optim: Optim\n    layers: list[int]\n"
    app = App(tmp_path, config="optim: {lr: fast}\nlayers: [1, two]\n", head=head, argument="Config")
    result = app.run()
    assert is_one_message(result)
    assert "optim.lr: " in result.stderr and "layers.1: " in result.stderr


# -- without a model ---------------------------------------------------------------------------------------------------


def test_a_value_that_is_left_missing_is_an_error_with_its_key(tmp_path: Path) -> None:
    app = App(tmp_path, config='seed: ???\nmodel: {width: "???"}\n')
    result = app.run("seed=1,2")
    assert is_one_message(result) and result.stderr.count("model.width: ") == 1
    assert app.notes == []


def test_a_missing_value_that_is_allowed_is_left_to_the_script(tmp_path: Path) -> None:
    body = (
        'note("start", cfg.seed)\nimport omegaconf\nassert omegaconf.OmegaConf.is_missing(cfg.model, "width")\nreturn 1'
    )
    app = App(tmp_path, body, config='seed: 1\nmodel: {width: "???"}\n')
    result = app.run("seed=1,2", "hydra.launcher.allow_missing=[model.width]")
    assert result.values == [1, 1], result.text


def test_a_config_that_does_not_compose_is_one_of_the_problems(tmp_path: Path) -> None:
    files = {"conf/model/small.yaml": "width: 1\n"}
    app = App(tmp_path, config="defaults: [model: small, _self_]\nseed: 1\n", files=files)
    result = app.run("model=small,huge", "seed=1")
    assert is_one_message(result) and "huge" in result.stderr
    assert app.notes == []


def test_a_plain_run_of_a_config_with_a_number_as_a_key_is_validated(tmp_path: Path) -> None:
    app = App(tmp_path, PLAIN, config="seed: 1\n1: one\n", head=MODEL, argument="Config")
    result = app.run("hydra/callbacks=exca", "seed=abc", launcher=None, multirun=False)
    assert is_one_message(result) and "seed: Input should be a valid integer" in result.stderr and app.notes == []


ABSENT = "seed: 1\nopt: {rate: '${special.rate}', scale: '${ten:1}'}\n"
USES = """from omegaconf import OmegaConf
OmegaConf.register_new_resolver("ten", lambda x: 10 * x, replace=True)
return cfg.seed * cfg.opt.scale
"""


@pytest.mark.parametrize("cluster", ["inline", "local", pytest.param("slurm", marks=pytest.mark.slurm)])
def test_what_refers_to_nothing_stops_no_function_that_does_not_read_it(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, USES, config=ABSENT)
    result = app.run("seed=1,2", cluster=cluster)
    assert result.values == [10, 20] == app.run("seed=1,2", launcher=None).values, result.text
    assert (
        result.text.count("opt.rate: ${special.rate} does not resolve: Interpolation key 'special.rate' not found") == 1
    )
    again = app.run("seed=1,2", cluster=cluster)
    assert again.values == [10, 20] and "2 reused" in again.text
    assert "1 to run" in app.run("seed=1", "opt.rate=${special.other}", cluster=cluster).text


def test_what_refers_to_nothing_stops_a_model(tmp_path: Path) -> None:
    model = MODEL.replace("name: str", "opt: dict\n    name: str")
    app = received(tmp_path, head=f"import hydra_exca\n{model}")
    app.write("conf/config.yaml", ABSENT)
    result = app.run("seed=1,2")
    assert is_one_message(result) and "opt.rate: ${special.rate} does not resolve" in result.stderr


def test_an_unset_variable_stops_a_sweep_unless_it_may_be(tmp_path: Path) -> None:
    app = App(tmp_path, "return cfg.seed", config="seed: 1\ndata: ${oc.env:NO_SUCH_VARIABLE}\n")
    refused = app.run("seed=1,2")
    assert is_one_message(refused) and "hydra.launcher.node_env" in refused.stderr and app.entries == []
    result = app.run("seed=1,2", "hydra.launcher.on_unresolved=warn")
    assert result.values == [1, 2] and "data: ${oc.env:NO_SUCH_VARIABLE} does not resolve" in result.text


def test_what_refers_to_an_allowed_missing_value_is_missing_for_the_model_too(tmp_path: Path) -> None:
    model = "class Config(pydantic.BaseModel):\n    seed: int\n    a: int = 5\n    b: int = 6\n"
    head = f"import hydra_exca, pydantic\n{model}"
    config = "seed: 1\na: ${b}\nb: ???\n"
    app = App(tmp_path, "return [cfg.a, cfg.b]", config=config, head=head, main="hydra_exca.main", argument="Config")
    assert app.run("hydra.launcher.allow_missing=[b]").values == [[5, 6]]
    assert "b: " in app.run().stderr
