"""Helpers: a cache for a plain function, and the task that a Slurm job computes."""

from .infra.functions import FunctionWithInfra, with_infra
from .launch.find_job import find_slurm_job
from .launch.slurm_job import JobPaths, SlurmJob

__all__ = ["FunctionWithInfra", "JobPaths", "SlurmJob", "find_slurm_job", "with_infra"]
