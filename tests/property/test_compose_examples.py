"""Sweeps of example apps are composed as Hydra's own loader composes them: ours, Hydra's, and one of all its tests.

The examples of Hydra's repository are in no package: name a clone of it in HYDRA_REPOSITORY to have them compared too.
"""

from __future__ import annotations

import ast
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from composing import Job, Sweep, check
from hydra.errors import HydraException
from omegaconf import OmegaConf
from places import ROOT

pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")
PROJECT = ROOT
SHIPPED = Path(hydra.__file__).parent / "test_utils" / "configs"
CLONE = os.environ.get("HYDRA_REPOSITORY", "")

LARGE: dict[str, list[Job]] = {
    "values": [
        ["seed=1"],
        ["seed=2", "data.batch_size=64", "model.optimizer.lr=0.01"],
        ["trainer.max_epochs=3", "tags=[a,b]", "logger=csv"],
        ["model.net.blocks=[1,1]", "data.augment.color_jitter.hue=0.5", "callbacks.checkpoint.save_top_k=2"],
        ["paths.log_dir=/elsewhere", "ckpt_path=${paths.output_dir}/last.ckpt"],
        ["data.batch_size=${trainer.devices}"],
        ["seed=1"],
    ],
    "groups": [
        ["model=dense", "data=digits"],
        ["data=digits", "data.batch_size=3", "model=dense", "model.net.dropout=0.5"],
        ["model/optimizer=adam", "model.optimizer.lr=0.1"],
        ["model/scheduler=plateau"],
        ["trainer=ddp", "trainer.devices=8"],
        ["callbacks=none"],
        ["logger=several", "logger.csv.name=mine"],
        ["hparams_search=grid", "seed=3"],
    ],
    "experiments": [
        ["experiment=digits"],
        ["experiment=digits", "model.optimizer.lr=0.5"],
        ["experiment=wide", "seed=5", "tags=[x]"],
        ["experiment=wide", "model=dense"],
        ["debug=fast"],
        ["debug=overfit", "trainer.max_epochs=2"],
        ["experiment=digits", "debug=default"],
    ],
    "what is wrong": [
        ["trainer.max_epoch=3"],
        ["model=nets"],
        ["experiment=digit", "seed=3"],
        ["+trainer.max_epochs=3"],
        ["~logger", "seed=1"],
        ["++trainer.new=3", "+extra.a=1"],
        ["hydra.run.dir=here"],
    ],
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_config_of_many_groups_is_composed_as_hydra_does(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROJECT_ROOT", "/project")
    check(Sweep(PROJECT / "benchmarks/apps/large/conf", "seed=1,2", name="train"), *LARGE[kind])


@pytest.mark.parametrize("app", ["benchmarks/apps/small", "examples/digits", "examples/typed"])
def test_the_jobs_of_our_apps_are_composed_as_hydra_does(app: str) -> None:
    sweep = Sweep(PROJECT / app / "conf")
    check(sweep, *_some(sweep.jobs(), 20))


def _some(jobs: list[Job], count: int) -> list[Job]:
    """Of all parts of a list, at most so many."""
    return jobs[:: max(1, -(-len(jobs) // count))]


def _configs(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*.yaml")) if "hydra/launcher" not in str(path))


SHIPPED_CONFIGS = [str(path.relative_to(SHIPPED)) for path in _configs(SHIPPED)]


@pytest.mark.parametrize("part", range(4))
def test_the_configs_that_hydra_tests_itself_with_are_composed_as_hydra_does(part: int) -> None:
    for name in SHIPPED_CONFIGS[part::4]:
        _check_app(SHIPPED, name.removesuffix(".yaml"), 2)


def _check_app(conf: Path | str | None, name: str | None, count: int, base: str | None = "1.1") -> None:
    try:
        sweep = Sweep(conf, name=name, base=base)
    except (HydraException, ValueError):
        return  # some are there to be wrong
    check(sweep, *_some(sweep.jobs(), count))


# -- the examples of Hydra's repository --------------------------------------------------------------------------------


def _examples() -> list[str]:
    """The programs of the repository's examples that have a config."""
    root = Path(CLONE, "examples")
    programs = [path for path in sorted(root.rglob("*.py")) if "import ray" not in path.read_text()]
    return [str(path.relative_to(root)) for path in programs if _main(path) is not None]


def _main(program: Path) -> dict[str, Any] | None:
    """The arguments of a program's ``hydra.main``."""
    for node in ast.walk(ast.parse(program.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "hydra.main":
            return {each.arg: ast.literal_eval(each.value) for each in node.keywords if each.arg is not None}
    return None


@pytest.mark.skipif(not CLONE, reason="no clone of Hydra's repository: name one in HYDRA_REPOSITORY")
@pytest.mark.parametrize("program", _examples() if CLONE else ["none"])
def test_an_example_of_hydras_repository_is_composed_as_hydra_does(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(CLONE, "examples", program)
    arguments = _main(path) or {}
    monkeypatch.syspath_prepend(path.parent)
    for name in ("USER", "DB_TYPE"):
        monkeypatch.setenv(name, "sqlite")
    resolvers = set(_resolvers())
    try:
        _import(path, monkeypatch)  # what it stores, it stores when imported
        folder = arguments.get("config_path")
        conf = None if folder is None else path.parent / folder
        _check_app(conf, arguments.get("config_name"), 4, arguments.get("version_base"))
    finally:
        for name in set(_resolvers()) - resolvers:
            OmegaConf.clear_resolver(name)


def _import(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)  # its classes name one another by way of it
    exec(compile(program.read_text(), program, "exec"), vars(module))


def _resolvers() -> list[str]:
    from omegaconf.basecontainer import BaseContainer

    return list(BaseContainer._resolvers)
