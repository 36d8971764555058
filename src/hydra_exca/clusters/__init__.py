"""Where jobs run: in this process, in processes of this machine, or on Slurm. Only here is submitit imported."""

from .base import AGAIN, Batch, Cluster, ClusterSubmission, JobSpec, Options, Reference, Report, State
from .inline import InlineCluster
from .process import describe_process, start_detached
from .process import is_alive as process_alive
from .select import CLUSTERS, detect_cluster, get_cluster

__all__ = [
    "AGAIN",
    "CLUSTERS",
    "Batch",
    "Cluster",
    "ClusterSubmission",
    "InlineCluster",
    "JobSpec",
    "Options",
    "Reference",
    "Report",
    "State",
    "describe_process",
    "detect_cluster",
    "get_cluster",
    "process_alive",
    "start_detached",
]
