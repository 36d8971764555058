"""Clusters ``null`` and ``debug``: tasks run in this process, one after another."""

from __future__ import annotations

import contextlib
import os
import typing as tp

from hydra_exca import paths

from . import process
from .base import Batch, Cluster, ClusterSubmission, JobEnd, JobReference, JobReport, JobState, Options


class InlineCluster(Cluster):
    """Runs tasks in this process."""

    name = "inline"

    def check_options(self, options: tp.Sequence[Options]) -> None:
        pass

    def prepare(self, batch: Batch) -> ClusterSubmission:
        return _InlineSubmission(batch)

    def query_jobs(self, references: tp.Sequence[JobReference]) -> list[JobReport]:
        return [process_report(reference) for reference in references]

    def cancel_jobs(self, references: tp.Sequence[JobReference]) -> None:
        """Does nothing: a task in the thread of another process could only be ended with that process."""

    def call(self, compute: tp.Callable[[], tp.Any]) -> tp.Any:
        """Returns or raises what ``compute()`` does."""
        return compute()


class DebugCluster(InlineCluster):
    """Runs tasks in this process, and starts pdb where a task has raised."""

    name = "debug"

    def call(self, compute: tp.Callable[[], tp.Any]) -> tp.Any:
        try:
            return compute()
        except Exception as error:
            import pdb

            original = error.__cause__ or error
            print(f"{type(original).__name__}: {original}")
            with contextlib.suppress(OSError):  # no terminal
                pdb.post_mortem(original.__traceback__)
            raise


class _InlineSubmission(ClusterSubmission):
    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._waiting = [job.number for job in batch.jobs]

    def start(self) -> None:
        pass

    @property
    def job_ids(self) -> dict[int, str | None]:
        return {job.number: str(os.getpid()) for job in self._batch.jobs}

    def poll(self) -> dict[int, JobReport]:
        if not self._waiting:
            return {}
        number = self._waiting[0]
        self._batch.run_inline(number)
        del self._waiting[0]
        return {number: JobReport(JobState.ENDED, "it ended the task without a value or an error")}

    def unstarted_jobs(self) -> tp.Sequence[int]:
        return tuple(self._waiting)

    def stop_submitting(self) -> tp.Sequence[int]:
        cancelled, self._waiting = self._waiting, []
        return cancelled

    def cancel_pending(self) -> tp.Sequence[int]:
        return self.stop_submitting()

    def cancel_all(self) -> tp.Sequence[int]:
        return self.stop_submitting()


def process_report(reference: JobReference) -> JobReport:
    """The report on a job whose owner is a process, from the process table."""
    running = process.is_alive(reference.owner)
    if running is None:
        return JobReport(JobState.UNKNOWN, f"on {reference.owner.get('host')}, which cannot be asked from here")
    if running:
        return JobReport(JobState.RUNNING if reference.started else JobState.PENDING)
    log = None if reference.logs is None else paths.job_log(reference.logs, reference.number)
    return JobReport(JobState.ENDED, "its process is gone", JobEnd.REMOVED, log=log)
