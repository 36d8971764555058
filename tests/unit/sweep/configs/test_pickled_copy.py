"""Copies of objects: equal, apart, and of the same classes."""

from __future__ import annotations

import sys

import pytest
from omegaconf import OmegaConf

from hydra_exca.sweep.configs.pickled_copy import PickledCopy


class Named:
    pass


def test_a_copy_is_equal_and_its_takers_own() -> None:
    value = {"a": [1, {"b": 2}]}
    frozen = PickledCopy(value)
    frozen.copy()["a"].append(3)
    assert frozen.copy() == value


def test_what_becomes_of_the_original_is_not_in_the_copies() -> None:
    value = [1]
    frozen = PickledCopy(value)
    value.append(2)
    assert frozen.copy() == [1]


def test_a_class_that_no_name_leads_to_is_the_same_in_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Named
    monkeypatch.setattr(sys.modules[__name__], "Named", type("Named", (), {"__module__": __name__}))
    assert type(PickledCopy(first()).copy()) is first


def test_a_class_of_a_module_that_is_gone_is_the_same_in_a_copy() -> None:
    kind = type("Kind", (), {"__module__": "gone"})
    assert PickledCopy([kind]).copy()[0] is kind


def test_a_function_without_a_name_is_the_same_in_a_copy() -> None:
    function = lambda: 1  # noqa: E731
    assert PickledCopy({"f": function}).copy()["f"] is function


def test_a_config_keeps_its_flags_and_types() -> None:
    config = OmegaConf.structured({"a": 1, "b": "${a}"}, flags={"struct": True})
    copied = PickledCopy(config).copy()
    assert (copied == config, OmegaConf.is_struct(copied), copied.b) == (True, True, 1)


class Unwilling:
    def __reduce_ex__(self, protocol: object) -> str:
        raise ValueError

    def __deepcopy__(self, memo: object) -> list[str]:
        return ["copied"]


def test_what_does_not_pickle_is_copied_otherwise() -> None:
    assert PickledCopy([Unwilling()]).copy() == [["copied"]]
