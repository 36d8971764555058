from __future__ import annotations

import collections
import concurrent.futures
import copy
import ctypes
import dataclasses
import datetime as dt
import enum
import itertools
import os
import pathlib
import random
import subprocess
import sys
import time
import typing as tp
import uuid
import warnings

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import setup_globals
from hydra.utils import to_absolute_path
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from hypothesis_profiles import examples
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.basecontainer import BaseContainer

from hydra_exca.errors import ConfigError
from hydra_exca.identity.uid import Pinned, RunDependent, canonical, encode
from hydra_exca.sweep.configs.overlay import ConfigOverlay, JobVariant
from hydra_exca.sweep.job import pins
from hydra_exca.sweep.resolve import resolve, world
from hydra_exca.sweep.resolve import tracer as stages
from hydra_exca.sweep.resolve.classify import Tolerance

OMEGACONF_23 = pytest.mark.hydra_13  # OmegaConf 2.4 refuses such a value
COUNTER = itertools.count()
GLOBAL = OmegaConf.create({"t": "${now:%f}"})


class Color(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Typed:
    color: Color = Color.RED
    other: Color = Color.BLUE
    where: pathlib.Path = pathlib.Path("data")
    raw: bytes = b"x"
    rank: int = 0
    link: tp.Any = None


@dataclasses.dataclass
class Field:
    typed: Typed = dataclasses.field(default_factory=Typed)
    weights: dict[str, int] = dataclasses.field(default_factory=dict)


class Mode(str, enum.Enum):  # noqa: UP042 - as most write it
    FAST = "fast"


class Text(str):
    pass


def plus_root(_root_: tp.Any) -> str:
    return f"root has {_root_.stamp}"


def beside(_parent_: tp.Any, _node_: tp.Any) -> str:
    return f"{_node_._key()} beside {_parent_.b}"


RESOLVERS: dict[str, tuple[tp.Callable[..., tp.Any], bool]] = {
    "join": (lambda *parts: "-".join(map(str, parts)), False),
    "kept": (lambda *parts: "-".join(map(str, parts)), True),
    "root": (plus_root, False),
    "beside": (beside, False),
    "made": (lambda value: OmegaConf.create({"x": value, "y": 1, "late": "${.x}"}), False),
    "plain_dict": (lambda value: {"x": value, "list": [1, (2, 3)]}, False),
    "nones": (lambda: {None: 1, "x": {None: 2}}, False),
    "array": (lambda: np.arange(3), False),
    "mode": (lambda: Mode.FAST, False),
    "text": (lambda: Text("${x}"), False),
    "weights": (lambda: {"a": 1}, False),
    "as_tuple": (lambda: (1, (2, 3)), False),
    "dataclass": (lambda: Typed(rank=3), False),
    "typed_config": (lambda: OmegaConf.structured(Typed(rank=3)), False),
    "questions": (lambda: "???", False),
    "keyed": (lambda key: OmegaConf.create({f"k{key}": 1}), False),
    "random": (random.random, False),
    "random_kept": (random.random, True),
    "uuid": (lambda: str(uuid.uuid4()), False),
    "count": (lambda: next(COUNTER), False),
    "toggle": (lambda: next(COUNTER) % 2, False),
    "clock": (time.time_ns, False),
    "below": (lambda folder: (pathlib.Path(folder) / "data.txt").read_text(), False),
    "files": (lambda folder: sorted(map(str, pathlib.Path(folder).glob("*.txt"))), False),
    "size": (lambda folder: sum(path.stat().st_size for path in pathlib.Path(folder).glob("*.txt")), False),
    "size_of_siblings": (
        lambda folder: sum(path.stat().st_size for path in pathlib.Path(folder).parent.glob("beside/*.txt")),
        False,
    ),
    "followed": (lambda folder: [str(path.resolve()) for path in pathlib.Path(folder).glob("*.txt")], False),
    "objects": (lambda folder: [path.resolve() for path in sorted(pathlib.Path(folder).glob("*.txt"))], False),
    "by_path": (lambda folder: {str(path.resolve()): 1 for path in pathlib.Path(folder).glob("*.txt")}, False),
    "first_file": (lambda folder: str(sorted(pathlib.Path(folder).glob("*.txt"))[0]), False),
    "name": (lambda folder: pathlib.Path(folder).resolve().name, False),
    "parent": (lambda folder: pathlib.Path(folder).resolve().parent, False),
    "absolute_path": (os.path.abspath, False),
    "cpus": (lambda: os.environ.get("SLURM_CPUS_PER_TASK", "1"), False),
    "absolute": (lambda path: len(list(pathlib.Path(to_absolute_path(path)).glob("*.txt"))), False),
    "mkdir": (lambda folder: str(pathlib.Path(folder).mkdir(exist_ok=True, parents=True) or folder), False),
    "read_hydra": (lambda: HydraConfig.get().runtime.output_dir, False),
    "read_data": (lambda: os.environ["DATA"], False),
    "read_environ": (lambda: os.environ["SLURM_JOB_ID"], False),
    "on_slurm": (lambda: "SLURM_JOB_ID" in os.environ, False),
    "is_main": (lambda rank: rank == "0", False),
    "thing": (object, False),
    "elsewhere": (lambda: GLOBAL, False),
    "empty": (lambda: OmegaConf.create({}), False),
    "ternary": (lambda condition, one, other: one if condition else other, False),
    "boom": (lambda: 1 / 0, False),
    "leave": (lambda: (_ for _ in ()).throw(KeyboardInterrupt()), False),
}


@pytest.fixture(autouse=True)
def resolvers(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> tp.Iterator[None]:
    monkeypatch.chdir(tmp_path)  # one of them makes a folder there
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATA", "/data")
    kept, instances = dict(BaseContainer._resolvers), dict(Singleton._instances)
    setup_globals()
    for name, (resolver, use_cache) in RESOLVERS.items():
        OmegaConf.register_new_resolver(name, resolver, use_cache=use_cache, replace=True)
    yield
    BaseContainer._resolvers = kept
    Singleton._instances = instances


def composed(task: tp.Any, *, cwd: str | None = None, sweep_dir: str = "multirun/${now:%H-%M-%S}") -> DictConfig:
    """A job's config as the launcher gets it from Hydra's config loader."""
    config = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    with open_dict(config):
        for key, value in (task if isinstance(task, dict) else {"typed": task}).items():
            config[key] = value
    hydra = config.hydra
    hydra.run.dir = "outputs/${now:%Y-%m-%d}"
    hydra.sweep.dir, hydra.sweep.subdir = sweep_dir, "${hydra.job.num}"
    hydra.job.num, hydra.job.id, hydra.job.name = 3, "3", "train"
    hydra.job.env_set = {"MODE": "fast", "KEY": "${oc.env:DATA}", "OUT": "${hydra:runtime.output_dir}"}
    hydra.runtime.cwd = cwd or os.getcwd()
    hydra.launcher = {"folder": "${oc.env:DATA}/cache", "logs": "${hydra.sweep.dir}/.logs", "gpus": 2}
    OmegaConf.set_struct(config, True)
    return config


def resolve_one(config: DictConfig, **options: tp.Any) -> resolve.Resolved:
    return resolve.resolve_all(config, [JobVariant()], **options)[0]


def kind(result: resolve.Resolved, leaf: tp.Any) -> str:
    if any(problem.key == "x" for problem in result.problems):
        return "problem"
    return {RunDependent: "run", Pinned: "pinned"}.get(type(leaf), "constant")


REST = {
    "stamp": "${now:%S}",
    "b": "${oc.env:SLURM_JOB_ID}",
    "name": "stamp",
    "lr": 0.1,
    "missing": {"x": 1},
    "table": {"a": 1, "b": 2},
    "stamped": {"t": "${now:%H}", "y": 1},
    "later": "${hydra:runtime.cwd}/data",
    "data": "${oc.env:DATA}",
    "data2": "${data}/2",
    "pair": ["${now:%M}", "${lr}"],
}

FORMS = [
    # the run's own values
    ("${now:%Y}", "run"),
    ("${now:%Y}-${lr}", "run"),
    ("${hydra:runtime.output_dir}", "run"),
    ("${hydra:runtime.cwd}/data", "run"),
    ("${hydra:'runtime[cwd]'}", "run"),
    ("${hydra:run.dir}", "run"),
    ("${hydra:sweep.dir}", "run"),
    ("${hydra:sweep.subdir}", "run"),
    ("${hydra:job.id}", "run"),
    ("${oc.env:SLURM_JOB_ID}", "run"),
    ("${oc.env:SLURM_NEVER_HEARD_OF,none}", "run"),
    ("${oc.env:NODE_7,none}", "run"),
    ("${oc.env:SCRATCH_DIR,none}", "run"),
    # ways to reach them
    ("${stamp}", "run"),
    ("${.stamp}", "run"),
    ("${${name}}", "run"),
    ("${stamped.t}", "run"),
    ("${pair.0}", "run"),
    ("${pair[0]}", "run"),
    ("${oc.select:stamp}", "run"),
    ("${oc.select:nothing,${stamp}}", "run"),
    ("${oc.deprecated:stamp}", "run"),
    ("${oc.decode:${now:%d}.5}", "run"),
    ("${oc.decode:'${now:%d}.5'}", "run"),
    ("${oc.decode:'{a: 1, k${now:%S}: 2}'}", "run"),
    ("${oc.create:'k${now:%S}: 1'}", "run"),
    ("${hydra:launcher.logs}", "run"),
    ("${join:${now:%S},1}", "run"),
    ("${kept:${now:%S},1}", "run"),
    ("${kept:${stamp}}", "run"),
    ("${root:}", "run"),
    ("${beside:}", "run"),
    ("${made:${stamp}}", "run"),
    ("${plain_dict:${stamp}}", "run"),
    ("${keyed:${stamp}}", "run"),
    ("${read_hydra:}", "run"),
    ("${read_environ:}", "run"),
    ("${on_slurm:}", "run"),
    ("${is_main:${oc.env:SLURM_PROCID}}", "run"),
    ("${below:${hydra:runtime.cwd}}", "run"),
    ("${mkdir:${hydra:runtime.cwd}/sub}", "run"),
    ("${ternary:false,${stamp},no}", "run"),
    ("${table.${oc.decode:'${oc.env:WHICH_RUN}'}}", "problem"),
    ("${uuid:}-${stamp}", "run"),
    ("${oc.env:DATA}/${stamp}", "run"),
    ("${hydra:job.num}/${stamp}", "run"),
    # the environment and custom resolvers
    ("${oc.env:DATA}", "pinned"),
    ("${oc.env:NOT_SET,5}", "pinned"),
    ("${oc.env:NOT_SET,${oc.env:DATA}}", "pinned"),
    ("${data}", "pinned"),
    ("${data2}", "pinned"),
    ("a${data}b", "pinned"),
    ("${oc.select:data}", "pinned"),
    ("${hydra:launcher.folder}", "pinned"),
    ("${join:1,2}", "pinned"),
    ("${kept:1,2}", "pinned"),
    ("${join:${lr}}", "pinned"),
    ("${made:1}", "pinned"),
    ("${plain_dict:1}", "pinned"),
    ("${empty:}", "pinned"),
    ("${thing:}", "pinned"),
    # what is the same in all worlds although it reached the run must not be found otherwise by the job
    ("${oc.select:lr,${stamp}}", "pinned"),
    # the rest
    ("${lr}", "constant"),
    ("${table.a}", "constant"),
    ("\\${not.one}", "constant"),
    ("${oc.decode:'1.5'}", "constant"),
    ("${oc.select:nothing,7}", "constant"),
    ("${oc.dict.keys:stamped}", "constant"),
    ("${oc.dict.values:table}", "constant"),
    ("${stamped.y}", "constant"),
    ("${python_version:}", "constant"),
    ("${hydra:job.num}", "constant"),
    ("${hydra:job.name}", "constant"),
    ("${hydra:launcher.gpus}", "constant"),
    # what is wrong
    ("${nothing}", "problem"),
    ("${nobody:1}", "problem"),
    ("${hydra.runtime.cwd}", "problem"),
    ("${oc.env:NOT_SET}", "problem"),
    ("${boom:}", "problem"),
    ("${x}", "problem"),
    ("???", "problem"),
    ("${random:}", "problem"),
    ("${random_kept:}", "problem"),
    ("${uuid:}", "problem"),
    ("${count:}", "problem"),
    ("${toggle:}", "problem"),
    ("${clock:}", "problem"),
    ("${join:1,${uuid:}}-${stamp}", "problem"),
]


@pytest.mark.parametrize(("form", "expected"), FORMS)
def test_a_form_is_found_to_be_what_it_is(
    form: str, expected: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.txt").write_text("content")
    result = resolve_one(composed({"x": form, **REST}), node_env=["SCRATCH_DIR", "NODE_*"])
    leaf = result.identity["x"]
    assert kind(result, leaf) == expected, (leaf, result.problems)
    assert (("x",) in result.pins) == (expected == "pinned")
    if expected == "constant":
        assert leaf == result.values["x"]
    if expected == "problem":
        assert form in str(next(problem for problem in result.problems if problem.key == "x")) or form == "???"


@pytest.mark.parametrize("form", [form for form, expected in FORMS if expected == "run" and "below" not in form])
def test_a_run_dependent_leaf_has_the_same_identity_in_every_run(
    form: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(folder: str, sweep_dir: str, config: tp.Any) -> tp.Any:
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        return resolve_one(composed(config, sweep_dir=sweep_dir), node_env=["SCRATCH_DIR", "NODE_*"]).identity

    first = identity("one", "multirun/a", {"x": form, **REST})
    for name in ("SLURM_JOB_ID", "SLURM_PROCID", "SCRATCH_DIR", "NODE_7"):
        monkeypatch.setenv(name, "734")
    monkeypatch.setattr(stages.dt, "datetime", _Later)
    assert identity("two", "/other/b", {"x": form, **REST}) == first


class _Later(dt.datetime):
    time = (2044, 12, 30, 23, 58, 59)

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> _Later:
        return cls(*cls.time)


@pytest.mark.parametrize("time", [world.FIRST.now, world.SECOND.now], ids=["first", "second"])
@pytest.mark.parametrize("form", ["${now:%H}", "${now:%Y-%m-%d}", "${stamped.t}-${lr}", "${join:${now:%H},1}"])
def test_a_time_that_a_constant_world_has_is_like_any_other(
    form: str, time: dt.datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = resolve_one(composed({"x": form, **REST})).identity
    monkeypatch.setattr(_Later, "time", time.timetuple()[:6])
    monkeypatch.setattr(stages.dt, "datetime", _Later)
    assert resolve_one(composed({"x": form, **REST})).identity == first
    assert type(first["x"]) is RunDependent


def test_the_sentinel_times_share_no_field() -> None:
    for directive in "aAwdbBmyYHIpMSfjUWGVuCcxXDFTRgeklsh":
        assert world.FIRST.now.strftime(f"%{directive}") != world.SECOND.now.strftime(f"%{directive}"), directive


def test_a_container_is_taken_leaf_by_leaf() -> None:
    result = resolve_one(composed({"a": "${b}", "b": {"x": "${now:%f}", "y": 1, "z": ["${oc.env:DATA}"]}}))
    assert result.identity["a"] == {
        "x": RunDependent("${b}.x"),
        "y": 1,
        "z": [Pinned("${b}.z.0", "/data")],
    }
    assert result.pins == {("b", "z", 0): "/data"}


def test_a_container_of_hydra_is_taken_leaf_by_leaf() -> None:
    result = resolve_one(composed({"a": "${hydra:runtime}", "job": "${hydra:job}"}))
    assert type(result.identity["a"]["cwd"]) is RunDependent
    assert type(result.identity["a"]["output_dir"]) is RunDependent
    assert result.identity["a"]["choices"] == {}
    assert result.identity["job"]["num"] == 3
    assert type(result.identity["job"]["id"]) is RunDependent
    assert type(result.identity["job"]["env_set"]["KEY"]) is Pinned


def test_values_of_a_dict_are_taken_one_by_one() -> None:
    result = resolve_one(composed({"a": "${oc.dict.values:b}", "b": {"x": "${now:%f}", "y": 1}}))
    assert [type(leaf) for leaf in result.identity["a"]] == [RunDependent, int]


def test_a_pinned_leaf_behind_a_created_container_pins_all_of_it() -> None:
    task = {"a": "${oc.create:'late: \\${oc.env:DATA}'}"}
    result = resolve_one(composed(task))
    assert result.pins == {("a",): {"late": "/data"}}


def test_a_container_that_cannot_be_pinned_is_said() -> None:
    result = resolve_one(composed({"a": "${hydra:launcher}"}))
    assert result.pins == {}
    assert any(notice.startswith("a: ") for notice in result.notices)


@pytest.mark.parametrize(
    "form",
    [
        "${oc.env:DATA}/${now:%f}",
        "${hydra:job.name}/${now:%f}",
        "${uuid:}${oc.env:DATA}${now:%f}",
        "${oc.env:SLURM_TMPDIR,${oc.env:DATA}}",
        "${oc.env:SLURM_TMPDIR,${join:${oc.env:DATA}}}",
        "${ternary:${oc.env:SLURM_JOB_ID,},cluster,${oc.env:DATA}}",
        "${ternary:${oc.decode:${oc.env:SLURM_NNODES,2}},${oc.env:DATA},x}",
        "${ternary:${is_main:${oc.env:SLURM_PROCID,none}},x,${read_data:}}",
    ],
)
def test_what_else_a_run_dependent_leaf_reaches_counts(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = composed({"x": form}), composed({"x": form})
    one = resolve_one(first).identity
    monkeypatch.setenv("DATA", "/elsewhere")
    other.hydra.job.name = "eval"
    two = resolve_one(other).identity
    assert type(one["x"]) is type(two["x"]) is RunDependent
    assert one != two


@pytest.mark.parametrize("is_own", [True, False], ids=["of this process", "another"])
@pytest.mark.parametrize("form", ["${below:${hydra:runtime.cwd}}", "${size:${hydra:runtime.cwd}}"])
def test_a_file_below_the_working_directory_counts_by_its_content_not_by_its_place(
    form: str, is_own: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(folder: str, content: str) -> tp.Any:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.txt").write_text(content)
        if is_own:
            monkeypatch.chdir(tmp_path / folder)
        return resolve_one(composed({"x": form}, cwd=str(tmp_path / folder))).identity["x"]

    first = identity("one", "content")
    assert type(first) is RunDependent
    assert identity("two", "content") == first
    assert identity("three", "longer content") != first


@pytest.mark.parametrize(
    "form",
    [
        "${files:${hydra:runtime.cwd}}",
        "${followed:${hydra:runtime.cwd}}",
        "${absolute:.}",
        "${objects:${hydra:runtime.cwd}}",
        "${by_path:${hydra:runtime.cwd}}",
        "${size_of_siblings:${hydra:runtime.cwd}}",
    ],
)
def test_the_files_in_the_working_directory_count_by_their_names(
    form: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(folder: str, *names: str) -> tp.Any:
        cwd = tmp_path / folder / "deeper" / f"work {folder}"
        for place in (cwd, cwd.parent / "beside"):
            place.mkdir(parents=True)
            for name in names:
                (place / name).write_text("x")
        monkeypatch.chdir(cwd)
        HydraConfig.instance().set_config(config := composed({"x": form}, cwd=str(cwd)))
        return resolve_one(config).identity["x"]

    first = identity("one", "data.txt")
    assert type(first) is RunDependent
    assert identity("two", "data.txt") == first
    assert identity("three", "data.txt", "more.txt") != first


@pytest.mark.parametrize(
    "form",
    [
        "${name:${hydra:runtime.cwd}}",
        "${parent:${hydra:runtime.cwd}}",
        "${absolute_path:${oc.env:SLURM_TMPDIR,here}/x}",
        "${cpus:}",
    ],
)
def test_neither_the_folder_nor_the_variables_of_a_job_around_it_count(
    form: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(folder: str) -> tp.Any:
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        return resolve_one(composed({"x": form}, cwd=str(tmp_path / folder))).identity["x"]

    first = identity("one")
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_TMPDIR"):
        monkeypatch.setenv(name, "8")
    assert identity("two") == first
    assert type(first) is RunDependent


def test_a_content_counts_where_it_is_the_name_of_its_folder_too(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("resnet", "vgg"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.txt").write_text(name)
        monkeypatch.chdir(tmp_path / name)
        config = composed({"x": "${below:${hydra:runtime.cwd}}"}, cwd=str(tmp_path / name))
        found.append(resolve_one(config).identity["x"])
    assert found[0] != found[1]


@pytest.mark.parametrize("form", ["${below:${hydra:sweep.dir}}", "${first_file:${hydra:sweep.dir}}"])
def test_what_only_the_folder_of_this_run_has_counts_without_its_place(form: str, tmp_path: pathlib.Path) -> None:
    def identity(folder: str, name: str) -> tp.Any:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(name)
        (tmp_path / folder / "data.txt").write_text(name)
        return resolve_one(composed({"x": form}, sweep_dir=str(tmp_path / folder))).identity["x"]

    first = identity("one", "a.txt")
    assert type(first) is RunDependent
    assert identity("two", "a.txt") == first
    assert identity("three", "b.txt") != first


def test_a_run_dependent_text_says_what_was_written() -> None:
    assert resolve_one(composed({"x": "${now:%f}-1"})).identity["x"] == RunDependent("${now:%f}-1")


def test_the_job_sees_the_real_world() -> None:
    before = dt.datetime.now().year
    task = {
        "y": "${now:%Y}",
        "out": "${hydra:runtime.output_dir}",
        "cwd": "${hydra:runtime.cwd}",
        "id": "${hydra:job.id}",
    }
    values = resolve_one(composed(task, sweep_dir="multirun/here")).values
    assert before <= int(values["y"]) <= dt.datetime.now().year
    assert values["out"] == os.path.abspath("multirun/here/3")
    assert values["cwd"] == os.getcwd()
    assert values["id"] == "3"


def test_the_job_sees_the_times_that_composing_has_used() -> None:
    config = composed({"x": "${now:%f}"})
    used = config.x
    assert resolve_one(config).values["x"] == used


def test_what_is_only_set_on_the_node_has_the_value_of_the_first_sentinel_world() -> None:
    result = resolve_one(composed({"x": "${oc.env:SLURM_JOB_ID}"}))
    assert result.problems == ()
    assert result.values["x"] == "0"
    assert result.assumed_values == ({"x": "0"}, {"x": "1"}, {"x": "0"})


def test_nothing_run_dependent_has_no_assumed_values() -> None:
    assert resolve_one(composed({"x": "${lr}", "lr": 1, "data": "${oc.env:DATA}"})).assumed_values is None


def test_missing_leaves_and_what_refers_to_them_are_problems_that_name_both() -> None:
    result = resolve_one(composed({"a": {"b": "???", "c": "${.b}"}, "fine": 1}))
    assert [problem.key for problem in result.problems] == ["a.b", "a.c"]
    assert "a.b" in result.problems[1].message


@pytest.mark.parametrize("pattern", ["a.b", "a.*", "a", "?.b"])
def test_an_allowed_missing_leaf_stays_missing_for_what_refers_to_it_too(pattern: str) -> None:
    task = {"a": {"b": "???"}, "c": "${a.b}", "d": "x${a.b}"}
    result = resolve_one(composed(task), tolerance=Tolerance([pattern]))
    assert result.problems == ()
    assert result.values == {"a": {"b": "???"}, "c": "???", "d": "???"}
    assert result.identity == {"a": {"b": "???"}, "c": "${a.b}", "d": "x${a.b}"}


ABSENT = {"a": "${special.rate}", "b": ["x ${a}", 1], "c": "${special_resolver:1}", "d": "${oc.decode:${special.rate}}"}


def test_what_refers_to_nothing_counts_by_its_text_if_that_is_tolerated() -> None:
    result = resolve_one(composed(ABSENT), tolerance=Tolerance(absent=True))
    assert (result.problems, [problem.key for problem in result.tolerated]) == ((), ["a", "b.0", "c", "d"])
    assert "Interpolation key 'special.rate' not found" in result.tolerated[1].message
    assert result.identity == result.values == ABSENT and result.pins == {}


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:NO_SUCH_VARIABLE}",
        "${boom:}",
        "${oc.env:DATA}/${special.rate}",
        "${special_resolver:${oc.env:DATA}}",
        "${reads_absent:}",
        "${now:%Y}${oc.env:NO_SUCH_VARIABLE}",
    ],
)
def test_what_fails_for_a_variable_or_in_a_resolver_is_a_problem_that_names_the_ways_out(text: str) -> None:
    OmegaConf.register_new_resolver("reads_absent", lambda *, _root_: _root_.nothing.here, replace=True)
    (problem,) = resolve_one(composed({"x": text}), tolerance=Tolerance(absent=True)).problems
    assert "exclude_from_uid" in problem.message and "hydra.launcher.node_env" in problem.message
    tolerated = resolve_one(composed({"x": text}), tolerance=Tolerance(absent=True, any_failure=True))
    assert (tolerated.problems, tolerated.identity, tolerated.pins) == ((), {"x": text}, {})


def test_all_problems_come_at_once() -> None:
    result = resolve_one(composed({"a": "???", "b": ["${nothing}", 1], "c": {"d": "${random:}"}, "e": "${boom:}"}))
    assert [problem.key for problem in result.problems] == ["a", "b.0", "c.d", "e"]
    assert "exclude it" in result.problems[2].message


def test_plain_hydra_keys_get_a_hint() -> None:
    (problem,) = resolve_one(composed({"x": "${hydra.job.name}"})).problems
    assert "${hydra:" in problem.message


def test_containers_that_lead_back_to_themselves_are_problems() -> None:
    result = resolve_one(composed({"a": {"x": "${b}"}, "b": {"y": "${a}"}}))
    assert {problem.key.partition(".")[0] for problem in result.problems} == {"a", "b"}


def test_the_position_in_the_sweep_is_noticed() -> None:
    result = resolve_one(composed({"x": "${hydra:job.num}", "y": "${hydra:job.name}"}))
    assert result.notices == ("x: ${hydra:job.num} counts: the position in the sweep is part of the task",)


def test_typed_values_keep_their_types() -> None:
    config = composed(OmegaConf.structured(Typed(link="${.color}", rank=1)))
    with open_dict(config):
        config.typed.rank = "${oc.env:SLURM_PROCID}"
        config.typed.where = "${oc.env:DATA}"
    result = resolve_one(config)
    assert result.values["typed"] == {
        "color": Color.RED,
        "other": Color.BLUE,
        "where": pathlib.Path("/data"),
        "raw": b"x",
        "rank": 0,
        "link": Color.RED,
    }
    assert result.identity["typed"]["where"] == Pinned("${oc.env:DATA}", pathlib.Path("/data"))
    assert type(result.identity["typed"]["rank"]) is RunDependent


def test_other_keys_than_text_are_kept() -> None:
    result = resolve_one(composed({"a": {1: "${now:%f}", Color.RED: "${lr}", 2.5: 2}, "lr": 3}))
    assert result.values["a"][Color.RED] == 3
    assert type(result.identity["a"][1]) is RunDependent


@pytest.mark.parametrize("readonly", [None, True])
@pytest.mark.parametrize("struct", [None, False, True])
def test_flags_do_not_matter(readonly: bool | None, struct: bool | None) -> None:
    config = composed({"a": {"x": "${oc.env:DATA}", "t": "${now:%f}"}})
    expected = resolve_one(config).identity
    OmegaConf.set_readonly(config, readonly)
    OmegaConf.set_struct(config, struct)
    assert resolve_one(config).identity == expected


# -- pins -------------------------------------------------------------------------------------------------------------


def job_config(config: DictConfig) -> DictConfig:
    task = copy.deepcopy(config)
    with open_dict(task):
        del task["hydra"]
    return task


@pytest.mark.parametrize("secret", ["plain", "${x}", "\\${x}", "a\\\\${x}\\", "$", "${", "\\", "{}", "${oc.env:HOME}"])
def test_the_job_gets_the_value_that_was_hashed(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", secret)
    config = composed(
        {
            "a": {"x": "${oc.env:DATA}"},
            "l": [{"y": "${join:${oc.env:DATA}}"}],
            "m": "${plain_dict:${data}}",
            "data": "${oc.env:DATA}",
        }
    )
    result = resolve_one(config)
    job = job_config(config)
    pins.put_pins(job, result.pins)
    monkeypatch.setenv("DATA", "changed")
    assert OmegaConf.to_container(job, resolve=True) == result.values


def test_the_job_gets_what_was_hashed_where_its_resolver_gives_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed({"m": "${plain_dict:${oc.env:DATA}}"})
    result = resolve_one(config)
    monkeypatch.setenv("DATA", "changed")
    job = job_config(config)
    pins.put_pins(job, result.pins)
    values = OmegaConf.to_container(job, resolve=True)
    assert canonical(values) == {"m": {"x": "/data", "list": [1, [2, 3]]}}  # OmegaConf 2.4 keeps tuples


@dataclasses.dataclass
class Other(Typed):
    pass


@pytest.mark.parametrize("choice", ["one", "two"])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param("${plain_dict:1}", id="a dict that is no config"),
        pytest.param("${nones:}", id="a dict that no config can hold"),
        pytest.param("${as_tuple:}", id="a tuple"),
        pytest.param("${mode:}", id="an enum of texts"),
        pytest.param("${text:}", id="a text of a class"),
        pytest.param("${array:}", id="an array"),
        pytest.param("${dataclass:}", id="an object"),
        pytest.param("${typed_config:}", id="the config of a class"),
        pytest.param("${questions:}", id="what would be missing", marks=OMEGACONF_23),
        pytest.param("${kinds.${oc.env:CHOICE}}", id="chosen by a variable"),
    ],
)
def test_the_job_gets_the_types_that_hydra_gives(value: str, choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHOICE", choice)
    kinds = {"one": OmegaConf.structured(Typed), "two": OmegaConf.structured(Other)}
    config = composed({"x": value, "kinds": kinds, "field": OmegaConf.structured(Field)})
    config.field.typed = "${kinds.${oc.env:CHOICE}}"
    config.field.weights = "${weights:}"
    job = job_config(config)
    HydraConfig.instance().set_config(config)
    pins.put_pins(job, resolve_one(config).pins)
    assert job.field.weights == {"a": 1}
    for ours, theirs in [(job.x, config.x), (job.field.typed, config.field.typed)]:
        assert type(ours) is type(theirs) and repr(ours) == repr(theirs)
        assert OmegaConf.get_type(ours) == OmegaConf.get_type(theirs)


def test_configs_of_other_classes_that_a_variable_chooses_are_other_values(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"one": OmegaConf.structured(Typed), "two": OmegaConf.structured(Other)}
    found = set()
    for choice in kinds:
        monkeypatch.setenv("CHOICE", choice)
        found.add(encode(canonical(resolve_one(composed({"x": "${kinds.${oc.env:CHOICE}}", "kinds": kinds})).identity)))
    assert len(found) == 2


def test_pinning_leaves_the_flags_as_they_were() -> None:
    config = composed({"a": {"x": "${oc.env:DATA}", "thing": "${thing:}"}})
    job = job_config(config)
    OmegaConf.set_readonly(job, True)
    OmegaConf.set_struct(job.a, True)
    flags = [(dict(node._metadata.flags), OmegaConf.is_readonly(node)) for node in (job, job.a)]
    pins.put_pins(job, resolve_one(config).pins)
    assert job.a.x == "/data"
    assert [(dict(node._metadata.flags), OmegaConf.is_readonly(node)) for node in (job, job.a)] == flags


def test_a_pin_into_a_typed_config_keeps_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed(OmegaConf.structured(Typed))
    config.typed.where = "${oc.env:DATA}"
    job = job_config(config)
    pins.put_pins(job, resolve_one(config).pins)
    monkeypatch.setenv("DATA", "changed")
    assert job.typed.where == pathlib.Path("/data")


# -- env_set ----------------------------------------------------------------------------------------------------------


def test_env_set_hides_every_value_and_leaves_out_the_run() -> None:
    found = resolve.resolve_env_set(composed({}))
    assert found["MODE"] == Pinned("${hydra:job.env_set.MODE}", "fast")
    assert found["KEY"] == Pinned("${oc.env:DATA}", "/data")
    assert found["OUT"] == RunDependent("${hydra:runtime.output_dir}")


@pytest.mark.parametrize("key", ["runtime.output_dir", "runtime.cwd", "sweep.dir", "job.id"])
def test_env_set_leaves_out_the_run_without_a_resolver(key: str) -> None:
    config = composed({"x": "${oc.env:OUT}"})
    config.hydra.job.env_set = {"OUT": f"${{hydra.{key}}}/out", "NAME": "${hydra.job.name}"}
    found = resolve.resolve_env_set(config)
    assert found["OUT"] == RunDependent(f"${{hydra.{key}}}/out")
    assert found["NAME"] == Pinned("${hydra:job.env_set.NAME}", "train")
    assert resolve.run_variables(found) == ("OUT",)


def test_env_set_without_interpolations_needs_no_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed({})
    config.hydra.job.env_set = {"A": "1"}
    monkeypatch.setattr(resolve, "Tracer", None)
    assert resolve.resolve_env_set(config) == {"A": Pinned("${hydra:job.env_set.A}", "1")}


def test_an_env_set_that_does_not_resolve_is_an_error_that_names_the_key() -> None:
    config = composed({})
    config.hydra.job.env_set.KEY = "${oc.env:NOT_SET}"
    with pytest.raises(ConfigError) as info:
        resolve.resolve_env_set(config)
    assert info.value.problems[0].key == "hydra.job.env_set.KEY"


# -- nothing is left behind -------------------------------------------------------------------------------------------


def _state(config: DictConfig) -> tp.Any:
    return (
        BaseContainer._resolvers,
        dict(BaseContainer._resolvers),
        dict(os.environ),
        dict(Singleton._instances),
        HydraConfig in Singleton._instances and HydraConfig.instance().cfg,
        copy.deepcopy(dict(OmegaConf.get_cache(config))),
        OmegaConf.to_container(config),
        dict(GLOBAL._metadata.resolver_cache),
        list(warnings.filters),
    )


EVERYTHING = {f"k{index}": form for index, (form, _) in enumerate(FORMS)} | REST


@pytest.mark.parametrize("with_hydra_config", [False, True])
@pytest.mark.parametrize("forms", [EVERYTHING, EVERYTHING | {"far": "${elsewhere:}"}, REST | {"x": "${leave:}"}])
def test_nothing_is_left_behind(forms: tp.Any, with_hydra_config: bool) -> None:
    config = composed(forms)
    _ = config.stamp, config.hydra.sweep.dir
    Singleton._instances.pop(HydraConfig, None)
    if with_hydra_config:
        HydraConfig.instance().set_config(config)
    registry, before = BaseContainer._resolvers, _state(config)
    try:
        resolve_one(config)
    except KeyboardInterrupt:
        assert "x" in forms
    assert BaseContainer._resolvers is registry
    assert _state(config) == before


def test_a_resolver_that_is_registered_meanwhile_stays() -> None:
    def register() -> int:
        OmegaConf.register_new_resolver("registered_late", lambda: 5, replace=True)
        return 1

    OmegaConf.register_new_resolver("registers", register)
    resolve_one(composed({"x": "${registers:}"}))
    assert OmegaConf.has_resolver("registered_late")


# -- other threads ----------------------------------------------------------------------------------------------------


def in_another_thread(function: tp.Callable[[], tp.Any]) -> tp.Any:
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        return other.submit(function).result()


def _as_a_thread_sees_it() -> tp.Any:
    return (
        os.environ.get("SLURM_JOB_ID"),
        os.getenv("SLURM_PROCID"),
        os.environb.get(b"SLURM_JOB_ID"),
        "SLURM_PROCID" in os.environ,
        sorted(os.environ) == sorted(os.environ.copy()) == sorted(map(os.fsdecode, os.environb)),
        OmegaConf.create({"x": "${oc.env:SLURM_JOB_ID}-${hydra:job.id}-${now:%Y}"}).x,
        HydraConfig.get().job.id,
    )


def test_other_threads_see_the_process_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "734")
    config = composed({})
    config.hydra.job.id = "real"
    HydraConfig.instance().set_config(config)
    inside: list[tp.Any] = []
    outside: list[tp.Any] = []

    def look() -> str:
        inside.append(_as_a_thread_sees_it())
        outside.append(in_another_thread(_as_a_thread_sees_it))
        return "x"

    OmegaConf.register_new_resolver("look", look, replace=True)
    before = _as_a_thread_sees_it()
    resolve_one(composed({"x": "${look:}"}))
    assert set(outside) == {before}
    assert {seen[0] for seen in inside} == {"734", None, "2"}
    assert len({seen[-2:] for seen in inside}) > 2


def test_what_other_threads_set_meanwhile_stays() -> None:
    def write() -> str:
        def elsewhere() -> None:
            os.environ["WRITTEN_ELSEWHERE"] = "1"
            os.environ.pop("DATA", None)
            warnings.warn("from another thread", stacklevel=1)

        os.environ["WRITTEN_HERE"] = "1"
        in_another_thread(elsewhere)
        return os.environ["WRITTEN_HERE"]

    OmegaConf.register_new_resolver("write", write, replace=True)
    with pytest.warns(UserWarning, match="from another thread"):
        assert resolve_one(composed({"x": "${write:}", "y": "${oc.env:DATA}"})).values == {"x": "1", "y": "/data"}
    assert os.environ.pop("WRITTEN_ELSEWHERE") == "1"
    assert "WRITTEN_HERE" not in os.environ
    assert "DATA" not in os.environ
    of_the_process = ctypes.CDLL(None).getenv
    assert (of_the_process(b"WRITTEN_HERE"), of_the_process(b"DATA")) == (0, 0)


@pytest.mark.app
@pytest.mark.parametrize("is_set", [True, False], ids=["set", "not set"])
def test_a_program_that_a_resolver_starts_has_its_environment(is_set: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_set:
        monkeypatch.setenv("SLURM_JOB_ID", "734")

    def ask() -> str:
        read = "import os; print(os.environ.get('SLURM_JOB_ID'))"
        return subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True).stdout.strip()

    OmegaConf.register_new_resolver("ask", ask, replace=True)
    result = resolve_one(composed({"x": "${ask:}"}))
    assert result.values["x"] == ("734" if is_set else "None")
    assert type(result.identity["x"]) is RunDependent


@pytest.mark.parametrize("order", [("x", "y"), ("y", "x")])
def test_a_resolver_that_is_registered_meanwhile_changes_no_identity(order: tuple[str, ...]) -> None:
    def register() -> int:
        OmegaConf.register_new_resolver("registered_first_here", lambda: 5, replace=True)
        return 1

    OmegaConf.register_new_resolver("registers_another", register)
    forms = {"x": "${registered_first_here:}", "y": "${registers_another:}"}
    config = composed({key: forms[key] for key in order})
    first, second = resolve_one(config), resolve_one(config)
    assert first.identity == second.identity
    assert first.pins == second.pins == {("x",): 5, ("y",): 1}


def test_a_config_without_interpolations_plays_no_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "Tracer", None)
    result = resolve_one(composed({"a": {"b": [1, "x", None]}, "c": "???"}), tolerance=Tolerance(["c"]))
    assert result.values == result.identity == {"a": {"b": [1, "x", None]}, "c": "???"}


def test_interpolations_without_resolvers_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: collections.Counter[tp.Any] = collections.Counter()
    read = stages.Tracer.read_value
    monkeypatch.setattr(
        stages.Tracer, "read_value", lambda self, holder, key: seen.update([key]) or read(self, holder, key)
    )
    resolve_one(composed({"a": "${b}", "b": 1, "t": "${now:%f}", "c": "${join:1}"}))
    assert (seen["a"], seen["b"], seen["t"], seen["c"]) == (1, 0, 4, 7)


# -- any config -------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["lr", "name", "depth", "data", "path"])
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab $\\.-", max_size=5)
TREES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
CONFIGS = st.dictionaries(NAMES, TREES, min_size=1, max_size=4)
QUICK = examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(CONFIGS, st.data())
def test_without_anything_of_the_run_the_identity_is_the_values(config: dict[str, tp.Any], data: st.DataObject) -> None:
    target = data.draw(st.sampled_from(sorted(config)))
    task = config | {"link": f"${{{target}}}", "deep": {"chosen": f"${{oc.select:{target}}}"}}
    result = resolve_one(composed(task))
    assert result.values == config | {"link": config[target], "deep": {"chosen": config[target]}}
    assert result.identity == result.values
    assert (result.pins, result.assumed_values, result.problems) == ({}, None, ())


@QUICK
@given(CONFIGS, st.data())
def test_a_run_dependent_leaf_changes_only_what_reaches_it(config: dict[str, tp.Any], data: st.DataObject) -> None:
    target = data.draw(st.sampled_from(sorted(config)))
    task = config | {"link": f"${{{target}}}", "run": "${now:%f}", "deep": [{"reaches": "a${run}"}, "${oc.select:run}"]}
    result = resolve_one(composed(task))
    changed = result.identity.pop("run"), result.identity.pop("deep")
    assert result.identity == config | {"link": config[target]}
    assert changed == (
        RunDependent("${now:%f}"),
        [{"reaches": RunDependent("a${run}")}, RunDependent("${oc.select:run}")],
    )


# -- jobs that are looked at together ---------------------------------------------------------------------------------

FORMS_OF_JOBS = st.sampled_from(
    [
        *("plain", "${seed}", "${part.name}", "${part}", "${list}", "${x0}", "${x1}/y", "${oc.select:seed}"),
        *("${oc.env:DATA}", "${oc.env:DATA}/${seed}", "${oc.env:SLURM_JOB_ID,none}", "${now:%Y}", "${now:%Y}-${seed}"),
        *("${hydra:runtime.output_dir}", "${hydra:runtime.output_dir}/${seed}", "${hydra: runtime.output_dir }"),
        *("${hydra:runtime.cwd}/data", "${hydra:runtime}", "${hydra:job.id}", "${hydra:job.num}-${hydra:job.id}"),
        *("${hydra:job.override_dirname}", "${hydra:overrides.task}", "${hydra:job.env_set.OUT}", "${hydra:nothing}"),
        *("${hydra:sweep.dir}", "${hydra:sweep.subdir}", "${hydra:run.dir}", "${list.${hydra:job.id}}", "${gone}"),
    ]
)
JOBS = st.lists(st.fixed_dictionaries({}, optional={"seed": st.integers(0, 2), "name": st.sampled_from("ab")}))


@QUICK
@given(st.lists(FORMS_OF_JOBS, min_size=1, max_size=5), JOBS.filter(lambda jobs: len(jobs) > 1), st.booleans())
def test_jobs_that_are_looked_at_together_show_what_each_shows_alone(
    forms: list[str], jobs: list[dict[str, tp.Any]], common_folder: bool
) -> None:
    task = {f"x{index}": form for index, form in enumerate(forms)}
    task |= {"seed": 7, "part": {"name": "c", "seed": "${seed}", "out": "${hydra:runtime.output_dir}"}, "list": [1, 2]}
    config = composed(task, sweep_dir="multirun" if common_folder else "multirun/${seed}/${part.name}")
    paths = {"seed": ("seed",), "name": ("part", "name")}
    variants = [
        JobVariant({paths[key]: value for key, value in job.items()}, number, (f"job={number}",), f"job={number}")
        for number, job in enumerate(jobs)
    ]
    together = resolve.resolve_all(config, variants)
    alone = [resolve_one(ConfigOverlay(copy.deepcopy(config)).show_job(variant)) for variant in variants]
    parts = ("values", "identity", "assumed_values", "pins", "notices", "problems")
    for part in parts:
        assert [getattr(each, part) for each in together] == [getattr(each, part) for each in alone]


# -- configs of all kinds ---------------------------------------------------------------------------------------------


def test_a_run_dependent_value_that_cannot_be_hashed_is_a_problem_that_names_it() -> None:
    OmegaConf.register_new_resolver("thing_of", lambda value: object(), replace=True)
    (problem,) = resolve_one(composed({"x": "${thing_of:${now:%f}}"})).problems
    assert problem.key == "x"
    assert "no rule" in problem.message


def test_a_config_that_does_not_pickle_is_resolved_too() -> None:
    config = composed({"a": {}, "x": "${oc.env:DATA}"})
    config._set_flag("allow_objects", True)
    with open_dict(config):
        config.a.function = lambda: 1
    assert resolve_one(config).identity["x"] == Pinned("${oc.env:DATA}", "/data")


def test_a_config_that_hydra_has_composed_is_resolved(tmp_path: pathlib.Path) -> None:
    (tmp_path / "conf.yaml").write_text("out: ${hydra:runtime.output_dir}\nchoice: ${hydra:runtime.choices}\nlr: 1\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = compose("conf", ["lr=2", "hydra.job.num=1", "hydra.sweep.dir=here"], return_hydra_config=True)
    result = resolve_one(config)
    assert result.problems == ()
    assert result.values["out"] == os.path.abspath("here/1")
    assert result.identity["out"] == RunDependent("${hydra:runtime.output_dir}")
    assert result.identity["choice"] == result.values["choice"]
    assert result.identity["lr"] == 2
