"""The memory and the time that Slurm gives to jobs with some options, and how to ask for others."""

from __future__ import annotations

import re
import typing as tp

from hydra_exca.clusters.base import Options

from . import commands, variables
from .run import read_output

DEFAULT_TIMEOUT_MIN = 60  # that of hydra-submitit-launcher
_MB = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)B?", re.IGNORECASE)
_SAME = {"mem_gb": ("mem", "mem_per_cpu", "mem_per_gpu"), "timeout_min": ("time",)}
"""Flags of sbatch that ask for the same as an option."""


def given_minutes(options: Options) -> float | None:
    """The time limit of jobs with these options; None if that is not known."""
    flag = (options.slurm.get("additional_parameters") or {}).get("time")
    if flag is None:
        return options.common.get("timeout_min") or DEFAULT_TIMEOUT_MIN
    return float(flag) if str(flag).isdecimal() else None


def given_memory_gb(options: Options) -> float | None:
    """What jobs with these options get on each node, in units of 2**30 bytes: what they ask for, or Slurm's default.

    None if that is not known.
    """
    asked = variables.asked_resources(options)
    numbers = {name: _amount(text) for name, text in asked.items()}
    tasks = numbers["tasks_per_node"] or 1.0
    cores, gpus = (tasks * (numbers.get(f"{what}_per_task") or 1.0) for what in ("cpus", "gpus"))
    for name, times in {"mem": 1.0, "mem_gb": 1024.0, "mem_per_cpu": cores, "mem_per_gpu": gpus}.items():
        if name in asked:
            times = numbers["gpus_per_node"] or gpus if name == "mem_per_gpu" and "gpus_per_node" in asked else times
            return (numbers[name] or 0.0) * times / 1024 or None
    return _default_memory_gb(asked.get("partition"), cores)


def replaced_settings(name: str, options: Options) -> dict[str, tp.Any]:
    """The options that ask for the same as the option ``name``, without their values."""
    flags, more = _SAME.get(name, ()), options.slurm.get("additional_parameters") or {}
    left = {key: value for key, value in more.items() if key.replace("-", "_") not in flags}
    settings = {f"slurm_{flag}": None for flag in flags if options.slurm.get(flag) is not None}
    return settings if len(left) == len(more) else {**settings, "slurm_additional_parameters": left}


def _amount(text: str) -> float | None:
    """A number, or an amount of memory in MB, as sbatch reads it.

    >>> _amount("512M"), _amount("4G"), _amount("2048"), _amount("UNLIMITED")
    (512.0, 4096.0, 2048.0, None)
    """
    match = _AMOUNT.fullmatch(text.strip())
    return float(match[1]) * _MB[match[2].upper() or "M"] if match else None


def _default_memory_gb(chosen: str | None, cores: float) -> float | None:
    """The default of the partitions, or else of the cluster; None if there is none, or the partitions differ."""
    cluster = commands.read_configuration(read_output(commands.configuration_command()) or "")
    partitions = commands.read_partitions(read_output(commands.partitions_command()) or "")
    names = None if chosen is None else chosen.split(",")
    defaults = {
        _default_of(partition, cores) or _default_of(cluster, cores)
        for partition in partitions
        if (partition.get("Default") == "YES" if names is None else partition["PartitionName"] in names)
    }
    return defaults.pop() if len(defaults) == 1 else None


def _default_of(settings: tp.Mapping[str, str], cores: float) -> float | None:
    per_node, per_core = (_amount(settings.get(f"DefMemPer{what}", "")) or 0.0 for what in ("Node", "CPU"))
    return (per_node or per_core * cores) / 1024 or None
