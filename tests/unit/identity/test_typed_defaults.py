"""A default is compared as its field's type holds it: ``lr: float = 3`` given 3.0 is the default."""

from __future__ import annotations

import dataclasses
import enum
import pathlib
import subprocess
import sys
import typing as tp

import annotated_types
import pydantic
import pytest

from hydra_exca.confdict import ConfDict
from hydra_exca.identity import uid


class Mode(enum.Enum):
    FAST = "fast"


class Optim(pydantic.BaseModel):
    lr: float = 3
    steps: int = 1


@dataclasses.dataclass
class Plain:
    lr: float = 3


@pydantic.dataclasses.dataclass
class Checked:
    lr: float = 3


class Cat(pydantic.BaseModel):
    kind: tp.Literal["cat"] = "cat"
    lives: float = 9


class Dog(pydantic.BaseModel):
    kind: tp.Literal["dog"] = "dog"


def lowered(text: str) -> str:
    return text.lower()


def refuse(value: tp.Any) -> tp.Any:
    raise ValueError(value)


Lower = tp.Annotated[str, pydantic.AfterValidator(lowered)]
# the type of a field, its default, and another value
FIELDS: dict[str, tuple[tp.Any, tp.Any, tp.Any]] = {
    "float": (float, 3, 4.0),
    "optional": (float | None, 3, None),
    "old optional": (tp.Optional[float], 3, None),  # noqa: UP045 - as many write it
    "union": (float | str, 3, "3"),
    "bool in int": (int, True, 2),
    "text in int": (int, "3", 4),
    "path": (pathlib.Path, "a/b", "c"),
    "tuple of floats": (tuple[float, ...], [1, 2], [1, 2, 3]),
    "list of floats": (list[float], (1, 2), (1, 3)),
    "set": (set[float], [1, 2], [1]),
    "frozenset": (frozenset[int], {1, 2}, {1}),
    "dict": (dict[str, float], {"a": 1}, {"a": 2}),
    "enum": (Mode, "fast", None),
    "model": (Optim, {"lr": 3, "steps": 2}, {"steps": 3}),
    "models": (list[Optim], [{"lr": 4}], [{}]),
    "model by name": (dict[str, Optim], {"a": {"lr": 4}}, {}),
    "dataclass": (Plain, {"lr": 4}, {}),
    "checked dataclass": (Checked, {"lr": 4}, {}),
    "annotated": (Lower, "adam", "sgd"),
    "list of annotated": (list[Lower], ["adam"], []),
    "constrained": (tp.Annotated[float, annotated_types.Ge(0)], 3, 4),
    "before": (tp.Annotated[float, pydantic.BeforeValidator(float)], "3", 4),
    "decimal": (tp.Annotated[float, "unit: m"], 3, 4),
}


def model_of(kind: tp.Any, default: tp.Any, **config: tp.Any) -> type[pydantic.BaseModel]:
    return pydantic.create_model("Model", __config__=config or None, x=(kind, default))


def identity(model: pydantic.BaseModel) -> uid.Identity:
    fields, full, _ = uid.model_fields(model)
    return uid.make_identity("f", "0", fields, full)


@pytest.mark.parametrize("name", FIELDS)
def test_a_default_given_as_a_value_is_the_default(name: str) -> None:
    kind, default, other = FIELDS[name]
    cls = model_of(kind, default)
    unset, given = identity(cls()), identity(cls(x=default))
    assert (unset.uid(), unset.fields) == ("default", {})
    assert given.to_json() == unset.to_json()
    held = cls(x=default)
    assert identity(cls(x=held.x)).to_json() == unset.to_json()
    if name != "enum":
        assert identity(cls(x=other)).uid() != "default"


@pytest.mark.parametrize("name", FIELDS)
def test_a_validated_default_is_the_default(name: str) -> None:
    kind, default, _ = FIELDS[name]
    cls = model_of(kind, default, validate_default=True)
    assert identity(cls()).uid() == identity(cls(x=default)).uid() == "default"


@pytest.mark.parametrize("name", FIELDS)
def test_the_default_of_a_factory_is_compared_alike(name: str) -> None:
    kind, default, _ = FIELDS[name]
    cls = model_of(kind, pydantic.Field(default_factory=lambda: default))
    assert identity(cls()).uid() == identity(cls(x=default)).uid() == "default"


@pytest.mark.parametrize("name", FIELDS)
def test_what_was_stored_with_the_default_is_found_and_not_refused(name: str) -> None:
    kind, default, _ = FIELDS[name]
    cls = model_of(kind, default)
    stored = {"fields": {}, "full": {"x": uid.canonical({"x": cls().x})["x"]}}
    if name in ("model", "models", "model by name", "dataclass", "checked dataclass"):
        stored["full"] = identity(cls()).full  # a dict where a model is expected has a form of its own
    for today in (identity(cls()), identity(cls(x=default))):
        assert uid.changed_defaults(stored, today) == []


# types that make another value of their default, and not the same one of another type
CHANGING: dict[str, tuple[tp.Any, tp.Any]] = {
    "text": (Lower, "Adam"),
    "number": (tp.Annotated[int, pydantic.AfterValidator(abs)], -1),
    "in a list": (list[Lower], ["Adam"]),
    "in a dict": (dict[str, Lower], {"a": "Adam"}),
    "path": (tp.Annotated[pathlib.Path, pydantic.AfterValidator(pathlib.Path.absolute)], pathlib.Path("a")),
    "sorted": (tp.Annotated[list[int], pydantic.AfterValidator(sorted)], [2, 1]),
}


@pytest.mark.parametrize("name", CHANGING)
def test_a_value_that_a_validator_makes_of_a_default_is_another_task(name: str) -> None:
    """Nobody validates the default itself: the model holds what is written, and its results are of that."""
    cls = model_of(*CHANGING[name])
    default, given = cls(), cls(x=CHANGING[name][1])
    assert default != given and identity(default).uid() == "default" != identity(given).uid()


@pytest.mark.parametrize("name", CHANGING)
@pytest.mark.parametrize("whose", ["of the model", "of the field"])
def test_a_default_that_is_always_validated_is_what_its_validators_make_of_it(name: str, whose: str) -> None:
    kind, default = CHANGING[name]
    cls = model_of(kind, default, validate_default=True)
    if whose == "of the field":
        cls = model_of(kind, pydantic.Field(default, validate_default=True))
    assert identity(cls()).uid() == identity(cls(x=default)).uid() == "default"


def test_a_mistyped_default_of_a_sub_model_makes_no_other_parent() -> None:
    class Parent(pydantic.BaseModel):
        one: Optim = Optim()
        many: list[Optim] = [Optim()]
        plain: Plain = Plain()

    given = Parent(one=Optim(lr=3), many=[Optim(lr=3.0)], plain=Plain(lr=3.0))
    assert identity(given).to_json() == identity(Parent()).to_json()
    assert identity(Parent(one=Optim(lr=4))).fields == {"one": {"lr": 4.0}}
    assert identity(Parent(one=Optim(lr=3, steps=2))).fields == {"one": {"steps": 2}}


def test_a_discriminated_default_given_as_a_dict_is_always_in_the_uid() -> None:
    cls = model_of(tp.Annotated[Cat | Dog, pydantic.Field(discriminator="kind")], {"kind": "cat"})
    assert identity(cls()).uid() == identity(cls(x={"kind": "cat"})).uid()
    assert identity(cls()).uid() != identity(cls(x={"kind": "dog"})).uid()


def test_the_config_of_a_model_says_how_a_default_is_held() -> None:
    stripped = model_of(str, " a ", str_strip_whitespace=True)
    assert identity(stripped()).uid() == "default" != identity(stripped(x=" a ")).uid()
    values = model_of(Mode, Mode.FAST, use_enum_values=True)
    assert identity(values(x="fast")).uid() == "default"


def test_a_default_that_its_type_refuses_is_what_is_written() -> None:
    cls = model_of(tp.Annotated[int, pydantic.AfterValidator(refuse)], 3)
    assert identity(cls()).uid() == "default"
    none = model_of(int, None)
    assert identity(none()).uid() == "default" and identity(none(x=0)).uid() != "default"


def test_types_count_where_the_type_holds_both() -> None:
    cls = model_of(int | float, 3)
    assert identity(cls(x=3.0)).uid() != "default"
    anything = model_of(tp.Any, 3)
    assert identity(anything(x=3.0)).uid() != "default"


def test_the_default_of_a_field_is_not_changed() -> None:
    default = {"lr": 3}
    cls = model_of(Optim, default)
    identity(cls(x=Optim(lr=3)))
    assert default == {"lr": 3} and cls.model_fields["x"].default is default


def test_values_outside_of_models_keep_their_types() -> None:
    assert uid.canonical(Optim(lr=3.0))["lr"] == 3.0
    assert uid.encode(uid.canonical(Plain(3))) != uid.encode(uid.canonical(Plain(3.0)))


def test_a_configuration_without_defaults_agrees_with_the_uid() -> None:
    assert ConfDict.from_model(Optim(lr=3.0), exclude_defaults=True) == {}


@pytest.mark.app
def test_a_list_made_of_a_set_does_not_depend_on_the_hash_seed() -> None:
    code = (
        "import pydantic\nfrom hydra_exca.identity import uid\n"
        "class M(pydantic.BaseModel):\n    x: list[str] = {'alpha', 'beta', 'gamma'}\n"
        "print(uid.model_fields(M(x=['alpha', 'beta', 'gamma'])))"
    )
    seeds = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": str(seed)})
        for seed in range(4)
    ]
    assert len({each.stdout for each in seeds}) == 1 and all(each.stdout for each in seeds)
