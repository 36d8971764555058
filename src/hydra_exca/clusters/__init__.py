"""Where jobs run: in this process, in processes of this machine, or on Slurm. Only here is submitit imported."""

from .base import AGAIN, Batch, Cluster, ClusterSubmission, JobEnd, JobReference, JobReport, JobSpec, JobState, Options
from .inline import InlineCluster
from .process import describe_process, is_this_process, keep_until_ended
from .process import is_alive as process_alive
from .select import CLUSTERS, get_cluster, inline_cluster

__all__ = [
    "AGAIN",
    "CLUSTERS",
    "Batch",
    "Cluster",
    "ClusterSubmission",
    "InlineCluster",
    "JobEnd",
    "JobReference",
    "JobReport",
    "JobSpec",
    "JobState",
    "Options",
    "describe_process",
    "get_cluster",
    "inline_cluster",
    "is_this_process",
    "keep_until_ended",
    "process_alive",
]
