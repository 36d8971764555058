"""What is remembered to be fast is forgotten as soon as it could be wrong."""

from __future__ import annotations

import os
import shutil
import typing as tp
from pathlib import Path

import pydantic
import pytest

from hydra_exca import MapInfra, TaskInfra
from hydra_exca.store import cache_folder


class Fit(pydantic.BaseModel):
    seed: int = 0
    layers: list[int] = [1]
    infra: TaskInfra = TaskInfra(version="1")

    @infra.apply
    def fit(self) -> int:
        return self.seed


class Double(pydantic.BaseModel):
    factor: int = 2
    infra: MapInfra = MapInfra(version="1")

    @infra.apply(item_uid=str)
    def of(self, items: tp.Iterable[int]) -> tp.Iterator[list[int]]:
        for item in items:
            yield [item * self.factor]


@pytest.mark.app
def test_a_uid_is_that_of_the_object_right_after_any_change(tmp_path: Path) -> None:
    task = Fit(seed=1, infra={"folder": tmp_path})  # type: ignore[arg-type]
    task.fit()
    uids = [task.infra.uid() for _ in range(2)]
    task.seed = 2
    uids.append(task.infra.uid())
    task.layers.append(5)
    uids.append(task.infra.uid())
    task.infra.version = "2"
    uids.append(task.infra.uid())
    task.seed, task.layers, task.infra.version = 1, [1], "1"
    uids.append(task.infra.uid())
    assert uids[0] == uids[1] == uids[5] and len({*uids}) == 4


@pytest.mark.app
def test_a_uid_names_the_folder_that_the_entry_has_by_now(tmp_path: Path) -> None:
    """Another launch may have computed it meanwhile, and the readable part of its name is another in a sweep."""
    task = Fit(seed=1, infra={"folder": tmp_path})  # type: ignore[arg-type]
    before = task.infra.uid()
    task.fit()
    assert [task.infra.uid() for _ in range(2)] == [before, before]
    renamed = before.replace("/seed=1-", "/+seed=1-")
    (tmp_path / before).rename(tmp_path / renamed)
    assert task.infra.uid() == renamed
    shutil.rmtree(tmp_path / renamed)
    assert task.infra.uid() == before


@pytest.mark.app
def test_a_relative_folder_is_that_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Fit(seed=1, infra={"folder": "cache"})  # type: ignore[arg-type]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        task.fit()
    uid = task.infra.uid()
    (tmp_path / "a/cache" / uid).rename(tmp_path / "a/cache" / uid.replace("/seed=1-", "/+seed=1-"))
    monkeypatch.chdir(tmp_path / "a")
    assert task.infra.uid() == uid.replace("/seed=1-", "/+seed=1-")


@pytest.mark.app
def test_kept_items_are_returned_without_a_look_at_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double = Double(infra={"folder": tmp_path})  # type: ignore[arg-type]
    assert [*double.of(iter([1, 2, 1]))] == [[2], [4], [2]]

    def refuse(*args: tp.Any) -> tp.Any:
        raise AssertionError(args)

    for name in ("listdir", "scandir", "open", "stat", "lstat"):
        monkeypatch.setattr(os, name, refuse)
    assert [*double.of([2, 1])] == [[4], [2]] and [*double.of(items=[2])] == [[4]]  # type: ignore[call-arg]


@pytest.mark.app
def test_a_kept_item_belongs_to_the_object_as_it_is(tmp_path: Path) -> None:
    double = Double(infra={"folder": tmp_path})  # type: ignore[arg-type]
    [first] = double.of([3])
    first.append(0)
    double.factor = 3
    assert [*double.of([3])] == [[9]]
    double.factor = 2
    assert [*double.of([3])] == [[6]]


@pytest.mark.parametrize("asked", [1, 100])
def test_a_name_is_found_by_its_digits_however_many_are_asked_for(asked: int) -> None:
    names = [
        "a=1-12345678",
        "b=1-12345678",
        "c-1234567812345678",
        "x-12345678,y-0abc0abc",
        "default",
        ".names",
        "d.tmp",
    ]
    listing = cache_folder._Listing(names)
    for _ in range(asked):
        found = listing.named("12345678", "1234567812345678")
    assert found == ["a=1-12345678", "b=1-12345678", "c-1234567812345678"]
    assert (listing.named("default"), listing.named("99999999"), listing.named("0abc0abc")) == (
        *(["default"], []),
        ["x-12345678,y-0abc0abc"],
    )
