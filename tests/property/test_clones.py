"""clone_obj: a clone without changes is the same task, and one with a change differs in that alone."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import typing as tp
import uuid
from pathlib import Path

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import examples

from hydra_exca import ConfDict, MapInfra, TaskInfra


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Animal(pydantic.BaseModel):
    legs: int = 4


class Dog(Animal):
    size: float = 3.0


class Guide(Dog):
    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    owner: str = pydantic.Field("nobody", alias="the owner")


class Sgd(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    kind: tp.Literal["sgd"] = "sgd"
    lr: float = 0.1


class Adam(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    kind: tp.Literal["adam"] = "adam"
    lr: float = 0.1
    beta: float = pydantic.Field(0.9, validation_alias="b2")


class Amsgrad(Adam):
    decay: int = 0


@dataclasses.dataclass
class Window:
    width: int = 1
    inside: Animal = dataclasses.field(default_factory=Animal)


@dataclasses.dataclass
class Wide(Window):
    unit: str = "m"


@pydantic.dataclasses.dataclass
class Checked:
    depth: int = 1


class Inner(pydantic.BaseModel):
    y: int = 1
    infra: TaskInfra = TaskInfra(version="3")

    @infra.apply
    def fit(self) -> int:
        return self.y


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Everything(pydantic.BaseModel):
    """What pydantic can do to a field."""

    model_config = pydantic.ConfigDict(extra="allow", arbitrary_types_allowed=True)

    plain: int = 1
    renamed: float = pydantic.Field(1.0, alias="other name")
    read_from: int = pydantic.Field(0, validation_alias=pydantic.AliasChoices("one", "two"))
    first: int = pydantic.Field(0, validation_alias=pydantic.AliasPath("pair", 0))
    second: int = pydantic.Field(0, validation_alias=pydantic.AliasPath("pair", 1))
    hidden: int = pydantic.Field(0, exclude=True)
    pet: Animal = Animal()
    pets: list[Animal] = []
    by_name: dict[str, Animal] = {}
    by_number: dict[int, tuple[Animal, ...]] = {}
    optim: Sgd | Adam = pydantic.Field(Sgd(), discriminator="kind")
    window: Window = Window()
    checked: Checked = Checked()
    numbers: Numbers = Numbers([1])
    color: Color = Color.RED
    hexadecimal: tp.Annotated[int, pydantic.BeforeValidator(lambda text: int(text, 16))] = 0
    path: Path = Path("here")
    wild: tp.Any = None
    token: str = pydantic.Field(default_factory=lambda: uuid.uuid4().hex)
    doubled: int = 0
    inner: Inner = Inner()
    infra: TaskInfra = TaskInfra(version="1")
    _private: int = 0
    _features: MapInfra = MapInfra()

    @pydantic.field_validator("doubled")
    @classmethod
    def _double(cls, value: int) -> int:
        return 2 * value

    @pydantic.field_serializer("plain")
    def _serialize(self, value: int) -> str:
        return "no number"

    @pydantic.model_serializer
    def _serialize_all(self) -> dict[str, tp.Any]:
        return {"nothing": "of it"}

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        return self.plain + self.hidden

    def model_post_init(self, context: tp.Any) -> None:
        self._private = self.plain

    @infra.apply
    def fit(self) -> int:
        return self.plain

    @_features.apply(item_uid=str)
    def each(self, items: list[int]) -> tp.Iterator[int]:
        yield from items


class Frozen(Everything):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


small = st.integers(-3, 3)
animals = st.one_of(
    st.builds(Animal, legs=small),
    st.builds(Dog, legs=small, size=st.floats(0, 1)),
    st.builds(
        lambda legs, name, more: Guide(**{"legs": legs, "the owner": name, **more}),
        small,
        st.text(max_size=3),
        st.dictionaries(st.sampled_from(["race", "age"]), small),
    ),
)
optims = st.one_of(
    st.builds(Sgd, lr=st.floats(0, 1)),
    st.builds(lambda lr, beta: Adam(lr=lr, b2=beta), st.floats(0, 1), st.floats(0, 1)),
    st.builds(lambda beta, decay: Amsgrad(b2=beta, decay=decay), st.floats(0, 1), small),
)
windows = st.one_of(st.builds(Window, small, animals), st.builds(Wide, small, animals, st.sampled_from("mk")))
VALUES: dict[str, st.SearchStrategy[tp.Any]] = {
    "plain": small,
    "other name": st.floats(0, 1),
    "one": small,
    "pair": st.tuples(small, small),
    "hidden": small,
    "pet": animals,
    "pets": st.lists(animals, max_size=3),
    "by_name": st.dictionaries(st.sampled_from(["a", "b.c", "d"]), animals),
    "by_number": st.dictionaries(small, st.lists(animals, max_size=2)),
    "optim": optims,
    "window": windows,
    "checked": st.builds(Checked, small),
    "numbers": st.lists(small, max_size=3),
    "color": st.sampled_from(Color),
    "hexadecimal": st.sampled_from(["ff", "10"]),
    "path": st.sampled_from([Path("there"), "a/b"]),
    "wild": st.one_of(
        animals,
        st.lists(animals),
        st.just(ConfDict({"a.b": 1})),
        st.just({"x.y": {1: 2}}),
        st.just(collections.OrderedDict(b=1, a=2)),
        st.just({3, 4}),
    ),
    "doubled": small,
    "inner": st.builds(lambda y, version: Inner(y=y, infra={"version": version}), small, st.sampled_from("34")),
    "infra": st.sampled_from([{"version": "2"}, {"mode": "retry", "folder": "cache"}, {"folder": None}]),
}


VALIDATED_ONCE = {"hexadecimal", "doubled"}  # what validation gives is no input, or another one


@st.composite
def models(draw: st.DrawFn, without: tp.Collection[str] = ()) -> Everything:
    chosen = draw(st.lists(st.sampled_from(sorted(VALUES.keys() - without)), unique=True))
    cls = draw(st.sampled_from([Everything, Frozen]))
    given = {name: draw(VALUES[name]) for name in chosen}
    if cls is Everything:
        given |= draw(st.dictionaries(st.sampled_from(["extra", "more"]), animals))
    model = cls(**given)
    model._features.version = draw(st.sampled_from("01"))
    return model


def types_of(value: tp.Any) -> tp.Any:
    """A value with the classes of all its parts."""
    if isinstance(value, pydantic.BaseModel) and not hasattr(value, "settings"):
        parts = {**dict(value), **(value.model_extra or {})}
        return type(value), {name: types_of(part) for name, part in parts.items()}, value.model_fields_set
    if dataclasses.is_dataclass(value):
        return type(value), {field.name: types_of(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return type(value), [(key, types_of(part)) for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), list(map(types_of, value))
    return type(value), value.settings() if hasattr(value, "settings") else value


@pytest.mark.property
@given(models())
@examples(300)
def test_a_clone_without_changes_is_the_same_task_of_the_same_classes(model: Everything) -> None:
    for clone in (model.infra.clone_obj(), model.infra.clone_obj({}), model.infra.clone_obj().infra.clone_obj()):
        assert clone.infra.identity() == model.infra.identity()
        assert clone._features.identity() == model._features.identity()
        assert types_of(clone) == types_of(model)
        assert clone._private == model._private and clone.infra is not model.infra


@pytest.mark.property
@given(models(without=VALIDATED_ONCE), st.data())
@examples(300)
def test_a_clone_with_a_changed_number_differs_in_that_alone(model: Everything, data: st.DataObject) -> None:
    names = ["plain", "pet.legs", "window.width", "checked.depth", "inner.y", "window.inside.legs"]
    names += [f"pets.{index}.legs" for index in range(len(model.pets))]
    names += [f"by_name.{name}.legs" for name in model.by_name if "." not in name]
    name = data.draw(st.sampled_from(names))
    clone = model.infra.clone_obj({name: 77})
    assert types_of(with_number(model, name)) == types_of(with_number(clone, name))
    assert number_at(clone, name) == 77
    assert clone.infra.identity() == with_number(model, name).infra.identity()


class Anything(pydantic.BaseModel):
    value: tp.Any = None
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 1


@pytest.mark.parametrize("before", [None, "a", [1], {"a": "b"}], ids=str)
@pytest.mark.parametrize("value", [{"a": 1}, {"a": {"b": [{"c": 1}]}}], ids=str)
def test_a_dictionary_in_a_patch_is_one_in_a_field_of_any_type(before: tp.Any, value: tp.Any) -> None:
    clone = Anything(value=before).infra.clone_obj({"value": value})
    assert types_of(clone.value) == types_of(value)
    assert clone.infra.identity() == Anything(value=value).infra.identity()


def number_at(model: Everything, name: str) -> tp.Any:
    return getattr(*owner_of(model, name))


def with_number(model: Everything, name: str) -> Everything:
    """A copy with the number set to 77 in place, and all marks of what was given removed."""
    copied = copy.deepcopy(model)
    owner, last = owner_of(copied, name)
    vars(owner)[last] = 77
    for part in parts_of(copied):
        part.model_fields_set.clear()
    return copied


def owner_of(model: Everything, name: str) -> tuple[tp.Any, str]:
    *parents, last = name.split(".")
    owner: tp.Any = model
    for parent in parents:
        is_list, is_dict = isinstance(owner, list), isinstance(owner, dict)
        owner = owner[int(parent)] if is_list else owner[parent] if is_dict else getattr(owner, parent)
    return owner, last


def parts_of(value: tp.Any) -> tp.Iterator[pydantic.BaseModel]:
    """A model and all models in it, but for infras."""
    children: tp.Iterable[tp.Any] = ()
    if isinstance(value, pydantic.BaseModel) and not hasattr(value, "settings"):
        yield value
        children = [*dict(value).values(), *(value.model_extra or {}).values()]
    elif dataclasses.is_dataclass(value):
        children = vars(value).values()
    elif isinstance(value, dict):
        children = value.values()
    elif isinstance(value, (list, tuple)):
        children = value
    for child in children:
        yield from parts_of(child)
