"""Composing: each job once, although the sweeper composes it to see whether it is legal, and as Hydra does it."""

from __future__ import annotations

from pathlib import Path

from apps import App

# notes each composition that Hydra does
COUNTED = """
from hydra._internal.config_loader_impl import ConfigLoaderImpl

original = ConfigLoaderImpl.load_sweep_config

def counted(self, master_config, sweep_overrides):
    note("composed", *sweep_overrides)
    return original(self, master_config, sweep_overrides)

ConfigLoaderImpl.load_sweep_config = counted
"""
SHOW = "return [OmegaConf.to_yaml(cfg), list(HydraConfig.get().overrides.task), HydraConfig.get().job.num]"


def composed(app: App) -> list[str]:
    return [line for line in app.notes if line.startswith("composed")]


def test_jobs_that_differ_in_values_are_composed_once(tmp_path: Path) -> None:
    app = App(tmp_path, head=COUNTED)
    app.run("seed=1,2,3", cluster="inline")
    assert composed(app) == ["composed"]


def test_each_choice_of_groups_is_composed_once_for_all_batches(tmp_path: Path) -> None:
    files = {"conf/model/small.yaml": "size: 1\n", "conf/model/big.yaml": "size: 9\n"}
    app = App(tmp_path, head=COUNTED, config="defaults: [_self_, {model: small}]\nseed: 1\n", files=files)
    app.run("model=small,big", "seed=1,2,3", "hydra.sweeper.max_batch_size=2", cluster="inline")
    assert composed(app) == ["composed model=small", "composed model=big"]


def test_what_only_hydra_can_compose_is_composed_once_a_job(tmp_path: Path) -> None:
    app = App(tmp_path, head=COUNTED)
    app.run("+extra=1,2,3", "hydra.sweeper.max_batch_size=2", cluster="inline")
    assert composed(app) == [f"composed +extra={number}" for number in (1, 2, 3)]


def test_a_hydra_of_another_version_composes_each_job_itself_once(tmp_path: Path) -> None:
    app = App(tmp_path, head=COUNTED + '\nhydra.__version__ = "1.9.0"\n')
    assert app.run("seed=1,2", cluster="inline").values == [10, 20]
    assert composed(app) == ["composed seed=1", "composed seed=2"]


def test_jobs_with_the_same_overrides_do_not_share_a_config(tmp_path: Path) -> None:
    app = App(tmp_path, "cfg.seed += 1\nreturn cfg.seed", head=COUNTED)
    assert app.run("seed=1,1", cluster="inline").values == [2, 2]


def test_a_jobs_process_composes_nothing(tmp_path: Path) -> None:
    app = App(tmp_path, head=COUNTED)
    app.run("seed=1,2", "+extra=1", cluster="local")
    assert len(composed(app)) == 2


def test_a_job_has_the_config_that_hydras_own_launcher_gives_it(tmp_path: Path) -> None:
    files = {"conf/model/small.yaml": "size: 1\n", "conf/model/big.yaml": "size: 9\nmore: ${seed}\n"}
    app = App(tmp_path, SHOW, config="defaults: [_self_, {model: small}]\nseed: 1\n", files=files)
    sweep = ["model=small,big", "seed=1,2", "+extra=a", "model.size=3"]
    ours = app.run(*sweep, cluster="inline")
    theirs = app.run(*sweep, "hydra.sweep.dir=theirs", launcher="basic")
    assert ours.values == theirs.values
