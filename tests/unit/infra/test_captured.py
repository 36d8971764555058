"""What a nested function or class has captured counts, for infras as for sweeps."""

from __future__ import annotations

import threading
import typing as tp
from pathlib import Path

import pydantic
import pytest

from hydra_exca import MapInfra, TaskInfra
from hydra_exca.errors import ConfigError
from hydra_exca.helpers import with_infra


def function(folder: Path, factor: tp.Any) -> tp.Callable[..., tp.Any]:
    @with_infra(folder=folder)
    def scale(a: int) -> tp.Any:
        return [factor, a]

    return scale


def model(folder: Path, factor: tp.Any) -> tp.Any:
    class Scale(pydantic.BaseModel):
        a: int = 3
        infra: TaskInfra = TaskInfra(folder=folder)

        @infra.apply
        def compute(self) -> tp.Any:
            return self.helper()

        def helper(self) -> tp.Any:
            return [factor, self.a]

    return Scale


@pytest.mark.app
@pytest.mark.parametrize("values", [(1, 2), ([64], [128]), ({"k": 1}, {"k": 2})], ids=str)
def test_two_nested_functions_do_not_share_results(tmp_path: Path, values: tuple[tp.Any, tp.Any]) -> None:
    assert [function(tmp_path, value)(a=3) for value in (*values, values[0])] == [
        [value, 3] for value in (*values, values[0])
    ]
    assert len(list(tmp_path.glob("*/*/outcome.json"))) == 2


@pytest.mark.app
def test_two_nested_classes_do_not_share_results(tmp_path: Path) -> None:
    assert [model(tmp_path, value)().compute() for value in (1, 2, 1)] == [[1, 3], [2, 3], [1, 3]]
    assert len(list(tmp_path.glob("*/*/outcome.json"))) == 2


@pytest.mark.app
def test_two_nested_maps_do_not_share_items(tmp_path: Path) -> None:
    def mapped(factor: int) -> tp.Any:
        class Scale(pydantic.BaseModel):
            infra: MapInfra = MapInfra(folder=tmp_path)

            @infra.apply(item_uid=str)
            def compute(self, items: list[int]) -> tp.Iterator[int]:
                for item in items:
                    yield factor * item

        return Scale()

    assert [list(mapped(factor).compute([1, 2])) for factor in (1, 10, 1)] == [[1, 2], [10, 20], [1, 2]]


@pytest.mark.app
def test_variables_of_one_name_that_a_class_and_its_parent_have_captured_both_count(tmp_path: Path) -> None:
    def child(folder: Path, inherited: int, factor: int) -> tp.Any:
        class Child(model(folder, inherited)):  # type: ignore[misc]
            def helper(self) -> tp.Any:
                return [factor, *super().helper()]

        return Child

    asked = [(1, 1), (1, 2), (2, 1)]
    assert [child(tmp_path, *factors)().compute() for factors in asked] == [[1, 1, 3], [2, 1, 3], [1, 2, 3]]


def test_a_variable_that_changes_changes_the_identity_of_the_same_object(tmp_path: Path) -> None:
    factors = [1]
    scale = model(tmp_path, factors)()
    first = scale.infra.uid()
    factors.append(2)
    assert scale.infra.uid() != first


def test_what_is_captured_shows_in_no_label(tmp_path: Path) -> None:
    assert model(tmp_path, 1)().infra.uid().rpartition("/")[2].startswith("default-")


def test_a_variable_without_an_identity_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="factor: a _thread:lock has no canonical form"):
        function(tmp_path, threading.Lock())(a=3)


def test_functions_and_classes_of_a_module_have_the_identity_that_they_had(tmp_path: Path) -> None:
    assert "hydra.function" not in Plain(infra={"folder": tmp_path}).infra.identity().fields


class Plain(pydantic.BaseModel):
    a: int = 3
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def compute(self) -> int:
        return self.a
