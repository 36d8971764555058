"""The classes of structured configs: where they are found, and that no two places have one name."""

from __future__ import annotations

import dataclasses
import itertools
import typing as tp

import pytest
from omegaconf import DictConfig, OmegaConf

from hydra_exca.sweep.configs.tree import structured_classes
from hydra_exca.sweep.identity import _merge_fields, _path_text


@dataclasses.dataclass
class Crop:
    size: int = 1


@dataclasses.dataclass
class Root:
    size: int = 1
    inner: Crop = dataclasses.field(default_factory=Crop)


def places(config: tp.Any) -> dict[tuple[tp.Any, ...], str]:
    made: DictConfig = OmegaConf.structured(config) if isinstance(config, Root) else OmegaConf.create(config)
    return {path: kind.rpartition(":")[2] for path, kind in structured_classes(made)}


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"a": {"b": 1}}, {}),
        ({"a": Crop()}, {("a",): "Crop"}),
        ({"a": [1, Crop()]}, {("a", 1): "Crop"}),
        ({"a": [[Crop()]]}, {("a", 0, 0): "Crop"}),
        ({1: Crop(), "a.b": Crop()}, {(1,): "Crop", ("a.b",): "Crop"}),
        ({"a": Crop(), "b": "${a}"}, {("a",): "Crop", ("b",): "Crop"}),
        ({"a": Crop(), "b": ["${c}"], "c": "${a}"}, {("a",): "Crop", ("b", 0): "Crop", ("c",): "Crop"}),
        ({"a": {"b": "${a}", "c": Crop()}}, {("a", "c"): "Crop"}),
        ({"a": None, "b": "???", "c": "${nothing}", "d": "${oc.env:NOT_SET}"}, {}),
        (Root(), {(): "Root", ("inner",): "Crop"}),
    ],
)
def test_classes_are_found_wherever_they_stand(config: tp.Any, found: dict[tuple[tp.Any, ...], str]) -> None:
    assert places(config) == found


def test_what_is_of_hydra_is_not_of_the_task() -> None:
    assert places({"hydra": Crop(), "a": {"hydra": Crop()}}) == {("a", "hydra"): "Crop"}


def test_every_place_has_a_name_of_its_own() -> None:
    parts: list[tp.Any] = ["a", "b", "a.b", "1", 1, True, "True", "", None]
    paths = [path for length in (0, 1, 2) for path in itertools.product(parts, repeat=length)]
    distinct = {tuple((type(key), key) for key in path) for path in paths}
    assert len({_path_text(path) for path in paths}) == len(distinct)


def test_the_usual_place_is_named_with_dots() -> None:
    assert _path_text(("a", "b", 0)) == "a.b.0"


def test_what_is_ours_in_an_identity_takes_the_place_of_no_key_of_the_user() -> None:
    assert _merge_fields({"hydra.types": 1}, {"hydra.types": 2}) == {"hydra.types": 1, "hydra.types'": 2}
