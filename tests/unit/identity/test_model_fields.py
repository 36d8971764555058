"""The fields of models: short cuts give what the general rules give, and a lookup reads no more than it must."""

from __future__ import annotations

import collections
import copy
import enum
import itertools
import json
import subprocess
import sys
import textwrap
import typing as tp
from pathlib import Path
from unittest import mock

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import examples

from hydra_exca import TaskInfra, checksums, files
from hydra_exca.errors import ConfigError
from hydra_exca.identity import contents, model_schema, uid
from hydra_exca.identity import scalars as scalars_module
from hydra_exca.identity.canonical import Walk
from hydra_exca.identity.scalars import UnusualError
from hydra_exca.launch.lookup import Lookup
from hydra_exca.status import Mode, Status
from hydra_exca.store import CacheFolder, Outcome

stable = examples(300)


class Color(enum.Enum):
    RED = 1


class Leaf(pydantic.BaseModel):
    lr: float = 0.1
    name: str = "sgd"
    workers: int = 4
    _exclude_from_class_uid: tp.ClassVar[tuple[str, ...]] = ("workers",)


class SubLeaf(Leaf):
    more: int = 1


class ByMethod(pydantic.BaseModel):
    x: int = 1
    y: int = 2

    def _exclude_from_class_uid(self) -> tuple[str, ...]:
        return ("x",) if self.y == 3 else ()


class Cat(pydantic.BaseModel):
    kind: tp.Literal["cat"] = "cat"
    age: int = 1


class Dog(pydantic.BaseModel):
    kind: tp.Literal["dog"] = "dog"
    age: int = 1


class Loose(pydantic.BaseModel, extra="allow"):
    x: int = 1


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["~", "~a", "é", "\ud800", 1, 1.0, True, 0.0, -0.0, 2**64, float("nan"), "1", Color.RED, b"x"])
)
keys = st.text(max_size=2) | st.sampled_from(["~", "a", "b", 1, None, True])
models = st.sampled_from(
    [Leaf(), Leaf(lr=0.2), Leaf(workers=1), SubLeaf(), ByMethod(), ByMethod(y=3), Cat(), Loose(z=1)]
)
values = st.recursive(
    scalars | models,
    lambda below: (
        st.lists(below, max_size=3)
        | st.lists(below, max_size=3).map(tuple)
        | st.dictionaries(keys, below, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), below, max_size=2).map(collections.OrderedDict)
        | st.sets(st.integers(), max_size=2)
    ),
    max_leaves=5,
)
annotations = st.sampled_from(
    [
        tp.Any,
        Leaf,
        Leaf | None,
        list[Leaf],
        dict[str, Leaf],
        ByMethod,
        tp.Annotated[Cat | Dog, pydantic.Field(discriminator="kind")],
    ]
)


@st.composite
def objects(draw: st.DrawFn) -> pydantic.BaseModel:
    """An object of a model of a few fields, whose values need not be what the annotations say."""
    names = draw(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, unique=True))
    defaults = {name: draw(st.one_of(st.just(...), values)) for name in names}
    made = {
        name: draw(st.one_of(st.just(default), values)) if default is not ... else draw(values)
        for name, default in defaults.items()
    }
    fields: dict[str, tp.Any] = {name: (draw(annotations), default) for name, default in defaults.items()}
    left_out = draw(st.lists(st.sampled_from(names), max_size=1))
    base = type("Base", (pydantic.BaseModel,), {"_exclude_from_class_uid": tuple(left_out), "__module__": __name__})
    return pydantic.create_model("Made", __base__=base, **fields).model_construct(**made)


@stable
@given(objects())
def test_the_names_left_out_are_in_none_of_the_forms(obj: pydantic.BaseModel) -> None:
    try:
        fields = uid.model_fields(obj)
    except ConfigError:
        return
    assert not set(fields.excluded) & set(uid.flatten(fields.with_defaults))


@stable
@given(values)
def test_the_quick_form_of_plain_data_is_that_of_the_general_rules(value: tp.Any) -> None:
    try:
        quickly = scalars_module.plain_form(value)
    except (UnusualError, model_schema.UnfitError):
        return
    with mock.patch.object(scalars_module, "plain_form", side_effect=UnusualError):
        lean, full = Walk().forms(value)
    assert uid.encode([quickly, quickly]) == uid.encode([lean, full])


@stable
@given(objects(), st.text(max_size=5))
def test_an_identity_is_stored_as_the_bytes_that_it_says(obj: pydantic.BaseModel, label: str) -> None:
    try:
        fields, full, _ = uid.model_fields(obj)
    except ConfigError:
        return
    for each in (uid.make_identity("é.f", "1", fields, full), uid.make_identity('a"b', "1", fields, label=label)):
        assert each.stored_bytes() == files.dump_json(each.to_json())


class Pair(pydantic.BaseModel):
    x: tp.Any = None
    y: tp.Any = 1


class Held(pydantic.BaseModel):
    """What can change without being assigned, and places where one thing may stand for another."""

    one: Pair | None = None
    other: Pair | None = None
    anything: tp.Any = None
    listed: list[tp.Any] = [0]
    infra: TaskInfra = TaskInfra(version="1")

    @infra.apply
    def fit(self) -> None:
        """Its cache is asked for its identity alone."""


LITTLE: list[tp.Any] = [None, "x"]


def nested(of: list[tp.Any]) -> list[tp.Any]:
    """All lists, tuples and dicts of up to two of these."""
    rows = [row for length in range(3) for row in itertools.product(of, repeat=length)]
    dicts = [dict(zip(names, row, strict=False)) for names in ("xy", "yx") for row in rows]
    return [*map(list, rows), *rows, *dicts]


def test_objects_are_made_of_the_same_only_if_their_fields_are_the_same() -> None:
    pairs: tp.Any = [*LITTLE, *itertools.starmap(lambda x, y: Pair(x=x, y=y), itertools.product(LITTLE, repeat=2))]
    plain_ones = [*LITTLE, *nested([*LITTLE, *nested(LITTLE)]), ["x", "x", {"y": None}]]
    made = [{"one": one, "other": other} for one, other in itertools.product(pairs, repeat=2)]
    made += [{"anything": each} for each in plain_ones]
    fields_of: dict[tuple[int, ...], str] = {}
    for each in made:
        obj = Held.model_construct(**each)
        fields = str(uid.model_fields(obj))
        objects = contents.model_contents(obj)
        assert objects is not None and fields_of.setdefault(tuple(map(id, objects)), fields) == fields


NUMBERS = [0, 0.0, -0.0, False, 1, 1.0, True]
held = st.sampled_from([None, *NUMBERS, "", "x", [], [1], (1,), {}, {"x": None}, Pair(), Pair(x=0), Color.RED])
CHANGES: tp.Any = {
    "assign": lambda obj, value: setattr(obj, "anything", value),
    "one": lambda obj, value: setattr(obj, "one", value),
    "other": lambda obj, value: setattr(obj, "other", value),
    "inside": lambda obj, value: isinstance(obj.one, Pair) and setattr(obj.one, "x", value),
    "append": lambda obj, value: obj.listed.append(value),
    "replace": lambda obj, value: obj.listed and obj.listed.__setitem__(-1, value),
    "pop": lambda obj, value: obj.listed and obj.listed.pop(),
    "nest": lambda obj, value: setattr(obj, "listed", [[value], value]),
    "named": lambda obj, value: setattr(obj, "listed", [{"x": value}, {1: value}]),
    "version": lambda obj, value: setattr(obj.infra, "version", f"{type(value).__name__}"),
}


@stable
@given(st.lists(st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), held), min_size=1, max_size=3), max_size=5))
def test_an_object_that_was_asked_before_has_the_identity_of_one_that_was_not(
    changes: list[list[tuple[str, tp.Any]]],
) -> None:
    obj = Held()
    for together in changes:
        for name, value in together:
            CHANGES[name](obj, copy.deepcopy(value) if isinstance(value, Pair) else value)
        asked = [obj.infra.identity() for _ in range(2)]
        fresh = uid.model_identity(obj.infra.factory(), obj.infra.version, obj)
        assert {each.stored_bytes() for each in asked} == {fresh.stored_bytes()}


def test_what_changes_while_an_object_is_asked_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    obj, of_model = Held(anything=1), uid.model_identity

    def changing(*args: tp.Any) -> uid.Identity:
        obj.anything = 2  # as another thread may
        return of_model(*args)

    with monkeypatch.context() as patched:
        patched.setattr(uid, "model_identity", changing)
        obj.infra.identity()
    obj.anything = 1
    assert obj.infra.identity() == of_model(obj.infra.factory(), obj.infra.version, obj)


def test_a_default_that_a_function_makes_is_asked_for_each_time() -> None:
    default = 1

    class Moving(pydantic.BaseModel):
        lr: int = pydantic.Field(default_factory=lambda: default)
        infra: TaskInfra = TaskInfra(version="1")

        @infra.apply
        def fit(self) -> None: ...

    obj = Moving()
    before = obj.infra.identity()
    default = 2
    assert before.uid() == "default" and obj.infra.identity().fields == {"lr": 1}


def test_a_name_to_leave_out_takes_the_field_away() -> None:
    assert uid.model_fields(ByPlain(x=5, y=6), ("x",)).non_default == {"y": 6}


class ByPlain(pydantic.BaseModel):
    x: int = 1
    y: int = 2


# -- looking up -------------------------------------------------------------------------------------------------------


def identity(k: int, **fields: tp.Any) -> uid.Identity:
    return uid.make_identity("app.f", "1", {"k": k, "lr": 0.5, **fields}, {"k": k, "lr": 0.5, "epochs": 3, **fields})


def outcome(of: uid.Identity, value: tp.Any = 1) -> Outcome:
    return Outcome(Status.COMPLETED, 2, of.to_json(), value={"format": "json", "inline": value}, host="h", code="c")


@pytest.mark.parametrize(
    "change",
    [lambda data: data, lambda data: json.dumps(json.loads(data)).encode(), lambda data: b" " + data],
    ids=["as it is", "with spaces", "after a space"],
)
def test_an_outcome_is_read_the_same_whether_its_bytes_are_todays(change: tp.Callable[[bytes], bytes]) -> None:
    stored = outcome(identity(1), {"identity": [1, '"identity":']})
    without_checksum = checksums.record_text(stored.to_json())
    assert Outcome.parse_for(change(without_checksum), identity(1)) == stored


@pytest.mark.parametrize(
    "other", [identity(2), identity(1, more=1), identity(1, lr=1), identity(True)], ids=["k", "more", "int", "bool"]
)
def test_the_outcome_of_another_identity_is_nobodys(other: uid.Identity) -> None:
    assert Outcome.parse_for(outcome(identity(1)).to_json(), other) is None


def test_another_default_is_seen_in_what_was_stored() -> None:
    today = uid.make_identity("app.f", "1", {"k": 1, "lr": 0.5}, {"k": 1, "lr": 0.5, "epochs": 4})
    found = Outcome.parse_for(outcome(identity(1)).to_json(), today)
    assert found is not None
    assert uid.changed_defaults(found.identity, today) == ["epochs: stored 3, 4 today"]


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_what_was_cut_off_is_no_outcome(cut: int) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Outcome.parse_for(outcome(identity(1)).to_json()[:-cut], identity(1))


LOOK = """
    import collections, os, sys
    from pathlib import Path
    from hydra_exca.identity import uid
    from hydra_exca.status import Mode
    from hydra_exca.store import CacheFolder
    from hydra_exca.launch.lookup import Lookup

    folder = sys.argv[1]
    asked = [uid.make_identity("app.f", "1", {"k": k, "lr": 0.5}, {"k": k, "lr": 0.5, "epochs": 3}) for k in range(100)]
    seen = collections.Counter()

    def note(event, args):
        if event in ("open", "os.listdir", "os.scandir") and str(args[0]).startswith(folder):
            seen[event] += 1

    sys.addaudithook(note)
    found = Lookup(CacheFolder(Path(folder))).look_up(asked, lambda result: Mode.CACHED)
    print(sum(each.value == 1 for each in found), seen["os.listdir"] + seen["os.scandir"], seen["open"])
"""


@pytest.mark.app
def test_looking_up_many_takes_one_listing_and_one_read_for_each_hit(tmp_path: Path) -> None:
    shelf = CacheFolder(tmp_path).factory_folder("app.f", "1")
    shelf.create({})
    for k in range(0, 100, 2):
        files.write_file(
            shelf.open_entry(identity(k)).path / "outcome.json", outcome(identity(k)).to_json(), durable=False
        )
    command = [sys.executable, "-c", textwrap.dedent(LOOK), str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    hits, listings, opened = map(int, said)
    assert (hits, listings, opened) == (50, 1, 51)  # the first that is missing is asked for before it is listed


def test_what_was_stored_since_the_last_look_is_found_by_the_next(tmp_path: Path) -> None:
    cache, lookup = CacheFolder(tmp_path), Lookup(CacheFolder(tmp_path))
    shelf = cache.factory_folder("app.f", "1")
    shelf.create({})
    lookup.look_up([identity(1), identity(2)], lambda result: Mode.CACHED)
    files.write_file(
        shelf.open_entry(identity(2)).path / "outcome.json", outcome(identity(2), 7).to_json(), durable=False
    )
    found = lookup.look_up([identity(1), identity(2)], lambda result: Mode.CACHED)
    assert [each.value for each in found] == [None, 7]
