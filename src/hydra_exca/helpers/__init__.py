"""Helpers: a cache for a plain function, and the task that a Slurm job computes."""

from .find import find_slurm_job
from .functions import FunctionWithInfra, with_infra
from .jobs import JobPaths, SlurmJob

__all__ = ["FunctionWithInfra", "JobPaths", "SlurmJob", "find_slurm_job", "with_infra"]
