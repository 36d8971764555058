"""Tuples of OmegaConf 2.4: they count and travel as lists do, and stay tuples."""

from __future__ import annotations

import dataclasses
import typing as tp

import omegaconf
import pytest
from hydra.conf import HydraConf
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict

from hydra_exca.identity.uid import canonical, encode
from hydra_exca.sweep.compose.composition import Composition, Template
from hydra_exca.sweep.configs import tree, yaml_text
from hydra_exca.sweep.configs.overlay import JobVariant
from hydra_exca.sweep.job import pins
from hydra_exca.sweep.resolve import resolve

pytestmark = [
    pytest.mark.usefixtures("hydra_restore_singletons"),
    pytest.mark.hydra_14,  # OmegaConf 2.3 makes lists of tuples
]
SIZE = "${oc.decode:${oc.env:SZ}}"


@dataclasses.dataclass
class Inner:
    size: tp.Any = 3


@dataclasses.dataclass
class Field:
    value: tp.Any = None


@dataclasses.dataclass
class Pair(Field):
    value: tuple[int, int] = (0, SIZE)  # type: ignore[assignment]


@dataclasses.dataclass
class Pairs(Field):
    value: list[tuple[int, ...]] = dataclasses.field(default_factory=lambda: [(1,), (2, SIZE)])  # type: ignore[list-item]


@dataclasses.dataclass
class ByName(Field):
    value: dict[str, tuple[int, int]] = dataclasses.field(default_factory=lambda: {"a": (0, SIZE)})  # type: ignore[dict-item]


@dataclasses.dataclass
class OneOf(Field):
    value: str | tuple[int, int] = (0, "${size}")  # type: ignore[assignment]  # resolvers do not work in unions


@dataclasses.dataclass
class OfConfigs(Field):
    value: tuple[Inner, ...] = (Inner(1), Inner(SIZE))


@dataclasses.dataclass
class OneOfConfigs(Field):
    value: Inner | Pair = dataclasses.field(default_factory=Pair)


FIELDS: dict[str, tp.Any] = {
    "a typed tuple": OmegaConf.structured(Pair) if hasattr(omegaconf, "TupleConfig") else None,
    "tuples in a list": Pairs(),
    "tuples in a dict": ByName(),
    "a tuple in a union": OneOf(),
    "configs in a tuple": OfConfigs(),
    "a config in a union": OneOfConfigs(),
    "a plain tuple": {"value": (0, SIZE)},
    "a tuple in a tuple": {"value": (0, (1, SIZE))},
    "a dict in a tuple": {"value": ({"a": SIZE},)},
    "a tuple in a plain list": {"value": [(0, SIZE)]},
}


@pytest.fixture(autouse=True)
def resolvers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SZ", "7")
    setup_globals()


def composed(task: tp.Any, **more: tp.Any) -> DictConfig:
    config = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    with open_dict(config):
        config.field = task
        for key, value in {"size": SIZE, **more}.items():
            config[key] = value
    hydra = config.hydra
    hydra.run.dir, hydra.sweep.dir, hydra.sweep.subdir = "outputs", "multirun", "0"
    hydra.job.num, hydra.job.id, hydra.runtime.cwd = 0, "0", "/"
    return config


def resolve_one(config: DictConfig) -> resolve.Resolved:
    return resolve.resolve_all(config, [JobVariant()])[0]


def identity(config: DictConfig) -> bytes:
    return encode(canonical(resolve_one(config).identity))


def field_identity(config: DictConfig) -> bytes:
    resolved = resolve_one(config)
    assert not resolved.problems
    return encode(canonical([resolved.identity["field"], resolved.identity.get("link")]))


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("reached", [False, True], ids=["itself", "by an interpolation"])
def test_a_variable_in_a_tuple_counts(name: str, reached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"link": "${field.value}"} if reached else {}
    before = field_identity(composed(FIELDS[name], **more))
    assert field_identity(composed(FIELDS[name], **more)) == before
    monkeypatch.setenv("SZ", "8")
    assert field_identity(composed(FIELDS[name], **more)) != before


@pytest.mark.parametrize("name", FIELDS)
def test_the_job_gets_what_was_hashed_in_a_tuple(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed(FIELDS[name], link="${field.value}")
    resolved = resolve_one(config)
    job = tree.without_hydra(config)
    types = str(nodes_types(job))
    pins.put_pins(job, resolved.pins)
    monkeypatch.setenv("SZ", "8")
    assert tree.to_resolved(job) == resolved.values
    assert "7" in str(resolved.values) and str(nodes_types(job)) == types


def nodes_types(value: tp.Any) -> tp.Any:
    if not OmegaConf.is_config(value):
        return None
    keys = list(value) if OmegaConf.is_dict(value) else range(len(value))
    return [type(value), OmegaConf.get_type(value), {key: nodes_types(value[key]) for key in keys}]


def test_a_time_in_a_tuple_is_of_the_run() -> None:
    config = composed({"value": (1, "${now:%f}"), "other": (1, ("${hydra:runtime.output_dir}",))})
    assert identity(config) == identity(config)
    assert "~run" in str(canonical(resolve_one(config).identity))


def test_a_tuple_has_the_identity_and_the_text_of_a_list() -> None:
    one = composed({"value": (1, (2, {"a": (3,)})), "link": "${.value}"})
    other = composed({"value": [1, [2, {"a": [3]}]], "link": "${.value}"})
    assert identity(one) == identity(other)
    assert dict(tree.structured_classes(one)) == dict(tree.structured_classes(other)) == {}
    texts = [yaml_text.composition_yaml(Composition(Template(config))) for config in (one, other)]
    assert texts[0] == texts[1] == OmegaConf.to_yaml(tree.without_hydra(one))


def test_the_values_keep_their_tuples() -> None:
    config = composed({"value": (1, [SIZE], (2,)), "link": "${.value}"})
    assert resolve_one(config).values["field"] == {"value": (1, [7], (2,)), "link": (1, [7], (2,))}


def test_configs_in_tuples_and_unions_count_by_their_classes() -> None:
    config = composed(OfConfigs(), other=OneOfConfigs())
    kinds = {tree.dotted(path): kind.rpartition(":")[2] for path, kind in tree.structured_classes(config)}
    assert kinds == {
        "field": "OfConfigs",
        "field.value.0": "Inner",
        "field.value.1": "Inner",
        "other": "OneOfConfigs",
        "other.value": "Pair",
    }


def test_what_refers_to_a_missing_value_is_missing_where_all_is_resolved() -> None:
    config = OmegaConf.create({"b": "???", "a": ("${b}", [1, "${b}"]), "c": {"d": "${b}"}, "e": 5})
    assert tree.to_resolved(config) == {"b": "???", "a": ("???", [1, "???"]), "c": {"d": "???"}, "e": 5}
