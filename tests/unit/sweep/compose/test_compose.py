"""What a sweep composes is what Hydra's own loader composes: the same values, types, flags, caches and errors."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import itertools
import random
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import hydra
import omegaconf
import pytest
from composing import Sweep, check, write
from configs import compare_descriptions, described, differences, shared
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_exca.sweep.compose import loader, templates
from hydra_exca.sweep.configs.overlay import ConfigOverlay

pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")
HYDRA_13 = pytest.mark.hydra_13  # Hydra 1.4 refuses such an app

SMALL = {
    "config": """
        defaults:
          - model: mlp
          - data: digits
          - _self_
        seed: 0
        rate: 0.1
        flag: true
        nothing: null
        text: word
        later: ???
        name: ${model.name}-${data.name}
        sizes: [1, 2, {deep: 3}]
        table: {one: 1, two: {three: 3}}
        same: ${table}
    """,
    "model/mlp": "{name: mlp, width: 3, act: {kind: relu, slope: 0.1}}",
    "model/cnn": "{name: cnn, kernel: 5, act: {kind: gelu}}",
    "data/digits": "{name: digits, batch: 32, root: /data}",
    "data/faces": "{name: faces, batch: 8, root: '${oc.env:FACES,/faces}'}",
}


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A config of a few kinds of values and two groups."""
    return write(tmp_path / "conf", SMALL)


# -- values on the command line ----------------------------------------------------------------------------------------

VALUES = {
    "numbers": ["seed=1", "seed=-1", "seed=1_000", "seed=0x10", "rate=1e-3", "rate=-.5", "rate=1.", "rate=+1"],
    "numbers that are none": ["rate=inf", "rate=-inf", "rate=nan", "seed=1.5", "seed=1a", "seed=007"],
    "words": ["text=a", "text=1", "text=true", "text=null", "text=a b", "text=ü☃", "text=a/b.c-d%e+f@g?h|i", "text=~a"],
    "quoted words": ["text='a b'", 'text="1"', "text='null'", r"text='it\'s'", r'text="a\\b"', "text='a,b'", "text=''"],
    "escaped words": [r"text=a\=b", r"text=a\,b", r"text=\[a\]", r"text=\{a\}", r"text=a\ b", r"text=a\:b", r"text=\\"],
    "words with signs": ["text=a=b", "text=a:b", "text='[a]'", "text='{a:b}'", "text='#a'", "text='a\tb'", "text=$"],
    "nothing": ["text=", "seed=", "table=", "sizes=", "nothing=", "nothing=null", "table=null", "text='???'"],
    "truth": ["flag=false", "flag=TRUE", "flag=yes", "flag=0", "flag='true'"],
    "other types": ["seed=word", "seed=true", "seed=[1]", "seed={a:1}", "table=3", "sizes=3", "text=[a]", "later=3"],
    "lists": ["sizes=[]", "sizes=[3]", "sizes=[a,[b],{c:d}]", "sizes=['a,b',null,1e3]", "+more=[1,2]", "+sizes.3=1"],
    "dicts": ["table={}", "table={one:2}", "table={new:1}", "+table={new:1}", "table={two:{three:4}}", "later={a:1}"],
    "items of lists": ["sizes.0=5", "sizes[0]=5", "sizes.2.deep=4", "sizes.9=1", "sizes.x=1", "sizes.-1=1"],
    "interpolations": ["text=${seed}", "text='${seed}'", "seed=${.rate}", "text=${now:%Y}", "text=a${seed}b${rate}"],
    "interpolations of nodes": ["table=${model}", "table=${missing}", "same=${model}", "same=3", "text=${table.one}"],
    "interpolations that are none": ["text=${", r"text=\${seed}", r"text='\${seed}'", "text=${oc.env:NOT}"],
    "functions": ["seed=int(3.7)", "text=str(1)", "flag=bool(0)", "rate=float(1)", "text=json_str({a:1})"],
    "sweeps, none here": ["seed=1,2", "seed=range(3)", "seed=choice(1,2)", "model=mlp,cnn", "rate=interval(0,1)"],
    "what is below": ["table.one=5", "table.two.three=5", "table.two.four=5", "seed.a=1", "nothing.a=1", "later.a=1"],
    "what is below an interpolation": ["same.one=5", "same.two.three=5", "name.a=1", "same.new=1", "+same.new=1"],
    "what is not there": ["wrong=1", "model.wrong=1", "+wrong.a=1", "++wrong.a.b=1", "Seed=1", "wrong/a=1"],
    "adding what is there": ["+seed=1", "++seed=1", "+table.one=1", "++table.one=a", "+nothing=1", "+later=1"],
    "removing": ["~seed", "~table.one", "~table.two", "~seed=0", "~seed=1", "~wrong", "~nothing", "~later", "~sizes.0"],
    "removing nodes": ["~table", "~same", "~same.one", "~model.act", "~model.act.kind=relu", "~name", "~table={one:1}"],
    "groups": ["model=cnn", "data=faces", "model=wrong", "model=null", "model=", "model=[mlp,cnn]", "model@other=cnn"],
    "more groups": ["+model=cnn", "+model@other=cnn", "++model=cnn", "~model", "~model=mlp", "~model=cnn", "+wrong=a"],
    "packages": ["+data@second.place=faces", "+data@_global_=faces", "data@data=faces", "+data@model=faces"],
    "what is no override": ["seed", "=1", "", "seed==1", "+", "a b=1", "seed =1", "model/mlp", "-seed=1", "seed:1"],
}


@pytest.mark.parametrize("kind", VALUES)
def test_an_override_does_what_it_does_in_hydra(conf: Path, kind: str) -> None:
    check(Sweep(conf), *[[each] for each in VALUES[kind]], orders=False)


def test_each_use_of_a_key_is_its_own(conf: Path) -> None:
    check(Sweep(conf), ["seed=1"], ["seed=1.0"], ["seed='1'"], ["seed=1"], ["seed=True"], ["seed=true"], ["seed=01"])


def test_the_last_of_two_overrides_of_a_key_counts(conf: Path) -> None:
    groups = ["model=cnn", "model=mlp"], ["model=mlp", "model=mlp"]
    check(Sweep(conf), ["seed=1", "seed=2"], ["seed=2", "seed=1"], *groups)


def test_overrides_of_a_node_and_of_what_is_in_it_count_in_their_order(conf: Path) -> None:
    into = ["table={one:{x:1}}", "table.one.x=2"], ["table={one:5}", "table.one=6"], ["table.one=6", "table={one:5}"]
    replaced = ["table=null", "table.one=1"], ["sizes=[{a:1}]", "sizes.0.a=2"], ["later={a:1}", "later.a=2"]
    linked = ["table.one=5", "same.one=6"], ["same=${model}", "same.name=a"], ["table.one=5"]
    check(Sweep(conf), *into, *replaced, *linked)


def test_overrides_of_a_group_and_of_keys_in_it_count_in_either_order(conf: Path) -> None:
    check(
        Sweep(conf),
        ["model=cnn", "model.kernel=7"],
        ["model.kernel=7", "model=cnn"],
        ["model=mlp", "model.kernel=7"],
        ["model.width=4", "model=cnn"],
        ["model.act.slope=0.5", "model=mlp", "data=faces"],
        ["data=faces", "model.act.slope=0.5", "model=mlp"],
    )


def test_overrides_that_add_or_remove_count_in_their_order(conf: Path) -> None:
    check(
        Sweep(conf),
        ["+new=1", "new=2"],
        ["new=2", "+new=1"],
        ["++new=1", "seed=3"],
        ["~table.one", "+table.one=5"],
        ["~table.one", "table.one=5"],
        ["seed=3", "~seed"],
        ["+model@other=cnn", "other.kernel=3"],
        ["~model", "seed=1"],
    )


@pytest.mark.parametrize("order", range(3))
def test_jobs_of_all_kinds_do_not_disturb_one_another(conf: Path, order: int) -> None:
    groups = "model=cnn", "model=mlp", "~model"
    keys = "model.name=a", "table.one=2", "+a=b"
    jobs = [list(job) for job in itertools.product(("seed=1", "seed=x", "+seed=1"), groups, keys)]
    random.Random(order).shuffle(jobs)
    check(Sweep(conf), *jobs[:9])


def test_changing_a_dict_or_list_that_an_override_gave_changes_no_other_job(conf: Path) -> None:
    sweep, job = Sweep(conf), ["table={one:{x:[1]}}", "sizes=[[1]]", "+more={a:{b:1}}"]
    first = sweep.by_launcher(job).config
    assert first is not None
    first.table.one.x.append(2)
    first.sizes[0].append(2)
    first.more.a.b = 2
    check(sweep, job)


def test_a_config_is_the_callers_own_also_from_the_masters(conf: Path) -> None:
    sweep = Sweep(conf)
    one, other = sweep.by_sweeper(["seed=1"]).config, sweep.by_launcher(["seed=1"]).config
    assert one is not None and other is not None
    assert shared(one, other) == shared(sweep.master, one) == shared(sweep.master, other) == []


# -- what config files can say -----------------------------------------------------------------------------------------


def files_of(tmp_path: Path, config: str, **files: str) -> Path:
    named = {name.replace("__", "/"): text for name, text in files.items()}
    return write(tmp_path / "conf", {"config": config, **named})


def test_a_choice_that_depends_on_other_choices_follows_them(tmp_path: Path) -> None:
    conf = files_of(
        tmp_path,
        "defaults: [{model: a}, {data: x}, {model_data: '${model}_${data}'}, {optional more: '${model}_more'}, _self_]",
        model__a="{n: 1}",
        model__b="{n: 2}",
        data__x="{n: 1}",
        data__y="{n: 2}",
        model_data__a_x="{rate: 1, model_n: '${model.n}'}",
        model_data__b_y="{rate: 4}",
        model_data__a_y="{rate: 2}",
        more__b_more="{more: 1}",
    )
    good = ["model=b", "data=y"], ["data=y"], ["model_data=b_y"], ["model_data.rate=3", "data=y"], ["more=b_more"]
    both = ["data=y", "model=b", "model_data.rate=3"], ["more.more=3", "data=y", "model=b"]
    check(Sweep(conf), *good, ["model=b"], *both)


@HYDRA_13
def test_a_choice_that_depends_on_the_environment_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = "defaults: [{db: '${oc.env:WHICH_DB,a}'}]\nhome: ${oc.env:WHICH_DB,none}"
    sweep = Sweep(files_of(tmp_path, config, db__a="{n: 1}", db__b="{n: 2}"))
    check(sweep, ["db.n=3"], ["db=b"], [])
    monkeypatch.setenv("WHICH_DB", "b")
    check(sweep, ["db.n=3"], ["db=a"], [])
    monkeypatch.setenv("WHICH_DB", "c")
    check(sweep, ["db.n=3"], ["db=a"], [])


def test_packages_of_groups_are_kept(tmp_path: Path) -> None:
    conf = files_of(
        tmp_path,
        "defaults: [{db@src: mysql}, {db@dst.deep: pg}, {server/site@web: fb}, {tool: [one, two]}, _self_]\nx: ${src}",
        db__mysql="# @package _group_\n{n: 1, mine: '${.n}'}",
        db__pg="{n: 2}",
        server__site__fb="{n: 3}",
        server__site__goog="# @package other.place\n{n: 4}",
        tool__one="{a: 1}",
        tool__two="{b: 1}",
        tool__three="# @package _global_\n{c: 1}",
    )
    check(
        Sweep(conf),
        ["db@src=pg"],
        ["db=pg"],
        ["db@dst.deep=mysql", "dst.deep.n=5"],
        ["src.n=5", "db@src=pg"],
        ["server/site@web=goog"],
        ["server.site=goog"],
        ["tool=[two,three]"],
        ["tool=three"],
        ["tool=[]"],
        ["tool.a=4", "tool=[one]"],
        ["db@new:src=pg"],
        ["db@src:new=pg"],
        ["~db@src"],
        ["+db@extra=pg", "extra.n=3"],
    )


EXPERIMENT = """
    # @package _global_
    defaults:
      - override /model: b
      - override /hydra/job_logging: disabled
    model: {n: 7}
    seed: 3
    hydra: {job: {name: tried}}
"""


def test_experiments_replace_what_they_say(tmp_path: Path) -> None:
    conf = files_of(
        tmp_path,
        "defaults: [_self_, {model: a}, {experiment: null}, {optional local: here}]\nseed: 1\nmodel: {n: 0}",
        model__a="{n: 1}",
        model__b="{n: 2, opt: {lr: 1}}",
        experiment__one=EXPERIMENT,
        experiment__two="# @package _global_\ndefaults: [one]\nseed: 4\nextra: {a: '${seed}'}",
        experiment__wrong="# @package _global_\ndefaults: [override /modell: b]",
        local__here="{place: here}",
    )
    check(
        Sweep(conf),
        ["experiment=one"],
        ["experiment=two", "seed=9"],
        ["seed=9", "experiment=one"],
        ["experiment=one", "model=a"],
        ["experiment=one", "model.opt.lr=3"],
        ["experiment=one", "experiment=two"],
        ["model.opt.lr=3"],
        ["experiment=wrong"],
        ["+experiment=one"],
        ["experiment=null", "local.place=there"],
        ["~local"],
    )


def test_nested_groups_are_chosen_where_they_are(tmp_path: Path) -> None:
    conf = files_of(
        tmp_path,
        "defaults: [{server: apache}]",
        server__apache="defaults: [{db: a}, {/log@log: plain}, _self_]\nname: apache",
        server__nginx="defaults: [_self_, {db: b}, base]\nname: nginx",
        server__base="timeout: 3",
        server__db__a="{kind: a}",
        server__db__b="{kind: b}",
        log__plain="{level: 1}",
        log__rich="{level: 2}",
    )
    check(
        Sweep(conf),
        ["server=nginx"],
        ["server/db=b"],
        ["server=nginx", "server/db=a", "server.db.kind=c"],
        ["log@server.log=rich"],
        ["server.timeout=5"],
        ["server.timeout=5", "server=nginx"],
        ["server/db=c"],
    )


def test_a_key_may_have_the_name_of_a_group(tmp_path: Path) -> None:
    conf = files_of(
        tmp_path,
        "defaults: [{db: a}, _self_]\nmodel: {db: 3}\nnot_chosen: 1\nopt: {x: 1}\ndb: {n: 5}",
        db__a="{n: 1, k: 1}",
        db__b="{n: 2, k: 2}",
        not_chosen__a="{n: 1}",
        opt__x__one="{n: 1}",
    )
    into = ["db={n:3}"], ["db.n=3"], ["db=b"], ["model.db=b"], ["not_chosen=a"], ["not_chosen=1"], ["opt.x=2"]
    check(Sweep(conf), *into, ["opt/x=one"], ["+opt/x=one"], ["+not_chosen=a"], ["opt=one"], ["db=3"], ["++db=b"])


def test_readonly_and_struct_configs_stay_so(tmp_path: Path) -> None:
    def protected(name: str) -> DictConfig:
        node = OmegaConf.create({"n": 1, "deep": {"m": [1, {"k": 1}]}})
        OmegaConf.set_readonly(node.deep, name == "readonly")
        OmegaConf.set_struct(node.deep, {"struct": True, "open": False}.get(name))
        return node

    for name in ("readonly", "struct", "open"):
        ConfigStore.instance().store(group="node", name=name, node=protected(name))
    conf = files_of(tmp_path, "defaults: [{node: open}]\nother: 1")
    nodes = [[f"node={name}"] for name in ("readonly", "struct", "open")]
    keys = "node.n=2", "node.deep.m=[3]", "node.deep.m.1.k=3", "node.deep.new=1", "+node.deep.new=1", "node.deep={m:1}"
    check(Sweep(conf), *[[*node, key] for node in nodes for key in keys], *nodes)


def test_a_config_that_is_read_only_throughout_can_be_swept_below_hydra_alone(tmp_path: Path) -> None:
    node = OmegaConf.create({"a": 1, "b": {"c": 2}})
    OmegaConf.set_readonly(node, True)
    ConfigStore.instance().store(name="frozen", node=node)
    check(Sweep(files_of(tmp_path, "defaults: [frozen, _self_]")), [], ["a=2"], ["b.c=3"], ["+d=1"], ["++a=1"], ["~a"])


def test_config_files_of_the_search_path_are_found(tmp_path: Path, conf: Path) -> None:
    more = write(tmp_path / "more", {"model/third": "{name: third, width: 9}", "extra/one": "{e: 1}"})
    sweep = Sweep(conf, f"hydra.searchpath=[file://{more}]")
    check(sweep, ["model=third"], ["model=third", "model.width=1"], ["+extra=one"], ["+extra=one", "extra.e=2"])
    in_job = f"hydra.searchpath=[file://{more}]"
    check(Sweep(conf), ["model=third"], [in_job, "model=third"], [in_job, "seed=1"], ["seed=1"], ["hydra.searchpath=3"])


def test_a_search_path_in_the_primary_config_is_followed(tmp_path: Path) -> None:
    more = write(tmp_path / "more", {"db/a": "{n: 1}", "db/b": "{n: 2}"})
    search = f"hydra: {{searchpath: ['file://{more}', 'file://{more}/not/there']}}"
    check(Sweep(files_of(tmp_path, f"defaults: [{{db: a}}]\n{search}")), ["db=b"], ["db.n=4"], ["db.n=5"])


def test_a_config_may_have_a_name_of_its_own_or_none(conf: Path) -> None:
    check(Sweep(conf, name="data/faces"), ["data.batch=3"], ["batch=3"], ["model=cnn"], ["+model=cnn"])
    check(Sweep(conf, name=None), [], ["seed=1"], ["+seed=1"], ["+model=cnn"], ["+seed=2"])
    check(Sweep(None, name=None), [], ["+seed=1"], ["+a.b=1", "a.b=2"])


@pytest.mark.hydra_14
@pytest.mark.filterwarnings("ignore:extend_list")
def test_overrides_of_hydra_14_do_what_they_do_in_hydra(tmp_path: Path) -> None:
    text = "a: [1, 2]\nm: {a.b: 1, c: {d: 2}}\nhydra: {aliases: {seed: a, d: m.c.d, m.c.d: m.c.d}}\n"
    sweep = Sweep(write(tmp_path / "conf", {"config": text}), base=None)
    jobs = ["a=extend_list(3,4)", "a[0]=1", "a[5]=1", "a.0=1", r"m.a\.b=1", "m[c][d]=1", "d=1", "m.c.d=1"]
    check(sweep, *([job] for job in jobs))


@pytest.mark.parametrize("base", ["1.1", "1.2", None])
@HYDRA_13
def test_the_version_base_is_followed(tmp_path: Path, base: str | None) -> None:
    conf = files_of(
        tmp_path,
        "defaults: [{model: a}]\nseed: 1\nmodel: {n: 5}\nenv: ${oc.env:NOT_SET,none}",
        model__a="{n: 1}",
        model__b="# @package _name_\n{n: 2}",
    )
    check(Sweep(conf, base=base), ["model=b"], ["model.n=3"], ["seed=2"], ["model@_name_=b"], ["+model@x._name_=b"])


@HYDRA_13
def test_keys_of_other_types_are_found_as_hydra_finds_them(tmp_path: Path) -> None:
    config = "{1: one, 1.5: x, true: yes, null_: 0, a-b: 1, 'a b': 1, 'a.b': 2, '2': two, d: {1: a, '1': b}, ü: 1}"
    keys = "1=a", "'1'=a", "1.5=b", "true=c", "a-b=3", "'a.b'=3", "a.b=3", "2=c", "d.1=c", "ü=2", "d={1:c}", "+d={2:c}"
    check(Sweep(files_of(tmp_path, config)), *[[key] for key in keys])


def test_a_config_that_is_wrong_gives_hydras_error_for_each_job(tmp_path: Path) -> None:
    conf = files_of(
        tmp_path,
        "defaults: [{model: a}]",
        model__a="{n: 1}",
        model__broken="{n: ",
        model__list="[1, 2]",
        model__lost="defaults: [nowhere]",
        model__search="# @package _global_\nhydra: {searchpath: ['file:///x']}",
        model__twice="defaults: [{/model@: a}]",
        model__half="{n: '${'}",
    )
    names = "broken", "list", "lost", "search", "twice", "half"
    chosen = [[f"model={name}"] for name in names]
    check(Sweep(conf), *chosen, ["model.n=2"], *[[*choice, "model.n=1"] for choice in chosen])


# -- typed configs -----------------------------------------------------------------------------------------------------


class Color(enum.Enum):
    RED = 1
    BLUE = "blue"


@dataclasses.dataclass
class Inner:
    n: int = 1
    who: str = "me"
    maybe: int | None = None


@dataclasses.dataclass
class Special(Inner):
    extra: float = 0.5


@dataclasses.dataclass
class Typed:
    number: int = 3
    rate: float = 0.1
    flag: bool = False
    text: str = "a"
    maybe: int | None = None
    either: int | str = 1
    maybe_either: float | str | None = None
    path: Path = Path("/a")
    raw: bytes = b"a"
    color: Color = Color.RED
    maybe_color: Color | None = None
    counts: dict[str, int] = dataclasses.field(default_factory=lambda: {"a": 1})
    by_color: dict[Color, float] = dataclasses.field(default_factory=lambda: {Color.RED: 1.0})
    by_number: dict[int, str] = dataclasses.field(default_factory=lambda: {1: "a"})
    sizes: list[int] = dataclasses.field(default_factory=lambda: [1, 2])
    inners: list[Inner] = dataclasses.field(default_factory=lambda: [Inner()])
    named: dict[str, Inner] = dataclasses.field(default_factory=lambda: {"one": Inner()})
    inner: Inner = dataclasses.field(default_factory=Inner)
    maybe_inner: Inner | None = None
    needed: int = MISSING
    needed_inner: Inner = MISSING
    link: int = "${number}"  # type: ignore[assignment]
    anything: tp.Any = None


TYPED = {
    "numbers": ["number=4", "number=4.0", "number=a", "number='4'", "number=null", "number=true", "rate=1", "rate=nan"],
    "more numbers": ["rate='1e-3'", "flag=1", "flag=yes", "flag=3", "text=3", "text=null", "text=[1]", "text=true"],
    "optional values": ["maybe=1", "maybe=a", "maybe=null", "maybe_color=BLUE", "maybe_color=GREEN"],
    "unions": ["either=2", "either=a", "either=1.5", "either=null", "maybe_either=2", "either=[1]"],
    "paths and bytes": ["path=/b", "path=3", "path=null", "raw=b", "raw=3", "path='${text}'"],
    "enums": ["color=BLUE", "color=blue", "color=1", "color=Color.BLUE", "color=GREEN", "color='blue'"],
    "dicts": ["counts.a=2", "counts.b=2", "+counts.b=2", "+counts.b=x", "counts={b:2}", "counts.a=x", "~counts.a"],
    "dicts of other keys": ["by_color.RED=2", "+by_color.BLUE=2", "by_color.BLUE=2", "by_number.1=b", "+by_number.2=b"],
    "lists": ["sizes=[3]", "sizes=[a]", "sizes=[]", "sizes.0=5", "sizes.0=a", "sizes=null"],
    "lists of nodes": ["inners=[{n:2}]", "inners=[{m:2}]", "inners.0.n=3", "inners.0.n=a", "inners.0={n:4}"],
    "dicts of nodes": ["named.one.n=2", "+named.two={n:3}", "+named.two.n=3", "named.one=null", "named={one:{n:x}}"],
    "nodes": ["inner.n=2", "inner.n=a", "inner={n:2}", "inner={m:2}", "inner.m=1", "inner=null", "~inner.n"],
    "optional nodes": ["maybe_inner={n:2}", "maybe_inner.n=2", "+maybe_inner.n=2", "maybe_inner=null", "maybe_inner=3"],
    "what is missing": ["needed=1", "needed=a", "needed=???", "needed_inner.n=1", "needed_inner={n:1}", "number=???"],
    "links": ["link=5", "link=a", "number=${link}", "number=${text}", "inner=${needed_inner}", "inner=${maybe_inner}"],
    "anything": ["anything=1", "anything=[1]", "anything={a:1}", "anything.a=1", "+anything.a=1", "+anything=[a]"],
}


@pytest.fixture
def typed() -> Sweep:
    store = ConfigStore.instance()
    store.store(name="typed", node=Typed)
    store.store(group="inner", name="plain", node=Inner)
    store.store(group="inner", name="special", node=Special(extra=0.7))
    store.store(group="inner", name="loose", node={"n": 5, "new": 1})
    store.store(group="inner", name="far", node=Inner(n=8), package="maybe_inner")
    return Sweep(None, name="typed")


@pytest.mark.parametrize("kind", TYPED)
def test_a_typed_value_takes_what_it_takes_in_hydra(typed: Sweep, kind: str) -> None:
    check(typed, *[[each] for each in TYPED[kind]], orders=False)


def test_a_typed_group_may_be_chosen_over_a_typed_node(typed: Sweep) -> None:
    chosen = [f"+inner={name}" for name in ("plain", "special", "loose", "far")]
    check(typed, *[[each] for each in chosen], *[[each, "inner.n=3"] for each in chosen], ["inner.extra=1", chosen[1]])


def test_objects_stand_where_a_config_allows_them(tmp_path: Path) -> None:
    node = OmegaConf.create({"held": {1, 2}, "n": 1, "kind": Path}, flags={"allow_objects": True})
    ConfigStore.instance().store(name="holding", node=node)
    conf = files_of(tmp_path, "defaults: [holding, _self_]\nm: 1")
    check(Sweep(conf), [], ["n=2"], ["held=3"], ["kind=a"], ["m=2"], ["n=2"])


def test_a_schema_in_the_store_checks_the_config_file(tmp_path: Path) -> None:
    ConfigStore.instance().store(name="base", node=Typed)
    ConfigStore.instance().store(group="inner", name="base_inner", node=Inner, provider="app")
    conf = files_of(
        tmp_path,
        "defaults: [base, {inner: mine}, _self_]\nnumber: 5\nneeded: 4\ncounts: {z: 3}",
        inner__mine="defaults: [base_inner]\nn: 7",
        inner__wrong="defaults: [base_inner]\nn: x",
        inner__more="defaults: [base_inner]\nm: x",
    )
    check(Sweep(conf), ["inner.n=8"], ["inner=wrong"], ["inner=more"], ["inner.n=x"], ["counts.z=4"], ["counts.a=x"])


@HYDRA_13
def test_a_schema_of_the_same_name_checks_the_config_file_and_says_that_this_is_deprecated(tmp_path: Path) -> None:
    ConfigStore.instance().store(group="db", name="mysql", node=Inner)
    conf = files_of(tmp_path, "defaults: [{db: plain}]", db__mysql="{n: 3}", db__plain="{n: 4}")
    check(Sweep(conf, base="1.1"), ["db=mysql"], ["db=mysql", "db.n=5"], ["db=mysql", "db.n=x"], ["db.n=x"])


# -- hydra's own node --------------------------------------------------------------------------------------------------


def test_hydras_options_of_the_command_line_hold_for_all_jobs(conf: Path) -> None:
    options = "hydra.job.name=mine", "hydra.sweep.subdir=${hydra.job.override_dirname}", "hydra.verbose=true"
    sweep = Sweep(conf, *options, "hydra/job_logging=disabled", "+hydra.job.env_set.A=b", "seed=1,2", "model=mlp,cnn")
    check(sweep, ["seed=1", "model=cnn"], ["seed=2", "model=mlp"], ["model=cnn"], ["table.one=4"])


def test_hydras_options_of_a_job_hold_for_this_job(conf: Path) -> None:
    check(
        Sweep(conf, "hydra.job.name=all"),
        ["hydra.job.name=one", "seed=1"],
        ["seed=1"],
        ["hydra.verbose=true"],
        ["hydra/job_logging=disabled", "seed=1"],
        ["hydra.sweep.subdir=a${hydra.job.num}"],
        ["+hydra.job.env_set.X=1"],
        ["hydra.job.chdir=true", "model=cnn"],
        ["hydra.job.wrong=1"],
        ["hydra.overrides.task=[a=b]"],
        ["hydra.runtime.cwd=/x"],
        ["hydra.job.override_dirname=mine"],
    )


def test_override_dirname_is_written_as_configured(tmp_path: Path) -> None:
    written = "{kv_sep: ':', item_sep: ';', exclude_keys: [seed, model, db@src]}"
    config = f"seed: 1\na: {{b: 1}}\nhydra: {{job: {{config: {{override_dirname: {written}}}}}}}"
    config = f"defaults: [{{model: x}}, {{db@src: y}}]\n{config}"
    conf = files_of(tmp_path, config, model__x="{n: 1}", db__y="{n: 1}")
    keys = "hydra.job.config.override_dirname.item_sep=_", "hydra.job.config.override_dirname.exclude_keys=[]"
    plain = ["a.b=2", "seed=3", "model=x"], ["a.b='x=y'"], ["db@src=y", "src.n=2"], ["+z=1", "a.b=1"]
    check(Sweep(conf), *plain, *[[key, "seed=3", "a.b=2", "model=x"] for key in keys])


def test_env_copy_takes_the_environment_as_it_is_for_each_job(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPIED", "one")
    sweep = Sweep(conf, "hydra.job.env_copy=[COPIED]")
    check(sweep, ["seed=1"], ["model=cnn"])
    monkeypatch.setenv("COPIED", "two")
    check(sweep, ["seed=1"], ["seed=2", "model=cnn"])
    monkeypatch.delenv("COPIED")
    check(sweep, ["seed=1"], ["seed=3"])


def test_the_working_directory_is_that_of_the_moment(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(conf)
    check(sweep, ["seed=1"])
    monkeypatch.chdir(tmp_path)
    check(sweep, ["seed=1"], ["seed=2"])


def test_hydras_own_groups_in_the_defaults_list_are_kept(tmp_path: Path) -> None:
    logging = "{version: 1, root: {level: '${level}'}}"
    config = "defaults: [{override hydra/job_logging: mine}, {override hydra/hydra_logging: none}, _self_]\nlevel: INFO"
    conf = files_of(tmp_path, f"{config}\nhydra: {{sweep: {{subdir: '${{level}}'}}}}", hydra__job_logging__mine=logging)
    check(Sweep(conf), ["level=DEBUG"], ["hydra/job_logging=default"], ["hydra.sweep.subdir=x", "level=x"])


# -- resolvers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def resolvers() -> Iterator[list[str]]:
    """Resolvers, one of them cached, that note each call."""
    called: list[str] = []

    def noted(text: str) -> str:
        called.append(text)
        return f"{text}!"

    OmegaConf.register_new_resolver("noted", noted)
    OmegaConf.register_new_resolver("noted_once", noted, use_cache=True)
    yield called
    OmegaConf.clear_resolver("noted")
    OmegaConf.clear_resolver("noted_once")


def test_resolvers_of_the_user_are_asked_when_a_value_is(tmp_path: Path, resolvers: list[str]) -> None:
    config = "seed: 1\none: ${noted_once:a}\ntwo: ${noted:b}\nthree: ${noted_once:${seed}}\nfour: ${noted:${.two}}"
    sweep = Sweep(files_of(tmp_path, config))
    check(sweep, ["seed=2"], ["one=3"], ["two=${noted_once:a}"], ["seed=${noted_once:x}"])
    resolvers.clear()
    assert sweep.by_launcher(["seed=4"]).config is not None
    assert resolvers == []


def test_what_a_cached_resolver_gave_the_master_holds_for_jobs(tmp_path: Path, resolvers: list[str]) -> None:
    sweep = Sweep(files_of(tmp_path, "seed: 1\none: ${noted_once:a}\nhydra: {sweep: {subdir: '${one}'}}"))
    check(sweep, ["seed=2"])
    assert sweep.master.one == "a!"
    check(sweep, ["seed=2"], ["seed=3"])
    config = sweep.by_launcher(["seed=2"]).config
    assert config is not None
    assert OmegaConf.get_cache(config)["noted_once"] == OmegaConf.get_cache(sweep.master)["noted_once"] != {}


@HYDRA_13
def test_a_choice_may_come_from_a_resolver(tmp_path: Path) -> None:
    picked = ["a"]
    OmegaConf.register_new_resolver("picked", lambda: picked[0])
    try:
        sweep = Sweep(files_of(tmp_path, "defaults: [{db: '${picked:}'}]", db__a="{n: 1}", db__b="{n: 2}"))
        check(sweep, ["db.n=2"], ["db=b"])
        picked[0] = "b"
        check(sweep, ["db.n=2"], ["db=b"])
    finally:
        OmegaConf.clear_resolver("picked")


# -- files that change -------------------------------------------------------------------------------------------------


def test_all_jobs_of_a_sweep_are_of_the_files_as_they_were_first(conf: Path) -> None:
    sweep = Sweep(conf)
    jobs = [["seed=1"], ["model=cnn"], ["+more=1", "model=cnn"]]
    check(sweep, *jobs)
    before = {path: path.read_bytes() for path in conf.rglob("*.yaml")}
    write(conf, {"model/cnn": "{name: other, kernel: 9}", "model/mlp": "{name: third}", "data/more": "{n: 1}"})
    sweep.forget()
    ours = [sweep.by_launcher(job) for job in jobs]
    assert sweep.by_launcher(["data=more"]).config is not None
    for path, content in before.items():
        path.write_bytes(content)
    (conf / "data/more.yaml").unlink()
    for one, job in zip(ours, jobs, strict=True):
        assert one.config == sweep.by_hydra(job).config


@pytest.mark.parametrize(("library", "version"), [(hydra, "1.5.0"), (omegaconf, "2.5.0.dev1")])
def test_of_a_version_that_is_not_known_nothing_is_relied_on_and_it_is_said_once(
    conf: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, library: tp.Any, version: str
) -> None:
    sweep = Sweep(conf)
    monkeypatch.setattr(library, "__version__", version)
    sweep.loader = loader.SweepLoader(sweep.theirs)
    sweep.context.config_loader = tp.cast(tp.Any, sweep.loader)
    check(sweep, ["seed=1"], ["model=cnn", "seed=2"], ["+new=1"], ["wrong=1"])
    (said,) = [record for record in caplog.messages if "slow" in record]
    assert f"{version} is none of the known versions" in said


@pytest.mark.parametrize("job", [["seed=word", "+new=1"], ["table.wrong=1"], ["model=wrong"], ["seed=[1"]])
def test_why_hydra_composes_a_job_is_logged(conf: Path, job: list[str], caplog: pytest.LogCaptureFixture) -> None:
    sweep = Sweep(conf)
    with caplog.at_level("DEBUG", "exca.sweep"):
        sweep.by_launcher(["seed=1"])
        assert caplog.messages == []
        sweep.by_launcher(job)
    (message,) = caplog.messages
    assert message.startswith(f"Hydra composes the job {' '.join(job)} by itself: ")


def test_an_error_of_our_own_in_composing_is_not_left_to_hydra(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(value: object) -> bool:
        raise ValueError("a mistake of ours")

    monkeypatch.setattr(templates, "_is_leaf", broken)
    assert "a mistake of ours" in Sweep(conf).by_launcher(["seed=1"]).error


@pytest.mark.parametrize("kind", VALUES)
def test_a_job_that_is_shown_is_the_job_that_is_made(conf: Path, kind: str) -> None:
    sweep = Sweep(conf)
    compositions = []
    for line in VALUES[kind]:
        with contextlib.suppress(HydraException, OmegaConfBaseException, ValueError, TypeError, AssertionError):
            compositions.append(sweep.loader.take_composition(sweep.master, [line, "model.name=x"]))
    variants: dict[int, ConfigOverlay] = {}
    for each in compositions:
        if each.leaves is not None:
            one = variants.setdefault(id(each.template), ConfigOverlay(each.template.copy())).show_job(each.variant(7))
            assert compare_descriptions(described(one), described(each.config(7))) == []


def test_the_comparison_sees_each_kind_of_difference() -> None:
    def config() -> DictConfig:
        return OmegaConf.structured({"a": 1, "b": [1, {"c": 2.0}], "d": Inner(), "e": "${a}"})

    changes: list[tp.Callable[[DictConfig], object]] = [
        lambda changed: changed.__setitem__("a", True),
        lambda changed: changed.__setitem__("a", 1.0),
        lambda changed: changed.b.append(1),
        lambda changed: changed.__setitem__("new", None),
        lambda changed: changed.__setitem__("a", changed.pop("a")),
        lambda changed: changed.__setitem__("d", {"n": 1, "who": "me", "maybe": None}),
        lambda changed: OmegaConf.set_struct(changed.b, True),
        lambda changed: OmegaConf.set_readonly(changed.d, False),
        lambda changed: changed._get_node("a")._set_flag("readonly", True),
        lambda changed: changed.b[1]._set_parent(changed),
        lambda changed: changed._get_node("a").__setattr__("_metadata", changed._get_node("e")._metadata),
        lambda changed: changed._metadata.resolver_cache["now"].update(a=1),
        lambda changed: changed.__setitem__("e", "${.a}"),
        lambda changed: changed.__dict__["_content"].__setitem__("e", changed._get_node("a")),
    ]
    assert differences(config(), config()) == []
    for number, change in enumerate(changes):
        changed = config()
        change(changed)
        assert differences(config(), changed), f"change {number} is not seen"
