"""Where jobs run: in this process, in processes of this machine, or on Slurm. Only here is submitit imported."""

from .base import AGAIN, Batch, Cluster, JobSpec, Options, Reference, Report, State, Submission
from .inline import InlineCluster
from .process import alive as process_alive
from .process import describe as describe_process
from .process import outlive
from .select import CLUSTERS, get, here

__all__ = [
    "AGAIN",
    "CLUSTERS",
    "Batch",
    "Cluster",
    "InlineCluster",
    "JobSpec",
    "Options",
    "Reference",
    "Report",
    "State",
    "Submission",
    "describe_process",
    "get",
    "here",
    "outlive",
    "process_alive",
]
