"""The launch: looks up what is there, decides, claims, submits, and collects.

launch = Launch(tasks, program, settings)
launch.plan_tasks()     # what would happen; writes nothing
results = launch.run()
"""

from __future__ import annotations

import collections
import contextlib
import functools
import logging
import signal
import threading
import typing as tp

from hydra_exca import clusters, files
from hydra_exca.clusters import JobEnd, JobState
from hydra_exca.errors import CacheError, ConfigError, CorruptEntryError, ExcaError, NotRunError, SubmissionError
from hydra_exca.job.enclosing import enclosing_tasks, use_result
from hydra_exca.job.lost import record_lost_job
from hydra_exca.status import Mode, OnFailure, OnInterrupt, Status
from hydra_exca.store import Claim, ClaimState, Entry, FactoryFolder, own_calls
from hydra_exca.text import count_noun, name_some

from . import cancellation
from .actions import Action
from .code_changes import CodeChanges, CodeCheck
from .launched_task import LaunchedTask
from .lookup import JobEffect, Lookup, LookupResult, effect_of_end, is_given_up
from .monitor import Monitor
from .progress import Progress
from .results import Result, describe_earlier_failure, stored_error
from .retries import Retries
from .settings import Settings, Task
from .waits import RecordedWaits, WaitedTask, wait_error, would_wait_for_itself

if tp.TYPE_CHECKING:
    from hydra_exca.job.attempt import Program

    from .submission import Submission

log = logging.getLogger("exca.launch")
_SHOWN_TASKS = 5


class Launch:
    """One call that asks for many tasks.

    ``computed`` has the keys of what earlier launches of the same object have computed: modes ``force`` and ``retry``
    apply once, so for these it is ``cached``. The launch adds its own. ``said`` are the messages that are given once
    and that launches of the same object have given. ``on_result`` is called with the result of each task that is
    waited for, as it comes, ``on_poll`` after each poll. ``code_changes`` is what the last lookup found of different
    code, None if nothing.
    """

    def __init__(
        self,
        tasks: tp.Sequence[Task],
        program: Program,
        settings: Settings,
        computed: set[str] | None = None,
        said: set[str] | None = None,
    ) -> None:
        self.tasks = tasks
        self.program = program
        self.settings = settings
        self.computed = set() if computed is None else computed
        self.code_changes: CodeChanges | None = None
        self.is_detached = False
        self.on_result: tp.Callable[[Result], None] = lambda result: None
        self.on_poll: tp.Callable[[], None] = lambda: None
        self._said = set() if said is None else said
        self._lookup = Lookup(settings.folder)
        self._code_check = CodeCheck(settings, self._lookup.code_digest)
        self._distinct: dict[str, Task] = {}
        for task in tasks:
            self._distinct.setdefault(task.identity.key, task)
        self._launched: dict[str, LaunchedTask] = {}
        self._retries = Retries(settings)
        self._monitor = Monitor(
            settings.folder,
            self._lookup,
            self._run_again,
            self._handle_end,
            lambda: self.on_poll(),
            settings.cluster.options.poll_s,
            self._retries,
        )
        self._failed: LaunchedTask | None = None

    def plan_tasks(self) -> list[LookupResult]:
        """The lookup result of each task, with what would be done; tasks of the same identity share one.

        Raises an error that lists every task whose stored outcome cannot be used. Writes nothing.
        """
        results = self._look_up()
        self._check(results)
        self._warn_of_code_changes(results.values())
        self._say_whose_results(results.values())
        self._launched = {key: self._launched_task(self._distinct[key], result) for key, result in results.items()}
        return [self._launched[task.identity.key].lookup for task in self.tasks]

    def _launched_task(self, task: Task, result: LookupResult) -> LaunchedTask:
        """The task, to be run with more if the lookup is the first to see that its job has had too little."""
        if result.action is Action.RAISE and result.outcome is None and result.ended is not None:
            again = LaunchedTask(task, result._replace(status=Status.NOT_SUBMITTED, action=Action.RUN))
            if self._retries.prepare(again, result.ended):
                return again
        return LaunchedTask(task, result)

    def look_up(self) -> list[LookupResult]:
        """The lookup result of each task, also where the launch would have to refuse it. Writes nothing."""
        results = self._look_up()
        return [results[task.identity.key] for task in self.tasks]

    def run(self) -> list[Result]:
        """Submits what is missing, waits for all, and returns one result a task, in order."""
        self.submit()
        return self.wait()

    def wait(self) -> list[Result]:
        """Waits for all that was submitted or joined, and returns one result a task, in order."""
        with self._giving_up_on_errors():
            self._monitor.wait()
        for submission in self._monitor.submissions:
            submission.close()
        return [self.result(task) for task in self.tasks]

    def submit(self) -> None:
        """Submits what is missing and does not wait for it."""
        if not self._launched:
            self.plan_tasks()
        files.clear_linked()
        for folder in self._factory_folders():
            folder.record_remote(self.settings.project)
        for launched in self._launched.values():
            log.debug("exca: %s is %s: %s", launched.uid, launched.status, launched.action)
            self._record_found(launched)
        with self._giving_up_on_errors():
            missing = self.missing()
            self._monitor.watch([], self._with_action(Action.JOIN))
            for launched in self._with_action(Action.RAISE):
                self._failed = self._failed or launched
            if missing and not self._is_stopped():
                _say_why_again([launched for launched in missing if launched.ended is not None])
                self._submit_tasks(missing)
            else:
                self._stop(missing)

    def poll(self) -> int:
        """Polls once for the tasks that are waited for; returns how many are left."""
        computes = isinstance(self.settings.cluster, clusters.InlineCluster)
        translated = files.disk_errors_translated(self.settings.folder.path)
        with self._giving_up_on_errors() if computes else translated:
            return self._monitor.poll()

    def record_wait(self, waits: RecordedWaits, task: Task) -> None:
        """Records that the task is waited for, if others compute it; ends it if that waits for what waits here."""
        self._monitor.record_waits(waits, [self._launched[task.identity.key]])

    def missing(self) -> list[LaunchedTask]:
        """The tasks that are to run."""
        return self._with_action(Action.RUN, Action.CANCEL_AND_RUN)

    def is_open(self, task: Task) -> bool:
        """Whether the task is still waited for."""
        return self._monitor.is_watched(self._launched[task.identity.key])

    def open_count(self) -> int:
        """How many tasks are still waited for."""
        return sum(map(self._monitor.is_watched, self._launched.values()))

    def has_unstarted(self) -> bool:
        """Whether jobs wait for this process to start them."""
        return any(submission.has_unstarted() for submission in self._monitor.submissions)

    def progress(self) -> Progress:
        """How many of the tasks that are waited for have ended, run and are queued."""
        return self._monitor.progress(len(self._with_action(Action.REUSE)))

    def open_submissions(self) -> list[str]:
        """The submissions that this launch still waits for, in words."""
        return [str(submission) for submission in self._monitor.submissions if submission.is_open()]

    def result(self, task: Task) -> Result:
        """The result of a task so far; an open one has neither a value nor an error."""
        launched = self._launched[task.identity.key]
        outcome, how = launched.outcome, launched.how
        tokens = {submission.token for submission in self._monitor.submissions}
        is_here = isinstance(self.settings.cluster, clusters.InlineCluster)
        if outcome is not None and not (is_here and outcome.token in tokens):  # what it computes itself is observed
            use_result(self.settings.folder.path, outcome.used)
        if how == "run" and outcome is not None and outcome.token not in tokens:
            how = "joined"  # another launch has taken it over
        error = launched.problem
        if error is None and outcome is not None and launched.status is not Status.COMPLETED:
            note = describe_earlier_failure(outcome, self.settings.option_prefix) if how == "cached" else ""
            error = stored_error(launched.entry, outcome, task.identity.factory, note)
        entry = launched.entry if launched.has_entry else None
        return Result(task, how, launched.status, launched.uid, entry, outcome, launched.value, error)

    def entry(self, task: Task) -> Entry | None:
        """The entry of the task, None if nothing was ever stored or claimed for it."""
        launched = self._launched[task.identity.key]
        return launched.entry if launched.has_entry else None

    # ending it early

    @contextlib.contextmanager
    def _giving_up_on_errors(self) -> tp.Iterator[None]:
        """Gives up tasks that were not started: nobody else may take the claims of a process that is alive."""
        try:
            with files.disk_errors_translated(self.settings.folder.path):
                yield
        except KeyboardInterrupt:
            self._interrupt()
            raise
        except BaseException:
            for submission in self._monitor.submissions:
                submission.give_up_unstarted()
            raise

    def _interrupt(self) -> None:
        """Detaches from the jobs or cancels them, as the settings say, or else as is usual on the cluster."""
        detaches = self.settings.cluster.detaches
        if self.settings.on_interrupt is not None:
            detaches = self.settings.on_interrupt is OnInterrupt.DETACH
        if not detaches:
            with _without_interrupts():
                cancelled = self.cancel_all()
                if cancelled:
                    log.warning("exca: %s cancelled", count_noun(cancelled, "task is", "tasks are"))
            return
        self.is_detached = True
        not_started = self.detach()
        if not_started:
            log.warning("exca: %s not started, and given up", count_noun(not_started, "task was", "tasks were"))

    def detach(self) -> int:
        """Leaves the jobs to their cluster; returns how many tasks have no job yet, and are given up."""
        left = [launched for submission in self._monitor.submissions for launched in submission.detach()]
        for launched in left:
            self._mark_not_run(launched, "was not submitted: the queue had no room for it")
        return len(left)

    def give_up_unstarted(self, problem: ExcaError) -> None:
        """Gives up the tasks whose jobs cannot be started, and ends them with ``problem``."""
        for submission in self._monitor.submissions:
            for launched in submission.give_up_unstarted():
                self._monitor.fail_task(launched, problem)

    def cancel_all(self) -> int:
        """Cancels all jobs of this launch, gives up their tasks, and returns the number of tasks."""
        return sum(submission.cancel_all() for submission in self._monitor.submissions)

    def cancel(self, task: Task) -> None:
        """Cancels the job that computes the task, of this launch or another."""
        launched = self._launched[task.identity.key]
        claim = launched.entry.current_claim() if launched.has_entry else None
        if claim is None or is_given_up(launched.entry, claim):
            return
        submissions = self._monitor.submissions
        if any(submission.token == claim.token and submission.cancel_task(launched) for submission in submissions):
            return
        cancellation.check_ours(self._lookup, [(launched.entry, claim)])
        is_alone = cancellation.has_no_other_task(self._lookup, claim, {launched.entry.path})
        # a job of several tasks sees that the claim is gone, and ends the task
        self._monitor.end_lost_task(launched, claim, clusters.JobReport(JobState.ENDED, "CANCELLED", JobEnd.REMOVED))
        if is_alone:
            clusters.get_cluster(claim.cluster, clusters.Options()).cancel_jobs([self._lookup.job_reference(claim)])

    def clear(self) -> None:
        """Removes the outcomes of the tasks and cancels the jobs that compute them."""
        entries = [result.entry for result in self._look_up().values() if result.entry is not None]
        owned = [(entry, claim) for entry in entries if (claim := entry.current_claim()) is not None]
        cancellation.check_ours(self._lookup, (pair for pair in owned if _is_computed(*pair)))
        owned = [(entry, claim) for entry, claim in owned if claim.state is not ClaimState.RELEASED or claim.lost]
        for entry, claim in owned:
            entry.publish_claim(claim.next(ClaimState.RELEASED, lost=()))  # what is believed lost may not come back
        cancellation.cancel_vanished_jobs(self._lookup, [(entry, claim, None) for entry, claim in owned])
        cancellation.cancel_jobs(self._lookup, [pair for pair in owned if _is_computed(*pair)])
        for entry in entries:
            entry.remove_outcome()

    # planning

    def _factory_folders(self) -> tp.Iterable[FactoryFolder]:
        return {self._lookup.factory_folder(task.identity): None for task in self._distinct.values()}

    def _look_up(self) -> dict[str, LookupResult]:
        identities = [task.identity for task in self._distinct.values()]
        results = self._lookup.look_up(identities, self._choose_mode)
        self.code_changes = self._code_check.find_changes(results)
        return {result.identity.key: result for result in results}

    def _choose_mode(self, result: LookupResult) -> Mode:
        if result.identity.key not in self.computed:
            return self._code_check.choose_mode(result)
        return Mode.CACHED if self.settings.mode in (Mode.FORCE, Mode.RETRY) else self.settings.mode

    def _with_action(self, *actions: Action) -> list[LaunchedTask]:
        return [launched for launched in self._launched.values() if launched.action in actions]

    def _check(self, results: tp.Mapping[str, LookupResult]) -> None:
        """Raises if any task cannot go on, before anything is written."""
        actions = {result.action for result in results.values()}
        if actions & {Action.RUN, Action.CANCEL_AND_RUN}:
            self.settings.folder.check_writable()
        for folder in self._factory_folders():
            folder.check_project(self.settings.project)
        problems = self._find_problems(results)
        if problems:
            raise self._refusal(problems, results)
        if self.code_changes is not None and self.code_changes.is_refused:
            nothing = "Nothing of this batch" if self.computed else "Nothing"  # earlier ones may have run
            raise self.code_changes.error(lambda result: self._overrides(result.identity.key), nothing)

    def _find_problems(self, results: tp.Mapping[str, LookupResult]) -> dict[str, ExcaError]:
        """Why tasks cannot go on, by key."""
        problems = {}
        for key, result in results.items():
            problem = result.problem
            if result.action is Action.REFUSE:
                problem = problem or CacheError(f"{result.identity.uid()} is {result.status}")
            elif self._would_wait_for_itself(result):
                problem = wait_error(result.uid)
            elif result.action is Action.CANCEL_AND_RUN and result.claim is not None and result.running is not None:
                problem = cancellation.why_not_cancelled(self._lookup, result.uid, result.claim, result.running)
            if problem is not None:
                problems[key] = problem
        return problems

    def _would_wait_for_itself(self, result: LookupResult) -> bool:
        waits = result.action is Action.CANCEL_AND_RUN or (result.action is Action.JOIN and self.settings.waits)
        if not waits or result.entry is None:
            return False
        return would_wait_for_itself(WaitedTask(result.entry.path, result.identity.key), enclosing_tasks())

    def _refusal(self, problems: tp.Mapping[str, ExcaError], results: tp.Mapping[str, LookupResult]) -> ExcaError:
        """The error for all tasks that cannot go on; what several have in common is in it once."""
        kinds = {type(problem) for problem in problems.values()}
        kind = kinds.pop() if len(kinds) == 1 else CacheError
        head = "Nothing was run."
        if self.settings.mode is Mode.READ_ONLY:
            head = "Nothing was run: mode=read-only, and not all tasks have a value."
        alike: dict[str, list[str]] = collections.defaultdict(list)  # the tasks, by their problem without their uid
        for key, problem in problems.items():
            alike[str(problem).replace(results[key].uid, "").strip()].append(key)
        lines = [
            f"  {name_some([self._overrides(key) for key in keys])}: {problems[keys[0]] if len(keys) == 1 else text}"
            for text, keys in alike.items()
        ]
        return (kind if issubclass(kind, CacheError) else CacheError)("\n".join([head, *lines]))

    def _overrides(self, key: str) -> str:
        return " ".join(self._distinct[key].overrides)

    def _say_whose_results(self, results: tp.Iterable[LookupResult]) -> None:
        """Says, once, which other users have computed stored results that are used: they are believed."""
        used = [result.outcome for result in results if result.action.uses_stored]
        writers = collections.Counter(outcome.writer for outcome in used if outcome is not None)
        for writer, count in writers.items():
            if writer is not None and f"writer {writer}" not in self._said:
                self._said.add(f"writer {writer}")
                noun = count_noun(count, "stored result was", "stored results were")
                log.info("exca: %s computed by %s", noun, files.user_name(writer))

    def _warn_of_code_changes(self, results: tp.Iterable[LookupResult]) -> None:
        """Says which results are of different code, and of which that is not known; once for each task."""
        changes = None if self.code_changes is None else self.code_changes.without(lambda r: _code_key(r) in self._said)
        if changes is not None:
            self._said.update(_code_key(case.result) for case in changes.cases)
            if changes.is_rerun:
                log.info("exca: %s", changes)
            elif self.settings.warns_once:
                _warn_once(str(changes), self.settings.code)
            else:
                log.warning("exca: %s", changes)
        unknown = [r for r in self._code_check.find_unknown(results) if _code_key(r) not in self._said]
        if unknown:
            self._said.update(map(_code_key, unknown))
            log.warning("exca: %s", self._code_check.explain_unknown(len(unknown)))

    # running

    def _record_found(self, launched: LaunchedTask) -> None:
        """Acts on the lookup: stores a lost job as a failed outcome, and sets a corrupt outcome aside."""
        found = launched.lookup
        if found.entry is not None and found.corrupt is not None and _is_still_corrupt(found.entry):
            aside = found.entry.set_outcome_aside()
            log.warning("%s; it is set aside as %s and computed again", found.corrupt, aside)
        if found.ended is not None and found.claim is not None:
            if found.status.is_final:
                self._record_end(launched, found.claim, found.ended)
            elif launched.num_retries:
                self._monitor.keep_failure(launched, found.claim, found.ended)

    def _record_end(self, launched: LaunchedTask, claim: Claim, ended: clusters.JobReport) -> None:
        """Stores how a job that the lookup found has ended, or restores the value that it was to replace."""
        entry, comes_back = launched.entry, launched.lookup.status is Status.COMPLETED
        effect = effect_of_end(claim, ended)
        if comes_back and (not entry.has_previous() or effect in (JobEffect.NOT_REACHED, JobEffect.VANISHED)):
            entry.release_claim(claim)
        elif comes_back and effect is JobEffect.LOSS:
            self._monitor.give_up_lost_job(launched, claim, ended)
        else:
            self._monitor.record_lost_job(launched, claim, ended)
        outcome, owner = entry.outcome(), entry.current_claim()
        if outcome is None:
            launched.join()
            return
        launched.use_stored(outcome)
        if owner is not None and owner.token == claim.token:
            launched.claim = owner

    def _submit_tasks(self, missing: tp.Sequence[LaunchedTask]) -> None:
        """Claims and submits tasks; joins those that another launch has claimed meanwhile."""
        from .submission import Submission  # with all that jobs need: a launch that finds everything starts without it

        submission = Submission(self.settings, self.program, missing, len(self._with_action(Action.REUSE)))
        self.settings.folder.create()
        owned = [(task.entry, task.claim, task.ended) for task in missing if task.has_entry and task.claim is not None]
        cancellation.cancel_vanished_jobs(self._lookup, owned)
        to_cancel = [launched for launched in missing if launched.action is Action.CANCEL_AND_RUN]
        cancellation.wait_for_processes(self._lookup, to_cancel)
        claims = {launched: launched.claim for launched in to_cancel}
        try:
            submission.claim_entries(self._lookup)
            superseded = [(launched.entry, claims[launched]) for launched in to_cancel if submission.holds(launched)]
            cancellation.cancel_jobs(self._lookup, [(entry, claim) for entry, claim in superseded if claim])
            self._watch_claimed(missing, submission)
            if submission.claimed:
                submission.submit()
                log.info("exca: %s", submission)
            else:
                own_calls.end_call(submission.token)
        except BaseException:
            submission.give_up_unstarted()
            raise
        finally:
            self._monitor.submissions.append(submission)

    def _watch_claimed(self, missing: tp.Sequence[LaunchedTask], submission: Submission) -> None:
        """Waits for the claimed tasks as this launch's own, and for the others as those of another launch."""
        for launched in missing:
            is_own = submission.holds(launched)
            launched.action, launched.how = (Action.RUN, "run") if is_own else (Action.JOIN, "joined")
            if is_own:  # an earlier outcome is moved aside
                launched.superseded = -1
        self.computed.update(launched.key for launched in submission.claimed)
        self._monitor.watch(submission.claimed, [task for task in missing if not submission.holds(task)])

    def _run_again(self, orphans: list[LaunchedTask]) -> None:
        """Submits tasks again whose job or launch ended, through no fault of theirs, without an outcome."""
        if self.settings.mode is Mode.READ_ONLY:
            for launched in orphans:
                problem = CacheError(f"{launched.uid} was given up; mode=read-only runs nothing")
                self._monitor.fail_task(launched, problem)
        elif self._is_stopped():
            self._skip_after_failure(orphans)
        else:
            _say_why_again(orphans)
            for launched in orphans:
                if not launched.has_superseded_outcome():  # moved aside once; the next attempt finds its own outcome
                    launched.mode = Mode.CACHED
            self._submit_failed([launched for launched in orphans if launched.failure is not None])
            lost = [launched for launched in orphans if launched.failure is None]
            if lost:
                self._submit_tasks(lost)

    def _submit_failed(self, failed: list[LaunchedTask]) -> None:
        """Submits tasks with more than they had; if the cluster refuses that, they have failed as they did before."""
        try:
            if failed:
                self._submit_tasks(failed)
        except (SubmissionError, ConfigError) as error:
            log.warning("exca: not run again with more: %s", error)
            for launched in failed:
                claim = launched.entry.current_claim()
                if launched.failure is not None and claim is not None and claim.state is not ClaimState.QUEUED:
                    record_lost_job(launched.entry, claim, launched.failure)

    # failures

    def _is_stopped(self) -> bool:
        return self._failed is not None and self.settings.on_failure is not OnFailure.CONTINUE

    def _handle_end(self, launched: LaunchedTask) -> None:
        result = self.result(launched.task)
        self.on_result(result)
        if result.error is None or isinstance(result.error, NotRunError) or self._failed is not None:
            return
        self._failed = launched
        if self._is_stopped():
            cancels = self.settings.on_failure is OnFailure.CANCEL
            submissions = self._monitor.submissions
            stopped = [s.cancel_unstarted() if cancels else s.give_up_unstarted() for s in submissions]
            self._stop([task for tasks in stopped for task in tasks])

    def _stop(self, not_started: tp.Sequence[LaunchedTask]) -> None:
        """Ends the tasks that are not started because another one has failed, and says so."""
        self._skip_after_failure(not_started)
        if self._failed is None or not not_started:
            return
        left, prefix = self.open_count(), self.settings.option_prefix
        log.warning(
            "exca: %s failed, and on_failure=%s: %s %s%s. %smode=retry runs what failed and what was not started, "
            "%son_failure=continue only what was not started",
            self._failed.name,
            self.settings.on_failure,
            count_noun(len(not_started), "task was", "tasks were"),
            "cancelled before the start" if self.settings.on_failure is OnFailure.CANCEL else "not started",
            f", {left} {'goes' if left == 1 else 'go'} on" if left else "",
            prefix,
            prefix,
        )

    def _skip_after_failure(self, tasks: tp.Sequence[LaunchedTask]) -> None:
        """Ends tasks that must not run because another one has failed."""
        for launched in tasks:
            assert self._failed is not None
            why = f"{self._failed.name} failed, and on_failure={self.settings.on_failure}"
            self._mark_not_run(launched, f"was not run: {why}")

    def _mark_not_run(self, launched: LaunchedTask, why: str) -> None:
        launched.status, launched.how = Status.NOT_SUBMITTED, "not run"
        problem = NotRunError(f"{launched.uid} {why}", factory=launched.task.identity.factory, uid=launched.uid)
        self._monitor.fail_task(launched, problem)


def _say_why_again(tasks: tp.Sequence[LaunchedTask]) -> None:
    for launched in tasks[:_SHOWN_TASKS]:
        log.info("exca: %s: %s; %s", launched.name, launched.why_again(), launched.say_again())
    if len(tasks) > _SHOWN_TASKS:
        log.info("exca: %d more tasks are submitted again", len(tasks) - _SHOWN_TASKS)


@contextlib.contextmanager
def _without_interrupts() -> tp.Iterator[None]:
    """Ignores further interrupts, which would leave jobs half cancelled and their tasks failed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: log.warning("exca: the jobs are being cancelled"))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _is_computed(entry: Entry, claim: Claim) -> bool:
    """Whether somebody computes under this claim."""
    return not is_given_up(entry, claim) and entry.outcome() is None


def _is_still_corrupt(entry: Entry) -> bool:
    """Whether nobody has repaired the entry since the lookup."""
    try:
        outcome = entry.outcome()
        if outcome is not None and outcome.status is Status.COMPLETED:
            entry.load_value(outcome)
    except CorruptEntryError:
        return True
    return False


@functools.cache
def _warn_once(changes: str, code: str | None) -> None:
    """Warns of changed code once in a process that launches objects one by one, and again if ``code`` has changed."""
    log.warning("exca: %s", changes)


def _code_key(result: LookupResult) -> str:
    """The key of the message that a task's result is of different code."""
    return f"other code: {result.identity.key}"
