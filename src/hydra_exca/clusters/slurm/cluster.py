"""Cluster ``slurm``: job arrays, submitted and cancelled with Slurm's own commands."""

from __future__ import annotations

import shutil
import typing as tp
from pathlib import Path

from hydra_exca.clusters import python_environment
from hydra_exca.clusters.base import Batch, Cluster, ClusterSubmission, JobReference, JobReport, Options
from hydra_exca.errors import ConfigError, Problem

from . import commands, query, resources, sbatch, variables
from .run import ANSWER_S, run_command
from .submission import SlurmSubmission


class SlurmCluster(Cluster):
    """Runs jobs on Slurm, by its own commands and with scripts that submitit writes."""

    name = "slurm"
    detaches = True

    def __str__(self) -> str:
        partition = self.options.slurm.get("partition")
        where = "the default partition" if partition is None else f"partition {partition}"
        limit = self.options.common.get("timeout_min") or resources.DEFAULT_TIMEOUT_MIN
        return f"{self.name} ({where}, {limit} min a job)"

    def resource(self, name: str, options: Options) -> tp.Any:
        given = {"timeout_min": resources.given_minutes, "mem_gb": resources.given_memory_gb}.get(name)
        return super().resource(name, options) if given is None else given(options)

    def describe_resources(self, options: Options) -> dict[str, tp.Any]:
        flags = (options.slurm.get("additional_parameters") or {}).items()
        asked = {"timeout_min": resources.given_minutes(options), **super().describe_resources(options)}
        return {**asked, **{name: value for name, value in flags if name in (*variables.RESOURCES, "time")}}

    def changed_resources(self, options: Options, changes: tp.Mapping[str, tp.Any]) -> dict[str, tp.Any]:
        changed: dict[str, tp.Any] = {}
        for name, value in changes.items():
            replaced = resources.replaced_settings(name, options.with_resources(changed))
            changed |= {**replaced, name: value}
        return changed

    def log_folder(self, launch: Path) -> Path:
        return sbatch.log_folder(launch, self.options.submitit_folder)

    def check_options(self, options: tp.Sequence[Options]) -> None:
        for command in (["sbatch", "--version"], commands.ping_command()):
            _check_answers(command)
        python_environment.check_environment(self.options.environment, "hydra_exca.job.worker")
        for job_options in options:
            sbatch.check_options(job_options)

    def prepare(self, batch: Batch) -> ClusterSubmission:
        return SlurmSubmission(self.options, batch)

    def query_jobs(self, references: tp.Sequence[JobReference]) -> list[JobReport]:
        return query.query_jobs(references)

    def cancel_jobs(self, references: tp.Sequence[JobReference]) -> None:
        query.cancel_jobs(references)

    def cancel_vanished(self, references: tp.Sequence[JobReference]) -> None:
        query.cancel_vanished(references)


def _check_answers(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        raise _no_answer_error(f"there is no {command[0]!r} on this machine")
    done = run_command(command)
    if done is None:
        raise _no_answer_error(f"{' '.join(command)!r} gave no answer in {ANSWER_S:g} s")
    if done.returncode != 0 or " is DOWN" in done.stdout:
        output = (done.stderr + done.stdout).strip()
        raise _no_answer_error(f"{' '.join(command)!r} ended with status {done.returncode}: {output}")


def _no_answer_error(what: str) -> ConfigError:
    return ConfigError(
        "Slurm does not answer; nothing was run.",
        [Problem(f"{what}. Try again, or run on this machine with cluster=local", "cluster")],
    )
