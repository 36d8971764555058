"""What users bring along: models with infras as they are usually written, and what is asked of them.

Only the import is this library's own. The models keep the names that such code has.
"""

# infras are given as dictionaries, which pydantic makes infras of
# mypy: disable-error-code="arg-type"

from __future__ import annotations

import gc
import logging
import re
import typing as tp
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pydantic
import pytest
from apps import note
from guide_models import Failing, TutorialMap, TutorialTask, Waiting

from hydra_exca import DefaultsChangedError, MapInfra, TaskFailedError, TaskInfra

SLURM = pytest.param("slurm", marks=pytest.mark.slurm)
Notes = Callable[[], list[str]]
# a process that nobody waits for outlives the objects that started it
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture(autouse=True)
def _notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    yield
    gc.collect()  # here, where what a forgotten process warns of is filtered


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    """What ran, sorted."""
    path = tmp_path / "notes"
    return lambda: sorted(path.read_text().splitlines()) if path.exists() else []


# -- debugging --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", [None, "debug", "local"])
def test_the_logger_exca_tells_what_is_submitted(
    cluster: str | None, tmp_path: Path, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="exca"):
        TutorialTask(infra={"folder": tmp_path, "cluster": cluster}).process()
    told = [(record.name.split(".")[0], record.getMessage()) for record in caplog.records]
    assert any(name == "exca" and "1 submitted to" in message for name, message in told)


@pytest.mark.parametrize("cluster", [None, "debug", "local"])
def test_an_error_is_of_another_type_and_prints_the_original_traceback(
    cluster: str | None, tmp_path: Path, notes: Notes
) -> None:
    with pytest.raises(TaskFailedError) as caught:
        Failing(cure=tmp_path / "none", infra={"folder": tmp_path, "cluster": cluster}).process()
    assert not isinstance(caught.value, KeyError)
    assert 'raise KeyError("no cure")' in str(caught.value)


# -- jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", [None, "local", SLURM])
def test_a_call_and_the_job_give_one_result(cluster: str | None, tmp_path: Path, notes: Notes) -> None:
    task = TutorialTask(infra={"folder": tmp_path, "cluster": cluster})
    assert task.process() == task.infra.job().result()
    assert notes() == ["process 12"]


@pytest.mark.parametrize("cluster", ["local", SLURM])
def test_a_job_is_started_without_waiting_for_it(cluster: str, tmp_path: Path) -> None:
    task = Waiting(go=tmp_path / "go", infra={"folder": tmp_path, "cluster": cluster})
    job = task.infra.job()
    assert (task.infra.status(), job.done()) == ("running", False)
    (tmp_path / "go").touch()
    assert job.result() == task.process() == 12


# -- arrays -----------------------------------------------------------------------------------------------------------


def with_array(task: tp.Any, params: Iterable[int], **changes: tp.Any) -> list[tp.Any]:
    with task.infra.job_array() as array:
        for k in params:
            task_to_compute = task.infra.clone_obj({"param": k, **changes})
            array.append(task_to_compute)
    return tp.cast(list[tp.Any], array)


@pytest.mark.parametrize("cluster", [None, "local", SLURM])
def test_an_array_computes_each_task_once(cluster: str | None, tmp_path: Path, notes: Notes) -> None:
    task = TutorialTask(infra={"folder": tmp_path, "cluster": cluster})
    array = with_array(task, range(3))
    assert array[0].infra.status() in ("completed", "running")
    computed = [each.process() for each in array]
    assert [each.process() for each in with_array(task, range(3))] == computed
    assert notes() == ["process 0", "process 1", "process 2"]


def test_an_array_in_mode_force_computes_anew(tmp_path: Path, notes: Notes) -> None:
    task = TutorialTask(infra={"folder": tmp_path})
    with_array(task, range(2))
    with_array(task, range(2), **{"infra.mode": "force"})
    assert notes() == ["process 0", "process 0", "process 1", "process 1"]


def test_an_array_in_mode_retry_computes_what_failed(tmp_path: Path, notes: Notes) -> None:
    task = Failing(cure=tmp_path / "cure", infra={"folder": tmp_path})
    for mode in ("cached", "cached", "retry"):
        with task.infra.job_array() as array:
            array.append(task.infra.clone_obj({"infra.mode": mode}))
        (tmp_path / "cure").touch()
    assert (array[0].process(), notes()) == (12, ["process again", "process again"])


# -- monitoring -------------------------------------------------------------------------------------------------------


@pytest.mark.slurm
def test_a_slurm_job_is_found_with_its_configuration_and_log(tmp_path: Path, notes: Notes) -> None:
    from hydra_exca.helpers import find_slurm_job

    task = TutorialTask(param=3, infra={"folder": tmp_path, "cluster": "slurm"})
    task.process()
    record = next(tmp_path.glob("*/*/outcome.json")).read_text()
    job_id = re.findall(r'"job": ?"([\d_]+)"', record)[0]
    job = find_slurm_job(job_id=job_id, folder=tmp_path)
    assert job is not None
    assert (job.config["param"], job.uid_config) == (3, {"param": 3})
    assert job.stdout() is not None


# -- uids -------------------------------------------------------------------------------------------------------------


class UidTask(pydantic.BaseModel):
    seed: int = 12
    shape: tuple[int, int] = (3, 4)
    coeff: float = 12.0
    device: str = "cpu"
    infra: TaskInfra = TaskInfra(version="1")

    @infra.apply
    def _internal_cached_method(self) -> np.ndarray:
        rng = np.random.default_rng(seed=12)
        return rng.normal(size=self.shape)

    def process(self) -> np.ndarray:
        array = self._internal_cached_method()
        return self.coeff * np.asarray(array)


def test_the_config_shows_what_counts() -> None:
    task = UidTask(device="cuda", coeff=3)
    assert task.infra.config(uid=True) == {
        "seed": 12,
        "shape": (3, 4),
        "coeff": 3.0,
        "device": "cuda",
        "infra": {"version": "1"},
    }
    assert task.infra.config(uid=True, exclude_defaults=True) == {"coeff": 3.0, "device": "cuda"}


def test_the_uid_shows_what_is_not_default_and_a_digest() -> None:
    name = UidTask(device="cuda", coeff=3).infra.uid().split("/")[-1]
    assert re.fullmatch(r"coeff=3,device=cuda-[0-9a-f]{8}", name)


def test_of_an_infra_only_the_version_counts(tmp_path: Path) -> None:
    given = {"folder": tmp_path, "cluster": "local", "mem_gb": 2, "gpus_per_node": 1, "timeout_min": 3}
    task = UidTask(infra=given)
    assert task.infra.config(uid=True)["infra"] == {"version": "1"}
    assert task.infra.uid() == UidTask().infra.uid()
    assert UidTask(infra={"version": "2"}).infra.uid() != UidTask().infra.uid()


class ByTuple(pydantic.BaseModel):
    seed: int = 12
    shape: tuple[int, int] = (3, 4)
    coeff: float = 12.0
    device: str = "cpu"
    infra: TaskInfra = TaskInfra(version="1")
    _exclude_from_cache_uid = ("device",)

    @infra.apply(exclude_from_cache_uid=("coeff",))
    def _internal_cached_method(self) -> np.ndarray:
        note("internal", self.device)
        rng = np.random.default_rng(seed=12)
        return rng.normal(size=self.shape)

    def process(self) -> np.ndarray:
        array = self._internal_cached_method()
        return self.coeff * np.asarray(array)


class ByMethod(pydantic.BaseModel):
    seed: int = 12
    shape: tuple[int, int] = (3, 4)
    coeff: float = 12.0
    device: str = "cpu"
    infra: TaskInfra = TaskInfra(version="1")

    def _exclude_from_cache_uid(self) -> list[str]:
        return ["device"]

    def _cache_exclusion(self) -> list[str]:
        return ["coeff"]

    @infra.apply(exclude_from_cache_uid="method:_cache_exclusion")
    def _internal_cached_method(self) -> np.ndarray:
        note("internal", self.device)
        rng = np.random.default_rng(seed=12)
        return rng.normal(size=self.shape)

    def process(self) -> np.ndarray:
        array = self._internal_cached_method()
        return self.coeff * np.asarray(array)


class ByFunction(pydantic.BaseModel):
    seed: int = 12
    shape: tuple[int, int] = (3, 4)
    coeff: float = 12.0
    device: str = "cpu"
    infra: TaskInfra = TaskInfra(version="1")
    _exclude_from_class_uid = ("device",)

    def _cache_exclusion(self) -> list[str]:
        return ["coeff"]

    @infra.apply(exclude_from_cache_uid=_cache_exclusion)
    def _internal_cached_method(self) -> np.ndarray:
        note("internal", self.device)
        rng = np.random.default_rng(seed=12)
        return rng.normal(size=self.shape)

    def process(self) -> np.ndarray:
        array = self._internal_cached_method()
        return self.coeff * np.asarray(array)


FORMS = [ByTuple, ByMethod, ByFunction]


@pytest.mark.parametrize("model", FORMS)
def test_what_is_excluded_shares_a_cache_and_is_still_used(model: tp.Any, tmp_path: Path, notes: Notes) -> None:
    one = model(infra={"folder": tmp_path}).process()
    other = model(device="cuda", coeff=24, infra={"folder": tmp_path}).process()
    np.testing.assert_array_equal(2 * one, other)
    assert notes() == ["internal cpu"]


@pytest.mark.parametrize("model", FORMS)
def test_every_form_of_exclusion_leaves_the_same_config(model: tp.Any) -> None:
    task = model(seed=13, device="cuda", coeff=3)
    assert task.infra.config(uid=True) == {"seed": 13, "shape": (3, 4), "infra": {"version": "1"}}
    assert task.infra.config(uid=True, exclude_defaults=True) == {"seed": 13}


@pytest.mark.parametrize(("parent", "expected"), [(ByMethod, {}), (ByFunction, {"seed": 13})])
def test_an_override_counts_only_if_the_method_was_named(parent: tp.Any, expected: dict[str, int]) -> None:
    class Child(parent):  # type: ignore[misc]
        def _cache_exclusion(self) -> list[str]:
            return ["coeff", "seed"]

    assert Child(seed=13).infra.config(uid=True, exclude_defaults=True) == expected


# -- versions and what infras inherit ---------------------------------------------------------------------------------


def test_an_infra_takes_the_version_of_its_class(tmp_path: Path) -> None:
    mapper = TutorialMap(infra={"folder": tmp_path})
    assert mapper.infra.version == "1"
    assert MapInfra(**{"folder": tmp_path}).version == "0"


def test_a_map_stores_an_array_for_each_item(tmp_path: Path, notes: Notes) -> None:
    computed = list(TutorialMap(param=2, infra={"folder": tmp_path}).process([1, 2]))
    again = list(TutorialMap(param=2, infra={"folder": tmp_path}).process(range(1, 4)))
    assert [array.shape for array in again] == [(1, 2), (2, 2), (3, 2)]
    np.testing.assert_array_equal(computed[1], again[1])
    assert notes() == ["process 1", "process 2", "process 3"]


def test_another_version_is_another_folder(tmp_path: Path, notes: Notes) -> None:
    folders = [TutorialTask(infra={"folder": tmp_path, "version": version}).infra.uid_folder() for version in "12"]
    assert folders[0] != folders[1]


def test_results_that_depend_on_a_class_with_a_new_version_are_refused(tmp_path: Path, notes: Notes) -> None:
    def outer(version: str) -> tp.Any:
        class Inner(pydantic.BaseModel):
            infra: TaskInfra = TaskInfra(version=version)

            @infra.apply
            def process(self) -> int:
                return 1

        class Outer(pydantic.BaseModel):
            inner: Inner = Inner()
            infra: TaskInfra = TaskInfra()

            @infra.apply
            def process(self) -> int:
                return self.inner.process()

        return Outer(infra={"folder": tmp_path})

    assert outer("1").process() == 1
    with pytest.raises(DefaultsChangedError, match=r"inner\.infra\.version: stored \"1\", \"2\" today"):
        outer("2").process()


def test_no_other_sub_model_inherits_what_its_field_has_by_default() -> None:
    class Sub(pydantic.BaseModel):
        x: int = 1
        y: int = 1

    class Model(pydantic.BaseModel):
        sub: Sub = Sub(x=12)

    assert Model(sub={"y": 2}).sub.x == 1


# -- discriminators ---------------------------------------------------------------------------------------------------


class Dog(pydantic.BaseModel):
    name: tp.Literal["dog"] = "dog"
    dog_param: int = 12


class Cat(pydantic.BaseModel):
    name: tp.Literal["cat"] = "cat"
    cat_param: str = "mew"


class Household(pydantic.BaseModel):
    pet: Dog | Cat = pydantic.Field(..., discriminator="name")
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def process(self) -> str:
        return self.pet.name


def test_a_discriminator_chooses_the_class() -> None:
    household = Household(pet={"name": "dog"})
    assert isinstance(household.pet, Dog)
    assert household.pet.dog_param == 12


def test_a_discriminator_is_part_of_the_uid() -> None:
    assert "pet.name=dog" in Household(pet=Dog()).infra.uid()
    assert "pet.name=cat" in Household(pet=Cat()).infra.uid()


# -- a copy of the code -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", ["local", SLURM])
def test_a_job_runs_from_a_copy_of_a_package(cluster: str, tmp_path: Path, notes: Notes) -> None:
    task = TutorialTask(infra={"cluster": cluster, "folder": tmp_path, "workdir": {"copied": ["hydra_exca"]}})
    assert task.process() == task.process()
    assert list(tmp_path.rglob("hydra_exca/infra/task.py"))
