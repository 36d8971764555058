"""Errors of tasks that ask for other tasks and for maps: which item, whose frames, and each of them once."""

from __future__ import annotations

import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest
from nested_models import Doubled, Fit, Study

from hydra_exca import MapInfra, TaskInfra
from hydra_exca.errors import TaskFailedError
from hydra_exca.launch.results import stored_error
from hydra_exca.store import Entry

HERE = [None, pytest.param("local", marks=pytest.mark.app)]


class Silent(pydantic.BaseModel):
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> int:
        raise ValueError


@pytest.mark.parametrize("has_folder", [True, False])
def test_an_error_without_a_message_is_named_alone(has_folder: bool, tmp_path: Path) -> None:
    with pytest.raises(TaskFailedError) as raised:
        Silent(infra={"folder": tmp_path if has_folder else None}).fit()  # type: ignore[arg-type]
    assert str(raised.value).splitlines()[0].endswith(" raised ValueError")


def study(folder: Path, cluster: str | None, of_map: str | None) -> Study:
    infra: tp.Any = {"folder": folder, "cluster": cluster}
    doubled = Doubled(infra={**infra, "cluster": of_map})
    return Study(part=Fit(doubled=doubled, infra=infra), infra=infra)


@pytest.mark.parametrize("of_map", [*HERE, "threadpool", pytest.param("processpool", marks=pytest.mark.app)])
def test_an_error_in_a_map_names_the_item_by_its_uid_its_value_and_its_index(of_map: tp.Any, tmp_path: Path) -> None:
    doubled = Doubled(infra={"folder": tmp_path, "cluster": of_map})  # type: ignore[arg-type]
    with pytest.raises(TaskFailedError) as raised:
        doubled.load([1, 2, 3, 4])
    assert raised.value.notes == ("in item 'item-3', 3 (index 2 of 4)",)
    assert str(raised.value).count("in item 'item-3', 3 (index 2 of 4)") == 1


def test_the_index_is_that_among_the_items_that_were_asked_for(tmp_path: Path) -> None:
    doubled = Doubled(infra={"folder": tmp_path})  # type: ignore[arg-type]
    assert list(doubled.load([1, 2])) == [2, 4]
    with pytest.raises(TaskFailedError, match=r"in item 'item-3', 3 \(index 2 of 4\)"):
        doubled.load([1, 2, 3, 4])


def test_without_a_folder_the_item_is_named_too() -> None:
    with pytest.raises(TaskFailedError, match=r"in item 'item-3', 3 \(index 1 of 2\)"):
        Doubled().load([1, 3])


def test_a_method_that_computes_all_results_at_once_names_the_items_among_which_it_is() -> None:
    with pytest.raises(TaskFailedError) as raised:
        Doubled(lazy=False).load([1, 2, 3, 4])
    assert raised.value.notes == ("in one of 4 items: 'item-1', 'item-2', 'item-3', ...",)


def test_an_error_of_ours_names_no_item() -> None:
    class Short(pydantic.BaseModel):
        infra: MapInfra = MapInfra()

        @infra.apply(item_uid=str)
        def load(self, items: list[int]) -> Iterator[int]:
            yield 1

    with pytest.raises(Exception, match="yielded only 1 results for 2 items") as raised:
        Short().load([1, 2])
    assert "in item" not in str(raised.value)


@pytest.mark.parametrize("of_map", HERE)
@pytest.mark.parametrize("cluster", HERE)
def test_an_error_is_shown_once_with_the_users_frames_of_all_tasks(
    cluster: tp.Any, of_map: tp.Any, tmp_path: Path
) -> None:
    with pytest.raises(TaskFailedError) as raised:
        study(tmp_path, cluster, of_map).run()
    error = raised.value
    assert (error.type, error.text) == ("ValueError", "three is bad")
    assert [error.traceback.count(f", in {name}\n") for name in ("run", "fit", "double")] == [1, 1, 1]
    for text in (error.traceback, str(error)):
        assert text.count("Traceback (most recent call last)") == 1
        assert "/hydra_exca/" not in text.partition("log: ")[0] and text.count("hydra_exca/infra") == 0
    assert str(error).count("three is bad") == 3  # the headline, the line of code, and the last line


def test_python_prints_nothing_twice(tmp_path: Path) -> None:
    with pytest.raises(TaskFailedError) as raised:
        study(tmp_path, None, None).run()
    frames = [entry.name for entry in raised.traceback]
    assert frames[1:] == ["cached", "_call_for_user"]
    assert raised.value.__cause__ is None and raised.value.__suppress_context__


@pytest.mark.parametrize("cluster", HERE)
def test_the_record_of_the_failure_has_all_of_it(cluster: tp.Any, tmp_path: Path) -> None:
    failed = study(tmp_path, cluster, None)
    with pytest.raises(TaskFailedError) as raised:
        failed.run()
    folder = failed.infra.uid_folder()
    assert folder is not None
    outcome = Entry(folder).outcome()
    assert outcome is not None and outcome.error is not None
    assert outcome.error["traceback"] == raised.value.traceback
    assert outcome.error["notes"] == list(raised.value.notes)
    assert str(stored_error(Entry(folder), outcome, "f")) == str(raised.value)


def test_what_is_raised_from_the_error_of_another_task_has_that_error_once(tmp_path: Path) -> None:
    class Wraps(pydantic.BaseModel):
        part: Fit = Fit()
        infra: TaskInfra = TaskInfra()

        @infra.apply
        def run(self) -> int:
            try:
                return self.part.fit()
            except TaskFailedError as error:
                raise RuntimeError("cannot go on") from error

    with pytest.raises(TaskFailedError) as raised:
        Wraps(infra={"folder": tmp_path}).run()  # type: ignore[arg-type]
    assert raised.value.type == "RuntimeError"
    text = raised.value.traceback
    assert [text.count(f", in {name}\n") for name in ("run", "fit", "double")] == [2, 1, 1]
    assert "/hydra_exca/" not in text
