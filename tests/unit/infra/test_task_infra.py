"""TaskInfra: what a decorated method returns, what its infra says of it, and what becomes of both in copies."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import re
import subprocess
import sys
import textwrap
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import numpy as np
import pydantic
import pytest
from apps import wait_for, wait_until
from infra_models import (
    AsksSubmitit,
    Base,
    Counted,
    Fails,
    Flaky,
    OverBoth,
    OverFunc,
    OverWithAnother,
    Parent,
    Private,
    Several,
    Slow,
    SubBase,
    Talks,
    Train,
    Waits,
)
from places import SUPPORT

from hydra_exca import ConfDict, ConfigError, JobLostError, TaskFailedError, TaskInfra
from hydra_exca.errors import CacheError

SLURM = pytest.param("slurm", marks=pytest.mark.slurm)
# a process that nobody waits for outlives the objects that started it
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
CLUSTERS = [None, "debug", "local", SLURM]
JOBS_OF_THEIR_OWN = ["local", SLURM]


@pytest.fixture(autouse=True)
def _notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    yield
    gc.collect()  # here, where what a forgotten process warns of is filtered


@pytest.fixture
def notes(tmp_path: Path) -> tp.Callable[[], list[str]]:
    """What ran, sorted: jobs run side by side."""
    path = tmp_path / "notes"
    return lambda: sorted(path.read_text().splitlines()) if path.exists() else []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(params=CLUSTERS)
def infra(request: pytest.FixtureRequest, folder: Path) -> dict[str, tp.Any]:
    return {"folder": folder, "cluster": request.param}


@pytest.fixture(params=JOBS_OF_THEIR_OWN)
def remote(request: pytest.FixtureRequest, folder: Path) -> dict[str, tp.Any]:
    return {"folder": folder, "cluster": request.param}


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# -- calling ----------------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_a_result_is_computed_once_and_returned_to_every_equal_object(infra: dict[str, tp.Any], notes: tp.Any) -> None:
    assert [Counted(x=3, infra=infra).fit() for _ in range(3)] == [30] * 3
    assert notes() == ["fit 3"]


@pytest.mark.app
def test_an_array_comes_back_as_it_was(infra: dict[str, tp.Any]) -> None:
    computed = Train(infra=infra).fit()
    assert computed.shape == (3, 4)
    np.testing.assert_array_equal(computed, Train(infra=infra).fit())
    np.testing.assert_array_equal(computed, Train().fit())


def test_without_a_folder_it_just_computes(notes: tp.Any) -> None:
    task = Counted(x=2)
    assert (task.fit(), task.fit()) == (20, 20)
    assert notes() == ["fit 2"] * 2
    assert task.infra.status() == "not submitted"
    assert task.infra.uid_folder() is None


@pytest.mark.app
@pytest.mark.parametrize("folder_given", [False, True])
def test_a_result_kept_in_ram_is_the_same_object(folder: Path, folder_given: bool, notes: tp.Any) -> None:
    task = Train(infra={"folder": folder if folder_given else None, "keep_in_ram": True})
    assert task.fit() is task.fit()
    assert notes() == ["fit 12"]


def test_what_is_kept_in_ram_is_not_what_another_field_gives(notes: tp.Any) -> None:
    task = Counted(x=1, infra={"keep_in_ram": True})
    assert task.fit() == 10
    task.x = 2
    assert task.fit() == 20
    assert notes() == ["fit 1", "fit 2"]


def test_a_cluster_without_a_folder_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="needs a folder"):
        TaskInfra(cluster="local")
    with pytest.raises(pydantic.ValidationError, match="needs a folder"):
        Counted(infra={"cluster": "slurm"})


@pytest.mark.app
def test_several_methods_have_several_caches(folder: Path, notes: tp.Any) -> None:
    task = Several(x=4, infra={"folder": folder}, other={"folder": folder})
    assert task.score() == ("score", 4)
    assert task.fit() == ("fit", 4)
    assert task.score() == ("score", 4)
    assert notes() == ["fit 4", "score 4"]
    assert task.infra.uid().startswith("infra_models.Several.fit,1/x=4")
    assert task.other.uid().startswith("infra_models.Several.score,2/x=4")


@pytest.mark.app
def test_a_private_infra_works_like_any_other(folder: Path) -> None:
    task = Private(x=3)
    assert task.fit() == 3
    assert task._infra.version == "2"
    task._infra.folder = folder
    assert task.fit() == 3
    assert task._infra.status() == "completed"
    assert Private(x=3) == Private(x=3)
    assert repr(task) == "Private(x=3)"
    assert Private()._infra is not Private()._infra


def test_a_decorated_method_keeps_its_name_and_doc() -> None:
    assert Counted.fit.__name__ == "fit"
    assert Counted.fit.__qualname__ == "Counted.fit"


# -- definition -------------------------------------------------------------------------------------------------------


def _two(self: tp.Any, more: int) -> None: ...
def _default(self: tp.Any, more: int = 2) -> None: ...
def _none() -> None: ...
def _any(*args: tp.Any) -> None: ...
def _named(self: tp.Any, **kwargs: tp.Any) -> None: ...
def _keyword(*, self: tp.Any) -> None: ...


@pytest.mark.parametrize("method", [_two, _default, _none, _any, _named, _keyword])
def test_a_method_that_takes_more_than_self_is_refused_at_class_definition(method: tp.Any) -> None:
    infra = TaskInfra()
    with pytest.raises(TypeError, match="self alone"):
        infra.apply(method)
    with pytest.raises(TypeError, match="self alone"):
        TaskInfra().apply(exclude_from_cache_uid=["x"])(method)


def test_an_infra_decorates_one_method() -> None:
    with pytest.raises(RuntimeError, match="already"):

        class _Twice(pydantic.BaseModel):
            infra: TaskInfra = TaskInfra()

            @infra.apply
            def one(self) -> int:
                return 1

            @infra.apply
            def two(self) -> int:
                return 2


def test_an_infra_that_decorates_no_method_is_an_error() -> None:
    class Idle(pydantic.BaseModel):
        infra: TaskInfra = TaskInfra()

    with pytest.raises(RuntimeError, match="not applied to a method"):
        Idle()


def test_an_infra_on_a_class_that_is_no_model_is_an_error() -> None:
    with pytest.raises(RuntimeError) as caught:

        class _Plain:
            infra = TaskInfra()

            @infra.apply
            def fit(self) -> int:
                return 1

    assert "not a pydantic model" in f"{caught.value}{caught.value.__cause__}"


def test_one_infra_on_two_classes_is_an_error() -> None:
    shared = TaskInfra()

    class _One(pydantic.BaseModel):
        infra: TaskInfra = shared

        @infra.apply
        def fit(self) -> int:
            return 1

    with pytest.raises(RuntimeError) as caught:

        class _Two(pydantic.BaseModel):
            infra: TaskInfra = shared

    assert "another class" in f"{caught.value}{caught.value.__cause__}"


def test_an_infra_of_another_object_cannot_be_assigned(folder: Path) -> None:
    one, two = Counted(x=1, infra={"folder": folder}), Counted(x=2)
    with pytest.raises(RuntimeError, match="belongs to another object"):
        two.infra = one.infra
    assert two.fit() == 20


@pytest.mark.app
def test_an_infra_that_is_assigned_is_the_objects_own(folder: Path, notes: tp.Any) -> None:
    task = Counted(x=2)
    task.infra = TaskInfra(folder=folder)
    assert task.infra.version == "1"
    assert (task.fit(), task.fit()) == (20, 20)
    assert notes() == ["fit 2"]


@pytest.mark.app
def test_an_infra_that_is_given_to_two_objects_is_taken_as_settings(folder: Path) -> None:
    given = TaskInfra(folder=folder)
    one, two = Counted(x=1, infra=given), Counted(x=2, infra=given)
    three = Counted(x=3, infra=one.infra)
    assert (one.fit(), two.fit(), three.fit()) == (10, 20, 30)
    assert len({id(task.infra) for task in (one, two, three)} | {id(given)}) == 4


def test_extra_fields_are_forbidden_unless_the_model_says_otherwise() -> None:
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        Counted(typo=3)  # type: ignore[call-arg]

    class Open(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        infra: TaskInfra = TaskInfra()

        @infra.apply
        def fit(self) -> int:
            return int(self.y)  # type: ignore[attr-defined]

    assert Open(y=3).fit() == 3  # type: ignore[call-arg]
    assert "y=3" in Open(y=3).infra.uid()  # type: ignore[call-arg]


@pytest.mark.app
def test_a_cluster_may_be_given_where_the_class_has_the_folder(folder: Path) -> None:
    class Model(pydantic.BaseModel):
        x: int = 1
        infra: TaskInfra = TaskInfra(folder=folder)

        @infra.apply
        def fit(self) -> int:
            return self.x

    task = Model(infra={"cluster": "local"})  # type: ignore[arg-type]
    assert (task.infra.folder, task.infra.cluster) == (folder, "local")
    assert task.infra.clone_obj({"infra.cluster": "debug"}).fit() == 1


def test_a_sub_model_of_which_all_that_differs_is_excluded_is_not_in_the_config(folder: Path) -> None:
    class Sub(pydantic.BaseModel):
        x: int = 1
        y: int = 2

    class Model(pydantic.BaseModel):
        sub: Sub = Sub()
        infra: TaskInfra = TaskInfra()

        @infra.apply(exclude_from_cache_uid=["sub.x"])
        def fit(self) -> int:
            return 1

    task = Model(sub={"x": 5}, infra={"folder": folder})  # type: ignore[arg-type]
    assert task.infra.config(uid=True, exclude_defaults=True) == {}
    assert task.infra.config(uid=True)["sub"] == {"y": 2}


# -- what is stored ---------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_the_objects_that_have_results_are_found(folder: Path) -> None:
    given = {"folder": folder, "mode": "retry"}
    tasks = [Counted(x=x, device="cuda", infra=given) for x in (1, 2, 3)]
    for task in tasks:
        assert task.fit() == 10 * task.x
    Counted(x=9, infra={"folder": folder}).infra.uid_folder(create=True)
    found = sorted(tasks[0].infra.iter_cached(), key=lambda task: int(task.x))
    assert found == tasks
    assert [task.infra.status() for task in found] == ["completed"] * 3


@pytest.mark.app
def test_only_what_a_method_has_returned_is_found(folder: Path) -> None:
    with pytest.raises(TaskFailedError):
        Fails(infra={"folder": folder}).fit()
    assert list(Fails(infra={"folder": folder}).infra.iter_cached()) == []
    assert list(Counted(infra={"folder": folder}).infra.iter_cached()) == []
    assert list(Counted().infra.iter_cached()) == []


@pytest.mark.app
def test_results_of_a_private_infra_are_found(folder: Path) -> None:
    task = Private(x=5)
    task._infra.folder = folder
    task.fit()
    (found,) = task._infra.iter_cached()
    assert found.x == 5 and found._infra.status() == "completed"


@pytest.mark.app
def test_what_todays_class_cannot_read_is_left_out_and_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = Counted(x=4, infra={"folder": folder})
    task.fit()
    path = tp.cast(Path, task.infra.uid_folder())
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("x: 4", "x: 5"))
    assert list(task.infra.iter_cached()) == []
    (path / "config.yaml").write_text(text + "unknown: 1\n")
    assert list(task.infra.iter_cached()) == []
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2 and all("is left out" in each for each in warnings)


@pytest.mark.app
@pytest.mark.parametrize("guard", ["", 'if __name__ == "__main__":'])
def test_tasks_that_a_job_of_a_script_asks_for_are_those_of_the_script(guard: str, tmp_path: Path) -> None:
    (tmp_path / "experiment.py").write_text(
        f"""
import pydantic
from hydra_exca import TaskInfra

class Part(pydantic.BaseModel):
    infra: TaskInfra = TaskInfra(folder="{tmp_path}/cache")

    @infra.apply
    def fit(self) -> int:
        return 7

class Whole(pydantic.BaseModel):
    part: Part = Part()
    infra: TaskInfra = TaskInfra(folder="{tmp_path}/cache", cluster="local")

    @infra.apply
    def fit(self) -> int:
        return self.part.fit()

{guard or "if True:"}
    print(Whole().fit())
"""
    )
    done = subprocess.run([sys.executable, "experiment.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "7\n"
    made = sorted(path.name for path in (tmp_path / "cache").glob("*,0"))
    assert made == ["experiment.Part.fit,0", "experiment.Whole.fit,0"]


@pytest.mark.app
def test_a_call_returns_what_is_stored_now_not_what_an_old_job_had_stored(folder: Path, notes: tp.Any) -> None:
    task = Counted(x=2, infra={"folder": folder})
    assert task.infra.job().result() == task.fit() == 20
    Counted(x=2, infra={"folder": folder}).infra.clear_job()
    assert (task.fit(), task.infra.status()) == (20, "completed")
    assert notes() == ["fit 2", "fit 2"]


def test_read_only_without_a_folder_computes_nothing(notes: tp.Any) -> None:
    with pytest.raises(CacheError, match="mode=read-only"):
        Counted(infra={"mode": "read-only"}).fit()
    assert notes() == []


def test_unknown_settings_of_an_infra_are_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        TaskInfra(foldr="x")  # type: ignore[call-arg]


@pytest.mark.parametrize("version", ["a/b", "", "..", "a,b"])
def test_a_version_must_be_able_to_name_a_folder(version: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="version"):
        TaskInfra(version=version)


# -- inheritance ------------------------------------------------------------------------------------------------------


@pytest.mark.app
@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (Base, "Base.func,12", 24),
        (SubBase, "SubBase.func,12", 24),
        (OverFunc, "OverFunc.Base.func,12", 72),
        (OverBoth, "OverBoth.func,24", 72),
        (OverWithAnother, "OverWithAnother.Base.func,12", 72),
    ],
)
def test_the_cache_of_a_child_is_named_after_what_computes(
    cls: type[Base], name: str, value: int, folder: Path
) -> None:
    task = cls(infra={"folder": folder})
    assert task.infra.uid() == f"infra_models.{name}/default"
    assert (task.func(), task.func()) == (value, value)
    assert [path.name for path in folder.glob("infra_models*")] == [f"infra_models.{name}"]


@pytest.mark.app
def test_a_child_with_a_second_infra_uses_both_caches(folder: Path) -> None:
    task = OverWithAnother(param=13, infra={"folder": folder}, infra2={"folder": folder})
    assert task.func() == 78
    assert sorted(path.name for path in folder.glob("infra_models*")) == [
        "infra_models.OverWithAnother.Base.func,12",
        "infra_models.OverWithAnother.func,3",
    ]


@pytest.mark.app
def test_what_a_child_computes_through_super_is_not_what_its_parent_computes(folder: Path) -> None:
    class Doubled(Base):
        def func(self) -> int:
            return super().func()

        def factor(self) -> int:
            return 4

    given = {"folder": folder}
    assert (Base(infra=given).func(), Doubled(infra=given).func(), Base(infra=given).func()) == (24, 48, 24)


def test_a_childs_infra_that_decorates_nothing_is_an_error(folder: Path) -> None:
    class OverInfra(Base):
        infra: TaskInfra = TaskInfra()

    with pytest.raises(RuntimeError, match="not applied"):
        OverInfra(infra={"folder": folder})


def test_a_childs_own_method_has_its_own_exclusions(folder: Path) -> None:
    assert OverBoth(tag="x").infra.uid() == "infra_models.OverBoth.func,24/default"
    assert "tag=x" in Base(tag="x").infra.uid()


@pytest.mark.app
def test_a_child_that_inherits_does_not_return_its_parents_result(folder: Path) -> None:
    class Parent2(pydantic.BaseModel):
        infra: TaskInfra = TaskInfra()

        @infra.apply
        def fit(self) -> str:
            return self.part()

        def part(self) -> str:
            return "parent"

    class Child2(Parent2):
        def part(self) -> str:
            return "child"

    infra = {"folder": folder}
    assert [Parent2(infra=infra).fit(), Child2(infra=infra).fit(), Parent2(infra=infra).fit()] == [
        "parent",
        "child",
        "parent",
    ]


def test_settings_that_are_not_given_come_from_the_class(folder: Path) -> None:
    assert Counted(infra={"folder": folder}).infra.version == "1"
    assert Counted(infra=TaskInfra(folder=folder)).infra.version == "1"
    assert TaskInfra(folder=folder).version == "0"
    assert Counted(infra={"version": "7"}).infra.version == "7"


def test_settings_of_a_nested_model_come_from_its_own_class(folder: Path) -> None:
    assert Parent(child={"infra": {"folder": folder}}).child.infra.version == "1"
    assert Parent(child={"infra": {"folder": folder}}).infra.folder is None
    assert Parent().child.infra is not Parent().child.infra


def test_only_infras_inherit_from_the_default_of_a_field() -> None:
    class Outer(pydantic.BaseModel):
        inner: Counted = Counted(x=5, coeff=3)

    assert Outer(inner={"coeff": 2}).inner.x == 1  # type: ignore[arg-type]


@pytest.mark.app
def test_a_changed_version_is_a_new_cache(folder: Path, notes: tp.Any) -> None:
    for version in ("1", "2", "1"):
        Counted(infra={"folder": folder, "version": version}).fit()
    assert notes() == ["fit 1", "fit 1"]


# -- exclusions -------------------------------------------------------------------------------------------------------


def _declares(**namespace: tp.Any) -> type[pydantic.BaseModel]:
    """A model with fields x, y, z, whose class says something of exclusions."""

    class Model(pydantic.BaseModel):
        x: int = 1
        y: int = 1
        z: int = 1
        infra: TaskInfra = TaskInfra()
        locals().update(namespace)

        @infra.apply
        def fit(self) -> int:
            return self.x

    return Model


@pytest.mark.parametrize("name", ["_exclude_from_class_uid", "_exclude_from_cls_uid", "_exclude_from_cache_uid"])
@pytest.mark.parametrize("form", [("y",), ["y"], lambda self: ["y"], lambda self: ("y",)])
def test_a_class_leaves_fields_out_of_the_uid(name: str, form: tp.Any) -> None:
    uid = _declares(**{name: form})(x=2, y=3).infra.uid()  # type: ignore[attr-defined]
    assert "x=2" in uid and "y=3" not in uid


@pytest.mark.parametrize("name", ["_exclude_from_class_uid", "_exclude_from_cls_uid", "_exclude_from_cache_uid"])
def test_a_wrong_name_that_a_class_leaves_out_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="yy"):
        _declares(**{name: ("yy",)})().infra.uid()  # type: ignore[attr-defined]


class Excludes(pydantic.BaseModel):
    x: int = 1
    y: int = 1
    infra: TaskInfra = TaskInfra()
    listed: TaskInfra = TaskInfra()
    by_function: TaskInfra = TaskInfra()
    by_method: TaskInfra = TaskInfra()
    by_name: TaskInfra = TaskInfra()

    def names(self) -> list[str]:
        return ["y"]

    @infra.apply
    def fit(self) -> int:
        return self.x

    @listed.apply(exclude_from_cache_uid=["y"])
    def fit_listed(self) -> int:
        return self.x

    @by_function.apply(exclude_from_cache_uid=lambda self: ["y"] if self.x else [])
    def fit_by_function(self) -> int:
        return self.x

    @by_method.apply(exclude_from_cache_uid=names)
    def fit_by_method(self) -> int:
        return self.x

    @by_name.apply(exclude_from_cache_uid="method:names")
    def fit_by_name(self) -> int:
        return self.x


class ExcludesMore(Excludes):
    def names(self) -> list[str]:
        return ["x", "y"]


@pytest.mark.parametrize("infra", ["listed", "by_function", "by_method", "by_name"])
def test_a_cache_leaves_fields_out(infra: str, folder: Path) -> None:
    one, two = (getattr(Excludes(x=2, y=y), infra) for y in (3, 4))
    assert one.uid() == two.uid()
    assert "x=2" in one.uid()
    assert "y=3" in Excludes(x=2, y=3).infra.uid()


def test_of_the_exclusions_only_the_name_of_a_method_follows_an_override() -> None:
    task = ExcludesMore(x=2, y=3)
    assert "x=2" in task.by_method.uid() and "x=2" in task.listed.uid() and "x=2" in task.by_function.uid()
    assert task.by_name.uid().endswith("/default")


@pytest.mark.parametrize(
    "wrong",
    [["typo"], lambda self: ["typo"], "method:typo", lambda self: "typo"],
    ids=["list", "function", "method", "str"],
)
def test_a_wrong_name_that_a_cache_leaves_out_is_an_error(wrong: tp.Any) -> None:
    class Model(pydantic.BaseModel):
        x: int = 1
        infra: TaskInfra = TaskInfra()

        @infra.apply(exclude_from_cache_uid=wrong)
        def fit(self) -> int:
            return 1

    with pytest.raises((ConfigError, AttributeError, TypeError), match="typo"):
        Model().infra.uid()


def test_a_bare_name_is_no_list_of_exclusions() -> None:
    with pytest.raises(TypeError, match="write a list"):
        TaskInfra().apply(exclude_from_cache_uid="x")(lambda self: 1)


def test_nested_models_leave_out_their_own(folder: Path) -> None:
    assert Parent(child={"device": "cuda"}).infra.uid() == "infra_models.Parent.fit,0/default"
    assert "child.x=2" in Parent(child={"x": 2, "device": "cuda"}).infra.uid()
    assert Parent(child={"infra": {"folder": folder}}).infra.uid() == "infra_models.Parent.fit,0/default"


def test_a_cache_leaves_out_dotted_names() -> None:
    class Outer(pydantic.BaseModel):
        child: Counted = Counted()
        infra: TaskInfra = TaskInfra()

        @infra.apply(exclude_from_cache_uid=["child.x"])
        def fit(self) -> int:
            return 1

    task = Outer(child=Counted(x=3))
    assert task.infra.uid().endswith("/default")
    assert "x" not in task.infra.config(uid=True).get("child", {})


@pytest.mark.app
def test_results_are_shared_across_what_is_left_out(folder: Path, notes: tp.Any) -> None:
    infra = {"folder": folder}
    Counted(infra=infra, device="cuda", coeff=3).fit()
    assert Counted(infra=infra).infra.status() == "completed"
    Counted(infra=infra).fit()
    assert notes() == ["fit 1"]


# -- identity and the object ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", ["uid", "status", "config", "identity", "obj_infras"])
def test_asking_changes_and_freezes_nothing(ask: str, folder: Path) -> None:
    task = Train(seed=3, infra={"folder": folder})
    before = (repr(task), set(task.model_fields_set), task.model_dump(), set(task.infra.model_fields_set))
    getattr(task.infra, ask)()
    assert (repr(task), set(task.model_fields_set), task.model_dump(), set(task.infra.model_fields_set)) == before
    assert not folder.exists()
    task.seed = 4
    assert task.seed == 4


@pytest.mark.app
def test_a_field_that_is_assigned_gives_the_new_result(infra: dict[str, tp.Any], notes: tp.Any) -> None:
    task = Counted(x=1, infra=infra)
    first = task.infra.uid()
    assert task.fit() == 10
    job = task.infra.job()
    task.x = 2
    assert task.infra.uid() != first
    assert task.infra.status() == "not submitted"
    assert task.fit() == 20
    assert (job.result(), task.infra.job().result()) == (10, 20)
    task.x = 1
    assert task.fit() == 10
    assert notes() == ["fit 1", "fit 2"]


def test_a_field_of_a_nested_model_that_is_assigned_gives_a_new_identity() -> None:
    task = Parent()
    first = task.infra.uid()
    task.child.x = 4
    assert task.infra.uid() != first


@pytest.mark.app
def test_a_version_that_is_assigned_gives_the_new_result(folder: Path, notes: tp.Any) -> None:
    task = Counted(infra={"folder": folder, "keep_in_ram": True})
    task.fit()
    task.infra.version = "2"
    task.fit()
    assert notes() == ["fit 1"] * 2


@pytest.mark.app
def test_a_folder_that_is_assigned_is_where_the_result_goes(folder: Path, tmp_path: Path, notes: tp.Any) -> None:
    task = Counted(infra={"folder": folder})
    task.infra.job().result()
    task.infra.folder = tmp_path / "other"
    task.fit()
    assert task.infra.status() == "completed"
    assert notes() == ["fit 1"] * 2


COPIES: dict[str, tp.Callable[[tp.Any], tp.Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "model_copy": lambda task: task.model_copy(),
    "model_copy deep": lambda task: task.model_copy(deep=True),
    "pickle": lambda task: pickle.loads(pickle.dumps(task)),
    "cloudpickle": lambda task: cloudpickle.loads(cloudpickle.dumps(task)),
    "clone_obj": lambda task: task.infra.clone_obj(),
    "in a list": lambda task: copy.deepcopy([task, task])[1],
    "dump": lambda task: type(task)(**task.model_dump()),
}


@pytest.mark.app
@pytest.mark.parametrize("way", COPIES)
def test_a_copy_is_equal_and_has_an_infra_of_its_own(way: str, folder: Path, notes: tp.Any) -> None:
    task = Counted(x=2, infra={"folder": folder})
    made = COPIES[way](task)
    assert made == task
    assert repr(made) == repr(task) or way == "dump"  # a dump sets every field
    assert made.infra is not task.infra
    assert made.infra.uid() == task.infra.uid()
    made.x = 3
    assert (made.fit(), task.fit()) == (30, 20)
    assert made.infra.status() == "completed"
    assert notes() == ["fit 2", "fit 3"]


@pytest.mark.app
@pytest.mark.parametrize("way", COPIES)
def test_a_copy_of_what_has_run_works(way: str, folder: Path, notes: tp.Any) -> None:
    task = Counted(x=2, infra={"folder": folder, "keep_in_ram": True})
    task.infra.job().result()
    task.fit()
    assert COPIES[way](task).fit() == 20
    assert notes() == ["fit 2"]


def test_what_was_pickled_before_a_setting_was_added_has_its_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state_of_earlier_version(infra: TaskInfra) -> dict[tp.Any, tp.Any]:
        state = dict(pydantic.BaseModel.__getstate__(infra))
        for fields, added in (("__dict__", "share_machine"), ("__pydantic_private__", "_remembered")):
            state[fields] = {name: value for name, value in state[fields].items() if name != added}
        return {**state, "__pydantic_private__": {**state["__pydantic_private__"], "_owner": None, "_applied": None}}

    task = Counted(x=2, infra={"folder": folder})
    monkeypatch.setattr(TaskInfra, "__getstate__", state_of_earlier_version)
    copied = pickle.loads(pickle.dumps(task))
    assert copied == task
    assert copied.infra.settings() == task.infra.settings()
    assert copied.infra.uid() == task.infra.uid()


@pytest.mark.parametrize("way", [way for way in COPIES if way != "clone_obj"])
def test_a_copy_of_private_and_nested_infras_is_its_own(way: str) -> None:
    made, original = COPIES[way](Private(x=2)), Private(x=2)
    assert made.fit() == 2 and made._infra.uid() == original._infra.uid()
    outer = Parent()
    inner = COPIES[way](outer).child
    assert inner.infra.uid() == outer.child.infra.uid()
    assert inner.fit() == 10


@pytest.mark.app
def test_a_copy_with_an_update_returns_its_own_result(folder: Path) -> None:
    task = Counted(x=2, infra={"folder": folder})
    assert task.fit() == 20
    assert task.model_copy(update={"x": 3}).fit() == 30
    assert task.fit() == 20


@pytest.mark.app
def test_an_object_made_without_validation_has_a_cache_too(folder: Path, notes: tp.Any) -> None:
    for _ in range(2):
        assert Counted.model_construct(x=2, infra=TaskInfra(folder=folder)).fit() == 20
    assert notes() == ["fit 2"]
    assert Counted.model_construct(x=3).fit() == 30


@pytest.mark.app
def test_a_model_that_validates_instances_anew_gets_infras_of_its_own(folder: Path) -> None:
    class Strict(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(revalidate_instances="always", validate_assignment=True)
        x: int = 1
        infra: TaskInfra = TaskInfra()

        @infra.apply
        def fit(self) -> int:
            return self.x

    class Outer(pydantic.BaseModel):
        inner: Strict

    inner = Strict(infra={"folder": folder})
    outer = Outer(inner=inner)
    outer.inner.x = 5
    assert (outer.inner.fit(), inner.fit()) == (5, 1)
    inner.x = "7"  # type: ignore[assignment]
    assert inner.fit() == 7


@pytest.mark.app
def test_a_class_with_hooks_of_its_own_keeps_them(folder: Path) -> None:
    class Hooked(pydantic.BaseModel):
        x: int = 1
        infra: TaskInfra = TaskInfra()
        _double: int = 0

        def model_post_init(self, context: tp.Any) -> None:
            self._double = 2 * self.x

        @pydantic.model_validator(mode="after")
        def _check(self) -> Hooked:
            if self.x > 5:
                raise ValueError("too large")
            return self

        @infra.apply
        def fit(self) -> int:
            return self._double

    assert Hooked(x=3, infra={"folder": folder}).fit() == 6
    assert copy.deepcopy(Hooked(x=4, infra={"folder": folder})).fit() == 8
    with pytest.raises(pydantic.ValidationError, match="too large"):
        Hooked(x=6)


@pytest.mark.app
def test_a_frozen_model_can_have_an_infra(folder: Path) -> None:
    class Frozen(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(frozen=True)
        x: int = 1
        infra: TaskInfra = TaskInfra()

        @infra.apply
        def fit(self) -> int:
            return self.x

    assert Frozen(x=3, infra={"folder": folder}).fit() == 3
    assert Frozen(x=3, infra={"folder": folder}).infra.status() == "completed"


@pytest.mark.app
def test_an_infra_may_be_optional(folder: Path) -> None:
    class Optional(pydantic.BaseModel):
        x: int = 1
        infra: TaskInfra | None = TaskInfra(version="3")

        @infra.apply  # type: ignore[union-attr]
        def fit(self) -> int:
            return self.x

    assert Optional(infra=None).fit() == 1
    assert Optional(x=2, infra={"folder": folder}).fit() == 2  # type: ignore[arg-type]


@pytest.mark.app
def test_equality_looks_at_fields_and_settings(folder: Path) -> None:
    assert Counted() == Counted()
    assert Counted() != Counted(x=2)
    assert Counted() != Counted(infra={"folder": folder})
    ran = Counted(infra={"folder": folder})
    ran.fit()
    assert ran == Counted(infra={"folder": folder})


def test_repr_shows_what_is_set() -> None:
    assert repr(Counted(x=3)) == "Counted(x=3, coeff=12.0, device='cpu', infra=TaskInfra(version='1'))"
    assert repr(TaskInfra(folder="here")) == "TaskInfra(folder='here')"


@pytest.mark.app
def test_models_of_functions_work(infra: dict[str, tp.Any]) -> None:
    scale = 7

    class Local(pydantic.BaseModel):
        x: int = 2
        infra: TaskInfra = TaskInfra()

        @infra.apply
        def fit(self) -> int:
            return self.x * scale

    assert Local(infra=infra).fit() == 14
    assert Local(infra=infra).infra.uid().split("/")[0].endswith("test_models_of_functions_work.Local.fit,0")
    copied = cloudpickle.loads(cloudpickle.dumps(Local(infra=infra)))
    assert copied.infra.uid() == Local(infra=infra).infra.uid()
    assert copied.fit() == 14


@pytest.mark.app
@pytest.mark.parametrize("cluster", [None, "local", SLURM])
@pytest.mark.parametrize("guarded", [True, False])
def test_models_of_a_script_work_and_are_found_again(cluster: str | None, guarded: bool, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    main = """
        task = Train(seed=3, infra={"folder": "cache", "cluster": CLUSTER})
        print(task.fit(), task.infra.uid(), task.infra.status())
    """
    model = """
        import pickle
        import pydantic
        from apps import note
        from hydra_exca import TaskInfra

        class Train(pydantic.BaseModel):
            seed: int = 12
            infra: TaskInfra = TaskInfra(version="1")

            @infra.apply
            def fit(self) -> int:
                note("fit", self.seed)
                return 2 * self.seed
    """
    body = textwrap.dedent(main).replace("CLUSTER", repr(cluster))
    guard = 'if __name__ == "__main__":\n' + textwrap.indent(body, "    ") if guarded else body
    script.write_text(textwrap.dedent(model) + guard)
    env = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    for _ in range(2):
        done = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("6 train.Train.fit,1/seed=3-") and done.stdout.endswith("completed\n")
    assert (tmp_path / "notes").read_text() == "fit 3\n"


# -- status, jobs -----------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_a_status_says_where_the_task_stands(remote: dict[str, tp.Any], tmp_path: Path) -> None:
    task = Waits(go=str(tmp_path / "go"), infra=remote)
    assert task.infra.status() == "not submitted"
    job = task.infra.job()
    assert task.infra.status() == "running"
    assert Waits(infra=remote).infra.status() == "running"
    (tmp_path / "go").touch()
    assert job.result() == 1
    assert task.infra.status() == "completed"


@pytest.mark.app
def test_the_status_of_a_failed_task_is_failed(infra: dict[str, tp.Any]) -> None:
    task = Fails(infra=infra)
    with pytest.raises(TaskFailedError):
        task.fit()
    assert task.infra.status() == "failed"


@pytest.mark.app
def test_a_status_writes_nothing(folder: Path) -> None:
    task = Counted(infra={"folder": folder})
    assert task.infra.status() == "not submitted"
    assert not folder.exists()
    task.fit()
    before = tree(folder)
    assert task.infra.status() == "completed"
    assert tree(folder) == before


@pytest.mark.app
def test_a_job_is_submitted_once_and_not_waited_for(remote: dict[str, tp.Any], tmp_path: Path, notes: tp.Any) -> None:
    task = Waits(x=5, go=str(tmp_path / "go"), infra=remote)
    job = task.infra.job()
    assert not job.done()
    assert task.infra.job() is job
    again = Waits(x=5, infra=remote).infra.job()
    assert not again.done()
    (tmp_path / "go").touch()
    assert (job.result(), again.result(), task.fit()) == (5, 5, 5)
    assert job.done() and job.exception() is None
    assert notes() == ["fit 5"]


@pytest.mark.app
def test_a_job_of_what_is_stored_is_done(infra: dict[str, tp.Any], notes: tp.Any) -> None:
    task = Counted(x=3, infra=infra)
    assert task.fit() == 30
    job = Counted(x=3, infra=infra).infra.job()
    assert job.done()
    job.wait()
    assert job.result() == task.infra.job().result() == task.fit()
    assert notes() == ["fit 3"]


def test_a_job_without_a_folder_has_the_result() -> None:
    job = Counted(x=3).infra.job()
    assert job.done() and job.result() == 30 and job.exception() is None
    job.cancel()


def test_a_job_without_a_folder_tells_its_error_when_asked() -> None:
    job = Fails(x=2).infra.job()
    assert isinstance(job.exception(), Exception)


@pytest.mark.app
def test_a_job_shows_what_was_printed(remote: dict[str, tp.Any]) -> None:
    task = Talks(infra=remote)
    job = task.infra.job()
    assert job.result() == "said"
    assert "to stdout" in (job.stdout() or "")
    assert "to stderr" in (job.stderr() or "")
    later = Talks(infra=remote).infra.job()
    assert "to stdout" in (later.stdout() or "")


@pytest.mark.app
def test_a_job_that_failed_has_its_error(infra: dict[str, tp.Any]) -> None:
    job = Fails(x=2, infra=infra).infra.job()
    job.wait()
    error = job.exception()
    assert isinstance(error, TaskFailedError) and error.type == "ValueError"
    with pytest.raises(TaskFailedError, match="no luck with 2"):
        job.result()


@pytest.mark.app
def test_a_job_that_is_cancelled_is_lost(remote: dict[str, tp.Any], tmp_path: Path) -> None:
    task = Slow(infra=remote)
    job = task.infra.job()
    wait_for(tmp_path / "notes")
    job.cancel()
    assert isinstance(job.exception(), JobLostError)
    assert task.infra.status() == "not submitted"


@pytest.mark.app
def test_a_job_that_never_started_can_be_cancelled(folder: Path, tmp_path: Path) -> None:
    task = Waits(go=str(tmp_path / "go"), infra={"folder": folder, "cluster": "local"})
    job = task.infra.job()
    job.cancel()
    (tmp_path / "go").touch()
    job.wait()
    assert job.done()


@pytest.mark.app
def test_a_cleared_job_is_forgotten(infra: dict[str, tp.Any], notes: tp.Any) -> None:
    task = Counted(x=3, infra={**infra, "keep_in_ram": True})
    task.fit()
    task.infra.clear_job()
    assert task.infra.status() == "not submitted"
    assert task.fit() == 30
    assert notes() == ["fit 3"] * 2


@pytest.mark.app
def test_clearing_cancels_a_job_that_runs(remote: dict[str, tp.Any], tmp_path: Path, notes: tp.Any) -> None:
    task = Slow(infra=remote)
    task.infra.job()
    wait_for(tmp_path / "notes")
    task.infra.clear_job()
    assert task.infra.status() == "not submitted"
    if remote["cluster"] == "local":
        pid = int(notes()[0].split()[1])
        wait_until(lambda: not _computes(pid), "the process to end")


def _computes(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.app
def test_clearing_what_was_never_submitted_does_nothing(folder: Path) -> None:
    Counted(infra={"folder": folder}).infra.clear_job()
    Counted().infra.clear_job()
    assert not folder.exists()


@pytest.mark.app
def test_clearing_a_failed_task_lets_it_run_again(folder: Path, tmp_path: Path) -> None:
    task = Flaky(cure=str(tmp_path / "cure"), infra={"folder": folder})
    with pytest.raises(TaskFailedError):
        task.fit()
    (tmp_path / "cure").touch()
    task.infra.clear_job()
    assert task.fit() == 1


# -- arrays -----------------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_an_array_computes_its_tasks(infra: dict[str, tp.Any], notes: tp.Any) -> None:
    base = Counted(infra=infra)
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(x=x) for x in range(4))
        assert notes() == []
    assert [task.fit() for task in array] == [0, 10, 20, 30]
    assert notes() == ["fit 0", "fit 1", "fit 2", "fit 3"]


@pytest.mark.app
def test_an_array_is_not_waited_for(remote: dict[str, tp.Any], tmp_path: Path, notes: tp.Any) -> None:
    base = Waits(go=str(tmp_path / "go"), infra=remote)
    with base.infra.job_array(max_workers=2) as array:
        array.extend(base.infra.clone_obj(x=x) for x in (1, 2, 3))
    assert [task.infra.status() for task in array] == ["running"] * 3
    with base.infra.job_array() as again:
        again.extend(base.infra.clone_obj(x=x) for x in (3, 4))
    (tmp_path / "go").touch()
    assert [task.fit() for task in (*array, *again)] == [1, 2, 3, 3, 4]
    assert notes() == ["fit 1", "fit 2", "fit 3", "fit 4"]


@pytest.mark.app
def test_an_array_submits_only_what_is_missing(infra: dict[str, tp.Any], folder: Path, notes: tp.Any) -> None:
    base = Counted(infra=infra)
    base.infra.clone_obj(x=2).fit()
    launches = len(list((folder / "launches").iterdir()))
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(x=x) for x in (1, 2, 3))
    assert [task.infra.job().result() for task in array] == [10, 20, 30]
    assert notes() == ["fit 1", "fit 2", "fit 3"]
    assert len(list((folder / "launches").iterdir())) == launches + 1


@pytest.mark.app
def test_an_array_of_what_is_stored_writes_nothing(folder: Path, notes: tp.Any) -> None:
    base = Counted(infra={"folder": folder})
    base.fit()
    before = tree(folder)
    with base.infra.job_array() as array:
        array.append(base.infra.clone_obj())
    assert array[0].fit() == 10
    assert tree(folder) == before


def test_an_array_with_an_error_inside_submits_nothing(folder: Path, notes: tp.Any) -> None:
    base = Counted(infra={"folder": folder})
    with pytest.raises(ZeroDivisionError), base.infra.job_array() as array:
        array.append(1 / 0)
    assert notes() == [] and base.infra.status() == "not submitted"


def test_an_empty_array_is_refused_unless_allowed(folder: Path) -> None:
    base = Counted(infra={"folder": folder})
    with pytest.raises(ConfigError, match="allow_empty"), base.infra.job_array():
        pass
    with base.infra.job_array(allow_empty=True) as array:
        pass
    assert array == []


@pytest.mark.app
def test_repeated_tasks_are_refused_with_both_configs_unless_allowed(infra: dict[str, tp.Any], notes: tp.Any) -> None:
    base = Counted(infra=infra)
    same = [base.infra.clone_obj(x=3, device=device) for device in ("cpu", "cuda")]
    with pytest.raises(ConfigError, match="allow_repeated_tasks") as caught, base.infra.job_array() as array:
        array.extend(same)
    assert "device: cpu" in str(caught.value) and "device: cuda" in str(caught.value)
    assert notes() == []
    with base.infra.job_array(allow_repeated_tasks=True) as array:
        array.extend(same)
    assert [task.fit() for task in array] == [30, 30]
    assert notes() == ["fit 3"]


def test_the_same_object_twice_is_a_repeated_task(folder: Path) -> None:
    base = Counted(infra={"folder": folder})
    with pytest.raises(ConfigError, match="allow_repeated_tasks"), base.infra.job_array() as array:
        array.extend([base, base])


@pytest.mark.app
def test_repeated_tasks_of_two_folders_are_no_repetition(folder: Path, tmp_path: Path, notes: tp.Any) -> None:
    base = Counted(infra={"folder": folder})
    with base.infra.job_array() as array:
        array.extend([base, Counted(infra={"folder": tmp_path / "other"})])
    assert [task.infra.status() for task in array] == ["completed"] * 2
    assert notes() == ["fit 1"] * 2


def test_an_array_takes_only_tasks_of_its_method(folder: Path) -> None:
    base = Counted(infra={"folder": folder})
    with pytest.raises(TypeError, match="no such method"), base.infra.job_array() as array:
        array.append(Waits(infra={"folder": folder}))


@pytest.mark.app
def test_an_array_of_a_failure_and_a_success_keeps_both(infra: dict[str, tp.Any]) -> None:
    base = Fails(infra=infra)
    ok = Counted(infra=infra)
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(x=x) for x in (1, 2))
    assert [type(task.infra.job().exception()) for task in array] == [TaskFailedError] * 2
    assert ok.fit() == 10


def test_an_array_without_a_folder_computes(notes: tp.Any) -> None:
    base = Counted()
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(x=x) for x in (1, 2))
    assert [task.infra.job().result() for task in array] == [10, 20]
    assert notes() == ["fit 1", "fit 2"]


@pytest.mark.app
def test_jobs_beyond_max_workers_start_though_nobody_asks(folder: Path, tmp_path: Path) -> None:
    base = Counted(infra={"folder": folder, "cluster": "local"})
    with base.infra.job_array(max_workers=1) as array:
        array.extend(base.infra.clone_obj(x=x) for x in range(3))
    wait_until(lambda: [task.infra.status() for task in array] == ["completed"] * 3, "all to be computed")


@pytest.mark.app
@pytest.mark.parametrize("mode", ["force", "retry"])
def test_modes_hold_for_an_array_once(mode: str, infra: dict[str, tp.Any], notes: tp.Any) -> None:
    Counted(x=1, infra=infra).fit()
    base = Counted(infra={**infra, "mode": mode})
    with base.infra.job_array() as array:
        array.extend(base.infra.clone_obj(x=x) for x in (1, 2))
    expected = ["fit 1", "fit 2"] if mode == "retry" else ["fit 1", "fit 1", "fit 2"]
    assert [task.fit() for task in array] == [10, 20]
    with base.infra.job_array() as again:
        again.extend(array)
    assert [task.fit() for task in array] == [10, 20]
    assert notes() == expected


@pytest.mark.app
def test_a_job_can_be_cancelled_before_it_has_started(folder: Path, tmp_path: Path) -> None:
    tasks = [Waits(x=x, go=str(tmp_path / "go"), infra={"folder": folder, "cluster": "local"}) for x in range(12)]
    with tasks[0].infra.job_array() as array:
        array.extend(tasks)
    last = tasks[-1].infra.job()
    last.cancel()
    error = last.exception()
    assert isinstance(error, JobLostError) and "cancelled before it started" in str(error)
    for task in tasks[:-1]:
        task.infra.job().cancel()
    errors = [task.infra.job().exception() for task in tasks[:-1]]
    assert all(re.search("SIGTERM|cancelled", str(error)) for error in errors)


@pytest.mark.app
def test_the_log_of_a_job_that_failed_has_the_traceback(remote: dict[str, tp.Any]) -> None:
    job = Fails(infra=remote).infra.job()
    assert job.exception() is not None
    assert "infra_models.py" in (job.stderr() or "")


# -- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_a_stored_error_is_raised_again_in_mode_cached(infra: dict[str, tp.Any], notes: tp.Any) -> None:
    for _ in range(2):
        with pytest.raises(TaskFailedError, match="no luck"):
            Fails(x=2, infra=infra).fit()
    assert notes() == ["fit 2"]


@pytest.mark.app
def test_mode_retry_runs_what_failed_once(infra: dict[str, tp.Any], tmp_path: Path, notes: tp.Any) -> None:
    cure = tmp_path / "cure"
    with pytest.raises(TaskFailedError):
        Flaky(cure=str(cure), infra=infra).fit()
    task = Flaky(cure=str(cure), infra={**infra, "mode": "retry"})
    for _ in range(2):
        with pytest.raises(TaskFailedError):
            task.fit()
    assert notes() == ["fit 1"] * 2
    cure.touch()
    assert Flaky(cure=str(cure), infra={**infra, "mode": "retry"}).fit() == 1
    assert Flaky(infra={**infra, "mode": "retry"}).fit() == 1
    assert notes() == ["fit 1"] * 3


@pytest.mark.app
@pytest.mark.parametrize("keep_in_ram", [True, False])
def test_mode_force_computes_once_for_one_object(infra: dict[str, tp.Any], keep_in_ram: bool, notes: tp.Any) -> None:
    Counted(infra=infra).fit()
    task = Counted(infra={**infra, "mode": "force", "keep_in_ram": keep_in_ram})
    assert [task.fit(), task.fit(), task.infra.job().result()] == [10] * 3
    assert notes() == ["fit 1"] * 2
    Counted(infra={**infra, "mode": "force"}).fit()
    assert notes() == ["fit 1"] * 3


def test_mode_force_without_a_folder_computes_once_when_kept(notes: tp.Any) -> None:
    task = Counted(infra={"mode": "force", "keep_in_ram": True})
    assert [task.fit(), task.fit()] == [10, 10]
    assert notes() == ["fit 1"]


@pytest.mark.app
def test_mode_force_cancels_what_runs(remote: dict[str, tp.Any], tmp_path: Path, notes: tp.Any) -> None:
    go = tmp_path / "go"
    first = Waits(go=str(go), infra=remote).infra.job()
    wait_for(tmp_path / "notes")
    forced = Waits(go=str(go), infra={**remote, "mode": "force"}).infra.job()
    go.touch()
    assert (forced.result(), first.result()) == (1, 1)
    assert notes() == ["fit 1"] * 2


@pytest.mark.app
def test_mode_read_only_runs_nothing(infra: dict[str, tp.Any], notes: tp.Any) -> None:
    with pytest.raises(CacheError, match="read-only"):
        Counted(infra={**infra, "mode": "read-only"}).fit()
    assert notes() == [] and not Path(infra["folder"]).exists()
    Counted(infra=infra).fit()
    assert Counted(infra={**infra, "mode": "read-only"}).fit() == 10


def test_a_mode_is_checked() -> None:
    with pytest.raises(pydantic.ValidationError, match="mode"):
        TaskInfra(mode="forced")  # type: ignore[arg-type]


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_an_error_says_type_message_and_traceback_of_the_original(infra: dict[str, tp.Any]) -> None:
    with pytest.raises(TaskFailedError) as caught:
        Fails(x=2, infra=infra).fit()
    error = caught.value
    assert (error.type, error.text) == ("ValueError", "no luck with 2")
    assert "in helper" in error.traceback and "in fit" in error.traceback
    assert "no luck with 2" in str(error)
    assert "hydra_exca" not in error.traceback


@pytest.mark.app
def test_an_error_that_does_not_pickle_is_told_all_the_same(infra: dict[str, tp.Any]) -> None:
    with pytest.raises(TaskFailedError) as caught:
        Fails(x=1, infra=infra).fit()
    assert (caught.value.type, caught.value.text) == ("infra_models.OddError", "3 and 4")


def test_an_error_without_a_folder_is_told_the_same_way() -> None:
    with pytest.raises(TaskFailedError) as caught:
        Fails(x=2).fit()
    assert (caught.value.type, caught.value.text) == ("ValueError", "no luck with 2")
    assert "in helper" in caught.value.traceback


def test_a_field_without_a_rule_is_an_error_that_names_it(folder: Path) -> None:
    class Strange(pydantic.BaseModel):
        thing: tp.Any = None
        infra: TaskInfra = TaskInfra()

        @infra.apply
        def fit(self) -> int:
            return 1

    with pytest.raises(ConfigError, match="thing"):
        Strange(thing=object(), infra={"folder": folder}).fit()


# -- nested jobs ------------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_a_job_may_submit_jobs(infra: dict[str, tp.Any], notes: tp.Any) -> None:
    task = Parent(child={"infra": infra}, infra=infra)
    assert task.fit() == 31
    assert notes() == ["fit 0", "fit 1", "fit 2"]
    assert Counted(x=2, infra=infra).infra.status() == "completed"


# -- clones and configs -----------------------------------------------------------------------------------------------


class Cat(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: tp.Literal["cat"] = "cat"
    lives: int = 9
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def sound(self) -> str:
        return "meow" * self.lives


class Dog(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: tp.Literal["dog"] = "dog"
    size: int = 3


class Owner(pydantic.BaseModel):
    pet: Cat | Dog = pydantic.Field(Cat(), discriminator="name")
    options: dict[str, int] = {}
    path: Path = Path("here")
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> str:
        return self.pet.name


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ([{"child.x": 3}], {}),
        ([{"child": {"x": 3}}], {}),
        ([], {"child.x": 3}),
        ([], {"child": {"x": 3}}),
    ],
)
def test_a_clone_takes_changes_in_every_form(args: list[tp.Any], kwargs: dict[str, tp.Any], folder: Path) -> None:
    task = Parent(child={"coeff": 2}, infra={"folder": folder, "mode": "retry"})
    clone = task.infra.clone_obj(*args, **kwargs)
    assert (clone.child.x, clone.child.coeff) == (3, 2)
    assert (task.child.x, task.infra.settings()) == (1, clone.infra.settings())


def test_a_clone_with_replace_forgets_the_rest() -> None:
    task = Parent(child={"coeff": 2, "x": 5})
    clone = task.infra.clone_obj({"child": {"=replace=": True, "x": 3}})
    assert (clone.child.x, clone.child.coeff) == (3, 12)


def test_a_clone_without_changes_is_equal_and_another_object(folder: Path) -> None:
    task = Train(seed=3, shape=(1, 2), infra={"folder": folder})
    clone = task.infra.clone_obj()
    assert clone == task and clone is not task and clone.shape == (1, 2)
    assert clone.infra.uid() == task.infra.uid()


def test_a_clone_changes_its_infra() -> None:
    task = Train()
    assert task.infra.clone_obj({"infra.version": "2"}).infra.version == "2"
    assert task.infra.clone_obj({"infra": {"mode": "force"}}).infra.version == "1"


def test_a_clone_refuses_unknown_fields() -> None:
    with pytest.raises(pydantic.ValidationError, match="typo"):
        Train().infra.clone_obj(typo=3)


def test_a_clone_is_of_the_same_class() -> None:
    assert type(SubBase().infra.clone_obj(param=2)) is SubBase


def test_a_clone_shares_nothing_that_can_change() -> None:
    task = Owner(options={"a": 1})
    clone = task.infra.clone_obj()
    clone.options["a"] = 2
    clone.pet.lives = 1  # type: ignore[union-attr]
    assert task.options == {"a": 1} and task.pet == Cat()


def test_a_sub_config_with_a_discriminator_changes_class() -> None:
    task = Owner(pet=Cat(lives=3))
    clone = task.infra.clone_obj({"pet": {"name": "dog", "=replace=": True}})
    assert clone.pet == Dog()
    assert Owner().infra.clone_obj({"pet.name": "dog"}).pet == Dog()
    assert task.infra.clone_obj({"pet": Dog(size=4)}).pet == Dog(size=4)


class Siamese(Cat):
    name: tp.Literal["cat"] = "cat"
    blue: bool = pydantic.Field(False, alias="is blue")


def test_a_sub_config_keeps_its_class_unless_the_changes_need_another_one() -> None:
    task = Owner(pet=Siamese.model_validate({"is blue": True}))
    clone = task.infra.clone_obj({"pet.lives": 3})
    assert clone.pet == Siamese.model_validate({"lives": 3, "is blue": True})
    assert type(task.infra.clone_obj(path="there").pet) is Siamese
    assert type(clone.infra.clone_obj({"pet": {"=replace=": True, "name": "cat"}}).pet) is Cat
    assert clone.infra.clone_obj({"pet": {"name": "dog", "lives": "=delete=", "blue": "=delete="}}).pet == Dog()


def test_a_change_below_a_default_changes_the_default() -> None:
    class Has(pydantic.BaseModel):
        pet: Cat = Siamese(lives=5)
        options: dict[str, int] = {"a": 1}
        infra: TaskInfra = TaskInfra()

        @infra.apply
        def fit(self) -> None: ...

    assert Has().infra.clone_obj({"pet.name": "cat", "options.b": 2}).pet == Siamese(lives=5)
    assert Has().infra.clone_obj({"options.b": 2}).options == {"a": 1, "b": 2}


def test_a_discriminator_is_always_in_the_uid() -> None:
    assert "name" in Owner().infra.uid() and "dog" in Owner(pet=Dog()).infra.uid()
    assert Owner().infra.config(exclude_defaults=True) == {"pet": {"name": "cat"}}


def test_the_config_is_what_the_documentation_shows(folder: Path) -> None:
    task = Train(coeff=3, device="cuda", infra={"folder": folder})
    clone = task.infra.clone_obj()
    assert task.infra.config(uid=False, exclude_defaults=False)["device"] == "cuda"
    assert task.infra.config(uid=True, exclude_defaults=False) == {
        "seed": 12,
        "shape": (3, 4),
        "coeff": 3.0,
        "infra": {"version": "1"},
    }
    assert task.infra.config(uid=True, exclude_defaults=True) == {"coeff": 3.0}
    assert clone == task


class Documented(pydantic.BaseModel):
    """The issue's examples show the device: theirs is a class that does not leave it out."""

    seed: int = 12
    shape: tuple[int, int] = (3, 4)
    coeff: float = 12.0
    device: str = "cpu"
    infra: TaskInfra = TaskInfra(version="1")

    @infra.apply
    def fit(self) -> int:
        return 1


def test_the_two_configs_of_the_issue(folder: Path) -> None:
    task = Documented(coeff=3, device="cuda", infra={"folder": folder, "mode": "retry"})
    config = task.infra.config(uid=True, exclude_defaults=False)
    assert config == {"seed": 12, "shape": (3, 4), "coeff": 3.0, "device": "cuda", "infra": {"version": "1"}}
    assert list(config) == ["seed", "shape", "coeff", "device", "infra"]
    assert task.infra.config(uid=True, exclude_defaults=True) == {"coeff": 3.0, "device": "cuda"}


def test_a_config_with_uid_leaves_out_what_the_cache_does() -> None:
    task = Counted(x=2, coeff=3, device="cuda")
    assert task.infra.config() == {"x": 2, "infra": {"version": "1"}}
    assert task.infra.config(exclude_defaults=True) == {"x": 2}


def test_a_config_without_uid_makes_an_equal_object(folder: Path) -> None:
    for lean in (True, False):
        task = Parent(child={"coeff": 2}, infra={"folder": folder, "mode": "force"})
        assert Parent(**task.infra.config(uid=False, exclude_defaults=lean)) == task


def test_a_uid_names_factory_version_and_fields(folder: Path) -> None:
    assert Counted().infra.uid() == "infra_models.Counted.fit,1/default"
    assert Counted(x=3).infra.uid().startswith("infra_models.Counted.fit,1/x=3-")
    assert Counted(x=3, infra={"folder": folder}).infra.uid() == Counted(x=3).infra.uid()


@pytest.mark.app
def test_the_folder_of_a_uid_is_made_when_asked(folder: Path) -> None:
    task = Counted(x=3, infra={"folder": folder})
    assert task.infra.uid_folder() == folder / task.infra.uid()
    assert not folder.exists()
    made = task.infra.uid_folder(create=True)
    assert made == folder / task.infra.uid() and made.is_dir()
    assert task.infra.status() == "not submitted"
    assert task.fit() == 30
    assert (made / "config.yaml").exists() and (made / "outcome.json").exists()


@pytest.mark.app
def test_the_folder_may_be_relative_or_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Counted(infra={"folder": "cache"}).fit()
    assert Counted(infra={"folder": "~/cache"}).infra.status() == "completed"


def test_an_object_knows_all_its_infras(folder: Path) -> None:
    task = Owner()
    assert {name: infra is not None for name, infra in task.infra.obj_infras().items()} == {
        "infra": True,
        "pet.infra": True,
    }
    assert task.infra.obj_infras()["pet.infra"] is task.pet.infra  # type: ignore[union-attr]
    assert list(Private()._infra.obj_infras()) == ["_infra"]


def test_a_subclass_binds_the_private_infras_of_its_bases_whatever_it_does_after_validation() -> None:
    class Later(Private):
        y: int = 1

        def model_post_init(self, context: tp.Any) -> None:
            self.y = 2

    assert Later(x=2)._infra.uid().endswith(f"x=2,y=2-{Later(x=2)._infra.uid()[-8:]}")
    assert list(Later()._infra.obj_infras()) == ["_infra"]


def test_an_infra_on_its_own_says_that_it_has_no_object() -> None:
    for ask in ("uid", "job", "config", "clone_obj", "obj_infras"):
        with pytest.raises(RuntimeError, match="not tied"):
            getattr(TaskInfra(), ask)()
    with pytest.raises(RuntimeError, match="not tied"):
        TaskInfra(folder="somewhere").status()


# -- clusters ---------------------------------------------------------------------------------------------------------


def test_the_options_of_submitit_have_the_names_of_exca() -> None:
    settings: dict[str, tp.Any] = {
        "job_name": "name",
        "timeout_min": 10,
        "nodes": 1,
        "tasks_per_node": 1,
        "cpus_per_task": 1,
        "gpus_per_node": 0,
        "mem_gb": 1.5,
        "slurm_partition": "p",
        "slurm_constraint": "c",
        "slurm_account": "a",
        "slurm_qos": "q",
        "slurm_use_srun": False,
        "slurm_additional_parameters": {"nice": 10},
        "slurm_setup": ["echo hello"],
    }
    refused = [name for name, value in settings.items() if not _accepts(name, value)]
    assert refused == []


def _accepts(name: str, value: tp.Any) -> bool:
    try:
        TaskInfra(**{name: value})
    except pydantic.ValidationError:
        return False
    return True


@pytest.mark.slurm
def test_slurm_gets_the_options(folder: Path) -> None:
    infra = {"folder": folder, "cluster": "slurm", "job_name": "mine", "timeout_min": 3, "slurm_setup": ["echo set"]}
    assert Counted(infra=infra).fit() == 10
    script = next((folder / "launches").rglob("*.sh")).read_text()
    assert "--job-name=mine" in script and "--time=3" in script and "echo set" in script


@pytest.mark.slurm
def test_several_tasks_per_node_return_the_first_ones_result(folder: Path) -> None:
    infra = {"folder": folder, "cluster": "slurm", "tasks_per_node": 2, "slurm_use_srun": True}
    assert Counted(x=2, infra=infra).fit() == 20


@pytest.mark.app
@pytest.mark.parametrize("cluster", ["auto"])
def test_auto_is_local_without_a_scheduler(cluster: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert Counted(x=2, infra={"folder": folder, "cluster": cluster}).fit() == 20


@pytest.mark.app
def test_a_cluster_changes_no_identity(folder: Path, notes: tp.Any) -> None:
    for cluster in (None, "local", "debug"):
        Counted(infra={"folder": folder, "cluster": cluster}).fit()
    assert notes() == ["fit 1"]


class Imports(pydantic.BaseModel):
    kind: pydantic.ImportString[tp.Any] = dict
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> str:
        return str(self.kind.__name__)


@pytest.mark.app
def test_a_field_with_a_class_is_stored_and_read_back(tmp_path: Path) -> None:
    model = Imports(kind="collections.Counter", infra={"folder": tmp_path})
    assert [model.fit(), Imports(kind="collections.Counter", infra={"folder": tmp_path}).fit()] == ["Counter"] * 2
    assert [stored.kind.__name__ for stored in model.infra.iter_cached()] == ["Counter"]


@pytest.mark.app
def test_a_description_that_cannot_be_written_does_not_stop_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(config: object) -> str:
        raise ValueError("no text for this")

    monkeypatch.setattr(ConfDict, "to_yaml", fail)
    assert Imports(infra={"folder": tmp_path}).fit() == "dict"
    assert "config.yaml is not written: no text for this" in caplog.text
    caplog.clear()
    assert Imports(infra={"folder": tmp_path}).fit() == "dict"
    assert not caplog.text


@pytest.mark.app
@pytest.mark.parametrize("cluster", JOBS_OF_THEIR_OWN)
def test_submitit_knows_the_job_that_a_task_runs_in(tmp_path: Path, cluster: str) -> None:
    task = AsksSubmitit(infra={"folder": tmp_path, "cluster": cluster})  # type: ignore[arg-type]
    name, job, count, rank, folder = task.fit()
    (outcome,) = tmp_path.glob("*/*/outcome.json")
    assert (name, count, rank) == (cluster, 1, 0) and f'"job":"{job}"' in outcome.read_text()
    assert Path(folder).parent == tmp_path / "launches"
