"""Sweeps are composed as Hydra's own loader composes them: of our apps, and of those Hydra tests itself with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
from composing import Job, Sweep, at_most, check, check_app
from places import ROOT

pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")
PROJECT = ROOT
SHIPPED = Path(hydra.__file__).parent / "test_utils" / "configs"

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
    check(sweep, *at_most(sweep.jobs(), 20))


def _configs(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*.yaml")) if "hydra/launcher" not in str(path))


SHIPPED_CONFIGS = [str(path.relative_to(SHIPPED)) for path in _configs(SHIPPED)]


@pytest.mark.parametrize("part", range(4))
def test_the_configs_that_hydra_tests_itself_with_are_composed_as_hydra_does(part: int) -> None:
    for name in SHIPPED_CONFIGS[part::4]:
        check_app(SHIPPED, name.removesuffix(".yaml"), 2)
