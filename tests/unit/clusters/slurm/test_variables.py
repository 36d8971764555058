from __future__ import annotations

import typing as tp

import pytest

from hydra_exca.clusters import Options
from hydra_exca.clusters.slurm import variables

NAMES = sorted(variables.SIZES)


def asks(common: dict[str, tp.Any] | None = None, **slurm: tp.Any) -> Options:
    return Options({"nodes": 1, "tasks_per_node": 1, **(common or {})}, slurm)


def described(name: str, options: Options) -> str:
    return variables.describe_size(name, options)


def test_no_variable_is_both_a_size_and_a_place() -> None:
    assert not variables.SIZES & variables.IDS_AND_PLACES


@pytest.mark.parametrize("name", ["SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_NODEID", "SLURM_JOB_NODELIST", "SLURM_X"])
def test_indices_and_places_are_no_sizes(name: str) -> None:
    assert not variables.is_size(name)


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_concern_the_size_of_a_job_changes_nothing(name: str) -> None:
    more = {"timeout_min": 5, "name": "other", "stderr_to_stdout": True}
    slurm = {"comment": "c", "account": "a", "signal_delay_s": 3, "setup": ["module load x"], "use_srun": True}
    other = asks(more, **slurm, additional_parameters={"mail-user": "me"}, srun_args=["--cpu-bind=none"])
    assert described(name, other) == described(name, asks())


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("SLURM_NNODES", {"nodes": 2}),
        ("SLURM_NTASKS", {"nodes": 2}),
        ("SLURM_NTASKS", {"tasks_per_node": 2}),
        ("SLURM_NTASKS_PER_NODE", {"tasks_per_node": 2}),
        ("SLURM_TASKS_PER_NODE", {"nodes": 2}),
        ("SLURM_CPUS_PER_TASK", {"cpus_per_task": 1}),
        ("SLURM_CPUS_ON_NODE", {"cpus_per_task": 1}),
        ("SLURM_MEM_PER_NODE", {"mem_gb": 2}),
        ("SLURM_GPUS_PER_NODE", {"gpus_per_node": 1}),
        ("SLURM_GPUS_ON_NODE", {"gpus_per_node": 1}),
    ],
)
def test_an_option_that_decides_a_size_counts(name: str, option: dict[str, tp.Any]) -> None:
    assert described(name, asks(option)) != described(name, asks())


@pytest.mark.parametrize(
    ("name", "slurm"),
    [
        ("SLURM_NNODES", {"additional_parameters": {"nodes": 2}}),
        ("SLURM_NNODES", {"additional_parameters": {"nodes": "2-4"}}),
        ("SLURM_NNODES", {"srun_args": ["-N", "1"]}),
        ("SLURM_NNODES", {"setup": ["export SLURM_NNODES=9"]}),
        ("SLURM_NTASKS", {"additional_parameters": {"ntasks": 2}}),
        ("SLURM_NTASKS", {"additional_parameters": {"ntasks-per-gpu": 1}}),
        ("SLURM_NTASKS", {"additional_parameters": {"ntasks-per-node": 2}}),
        ("SLURM_NTASKS", {"srun_args": ["--ntasks=1"]}),
        ("SLURM_CPUS_PER_TASK", {"additional_parameters": {"cpus-per-task": 2}}),
        ("SLURM_CPUS_PER_TASK", {"srun_args": ["--cpus-per-task=2"]}),
        ("SLURM_CPUS_ON_NODE", {"additional_parameters": {"exclusive": True}}),
        ("SLURM_CPUS_ON_NODE", {"partition": "big"}),
        ("SLURM_GPUS", {"additional_parameters": {"gpus": 2}}),
        ("SLURM_GPUS_ON_NODE", {"gres": "gpu:2"}),
        ("SLURM_MEM_PER_CPU", {"mem_per_cpu": "2G"}),
        ("SLURM_STEP_NUM_TASKS", {"use_srun": False}),
        ("SLURM_CPUS_PER_TASK", {"additional_parameters": {"export": "ALL,SLURM_CPUS_PER_TASK=3"}}),
    ],
)
def test_a_flag_for_sbatch_or_srun_that_changes_a_size_counts(name: str, slurm: dict[str, tp.Any]) -> None:
    assert described(name, asks({}, **slurm)) != described(name, asks())


def test_sizes_count_by_number() -> None:
    assert described("SLURM_NTASKS", asks({"nodes": 4})) == described("SLURM_NTASKS", asks({"tasks_per_node": 4}))
    assert described("SLURM_NNODES", asks({"tasks_per_node": 4, "gpus_per_node": 2})) == described(
        "SLURM_NNODES", asks()
    )
    unset = Options({"nodes": None, "tasks_per_node": None})
    assert [described(name, unset) for name in NAMES] == [described(name, asks()) for name in NAMES]


def test_the_same_size_counts_the_same_whoever_says_it() -> None:
    added = asks({}, additional_parameters={"nodes": "2", "ntasks_per_node": 3})
    assert described("SLURM_NTASKS", added) == described("SLURM_NTASKS", asks({"nodes": 2, "tasks_per_node": 3}))


def test_a_flag_that_is_given_twice_is_no_number() -> None:
    twice = asks({}, additional_parameters={"ntasks-per-node": 3})  # the script has submitit's --ntasks-per-node=1, too
    assert described("SLURM_NTASKS", twice) != described("SLURM_NTASKS", asks({"tasks_per_node": 3}))
    assert described("SLURM_NTASKS", twice) != described("SLURM_NTASKS", asks())


def test_setup_does_not_show() -> None:
    assert "hunter2" not in described("SLURM_NNODES", asks({}, setup=["export SLURM_NNODES=9 TOKEN=hunter2"]))
