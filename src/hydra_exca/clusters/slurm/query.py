"""The state of jobs from Slurm's queue and accounting, in as few calls as possible."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
import typing as tp
from pathlib import Path

from hydra_exca.clusters.base import JobEnd, JobReference, JobReport, JobState
from hydra_exca.clusters.inline import process_report

from . import commands, job_log
from .run import read_output, run_command

_GONE = JobReport(JobState.ENDED, end=JobEnd.REMOVED)


def query_jobs(references: tp.Sequence[JobReference]) -> list[JobReport]:
    """A report on each of these jobs, which may belong to any launch."""
    # launching processes are checked first: one that is gone now cannot submit anything after the queue was read
    launching = {r: process_report(r) for r in references if not r.started}
    asked = [r for r in references if r.job or launching.get(r, _GONE).state is not JobState.PENDING]
    scheduler = _query_scheduler(asked) if asked else _SchedulerReports()
    return [_make_report(scheduler, reference, launching.get(reference)) for reference in references]


def query_job(job: str, cluster: str | None = None) -> list[commands.Row] | None:
    """The rows of any user's job, given any of its ids: one row, or one per task of an array.

    None if Slurm does not answer. The controller forgets a job minutes after its end; accounting, if enabled, does not.
    """
    answer = run_command(commands.on_cluster(commands.show_command(job), cluster))
    rows = [] if answer is None else commands.read_shown(answer.stdout)
    if rows:
        return rows
    accounted = read_output(commands.on_cluster(commands.accounting_command({job}, (), since=time.time()), cluster))
    if accounted is not None:
        return commands.read_rows(accounted)
    return [] if answer is not None and "Invalid job id" in answer.stderr else None


def cancel_jobs(references: tp.Sequence[JobReference]) -> None:
    """Cancels these jobs. Slurm is asked for ids that are not known."""
    unknown = [reference for reference in references if reference.job is None]
    reports = query_jobs(unknown) if unknown else []
    jobs = [(ref.slurm_cluster, ref.job) for ref in references if ref.job]
    jobs += [(ref.slurm_cluster, report.job) for ref, report in zip(unknown, reports, strict=True) if report.job]
    for cluster in {cluster: None for cluster, _ in jobs}:
        ids = [job for its_cluster, job in jobs if its_cluster == cluster]
        run_command(commands.on_cluster(commands.cancel_command(ids), cluster))


def cancel_vanished(references: tp.Sequence[JobReference]) -> None:
    """Cancels jobs that Slurm does not list, as one that is only hidden would go on.

    A new job that has got the id of one of them, as Slurm's ids have begun anew, is not cancelled.
    """
    cancel_jobs([reference for reference in references if reference.job and not _is_reused(reference)])


def _is_reused(reference: JobReference) -> bool:
    rows = query_job(tp.cast(str, reference.job), reference.slurm_cluster) or []
    return any(row.place != (reference.token, reference.number) for row in rows)


@dataclasses.dataclass
class _SchedulerReports:
    """Reports by launch token and job number, and the ids of all arrays that Slurm has listed."""

    reports: dict[tuple[str, int], JobReport] = dataclasses.field(default_factory=dict)
    arrays: set[str] = dataclasses.field(default_factory=set)

    def add(self, rows: tp.Iterable[commands.Row], references: tp.Sequence[JobReference]) -> None:
        """Adds the rows of these launches: their token is in the path of the script. Ids are reused."""
        tokens = {reference.token for reference in references}
        for row in rows:
            place = row.place
            if place is not None and place[0] in tokens:
                self.reports[place] = row.report()
                self.arrays.add(commands.array_id(row.job))


def _query_scheduler(references: tp.Sequence[JobReference]) -> _SchedulerReports | None:
    """All reports on these jobs, None if the scheduler does not answer."""
    scheduler = _SchedulerReports()
    by_question = sorted(references, key=_question)
    return (
        scheduler
        if all(_add_reports(scheduler, list(group)) for _, group in itertools.groupby(by_question, key=_question))
        else None
    )


def _question(reference: JobReference) -> tuple[str, bool]:
    """Equal for jobs about which Slurm is asked together."""
    return reference.slurm_cluster or "", not reference.job


def _add_reports(scheduler: _SchedulerReports, references: tp.Sequence[JobReference]) -> bool:
    """Adds the reports of jobs of one cluster whose ids are all known, or all unknown; False without an answer."""
    cluster = references[0].slurm_cluster
    jobs = {commands.array_id(reference.job) for reference in references} - {""}
    users = set() if jobs else {str(reference.owner.get("user", os.getuid())) for reference in references}
    queue = run_command(commands.on_cluster(commands.queue_command(jobs, users), cluster))
    if queue is None or (queue.returncode != 0 and "Invalid job id" not in queue.stderr):
        return False
    queued = commands.read_rows(queue.stdout)
    scheduler.add(queued, references)
    if not {(reference.token, reference.number) for reference in references} <= scheduler.reports.keys():
        since = min(reference.submitted for reference in references)
        accounting = read_output(commands.on_cluster(commands.accounting_command(jobs, users, since), cluster))
        if accounting is not None:
            scheduler.add(commands.read_accounts(accounting) + queued, references)  # the queue is more current
    return True


def _explain(report: JobReport, reference: JobReference) -> JobReport:
    """The report with the reasons in the log. One that has none may be on a disk that took nothing."""
    explained = job_log.add_reasons(report, tp.cast("Path", reference.logs))
    has_failed = report.reason == "FAILED" and report.end is JobEnd.EXITED and report.job is not None
    if not has_failed or (explained.end, explained.words) != (report.end, report.words):
        return explained
    shown = read_output(commands.on_cluster(commands.show_command(tp.cast(str, report.job)), reference.slurm_cluster))
    code = None if shown is None else commands.read_exit_code(shown)
    return explained if code is None else job_log.with_exit_code(explained, code)


def _make_report(
    scheduler: _SchedulerReports | None, reference: JobReference, launching: JobReport | None
) -> JobReport:
    if scheduler is None:
        return JobReport(JobState.UNKNOWN, "Slurm does not answer")
    report = scheduler.reports.get((reference.token, reference.number))
    if report is not None:
        return report if reference.logs is None else _explain(report, reference)
    if launching is not None and reference.job is None:
        return launching  # not submitted yet: what counts is whether its launching process lives
    # a task that is cancelled while it is pending in an array never gets a row of its own
    if commands.array_id(reference.job) in scheduler.arrays:
        words = "it was cancelled while it was pending, or Slurm has forgotten it"
        return JobReport(JobState.ENDED, "CANCELLED", JobEnd.REMOVED, job=reference.job, words=words)
    words = "neither squeue nor sacct shows it"
    return JobReport(JobState.ENDED, "VANISHED", JobEnd.VANISHED, job=reference.job, words=words)
