"""Cluster ``slurm``: job arrays, asked for and ended by Slurm's own commands."""

from __future__ import annotations

import dataclasses
import logging
import os
import pwd
import shutil
import time
import typing as tp
from pathlib import Path

from hydra_exca.errors import ConfigError, Problem, SubmissionError

from . import arrays, environment, sbatch, scheduler
from .base import Batch, Cluster, JobSpec, Options, Reference, Report, State, Submission
from .inline import process_report

log = logging.getLogger("exca.clusters")
_GONE = Report(State.ENDED)
_FIRST_POLL_S = 1.0  # later polls come less often, up to poll_s
_AGAIN_S = 2.0  # an end is asked for again: the outcome's file may take longer to be seen than the state
_END_S = 60.0  # how long jobs that are cancelled are waited for
_DEFAULT_MAX_ARRAY_SIZE = 1001
_ENOUGH = 8  # what others need no more is handed on from this part of all on
_FEW = 4  # and so is room in the queue
DEFAULT_TIMEOUT_MIN = sbatch.DEFAULT_TIMEOUT_MIN


class SlurmCluster(Cluster):
    """Slurm, asked by its own commands and given scripts that submitit writes."""

    name = "slurm"
    detaches = True

    def log_folder(self, launch: Path) -> Path:
        return sbatch.log_folder(launch, self.options.submitit_folder)

    def check(self, options: tp.Sequence[Options]) -> None:
        for command in (["sbatch", "--version"], scheduler.ping_command()):
            _check_answer(command)
        environment.check(self.options.environment, "hydra_exca.worker")
        for each in options:
            sbatch.check(each)

    def submit(self, batch: Batch) -> Submission:
        return _SlurmSubmission(self, batch)

    def ask(self, references: tp.Sequence[Reference]) -> list[Report]:
        # the launching processes first: one that is gone by now submits nothing after the queue was read
        launching = {r: process_report(r) for r in references if not r.started}
        asked = [r for r in references if r.job or launching.get(r, _GONE).state is not State.PENDING]
        found = _find(asked) if asked else _Found()
        return [_conclude(found, reference, launching.get(reference)) for reference in references]

    def cancel(self, references: tp.Sequence[Reference]) -> None:
        unknown = [reference for reference in references if reference.job is None]
        jobs = [reference.job for reference in references if reference.job]
        jobs += [report.job for report in self.ask(unknown) if report.job] if unknown else []
        if jobs:
            sbatch.run(scheduler.cancel_command(jobs))


class _SlurmSubmission(Submission):
    """Arrays that are submitted as the scheduler has room for them."""

    def __init__(self, cluster: SlurmCluster, batch: Batch) -> None:
        self._cluster = cluster
        self._options = cluster.options
        self._batch = batch
        self._limits = _Limits(cluster.options)
        self._backlog: list[JobSpec] = list(batch.jobs)
        self._arrays: dict[str, int] = {}  # how many jobs of each may run at a time
        self._ids: dict[int, str] = {}
        self._open: dict[int, Reference] = {}
        self._suspects: set[int] = set()
        self._silent = False
        self._interval = min(_FIRST_POLL_S, self._options.poll_s)
        self._next = time.monotonic() + self._interval

    def start(self) -> None:
        self._submit_more()

    @property
    def jobs(self) -> dict[int, str | None]:
        return dict(self._ids)

    def settle(self, number: int) -> None:
        self._open.pop(number, None)

    def step(self) -> dict[int, Report]:
        if time.monotonic() < self._next:
            return {}
        self._submit_more()
        numbers = list(self._open)
        reports = self._cluster.ask([self._open[number] for number in numbers]) if numbers else []
        self._say_whether_it_answers(all(report.state is not State.UNKNOWN for report in reports))
        self._interval = min(self._options.poll_s, 1.5 * self._interval)
        self._next = time.monotonic() + self._interval
        news = {n: report for n, report in zip(numbers, reports, strict=True) if self._is_news(n, report)}
        for number, report in news.items():
            if report.state is State.ENDED:
                self.settle(number)
        self._hand_on()
        return news

    def cancel(self, number: int) -> bool:
        if number not in self._ids:
            return False
        sbatch.run(scheduler.cancel_command([self._ids[number]]))
        return True

    def unstarted(self) -> tp.Sequence[int]:
        return [job.number for job in self._backlog]

    def abandon(self) -> tp.Sequence[int]:
        numbers, self._backlog = self.unstarted(), []
        return numbers

    def withdraw(self) -> tp.Sequence[int]:
        if self._open:
            sbatch.run(scheduler.cancel_command(self._active(), pending=True))
        return self.abandon()

    def end(self) -> tp.Sequence[int]:
        numbers = [*self.abandon(), *self._open]
        if self._open:
            sbatch.run(scheduler.cancel_command(self._active()))
        deadline = time.monotonic() + _END_S
        while self._open and time.monotonic() < deadline:
            asked = list(self._open)
            for number, report in zip(asked, self._cluster.ask([self._open[n] for n in asked]), strict=True):
                if report.state is State.ENDED:
                    self.settle(number)
            time.sleep(_FIRST_POLL_S)
        return numbers

    # submitting

    def _submit_more(self) -> None:
        """As many arrays as there is room for, none that would let more run at a time than may."""
        most = max(1, self._options.array_parallelism)
        spare = most - sum(min(share, self._left(array)) for array, share in self._arrays.items() if self._left(array))
        if not self._backlog or spare < 1:
            return None
        room = self._limits.room(self._in_queue(), len(self._backlog))
        plan = arrays.cut(self._backlog, self._limits.array_size, room)
        submitted: list[str] = []
        for jobs, share in zip(plan, arrays.shares([len(jobs) for jobs in plan], spare), strict=True):
            after = None if share.after is None else submitted[share.after]
            try:
                submitted.append(self._submit(jobs, share.most, after))
            except sbatch.TooManyQueuedError as error:
                if len(jobs) == 1 and not self._open:
                    raise sbatch.refusal(error, jobs[0].options, self._so_far()) from error
                self._limits.learnt = len(self._open) + len(jobs) // 2
                return None if self._open else self._submit_more()
            except SubmissionError as error:
                raise sbatch.refusal(error, jobs[0].options, self._so_far()) from error
        return None

    def _in_queue(self) -> int:
        """How many of its jobs the queue has; what has left its outcome may take seconds to end."""
        done = sbatch.run(scheduler.count_command(str(os.getuid()))) if self._ids and self._limits.count_mine else None
        listed = done.stdout.split() if done is not None and done.returncode == 0 else []
        return max(len(self._open), sum(1 for job in listed if job.partition("_")[0] in self._arrays))

    def _submit(self, jobs: tp.Sequence[JobSpec], most: int, after: str | None) -> str:
        first, options = jobs[0].number, jobs[0].options
        array = sbatch.Array(self._batch.folder, self._batch.module, first, len(jobs), most, options, after)
        job_id = sbatch.submit(array)
        self._arrays[job_id] = most
        for index, job in enumerate(jobs):
            name = f"{job_id}_{index}" if len(jobs) > 1 else job_id
            self._ids[job.number] = name
            self._open[job.number] = Reference(self._batch.token, job.number, name, {}, True, time.time())
        self._backlog = self._backlog[len(jobs) :]
        return job_id

    def _so_far(self) -> str:
        if not self._ids:
            return "nothing was submitted"
        ids = ", ".join(self._arrays)
        return f"{len(self._ids)} of {len(self._batch.jobs)} were submitted before, as {ids}, and go on"

    def _left(self, array: str) -> int:
        return sum(1 for reference in self._open.values() if (reference.job or "").partition("_")[0] == array)

    def _active(self) -> list[str]:
        return [array for array in self._arrays if self._left(array)]

    def _hand_on(self) -> None:
        """Lets arrays have what others need no more of what may run at a time."""
        active = self._active()
        if self._backlog or len(self._arrays) < 2 or not active:
            return
        most = self._options.array_parallelism
        now = [self._arrays[array] for array in active]
        larger = arrays.grown([self._left(array) for array in active], now, most)
        if sum(larger) - sum(now) < max(1, most // _ENOUGH):
            return
        for array, share in zip(active, larger, strict=True):
            if share > self._arrays[array]:
                sbatch.run(scheduler.throttle_command(array, share))
                self._arrays[array] = share

    def _say_whether_it_answers(self, answers: bool) -> None:
        if self._silent and answers:
            log.warning("exca: Slurm answers again")
        elif not self._silent and not answers:
            log.warning("exca: Slurm does not answer; results are taken as they come, and it is asked again")
        self._silent = not answers

    def _is_news(self, number: int, report: Report) -> bool:
        """An end counts when it is seen twice."""
        if report.state is not State.ENDED:
            self._suspects.discard(number)
            return report.stuck
        if number not in self._suspects:
            self._suspects.add(number)
            self._next = min(self._next, time.monotonic() + min(_AGAIN_S, self._options.poll_s))
            return False
        return True


class _Limits:
    """What one array may hold, and how many jobs may be in the queue. ``learnt`` is what sbatch did not refuse."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.learnt: int | None = None
        configuration = sbatch.run(scheduler.configuration_command())
        answered = configuration is not None and configuration.returncode == 0
        self._known = scheduler.read_configuration(configuration.stdout) if configuration and answered else {}
        largest = self._known.get("MaxArraySize", "")
        self.array_size = max(1, int(largest)) if largest.isdecimal() else _DEFAULT_MAX_ARRAY_SIZE
        self._site = self._site_limit()

    @property
    def count_mine(self) -> bool:
        """Whether it matters how many jobs of this launch are in the queue."""
        return self._options.max_queued is not None or self.learnt is not None

    def room(self, mine: int, wanted: int) -> int:
        """For how many more jobs there is room beside ``mine`` of this launch; for none rather than for a few."""
        own = [limit for limit in (self._options.max_queued, self.learnt) if limit is not None]
        room = min([wanted, *(limit - mine for limit in own)])
        if self._site is not None:
            own.append(self._site)
            room = min(room, self._site - self._queued(mine))
        few = max(1, min(own, default=0) // _FEW)
        return room if room >= min(few, wanted) else 0

    def _queued(self, mine: int) -> int:
        done = sbatch.run(scheduler.count_command(str(os.getuid())))
        return mine if done is None or done.returncode != 0 else len(done.stdout.split())

    def _site_limit(self) -> int | None:
        """The association's or the quality's limit, None where none is enforced or none can be read."""
        if "limits" not in self._known.get("AccountingStorageEnforce", ""):
            return None
        answers = [sbatch.run(command) for command in scheduler.limits_commands(_user_name())]
        told = [answer.stdout if answer is not None and answer.returncode == 0 else "" for answer in answers]
        return scheduler.read_limit(told[0], told[1], self._known.get("ClusterName", ""), sbatch.site(self._options))


def _user_name() -> str:
    """The accounting knows users by their names alone."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@dataclasses.dataclass
class _Found:
    """Reports by launch and number, and the ids of the arrays of which anything is known."""

    reports: dict[tuple[str, int], Report] = dataclasses.field(default_factory=dict)
    arrays: set[str] = dataclasses.field(default_factory=set)


def _find(references: tp.Sequence[Reference]) -> _Found | None:
    """What the scheduler lists, None when it cannot be asked."""
    found = _Found()
    for known in ([r for r in references if r.job], [r for r in references if not r.job]):
        rows = _rows(known) if known else []
        if rows is None:
            return None
        _take(found, rows, known)
    return found


def _rows(references: tp.Sequence[Reference]) -> list[scheduler.Row] | None:
    """What queue and accounting list of jobs whose ids are all known, or all unknown; the queue's word comes last."""
    jobs = {reference.job.partition("_")[0] for reference in references if reference.job}
    users = set() if jobs else {str(reference.owner.get("user", os.getuid())) for reference in references}
    queue = sbatch.run(scheduler.queue_command(jobs, users))
    if queue is None or (queue.returncode != 0 and "Invalid job id" not in queue.stderr):
        return None
    rows = scheduler.read_rows(queue.stdout)
    seen = _Found()
    _take(seen, rows, references)
    if any((reference.token, reference.number) not in seen.reports for reference in references):
        since = min(reference.submitted for reference in references)
        accounting = sbatch.run(scheduler.accounting_command(jobs, users, since))
        if accounting is not None and accounting.returncode == 0:
            rows = scheduler.read_accounts(accounting.stdout) + rows
    return rows


def _take(found: _Found, rows: tp.Iterable[scheduler.Row], references: tp.Sequence[Reference]) -> None:
    """Only rows of these launches: their token is in the path of the script. An id alone comes again."""
    tokens = {reference.token for reference in references}
    for row in rows:
        place = row.place
        if place is not None and place[0] in tokens:
            found.reports[place] = row.report()
            found.arrays.add(row.job.partition("_")[0])


def _conclude(found: _Found | None, reference: Reference, launching: Report | None) -> Report:
    if found is None:
        return Report(State.UNKNOWN, "Slurm does not answer")
    report = found.reports.get((reference.token, reference.number))
    if report is not None:
        return report
    if launching is not None and reference.job is None:  # not at the scheduler (yet): its launching process decides
        return launching
    if (reference.job or "").partition("_")[
        0
    ] in found.arrays:  # what is cancelled while it is pending in an array leaves no row, ever
        return Report(State.ENDED, "CANCELLED while it was pending, or forgotten by Slurm", cancelled=True)
    return Report(State.ENDED, "Slurm knows nothing of it (any more)", failed=False)


def look_up(job: str) -> list[scheduler.Row] | None:
    """What Slurm says of anybody's job, by any of its ids: one row, of an array one a task; None if it cannot be asked.

    The controller forgets a job some minutes after its end; the accounting, where there is one, does not.
    """
    shown = sbatch.run(scheduler.show_command(job))
    rows = [] if shown is None else scheduler.read_shown(shown.stdout)
    if rows:
        return rows
    accounted = sbatch.run(scheduler.accounting_command({job}, (), since=time.time()))
    if accounted is not None and accounted.returncode == 0:
        return scheduler.read_rows(accounted.stdout)
    return [] if shown is not None and "Invalid job id" in shown.stderr else None


def _check_answer(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        raise _silent(f"there is no {command[0]!r} on this machine")
    done = sbatch.run(command)
    if done is None:
        raise _silent(f"{' '.join(command)!r} gave no answer in {sbatch.ANSWER_S:g} s")
    if done.returncode != 0 or " is DOWN" in done.stdout:
        said = (done.stderr + done.stdout).strip()
        raise _silent(f"{' '.join(command)!r} ended with status {done.returncode}: {said}")


def _silent(what: str) -> ConfigError:
    return ConfigError(
        "Slurm does not answer; nothing was run.",
        [Problem(f"{what}. Try again, or run on this machine with hydra/launcher/cluster=local", "cluster")],
    )
