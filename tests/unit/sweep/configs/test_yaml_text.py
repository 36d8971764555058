"""Texts of configurations: the usual ones are those of OmegaConf and yaml, and any reads back as it was."""

from __future__ import annotations

import enum
import typing as tp
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as some
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_omega_conf_dumper

from hydra_exca.sweep.compose.composition import Composition, Template
from hydra_exca.sweep.configs import yaml_text
from hydra_exca.sweep.configs.tree import without_hydra


class Color(enum.Enum):
    RED = 1


ORDINARY = {
    "model": {"name": "resnet", "layers": [32, 32], "path": "${data.root}/out", "lr": 1e-05, "none": None},
    "data": {"root": "/data/x", "empty": {}, "list": [], "nested": [[1, 2], {"a": True}], "missing": "???"},
    "texts": ["1", "1e3", "y", "yes", "nan", "0x1f", "1_000", "", " ", "a: b", "#", "two\nlines", "é", "null", "1:30"],
    3: "a number as a key",
    "color": Color.RED,
}
_LEAVES = some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(max_size=100)
_KEYS = some.text(max_size=20)


@pytest.fixture
def ordinary() -> DictConfig:
    return OmegaConf.create(ORDINARY)


def config_yaml(config: DictConfig) -> str:
    return yaml_text.composition_yaml(Composition(Template(config)))


def test_an_ordinary_config_has_the_text_that_omegaconf_writes(ordinary: DictConfig) -> None:
    assert config_yaml(ordinary) == OmegaConf.to_yaml(ordinary)


def composed(values: dict[str, tp.Any], leaves: dict[tuple[tp.Any, ...], tp.Any] | None) -> Composition:
    template = Template(OmegaConf.create({**ORDINARY, "hydra": {"job": {"num": 0}}}))
    return Composition(template, tuple(values.items()), leaves=leaves)


@pytest.mark.parametrize(
    ("values", "leaves"),
    [
        ({}, {}),
        ({"model.name": "a: b"}, {("model", "name"): "a: b"}),
        ({"data.nested.1.a": 0.5}, {("data", "nested", 1, "a"): 0.5}),
        ({"color": Color.RED}, {("color",): Color.RED}),
        ({"model": {"name": "vit"}}, None),
    ],
    ids=["template", "value", "in-a-list", "enum", "container"],
)
def test_a_job_has_the_text_of_its_config(values: dict[str, tp.Any], leaves: dict[tuple[tp.Any, ...], tp.Any]) -> None:
    composition = composed(values, leaves)
    assert yaml_text.composition_yaml(composition) == OmegaConf.to_yaml(without_hydra(composition.config()))


def test_the_text_of_one_job_does_not_change_that_of_the_next() -> None:
    first = composed({}, {})
    before = yaml_text.composition_yaml(first)
    yaml_text.composition_yaml(Composition(first.template, (("model.lr", 7.0),), leaves={("model", "lr"): 7.0}))
    assert yaml_text.composition_yaml(first) == before


def test_ordinary_fields_have_the_text_that_yaml_writes() -> None:
    fields = {key: value for key, value in ORDINARY.items() if key != "color"}
    assert yaml_text.fields_yaml(fields) == yaml.safe_dump(fields, sort_keys=False)


@given(some.dictionaries(_KEYS, _LEAVES | some.lists(_LEAVES, max_size=3), max_size=4))
def test_any_config_reads_back_as_it_was(values: dict[str, tp.Any]) -> None:
    escaped = {key: value for key, value in values.items() if "$" not in str(value)}
    config = OmegaConf.create(escaped)
    assert OmegaConf.create(config_yaml(config)) == config


@given(some.recursive(_LEAVES, lambda inner: some.lists(inner, max_size=3) | some.dictionaries(_KEYS, inner)))
def test_any_fields_read_back_as_they_were(value: tp.Any) -> None:
    assert yaml.safe_load(yaml_text.fields_yaml(value)) == value


NO_UTF_8 = pytest.mark.hydra_13  # OmegaConf 2.4 cannot write it


@pytest.mark.parametrize(
    "text", ["é", pytest.param("caf\udcff", marks=NO_UTF_8), "\ufeff", "a\tb", "\x07", "😀", r"\U"]
)
def test_any_text_is_written_as_omegaconf_writes_it(text: str) -> None:
    config = OmegaConf.create({"a": text, "b": [text]})
    assert config_yaml(config) == OmegaConf.to_yaml(config)
    assert yaml_text.fields_yaml({"a": text}) == yaml.safe_dump({"a": text}, sort_keys=False)


@NO_UTF_8
def test_a_path_that_is_no_utf_8_is_written_as_omegaconf_writes_it() -> None:
    config = OmegaConf.create({"a": Path("/data/caf\udce9")})
    assert config_yaml(config) == OmegaConf.to_yaml(config)


def test_what_the_user_has_taught_yaml_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    known: tp.Any = get_omega_conf_dumper()
    for kind in (yaml.Dumper, known):
        monkeypatch.setattr(kind, "yaml_representers", dict(kind.yaml_representers))
        kind.add_representer(type(Path()), lambda dumper, path: dumper.represent_str(str(path)))
    config = OmegaConf.create({"a": Path("/data"), "hydra": {}})
    assert config_yaml(config) == "a: /data\n"
