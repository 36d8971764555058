"""Where jobs run: in this process, in processes of this machine, or on Slurm. Only here is submitit imported."""

from .base import Batch, Cluster, Options, Reference, Report, State, Submission
from .inline import InlineCluster
from .process import describe as describe_process
from .select import CLUSTERS, get, here

__all__ = [
    "CLUSTERS",
    "Batch",
    "Cluster",
    "InlineCluster",
    "Options",
    "Reference",
    "Report",
    "State",
    "Submission",
    "describe_process",
    "get",
    "here",
]
