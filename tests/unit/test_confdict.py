"""ConfDict: dotted names, merging updates, yaml, uids, and what is read out of a model."""

from __future__ import annotations

import collections
import copy
import dataclasses
import fractions
import io
import pathlib
import pickle
import typing as tp

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import examples

from hydra_exca.confdict import ConfDict
from hydra_exca.errors import ConfigError
from hydra_exca.identity import names as names_module
from hydra_exca.identity import uid

stable = examples(300)


# -- dotted names


@pytest.mark.parametrize(
    "built",
    [
        ConfDict({"a.b": 1, "a.c": 2}),
        ConfDict({"a": {"b": 1, "c": 2}}),
        ConfDict({"a.b": 1, "a": {"c": 2}}),
        ConfDict([("a.b", 1)], a={"c": 2}),
        ConfDict(**{"a.b": 1, "a.c": 2}),
    ],
)
def test_dotted_and_nested_spellings_build_the_same(built: ConfDict) -> None:
    assert built == {"a": {"b": 1, "c": 2}}
    assert type(built["a"]) is ConfDict


def test_a_dotted_name_reads_and_is_contained() -> None:
    config = ConfDict({"a": {"b": {"c": 1}}, "none": None})
    assert config["a.b.c"] == config["a"]["b.c"] == config.get("a.b.c") == 1
    assert "a.b" in config and "none" in config and "a.x" not in config and "a.b.c.d" not in config
    assert config.get("a.x.y") is None and config.get("none", 3) is None and config.get("x", 3) == 3
    with pytest.raises(KeyError):
        config["a.x"]


def test_pop_and_del_take_away_what_a_dotted_name_ends_in() -> None:
    config = ConfDict({"a": {"b": 1, "c": 2}, "l": [{"x": 1}]})
    assert config.pop("a.b") == 1 and config.pop("l.0.x") == 1
    del config["a.c"]
    assert config == {"a": {}, "l": [{}]}
    assert config.pop("a.b.c", 7) == 7
    for gone in ("a.b", "z", "z.y", "l.0"):
        with pytest.raises(KeyError, match=gone):
            del config[gone]


def test_setdefault_takes_dotted_names_and_keeps_what_is_there() -> None:
    config = ConfDict({"a": {"b": None}})
    assert config.setdefault("a.b", 1) is None
    assert config.setdefault("a.c", 2) == 2
    assert config == {"a": {"b": None, "c": 2}}


def test_items_of_lists_and_tuples_are_reached_by_their_index() -> None:
    config = ConfDict({"l": [{"x": 1}, 2], "t": (3, 4)})
    config["l.0.x"] = 5
    config["l.1"] = {"y": {"z": 1}}
    config["t.0"] = 6
    assert config == {"l": [{"x": 5}, {"y": {"z": 1}}], "t": (6, 4)}
    assert config["l.1.y.z"] == 1 and "l.2" not in config and config.get("t.x") is None
    with pytest.raises(TypeError, match="indices"):
        config["l.x"] = 1
    with pytest.raises(TypeError, match="keep their length"):
        config["l.0"] = ConfDict.ops.DELETE


def test_keys_are_text() -> None:
    with pytest.raises(TypeError, match="keys must be str, not 1"):
        ConfDict({"a": {1: 2}})


def test_what_is_put_in_is_not_shared_with_the_caller() -> None:
    mine: dict[str, tp.Any] = {"l": [{"x": 1}]}
    config = ConfDict(mine)
    config["l.0.x"] = 2
    assert mine == {"l": [{"x": 1}]}


# -- updates


@pytest.mark.parametrize(
    ("start", "patch", "expected"),
    [
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": {"b": 1}}, {"a.c": 2}, {"a": {"b": 1, "c": 2}}),
        ({"a": {"b": 1}}, {"a": 2}, {"a": 2}),
        ({"a": 2}, {"a.b.c": 1}, {"a": {"b": {"c": 1}}}),
        ({"a": None}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": 1}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}, "c": 2}, {"=replace=": True, "d": 3}, {"d": 3}),
        ({"a": {"b": 1}, "c": 2}, {"a": {"d": 3, "=replace=": True}}, {"a": {"d": 3}, "c": 2}),
        ({"a": {"b": {"x": 1}}}, {"a.b": {"=replace=": True, "y": 2}}, {"a": {"b": {"y": 2}}}),
        ({"a": {"b": 1}}, {"a": {"=replace=": False, "c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": {"b": 1, "c": 2}}, {"a.b": "=delete="}, {"a": {"c": 2}}),
    ],
)
def test_an_update_merges(start: tp.Any, patch: tp.Any, expected: tp.Any) -> None:
    config = ConfDict(start)
    config.update(patch)
    assert config == expected


def test_assigning_and_the_operator_merge_like_an_update() -> None:
    config = ConfDict({"a": {"b": 1}})
    config["a"] = {"c": 2}
    config |= {"a.d": 3}
    assert type(config) is ConfDict and config == {"a": {"b": 1, "c": 2, "d": 3}}


@pytest.mark.parametrize(
    ("patch", "order"),
    [({"c": {"=before=": "a"}}, "cab"), ({"a": {"=after=": "b"}}, "bac"), ({"a": {"=after=": "z"}}, "abc")],
)
@pytest.mark.parametrize("kind", [dict, collections.OrderedDict])
def test_a_dictionary_moves_next_to_a_sibling(kind: tp.Any, patch: tp.Any, order: str) -> None:
    config = ConfDict({"steps": kind((name, {"x": name}) for name in "abc")})
    config.update({"steps": patch})
    assert "".join(config["steps"]) == order
    assert isinstance(config["steps"], kind)


def test_operations_that_cannot_be_applied_wait_and_have_no_uid() -> None:
    patch = ConfDict({"a": {"=replace=": True, "x": 1}, "b": "=delete="})
    with pytest.raises(ValueError, match="a patch has no uid"):
        patch.to_uid()
    config = ConfDict({"a": {"y": 1}, "b": 2})
    config.update(patch)
    assert config == {"a": {"x": 1}}


@pytest.mark.parametrize(
    "patch",
    [
        {"x": 1, "a": "=repalce="},
        {"x": 1, "a": {"=repalce=": True}},
        {"x": 1, "a": "=replace="},
        {"x": 1, "a": [{"b": "=nothing="}]},
    ],
)
def test_a_mistyped_operation_is_refused_before_anything_changes(patch: tp.Any) -> None:
    config = ConfDict({"a": {"b": 1}})
    with pytest.raises(ValueError, match="=.+="):
        config.update(patch)
    assert config == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("patch", "error"),
    [({"=after=": "a"}, ValueError), ({"=after=": "b", "=before=": "b"}, ValueError), ({"=after=": 3}, TypeError)],
)
def test_a_move_that_makes_no_sense_is_an_error(patch: tp.Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="'a'|name of a key"):
        ConfDict({"a": {}, "b": {}}).update({"a": patch})


# -- copies


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, ConfDict.copy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_are_equal_and_of_the_same_class(way: tp.Callable[[ConfDict], ConfDict]) -> None:
    config = ConfDict({"a": {"b": [1, {"c": 2}]}, "o": collections.OrderedDict(y=1, x=2)})
    found = way(config)
    assert found == config and type(found) is ConfDict and type(found["a"]) is ConfDict
    assert type(found["o"]) is collections.OrderedDict and repr(found) == repr(config)
    found["z"] = 1
    assert "z" not in config


def test_a_copy_has_its_own_dictionaries_and_lists() -> None:
    config = ConfDict({"a": {"b": [1]}})
    config.copy()["a.b.0"] = 2
    assert config["a.b.0"] == 1


# -- flat, yaml, arguments


@dataclasses.dataclass
class Point:
    x: int = 1


def test_flat_gives_dotted_names_and_reaches_into_dataclasses() -> None:
    config = ConfDict({"a": {"b": {"c": 1}, "e": {}}, "l": [{"x": {"y": 2}}], "t": (1, 2), "p": Point()})
    assert config.flat() == {"a.b.c": 1, "l": [{"x.y": 2}], "t": (1, 2), "p.x": 1}


def test_yaml_joins_single_keys_and_reads_back_equal(tmp_path: pathlib.Path) -> None:
    config = ConfDict({"a": {"b": {"c": 1.5, "d": "é"}}, "l": [{"x": {"y": None}}], "e": {}, "s": "1"})
    path = tmp_path / "config.yaml"
    text = config.to_yaml(path)
    assert text == "a.b:\n  c: 1.5\n  d: é\nl:\n- x.y: null\ne: {}\ns: '1'\n"
    assert path.read_text(encoding="utf8") == text
    with path.open("rb") as opened:
        assert ConfDict.from_yaml(opened) == config
    assert ConfDict.from_yaml(io.StringIO(text)) == ConfDict.from_yaml(text) == config
    assert ConfDict.from_yaml(path) == ConfDict.from_yaml(str(path)) == config


def test_yaml_writes_values_of_other_types_plainly() -> None:
    values = {"p": pathlib.PurePosixPath("/a"), "s": {"b", "a"}, "n": np.float64(0.5), "t": (1, 2), "x": np.arange(2)}
    config = ConfDict({**values, "secret": pydantic.SecretStr("word")})
    plain = {"p": "/a", "s": ["a", "b"], "n": 0.5, "t": [1, 2], "x": [0, 1], "secret": "**********"}
    assert ConfDict.from_yaml(config.to_yaml()) == plain


def test_a_patch_out_of_yaml_deletes() -> None:
    config = ConfDict({"a": {"b": 1, "c": 2}})
    config.update(ConfDict.from_yaml("a.b: =delete="))
    assert config == {"a": {"c": 2}}


def test_arrays_can_be_put_in() -> None:
    config = ConfDict({"a": {"b": np.arange(3)}})
    config.update({"a.b": np.zeros(2)})
    assert config["a.b"].tolist() == [0, 0] and config.to_uid() == ConfDict({"a.b": np.zeros(2)}).to_uid()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (pathlib.PurePosixPath, "pathlib.PurePosixPath"),
        (collections.Counter.most_common, "collections.Counter.most_common"),
        (len, "builtins.len"),
    ],
)
def test_yaml_writes_classes_and_functions_as_they_are_imported(value: tp.Any, text: str) -> None:
    assert ConfDict.from_yaml(ConfDict(a=value, b=1).to_yaml())["a"] == text


@pytest.mark.parametrize("value", [1j, range(3), fractions.Fraction(1, 3)])
def test_yaml_writes_all_values_that_a_uid_can_have(value: tp.Any) -> None:
    assert str(value) in ConfDict(a=value, b=1).to_yaml()


def test_yaml_refuses_what_it_cannot_write() -> None:
    with pytest.raises(ConfigError, match="builtins:object cannot be written as yaml"):
        ConfDict(a=object()).to_yaml()


@pytest.mark.parametrize("text", ["", "just words", "- 1\n- 2\n", "missing.yaml"])
def test_yaml_of_anything_but_a_mapping_is_an_error(text: str) -> None:
    with pytest.raises(TypeError, match="neither a file nor a mapping in YAML"):
        ConfDict.from_yaml(text)


def test_arguments_become_text_below_dotted_names() -> None:
    found = ConfDict.from_args(["--name=x=y", "--optim.lr=0.01", "--empty="])
    assert found == {"name": "x=y", "optim": {"lr": "0.01"}, "empty": ""}
    with pytest.raises(ValueError, match="-a"):
        ConfDict.from_args(["--a=1", "-a", "b"])


# -- uids


def test_equal_contents_have_one_uid_whatever_the_order_and_spelling() -> None:
    found = ConfDict({"b": 1, "a": {"x": 0.5}}).to_uid()
    assert found == ConfDict({"a.x": 0.5, "b": 1}).to_uid() == ConfDict({"a.x": 0.5, "b": 1}).to_uid(version=2)
    label, _, digest = found.rpartition("-")
    assert label == "a.x=0.5,b=1" and len(digest) == 8


def test_types_and_the_order_of_an_ordered_dict_change_the_uid() -> None:
    ordered = collections.OrderedDict
    configs = [{"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": True}, {"a": {"x": 1}}, {"a": ordered(x=1, y=2)}]
    uids = {ConfDict(config).to_uid() for config in [*configs, {"a": ordered(y=2, x=1)}, {"a": {"x": 1, "y": 2}}]}
    assert len(uids) == 8
    assert ConfDict().to_uid() == "default"


# -- models


class Infra(pydantic.BaseModel):
    folder: str | None = None
    version: str = "0"
    _exca_identity_fields: tp.ClassVar[tuple[str, ...]] = ("version",)


class UidTask(pydantic.BaseModel):
    seed: int = 12
    shape: tuple[int, int] = (3, 4)
    coeff: float = 12.0
    device: str = "cpu"
    infra: Infra = Infra(version="1")


def test_the_example_of_the_documentation() -> None:
    task = UidTask(device="cuda", coeff=3)
    config = ConfDict.from_model(task, uid=True)
    expected = {"seed": 12, "shape": (3, 4), "coeff": 3.0, "device": "cuda", "infra": {"version": "1"}}
    assert config == expected and list(config) == list(expected) and type(config["infra"]) is ConfDict
    assert ConfDict.from_model(task, uid=True, exclude_defaults=True) == {"coeff": 3.0, "device": "cuda"}
    assert ConfDict.from_model(task)["infra"] == {"folder": None, "version": "1"}


@pytest.mark.parametrize(
    ("infra", "shown"),
    [(Infra(version="1", folder="f"), {}), (Infra(folder="f"), {"infra": {"version": "0"}})],
)
def test_of_an_infra_only_another_version_counts(infra: Infra, shown: tp.Any) -> None:
    assert ConfDict.from_model(UidTask(infra=infra), uid=True, exclude_defaults=True) == shown


class Sgd(pydantic.BaseModel):
    name: tp.Literal["sgd"] = "sgd"
    lr: float = 0.1
    verbose: bool = False
    _exclude_from_class_uid = ("verbose",)


class Adam(pydantic.BaseModel):
    name: tp.Literal["adam"] = "adam"
    lr: float = 0.01


class Net(pydantic.BaseModel):
    width: int = 8
    note: str = ""


class Train(pydantic.BaseModel):
    required: int
    optim: Sgd | Adam = pydantic.Field(Sgd(), discriminator="name")
    plain: Sgd = Sgd()
    nets: list[Net] = pydantic.Field(default_factory=list)
    steps: collections.OrderedDict[str, Net] = collections.OrderedDict()
    table: dict[str, int] = {}
    by_size: dict[int, Net] = {}
    path: pathlib.Path = pathlib.Path("a")
    device: str = "cpu"
    net: Net = Net(width=4)
    _exclude_from_class_uid = ("device", "net.note")


def test_without_defaults_only_what_is_required_and_discriminators_are_left() -> None:
    assert ConfDict.from_model(Train(required=1), uid=True, exclude_defaults=True) == {
        "required": 1,
        "optim": {"name": "sgd"},
    }


def test_what_classes_leave_out_only_leaves_with_uid() -> None:
    task = Train(required=1, device="cuda", net=Net(width=4, note="n"), plain=Sgd(verbose=True))
    lean = ConfDict.from_model(task, exclude_defaults=True)
    assert lean == {
        "required": 1, "optim": {"name": "sgd"}, "device": "cuda", "net": {"width": 4, "note": "n"},
        "plain": {"verbose": True},
    }  # fmt: skip
    assert list(ConfDict.from_model(task, uid=True, exclude_defaults=True)) == ["required", "optim"]
    full = ConfDict.from_model(task, uid=True)
    assert "device" not in full and full["net"] == {"width": 4} and "plain.verbose" not in full


def test_values_stay_what_they_are_so_that_the_model_can_be_built_again() -> None:
    steps = collections.OrderedDict(b=Net(), a=Net(width=1))
    task = Train(required=1, path=pathlib.Path("x"), table={"a.b": 1}, by_size={3: Net()}, nets=[Net()], steps=steps)
    config = ConfDict.from_model(task)
    assert config["path"] == pathlib.Path("x") and type(config["nets.0"]) is ConfDict
    assert type(config["steps"]) is collections.OrderedDict and config["by_size"] == {"3": {"width": 8, "note": ""}}
    assert Train(**config) == Train(**config.copy()) == Train(**pickle.loads(pickle.dumps(config))) == task


def test_a_key_with_a_dot_that_a_model_holds_is_one_key() -> None:
    config = ConfDict.from_model(Train(required=1, table={"a.b": 1}))
    config.update({"table.a.b": 2, "table.c": 3})
    assert config["table"] == {"a.b": 2, "c": 3} and config["table.a.b"] == 2
    assert config.pop("table.c") == 3


class Wide(Net):
    pass


def test_another_class_with_equal_fields_is_not_the_default() -> None:
    class Task(pydantic.BaseModel):
        net: Net = Net()
        any: tp.Any = None

    assert ConfDict.from_model(Task(net=Wide()), exclude_defaults=True) == {"net": {}}
    assert ConfDict.from_model(Task(any=object()), exclude_defaults=True).keys() == {"any"}


def test_extra_fields_show_and_types_tell_values_from_defaults() -> None:
    class Loose(pydantic.BaseModel, extra="allow"):
        a: tp.Any = 1

    found = ConfDict.from_model(Loose(a=True, **{"b": Net()}), exclude_defaults=True)
    assert found == {"a": True, "b": {}}


def test_leaving_out_what_is_no_field_is_an_error() -> None:
    class Wrong(pydantic.BaseModel):
        device: str = "cpu"
        _exclude_from_class_uid = ("devcie",)

    assert ConfDict.from_model(Wrong()) == {"device": "cpu"}
    with pytest.raises(ConfigError, match="did you mean device"):
        ConfDict.from_model(Wrong(), uid=True)
    with pytest.raises(TypeError, match="a dict is not a model"):
        ConfDict.from_model(tp.cast(tp.Any, {}))


nets = st.builds(Net, width=st.sampled_from([4, 8]), note=st.sampled_from(["", "n"]))
sgds = st.builds(Sgd, lr=st.sampled_from([0.1, 1]), verbose=st.booleans())
trains = st.builds(
    Train,
    required=st.just(1),
    optim=sgds | st.builds(Adam, lr=st.sampled_from([0.01, 1])),
    plain=sgds,
    nets=st.lists(nets, max_size=2),
    table=st.sampled_from([{}, {"x": 1}]),
    device=st.sampled_from(["cpu", "cuda"]),
    net=nets,
)


@stable
@given(task=trains)
def test_a_model_shows_exactly_the_names_of_its_identity(task: Train) -> None:
    lean, full, _ = uid.model_fields(task)
    for shown, form in ((ConfDict.from_model(task, True, True), lean), (ConfDict.from_model(task, True), full)):
        assert names_module.flatten(shown).keys() == {k for k in names_module.flatten(form) if not k.endswith("~class")}
    assert Train(**ConfDict.from_model(task)) == task


alike = st.sampled_from([0, 0.0, -0.0, False, 1, 1.0, True, "1", None, float("nan"), pathlib.Path("1")])
anything = st.recursive(
    alike | sgds | nets,
    lambda below: (
        st.lists(below, max_size=2)
        | st.lists(below, max_size=2).map(tuple)
        | st.dictionaries(st.sampled_from("ab"), below, max_size=2)
    ),
    max_leaves=4,
)


@stable
@given(default=anything, value=anything)
def test_a_value_shows_exactly_when_its_form_is_not_that_of_the_default(default: tp.Any, value: tp.Any) -> None:
    class Model(pydantic.BaseModel):
        x: tp.Any = default

    shown = ConfDict.from_model(Model(x=value), exclude_defaults=True)
    assert ("x" in shown) == (uid.encode(form_of_all(value)) != uid.encode(form_of_all(default)))


def form_of_all(value: tp.Any) -> tp.Any:
    """With what the classes leave out of their uid."""
    if isinstance(value, pydantic.BaseModel):
        return {"~class": type(value).__name__, **{name: form_of_all(child) for name, child in value}}
    if isinstance(value, dict):
        return {name: form_of_all(child) for name, child in value.items()}
    return list(map(form_of_all, value)) if isinstance(value, (list, tuple)) else uid.canonical(value)


# -- against a simple model: paths and nested plain dictionaries, nothing in place

names = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(".".join)
leaves = st.integers(0, 9) | st.none() | st.sampled_from(["", "x", "1"])
patches = st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=6)


def put(tree: tp.Any, path: list[str], value: tp.Any) -> dict[str, tp.Any]:
    tree = tree if isinstance(tree, dict) else {}
    head, *rest = path
    return {**tree, head: put(tree.get(head), rest, value) if rest else merge(tree.get(head), value)}


def merge(tree: tp.Any, value: tp.Any) -> tp.Any:
    if not isinstance(value, dict):
        return value
    tree = tree if isinstance(tree, dict) else {}
    for name, child in value.items():
        tree = put(tree, name.split("."), child)
    return tree


def at(tree: tp.Any, path: list[str]) -> tp.Any:
    for part in path:
        tree = tree[part] if isinstance(tree, dict) and part in tree else {}.get("", KeyError)
    return tree


def leaf_names(tree: dict[str, tp.Any]) -> dict[str, tp.Any]:
    found = {}
    for key, child in tree.items():
        below = leaf_names(child) if isinstance(child, dict) else None
        found.update({key: child} if below is None else {f"{key}.{name}": leaf for name, leaf in below.items()})
    return found


@stable
@given(steps=st.lists(st.tuples(st.sampled_from(["set", "update", "get", "pop"]), names, patches), max_size=8))
def test_any_sequence_does_what_a_simple_model_does(steps: list[tuple[str, str, tp.Any]]) -> None:
    config, model = ConfDict(), {}
    for step, name, patch in steps:
        *parent, last = path = name.split(".")
        known = at(model, path)
        if step == "set":
            config[name], model = patch, put(model, path, patch)
        elif step == "update":
            config.update({name: patch})
            model = merge(model, {name: patch})
        elif step == "pop" and known is not KeyError:
            assert config.pop(name) == known
            del at(model, parent)[last]
        else:
            assert config.get(name, KeyError) == known and (name in config) == (known is not KeyError)
        assert config == model
        assert config.flat() == leaf_names(model)
    assert ConfDict.from_yaml(config.to_yaml()) == pickle.loads(pickle.dumps(config)) == config.copy() == model
