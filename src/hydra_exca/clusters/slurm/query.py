"""What Slurm's queue and accounting say of jobs, in as few questions as can be."""

from __future__ import annotations

import dataclasses
import os
import time
import typing as tp

from hydra_exca.clusters.base import JobReference, JobReport, JobState
from hydra_exca.clusters.inline import process_report

from . import commands, sbatch

_GONE = JobReport(JobState.ENDED)


def query_jobs(references: tp.Sequence[JobReference]) -> list[JobReport]:
    """A report for each of these jobs, of whatever launch."""
    # the launching processes first: one that is gone by now submits nothing after the queue was read
    launching = {r: process_report(r) for r in references if not r.started}
    asked = [r for r in references if r.job or launching.get(r, _GONE).state is not JobState.PENDING]
    found = _query_scheduler(asked) if asked else _SchedulerReports()
    return [_make_report(found, reference, launching.get(reference)) for reference in references]


def query_job(job: str) -> list[commands.Row] | None:
    """What Slurm says of anybody's job, by any of its ids: one row, of an array one a task; None if it cannot be asked.

    The controller forgets a job some minutes after its end; the accounting, where there is one, does not.
    """
    shown = sbatch.run_command(commands.show_command(job))
    rows = [] if shown is None else commands.read_shown(shown.stdout)
    if rows:
        return rows
    accounted = sbatch.run_command(commands.accounting_command({job}, (), since=time.time()))
    if accounted is not None and accounted.returncode == 0:
        return commands.read_rows(accounted.stdout)
    return [] if shown is not None and "Invalid job id" in shown.stderr else None


@dataclasses.dataclass
class _SchedulerReports:
    """Reports by launch and number, and the ids of the arrays of which anything is known."""

    reports: dict[tuple[str, int], JobReport] = dataclasses.field(default_factory=dict)
    arrays: set[str] = dataclasses.field(default_factory=set)


def _query_scheduler(references: tp.Sequence[JobReference]) -> _SchedulerReports | None:
    """What the scheduler lists, None when it cannot be asked."""
    found = _SchedulerReports()
    for known in ([r for r in references if r.job], [r for r in references if not r.job]):
        rows = _list_rows(known) if known else []
        if rows is None:
            return None
        _add_rows(found, rows, known)
    return found


def _list_rows(references: tp.Sequence[JobReference]) -> list[commands.Row] | None:
    """What queue and accounting list of jobs whose ids are all known, or all unknown; the queue's word comes last."""
    jobs = {reference.job.partition("_")[0] for reference in references if reference.job}
    users = set() if jobs else {str(reference.owner.get("user", os.getuid())) for reference in references}
    queue = sbatch.run_command(commands.queue_command(jobs, users))
    if queue is None or (queue.returncode != 0 and "Invalid job id" not in queue.stderr):
        return None
    rows = commands.read_rows(queue.stdout)
    seen = _SchedulerReports()
    _add_rows(seen, rows, references)
    if any((reference.token, reference.number) not in seen.reports for reference in references):
        since = min(reference.submitted for reference in references)
        accounting = sbatch.run_command(commands.accounting_command(jobs, users, since))
        if accounting is not None and accounting.returncode == 0:
            rows = commands.read_accounts(accounting.stdout) + rows
    return rows


def _add_rows(found: _SchedulerReports, rows: tp.Iterable[commands.Row], references: tp.Sequence[JobReference]) -> None:
    """Only rows of these launches: their token is in the path of the script. An id alone comes again."""
    tokens = {reference.token for reference in references}
    for row in rows:
        place = row.place
        if place is not None and place[0] in tokens:
            found.reports[place] = row.report()
            found.arrays.add(row.job.partition("_")[0])


def _make_report(found: _SchedulerReports | None, reference: JobReference, launching: JobReport | None) -> JobReport:
    if found is None:
        return JobReport(JobState.UNKNOWN, "Slurm does not answer")
    report = found.reports.get((reference.token, reference.number))
    if report is not None:
        return report
    if launching is not None and reference.job is None:  # not at the scheduler (yet): its launching process decides
        return launching
    if (reference.job or "").partition("_")[
        0
    ] in found.arrays:  # what is cancelled while it is pending in an array leaves no row, ever
        return JobReport(JobState.ENDED, "CANCELLED while it was pending, or forgotten by Slurm", cancelled=True)
    return JobReport(JobState.ENDED, "Slurm knows nothing of it (any more)", failed=False)
