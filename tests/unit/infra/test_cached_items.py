"""MapInfra.cache_dict: the stored results as a dictionary that others fill, and from which results can be removed."""

from __future__ import annotations

import errno
import os
import typing as tp
from pathlib import Path

import numpy as np
import pytest
from map_models import Scaled

from hydra_exca import CacheError
from hydra_exca.store.items import removal


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    return tmp_path / "notes"


@pytest.fixture(params=["folder", "RAM"])
def scaled(request: pytest.FixtureRequest, tmp_path: Path) -> Scaled:
    return Scaled(infra={"folder": tmp_path / "exca"} if request.param == "folder" else {})


def count(notes: Path) -> int:
    return len(notes.read_text().splitlines())


def test_it_has_the_results_by_the_names_of_the_items(scaled: Scaled) -> None:
    cached = scaled.infra.cache_dict
    assert len(cached) == 0 and list(cached) == [] and "1" not in cached and not cached
    list(scaled.of([1, 2, 3]))
    assert (len(cached), list(cached), sorted(cached.keys())) == (3, ["1", "2", "3"], ["1", "2", "3"])
    assert "2" in cached and 2 not in cached and cached["2"].tolist() == [4, 4, 4]
    assert [value[0] for value in cached.values()] == [2, 4, 6] and dict(cached).keys() == cached.keys()
    with pytest.raises(KeyError, match="9"):
        cached["9"]
    assert cached.get("9") is None and "3 items" in repr(cached)


def test_a_removed_result_is_computed_again_and_the_others_are_not(scaled: Scaled, notes: Path) -> None:
    list(scaled.of([1, 2, 3]))
    del scaled.infra.cache_dict["2"]
    assert list(scaled.infra.cache_dict) == ["1", "3"]
    assert [value[0] for value in scaled.of([1, 2, 3])] == [2, 4, 6] and count(notes) == 4
    assert scaled.infra.cache_dict["2"].tolist() == [4, 4, 4]
    with pytest.raises(KeyError):
        del scaled.infra.cache_dict["9"]


def test_clearing_removes_all_results(scaled: Scaled, notes: Path) -> None:
    list(scaled.of([1, 2]))
    scaled.infra.cache_dict.clear()
    assert len(scaled.infra.cache_dict) == 0
    assert [value[0] for value in scaled.of([1, 2])] == [2, 4] and count(notes) == 4


def stored(folder: Path) -> Scaled:
    return Scaled(infra={"folder": folder / "exca", "keep_in_ram": False})


def test_asking_writes_nothing(tmp_path: Path) -> None:
    cached = stored(tmp_path).infra.cache_dict
    assert len(cached) == 0 and "1" not in cached
    cached.clear()
    assert not (tmp_path / "exca").exists()


def test_what_another_object_stores_or_removes_is_seen(tmp_path: Path) -> None:
    cached = stored(tmp_path).infra.cache_dict
    list(stored(tmp_path).of([1, 2]))
    assert list(cached) == ["1", "2"]
    stored(tmp_path).infra.cache_dict.clear()
    assert len(cached) == 0


def test_a_result_that_was_stored_twice_is_removed_with_the_older_one(tmp_path: Path) -> None:
    list(stored(tmp_path).of([1, 2]))
    list(Scaled(infra={"folder": tmp_path / "exca", "mode": "force"}).of([1]))
    del stored(tmp_path).infra.cache_dict["1"]
    assert list(stored(tmp_path).infra.cache_dict) == ["2"]


def test_a_writer_that_is_open_goes_on_after_a_removal(tmp_path: Path) -> None:
    scaled = stored(tmp_path)
    list(scaled.of([1, 2]))
    del scaled.infra.cache_dict["2"]
    list(scaled.of([3]))  # by the same process
    assert sorted(stored(tmp_path).infra.cache_dict) == ["1", "3"]


@pytest.mark.parametrize("names", [["a"], ["a", "b"], [], ["c"], ['"]', "é\n", "a"]])
def test_removing_leaves_the_length_of_the_indexes_and_all_other_items(tmp_path: Path, names: list[str]) -> None:
    from hydra_exca.store import Items, ItemWriter

    keys = ["a", "b", '"]', "é\n", "\ud800"]
    with ItemWriter(tmp_path, "1-x") as writer:
        for key in keys:
            writer.add(key, np.arange(3))
    (index,) = tmp_path.glob("*.index")
    size, reader = index.stat().st_size, Items(tmp_path)
    removal.remove_items(tmp_path, names)
    assert index.stat().st_size == size
    assert list(Items(tmp_path)) == [key for key in keys if key not in names]
    assert len(reader) == len(keys) and reader.get("b").tolist() == [0, 1, 2]


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES])
def test_an_index_that_cannot_be_written_is_an_error(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(stored(tmp_path).of([1]))

    def refuse(path: tp.Any, flags: int, *args: tp.Any, **kwargs: tp.Any) -> int:
        if str(path).endswith(".index") and flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(error, os.strerror(error), str(path))
        return opened(path, flags, *args, **kwargs)

    opened = os.open
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CacheError, match="cannot be read or written"):
        del stored(tmp_path).infra.cache_dict["1"]


def test_a_set_item_is_refused(scaled: Scaled) -> None:
    cached: tp.Any = scaled.infra.cache_dict
    with pytest.raises(TypeError, match="calling the method"):
        cached["1"] = 2
