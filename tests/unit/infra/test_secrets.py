"""Fields that are named like secrets: their values reach the method, and no name or record of an infra."""

from __future__ import annotations

import typing as tp
from pathlib import Path

import pydantic
import pytest

from hydra_exca import MapInfra, TaskInfra
from hydra_exca.errors import ConfigError

SECRET = "hunter2" * 2  # not as it is: the patch of uncommitted code is stored


class Fit(pydantic.BaseModel):
    seed: int = 0
    api_key: str = "none"
    pin: int = 0
    infra: TaskInfra = TaskInfra(version="1")

    @infra.apply
    def fit(self) -> str:
        return self.api_key[::-1]


class Features(pydantic.BaseModel):
    db_password: str = "none"
    infra: MapInfra = MapInfra(version="1")

    @infra.apply(item_uid=str)
    def load(self, items: list[int]) -> tp.Iterator[int]:
        for item in items:
            yield item + len(self.db_password)


def holding(folder: Path, text: str) -> list[str]:
    paths = list(folder.rglob("*"))
    return [str(path) for path in paths if text in path.name or (path.is_file() and text.encode() in path.read_bytes())]


@pytest.mark.app
def test_a_task_stores_no_secret_and_is_found_again(tmp_path: Path) -> None:
    task = Fit(api_key=SECRET, infra={"folder": tmp_path})  # type: ignore[arg-type]
    assert task.fit() == SECRET[::-1] and holding(tmp_path, SECRET) == []
    assert "/api_key=secret_" in task.infra.uid()
    assert Fit(api_key=SECRET, infra={"folder": tmp_path, "mode": "read-only"}).fit() == SECRET[::-1]  # type: ignore[arg-type]
    assert Fit(api_key=SECRET + "x", infra={"folder": tmp_path}).infra.status() == "not submitted"  # type: ignore[arg-type]


@pytest.mark.app
def test_a_map_stores_no_secret_and_is_found_again(tmp_path: Path) -> None:
    infra = {"folder": tmp_path}
    assert list(Features(db_password=SECRET, infra=infra).load([1])) == [15]  # type: ignore[arg-type]
    assert holding(tmp_path, SECRET) == []
    assert list(Features(db_password=SECRET, infra={**infra, "mode": "read-only"}).load([1])) == [15]  # type: ignore[arg-type]


@pytest.mark.app
def test_what_was_stored_with_the_value_in_its_name_is_still_found(tmp_path: Path) -> None:
    before = Fit(api_key=SECRET, infra={"folder": tmp_path, "secret_keys": ()})  # type: ignore[arg-type]
    before.fit()
    assert SECRET in before.infra.uid()
    today = Fit(api_key=SECRET, infra={"folder": tmp_path, "mode": "read-only"})  # type: ignore[arg-type]
    assert today.fit() == SECRET[::-1] and today.infra.uid_folder() == before.infra.uid_folder()


@pytest.mark.app
def test_the_names_of_secrets_are_a_setting(tmp_path: Path) -> None:
    task = Fit(pin=86753090 + 1, infra={"folder": tmp_path, "secret_keys": ["pin"]})  # type: ignore[arg-type]
    task.fit()
    assert holding(tmp_path, str(86753090 + 1)) == []


@pytest.mark.app
def test_an_object_whose_secret_is_not_stored_is_left_out_of_iter_cached(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for task in (Fit(seed=1, infra={"folder": tmp_path}), Fit(api_key=SECRET, infra={"folder": tmp_path})):  # type: ignore[arg-type]
        task.fit()
    assert [task.seed for task in task.infra.iter_cached()] == [1]
    assert "secret" in caplog.text and SECRET not in caplog.text


def test_messages_name_a_task_without_its_secrets(tmp_path: Path) -> None:
    task = Fit(seed=3, api_key=SECRET, infra={"folder": tmp_path})  # type: ignore[arg-type]
    (name,) = task.infra.task().overrides
    assert name.startswith("Fit(seed=3, api_key=secret_") and SECRET not in name
    with pytest.raises(ConfigError) as raised, task.infra.job_array() as tasks:
        tasks.extend([task, task.model_copy()])
    assert SECRET not in str(raised.value)
