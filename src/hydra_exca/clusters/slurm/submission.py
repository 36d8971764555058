"""The arrays of one batch on Slurm: submits, polls and cancels them."""

from __future__ import annotations

import dataclasses
import logging
import time
import typing as tp

from hydra_exca.clusters.base import (
    Batch,
    ClusterSubmission,
    JobEnd,
    JobReference,
    JobReport,
    JobSpec,
    JobState,
    Options,
)
from hydra_exca.errors import SubmissionError

from . import arrays, commands, query, sbatch
from .limits import Limits
from .run import run_command

log = logging.getLogger("exca.clusters")
_FIRST_POLL_S = 1.0  # the interval then grows to poll_s
_AGAIN_S = 2.0  # an end is confirmed by a second poll: the outcome's file may become visible later than the state
_END_S = 60.0  # the longest wait for cancelled jobs to end
_ENOUGH = 8  # limits are raised once this fraction of the common limit is unused: each raise is a call of scontrol


class SlurmSubmission(ClusterSubmission):
    """Arrays that are submitted as the queue has room for them."""

    def __init__(self, options: Options, batch: Batch) -> None:
        self._options = options
        self._batch = batch
        self._limits = Limits(options)
        self._logs = sbatch.log_folder(batch.folder, options.submitit_folder)
        self._backlog: list[JobSpec] = list(batch.jobs)
        self._arrays: dict[str, int] = {}  # how many jobs of each may run at a time
        self._ids: dict[int, str] = {}
        self._clusters: dict[int, str] = {}
        self._array_clusters: dict[str, str] = {}
        self._open: dict[int, JobReference] = {}
        self._pending: dict[int, str] = {}  # the reason of each job that has not begun
        self._running: set[int] = set()
        self._suspects: set[int] = set()
        self._cancelled: list[int] = []
        self._silent = False
        self._interval = min(_FIRST_POLL_S, self._options.poll_s)
        self._next = time.monotonic() + self._interval

    def start(self) -> None:
        sbatch.warn_of_unused_variables()
        self._submit_more()

    @property
    def job_ids(self) -> dict[int, str | None]:
        return dict(self._ids)

    @property
    def slurm_clusters(self) -> dict[int, str]:
        return dict(self._clusters)

    def stop_tracking(self, number: int) -> None:
        self._open.pop(number, None)
        self._pending.pop(number, None)

    def waiting_jobs(self) -> tp.Mapping[int, str]:
        return {**super().waiting_jobs(), **self._pending}

    def poll(self) -> dict[int, JobReport]:
        cancelled = {
            number: JobReport(JobState.ENDED, "cancelled before it was submitted", JobEnd.REMOVED)
            for number in self._cancelled
        }
        self._cancelled.clear()
        if cancelled or time.monotonic() < self._next:
            return cancelled
        self._submit_more()
        return self._query()

    def _query(self) -> dict[int, JobReport]:
        numbers = list(self._open)
        reports = query.query_jobs([self._open[number] for number in numbers]) if numbers else []
        self._log_whether_slurm_answers(all(report.state is not JobState.UNKNOWN for report in reports))
        self._interval = min(self._options.poll_s, 1.5 * self._interval)
        self._next = time.monotonic() + self._interval
        self._pending = {
            number: report.reason
            for number, report in zip(numbers, reports, strict=True)
            if report.state is JobState.PENDING
        }
        reports = [self._mark_restart(number, report) for number, report in zip(numbers, reports, strict=True)]
        news = {n: report for n, report in zip(numbers, reports, strict=True) if self._is_news(n, report)}
        for number, report in news.items():
            if report.state is JobState.ENDED:
                self.stop_tracking(number)
        self._redistribute_limit()
        return news

    def cancel_job(self, number: int) -> bool:
        if number in self._ids:
            self._cancel([self._ids[number]])
        else:
            self._backlog = [job for job in self._backlog if job.number != number]
            self._cancelled.append(number)
        return True

    def unstarted_jobs(self) -> tp.Sequence[int]:
        return [*(job.number for job in self._backlog), *self._cancelled]

    def stop_submitting(self) -> tp.Sequence[int]:
        numbers, self._backlog = [job.number for job in self._backlog], []
        return numbers

    def cancel_pending(self) -> tp.Sequence[int]:
        if self._open:
            self._cancel(self._active_arrays(), pending=True)
        return self.stop_submitting()

    def cancel_all(self) -> tp.Sequence[int]:
        numbers = [*self.stop_submitting(), *self._open]
        if self._open:
            self._cancel(self._active_arrays())
        deadline = time.monotonic() + _END_S
        while self._open and time.monotonic() < deadline:
            asked = list(self._open)
            for number, report in zip(asked, query.query_jobs([self._open[n] for n in asked]), strict=True):
                if report.state is JobState.ENDED:
                    self.stop_tracking(number)
            time.sleep(_FIRST_POLL_S if self._open else 0.0)
        return numbers

    def _cancel(self, jobs: tp.Sequence[str], pending: bool = False) -> None:
        for cluster in {self._cluster_of(job): None for job in jobs}:
            ids = [job for job in jobs if self._cluster_of(job) == cluster]
            run_command(commands.on_cluster(commands.cancel_command(ids, pending), cluster))

    def _cluster_of(self, job: str) -> str | None:
        """The cluster of a job or array of this submission."""
        return self._array_clusters.get(commands.array_id(job))

    # submitting

    def _submit_more(self) -> None:
        """Submits as many arrays as the queue has room for, within the limit on jobs that run at a time."""
        most = max(1, self._options.array_parallelism)
        spare = most - sum(min(share, self._count_open(array)) for array, share in self._arrays.items())
        if not self._backlog or spare < 1:
            return
        room = self._limits.free_slots(self._count_queued(), len(self._backlog))
        plan = arrays.cut_arrays(self._backlog, self._limits.array_size, room)
        submitted: list[str] = []
        for jobs, share in zip(plan, arrays.distribute_limit([len(jobs) for jobs in plan], spare), strict=True):
            after = None if share.after is None else submitted[share.after]
            job_id = self._submit(jobs, share.most, after)
            if job_id is None:
                if not self._open:
                    self._submit_more()
                return
            submitted.append(job_id)

    def _count_queued(self) -> int:
        """How many jobs of this launch are in the queue. A job whose outcome is there may take seconds to leave it."""
        needed = self._ids and self._limits.needs_own_count
        listed = (self._limits.list_queued() if needed else None) or []
        return max(len(self._open), sum(1 for job in listed if commands.array_id(job) in self._arrays))

    def _submit(self, jobs: tp.Sequence[JobSpec], most: int, after: str | None) -> str | None:
        """The id of an array of these jobs; None if the queue has no room for it, which is remembered."""
        first, options = jobs[0].number, jobs[0].options
        tasks = [name for job in jobs for name in job.tasks]
        array = sbatch.Array(self._batch.folder, self._batch.module, first, len(jobs), most, options, after, tasks)
        try:
            job_id, cluster = sbatch.submit_array(array)
        except SubmissionError as error:
            is_full = isinstance(error, sbatch.TooManyQueuedError)
            if not is_full or (len(jobs) == 1 and not self._open):
                raise sbatch.describe_refusal(error, options, self._describe_submitted()) from error
            self._limits.learned_limit = len(self._open) + len(jobs) // 2
            return None
        self._arrays[job_id] = most
        if cluster is not None:
            self._array_clusters[job_id] = cluster
            self._clusters.update((job.number, cluster) for job in jobs)
        for index, job in enumerate(jobs):
            name = f"{job_id}_{index}" if len(jobs) > 1 else job_id
            self._ids[job.number] = name
            self._pending[job.number] = ""
            self._open[job.number] = JobReference(
                self._batch.token, job.number, name, {}, True, time.time(), cluster, self._logs
            )
        self._backlog = self._backlog[len(jobs) :]
        return job_id

    def _describe_submitted(self) -> str:
        if not self._ids:
            return "nothing was submitted"
        ids = ", ".join(self._arrays)
        return f"{len(self._ids)} of {len(self._batch.jobs)} were submitted before, as {ids}, and go on"

    def _count_open(self, array: str) -> int:
        return sum(1 for reference in self._open.values() if commands.array_id(reference.job) == array)

    def _active_arrays(self) -> list[str]:
        return [array for array in self._arrays if self._count_open(array)]

    def _redistribute_limit(self) -> None:
        """Raises the limits of arrays by what the others no longer need."""
        active = self._active_arrays()
        if self._backlog or len(self._arrays) < 2 or not active:
            return
        most = self._options.array_parallelism
        now = [self._arrays[array] for array in active]
        larger = arrays.redistribute_limit([self._count_open(array) for array in active], now, most)
        if sum(larger) - sum(now) < max(1, most // _ENOUGH):
            return
        for array, share in zip(active, larger, strict=True):
            if share > self._arrays[array]:
                run_command(commands.on_cluster(commands.throttle_command(array, share), self._cluster_of(array)))
                self._arrays[array] = share

    def _log_whether_slurm_answers(self, answers: bool) -> None:
        if self._silent and answers:
            log.warning("exca: Slurm answers again")
        elif not self._silent and not answers:
            log.warning("exca: Slurm does not answer; stored results are still collected, and the queries go on")
        self._silent = not answers

    def _mark_restart(self, number: int, report: JobReport) -> JobReport:
        """The report; of a job that waits, with words only if it ran before, as far as polls have seen."""
        is_restart = number in self._running and report.state is JobState.PENDING
        (self._running.add if report.state is JobState.RUNNING else self._running.discard)(number)
        if report.state is not JobState.PENDING:
            return report
        return dataclasses.replace(report, words=(report.words or "requeued") if is_restart else "")

    def _is_news(self, number: int, report: JobReport) -> bool:
        """Whether to hand on a report. The end of a job counts once two polls have seen it."""
        if report.state is not JobState.ENDED:
            self._suspects.discard(number)
            return report.stuck or (report.state is JobState.PENDING and bool(report.words))
        if number not in self._suspects:
            self._suspects.add(number)
            self._next = min(self._next, time.monotonic() + min(_AGAIN_S, self._options.poll_s))
            return False
        return True
