"""The options of `hydra.launcher`: what does not go together is refused, and all of it at once."""

from __future__ import annotations

import typing as tp
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hydra_exca.clusters.slurm.sbatch import sbatch_parameters
from hydra_exca.errors import ConfigError
from hydra_exca.sweep.launcher_conf import ExcaLauncherConf
from hydra_exca.sweep.options import SweepOptions, read_options


def read(**options: tp.Any) -> SweepOptions:
    """Options of which all others have their defaults."""
    defaults = tp.cast("dict[str, tp.Any]", OmegaConf.to_container(OmegaConf.structured(ExcaLauncherConf)))
    return read_options({**defaults, "folder": "cache", "cluster": "slurm", **options}, Path("/started"))


def keys_of_problems(**options: tp.Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(**options)
    return [problem.key.removeprefix("hydra.launcher.") for problem in caught.value.problems]


@pytest.mark.parametrize("cluster", ["slurm", "auto"])
@pytest.mark.parametrize("several", [{"tasks_per_node": 2}, {"per_task": {"tasks_per_node": "ranks"}}], ids=str)
def test_several_ranks_without_srun_are_refused(cluster: str, several: dict[str, tp.Any]) -> None:
    """One rank would run, and be told that it is one of several."""
    assert keys_of_problems(cluster=cluster, use_srun=False, **several) == ["tasks_per_node"]


@pytest.mark.parametrize(
    "options",
    [
        {"tasks_per_node": 2},
        {"tasks_per_node": 2, "use_srun": True},
        {"use_srun": False},
        {"tasks_per_node": 2, "use_srun": False, "cluster": "local"},
    ],
    ids=str,
)
def test_other_combinations_with_srun_are_accepted(options: dict[str, tp.Any]) -> None:
    assert read(**options).jobs.common["tasks_per_node"] == options.get("tasks_per_node", 1)


def test_options_of_submitit_that_are_not_set_are_left_to_it() -> None:
    jobs = read(python=None, srun_args=None, use_srun=None).jobs
    sent = sbatch_parameters(jobs)
    assert jobs.python is None and not {"python", "slurm_python", "slurm_srun_args", "slurm_use_srun"} & sent.keys()


def test_the_command_that_runs_python_is_no_option_of_sbatch() -> None:
    jobs = read(python="/other/bin/python", srun_args=["-v"], use_srun=False).jobs
    sent = sbatch_parameters(jobs)
    assert (jobs.python, sent["slurm_srun_args"], sent["slurm_use_srun"]) == ("/other/bin/python", ["-v"], False)
    assert "slurm_python" not in sent


def test_everything_wrong_is_listed_together() -> None:
    wrong: dict[str, tp.Any] = {
        "mode": None,
        "version": "a/b",
        "max_queued": 0,
        "poll_s": 0,
        "workers_per_job": 2,
        "per_task": {"x": "y"},
    }
    wrong |= {"retries": -1, "on_oom": "2x", "on_timeout": {"time": 5}, "max_mem_gb": -3}
    assert keys_of_problems(**wrong, cluster="inline", wait=False) == [
        *("mode", "version", "max_queued", "poll_s", "workers_per_job", "wait", "per_task"),
        *("on_oom", "retries", "max_mem_gb", "on_timeout"),
    ]


def test_a_retry_asks_for_options_under_the_names_of_submitit() -> None:
    policy = read(retries=1, on_oom={"mem_gb": "2x", "partition": "big"}).retries
    assert policy.on_oom == {"mem_gb": "2x", "slurm_partition": "big"} and policy.retries == 1


def test_a_chosen_version_is_known_as_such_even_if_it_is_the_default() -> None:
    defaults = tp.cast("dict[str, tp.Any]", OmegaConf.to_container(OmegaConf.structured(ExcaLauncherConf)))
    typed = read_options({**defaults, "folder": None}, Path("/started"), "0")
    assert (read().version_is_set, read(version="1").version_is_set, typed.version_is_set) == (False, True, True)
    assert typed.folder == Path("/started/exca")
