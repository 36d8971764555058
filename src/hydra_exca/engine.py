"""The launch: looks up what is there, decides, claims, submits, and collects.

launch = Launch(tasks, program, settings)
launch.survey()     # what would happen; writes nothing
results = launch.run()
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import typing as tp
from pathlib import Path

from . import clusters, paths, worker
from .clusters import State
from .errors import CacheError, CorruptEntryError, ExcaError
from .plan import Action
from .results import Result, stored_error
from .round import Round, Settings, Task
from .status import Mode, Status
from .store import Claim, ClaimState, Entry, Outcome
from .store import files as store_files
from .survey import Standing, Survey, given_up
from .uid import Identity

log = logging.getLogger("exca.launch")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.25
_TELL_S = 60.0  # how often a launch that waits says how far it is
_ASK_OWNERS_S = 2.0  # how often the owners of joined tasks are asked for; they are other launches' to watch


class Launch:
    """One call that asks for many tasks.

    ``computed`` holds what earlier launches of the same object have computed: modes ``force`` and ``retry``
    apply once, so for these it is ``cached``. The launch adds its own.
    """

    def __init__(
        self, tasks: tp.Sequence[Task], program: worker.Program, settings: Settings, computed: set[str] | None = None
    ) -> None:
        self.tasks = tasks
        self.program = program
        self.settings = settings
        self.computed = set() if computed is None else computed
        self._survey = Survey(settings.folder)
        self._first: dict[str, Task] = {}
        for task in tasks:
            self._first.setdefault(_key(task.identity), task)
        self.standings: dict[str, Standing] = {}
        self._rounds: list[Round] = []
        self._tokens: set[str] = set()
        self._how: dict[str, str] = {}
        self._told: set[tuple[str, str]] = set()
        self._waiting: list[Standing] = []
        self._total = 0
        self._asked = self._said = time.monotonic()
        self.finished: tp.Callable[[Result], None] = lambda result: None

    def survey(self) -> list[Standing]:
        """Where each task stands and what would be done: one item a task, the same object for the same identity.

        Raises an error that lists every task whose stored outcome cannot be used. Writes nothing.
        """
        identities = [task.identity for task in self._first.values()]
        self.standings = {_key(s.identity): s for s in self._survey.look(identities, self._mode)}
        self._refuse()
        return [self.standings[_key(task.identity)] for task in self.tasks]

    def look(self) -> list[Standing]:
        """Where each task stands, whatever may be wrong with it. Writes nothing."""
        identities = [task.identity for task in self._first.values()]
        found = {_key(s.identity): s for s in self._survey.look(identities, self._mode)}
        return [found[_key(task.identity)] for task in self.tasks]

    def run(self) -> list[Result]:
        """Submits what is missing, waits for all, and returns one result a task, in order."""
        self.submit()
        with self._giving_up_on_errors():
            self._wait()
        for round_ in self._rounds:
            round_.close()
        return [self.result(task) for task in self.tasks]

    def _wait(self) -> None:
        pause = _Pause()
        left = len(self._waiting)
        while left:
            now = self.poll()
            if now < left:
                pause = _Pause()
            elif now:
                pause.sleep()
            left = now

    def submit(self) -> None:
        """Submits what is missing and does not wait for it."""
        if not self.standings:
            self.survey()
        for standing in self.standings.values():
            log.debug("exca: %s is %s: %s", standing.entry_uid, standing.status, standing.action)
            self._settle_past(standing)
        with self._giving_up_on_errors():
            missing = self._of(Action.RUN, Action.CANCEL_AND_RUN)
            if missing:
                self._start(missing)
        self._waiting = self._of(Action.RUN, Action.JOIN)
        self._total = len(self._waiting)

    def poll(self) -> int:
        """Looks once at what is waited for, markers first, then what the clusters say; returns how many are left."""
        for round_ in self._rounds:
            for standing, report in round_.step():
                self._heed(standing, report, round_.token)
        if time.monotonic() - self._asked > _ASK_OWNERS_S:
            self._watch_joined([standing for standing in self._waiting if standing.action is Action.JOIN])
            self._asked = time.monotonic()
        self._waiting = [standing for standing in self._waiting if not self._collect(standing)]
        if time.monotonic() - self._said > _TELL_S:
            log.info("exca: %d of %d done", self._total - len(self._waiting), self._total)
            self._said = time.monotonic()
        return len(self._waiting)

    @contextlib.contextmanager
    def _giving_up_on_errors(self) -> tp.Iterator[None]:
        """Claims of a process that lives on are nobody else's to take: what was not started is given up."""
        try:
            yield
        except KeyboardInterrupt:
            for round_ in self._rounds:
                log.warning("exca: %s", round_.interrupt())
            raise
        except BaseException:
            for round_ in self._rounds:
                round_.abandon()
            raise

    def is_open(self, task: Task) -> bool:
        """Whether the task is still waited for."""
        return self.standings[_key(task.identity)] in self._waiting

    def has_unstarted(self) -> bool:
        """Whether jobs wait for this process to start them."""
        return any(round_.has_unstarted() for round_ in self._rounds)

    def cancel(self, task: Task) -> None:
        """Asks for the end of the job that computes the task, in whatever launch."""
        standing = self.standings[_key(task.identity)]
        claim = None if standing.entry is None else standing.entry.claim()
        if claim is None or given_up(claim):
            return
        own = any(round_.token == claim.token and round_.cancel(standing) for round_ in self._rounds)
        if not own:
            clusters.get(claim.cluster, clusters.Options()).cancel(self._survey.reference(claim))

    def clear(self) -> None:
        """Forgets the outcomes of the tasks and cancels the jobs that compute them."""
        for standing in self.look():
            entry, claim = standing.entry, standing.entry.claim() if standing.entry else None
            if entry is None:
                continue
            if claim is not None and claim.state is not ClaimState.RELEASED:
                entry.take(claim.next(ClaimState.RELEASED))
                if not given_up(claim) and entry.outcome() is None:
                    self._cancel([claim])
            entry.forget()

    def log_paths(self, task: Task) -> tuple[Path | None, Path | None]:
        """Standard output and error of the task's last attempt, None where it has none yet."""
        entry = self.standings[_key(task.identity)].entry
        claim = None if entry is None else entry.claim()
        if entry is None or claim is None:
            return None, None
        number = claim.number - 1 if claim.state is ClaimState.COMMITTING else claim.number
        return entry.log_paths(number)

    # looking

    def _mode(self, identity: Identity) -> Mode:
        once = self.settings.mode in (Mode.FORCE, Mode.RETRY) and _key(identity) in self.computed
        return Mode.CACHED if once else self.settings.mode

    def _of(self, *actions: Action) -> list[Standing]:
        return [standing for standing in self.standings.values() if standing.action in actions]

    def _refuse(self) -> None:
        """Raises if any task cannot go on, before anything is written."""
        if self._of(Action.RUN, Action.CANCEL_AND_RUN):
            self.settings.folder.check()
        for shelf in {id(s): s for s in map(self._survey.shelf, (t.identity for t in self._first.values()))}.values():
            shelf.check_project(self.settings.project)
        for standing in self._of(Action.REFUSE):
            standing.problem = standing.problem or CacheError(f"{standing.identity.uid()} is {standing.status}")
        cancelled = self._of(Action.CANCEL_AND_RUN)
        for standing, report in zip(cancelled, self._survey.ask(cancelled), strict=True):
            standing.problem = _uncancellable(standing, report)
        bad = [standing for standing in self.standings.values() if standing.problem is not None]
        if bad:
            raise self._refusal(bad)

    def _refusal(self, bad: tp.Sequence[Standing]) -> ExcaError:
        first = bad[0].problem
        lines = [f"  {' '.join(self._first[_key(s.identity)].overrides)}: {s.problem}" for s in bad]
        kind = type(first) if isinstance(first, CacheError) and len({type(s.problem) for s in bad}) == 1 else CacheError
        head = "Nothing was run."
        if self.settings.mode is Mode.READ_ONLY:
            head = "Nothing was run: mode=read-only, and not all tasks have a value."
        return kind("\n".join([head, *lines]))

    # acting

    def _settle_past(self, standing: Standing) -> None:
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
        if standing.status is Status.COMPLETED:
            entry.release(standing.claim)
        else:
            self._lose(standing, standing.gone)
        standing.outcome, owner = entry.outcome(), entry.claim()
        if standing.outcome is None:  # another launch is at it again
            standing.action = Action.JOIN
        elif owner is not None and owner.token == standing.claim.token:
            standing.claim = owner

    def _start(self, missing: tp.Sequence[Standing]) -> None:
        """Claims and submits; what somebody else has claimed meanwhile is joined."""
        self.settings.cluster.check()
        round_ = Round(self.settings, self.program, [(s, self._first[_key(s.identity)]) for s in missing])
        self.settings.folder.create()
        old = [(standing, standing.claim) for standing in missing if standing.action is Action.CANCEL_AND_RUN]
        self._wait_for_uncancellable(old)
        try:
            round_.claim(self._survey)
            self._cancel([claim for standing, claim in old if claim is not None and standing in round_.claimed])
            for standing in missing:
                claimed = standing in round_.claimed
                standing.action = Action.RUN if claimed else Action.JOIN
                standing.outcome = None
                self._how[_key(standing.identity)] = "run" if claimed else "joined"
            if round_.claimed:
                round_.submit()
                log.info("exca: %s", round_)
        except BaseException:
            round_.abandon()
            raise
        self.computed.update(_key(standing.identity) for standing in round_.claimed)
        self._rounds.append(round_)
        self._tokens.add(round_.token)

    def _wait_for_uncancellable(self, old: tp.Sequence[tuple[Standing, Claim | None]]) -> None:
        """What computes in another process's own thread cannot be cancelled: its end is waited for."""
        waiting = [(s, claim) for s, claim in old if claim is not None and claim.cluster in ("inline", "debug")]
        pause = _Pause()
        while waiting:
            left = []
            for standing, claim in waiting:
                assert standing.entry is not None
                now = standing.entry.claim()
                gone = self._survey.ask([standing])[0].state is State.ENDED
                if now is not None and now.token == claim.token and now.state is ClaimState.RUNNING and not gone:
                    left.append((standing, claim))
                elif now is not None and now.token == claim.token:
                    standing.claim = now
            waiting = left
            pause.sleep()

    def _cancel(self, claims: tp.Sequence[Claim]) -> None:
        """Ends the jobs of claims that were taken over, and waits for their end: two never write the same output."""
        references = [self._survey.reference(claim) for claim in claims if claim.cluster not in ("inline", "debug")]
        named = [claim.cluster for claim in claims if claim.cluster not in ("inline", "debug")]
        pairs = [(clusters.get(name, clusters.Options()), each) for name, each in zip(named, references, strict=True)]
        for cluster, reference in pairs:
            cluster.cancel(reference)
        pause = _Pause()
        while pairs:
            pairs = [(c, r) for c, r in pairs if r.started and c.ask([r])[0].state is not State.ENDED]
            pause.sleep()

    def _heed(self, standing: Standing, report: clusters.Report, token: str) -> None:
        """What a cluster says of a job of this launch: it ended, or it waits for a reason worth telling."""
        assert standing.entry is not None
        self._tell(standing, report)
        if report.state is not State.ENDED or self._collect(standing):
            return
        standing.claim = standing.entry.claim()
        if standing.claim is None or standing.claim.token != token:
            standing.action = Action.JOIN  # another launch has taken it over
        else:
            self._lose(standing, report)

    def _collect(self, standing: Standing) -> bool:
        """Takes the outcome and its value, if it is there."""
        assert standing.entry is not None
        if standing.outcome is None:
            try:
                standing.outcome = standing.entry.outcome()
                if standing.outcome is None:
                    return standing.problem is not None
                standing.status = standing.outcome.status
                if standing.status is Status.COMPLETED:
                    standing.value = standing.entry.value(standing.outcome)
            except CacheError as error:
                standing.problem = error
            self.finished(self.result(self._first[_key(standing.identity)]))
        return True

    def _watch_joined(self, joined: tp.Sequence[Standing]) -> None:
        """Whether whoever computes what this launch waits for is still there; if not, it is settled or run here."""
        joined = [standing for standing in joined if not self._collect(standing)]
        for standing in joined:
            assert standing.entry is not None
            standing.claim = standing.entry.claim()
        orphans = [standing for standing in self._orphans(joined) if not self._collect(standing)]
        if self.settings.mode is Mode.READ_ONLY:
            for standing in orphans:
                standing.problem = CacheError(f"{standing.entry_uid} was given up; mode=read-only runs nothing")
        elif orphans:
            log.info("exca: %d tasks were given up by the launch that had them: they are run here", len(orphans))
            self._start(orphans)

    def _orphans(self, joined: tp.Sequence[Standing]) -> list[Standing]:
        """Those that nobody computes any more; a job that its cluster says has failed is noted as failed instead."""
        owned = [s for s in joined if s.claim is not None and not given_up(s.claim)]
        orphans = [standing for standing in joined if standing not in owned]
        for standing, report in zip(owned, self._survey.ask(owned), strict=True):
            self._tell(standing, report)
            if report.state is State.ENDED and not self._collect(standing):
                if report.failed:
                    self._lose(standing, report)
                else:
                    orphans.append(standing)
        return orphans

    def _tell(self, standing: Standing, report: clusters.Report) -> None:
        """Once for each reason: whoever waits for what may never come is told so."""
        entry, claim = standing.entry, standing.claim
        assert entry is not None and claim is not None
        troubled = report.stuck or report.state is State.UNKNOWN
        if not troubled or (claim.token, report.reason) in self._told:
            return
        self._told.add((claim.token, report.reason))
        if report.stuck:
            log.warning("exca: %s waits and may never start: %s (job %s)", entry.uid, report.reason, report.job)
            return
        who = f"a launch on {claim.owner.get('host')} computes it ({claim.cluster})"
        log.warning(
            "exca: waiting for %s: %s, %s. If you know that it is gone, remove %s",
            entry.uid,
            who,
            report.reason,
            entry.path,
        )

    def _lose(self, standing: Standing, report: clusters.Report) -> None:
        """Writes that a job ended without an outcome, unless somebody was quicker."""
        entry, claim = standing.entry, standing.claim
        assert entry is not None and claim is not None
        error = {"kind": "lost", "type": "JobLostError", "message": report.reason, "traceback": ""}
        log_path = self._log_of(entry, claim, report.job or claim.job)
        outcome = Outcome(
            status=Status.FAILED,
            claim=claim.number,
            identity=standing.identity.to_json(),
            error=error,
            ended=time.time(),
            host=claim.owner.get("host"),
            cluster=claim.cluster,
            job=report.job or claim.job,
            token=claim.token,
            log=log_path,
        )
        entry.commit(claim, outcome)

    def _log_of(self, entry: Entry, claim: Claim, job: str | None) -> str | None:
        launch = paths.launch_folder(self.settings.folder.path, claim.token)
        candidates = [*reversed(entry.log_paths(claim.number)), paths.position_log(launch, claim.position)]
        if job is not None:
            candidates += sorted(launch.glob(f"{job}_0_log.*"))
        written = [path for path in candidates if path.exists() and path.stat().st_size]
        return entry.relative_log(written[0]) if written else None

    # results

    def result(self, task: Task) -> Result:
        """What became of a task, once its standing is final."""
        standing = self.standings[_key(task.identity)]
        how = "joined" if standing.action is Action.JOIN else self._how.get(_key(task.identity), "cached")
        if how == "run" and standing.outcome is not None and standing.outcome.token not in self._tokens:
            how = "joined"  # another launch has taken it over
        error = None if standing.status is Status.COMPLETED else stored_error(standing)
        return Result(task, standing, how, standing.value, error)


class _Pause:
    """Waits a little, longer each time."""

    def __init__(self) -> None:
        self._seconds = _FIRST_PAUSE_S

    def sleep(self) -> None:
        time.sleep(self._seconds)
        self._seconds = min(_LONGEST_PAUSE_S, 1.5 * self._seconds)


def _still_corrupt(entry: Entry) -> bool:
    """Whether nobody has mended it since it was looked at."""
    try:
        outcome = entry.outcome()
        if outcome is not None and outcome.status is Status.COMPLETED:
            entry.value(outcome)
    except CorruptEntryError:
        return True
    return False


def _uncancellable(standing: Standing, report: clusters.Report) -> ExcaError | None:
    """An error if the running job is another user's, which is never cancelled, or cannot be asked for."""
    assert standing.claim is not None
    if report.state is State.UNKNOWN:
        return CacheError(f"{standing.entry_uid} is being computed {report.reason}: it cannot be cancelled from here")
    user = standing.claim.owner.get("user")
    if user in (None, os.getuid()):
        return None
    return CacheError(
        f"{standing.identity.uid()} is being computed by {store_files.user_name(int(user))}; their job is not "
        "cancelled. Wait for it (mode=cached), or ask them"
    )


def _key(identity: Identity) -> str:
    return f"{identity.factory},{identity.version}/{identity.digest}"
