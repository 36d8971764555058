"""Clusters ``null`` and ``debug``: the tasks run in this process, one after another."""

from __future__ import annotations

import contextlib
import os
import typing as tp

from . import process
from .base import Batch, Cluster, ClusterSubmission, Options, Reference, Report, State


class InlineCluster(Cluster):
    """Runs tasks in this process."""

    name = "inline"

    def check(self, options: tp.Sequence[Options]) -> None:
        pass

    def submit(self, batch: Batch) -> ClusterSubmission:
        return _InlineSubmission(batch)

    def ask(self, references: tp.Sequence[Reference]) -> list[Report]:
        return [process_report(reference) for reference in references]

    def cancel(self, references: tp.Sequence[Reference]) -> None:
        """A task in another process's own thread cannot be cancelled but by ending that process: left alone."""

    def call(self, compute: tp.Callable[[], tp.Any]) -> tp.Any:
        """What ``compute()`` returns, or raises."""
        return compute()


class DebugCluster(InlineCluster):
    """The same, with pdb where a task raised."""

    name = "debug"

    def call(self, compute: tp.Callable[[], tp.Any]) -> tp.Any:
        try:
            return compute()
        except Exception as error:
            import pdb

            original = error.__cause__ or error
            print(f"{type(original).__name__}: {original}")
            with contextlib.suppress(OSError):  # there is nobody to ask
                pdb.post_mortem(original.__traceback__)
            raise


class _InlineSubmission(ClusterSubmission):
    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._waiting = [job.number for job in batch.jobs]

    def start(self) -> None:
        pass

    @property
    def jobs(self) -> dict[int, str | None]:
        return {job.number: str(os.getpid()) for job in self._batch.jobs}

    def step(self) -> dict[int, Report]:
        if not self._waiting:
            return {}
        number = self._waiting[0]
        self._batch.here(number)
        del self._waiting[0]
        return {number: Report(State.ENDED, "it ended the task without a value or an error")}

    def unstarted(self) -> tp.Sequence[int]:
        return tuple(self._waiting)

    def abandon(self) -> tp.Sequence[int]:
        cancelled, self._waiting = self._waiting, []
        return cancelled

    def withdraw(self) -> tp.Sequence[int]:
        return self.abandon()

    def end(self) -> tp.Sequence[int]:
        return self.abandon()


def process_report(reference: Reference) -> Report:
    """What the process table says of a job whose owner is a process."""
    running = process.is_alive(reference.owner)
    if running is None:
        return Report(State.UNKNOWN, f"on {reference.owner.get('host')}, which cannot be asked from here")
    if running:
        return Report(State.RUNNING if reference.started else State.PENDING)
    return Report(State.ENDED, "its process is gone", failed=False)
