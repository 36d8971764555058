"""Clusters by name."""

from __future__ import annotations

import shutil

from hydra_exca.errors import ConfigError, Problem
from hydra_exca.text import choices

from .base import Cluster, Options
from .inline import DebugCluster, InlineCluster

CLUSTERS = ("auto", "local", "slurm", "inline", "debug")


def inline_cluster(debug: bool = False) -> InlineCluster:
    """The cluster that runs tasks in this process."""
    return (DebugCluster if debug else InlineCluster)(Options())


def get_cluster(name: str | None, options: Options) -> Cluster:
    """The cluster called ``name``. ``auto`` is Slurm if there is an ``sbatch``, else this machine.

    Whether Slurm answers does not matter here: if ``sbatch`` is there and silent, `Cluster.check_options` raises, and
    no job runs on a login node. Raises ConfigError for an unknown name.
    """
    if name == "auto":
        name = "slurm" if shutil.which("sbatch") else "local"
    if name is None or name == InlineCluster.name:
        return InlineCluster(options)
    if name == DebugCluster.name:
        return DebugCluster(options)
    if name == "local":
        from .local import LocalCluster  # a job knows where it runs, and starts without these

        return LocalCluster(options)
    if name == "slurm":
        from .slurm.cluster import SlurmCluster

        return SlurmCluster(options)
    message = f"invalid cluster {name!r}: choose {choices([*CLUSTERS, 'null'])}"
    raise ConfigError("There is no such cluster; nothing was run.", [Problem(message, "cluster")])
