"""HydraConfig in a job: what it is under Hydra's own launcher, except for what the launcher and the run decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from apps import PACKED, App

CLUSTERS = ["inline", "local", PACKED, pytest.param("slurm", marks=pytest.mark.slurm)]
TELL = """
from omegaconf import OmegaConf

hydra = HydraConfig.get()
node = OmegaConf.to_container(hydra, resolve=True)
for key in ("launcher", "callbacks"):
    del node[key]
flags = [f(c) for c in (hydra, cfg) for f in (OmegaConf.is_readonly, OmegaConf.is_struct)]
output = Path(hydra.runtime.output_dir)
files = sorted(str(path.relative_to(output)) for path in output.rglob("*.yaml"))
return {"node": node, "flags": flags, "files": files, "cwd": os.getcwd()}
"""
CONFIG = """
seed: 1
lr: 0.1
hydra:
  job: {chdir: true, config: {override_dirname: {exclude_keys: [lr]}}}
  sweep: {subdir: "${hydra.job.num}_${hydra.job.override_dirname}"}
"""
OF_THE_LAUNCHER = ("overrides.hydra", "runtime.choices.", "job_logging", "hydra_logging")
OF_THE_RUN = {"job.id", "run.dir", "runtime.output_dir"}


def flat(node: Any, key: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {key: node}
    return {name: leaf for k, child in node.items() for name, leaf in flat(child, f"{key}.{k}".strip(".")).items()}


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_job_sees_the_hydra_config_that_it_sees_without_us(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, TELL, config=CONFIG)
    without = app.run("lr=0.2", "seed=5,6", launcher="basic").values
    (tmp_path / "sweep").rename(tmp_path / "basic")
    values = app.run("lr=0.2", "seed=5,6", cluster=cluster).values
    for number, (value, expected) in enumerate(zip(values, without, strict=True)):
        found, before = flat(value.pop("node")), flat(expected.pop("node"))
        different = {key for key in found.keys() | before.keys() if found.get(key) != before.get(key)}
        assert {key for key in different if not key.startswith(OF_THE_LAUNCHER)} <= OF_THE_RUN
        output = found["runtime.output_dir"]
        assert output == found["run.dir"] == value.pop("cwd") and expected.pop("cwd")
        assert (tmp_path / before["sweep.dir"] / before["sweep.subdir"]).resolve() == Path(output)
        assert found["job.id"] == str(number) or cluster != "inline"
        assert value == expected


def test_the_run_folder_of_a_task_is_in_no_identity(tmp_path: Path) -> None:
    body = "note('run', cfg.seed)\nreturn [cfg.place, HydraConfig.get().run.dir]"
    app = App(tmp_path, body, config="seed: 1\nplace: ${hydra:run.dir}/x\n")
    (first,) = app.run("seed=1").values
    assert first == [f"{app.entries[0]}/output/x", f"{app.entries[0]}/output"]
    assert app.run("seed=1", "hydra.run.dir=elsewhere", "hydra.sweep.dir=other").values == [first]
    assert app.notes == ["run 1"]
