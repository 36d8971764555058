"""The launch: looks up what is there, decides, claims, submits, and collects.

launch = Launch(tasks, program, settings)
launch.survey()     # what would happen; writes nothing
results = launch.run()
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
import typing as tp
from pathlib import Path

from . import clusters, paths, worker
from .clusters import State
from .errors import CacheError, ExcaError, JobLostError, TaskFailedError
from .plan import Action
from .round import Round, Settings, Task
from .status import Mode, Status
from .store import Claim, ClaimState, Entry, Outcome
from .store import files as store_files
from .survey import Standing, Survey
from .uid import Identity

log = logging.getLogger("exca.launch")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.25
_TELL_S = 60.0  # how often a launch that waits says how far it is
_ASK_OWNERS_S = 2.0  # how often the owners of joined tasks are asked for; they are other launches' to watch


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of one task: a value or an error, and whether it was cached, joined or run."""

    task: Task
    standing: Standing
    how: str
    value: tp.Any = None
    error: ExcaError | None = None

    @property
    def entry(self) -> Entry:
        assert self.standing.entry is not None
        return self.standing.entry


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
        self._how: dict[str, str] = {}
        self._unknown: set[str] = set()
        self.finished: tp.Callable[[Result], None] = lambda result: None

    def survey(self) -> list[Standing]:
        """Where each task stands and what would be done: one item a task, the same object for the same identity.

        Raises an error that lists every task whose stored outcome cannot be used. Writes nothing.
        """
        identities = [task.identity for task in self._first.values()]
        self.standings = {_key(s.identity): s for s in self._survey.look(identities, self._mode)}
        self._refuse()
        return [self.standings[_key(task.identity)] for task in self.tasks]

    def run(self) -> list[Result]:
        """Submits what is missing, waits for all, and returns one result a task, in order."""
        if not self.standings:
            self.survey()
        for standing in self.standings.values():
            self._settle_past(standing)
        try:
            missing = self._of(Action.RUN, Action.CANCEL_AND_RUN)
            if missing:
                self._start(missing)
            self._wait()
            for round_ in self._rounds:
                round_.close()
        except KeyboardInterrupt:
            for round_ in self._rounds:
                round_.interrupt()
            raise
        return [self._result(task) for task in self.tasks]

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
        for standing in self._of(Action.CANCEL_AND_RUN):
            standing.problem = _foreign(standing)
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
        if standing.corrupt is not None:
            aside = entry.set_outcome_aside()
            log.warning("%s; it is set aside as %s and computed again", standing.corrupt, aside)
        if standing.gone is not None and standing.status is Status.COMPLETED:
            assert standing.claim is not None
            entry.release(standing.claim)
        elif standing.gone is not None and standing.status is Status.FAILED:
            self._lose(standing, standing.gone)
            standing.outcome = entry.outcome()
        if standing.action in (Action.RUN, Action.CANCEL_AND_RUN):
            standing.claim = entry.claim()

    def _start(self, missing: tp.Sequence[Standing]) -> None:
        """Claims and submits; what somebody else has claimed meanwhile is joined."""
        self.settings.cluster.check()
        round_ = Round(self.settings, self.program, [(s, self._first[_key(s.identity)]) for s in missing])
        self.settings.folder.create()
        self._cancel([standing for standing in missing if standing.action is Action.CANCEL_AND_RUN])
        try:
            round_.claim(self._survey)
            for standing in missing:
                claimed = standing in round_.claimed
                standing.action = Action.RUN if claimed else Action.JOIN
                standing.outcome = None
                self._how[_key(standing.identity)] = "run" if claimed else "joined"
            if round_.claimed:
                round_.submit()
                log.info("exca: %s", round_)
        except BaseException:
            round_.interrupt()
            raise
        self.computed.update(_key(standing.identity) for standing in round_.claimed)
        self._rounds.append(round_)

    def _cancel(self, running: tp.Sequence[Standing]) -> None:
        """Ends jobs of this user that compute what is to be computed anew, and waits for their end."""
        for standing in running:
            assert standing.claim is not None
            cluster = clusters.get(standing.claim.cluster, clusters.Options())
            cluster.cancel(self._survey.reference(standing.claim))
        waiting = [standing for standing in running if standing.claim and standing.claim.state is not ClaimState.QUEUED]
        pause = _Pause()
        while waiting:
            reports = self._survey.ask(waiting)
            waiting = [s for s, r in zip(waiting, reports, strict=True) if r.state is not State.ENDED]
            pause.sleep()

    def _wait(self) -> None:
        """Until every task has an outcome: markers first, then what the clusters say."""
        pause, asked = _Pause(), time.monotonic()
        waiting = self._of(Action.RUN, Action.JOIN)
        total, told = len(waiting), time.monotonic()
        while waiting:
            if time.monotonic() - told > _TELL_S:
                log.info("exca: %d of %d done", total - len(waiting), total)
                told = time.monotonic()
            for round_ in self._rounds:
                for standing, report in round_.step():
                    self._heed(standing, report, round_.token)
            if time.monotonic() - asked > _ASK_OWNERS_S:
                self._watch_joined([standing for standing in waiting if standing.action is Action.JOIN])
                asked = time.monotonic()
            left = [standing for standing in waiting if not self._collect(standing)]
            if len(left) < len(waiting):
                pause = _Pause()
            elif left:
                pause.sleep()
            waiting = left

    def _heed(self, standing: Standing, report: clusters.Report, token: str) -> None:
        """What a cluster says of a job of this launch: it ended, or it waits for a reason worth telling."""
        assert standing.entry is not None
        if report.state is State.PENDING:
            log.warning("%s waits and may never start: %s", standing.identity.uid(), report.reason)
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
            standing.outcome = standing.entry.outcome()
            if standing.outcome is None:
                return False
            standing.status = standing.outcome.status
            try:
                if standing.status is Status.COMPLETED:
                    standing.value = standing.entry.value(standing.outcome)
            except CacheError as error:
                standing.problem = error
            self.finished(self._result(self._first[_key(standing.identity)]))
        return True

    def _watch_joined(self, joined: tp.Sequence[Standing]) -> None:
        """Whether whoever computes what this launch waits for is still there; if not, it is settled or run here."""
        joined = [standing for standing in joined if not self._collect(standing)]
        for standing in joined:
            assert standing.entry is not None
            standing.claim = standing.entry.claim()
        owned = [s for s in joined if s.claim is not None and s.claim.state is not ClaimState.RELEASED]
        orphans = [standing for standing in joined if standing not in owned]
        for standing, report in zip(owned, self._survey.ask(owned), strict=True):
            if report.state is State.UNKNOWN:
                self._say_unknown(standing, report)
            if report.state is not State.ENDED or self._collect(standing):
                continue
            if report.failed:
                self._lose(standing, report)
            else:
                orphans.append(standing)
        orphans = [standing for standing in orphans if not self._collect(standing)]
        if orphans and self.settings.mode is not Mode.READ_ONLY:
            log.info("%d tasks were given up by the launch that had them: they are run here", len(orphans))
            self._start(orphans)

    def _say_unknown(self, standing: Standing, report: clusters.Report) -> None:
        """Once: whoever waits for a job that cannot be asked for is told so."""
        entry, claim = standing.entry, standing.claim
        assert entry is not None and claim is not None
        if claim.token not in self._unknown:
            self._unknown.add(claim.token)
            log.warning(
                "waiting for %s, which a launch on %s computes (%s): %s. If you know that it is gone, remove %s",
                entry.uid,
                claim.owner.get("host"),
                claim.cluster,
                report.reason,
                entry.path,
            )

    def _lose(self, standing: Standing, report: clusters.Report) -> None:
        """Writes that a job ended without an outcome, unless somebody was quicker."""
        entry, claim = standing.entry, standing.claim
        assert entry is not None and claim is not None
        error = {"kind": "lost", "type": "JobLostError", "message": report.reason, "traceback": ""}
        log_path = self._log_of(entry, claim)
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

    def _log_of(self, entry: Entry, claim: Claim) -> str | None:
        launch = paths.launch_folder(self.settings.folder.path, claim.token)
        candidates = [*reversed(entry.log_paths(claim.number)), paths.position_log(launch, claim.position)]
        if claim.job is not None:
            candidates += sorted(launch.glob(f"{claim.job}_0_log.*"))
        written = [path for path in candidates if path.exists() and path.stat().st_size]
        return entry.relative_log(written[0]) if written else None

    # results

    def _result(self, task: Task) -> Result:
        standing = self.standings[_key(task.identity)]
        how = self._how.get(_key(task.identity), "joined" if standing.action is Action.JOIN else "cached")
        error = None if standing.status is Status.COMPLETED else stored_error(standing)
        return Result(task, standing, how, standing.value, error)


class _Pause:
    """Waits a little, longer each time."""

    def __init__(self) -> None:
        self._seconds = _FIRST_PAUSE_S

    def sleep(self) -> None:
        time.sleep(self._seconds)
        self._seconds = min(_LONGEST_PAUSE_S, 1.5 * self._seconds)


def stored_error(standing: Standing) -> ExcaError:
    """The error of a task without a value: what it raised, or how its job was lost."""
    if standing.problem is not None:
        return standing.problem
    entry, outcome = standing.entry, standing.outcome
    assert entry is not None and outcome is not None and outcome.error is not None
    stored = outcome.error
    job: dict[str, tp.Any] = {"factory": standing.identity.factory, "uid": entry.uid}
    log_path = entry.log_of(outcome)
    job.update(job_id=outcome.job, log=log_path)
    log_line = f"\n  log: {log_path}" if log_path else ""
    if stored["kind"] == "lost":
        tail = _tail(log_path)
        message = f"{entry.uid}: its job ({outcome.cluster} {outcome.job}) ended without a result: {stored['message']}"
        return JobLostError(f"{message}{log_line}{tail}", state=stored["message"], **job)
    message = f"{entry.uid} raised {stored['type']}: {stored['message']}{log_line}\n{stored['traceback']}"
    kept = {"type": stored["type"], "text": stored["message"], "traceback": stored["traceback"]}
    return TaskFailedError(message, **kept, **job)


def _tail(path: str | None, lines: int = 10) -> str:
    """The end of a log, indented, for a message."""
    try:
        text = Path(path).read_text(errors="replace") if path else ""
    except OSError:
        return ""
    return "".join(f"\n    | {line}" for line in text.splitlines()[-lines:])


def _foreign(standing: Standing) -> ExcaError | None:
    """An error if the running job is another user's: such a job is never cancelled."""
    assert standing.claim is not None
    user = standing.claim.owner.get("user")
    if user in (None, os.getuid()):
        return None
    return CacheError(
        f"{standing.identity.uid()} is being computed by {store_files.user_name(int(user))}; their job is not "
        "cancelled. Wait for it (mode=cached), or ask them"
    )


def _key(identity: Identity) -> str:
    return f"{identity.factory},{identity.version}/{identity.digest}"
