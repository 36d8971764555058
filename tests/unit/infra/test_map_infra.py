"""MapInfra: which items are computed, where, and what comes back."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import typing as tp
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pydantic
import pytest
from apps import wait_until
from map_models import Breaks, Fibonacci, Found, Listed, NotIterable, Scaled, Where
from places import SUPPORT

from hydra_exca import (
    CacheError,
    ConfigError,
    DefaultsChangedError,
    ExcaError,
    MapInfra,
    TaskFailedError,
)
from hydra_exca.store.descriptions import counting_text

SLURM = pytest.param("slurm", marks=pytest.mark.slurm)
# a process that nobody waits for outlives the objects that started it
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
HERE = [None, "debug", "threadpool", "processpool"]
CLUSTERS = [*HERE, "local", SLURM]
Infra = dict[str, tp.Any]
Notes = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def _notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    yield
    gc.collect()  # here, where what a forgotten process warns of is filtered


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    """What was computed, sorted: chunks run side by side."""
    path = tmp_path / "notes"
    return lambda: sorted(path.read_text().splitlines()) if path.exists() else []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(params=CLUSTERS)
def infra(request: pytest.FixtureRequest, folder: Path) -> Infra:
    return {"folder": folder, "cluster": request.param, "max_jobs": 2}


def firsts(arrays: tp.Iterable[np.ndarray]) -> list[int]:
    return [int(array[0]) for array in arrays]


def jobs(folder: Path) -> int:
    return len(list(folder.glob("*/*/items/jobs/*/outcome.json")))


# -- calling ----------------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_results_come_in_the_order_asked_duplicates_included(infra: Infra, notes: Notes) -> None:
    assert firsts(Scaled(infra=infra).of([3, 1, 2, 3, 1])) == [6, 2, 4, 6, 2]
    assert notes() == ["of 1", "of 2", "of 3"]


@pytest.mark.app
def test_only_missing_items_are_computed(infra: Infra, notes: Notes) -> None:
    list(Scaled(infra=infra).of([1, 2]))
    assert firsts(Scaled(infra=infra).of(range(1, 5))) == [2, 4, 6, 8]
    assert notes() == ["of 1", "of 2", "of 3", "of 4"]


@pytest.mark.app
def test_any_iterable_of_items_will_do_by_keyword_too(folder: Path) -> None:
    task = Scaled(infra={"folder": folder})
    assert firsts(task.of(iter([1, 2]))) == [2, 4]
    assert firsts(task.of(items=[2])) == [4]
    assert list(task.of([])) == []


@pytest.mark.app
def test_a_call_computes_at_once_and_its_iterator_only_reads(folder: Path, notes: Notes) -> None:
    results = Scaled(infra={"folder": folder}).of([1, 2])
    assert notes() == ["of 1", "of 2"]
    assert iter(results) is results
    assert firsts(results) == [2, 4]


def test_an_empty_call_leaves_no_trace_of_a_computation(folder: Path) -> None:
    assert list(Scaled(infra={"folder": folder, "mode": "read-only"}).of([])) == []
    assert not folder.exists()


@pytest.mark.app
@pytest.mark.parametrize(
    ("cluster", "kind"),
    [
        *((None, kind) for kind in ("int", "str", "dict", "tuple", "none", "array", "class")),
        *((elsewhere, kind) for elsewhere in ("processpool", "local") for kind in ("array", "class")),
    ],
)
def test_results_of_any_type_come_back_as_they_were(kind: str, cluster: str | None, folder: Path) -> None:
    given = {"folder": folder, "cluster": cluster}
    expected = {
        "int": [1, 2],
        "str": ["1", "2"],
        "dict": [{"item": 1}, {"item": 2}],
        "tuple": [(1, "1"), (2, "2")],
        "none": [None, None],
        "array": [np.zeros((1, 1), np.float32), np.arange(2, dtype=np.float32).reshape(1, 2)],
        "class": [Found(1), Found(2)],
    }[kind]
    for _ in range(2):
        found = list(Listed(kind=kind, infra=given).of([1, 2]))
        assert [type(each) for each in found] == [type(each) for each in expected]
        if kind == "array":
            for each, array in zip(found, expected, strict=True):
                np.testing.assert_array_equal(each, array)
                assert each.dtype == array.dtype
        else:
            assert found == expected


# -- without a folder -------------------------------------------------------------------------------------------------


@pytest.mark.app
@pytest.mark.parametrize("cluster", HERE[:1] + HERE[2:])
def test_without_a_folder_results_are_kept_in_ram(cluster: str | None, notes: Notes) -> None:
    task = Scaled(infra={"cluster": cluster})
    assert firsts(task.of([2, 1])) == [4, 2]
    assert firsts(task.of([1, 3, 2])) == [2, 6, 4]
    assert notes() == ["of 1", "of 2", "of 3"]


def test_without_folder_and_ram_it_just_computes(notes: Notes) -> None:
    task = Scaled(infra={"keep_in_ram": False})
    assert firsts(task.of([1])) + firsts(task.of([1])) == [2, 2]
    assert notes() == ["of 1", "of 1"]


@pytest.mark.app
def test_objects_of_a_script_come_back_from_a_pool_as_their_class(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        """
import sys
import pydantic
from hydra_exca import MapInfra

class Point:
    pass

class Model(pydantic.BaseModel):
    infra: MapInfra = MapInfra(cluster="processpool", folder=sys.argv[1] if len(sys.argv) > 1 else None)

    @infra.apply(item_uid=str)
    def of(self, items):
        for item in items:
            yield Point()

if __name__ == "__main__":
    print([isinstance(each, Point) for each in Model().of(range(4))])
"""
    )
    for arguments in ([], ["cache"]):
        done = subprocess.run(
            [sys.executable, "script.py", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout == "[True, True, True, True]\n"


# -- in ram -----------------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_what_a_user_does_to_a_result_changes_no_later_one(folder: Path) -> None:
    for given in ({"folder": folder}, {}):
        task = Listed(kind="dict", infra=given)
        for _ in range(3):
            (found,) = task.of([1])
            assert found == {"item": 1}
            found["item"] = 7


@pytest.mark.app
def test_results_in_ram_outlive_the_folder(folder: Path, notes: Notes) -> None:
    import shutil

    task = Scaled(infra={"folder": folder})
    assert firsts(task.of([1])) == [2]
    shutil.rmtree(folder)
    assert firsts(task.of([1])) == [2]
    assert notes() == ["of 1"]


@pytest.mark.app
def test_a_folder_that_was_removed_is_filled_again(folder: Path, notes: Notes) -> None:
    import shutil

    task = Scaled(infra={"folder": folder, "keep_in_ram": False})
    assert firsts(task.of([1])) == [2]
    shutil.rmtree(folder)
    assert firsts(task.of([1, 2])) == [2, 4]
    assert notes() == ["of 1", "of 1", "of 2"]


def test_copies_share_no_results_in_ram(notes: Notes) -> None:
    task = Scaled()
    list(task.of([1]))
    for other in (copy.copy(task), copy.deepcopy(task), pickle.loads(pickle.dumps(task)), task.model_copy()):
        list(other.of([1]))
    assert notes() == ["of 1"] * 5


# -- identity ---------------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_another_configuration_has_items_of_its_own(folder: Path) -> None:
    given = {"folder": folder}
    assert firsts(Scaled(scale=2, infra=given).of([1])) == [2]
    assert firsts(Scaled(scale=3, infra=given).of([1])) == [3]


@pytest.mark.app
def test_an_assigned_field_gives_the_results_of_its_value(folder: Path) -> None:
    for given in ({"folder": folder}, {}):
        task = Scaled(infra=given)
        assert firsts(task.of([1])) == [2]
        task.scale = 5
        assert firsts(task.of([1])) == [5]


@pytest.mark.app
def test_what_is_excluded_shares_the_items(folder: Path, notes: Notes) -> None:
    given = {"folder": folder}
    for task in (Scaled(infra=given), Scaled(offset=3, infra=given), Scaled(device="cuda", infra=given)):
        assert firsts(task.of([1])) == [2]
    assert notes() == ["of 1"]


@pytest.mark.app
def test_the_version_of_the_class_is_inherited_and_another_one_computes_anew(folder: Path, notes: Notes) -> None:
    assert Scaled(infra={"folder": folder}).infra.version == "1"
    assert MapInfra(folder=folder).version == "0"
    list(Scaled(infra={"folder": folder}).of([1]))
    list(Scaled(infra={"folder": folder, "version": "2"}).of([1]))
    assert notes() == ["of 1", "of 1"]


@pytest.mark.app
def test_a_default_that_has_changed_since_is_an_error(folder: Path) -> None:
    def model(default: int) -> tp.Any:
        class Model(pydantic.BaseModel):
            x: int = default
            infra: MapInfra = MapInfra()

            @infra.apply(item_uid=str)
            def of(self, items: list[int]) -> Iterator[int]:
                yield from (item * self.x for item in items)

        return Model(infra={"folder": folder})

    assert list(model(2).of([1])) == [2]
    with pytest.raises(DefaultsChangedError, match=r"x: stored 2, 3 today.*bump the version"):
        model(3).of([1])


@pytest.mark.app
def test_long_uids_of_items_are_cut_and_still_differ(folder: Path) -> None:
    class Model(pydantic.BaseModel):
        infra: MapInfra = MapInfra()

        @infra.apply(item_uid=str, item_uid_max_length=64)
        def of(self, items: list[str]) -> Iterator[str]:
            yield from (item[-1] for item in items)

    long = ["a" * 300 + end for end in "xyz"]
    assert list(Model(infra={"folder": folder}).of([*long, "b"])) == ["x", "y", "z", "b"]
    text = next(folder.glob("*/*/items/*.index")).read_text()
    assert "a" * 70 not in text and '"b"' in text


@pytest.mark.app
def test_people_find_the_configuration_beside_the_items(folder: Path) -> None:
    task = Scaled(scale=5, infra={"folder": folder})
    list(task.of([1]))
    found = task.infra.uid_folder()
    assert found is not None and found.name.startswith("scale=5-")
    assert counting_text((found / "config.yaml").read_text()) == "scale: 5\n"
    assert "offset: 0.0" in (found / "config.yaml").read_text()


@pytest.mark.app
def test_the_objects_that_have_items_are_found(folder: Path) -> None:
    for scale in (2, 3):
        list(Scaled(scale=scale, infra={"folder": folder}).of([1]))
    found = sorted(Scaled(infra={"folder": folder, "mode": "read-only"}).infra.iter_cached(), key=lambda one: one.scale)
    assert [firsts(each.of([1])) for each in found] == [[2], [3]]


@pytest.mark.app
def test_a_method_may_run_from_a_copy_of_the_code(infra: Infra, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "part.py").write_text("")
    infra["workdir"] = {"copied": [str(tmp_path / "code")]}
    before = os.getcwd()
    (where,) = Where(infra=infra).of([1])
    assert os.path.isfile(f"{where}/code/part.py") and where.startswith(os.path.realpath(infra["folder"]))
    assert os.getcwd() == before


# -- chunks -----------------------------------------------------------------------------------------------------------


@pytest.mark.app
@pytest.mark.parametrize(
    ("items", "max_jobs", "least", "expected"),
    [(10, 3, 1, 3), (10, 128, 4, 2), (3, 128, 10, 1), (5, None, 1, 5), (4, 4, 1, 4), (1, 128, 1, 1)],
)
def test_missing_items_are_packed_into_jobs(
    items: int, max_jobs: int | None, least: int, expected: int, folder: Path
) -> None:
    given = {"folder": folder, "cluster": "local", "max_jobs": max_jobs, "min_samples_per_job": least}
    assert firsts(Scaled(infra=given).of(range(items))) == [2 * item for item in range(items)]
    assert jobs(folder) == expected


@pytest.mark.parametrize("field", ["max_jobs", "min_samples_per_job"])
def test_counts_of_jobs_and_items_are_positive(field: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="greater than 0"):
        MapInfra(**{field: 0})


@pytest.mark.app
def test_many_small_calls_share_their_files(folder: Path) -> None:
    task = Scaled(infra={"folder": folder})
    for item in range(50):
        assert firsts(task.of([item])) == [2 * item]
    (items,) = folder.glob("*/*/items")
    assert len(list(items.rglob("*"))) < 12


# -- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_force_computes_each_item_anew_once_for_an_object(infra: Infra, notes: Notes) -> None:
    list(Scaled(infra=infra).of([1, 2]))
    task = Scaled(infra={**infra, "mode": "force"})
    assert firsts(task.of([1])) + firsts(task.of([1, 3])) == [2, 2, 6]
    assert notes() == ["of 1", "of 1", "of 2", "of 3"]


OF_THE_CODE = [100]  # what the method computes changes with it, and it does not count


@pytest.mark.app
def test_what_was_forced_is_what_others_read(folder: Path) -> None:
    class Changing(pydantic.BaseModel):
        infra: MapInfra = MapInfra()

        @infra.apply(item_uid=str)
        def of(self, items: list[int]) -> Iterator[int]:
            yield from (item + OF_THE_CODE[0] for item in items)

    OF_THE_CODE[0] = 100
    reader = Changing(infra={"folder": folder, "keep_in_ram": False})
    assert list(reader.of([1, 2])) == [101, 102]
    OF_THE_CODE[0] = 200
    assert list(Changing(infra={"folder": folder, "mode": "force"}).of([1])) == [201]
    assert list(Changing(infra={"folder": folder}).of([1, 2])) == [201, 102]


@pytest.mark.app
def test_read_only_computes_nothing_and_says_what_is_missing(folder: Path, notes: Notes) -> None:
    given = {"folder": folder, "mode": "read-only"}
    with pytest.raises(CacheError, match=r"mode=read-only, and 2 of 2 items have no value: '1', '2'"):
        Scaled(infra=given).of([1, 2])
    assert not folder.exists()
    list(Scaled(infra={"folder": folder}).of([1]))
    assert firsts(Scaled(infra=given).of([1])) == [2]
    with pytest.raises(CacheError, match=r"1 of 2 items have no value: '2'"):
        Scaled(infra=given).of([1, 2])
    assert notes() == ["of 1"]


def test_read_only_without_a_folder_computes_nothing(notes: Notes) -> None:
    with pytest.raises(CacheError, match="mode=read-only"):
        Scaled(infra={"mode": "read-only"}).of([1])
    assert notes() == []


@pytest.mark.app
def test_a_single_item_may_be_forbidden(folder: Path, notes: Notes) -> None:
    task = Scaled(infra={"folder": folder, "forbid_single_item_computation": True})
    with pytest.raises(ConfigError, match="'1' is not stored, and forbid_single_item_computation"):
        task.of([1])
    assert firsts(task.of([1, 2])) == [2, 4]
    assert firsts(task.of([1])) == [2]
    assert notes() == ["of 1", "of 2"]


# -- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.app
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raises", "KeyError: 'no such thing'"),
        ("few", "yielded only 2 results for 4 items"),
        ("many", "yielded more results for 4 items"),
    ],
)
def test_an_error_is_told_alike_everywhere_and_keeps_what_was_computed(
    how: str, message: str, infra: Infra, notes: Notes
) -> None:
    infra = {**infra, "min_samples_per_job": 4}
    with pytest.raises(TaskFailedError, match=message) as caught:
        Breaks(how=how, infra=infra).of([1, 2, 3, 4])
    assert caught.value.type == ("KeyError" if how == "raises" else "ConfigError")
    assert how != "raises" or "map_models.py" in caught.value.traceback
    before = notes()
    kept = {line.split()[1] for line in before}
    assert list(Breaks(how="", infra=infra).of([1, 2, 3, 4])) == [1, 2, 3, 4]
    assert sorted(notes()) == ["of 1", "of 2", "of 3", "of 4"], f"kept {kept}"


@pytest.mark.app
def test_an_error_is_not_kept(infra: Infra) -> None:
    task = Breaks(infra=infra)
    for _ in range(2):
        with pytest.raises(TaskFailedError):
            task.of([3])
    task.at = 0
    assert list(task.of([3])) == [3]


@pytest.mark.app
@pytest.mark.parametrize("cluster", ["processpool", "local"])
def test_a_process_that_is_killed_is_an_error(cluster: str, folder: Path) -> None:
    given = {"folder": folder, "cluster": cluster}
    with pytest.raises(ExcaError, match=r"SIGKILL|ended|terminated"):
        Breaks(how="killed", infra=given).of([1, 2, 3, 4])
    assert list(Breaks(how="", infra=given).of([1, 2, 3, 4])) == [1, 2, 3, 4]


@pytest.mark.app
def test_a_method_that_returns_no_items_is_an_error(folder: Path) -> None:
    with pytest.raises(TaskFailedError, match="must yield one result for each item"):
        NotIterable(infra={"folder": folder}).of([1])


def test_a_uid_that_is_no_text_is_an_error(folder: Path) -> None:
    class Model(pydantic.BaseModel):
        infra: MapInfra = MapInfra()

        @infra.apply(item_uid=lambda item: item)
        def of(self, items: list[int]) -> list[int]:
            return items

    with pytest.raises(TypeError, match="must return a str, and returned 3"):
        Model(infra={"folder": folder}).of([3])


def test_an_infra_is_applied_with_the_uid_of_items() -> None:
    with pytest.raises(TypeError, match="item_uid"):

        class Model(pydantic.BaseModel):
            infra: MapInfra = MapInfra()

            @infra.apply  # type: ignore[call-arg,misc,arg-type]
            def of(self, items: list[int]) -> list[int]:
                return items


def test_a_method_takes_self_and_the_items() -> None:
    with pytest.raises(TypeError, match="self and the items"):

        class Model(pydantic.BaseModel):
            infra: MapInfra = MapInfra()

            @infra.apply(item_uid=str)
            def of(self, items: list[int], more: int) -> list[int]:
                return items


@pytest.mark.parametrize("cluster", ["local", "slurm", "auto", "debug"])
def test_a_cluster_with_jobs_needs_a_folder(cluster: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="needs a folder"):
        MapInfra(cluster=cluster)


@pytest.mark.app
def test_an_item_that_was_damaged_is_computed_again(folder: Path, notes: Notes) -> None:
    task = Listed(kind="str", infra={"folder": folder})
    assert list(task.of([1, 2])) == ["1", "2"]
    (data,) = [path for path in folder.glob("*/*/items/*.*") if path.suffix == ".txt"]
    data.chmod(0o600)
    data.write_bytes(b"1X")
    for _ in range(2):
        assert list(Listed(kind="str", infra={"folder": folder}).of([1, 2])) == ["1", "2"]
    assert notes() == ["of 1", "of 2", "of 2"]


@pytest.mark.app
def test_a_forced_format_stores_every_result_in_it(folder: Path) -> None:
    class Model(pydantic.BaseModel):
        infra: MapInfra = MapInfra()

        @infra.apply(item_uid=str, cache_type="Pickle")
        def of(self, items: list[int]) -> Iterator[np.ndarray]:
            yield from (np.arange(item) for item in items)

    assert [len(each) for each in Model(infra={"folder": folder}).of([1, 2])] == [1, 2]
    assert {path.suffix for path in folder.glob("*/*/items/*-*")} == {".index", ".pickle"}


@pytest.mark.app
@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool", "local"])
def test_a_method_may_ask_for_other_items_of_its_own(cluster: str | None, folder: Path) -> None:
    for given in ({"folder": folder, "cluster": cluster, "max_jobs": 1}, {}):
        assert list(Fibonacci(infra=given).of([6, 7])) == [8, 13]


@pytest.mark.app
@pytest.mark.parametrize("given", [{}, {"keep_in_ram": False}, {"cluster": "threadpool"}])
def test_a_method_may_use_its_buffer_again(given: Infra, folder: Path) -> None:
    class Buffered(pydantic.BaseModel):
        infra: MapInfra = MapInfra()

        @infra.apply(item_uid=str)
        def of(self, items: list[int]) -> Iterator[np.ndarray]:
            buffer = np.zeros(2)
            for item in items:
                buffer[:] = item
                yield buffer

    for where in (None, folder):
        assert firsts(Buffered(infra={**given, "folder": where}).of([1, 2, 3])) == [1, 2, 3]


@pytest.mark.app
@pytest.mark.parametrize("result", [{1: 1}, "1", {1}, b"1"])
def test_what_does_not_hold_one_result_for_each_item_is_refused(result: tp.Any, folder: Path) -> None:
    class Model(pydantic.BaseModel):
        infra: MapInfra = MapInfra()

        @infra.apply(item_uid=str)
        def of(self, items: list[int]) -> tp.Any:
            return result

    with pytest.raises(TaskFailedError, match=f"returned one {type(result).__name__}; it must yield one result"):
        Model(infra={"folder": folder}).of([1])


@pytest.mark.app
def test_an_object_that_was_changed_since_computes_nothing_into_what_it_was(folder: Path) -> None:
    import shutil

    task = Scaled(infra={"folder": folder, "keep_in_ram": False})
    late = task.of([1])
    task.scale = 7
    shutil.rmtree(folder)
    with pytest.raises(CacheError, match="the object was changed since"):
        list(late)
    assert firsts(Scaled(infra={"folder": folder}).of([1])) == [2]


@pytest.mark.app
def test_an_index_that_is_damaged_under_its_writer_is_written_anew(folder: Path, notes: Notes) -> None:
    list(Scaled(infra={"folder": folder}).of([1]))
    (index,) = folder.glob("*/*/items/*.index")
    index.write_bytes(b"\0" + index.read_bytes()[1:])
    assert firsts(Scaled(infra={"folder": folder}).of([1, 2])) == [2, 4]
    assert firsts(Scaled(infra={"folder": folder, "mode": "read-only"}).of([1, 2])) == [2, 4]


@pytest.mark.app
@pytest.mark.parametrize("with_folder", [True, False])
def test_what_was_forced_before_an_error_is_not_forced_again(with_folder: bool, folder: Path, notes: Notes) -> None:
    task = Breaks(infra={"folder": folder if with_folder else None, "mode": "force"})
    with pytest.raises(TaskFailedError):
        task.of([1, 2, 3])
    task.at = 0
    assert list(task.of([1, 2, 3])) == list(task.of([1, 2, 3])) == [1, 2, 3]
    assert notes() == ["of 1", "of 2", "of 3"]


@pytest.mark.app
def test_a_script_without_a_guard_gets_its_own_objects_from_jobs(tmp_path: Path) -> None:
    (tmp_path / "noguard.py").write_text(
        """
import sys
import pydantic
from hydra_exca import MapInfra

class Point:
    pass

class Model(pydantic.BaseModel):
    infra: MapInfra = MapInfra(cluster=sys.argv[1], folder="cache")

    @infra.apply(item_uid=str)
    def of(self, items):
        for item in items:
            yield Point()

print([type(each).__name__ for each in Model().of(range(2))])
"""
    )
    for cluster in ("local", "processpool"):
        done = subprocess.run(
            [sys.executable, "noguard.py", cluster], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.stdout == "['Point', 'Point']\n", done.stderr


@pytest.mark.app
def test_without_a_place_to_show_it_nothing_is_shown(tmp_path: Path) -> None:
    code = "from map_models import Scaled; print(len(list(Scaled().of([1, 2]))))"
    command = f"{sys.executable} -c '{code}' 2>&-"
    done = subprocess.run(
        command, shell=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(SUPPORT)}
    )
    assert done.stdout == "2\n"


# -- several at once --------------------------------------------------------------------------------------------------

CALL = """
import sys
from map_models import Waits
infra = {"folder": sys.argv[1], "cluster": sys.argv[3] or None, "max_jobs": 1}
start, stop = map(int, sys.argv[4:6])
print("ready", flush=True)
sys.stdin.readline()
print(list(Waits(go=sys.argv[2], infra=infra).of(range(start, stop))), flush=True)
"""


def call(folder: Path, go: Path, cluster: str | None, start: int, stop: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", CALL, str(folder), str(go), cluster or "", str(start), str(stop)],
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def go_on(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), ended
    return [out.strip() for out, _ in ended]


@pytest.mark.app
@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool", "local", SLURM])
def test_processes_that_want_the_same_items_compute_each_once(
    cluster: str | None, folder: Path, tmp_path: Path, notes: Notes
) -> None:
    (tmp_path / "go").touch()
    spans = [(0, 12), (6, 18), (0, 18)]
    processes = [call(folder, tmp_path / "go", cluster, *span) for span in spans]
    assert go_on(processes) == [str([10 * item for item in range(*span)]) for span in spans]
    assert notes() == sorted(f"of {item}" for item in range(18))


@pytest.mark.app
@pytest.mark.parametrize("cluster", [None, "local", SLURM])
def test_what_another_process_computes_is_waited_for(
    cluster: str | None, folder: Path, tmp_path: Path, notes: Notes
) -> None:
    first = call(folder, tmp_path / "go", cluster, 0, 2)
    assert first.stdin is not None
    first.stdin.write("\n")
    first.stdin.flush()
    wait_until(lambda: bool(notes()), "the first item")
    second = call(folder, tmp_path / "go", cluster, 0, 3)
    assert second.stdin is not None
    second.stdin.write("\n")
    second.stdin.flush()
    wait_until(lambda: "of 2" in notes(), "the item that only the second wants")
    assert notes().count("of 0") == 1
    (tmp_path / "go").touch()
    assert second.communicate(timeout=240)[0].strip() == "[0, 10, 20]"
    assert first.communicate(timeout=240)[0].strip() == "[0, 10]"
    assert notes() == ["of 0", "of 1", "of 2"]


@pytest.mark.app
def test_items_of_a_process_that_was_killed_are_computed_by_who_waits(
    folder: Path, tmp_path: Path, notes: Notes
) -> None:
    first = call(folder, tmp_path / "go", None, 0, 3)
    assert first.stdin is not None
    first.stdin.write("\n")
    first.stdin.flush()
    wait_until(lambda: notes() == ["of 0"], "the first item")
    second = call(folder, tmp_path / "go", None, 0, 3)
    first.kill()
    first.communicate()
    (tmp_path / "go").touch()
    assert go_on([second]) == ["[0, 10, 20]"]
    assert notes() == ["of 0", "of 0", "of 1", "of 2"]


@pytest.mark.app
@pytest.mark.parametrize("cluster", ["local", SLURM])
def test_jobs_go_on_when_their_launcher_is_killed_and_are_joined(
    cluster: str, folder: Path, tmp_path: Path, notes: Notes
) -> None:
    first = call(folder, tmp_path / "go", cluster, 0, 2)
    assert first.stdin is not None
    first.stdin.write("\n")
    first.stdin.flush()
    wait_until(lambda: notes() == ["of 0"], "the job to run")
    first.kill()
    first.communicate()
    second = call(folder, tmp_path / "go", cluster, 0, 2)
    (tmp_path / "go").touch()
    assert go_on([second]) == ["[0, 10]"]
    assert notes() == ["of 0", "of 1"]


@pytest.mark.app
def test_threads_of_one_object_compute_each_item_once(folder: Path, notes: Notes) -> None:
    import threading

    task = Scaled(infra={"folder": folder})
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append(firsts(task.of(range(8))))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[2 * item for item in range(8)]] * 4
    assert notes() == sorted(f"of {item}" for item in range(8))


# -- what it shows ----------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_a_bar_shows_how_far_it_is(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    list(Scaled(infra={"folder": folder}).of(range(4)))
    shown = capfd.readouterr().err
    assert "Scaled.of" in shown and "4/4" in shown
    list(Scaled(infra={"folder": folder}).of(range(4)))
    assert capfd.readouterr().err == ""
