"""Sizes of the job that a config takes from Slurm: jobs read their own, and what decides them counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from apps import App

from hydra_exca.clusters import Options
from hydra_exca.clusters.slurm import variables

SIZES = """\
seed: 1
nodes: ${oc.decode:${oc.env:SLURM_NNODES}}
lr: ${scale:${oc.env:SLURM_NTASKS}}
own: ${world_size:}
list: [{tasks: "${oc.env:SLURM_NTASKS_PER_NODE,1}"}]
same: ${nodes}
step: ${oc.env:SLURM_STEP_NUM_TASKS,none}
each: ${oc.env:SLURM_TASKS_PER_NODE,none}
process: ${oc.env:SLURM_NPROCS,none}
"""
HEAD = """
from omegaconf import OmegaConf

OmegaConf.register_new_resolver("scale", lambda tasks: 0.5 * int(tasks))
OmegaConf.register_new_resolver("world_size", lambda: int(os.environ.get("SLURM_NTASKS", 1)))
"""
BODY = """
first = os.environ.get("SLURM_PROCID") == "0"
note("rank", os.environ.get("SLURM_PROCID"))
return OmegaConf.to_container(cfg, resolve=True)
"""


def values(nodes: int, tasks: int) -> dict[str, object]:
    """What the config of a job resolves to."""
    total, each = nodes * tasks, str(tasks) if nodes == 1 else f"{tasks}(x{nodes})"
    return {
        "seed": 1,
        "nodes": nodes,
        "lr": 0.5 * total,
        "own": total,
        "list": [{"tasks": str(tasks)}],
        "same": nodes,
        "step": str(total),
        "each": each,
        "process": str(total),
    }


def size(nodes: int, tasks: int) -> list[str]:
    return [f"hydra.launcher.nodes={nodes}", f"hydra.launcher.tasks_per_node={tasks}"]


def test_each_size_of_a_job_is_computed_once_and_its_job_reads_its_own(tmp_path: Path) -> None:
    app = App(tmp_path, BODY, config=SIZES, head=HEAD)
    asked = [(1, 1), (2, 1), (1, 2), (2, 2)]
    for nodes, tasks in asked:
        result = app.run(*size(nodes, tasks), cluster="slurm")
        assert result.values == [values(nodes, tasks)], result.text
        assert result.counts["run"] == 1
    inside = {"SLURM_NNODES": "7", "SLURM_NTASKS": "7", "SLURM_NPROCS": "7", "SLURM_JOB_ID": "1"}
    for nodes, tasks in asked:
        for environment in ({}, inside):
            again = app.run(*size(nodes, tasks), "hydra.launcher.timeout_min=9", cluster="slurm", env=environment)
            assert (again.values, again.counts["cached"]) == ([values(nodes, tasks)], 1), again.text


def test_a_size_counts_however_the_number_of_tasks_is_asked_for(tmp_path: Path) -> None:
    app = App(tmp_path, BODY, config=SIZES, head=HEAD)
    assert app.run(cluster="slurm").values == [values(1, 1)]
    more = [*size(1, 2), "+hydra.launcher.additional_parameters={ntasks: 1}"]
    assert app.run(*more, cluster="slurm").values[0]["own"] == 1
    assert app.run(*more, cluster="slurm").counts["cached"] == 1
    added = "+hydra.launcher.additional_parameters={nodes: 2}"
    assert app.run(added, cluster="slurm").values == [values(2, 1)]
    assert app.run(*size(2, 1), cluster="slurm").counts["cached"] == 1
    without_srun = app.run("+hydra.launcher.use_srun=false", cluster="slurm")
    assert without_srun.values[0] == {**values(1, 1), "step": without_srun.values[0]["step"]}


def test_cpus_and_memory_of_a_job_count_by_what_it_asks_for(tmp_path: Path) -> None:
    config = """\
seed: 1
cpus: ${oc.env:SLURM_CPUS_PER_TASK,1}
on_node: ${oc.env:SLURM_CPUS_ON_NODE}
memory: ${oc.env:SLURM_MEM_PER_NODE,none}
gpus: ${oc.env:SLURM_GPUS_ON_NODE,none}
job_gpus: ${oc.env:SLURM_JOB_GPUS,none}
"""
    body = "return {key: cfg[key] for key in ('cpus', 'on_node', 'memory', 'gpus')}"
    app = App(tmp_path, body, config=config)
    found = []
    for options in ([], ["cpus_per_task=2"], ["mem_gb=1"], ["gpus_per_node=2"]):
        typed = [f"hydra.launcher.{each}" for each in options]
        result = app.run(*typed, cluster="slurm")
        assert result.counts["run"] == 1, result.text
        assert app.run(*typed, cluster="slurm").counts["cached"] == 1
        found += result.values
    assert found[1]["cpus"] == "2" and found[0]["cpus"] == "1"
    assert found[2]["memory"] == "1024"
    assert found[3]["gpus"] == "2"


@pytest.mark.parametrize("option", ["hydra.launcher.per_task={nodes: wanted}"])
def test_the_size_that_a_task_asks_for_itself_counts(tmp_path: Path, option: str) -> None:
    config = "seed: 1\nwanted: 1\nnodes: ${oc.decode:${oc.env:SLURM_NNODES}}\n"
    exclude = "hydra.launcher.exclude_from_uid=[wanted]"
    app = App(tmp_path, "return cfg.nodes", config=config)
    assert app.run("wanted=1,2", option, exclude, cluster="slurm").values == [1, 2]
    assert app.run("wanted=2,1", option, exclude, cluster="slurm").counts["cached"] == 2


@pytest.mark.parametrize("options", [size(2, 2), [*size(2, 1), "+hydra.launcher.use_srun=false"], size(1, 1)])
def test_the_sizes_that_options_give_are_those_that_a_job_finds(tmp_path: Path, options: list[str]) -> None:
    names = sorted(variables.SIZES)
    around = dict.fromkeys(names, "7")
    app = App(tmp_path, f"return {{name: os.environ.get(name) for name in {names}}}")
    found = app.run(*options, cluster="slurm", env=around).values[0]
    pairs = dict(each.split(".")[-1].split("=") for each in options)
    common = {name: int(pairs[name]) for name in ("nodes", "tasks_per_node")}
    known = variables.known_sizes(Options(common, {} if "use_srun" not in pairs else {"use_srun": False}))
    assert {name: found[name] for name in known} == known
    assert [name for name, value in found.items() if value == "7"] == []


def test_node_env_leaves_a_size_out(tmp_path: Path) -> None:
    app = App(tmp_path, "return cfg.nodes", config="seed: 1\nnodes: ${oc.decode:${oc.env:SLURM_NNODES}}\n")
    node_env = "hydra.launcher.node_env=[SLURM_NNODES]"
    assert app.run("hydra.launcher.nodes=2", node_env, cluster="slurm").values == [2]
    assert app.run(node_env, cluster="slurm").counts["cached"] == 1
