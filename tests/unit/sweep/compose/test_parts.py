"""The parts that composing from templates is made of; that the whole equals Hydra is in test_compose.py."""

from __future__ import annotations

import itertools
import typing as tp

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from hydra_exca.sweep.compose import hydra_private
from hydra_exca.sweep.configs.overlay import ConfigOverlay, JobVariant, LeafSlot
from hydra_exca.sweep.configs.tree import leaves_of
from hydra_exca.sweep.resolve.dependence import Dependence

KEYS = ["a", "a.b", "_a._b", "A1.b2", "null", "true.x", "hydra.x", "a.0", "a-b", "+a", "~a", "a@b"]
NUMBERS = ["1", "-1", "0", "-0", "+1", "007", "1_000", "1e5", "0x1", "inf", "-inf", "Inf"]
WORDS = ["", "a", "_", "a1", "_1", "a__b", "a-b", "é", "x.y", "null", "Null", "true", "FALSE", "'q'"]
VALUES = [*NUMBERS, *WORDS, "[1]", "{a:1}", "${b}", "1,2", "range(3)", "int(3)"]


@pytest.mark.parametrize("key", KEYS)
def test_an_override_is_parsed_as_hydra_does_it(key: str) -> None:
    for value in VALUES:
        assert _or_error(hydra_private.parse_overrides, f"{key}={value}") == _or_error(
            _parsed_by_hydra, f"{key}={value}"
        )


def test_not_a_number_is_one_for_both() -> None:
    ours, theirs = hydra_private.parse_overrides("a=nan").value(), _parsed_by_hydra("a=nan").value()
    assert type(ours) is type(theirs) is float
    assert ours != ours


def _parsed_by_hydra(line: str) -> tp.Any:
    return OverridesParser.create().parse_overrides([line])[0]


def _or_error(parse: tp.Callable[[str], tp.Any], line: str) -> tuple[tp.Any, ...]:
    try:
        override = parse(line)
    except Exception as error:  # noqa: BLE001 - whatever Hydra raises
        return type(error), str(error)
    return override, type(override.value())


TREE: dict[str, tp.Any] = {
    "seed": 0,
    "lr": 0.1,
    "model": {"name": "a", "seed": "${seed}", "near": "${.name}", "up": "${..lr}"},
    "list": [1, "${lr}"],
    "all": "${model}",
}


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        ("${lr}-${model.name}", True),
        ("${seed}", False),
        ("${model.seed}", False),
        ("${model.near}", True),
        ("${model.up}", True),
        ("${model}", False),
        ("${all.name}", False),
        ("${list}", True),
        ("${list.1}", True),
        ("${now:%H}", True),
        ("${now:${seed}}", False),
        ("${hydra:job.num}", False),
        ("${mine:}", False),
        ("${oc.env:HOME,none}", True),
        ("${oc.env:HOME,${seed}}", False),
        ("${model.${all.name}}", False),
        ("\\${seed} ${lr}", False),
        ("${nothing.there}", True),
        ("${list[1]}", False),
    ],
)
def test_a_text_says_whether_it_can_read_a_key(text: str, apart: bool) -> None:
    leaves = dict(leaves_of({**TREE, "x": text}))
    dependence = Dependence(leaves, lambda name, arguments: name in ("now", "oc.env"))
    assert dependence.is_independent(("x",), {("seed",)}) == apart


def test_nothing_is_told_of_a_config_with_keys_that_read_alike() -> None:
    leaves = {("d", 1): "${seed}", ("d", "1"): "a", ("seed",): 1}
    assert not Dependence(leaves, lambda name, arguments: False).is_independent(("d", 1), {("seed",)})


def test_a_circle_of_texts_ends() -> None:
    leaves = {("a",): "${b}", ("b",): "${a}", ("c",): 1}
    assert Dependence(leaves, lambda name, arguments: False).is_independent(("a",), {("c",)})


@pytest.mark.parametrize("changed", list(itertools.permutations([("a",), ("b", "c"), ("d", 1)], 2)))
def test_a_config_is_shown_as_one_job_after_the_other(changed: tuple[tuple[tp.Any, ...], ...]) -> None:
    variants = ConfigOverlay(_config())
    first, second = (JobVariant({path: 9}, number=3, lines=("a=9",), dirname="a=9") for path in changed)
    shown = OmegaConf.to_container(variants.show_job(first), resolve=False)
    assert dict(leaves_of(shown))[changed[0]] == 9
    again = dict(leaves_of(OmegaConf.to_container(variants.show_job(second), resolve=False)))
    before = dict(leaves_of(OmegaConf.to_container(_config(), resolve=False)))
    assert again[changed[0]] == before[changed[0]]
    assert (again["hydra", "job", "num"], again["hydra", "overrides", "task", 0]) == (3, "a=9")


def test_jobs_may_have_different_numbers_of_overrides() -> None:
    variants = ConfigOverlay(_config())
    for lines in (("a=1",), ("a=1", "b.c=2"), (), ("a=2", "b.c=3")):
        config = variants.show_job(JobVariant(lines=lines))
        assert config.hydra.overrides.task == list(lines)


@pytest.mark.parametrize("path", [("b",), ("d",), ("e", "x"), ("f",), ("b", "x"), ("d", 7), ("a", "x")])
def test_what_is_no_leaf_of_its_own_has_no_slot(path: tuple[tp.Any, ...]) -> None:
    assert LeafSlot.at(_config(), path) is None


def _config() -> DictConfig:
    job = {"num": None, "id": None, "override_dirname": ""}
    hydra = {"job": job, "overrides": {"task": []}}
    tree = {"a": 1, "b": {"c": 2}, "d": [3, 4], "e": "${b}", "f": {}, "hydra": hydra}
    return OmegaConf.create(tree)
