"""The launch: looks up what is there, decides, claims, submits, and collects.

launch = Launch(tasks, program, settings)
launch.survey()     # what would happen; writes nothing
results = launch.run()
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import typing as tp
from pathlib import Path

from hydra_exca import clusters
from hydra_exca.clusters import JobState
from hydra_exca.errors import CacheError, CorruptEntryError, ExcaError, NotRunError
from hydra_exca.identity.uid import Identity
from hydra_exca.status import Mode, OnFailure, OnInterrupt, Status
from hydra_exca.store import Claim, ClaimState, Entry
from hydra_exca.text import counted

from . import cancellation
from .code_changes import CodeChanges, CodeCheck
from .lookup import Lookup, LookupResult, is_given_up, is_to_blame
from .monitor import Monitor
from .plan import Action
from .results import Result, stored_error
from .settings import Settings, Task

if tp.TYPE_CHECKING:
    from hydra_exca.job.worker import Program

    from .submission import Submission

log = logging.getLogger("exca.launch")


class Launch:
    """One call that asks for many tasks.

    ``computed`` holds what earlier launches of the same object have computed: modes ``force`` and ``retry``
    apply once, so for these it is ``cached``. The launch adds its own. ``told`` is what launches of the same object
    have said that is said once. ``finished`` is called with the result of each task that is waited for, as it comes.
    ``stale`` is what of other code the last look has found, None if nothing.
    """

    def __init__(
        self,
        tasks: tp.Sequence[Task],
        program: Program,
        settings: Settings,
        computed: set[str] | None = None,
        told: set[str] | None = None,
    ) -> None:
        self.tasks = tasks
        self.program = program
        self.settings = settings
        self.computed = set() if computed is None else computed
        self.stale: CodeChanges | None = None
        self._told = set() if told is None else told
        self._survey = Lookup(settings.folder)
        self._code = CodeCheck(settings, self._survey.code)
        self._first: dict[str, Task] = {}
        for task in tasks:
            self._first.setdefault(_key(task.identity), task)
        self.standings: dict[str, LookupResult] = {}
        poll_s = settings.cluster.options.poll_s
        self._watch = Monitor(settings.folder, self._survey, self._run_again, self._arrived, poll_s)
        self._how: dict[str, str] = {}
        self._failed: Result | None = None
        self.is_detached = False
        self.finished: tp.Callable[[Result], None] = lambda result: None

    def survey(self) -> list[LookupResult]:
        """Where each task stands and what would be done: one item a task, the same object for the same identity.

        Raises an error that lists every task whose stored outcome cannot be used. Writes nothing.
        """
        self.standings = self._look()
        self._refuse()
        self._tell_of_other_code()
        return [self.standings[_key(task.identity)] for task in self.tasks]

    def look(self) -> list[LookupResult]:
        """Where each task stands, whatever may be wrong with it. Writes nothing."""
        found = self._look()
        return [found[_key(task.identity)] for task in self.tasks]

    def run(self) -> list[Result]:
        """Submits what is missing, waits for all, and returns one result a task, in order."""
        self.submit()
        with self._giving_up_on_errors():
            self._watch.wait()
        for round_ in self._watch.rounds:
            round_.close()
        return [self.result(task) for task in self.tasks]

    def submit(self) -> None:
        """Submits what is missing and does not wait for it."""
        if not self.standings:
            self.survey()
        for standing in self.standings.values():
            log.debug("exca: %s is %s: %s", standing.entry_uid, standing.status, standing.action)
            self._settle_past(standing)
        with self._giving_up_on_errors():
            missing = self._of(Action.RUN, Action.CANCEL_AND_RUN)
            self._watch.expect([], self._of(Action.JOIN))
            self._heed_stored_failures()
            if missing and not self._stops():
                self._start(missing)
            else:
                self._leave(missing)

    def poll(self) -> int:
        """Looks once at what is waited for; returns how much is left."""
        return self._watch.poll()

    @contextlib.contextmanager
    def _giving_up_on_errors(self) -> tp.Iterator[None]:
        """Claims of a process that lives on are nobody else's to take: what was not started is given up."""
        try:
            yield
        except KeyboardInterrupt:
            self._interrupt()
            raise
        except BaseException:
            for round_ in self._watch.rounds:
                round_.abandon()
            raise

    def _interrupt(self) -> None:
        """Leaves the jobs or ends them, as the settings say, or else as is usual on the cluster."""
        detaches = self.settings.cluster.detaches
        if self.settings.on_interrupt is not None:
            detaches = self.settings.on_interrupt is OnInterrupt.DETACH
        if not detaches:
            with _undisturbed():
                log.warning("exca: %s cancelled", counted(self.cancel_all(), "task is", "tasks are"))
            return
        self.is_detached = True
        is_given_up = self.detach()
        if is_given_up:
            log.warning("exca: %s not started, and given up", counted(is_given_up, "task was", "tasks were"))

    def is_open(self, task: Task) -> bool:
        """Whether the task is still waited for."""
        return self._watch.is_open(self.standings[_key(task.identity)])

    def has_unstarted(self) -> bool:
        """Whether jobs wait for this process to start them."""
        return any(round_.has_unstarted() for round_ in self._watch.rounds)

    def open_jobs(self) -> list[str]:
        """What this launch has submitted and still waits for, in words."""
        return [str(round_) for round_ in self._watch.rounds if round_.is_open()]

    def detach(self) -> int:
        """Leaves the jobs to their cluster; returns how many tasks have none yet, and are given up."""
        left = [standing for round_ in self._watch.rounds for standing in round_.detach()]
        for standing in left:
            why = f"{standing.entry_uid} was not submitted: the queue had no room for it"
            self._leave_one(standing, NotRunError(why, factory=standing.identity.factory, uid=standing.entry_uid))
        return len(left)

    def cancel_all(self) -> int:
        """Ends every job of this launch, gives their tasks up, and returns how many there were."""
        return sum(round_.end() for round_ in self._watch.rounds)

    def cancel(self, task: Task) -> None:
        """Asks for the end of the job that computes the task, in whatever launch."""
        standing = self.standings[_key(task.identity)]
        claim = None if standing.entry is None else standing.entry.current_claim()
        if standing.entry is None or claim is None or is_given_up(claim):
            return
        if any(round_.token == claim.token and round_.cancel(standing) for round_ in self._watch.rounds):
            return
        if cancellation.has_no_other_task(self._survey, claim, {standing.entry.path}):
            clusters.get_cluster(claim.cluster, clusters.Options()).cancel_jobs([self._survey.reference(claim)])
        else:  # its job sees that the claim is gone, and ends the task
            standing.claim = claim
            self._watch.lose(standing, clusters.JobReport(JobState.ENDED, "CANCELLED", cancelled=True))

    def clear(self) -> None:
        """Forgets the outcomes of the tasks and cancels the jobs that compute them."""
        cancelled: list[tuple[Entry, Claim]] = []
        found = {id(standing): standing for standing in self.look()}
        for standing in found.values():
            entry, claim = standing.entry, standing.entry.current_claim() if standing.entry else None
            if entry is None:
                continue
            if claim is not None and claim.state is not ClaimState.RELEASED:
                entry.publish_claim(claim.next(ClaimState.RELEASED))
                if not is_given_up(claim) and entry.outcome() is None:
                    cancelled.append((entry, claim))
        cancellation.end_owner(self._survey, cancelled)
        for standing in found.values():
            if standing.entry is not None:
                standing.entry.remove_outcome()

    def log_paths(self, task: Task) -> tuple[Path | None, Path | None]:
        """Standard output and error of the task's last attempt, None where it has none yet."""
        entry = self.standings[_key(task.identity)].entry
        claim = None if entry is None else entry.current_claim()
        if entry is None or claim is None:
            return None, None
        number = claim.number - 1 if claim.state is ClaimState.COMMITTING else claim.number
        return entry.log_paths(number)

    # looking

    def _look(self) -> dict[str, LookupResult]:
        identities = [task.identity for task in self._first.values()]
        found = self._survey.look(identities, self._mode)
        self.stale = self._code.stale(found)
        return {_key(standing.identity): standing for standing in found}

    def _mode(self, standing: LookupResult) -> Mode:
        if _key(standing.identity) not in self.computed:
            return self._code.mode(standing)
        return Mode.CACHED if self.settings.mode in (Mode.FORCE, Mode.RETRY) else self.settings.mode

    def _of(self, *actions: Action) -> list[LookupResult]:
        return [standing for standing in self.standings.values() if standing.action in actions]

    def _refuse(self) -> None:
        """Raises if any task cannot go on, before anything is written."""
        if self._of(Action.RUN, Action.CANCEL_AND_RUN):
            self.settings.folder.check_writable()
        for shelf in {id(s): s for s in map(self._survey.shelf, (t.identity for t in self._first.values()))}.values():
            shelf.check_project(self.settings.project)
        for standing in self._of(Action.REFUSE):
            standing.problem = standing.problem or CacheError(f"{standing.identity.uid()} is {standing.status}")
        cancelled = self._of(Action.CANCEL_AND_RUN)
        for standing, report in zip(cancelled, self._survey.ask(cancelled), strict=True):
            standing.problem = cancellation.why_not_cancelled(standing, report)
        bad = [standing for standing in self.standings.values() if standing.problem is not None]
        if bad:
            raise self._refusal(bad)
        if self.stale is not None and self.stale.is_refused:
            nothing = "Nothing of this batch" if self.computed else "Nothing"  # earlier ones may have run
            raise self.stale.error(lambda standing: " ".join(self._first[_key(standing.identity)].overrides), nothing)

    def _tell_of_other_code(self) -> None:
        """Says what comes from other code, and of what that cannot be told; once of each task."""
        stale = None if self.stale is None else self.stale.but(lambda standing: _code_key(standing) in self._told)
        if stale is not None:
            self._told.update(_code_key(case.standing) for case in stale.cases)
            log.log(logging.INFO if stale.is_rerun else logging.WARNING, "exca: %s", stale)
        unknown = [s for s in self._code.unknown(self.standings.values()) if _code_key(s) not in self._told]
        if unknown:
            self._told.update(map(_code_key, unknown))
            log.warning("exca: %s", self._code.why_unknown(len(unknown)))

    def _refusal(self, bad: tp.Sequence[LookupResult]) -> ExcaError:
        first = bad[0].problem
        lines = [f"  {' '.join(self._first[_key(s.identity)].overrides)}: {s.problem}" for s in bad]
        kind = type(first) if isinstance(first, CacheError) and len({type(s.problem) for s in bad}) == 1 else CacheError
        head = "Nothing was run."
        if self.settings.mode is Mode.READ_ONLY:
            head = "Nothing was run: mode=read-only, and not all tasks have a value."
        return kind("\n".join([head, *lines]))

    # acting

    def _settle_past(self, standing: LookupResult) -> None:
        """Writes down what the survey found: a lost job becomes a failed outcome, what is corrupt is set aside."""
        entry = standing.entry
        if entry is None:
            return
        if standing.corrupt is not None and _still_corrupt(entry):
            aside = entry.set_outcome_aside()
            log.warning("%s; it is set aside as %s and computed again", standing.corrupt, aside)
        if standing.gone is None or not standing.status.final:
            return
        assert standing.claim is not None
        comes_back = standing.status is Status.COMPLETED
        if comes_back and not (entry.has_previous() and is_to_blame(standing.claim, standing.gone)):
            entry.release_claim(standing.claim)
        else:
            self._watch.lose(standing, standing.gone)
        standing.outcome, owner = entry.outcome(), entry.current_claim()
        if standing.outcome is None:  # another launch is at it again
            standing.action = Action.JOIN
        elif owner is not None and owner.token == standing.claim.token:
            standing.claim = owner

    def _start(self, missing: tp.Sequence[LookupResult]) -> None:
        """Claims and submits; what somebody else has claimed meanwhile is joined."""
        from .submission import Submission  # with all that jobs need: a launch that finds everything starts without it

        round_ = Submission(self.settings, self.program, [(s, self._first[_key(s.identity)]) for s in missing])
        self.settings.folder.create()
        old = [standing for standing in missing if standing.action is Action.CANCEL_AND_RUN]
        cancellation.wait_for_processes(self._survey, old)
        claims = {id(standing): standing.claim for standing in old}
        try:
            round_.claim(self._survey)
            taken = [(s.entry, claims[id(s)]) for s in old if round_.holds(s)]
            cancellation.end_owner(self._survey, [(entry, claim) for entry, claim in taken if entry and claim])
            self._take_note(missing, round_)
            if round_.claimed:
                round_.submit()
                log.info("exca: %s", round_)
        except BaseException:
            round_.abandon()
            raise
        finally:
            self._watch.rounds.append(round_)

    def _take_note(self, missing: tp.Sequence[LookupResult], round_: Submission) -> None:
        """What was claimed is waited for as this launch's own, the rest as what another one computes."""
        joined = [standing for standing in missing if not round_.holds(standing)]
        for standing in missing:
            standing.pass_over()
            if round_.holds(standing):  # and has made room
                standing.passed_over = -1
            standing.action = Action.RUN if round_.holds(standing) else Action.JOIN
            self._how[_key(standing.identity)] = "run" if round_.holds(standing) else "joined"
        self.computed.update(_key(standing.identity) for standing in round_.claimed)
        self._watch.expect(round_.claimed, joined)

    def _run_again(self, orphans: list[LookupResult]) -> None:
        """What lost its job through no fault of its own, or its launch."""
        if self.settings.mode is Mode.READ_ONLY:
            for standing in orphans:
                problem = CacheError(f"{standing.entry_uid} was given up; mode=read-only runs nothing")
                self._watch.fail(standing, problem)
        elif self._stops():
            self._leave(orphans)
        else:
            lost = counted(len(orphans), "task has", "tasks have")
            log.info("exca: %s lost the job before its turn, or the launch, and will run again", lost)
            for standing in orphans:
                if not standing.is_passed_over():  # room was made once: what a further attempt finds is its own
                    standing.mode = Mode.CACHED
            self._start(orphans)

    # failures

    def _stops(self) -> bool:
        return self._failed is not None and self.settings.on_failure is not OnFailure.CONTINUE

    def _heed_stored_failures(self) -> None:
        for standing in self._of(Action.RAISE):
            self._failed = self._failed or self.result(self._first[_key(standing.identity)])

    def _arrived(self, standing: LookupResult) -> None:
        result = self.result(self._first[_key(standing.identity)])
        self.finished(result)
        if result.error is None or isinstance(result.error, NotRunError) or self._failed is not None:
            return
        self._failed = result
        if self.settings.on_failure is not OnFailure.CONTINUE:
            withdraw = self.settings.on_failure is OnFailure.CANCEL
            for round_ in self._watch.rounds:
                self._leave(round_.withdraw() if withdraw else round_.abandon())

    def _leave(self, standings: tp.Sequence[LookupResult]) -> None:
        """Tasks that are not to run since another one has failed."""
        for standing in standings:
            assert self._failed is not None
            name = " ".join(self._failed.task.overrides) or self._failed.standing.entry_uid
            why = f"{standing.entry_uid} was not run: {name} failed, and on_failure={self.settings.on_failure}"
            self._leave_one(standing, NotRunError(why, factory=standing.identity.factory, uid=standing.entry_uid))

    def _leave_one(self, standing: LookupResult, error: NotRunError) -> None:
        standing.status, standing.action = Status.NOT_SUBMITTED, Action.RUN
        self._how[_key(standing.identity)] = "not run"
        self._watch.fail(standing, error)

    # results

    def result(self, task: Task) -> Result:
        """What became of a task so far: of one that is still open, neither a value nor an error."""
        standing = self.standings[_key(task.identity)]
        how = "joined" if standing.action is Action.JOIN else self._how.get(_key(task.identity), "cached")
        tokens = {round_.token for round_ in self._watch.rounds}
        if how == "run" and standing.outcome is not None and standing.outcome.token not in tokens:
            how = "joined"  # another launch has taken it over
        is_open = standing.outcome is None and standing.problem is None
        error = None if is_open or standing.status is Status.COMPLETED else stored_error(standing)
        return Result(task, standing, how, standing.value, standing.problem or error)


@contextlib.contextmanager
def _undisturbed() -> tp.Iterator[None]:
    """Holds further interrupts off: what is half cancelled would be left as failed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: log.warning("exca: the jobs are being cancelled"))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _still_corrupt(entry: Entry) -> bool:
    """Whether nobody has mended it since it was looked at."""
    try:
        outcome = entry.outcome()
        if outcome is not None and outcome.status is Status.COMPLETED:
            entry.load_value(outcome)
    except CorruptEntryError:
        return True
    return False


def _code_key(standing: LookupResult) -> str:
    """That a task was told to be of other code, among what is told once."""
    return f"other code: {_key(standing.identity)}"


def _key(identity: Identity) -> str:
    return identity.key
