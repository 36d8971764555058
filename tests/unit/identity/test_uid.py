"""What makes two tasks the same: canonical form, fields of models, labels, stored identities."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import json
import math
import pathlib
import re
import subprocess
import sys
import typing as tp
import uuid
import zipfile
import zoneinfo

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import examples
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from typing_extensions import TypeAliasType

from hydra_exca.errors import ConfigError
from hydra_exca.identity import label, uid
from hydra_exca.identity import names as names_module

stable = examples(200)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    R = 1
    W = 2


class Text(str):
    __slots__ = ()


class Loaded(dict[str, int]):
    def __init__(self, *args: tp.Any) -> None:
        super().__init__(*args)
        self.more = 1


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Box:
    size: int = 1
    parts: list[int] = dataclasses.field(default_factory=list)


class Optim(BaseModel):
    lr: float = 0.1
    momentum: float = 0.9


class Fast(Optim):
    pass


class Cat(BaseModel):
    kind: tp.Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: tp.Literal["dog"] = "dog"
    lives: int = 9


Pet = tp.Annotated[Cat | Dog, Field(discriminator="kind")]
NAN = float("nan")
PARIS = zoneinfo.ZoneInfo("Europe/Paris")
NOON = datetime.datetime(2024, 1, 2, 12)

GOLDEN: list[tuple[str, tp.Any, str]] = [
    ("none", None, "897e8a6087e471a9"),
    ("true", True, "6875b7388c5df281"),
    ("int", 3, "7517743eb0ab97f5"),
    ("float", 3.0, "4eb900bac07c925d"),
    ("text", "3", "4c421696164c0ce9"),
    ("minus zero", -0.0, "bb642faadbfb1262"),
    ("nan", NAN, "0c77cd94ecfcdc90"),
    ("big int", 10**30, "04a908c6f5f3a544"),
    ("accents", "é😀", "cd44ad56c84db41f"),
    ("surrogates", "\ud83d\ude00", "aa76f88c528e3c9d"),
    ("list", [1, [2.5, None]], "1c94f1afe2f8a14a"),
    ("dict", {"b": 1, "a": {"~x": "y"}}, "7f0f385863baef9a"),
    ("keys", {1: "a", "1": "b", None: "c"}, "6f04357875032a09"),
    ("ordered", collections.OrderedDict(b=1, a=2), "7def4d705da2f46b"),
    ("set", {3, 1, 2}, "ee0d7f7af9d27cf1"),
    ("bytes", b"\x00\xff", "6a166683b6e797d6"),
    ("long bytes", b"a" * 100, "f84591c721564ec1"),
    ("path", pathlib.PurePosixPath("a/b.csv"), "65a5a75befed810f"),
    ("enum", Color.RED, "cfcb100e51db0852"),
    ("flag", Access.R | Access.W, "43b20a286e5e4f0b"),
    ("datetime", NOON, "a215ebe6f942afe0"),
    ("zoned", NOON.replace(tzinfo=PARIS), "3324368d935bf63c"),
    ("timedelta", datetime.timedelta(days=1, seconds=2), "20bac5b528b9ec9d"),
    ("decimal", decimal.Decimal("1.10"), "8383f837f9219b08"),
    ("fraction", fractions.Fraction(1, 3), "df0eed749f741e58"),
    ("complex", complex(1, -0.0), "a43a9a6d03af2f31"),
    ("uuid", uuid.UUID(int=7), "44430787baab9f28"),
    ("array", np.arange(6, dtype="int32").reshape(2, 3), "cd7a7be3574e38bb"),
    ("scalar", np.float64(3.0), "7ccd500ee99fd69b"),
    ("function", json.dumps, "a2270cf322777556"),
    ("class", pathlib.PurePosixPath, "23989355a8c1cff5"),  # of pathlib._local in Python 3.13
    ("class that moved", zipfile.Path, "0644c1a8967d0fa4"),  # of zipfile._path since Python 3.12
    ("run", uid.RunDependent("${now:%Y}"), "deebcce5aa09b1e1"),
    ("pinned", uid.Pinned("${oc.env:A}", "x"), "de83b903751485f1"),
    ("secret", pydantic.SecretStr("x"), "01289226dd56bbe2"),
]


@pytest.mark.parametrize(("value", "expected"), [case[1:] for case in GOLDEN], ids=[case[0] for case in GOLDEN])
def test_golden_values_never_change_without_the_scheme(value: tp.Any, expected: str) -> None:
    """If this fails, stored results are lost: change it only with SCHEME."""
    assert uid.SCHEME == 1
    assert uid.digest(uid.canonical(value))[:16] == expected


# -- canonical form -------------------------------------------------------------------------------------------------

DIFFERENT: list[tp.Any] = [
    *[None, "None", "", True, "True", False, 0, 0.0, -0.0, 1, 1.0, "1", 3, 3.0, "3", complex(3), decimal.Decimal(3)],
    *[NAN, math.inf, -math.inf, "nan", 2**63, float(2**63), -(2**63), 10**5000, fractions.Fraction(3)],
    *["\ud83d\ude00", "😀", "\ud800", "é", "e\u0301", Text("3"), Level.LOW, Color.RED, Color.BLUE, Access.R, Access(0)],
    *[[], {}, set(), b"", bytearray(), [[]], [None], [1, 2], [2, 1], {1, 2}, ["1", "2"], Point(1, 2), range(1, 2)],
    *[collections.deque([1, 2]), collections.deque([1, 2], 5), slice(1, 2), slice(1, 2, 1), ...],
    *[{"a": 1}, {"a": 1.0}, {"b": 1}, {1: 1}, {"1": 1}, {1.0: 1}, {True: 1}, {None: 1}, {(1,): 1}, {"a": {"b": 1}}],
    *[{"a.b": 1}, [["a", 1]], collections.OrderedDict(a=1), collections.OrderedDict(a=1, b=2)],
    *[collections.OrderedDict(b=2, a=1), collections.Counter(a=1), collections.defaultdict(int, a=1)],
    *[collections.defaultdict(list, a=1), {"~float": "nan"}, {"~~float": "nan"}, {"~dict": []}, {"~": 1}, {"~~": 1}],
    *[{"~class": "test_uid:Optim"}, {"~run": "x"}, uid.RunDependent("x"), uid.Pinned("x", 1), uid.Pinned("x", 2), "x"],
    *[b"a", b"a" * 64, b"a" * 65, "a", pathlib.PurePath("a"), pathlib.PurePath("b"), uuid.UUID(int=1)],
    *[
        NOON,
        NOON.date(),
        NOON.time(),
        NOON.isoformat(),
        NOON.replace(fold=1),
        NOON.replace(tzinfo=datetime.UTC),
    ],
    *[NOON.replace(tzinfo=PARIS), NOON.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=1)))],
    *[NOON.time().replace(tzinfo=PARIS), datetime.timedelta(1), datetime.timedelta(0, 1), decimal.Decimal("3.0")],
    *[re.compile("a"), re.compile(b"a"), re.compile("a", re.IGNORECASE), int, float, json.dumps, json.dump, len],
    *[functools.partial(json.dumps), functools.partial(json.dumps, indent=1), functools.partial(json.dumps, 1)],
    *[np.float64(3), np.float32(3), np.int64(3), np.bool_(True), np.str_("3"), np.datetime64("2020", "s")],
    *[np.datetime64("2020", "ms"), np.timedelta64(1, "s"), np.dtype("f4"), np.array(3.0), np.array([3.0])],
    *[np.array([1, 2]), np.array([1.0, 2.0]), np.array([[1, 2]]), np.array([1, 2], "i4"), np.array(["1", "2"])],
    *[np.zeros(0), np.zeros((0, 2)), np.array([-0.0]), np.array([0.0]), np.array(["2020"], "M8[D]")],
    *[Box(), Box(2), Optim(), Optim(lr=1), Fast(), {"lr": 0.1, "momentum": 0.9}, Optim, Box, Cat(), Dog()],
    *[pydantic.SecretStr("x"), pydantic.SecretBytes(b"x"), pydantic.SecretStr("y"), np.dtype("f8"), np.float32],
    *[pydantic.AnyUrl("http://a.b"), pydantic.HttpUrl("http://a.b"), pydantic.HttpUrl("http://a.c"), "http://a.b/"],
]


def test_no_two_different_values_share_a_form() -> None:
    seen: dict[bytes, tp.Any] = {}
    for value in DIFFERENT:
        code = uid.encode(uid.canonical(value))
        assert code not in seen, f"{value!r} and {seen[code]!r}"
        seen[code] = value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, (2,)], (1, [2])),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1: 1, None: 2}, {None: 2, 1: 1}),
        ({"c", "a", "b"}, frozenset({"b", "a", "c"})),
        ({frozenset({1, 2}), 3}, {3, frozenset({2, 1})}),
        (pathlib.Path("a/b"), pathlib.PurePosixPath("a/b")),
        (pathlib.PureWindowsPath(r"a\b"), pathlib.PurePosixPath("a/b")),
        (np.arange(4, dtype="<i4"), np.arange(4, dtype=">i4")),
        (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
        (np.arange(10)[::2], np.array([0, 2, 4, 6, 8])),
        (NAN, -NAN),
        (json.loads('"a"'), "a"),
    ],
)
def test_values_that_mean_the_same_share_a_form(one: tp.Any, other: tp.Any) -> None:
    assert uid.digest(uid.canonical(one)) == uid.digest(uid.canonical(other))


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=4)
    | st.sampled_from(["~", "~~", "~float", "~dict", "~str", "~class", "\ud83d\ude00", "😀", "1", 1, 1.0, True, 2**63])
    | st.binary(max_size=3)
    | st.decimals()
    | st.datetimes()
)
keys = st.text(max_size=2) | st.sampled_from(["~", "~~", "~float", "~dict", 1, "1", None, 2.5, "\ud800"])
values = st.recursive(
    scalars,
    lambda below: (
        st.lists(below, max_size=3) | st.lists(below, max_size=3).map(tuple) | st.dictionaries(keys, below, max_size=3)
    ),
    max_leaves=6,
)


def known_as(value: tp.Any) -> tp.Any:
    """A deep comparison that knows types, written independently of the canonical form."""
    if isinstance(value, (list, tuple)):
        return ("list", tuple(map(known_as, value)))
    if isinstance(value, dict):
        return ("dict", frozenset((known_as(key), known_as(child)) for key, child in value.items()))
    if isinstance(value, float):
        return ("float", "nan" if math.isnan(value) else value.hex())
    if isinstance(value, decimal.Decimal):
        return ("decimal", repr(value))
    if isinstance(value, datetime.datetime):
        return ("datetime", value.isoformat(), value.fold)
    return (type(value).__name__, value)


def turned(value: tp.Any) -> tp.Any:
    """The same value with its dicts filled in the other order, and lists for tuples."""
    if isinstance(value, (list, tuple)):
        return [turned(child) for child in value]
    if isinstance(value, dict):
        return {key: turned(child) for key, child in reversed(value.items())}
    return value


@stable
@given(values, values)
def test_encodings_are_equal_exactly_when_values_are(one: tp.Any, other: tp.Any) -> None:
    equal = uid.encode(uid.canonical(one)) == uid.encode(uid.canonical(other))
    assert equal == (known_as(one) == known_as(other))


@stable
@given(st.lists(values, min_size=2, max_size=40))
def test_no_two_of_many_values_collide(many: list[tp.Any]) -> None:
    assert len({uid.encode(uid.canonical(value)) for value in many}) == len(set(map(known_as, many)))


@stable
@given(values)
def test_insertion_order_never_counts(value: tp.Any) -> None:
    assert uid.encode(uid.canonical(value)) == uid.encode(uid.canonical(turned(value)))


@stable
@given(values)
def test_a_form_survives_being_stored(value: tp.Any) -> None:
    form = uid.canonical(value)
    assert uid.encode(json.loads(json.dumps(form))) == uid.encode(form)


def cycle() -> list[tp.Any]:
    value: list[tp.Any] = []
    value.append({"again": value})
    return value


def deep() -> list[tp.Any]:
    value: list[tp.Any] = []
    for _ in range(100_000):
        value = [value]
    return value


class FakeDate(datetime.datetime):
    pass


@pytest.mark.parametrize(
    "value",
    [
        object(),
        lambda: 1,
        (i for i in [1]),
        iter([1]),
        [].append,
        sys,
        test_insertion_order_never_counts.__code__,
        memoryview(b"a"),
        Loaded({"a": 1}),
        FakeDate(2024, 1, 1),
        np.array([object()]),
        np.zeros(2, "f4,i8"),
        np.ma.masked_array([1, 2], [True, False]),
        np.longdouble(1),
        cycle(),
        list[int],
        type("Local", (), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_rule_is_an_error_that_names_the_field(value: tp.Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.deep\.0\.field") as caught:
        uid.canonical({"deep": [{"field": value}]}, "data")
    assert caught.value.problems[0].key.startswith("data.deep.0.field")
    assert " at 0x" not in str(caught.value)


def test_a_structure_that_is_too_deep_is_an_error() -> None:
    with pytest.raises(ConfigError, match="data: is nested too deeply"):
        uid.canonical(deep(), "data")


def test_a_part_may_stand_twice() -> None:
    part = [1]
    assert uid.canonical([part, part]) == [[1], [1]]


def test_a_class_of_a_script_has_no_importable_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Box, "__module__", "__main__")
    with pytest.raises(ConfigError, match="Box' cannot be imported"):
        uid.canonical(Box)
    assert uid.canonical(Box()) == {"~class": "Box", "size": 1, "parts": []}


def test_what_is_pinned_or_secret_shows_only_a_digest() -> None:
    form = uid.canonical({"a": uid.Pinned("${oc.env:KEY}", "hunter2"), "b": pydantic.SecretStr("hunter2")})
    identity = uid.make_identity("f", "1", form)
    assert "hunter2" not in json.dumps(identity.to_json()) + identity.uid()
    assert form["a"] == {"~pinned": "${oc.env:KEY}", "sha256": uid.digest("hunter2")}
    assert uid.canonical(uid.RunDependent("${now:%H}")) == {"~run": "${now:%H}"}


@pytest.mark.app
def test_importing_takes_nothing_heavy() -> None:
    heavy = "{'numpy', 'torch', 'pandas', 'omegaconf', 'hydra'}"
    code = f"import sys, hydra_exca.identity.uid; print({heavy} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_tensors_count_by_type_shape_and_bytes() -> None:
    torch = pytest.importorskip("torch", exc_type=ImportError)
    data = torch.arange(6.0).reshape(2, 3)
    twins = [data, data.clone().requires_grad_(), torch.nn.Parameter(data), data.t().contiguous().t()]
    others = [data.t(), data.double(), data.bfloat16(), data.reshape(-1), data + 1, data.to(torch.complex64)]
    others += [torch.zeros(()), torch.zeros(0), torch.float32, torch.device("cpu"), np.arange(6.0).reshape(2, 3)]
    assert len({uid.digest(uid.canonical(twin)) for twin in twins}) == 1
    assert len({uid.digest(uid.canonical(other)) for other in [data, *others]}) == len(others) + 1
    assert uid.canonical(data.to(torch.complex64).conj()) == uid.canonical(
        data.to(torch.complex64).conj().resolve_conj()
    )
    with pytest.raises(ConfigError, match="dense"):
        uid.canonical(data.to_sparse())


# -- models: defaults -----------------------------------------------------------------------------------------------


class Task(BaseModel):
    seed: int = 1
    coeff: float = 2.0
    names: list[str] = ["a"]
    optim: Optim = Optim(lr=0.5)
    extra: dict[str, tp.Any] = {}
    made: list[int] = Field(default_factory=lambda: [1])


def fields(model: BaseModel) -> dict[str, tp.Any]:
    return uid.model_fields(model)[0]


def test_only_what_differs_from_the_defaults_is_in_the_fields() -> None:
    assert fields(Task()) == {}
    assert fields(Task(seed=1, names=["a"], made=[1])) == {}
    assert fields(Task(seed=3, made=[])) == {"seed": 3, "made": []}
    assert uid.model_fields(Task())[1] == {
        "seed": 1,
        "coeff": 2.0,
        "names": ["a"],
        "optim": {"lr": 0.5, "momentum": 0.9},
        "extra": {},
        "made": [1],
    }


def test_a_submodel_at_its_own_defaults_shows_when_the_parent_has_others() -> None:
    assert fields(Task(optim=Optim())) == {"optim": {}}
    assert fields(Task(optim=Optim(lr=0.5, momentum=0.8))) == {"optim": {"lr": 0.5, "momentum": 0.8}}


def test_a_value_that_only_equals_its_default_is_not_the_default() -> None:
    class Loose(BaseModel):
        x: tp.Any = 1
        z: tp.Any = 0.0

    assert fields(Loose(x=True)) == {"x": True}
    assert fields(Loose(x=1.0)) == {"x": 1.0}
    assert math.copysign(1, fields(Loose(z=-0.0))["z"]) == -1


def test_required_and_unknowable_defaults_are_always_in() -> None:
    def fail() -> int:
        raise RuntimeError

    class Asking(BaseModel):
        x: int
        y: int = Field(default_factory=fail)
        z: int = Field(default_factory=lambda data: data["x"])

    assert fields(Asking(x=1, y=2)) == {"x": 1, "y": 2, "z": 1}


@stable
@given(*[st.sampled_from([0.1, 0.5, 0.7])] * 4, *[st.sampled_from([[], ["a"], ["b"]])] * 2)
def test_two_models_share_fields_exactly_when_they_are_equal(
    lr: float, lr2: float, mom: float, mom2: float, names: list[str], names2: list[str]
) -> None:
    one = Task(optim=Optim(lr=lr, momentum=mom), names=names, extra={"o": Optim(lr=lr)})
    other = Task(optim=Optim(lr=lr2, momentum=mom2), names=names2, extra={"o": Optim(lr=lr2)})
    assert (fields(one) == fields(other)) == (one == other)


def test_reordering_a_class_changes_no_uid() -> None:
    class One(BaseModel):
        a: int = 1
        b: int = 1

    class Other(BaseModel):
        b: int = 1
        a: int = 1

    ids = [uid.make_identity("f", "1", fields(model)).uid() for model in (One(a=2, b=2), Other(a=2, b=2))]
    assert ids[0] == ids[1]


def test_extras_count_and_private_and_computed_do_not() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        x: int = Field(1, alias="ex")
        _private: int = 1

        @pydantic.computed_field
        def twice(self) -> int:
            return 2 * self.x

        @functools.cached_property
        def heavy(self) -> int:
            raise AssertionError

    model = Open.model_validate({"ex": 2, "note": "n", "~odd": 1})
    model._private = 5
    before = dict(vars(model))
    assert fields(model) == {"x": 2, "note": "n", "~~odd": 1}
    assert vars(model) == before
    assert fields(Open.model_validate({"ex": 2, "x": 7})) == {"x": 2, "~extra": {"x": 7}}


def test_extras_of_a_pydantic_dataclass_count() -> None:
    @pydantic.dataclasses.dataclass(config=ConfigDict(extra="allow"))
    class Open:
        x: int = 1

    assert uid.canonical(Open(x=1, y=2))["y"] == 2  # type: ignore[call-arg]


def test_root_models_have_a_root() -> None:
    class Names(pydantic.RootModel[list[str]]):
        root: list[str] = ["a"]

    assert fields(Names()) == {}
    assert fields(Names(["b"])) == {"root": ["b"]}


def test_dataclasses_in_models_are_as_submodels() -> None:
    class Holder(BaseModel):
        box: Box = Box(5)
        boxes: list[Box] = []

    assert fields(Holder()) == {}
    assert fields(Holder(box=Box(1), boxes=[Box(3, [1])])) == {"box": {}, "boxes": [{"size": 3, "parts": [1]}]}


def test_defaults_are_not_shared_with_what_is_returned() -> None:
    uid.model_fields(Task())[1]["names"].append("b")
    assert fields(Task()) == {}


def test_a_dict_in_the_place_of_a_submodel_is_not_that_submodel() -> None:
    task = Task(optim=Optim(lr=1))
    other = task.model_copy(update={"optim": {"lr": 1.0}})
    assert fields(task) != fields(other)


def test_a_field_without_rule_is_named() -> None:
    with pytest.raises(ConfigError, match=r"extra\.a\.1: a builtins:object has no rule"):
        fields(Task(extra={"a": [0, object()]}))


def test_a_missing_value_is_an_error() -> None:
    class Needs(BaseModel):
        x: int

    with pytest.raises(ConfigError, match="x: has no value"):
        fields(Needs.model_construct())


# -- models: unions -------------------------------------------------------------------------------------------------


class Home(BaseModel):
    pet: Pet = Cat()
    more: list[Pet] = []
    by_name: dict[str, Pet] = {}
    maybe: Pet | None = None


class Street(BaseModel):
    home: Home = Home()


def test_discriminators_are_always_in() -> None:
    assert fields(Home()) == {"pet": {"kind": "cat"}}
    assert fields(Home(pet=Dog())) == {"pet": {"kind": "dog"}}
    assert fields(Home(more=[Dog(lives=1)], by_name={"a": Cat()}, maybe=Cat())) == {
        "pet": {"kind": "cat"},
        "more": [{"kind": "dog", "lives": 1}],
        "by_name": {"a": {"kind": "cat"}},
        "maybe": {"kind": "cat"},
    }
    assert fields(Street()) == {"home": {"pet": {"kind": "cat"}}}


def test_discriminators_of_every_spelling_are_found() -> None:
    pets = tp.Annotated[Cat | Dog, Discriminator("kind")]

    class Spelled(BaseModel):
        a: Cat | Dog = Field(Cat(), discriminator="kind")
        b: tp.Annotated[Cat | Dog, Field(discriminator="kind")] = Cat()
        c: pets = Cat()  # type: ignore[valid-type]
        d: tp.Optional[pets] = Cat()  # type: ignore[valid-type]  # noqa: UP045
        e: tuple[pets, ...] | None = (Cat(),)  # type: ignore[valid-type]

    kind = {"kind": "cat"}
    assert fields(Spelled()) == {"a": kind, "b": kind, "c": kind, "d": kind, "e": [kind]}


Friend = TypeAliasType("Friend", Pet)


class Tree(BaseModel):
    node: list[Friend] | dict[str, int] | None = None
    left: Tree | None = None
    free: pydantic.JsonValue = None


def test_aliases_and_recursive_types_are_understood() -> None:
    assert fields(Tree(left=Tree(node=[Dog()]), free=[{"a": [1]}])) == {
        "left": {"node": [{"~class": f"{__name__}:Dog", "kind": "dog"}]},
        "free": [{"a": [1]}],
    }


@dataclasses.dataclass
class Slotted:
    __slots__ = ("x",)
    x: int


def test_a_model_that_holds_itself_is_an_error() -> None:
    tree = Tree()
    tree.left = tree
    with pytest.raises(ConfigError, match="left: refers to itself"):
        fields(tree)


def test_dataclasses_with_slots_are_read_too() -> None:
    assert uid.canonical(Slotted(2)) == {"~class": f"{__name__}:Slotted", "x": 2}


def test_a_discriminator_that_is_left_out_is_replaced_by_the_class() -> None:
    names = ("pet.kind",)
    found = [uid.model_fields(Home(pet=pet), names)[0] for pet in (Cat(), Dog())]
    assert found == [{"pet": {"~class": f"{__name__}:{name}"}} for name in ("Cat", "Dog")]


def kind_of(value: tp.Any) -> str:
    return str(getattr(value, "kind", None) or value["kind"])


def test_a_callable_discriminator_shows_the_class() -> None:
    class Called(BaseModel):
        pet: tp.Annotated[tp.Annotated[Cat, Tag("cat")] | tp.Annotated[Dog, Tag("dog")], Discriminator(kind_of)] = Cat()

    assert fields(Called()) == {"pet": {"~class": f"{__name__}:Cat"}}
    assert fields(Called(pet=Dog())) == {"pet": {"~class": f"{__name__}:Dog"}}


class Left(BaseModel):
    x: int = 1


class Right(BaseModel):
    x: int = 1


@pytest.mark.parametrize(
    "annotation",
    [tp.Any, Left | Right, Left | dict[str, int], list[Left] | Left | Right, BaseModel, Left | Right | None],
    ids=str,
)
def test_models_of_two_classes_never_coincide(annotation: tp.Any) -> None:
    model = pydantic.create_model("Model", x=(annotation, ...))
    found = [fields(model.model_construct(x=value)) for value in (Left(), Right(), {}, {"x": 1}, Left(x=2), Right(x=2))]
    assert len({uid.digest(form) for form in found}) == len(found)


@pytest.mark.parametrize("annotation", [Left, Left | None, Left | int | str, tp.Annotated[Left, "note"]], ids=str)
def test_a_class_that_is_sure_is_not_shown(annotation: tp.Any) -> None:
    assert fields(pydantic.create_model("Model", x=(annotation, ...))(x=Left(x=2))) == {"x": {"x": 2}}


def test_a_subclass_in_the_place_of_its_base_is_shown() -> None:
    assert fields(Task(optim=Fast(lr=0.5))) == {"optim": {"~class": f"{__name__}:Fast", "lr": 0.5}}


def test_a_plain_dict_beside_a_dict_of_models_is_not_one() -> None:
    class Either(BaseModel):
        x: dict[str, Left] | dict  # type: ignore[type-arg]

    assert fields(Either(x={"a": Left(x=2)})) != fields(Either.model_construct(x={"a": {"x": 2}}))


# -- models: exclusions ---------------------------------------------------------------------------------------------


class Base(BaseModel):
    x: int = 1
    device: str = "cpu"
    optim: Optim = Optim()
    data: dict[str, int] = {"a": 1}
    choice: Left | Optim | None = None


class AsTuple(Base):
    _exclude_from_class_uid = ("device",)


class AsList(Base):
    _exclude_from_cls_uid: list[str] = ["device"]


class AsSet(Base):
    _exclude_from_cache_uid: tp.ClassVar[set[str]] = {"device"}


class AsMethod(Base):
    def _exclude_from_class_uid(self) -> list[str]:
        return ["device"]


class AsProperty(Base):
    @property
    def _exclude_from_class_uid(self) -> tuple[str, ...]:
        return ("device",)


class AsClassMethod(Base):
    @classmethod
    def _exclude_from_cls_uid(cls) -> tuple[str, ...]:
        return ("device",)


class AsStatic(Base):
    @staticmethod
    def _exclude_from_class_uid() -> tuple[str, ...]:
        return ("device",)


class Inherits(AsTuple):
    y: int = 1


class Overrides(AsMethod):
    _exclude_from_class_uid = ("x",)  # type: ignore[assignment]


WAYS = [AsTuple, AsList, AsSet, AsMethod, AsProperty, AsClassMethod, AsStatic, Inherits]


@pytest.mark.parametrize("cls", WAYS)
def test_a_class_leaves_fields_out(cls: type[Base]) -> None:
    lean, full, _ = uid.model_fields(cls(device="cuda", x=2))
    assert lean == {"x": 2}
    assert "device" not in full
    assert uid.model_fields(cls()).excluded == ("device",)


class Tool(BaseModel):
    version: str = "0"
    folder: str = "here"
    _exca_identity_fields: tp.ClassVar[tuple[str, ...]] = ("version",)


class Workshop(BaseModel):
    tool: Tool = Tool()
    x: int = 1


def test_a_class_that_says_which_fields_count_leaves_all_others_out() -> None:
    workshop = Workshop(tool=Tool(folder="there"))
    assert uid.model_fields(workshop)[:2] == ({}, {"tool": {"version": "0"}, "x": 1})
    assert uid.model_fields(workshop).excluded == ("tool.folder",)
    assert fields(Workshop(tool=Tool(version="2", folder="there"))) == {"tool": {"version": "2"}}


def test_a_subclass_replaces_what_its_base_leaves_out() -> None:
    assert fields(Overrides(device="cuda", x=2)) == {"device": "cuda"}


def leaving_out(*names: str) -> type[Base]:
    return type("Leaving", (Base,), {"_exclude_from_class_uid": names, "__module__": __name__})


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (("optim",), {"optim": Optim(lr=3)}, {}),
        (("optim.lr",), {"optim": Optim(lr=3)}, {}),
        (("optim.lr",), {"optim": Optim(lr=3, momentum=2)}, {"optim": {"momentum": 2.0}}),
        (("optim.lr", "optim"), {"optim": Optim(lr=3, momentum=2)}, {}),
        (("data.a",), {"data": {"a": 5}}, {}),
        (("data.a",), {"data": {"b": 5}}, {"data": {"b": 5}}),
        (("choice.lr",), {}, {}),
        (("choice.lr",), {"choice": Left(x=1)}, {"choice": {"~class": f"{__name__}:Left"}}),
        (("x", "device", "optim", "data", "choice"), {"x": 5}, {}),
        ((), {"x": 5}, {"x": 5}),
    ],
)
def test_names_reach_into_submodels_and_dicts(
    names: tuple[str, ...], given: dict[str, tp.Any], expected: dict[str, tp.Any]
) -> None:
    assert fields(leaving_out(*names)(**given)) == expected
    assert uid.model_fields(Base(**given), names)[0] == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("devise",), "cannot leave out 'devise': Leaving has no such field; did you mean device"),
        (("optim.lrr",), "optim: cannot leave out 'lrr': Optim has no such field; did you mean lr"),
        (("device.x",), "device: cannot leave out 'x': names do not reach into a str"),
    ],
)
def test_a_name_that_does_not_exist_is_an_error(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        fields(leaving_out(*names)())


def test_a_string_for_a_tuple_is_an_error() -> None:
    class Typo(Base):
        _exclude_from_class_uid = "device"

    with pytest.raises(ConfigError, match=re.escape("write ('device',)")):
        fields(Typo())


def test_what_is_left_out_needs_no_rule() -> None:
    class Logs(BaseModel):
        _exclude_from_class_uid = ("logger", "more.logger")
        logger: tp.Any = None
        more: dict[str, tp.Any] = {}

    assert fields(Logs(logger=object(), more={"logger": object()})) == {}


def test_submodels_leave_out_their_own() -> None:
    class Outer(BaseModel):
        inner: AsTuple = AsTuple()
        many: list[AsMethod] = []

    model = Outer(inner=AsTuple(device="cuda"), many=[AsMethod(device="cuda")])
    assert fields(model) == {"many": [{}]}
    assert uid.model_fields(model).excluded == ("inner.device", "many.0.device")


# -- names and labels -----------------------------------------------------------------------------------------------

NESTED = {"optim": {"lr": 1, "name": "x"}, "data": {"lr": 2, "deep": {"a": 1, "b": [1]}}, "x": 3}


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ([], {"optim.lr", "optim.name", "data.lr", "data.deep.a", "data.deep.b", "x"}),
        (["optim"], {"data.lr", "data.deep.a", "data.deep.b", "x"}),
        (["optim.lr"], {"optim.name", "data.lr", "data.deep.a", "data.deep.b", "x"}),
        (["*.lr", "x"], {"optim.name", "data.deep.a", "data.deep.b"}),
        (["data.*"], {"optim.lr", "optim.name", "data", "x"}),
        (["*"], set()),
    ],
)
def test_exclude_takes_away_dotted_names(patterns: list[str], left: set[str]) -> None:
    before = json.dumps(NESTED)
    assert set(names_module.flatten(names_module.exclude(NESTED, patterns, where="here"))) == left
    assert json.dumps(NESTED) == before


def test_a_pattern_that_matches_nothing_is_an_error_that_names_near_ones() -> None:
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.exclude_from_uid") as caught:
        names_module.exclude(NESTED, ["x", "optm.lr", "zz*"], where="hydra.launcher.exclude_from_uid")
    assert [problem.key for problem in caught.value.problems] == ["optm.lr", "zz*"]
    assert "did you mean optim.lr" in str(caught.value)


def test_values_of_other_types_are_leaves_of_flatten() -> None:
    form = uid.canonical({"a": {"~x": NAN}, "b": {"c": pathlib.PurePath("p")}, "d": {}, "e": [{"f": 1}]})
    assert names_module.flatten(form) == {"a.~x": {"~float": "nan"}, "b.c": {"~path": "p"}, "d": {}, "e": [{"f": 1}]}
    assert names_module.exclude(form, ["a.~x"], where="") == form | {"a": {}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ""),
        ({"coeff": 3, "device": "cuda"}, "coeff=3,device=cuda"),
        ({"b": 1, "a": {"c": None, "d": True}}, "b=1,a.c=None,a.d=True"),
        ({"lr": 0.1, "x": 1 / 3, "y": 1e-5, "z": NAN, "n": -3}, "lr=0.1,x=0.333333,y=1e-05,z=nan,n=-3"),
        ({"sizes": [64, 10], "none": [], "text": ""}, "sizes=64-10,none=empty,text=empty"),
        ({"file": pathlib.PurePath("/data/a b.csv"), "color": Color.RED}, "file=data_a_b.csv,color=RED"),
        ({"cmd": "$(rm -rf /)%;é"}, "cmd=rm_-rf"),
        ({"key": uid.Pinned("${oc.env:KEY}", "hunter2"), "t": uid.RunDependent("${now:}")}, "key=oc.env_KEY,t=now"),
        ({"~x": 1, "é": 2, "-rf": 3}, "x=1,x=2,rf=3"),
        ({"o": {"~class": "pkg.mod:Fast", "lr": 1}}, "o.class=Fast,o.lr=1"),
        ({"text": "a" * 20 + "b" * 20}, "text=aaaaaaaaaaaa..bbbbbbbbbb"),
    ],
)
def test_labels_read_as_overrides(given: dict[str, tp.Any], expected: str) -> None:
    assert label.readable_label(given) == expected


def test_plain_and_canonical_values_have_one_label() -> None:
    plain = {"a": pathlib.PurePath("x/y"), "b": Color.RED, "c": np.float32(0.5), "d": NAN, "e": {"k": (1, 2)}}
    assert (
        label.readable_label(plain) == label.readable_label(uid.canonical(plain)) == "a=x_y,b=RED,c=0.5,d=nan,e.k=1-2"
    )


@stable
@given(st.dictionaries(st.text(max_size=60), values, max_size=30), st.none() | st.text(max_size=300))
def test_every_uid_is_a_legal_file_name(given: dict[str, tp.Any], text: str | None) -> None:
    identity = uid.make_identity("f", "1", uid.canonical(given), label=text)
    name = identity.uid(16)
    assert len(name.encode()) <= 160
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+=,-]*", name)
    assert (name == "default") == (not given)


# -- identities -----------------------------------------------------------------------------------------------------


def identity_of(model: BaseModel, excluded: tp.Sequence[str] = ()) -> uid.Identity:
    fields, full, left_out = uid.model_fields(model)
    return uid.make_identity("mod.f", "1", fields, full, excluded=(*left_out, *excluded))


def test_a_uid_is_a_label_and_a_digest() -> None:
    identity = uid.make_identity("f", "1", {"coeff": 3, "device": "cuda"})
    assert identity.uid() == f"coeff=3,device=cuda-{identity.digest[:8]}"
    assert identity.uid(16) == f"coeff=3,device=cuda-{identity.digest[:16]}"
    assert uid.make_identity("f", "1", {"x": 1}, label="").uid().startswith("default-")
    assert uid.make_identity("f", "1", {}, label="given").uid() == "default"


def test_an_identity_survives_being_stored() -> None:
    identity = identity_of(Task(seed=3, extra={"a": [NAN, -0.0, 10**40, "\ud800"]}))
    stored = json.loads(json.dumps(identity.to_json()))
    assert identity.same_as(stored)
    assert {"scheme", "factory", "version", "digest", "fields", "full"} <= stored.keys()


@pytest.mark.parametrize(
    "change",
    [
        {"scheme": 0},
        {"factory": "g"},
        {"version": "2"},
        {"fields": {"x": 1.0}},
        {"fields": {"x": True}},
        {"scheme": True},
    ],
)
def test_any_difference_is_another_identity_even_with_the_same_digest(change: dict[str, tp.Any]) -> None:
    identity = uid.make_identity("f", "1", {"x": 1})
    assert identity.same_as(identity.to_json())
    assert not identity.same_as(identity.to_json() | change)
    assert not identity.same_as({})


def model_with(**defaults: tp.Any) -> type[BaseModel]:
    return pydantic.create_model("Model", **{name: (tp.Any, value) for name, value in defaults.items()})


def changes(before: BaseModel, after: BaseModel, excluded: tp.Sequence[str] = ()) -> list[str]:
    stored = json.loads(json.dumps(identity_of(before).to_json()))
    return uid.changed_defaults(stored, identity_of(after, excluded))


def test_a_default_that_changed_or_is_gone_is_named() -> None:
    before = model_with(x=1, y=2, z="a")()
    assert changes(before, model_with(x=1, y=2, z="a")()) == []
    assert changes(before, model_with(x=1, y=2.0, z="b")()) == [
        "y: stored 2, 2.0 today",
        'z: stored "a", "b" today',
    ]
    assert changes(before, model_with(x=1, y=2)()) == ['z: stored "a", gone today']


def test_a_field_added_since_or_left_out_today_changes_nothing() -> None:
    before = model_with(x=1, y=2)()
    assert changes(before, model_with(x=1, y=2, z=3)()) == []
    assert changes(before, model_with(x=1)(), excluded=["y"]) == []
    assert changes(model_with(o=Optim())(), model_with(x=1)(), excluded=["o"]) == []


def test_a_field_that_the_models_in_a_list_leave_out_today_is_not_gone() -> None:
    class Inner(BaseModel):
        x: int = 1
        device: str = "cpu"

    class Leaving(Inner):
        _exclude_from_class_uid = ("device",)

    before, after = (
        pydantic.create_model("Holder", many=(list[cls], []))(many=[cls()])  # type: ignore[valid-type]
        for cls in (Inner, Leaving)
    )
    assert fields(before) == fields(after) == {"many": [{}]}
    assert changes(before, after) == []


def test_a_value_that_was_given_is_no_default() -> None:
    assert changes(model_with(x=1)(x=5), model_with(x=2)(x=5)) == []


def test_defaults_within_submodels_and_lists_are_compared() -> None:
    def holder(lr: float) -> type[BaseModel]:
        inner = pydantic.create_model("Inner", lr=(float, lr), n=(int, 1))
        return pydantic.create_model("Holder", o=(inner, inner(n=0)), many=(list[inner], []))  # type: ignore[valid-type]

    given: tp.Any = {"o": {}, "many": [{"n": 3}, {}]}
    before, after = holder(0.1)(**given), holder(0.2)(**given)
    assert fields(before) == fields(after) == {"o": {}, "many": [{"n": 3}, {}]}
    assert changes(before, after) == [f"{at}.lr: stored 0.1, 0.2 today" for at in ("many.0", "many.1", "o")]
