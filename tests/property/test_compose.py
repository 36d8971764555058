"""For any configs and overrides, what a sweep composes is what Hydra's own loader composes."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from composing import Job, Sweep, check, leaves, write
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from hypothesis import HealthCheck, assume, event, given
from hypothesis import strategies as st
from hypothesis_profiles import examples
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")
EXAMPLES = os.environ.get("COMPOSE_EXAMPLES")  # more than a test run has, and others each time

KEYS = "a", "b", "c"
GROUPS = {"g": ("x", "y"), "h": ("x", "y", "z"), "g/n": ("x", "y")}
PLACES = *KEYS, "g", "h", "g.n", "other", "g.a", "h.b"
REFERENCES = "${a}", "${b.c}", "${g.a}", "${h}", "${.a}", "${..b}", "${a}-${g.b}", "${oc.env:HOME}", "${g.${a}}"


@dataclasses.dataclass
class Part:
    a: int = 1
    b: str | None = None


@dataclasses.dataclass
class Schema:
    a: int = 3
    b: Part = dataclasses.field(default_factory=Part)
    c: dict[str, float] = dataclasses.field(default_factory=dict)
    g: Any = None
    h: Any = MISSING
    other: list[int] = dataclasses.field(default_factory=lambda: [1])


@dataclasses.dataclass(frozen=True)
class App:
    files: dict[str, str]
    schema: str | None
    command_line: list[str]
    base: str | None


# -- configs -----------------------------------------------------------------------------------------------------------


def values() -> st.SearchStrategy[str]:
    """Values of a config file in one line of yaml."""
    plain = st.sampled_from(["0", "1", "-2.5", "1e-3", "true", "null", "word", "'1'", "''", "???", ".nan", "[]", "{}"])
    leaf = plain | st.sampled_from([f"'{each}'" for each in REFERENCES])
    return st.recursive(leaf, lambda inner: _lists(inner) | _dicts(inner), max_leaves=4)


def _lists(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")


def _dicts(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    keys = st.sampled_from([*KEYS, "1", "true", "d-e"])
    held = st.dictionaries(keys, inner, max_size=3)
    return held.map(lambda items: f"{{{', '.join(f'{key}: {each}' for key, each in items.items())}}}")


@st.composite
def apps(draw: st.DrawFn) -> App:
    files = {f"{group}/{name}": draw(_part(group)) for group, names in GROUPS.items() for name in names}
    schema = draw(st.sampled_from([None, None, "plain", "struct", "readonly"]))
    chosen = [f"{{{group}: {draw(st.sampled_from(GROUPS[group]))}}}" for group in draw(_some(["g", "h"]))]
    chosen += [f"{{h@{draw(_package())}: z}}"] if draw(st.booleans()) else []
    chosen += ["{h@chosen: '${g}'}"] if any(each.startswith("{g:") for each in chosen) and draw(st.booleans()) else []
    own = draw(st.sampled_from([[*chosen, "_self_"], ["_self_", *chosen]]))
    defaults = ["schema", *own] if schema else own
    body = "".join(f"{key}: {draw(values())}\n" for key in draw(_some([*KEYS, "other"])) if not schema)
    files["config"] = f"defaults: [{', '.join(defaults)}]\n{body}"
    command_line = draw(_some(["hydra.job.name=named", "hydra.verbose=true", "+hydra.job.env_set.A=b"]))
    return App(files, schema, command_line, draw(st.sampled_from(["1.3", "1.3", None, "1.1"])))


def _some(items: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(items), unique=True, max_size=len(items))


def _package() -> st.SearchStrategy[str]:
    return st.sampled_from(["g", "other", "a.b", "_global_", "h.deep"])


@st.composite
def _part(draw: st.DrawFn, group: str) -> str:
    header = draw(st.sampled_from(["", "", "", "# @package _global_\n", "# @package other\n", "# @package _group_\n"]))
    nested = "defaults: [{n: x}, _self_]\n" if group == "g" and draw(st.booleans()) else ""
    return header + nested + "".join(f"{key}: {draw(values())}\n" for key in draw(_some(list(KEYS))))


# -- overrides ---------------------------------------------------------------------------------------------------------

SAID = (
    *("1", "2.5", "1e3", "true", "null", "word", "'1'", "''", "", "???", "nan", "[1,{a:2}]", "{a:1}", "{b:{c:1}}"),
    *("'a=b,c'", r"a\,b", "a b", "x", "y", "[x,y]", "[]", "{}", "ü", "0x1f", "1_0"),
)


def jobs(keys: list[str]) -> st.SearchStrategy[list[Job]]:
    """Jobs that mostly give other values to these keys, and choose other groups."""
    known = st.sampled_from(keys)
    guessed = st.builds(".".join, st.lists(st.sampled_from([*PLACES, "0"]), min_size=1, max_size=3))
    value = st.sampled_from([*SAID, *SAID, *REFERENCES])
    changed = st.builds("{}={}".format, st.one_of(known, known, known, guessed), value)
    plain = st.one_of(changed, changed, changed, _choice())
    added = st.builds("{}{}={}".format, st.sampled_from(["+", "++"]), st.one_of(known, guessed), value)
    odd = st.one_of(added, st.builds("~{}".format, known), st.builds("{}{}".format, st.sampled_from("+~"), _choice()))
    either = st.one_of(st.lists(plain, max_size=4), st.lists(plain, max_size=4), st.lists(plain | odd, max_size=4))
    return st.lists(either, min_size=2, max_size=6)


def _choice() -> st.SearchStrategy[str]:
    names = [f"{group}={name}" for group, options in GROUPS.items() for name in options]
    rare = ["h@other=x", "h@other:new=y", "g=none", "g=null", "h=[x,y]", "g/n@g.n=y", "h@a.b=x", "hydra/output=default"]
    return st.sampled_from([*names, *names, *rare])


# -- the property ------------------------------------------------------------------------------------------------------


def _store(kind: str | None) -> None:
    node = OmegaConf.structured(Schema)
    OmegaConf.set_struct(node, True if kind == "struct" else None)
    OmegaConf.set_readonly(node.b, True if kind == "readonly" else None)
    ConfigStore.instance().store(name="schema", node=node)


@examples(
    int(EXAMPLES or "10"),
    derandomize=EXAMPLES is None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(app=apps(), data=st.data())
def test_any_job_of_any_app_is_composed_as_hydra_does(app: App, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _store(app.schema)
        try:
            sweep = Sweep(write(Path(folder), app.files), *app.command_line, base=app.base)
        except (HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError):
            event("the app itself is wrong")
            assume(False)
        keys = [key for key, _ in leaves(sweep.master) if not key.startswith("hydra")] or ["a"]
        check(sweep, *data.draw(jobs(keys), label="jobs"))
