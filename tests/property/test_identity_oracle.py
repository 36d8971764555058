"""Held against exca 0.6: the same models, values and calls give the same configurations, caches and runs.

Where the two differ on purpose, `DIFFERENCES` says why; the generated cases keep clear of these.
"""

from __future__ import annotations

import dataclasses
import math
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import examples
from oracle_models import OURS, REQUIRED, Adam, Field, More, Oracle, Shape, Step, Values, answer, asking_exca

pytestmark = pytest.mark.app  # of exca, whose answers ours are compared with

stable = examples(120)


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with asking_exca() as ask:
        yield ask


# -- what is generated ------------------------------------------------------------------------------------------------

INTS = st.sampled_from([0, 1, 3, -1, 2**40])
FLOATS = st.sampled_from([0.0, 1.0, 0.5, 1e-7, 1 / 3, 1e10, -2.5])
TEXTS = st.sampled_from(["", "x", "cpu", "a b", "é", "a,b", "3"])
KEYS = st.sampled_from("abc")


def _some(**fields: st.SearchStrategy[tp.Any]) -> st.SearchStrategy[Values]:
    return st.fixed_dictionaries({}, optional=fields)


PLAIN_SUB = _some(a=INTS, b=FLOATS)
SUB = _some(a=INTS, b=FLOATS, device=TEXTS)
OPTIM = st.one_of(
    st.builds(lambda rest: {"name": "adam", **rest}, _some(lr=FLOATS)),
    st.builds(lambda rest: {"name": "sgd", **rest}, _some(momentum=INTS)),
)
VALUES: dict[str, st.SearchStrategy[tp.Any]] = {
    "int": INTS,
    "float": FLOATS,
    "str": TEXTS,
    "bool": st.booleans(),
    "tuple": st.lists(INTS, max_size=3).map(tuple),
    "pair": st.tuples(TEXTS, FLOATS),
    "list": st.lists(INTS, max_size=2),
    "strs": st.lists(TEXTS, max_size=2),
    "dict": st.dictionaries(KEYS, INTS, max_size=3),
    "dicts": st.dictionaries(KEYS, st.dictionaries(KEYS, INTS, max_size=2), max_size=2),
    "optional": st.none() | INTS,
    "optional float": st.none() | FLOATS,
    "literal": st.sampled_from(["a", "b", 3]),
    "path": st.sampled_from(["a", "/a/b"]),
    "sub": SUB,
    "deep": _some(n=INTS, sub=SUB),
    "optional sub": st.none() | SUB,
    "subs": st.lists(PLAIN_SUB, max_size=2),
    "named subs": st.dictionaries(KEYS, PLAIN_SUB, max_size=2),
    "union": OPTIM,
    "unions": st.lists(OPTIM, max_size=2),
    "cached": _some(x=INTS, infra=_some(version=st.sampled_from(["2", "5"]))),
}
SHOWN_OTHERWISE = {"union", "unions", "cached"}  # at their defaults, see DIFFERENCES


@st.composite
def shapes(draw: st.DrawFn, required: tp.Container[str] = ()) -> Shape:
    """A class of one to five fields; those of the ``required`` kinds have no default."""
    chosen = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=5))
    fields = []
    for index, kind in enumerate(chosen):
        default = REQUIRED if kind in required else draw(st.just(REQUIRED) | VALUES[kind])
        fields.append(Field(f"f{index}", kind, default))
    names = st.lists(st.sampled_from([field.name for field in fields]), max_size=2, unique=True).map(tuple)
    return Shape(
        fields=tuple(fields),
        version=draw(st.sampled_from(["0", "1"])),
        class_excludes=draw(names),
        class_form=draw(st.sampled_from(["tuple", "list", "set", "method"])),
        cache_excludes=draw(names),
        cache_form=draw(st.sampled_from(["tuple", "list", "function", "method"])),
    )


@st.composite
def values(draw: st.DrawFn, shape: Shape) -> Values:
    """What an object is made of: a value for each field that has no default, and for some of the others."""
    given_ = [field for field in shape.fields if field.default == REQUIRED or draw(st.booleans())]
    return {field.name: draw(VALUES[field.kind]) for field in given_}


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[Shape, Values, Values]:
    """Two objects of a class that differ in one field at most, or in what is written down of its defaults."""
    shape = draw(shapes())
    one = draw(values(shape))
    field = draw(st.sampled_from(shape.fields))
    if field.default == REQUIRED:
        return shape, one, {**one, field.name: draw(VALUES[field.kind])}
    rest = {name: value for name, value in one.items() if name != field.name}
    other = [rest, {**rest, field.name: field.default}, {**rest, field.name: draw(VALUES[field.kind])}]
    return shape, one, draw(st.sampled_from(other))


# -- configurations and caches ----------------------------------------------------------------------------------------


@stable
@given(st.data(), st.booleans(), st.booleans())
def test_a_config_is_the_same(oracle: Oracle, data: st.DataObject, uid: bool, lean: bool) -> None:
    shape = data.draw(shapes(required=SHOWN_OTHERWISE))
    asked = ("config", shape, data.draw(values(shape)), uid, lean)
    assert answer(OURS, *asked) == oracle(*asked)


@stable
@given(neighbours())
def test_two_objects_share_a_cache_or_not(oracle: Oracle, pair: tuple[Shape, Values, Values]) -> None:
    assert answer(OURS, "shared", *pair) == oracle("shared", *pair)


PATCHES = _some(
    **{
        "f0.a": INTS,
        "f0": st.builds(lambda whole, rest: {**whole, **rest}, _some(**{"=replace=": st.just(True)}), SUB),
        "f1": VALUES["list"],
        "f2.a": INTS,
        "f2": st.builds(lambda rest: {"=replace=": True, **rest}, VALUES["dict"]),
        "f3": OPTIM.map(lambda optim: {"=replace=": True, **optim}),
        "infra.version": st.just("7"),
    }
)
# a default as its class has it: of others we keep what a patch does not change
CLONED = Shape((Field("f0", "sub", {}), Field("f1", "list", [1]), Field("f2", "dict", {}), Field("f3", "union")))


@stable
@given(values(CLONED), PATCHES)
def test_a_clone_has_the_same_config(oracle: Oracle, of: Values, patch: Values) -> None:
    assert answer(OURS, "clone", CLONED, of, patch) == oracle("clone", CLONED, of, patch)


# -- programs ---------------------------------------------------------------------------------------------------------

PLAYED = Shape(
    (Field("x", "int", 1), Field("y", "int", 1), Field("z", "int", 1)), class_excludes=("y",), cache_excludes=("z",)
)
ONE_OR_TWO = st.sampled_from([1, 2])
NAMES = st.sampled_from("ab")
ARGUMENTS = _some(x=ONE_OR_TWO, y=ONE_OR_TWO, z=ONE_OR_TWO)
RAM_AND_VERSION = {"keep_in_ram": st.just(True), "version": st.sampled_from(["1", "2"])}
ANY_MODE = _some(mode=st.sampled_from(["cached", "retry", "force", "read-only"]), **RAM_AND_VERSION)
ARRAY_MODE = _some(mode=st.sampled_from(["cached", "retry"]), **RAM_AND_VERSION)
CHANGES = st.sampled_from([{}, {"x": 1}, {"x": 2}, {"y": 2}, {"infra.mode": "cached"}, {"infra": {"mode": "force"}}])


def _step(verb: str, *arguments: st.SearchStrategy[tp.Any]) -> st.SearchStrategy[list[Step]]:
    return st.tuples(st.just(verb), *arguments).map(lambda step: [step])


def _with_job(name: str) -> list[Step]:
    return [("job", name), ("call", name), ("status", name), ("job", name), ("restart",)]


def _with_array(one: tuple[Values, Values], other: tuple[Values, Values], names: str) -> list[Step]:
    """Of new objects; whatever other objects do afterwards, an object goes by the job that it has asked for."""
    calls = [("call", name) for name in "ab"]
    return [("new", "a", *one), ("new", "b", *other), ("array", names), *calls, ("job", "a"), ("restart",)]


OF_AN_ARRAY = st.tuples(ARGUMENTS, ARRAY_MODE)
STEPS = st.one_of(
    _step("new", NAMES, ARGUMENTS, ANY_MODE),
    _step("clone", NAMES, NAMES, CHANGES),
    _step("fail", st.booleans()),
    _step("call", NAMES),
    _step("call", NAMES),
    _step("status", NAMES),
    _step("restart"),
    NAMES.map(lambda name: [("clear", name), ("restart",)]),
    NAMES.map(_with_job),
    st.builds(_with_array, OF_AN_ARRAY, OF_AN_ARRAY, st.sampled_from(["a", "b", "ab", "ba"])),
)


@st.composite
def programs(draw: st.DrawFn) -> list[Step]:
    """Some steps with two objects."""
    start: list[Step] = [("new", name, draw(ARGUMENTS), draw(ANY_MODE)) for name in "ab"]
    return start + [step for steps in draw(st.lists(STEPS, min_size=2, max_size=9)) for step in steps]


@stable
@given(programs())
def test_a_program_has_the_same_results_statuses_and_runs(oracle: Oracle, steps: list[Step]) -> None:
    assert answer(OURS, "play", PLAYED, steps) == oracle("play", PLAYED, steps)


# -- ConfDict ---------------------------------------------------------------------------------------------------------

LEAVES = st.none() | st.integers(0, 9) | st.lists(st.integers(0, 3), max_size=2)
DOTTED = st.lists(KEYS, min_size=1, max_size=3).map(".".join)
TREES = st.recursive(LEAVES, lambda below: st.dictionaries(DOTTED, below, max_size=3), max_leaves=6)
OPERATIONS = {"=replace=": st.just(True), "=before=": KEYS, "=after=": KEYS}


def _operating(tree: Values, operation: Values) -> Values:
    return {**operation, **tree}


PATCH_VALUES = st.one_of(
    TREES,
    st.just("=delete="),
    st.builds(_operating, st.dictionaries(DOTTED, TREES, max_size=2), _some(**OPERATIONS)),
)
DICTIONARIES = st.dictionaries(DOTTED, TREES, max_size=3)


@stable
@given(DICTIONARIES, st.lists(st.dictionaries(DOTTED, PATCH_VALUES, max_size=3), max_size=4))
def test_updates_leave_the_same_dictionary(oracle: Oracle, start: Values, patches: list[Values]) -> None:
    assert answer(OURS, "patched", start, patches) == oracle("patched", start, patches)


@stable
@given(DICTIONARIES, DOTTED, TREES)
def test_two_dictionaries_have_the_same_uid_or_not(oracle: Oracle, one: Values, key: str, value: tp.Any) -> None:
    asked = ("same_uid", one, {**one, key: value})
    assert answer(OURS, *asked) == oracle(*asked)


# -- where the two differ ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Difference:
    """A question with two answers, and why ours is the one to give."""

    title: str
    why: str
    asked: tuple[tp.Any, ...]
    ours: tp.Any
    theirs: tp.Any


def _apart(title: str, why: str, kind: str, one: tp.Any, other: tp.Any, default: tp.Any = REQUIRED) -> Difference:
    """Two values that we keep two results for, and exca one."""
    shape = Shape((Field("f", kind, default),))
    return Difference(title, why, ("shared", shape, {"f": one}, {"f": other}), False, True)


def _together(title: str, why: str, shape: Shape, one: tp.Any, other: tp.Any) -> Difference:
    """Two values that we keep one result for, and exca two."""
    return Difference(title, why, ("shared", shape, {"f": one}, {"f": other}), True, False)


def _played(title: str, why: str, steps: list[Step], ours: tp.Any, theirs: tp.Any) -> Difference:
    """A program of which the last step has another outcome, or makes another number of runs."""
    return Difference(title, why, ("play", Shape((Field("x", "int", 1),)), steps), ours, theirs)


WRONG = "a method can tell them apart, so one result for both is wrong for one of them"
NOT_COUNTED = "what is left out of the uid does not count, wherever the model stands"
CALLED: list[Step] = [("new", "a", {}, {}), ("call", "a")]
DIFFERENCES = [
    # wrong results
    _apart("an int and an equal float", WRONG, "number", 1, 1.0),
    _apart("a bool and an equal int default", WRONG, "any", True, 1, default=1),
    _apart("zero and minus zero", WRONG, "float", 0.0, -0.0),
    _apart("a set and a list", WRONG, "any", {1, 2}, [1, 2]),
    _apart("a path and its text", WRONG, "any", Path("a"), "a"),
    _apart("bytes and text", WRONG, "any", b"a", "a"),
    _apart("a key with a dot and two keys", WRONG, "any", {"a.b": 1}, {"a": {"b": 1}}),
    _apart("a key and its text", WRONG, "any", {1: 2}, {"1": 2}),
    _apart("a model and a dictionary of its fields", WRONG, "any", Adam(lr=0.5), {"lr": 0.5}),
    _apart("a subclass and the class of the field", WRONG, "sub", More(), {}),
    _apart("fields of a subclass", WRONG, "sub", More(c=1), More(c=2)),
    _apart(
        "a field that is left out of dumps",
        "how a model is shown says nothing of what its methods use; _exclude_from_class_uid does",
        "hidden",
        1,
        2,
    ),
    Difference(
        "a method that a child reaches by super()",
        "it may call what the child overrides: the parent's result is not the child's",
        ("through_super",),
        ["parent", "child"],
        ["parent", "parent"],
    ),
    # the same result twice
    _together(
        "nan and nan",
        "no method can tell them apart, so one result is enough",
        Shape((Field("f", "float"),)),
        math.nan,
        -math.nan,
    ),
    _together(
        "an empty list and an empty tuple",
        "lists and tuples are equal to one another in exca too, but for defaults",
        Shape((Field("f", "any", []),)),
        (),
        [],
    ),
    _together(
        "what a model in a list leaves out", NOT_COUNTED, Shape((Field("f", "subs", [{}]),)), [{"device": "x"}], [{}]
    ),
    _together(
        "what a model in a dictionary leaves out",
        NOT_COUNTED,
        Shape((Field("f", "named subs", {"k": {}}),)),
        {"k": {"device": "x"}},
        {"k": {}},
    ),
    _together(
        "what a cache leaves out of a sub-model",
        NOT_COUNTED,
        Shape((Field("f", "sub", {}),), cache_excludes=("f.a",)),
        {"a": 3},
        {},
    ),
    # configurations
    Difference(
        "a discriminator at its default",
        "the uid says which class it is, also when the default becomes another one",
        ("config", Shape((Field("f", "union", {"name": "adam"}),)), {}, True, True),
        {"f": {"name": "adam"}},
        {},
    ),
    Difference(
        "a wrong name that a cache leaves out",
        "a typo would keep two results apart that are the same",
        ("shared", Shape((Field("f", "int", 1),), cache_excludes=("g",)), {}, {}),
        "error: ConfigError",
        True,
    ),
    # runs
    _played(
        "mode force of the object that is asked for an array",
        "force means that each is computed anew",
        [*CALLED, ("new", "a", {}, {"mode": "force"}), ("array", "a")],
        (None, 2),
        (None, 1),
    ),
    _played(
        "mode read-only of the object that is asked for an array",
        "read-only forbids computing, and here is nothing to compute",
        [*CALLED, ("new", "a", {}, {"mode": "read-only"}), ("array", "a")],
        (None, 1),
        ("error", 1),
    ),
    _played(
        "clear_job of what is kept in ram",
        "who clears a result wants it computed anew",
        [("new", "a", {}, {"keep_in_ram": True}), ("call", "a"), ("clear", "a"), ("call", "a")],
        (2, 2),
        (1, 1),
    ),
    _played(
        "the job without a folder, asked for twice",
        "the job of an object is one job: asking for it again computes nothing",
        [("new", "a", {}, {"folder": None}), ("job", "a"), ("job", "a")],
        (1, 1),
        (2, 2),
    ),
    _played(
        "a field that is assigned after the uid was asked for",
        "nothing freezes: the uid and the result are those of the present values",
        [*CALLED, ("assign", "a", "x", 2), ("call", "a")],
        (2, 2),
        (1, 1),
    ),
]


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.title)
def test_where_the_answers_differ_ours_is_the_right_one(oracle: Oracle, difference: Difference) -> None:
    found = answer(OURS, *difference.asked), oracle(*difference.asked)
    if difference.asked[0] == "play":
        found = found[0][-1], found[1][-1]
    assert found == (difference.ours, difference.theirs), difference.why
