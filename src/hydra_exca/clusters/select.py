"""Which cluster a name means."""

from __future__ import annotations

import shutil

from hydra_exca.errors import ConfigError, Problem
from hydra_exca.text import choices

from .base import Cluster, Options
from .inline import DebugCluster, InlineCluster

CLUSTERS = ("auto", "local", "slurm", "inline", "debug")


def inline_cluster(debug: bool = False) -> InlineCluster:
    """This process."""
    return (DebugCluster if debug else InlineCluster)(Options())


def get_cluster(name: str | None, options: Options) -> Cluster:
    """The cluster called ``name``. ``auto`` is Slurm where there is ``sbatch``, else this machine.

    Whether Slurm answers is not asked here: an ``sbatch`` that is there and silent must become an error of
    `Cluster.check_options`, never jobs on a login node.
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
    raise ConfigError("There is no such cluster; nothing was run.", [Problem(message, "hydra.launcher.cluster")])
