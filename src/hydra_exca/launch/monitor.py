"""Waiting for the tasks of a launch: outcomes as they come, jobs that end without one, the owners of joined tasks."""

from __future__ import annotations

import functools
import logging
import time
import typing as tp
from collections import Counter

from hydra_exca import clusters
from hydra_exca.clusters import JobState
from hydra_exca.errors import CacheError, ExcaError
from hydra_exca.job import lost
from hydra_exca.polling import Pause
from hydra_exca.status import Mode, Status
from hydra_exca.store import CacheFolder, Claim, ClaimState, Outcome
from hydra_exca.text import name_some

from .launched_task import LaunchedTask
from .lookup import JobEffect, Lookup, effect_of_end, is_given_up
from .progress import Progress
from .results import lost_job_error
from .retries import Retries
from .waits import RecordedWaits, WaitedTask, wait_error

if tp.TYPE_CHECKING:
    from .submission import Submission

log = logging.getLogger("exca.launch")
_PAUSE_PER_READ = 4.0  # of the time that reading outcomes takes, which is long on a network file system
_PAUSE_PER_FULL_READ = 20.0
_MOST_LOSSES = 1  # of jobs for one task: after another one, it is an error
_SHOWN_TASKS = 3
_ASK_OWNERS_S = 2.0  # how often the owners of joined tasks are asked for at first, where that costs a scheduler


class Monitor:
    """Follows the tasks that a launch waits for, until they end.

    ``run_again`` is called with tasks that have not failed and that nobody computes any more, ``on_end`` with each task
    that has ended, ``on_poll`` after each poll. Slurm is asked about the jobs of other launches at least every
    ``poll_s`` seconds. ``retries`` decides which tasks are run again although their job was lost, or needed more.
    """

    def __init__(
        self,
        folder: CacheFolder,
        lookup: Lookup,
        run_again: tp.Callable[[list[LaunchedTask]], None],
        on_end: tp.Callable[[LaunchedTask], None],
        on_poll: tp.Callable[[], None],
        poll_s: float,
        retries: Retries,
    ) -> None:
        self._folder = folder
        self._retries = retries
        self._lookup = lookup
        self._run_again = run_again
        self._on_end = on_end
        self._on_poll = on_poll
        self.submissions: list[Submission] = []
        self._waiting: dict[LaunchedTask, None] = {}
        self._joined: dict[LaunchedTask, None] = {}
        self._first_claim: dict[LaunchedTask, int] = {}  # the number of the claim at which waiting began
        self._said: set[tuple[str, str]] = set()
        self._total = 0
        self._poll_s = poll_s
        self._interval = min(_ASK_OWNERS_S, poll_s)
        self._read_s = self._next_full_read = 0.0
        self._owners_asked = time.monotonic()

    def watch(self, own: tp.Sequence[LaunchedTask], joined: tp.Sequence[LaunchedTask]) -> None:
        """Waits for these tasks from now on. Joined ones are computed by another launch, as far as is known."""
        before = len(self._waiting)
        for task in (*own, *joined):
            self._waiting[task] = task.ended = None
            self._first_claim[task] = _number(task.claim)
        self._total += len(self._waiting) - before
        for task in own:
            self._joined.pop(task, None)
        self._joined.update(dict.fromkeys(joined))
        self._interval = min(_ASK_OWNERS_S, self._poll_s)

    def is_watched(self, task: LaunchedTask) -> bool:
        """Whether the task is still waited for."""
        return task in self._waiting

    def wait(self) -> None:
        """Returns when all tasks have ended."""
        pause = Pause()
        left = len(self._waiting)
        with RecordedWaits() as waits:
            while left:
                self.record_waits(waits, self._joined)
                now = self.poll(is_full=False)
                if now < left:
                    pause = Pause()
                elif now:
                    pause.sleep(_PAUSE_PER_READ * self._read_s)
                left = now

    def record_waits(self, waits: RecordedWaits, tasks: tp.Collection[LaunchedTask]) -> None:
        """Records which of these tasks others compute; ends those that would wait for what waits for them."""
        joined = {WaitedTask(task.entry.path, task.key): task for task in tasks if task in self._joined}
        for waited in waits.record(joined):
            task = joined[waited]
            self._joined.pop(task, None)
            self.fail_task(task, wait_error(task.uid))

    def poll(self, is_full: bool = True) -> int:
        """Asks the clusters once and then reads outcomes; returns how many tasks are left.

        With ``is_full`` False, for callers that poll in a loop, most polls read only the outcomes that are due next.
        """
        lost_tasks: list[LaunchedTask] = []
        for submission in self.submissions:
            reports = submission.poll()
            _say_restarts(reports)
            lost_tasks += [t for t, report in reports if self._handle_report(t, report, submission)]
        self._run_uncollected(lost_tasks)
        if time.monotonic() - self._owners_asked > self._interval:
            self._check_joined()
            self._owners_asked = time.monotonic()
        self._collect_outcomes(is_full or time.monotonic() >= self._next_full_read)
        self._on_poll()
        return len(self._waiting)

    def progress(self, reused: int) -> Progress:
        """How far a launch is that reuses as many tasks besides."""
        running, queued = 0, Counter[str]()
        for submission in self.submissions:
            running_there, queued_there = submission.count_tasks()
            running += running_there
            queued += queued_there
        joined = sum(task in self._waiting for task in self._joined)
        left = len(self._waiting)
        return Progress(self._total, self._total - left, running, queued.total(), joined, reused, queued)

    def collect_outcome(self, task: LaunchedTask) -> bool:
        """Reads the outcome and the value of a task, if they are there; whether the task has ended."""
        if task.is_open:
            try:
                outcome = self._awaited_outcome(task)
                if outcome is None:
                    return False
                task.set_outcome(outcome)
            except CacheError as error:
                task.problem = error
            self._end(task)
        return True

    def fail_task(self, task: LaunchedTask, problem: ExcaError) -> None:
        """Ends a task without an outcome."""
        task.problem = problem
        self._end(task)

    def record_lost_job(self, task: LaunchedTask, claim: Claim, report: clusters.JobReport) -> None:
        """Stores that a job ended without an outcome, or restores the value that it was to replace.

        Writes nothing if another launch has done so.
        """
        lost.record_lost_job(task.entry, claim, self._describe_loss(task, claim, report))

    def keep_failure(self, task: LaunchedTask, claim: Claim, report: clusters.JobReport) -> None:
        """Keeps the failure of a task that is run again, in case it cannot get more. Its log gets Slurm's words."""
        loss = self._describe_loss(task, claim, report)
        task.failure = loss if report.end.is_exhausted else None

    def give_up_lost_job(self, task: LaunchedTask, claim: Claim, report: clusters.JobReport) -> Outcome | None:
        """Gives up a task whose job is gone through no fault of the task; the loss, None if it was taken over.

        No outcome is stored. The value that was to be replaced is restored.
        """
        loss = self._describe_loss(task, claim, report)
        if lost.give_up_lost_job(task.entry, claim, loss):
            return loss
        owner = task.entry.current_claim()
        is_given_up = owner is not None and owner.token == claim.token and owner.state is ClaimState.RELEASED
        return loss if is_given_up else None

    def end_lost_task(self, task: LaunchedTask, claim: Claim, report: clusters.JobReport) -> None:
        """Gives up a task whose job is gone through no fault of the task, and ends it with that error."""
        loss = self.give_up_lost_job(task, claim, report)
        if loss is not None:
            self._fail_lost_task(task, loss)
        elif not self.collect_outcome(task):  # another launch has taken it over
            self._joined[task] = None

    def _describe_loss(self, task: LaunchedTask, claim: Claim, report: clusters.JobReport) -> Outcome:
        lost.append_slurm_output(task.entry, claim, report)
        identity, code = task.task.identity.to_json(), self._lookup.code_digest(claim)
        return lost.describe_lost_job(task.entry, claim, identity, report, code)

    def _fail_lost_task(self, task: LaunchedTask, outcome: Outcome) -> None:
        task.status = Status.NOT_SUBMITTED
        self.fail_task(task, lost_job_error(task.entry, outcome, task.task.identity.factory, is_stored=False))

    def _collect_outcomes(self, is_full: bool) -> None:
        began = time.monotonic()
        due = self._waiting if is_full else (task for submission in self.submissions for task in submission.due_tasks())
        for task in list(due):
            if self.collect_outcome(task):
                self._waiting.pop(task, None)
        self._read_s = time.monotonic() - began
        if is_full:
            self._next_full_read = time.monotonic() + _PAUSE_PER_FULL_READ * self._read_s

    def _awaited_outcome(self, task: LaunchedTask) -> Outcome | None:
        """The outcome that is waited for, or the loss of the job that was to replace an older one; None if neither."""
        entry, first_claim = task.entry, self._first_claim.get(task, 0)
        stored = entry.outcome()
        if stored is None:
            return None
        is_own = any(submission.holds(task) for submission in self.submissions)
        if is_own and task.mode is Mode.CACHED:
            return stored  # nothing was to be replaced: another thread was quicker
        owner = None if stored.claim >= first_claim else entry.current_claim()
        if owner is None or owner.number < first_claim:  # all was removed meanwhile, and computed again
            return stored if stored.claim > task.superseded else None
        loss = lost.read_lost_outcome(entry, task.claim.token if task.claim else "", first_claim)
        loss = loss or lost.read_lost_outcome(entry, owner.token, first_claim)
        if loss is None and is_own:
            task.superseded, task.mode = stored.claim, Mode.FORCE  # another launch has given it up
        return loss or task.stored_outcome()

    def _end(self, task: LaunchedTask) -> None:
        self._waiting.pop(task, None)
        for submission in self.submissions:
            if submission.holds(task):
                submission.mark_ended(task)
        self._on_end(task)

    def _run_uncollected(self, tasks: tp.Sequence[LaunchedTask]) -> None:
        left = [task for task in tasks if not self.collect_outcome(task)]
        if left:
            self._run_again(left)

    def _handle_report(self, task: LaunchedTask, report: clusters.JobReport, submission: Submission) -> bool:
        """Acts on a cluster's report on a job of this launch; True if another job has to compute the task."""
        if task.claim is not None:
            self._warn_if_stuck(task, task.claim, report)
        if report.state is not JobState.ENDED or self.collect_outcome(task):
            return False
        claim = task.claim = task.entry.current_claim()
        is_lost = claim is None or claim.token != submission.token or claim.state is ClaimState.RELEASED
        if claim is None or is_lost or _is_of_another_job(claim, report):
            self._joined[task] = None
            return False
        saved = functools.partial(self._lookup.has_checkpoint, task.entry, claim)
        others_began = not self._is_at_fault(claim, report) and submission.has_begun(task)
        effect = effect_of_end(claim, report, others_began, saved)
        is_counted = effect is JobEffect.LOSS or (effect is JobEffect.VANISHED and self._retries.counts)
        is_lost_again = self._is_lost_again(task, claim, effect) or is_counted
        return self._runs_again(task, claim, report, effect, is_lost_again)

    def _is_at_fault(self, claim: Claim, report: clusters.JobReport) -> bool:
        """Whether a task counts as one that its job began first: where retries count, no other start may be free.

        The time may have been used up by the tasks before it.
        """
        is_running = claim.state is ClaimState.RUNNING and report.end is not clusters.JobEnd.OUT_OF_TIME
        return is_running and self._retries.covers(report.end)

    def _runs_again(
        self, task: LaunchedTask, claim: Claim, report: clusters.JobReport, effect: JobEffect, is_lost_again: bool
    ) -> bool:
        """Whether another job has to compute a task whose job has ended; ends the task if not."""
        is_over = effect is JobEffect.FAILURE or is_lost_again
        is_retried = is_over and self._retries.prepare(task, report)
        if is_retried:
            self.keep_failure(task, claim, report)
        if is_retried or not is_over:
            task.ended = report
            return True
        if effect is JobEffect.FAILURE:
            self.record_lost_job(task, claim, report)
        elif task.failure is not None and claim.state is ClaimState.QUEUED:  # refused, or cancelled before it began
            log.warning("exca: %s: not run again with more: %s", task.name, report.explanation)
            lost.record_lost_job(task.entry, claim, task.failure)
        else:
            self.end_lost_task(task, claim, report)
        return False

    def _is_lost_again(self, task: LaunchedTask, claim: Claim, effect: JobEffect) -> bool:
        """Counts a job that is gone through no fault of the task; whether that has happened to another one before."""
        if effect not in (JobEffect.LOSS, JobEffect.VANISHED):
            return False
        task.losses.add(claim.token)
        return len(task.losses) > _MOST_LOSSES

    def _check_joined(self) -> None:
        """Checks the owners of joined tasks; a task without an owner has failed, or is run again."""
        joined = [task for task in self._joined if not self.collect_outcome(task)]
        for task in joined:
            task.claim = task.entry.current_claim()
        if any(task.claim is not None and task.claim.cluster == "slurm" for task in joined):
            self._interval = min(self._poll_s, 1.5 * self._interval)
        orphans = self._find_orphans(joined)
        self._joined = dict.fromkeys(task for task in joined if task not in orphans)
        self._run_uncollected(orphans)

    def _find_orphans(self, joined: tp.Sequence[LaunchedTask]) -> list[LaunchedTask]:
        """The tasks that nobody computes any more; ends those that have failed with their job, or lost it again."""
        claims = {task: task.claim for task in joined if task.claim is not None}
        owned = {task: claim for task, claim in claims.items() if not is_given_up(task.entry, claim)}
        orphans = [task for task in joined if task not in owned and not self._has_lost_job(task)]
        reports = self._lookup.ask_clusters(list(owned.values()))
        for (task, claim), report in zip(owned.items(), reports, strict=True):
            self._warn_if_stuck(task, claim, report)
            if report.state is not JobState.ENDED or self.collect_outcome(task):
                continue
            effect = effect_of_end(claim, report)
            if self._runs_again(task, claim, report, effect, self._is_lost_again(task, claim, effect)):
                orphans.append(task)
        return orphans

    def _has_lost_job(self, task: LaunchedTask) -> bool:
        """Ends a task whose job another launch has found lost, if it was this launch's, or not the first one."""
        claim = task.claim
        loss = None if claim is None else lost.read_lost_outcome(task.entry, claim.token, self._first_claim[task])
        if claim is None or loss is None:
            return False
        is_own = any(submission.token == claim.token for submission in self.submissions)
        if not is_own and not self._is_lost_again(task, claim, JobEffect.LOSS):
            return False
        if not self.collect_outcome(task):
            self._fail_lost_task(task, loss)
        return True

    def _warn_if_stuck(self, task: LaunchedTask, claim: Claim, report: clusters.JobReport) -> None:
        """Warns of a job that may never start, or whose state nobody knows; once for each reason."""
        is_troubled = report.stuck or report.state is JobState.UNKNOWN
        if not is_troubled or (claim.token, report.reason) in self._said:
            return
        self._said.add((claim.token, report.reason))
        if report.stuck:
            job = f"job {report.job}; scancel ends it"
            log.warning("exca: %s waits and may never start: %s (%s)", task.uid, report.reason, job)
            return
        who = f"a launch on {claim.owner.get('host')} computes it ({claim.cluster})"
        remedy = f"If you know that it is gone, remove {task.entry.path}"
        log.warning("exca: waiting for %s: %s, %s. %s", task.uid, who, report.reason, remedy)


def _say_restarts(reports: tp.Sequence[tuple[LaunchedTask, clusters.JobReport]]) -> None:
    """Logs which tasks wait in the queue again; those for the same reason in one line."""
    restarts: dict[str, list[str]] = {}
    for task, report in reports:
        if report.state is JobState.PENDING and report.words:
            restarts.setdefault(report.words, []).append(f"{task.name} (job {report.job})")
    for reason, names in restarts.items():
        log.info("exca: %s, and queued again by Slurm: %s", reason, name_some(names, _SHOWN_TASKS))


def _is_of_another_job(claim: Claim, report: clusters.JobReport) -> bool:
    """Whether a job that was submitted twice by accident runs under another id than the one the launch was given."""
    return claim.state is ClaimState.RUNNING and report.job is not None and claim.job != report.job


def _number(claim: Claim | None) -> int:
    return 0 if claim is None else claim.number
