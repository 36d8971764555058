"""One distinct task of a launch, from the lookup to its end."""

from __future__ import annotations

import typing as tp
from pathlib import Path

from hydra_exca import clusters
from hydra_exca.clusters import JobEnd
from hydra_exca.errors import ExcaError
from hydra_exca.status import Mode, Status
from hydra_exca.store import Entry, Outcome

from .actions import Action
from .lookup import LookupResult
from .settings import Task


class LaunchedTask:
    """One task as the launch proceeds: claimed or joined, and how it has ended.

    What the lookup found stays as it was, in ``lookup``; everything else follows the launch. ``how`` is the word for
    people: cached, joined, run or not run. ``claim`` is the last one seen, ``ended`` the report on a job that has ended
    and left the task to be submitted again. Outcomes that were stored up to claim ``superseded`` do not count: this
    launch, or the one that is joined, replaces them. ``losses`` has the tokens of the launches, this one or others,
    whose jobs for it were seen to end through no fault of the task, or to vanish.

    ``resources`` are those in which its next job differs from the cluster's options, ``asked`` all that its last has
    asked for. ``attempts`` says what became of those that were retried, and ``failure`` is the outcome of the task
    if it cannot get more. ``resumed_call`` is where the last job has left what the task wants to be called.
    """

    def __init__(self, task: Task, lookup: LookupResult) -> None:
        self.task = task
        self.lookup = lookup
        self.action = lookup.action
        has_nothing_to_retry = lookup.mode is Mode.RETRY and lookup.status is Status.NOT_SUBMITTED
        self.mode = Mode.CACHED if has_nothing_to_retry else lookup.mode
        self.status = lookup.status
        self.claim = lookup.claim
        self.ended: clusters.JobReport | None = lookup.ended
        self.value = lookup.value
        self.problem: ExcaError | None = None
        self.how = "joined" if lookup.action is Action.JOIN else "cached"
        self.outcome: Outcome | None = None
        self.superseded = -1
        self.resources = dict(task.resources)
        self.asked: dict[str, tp.Any] = {}
        self.attempts: list[dict[str, tp.Any]] = []
        self.resumed_call: Path | None = None
        self.failure: Outcome | None = None
        self._retry = ""
        self.losses = {lookup.claim.token} if lookup.claim is not None and self.has_vanished() else set[str]()
        self._entry = lookup.entry
        if lookup.outcome is not None:
            self.use_stored(lookup.outcome)

    @property
    def has_entry(self) -> bool:
        """Whether anything was ever stored or claimed for it."""
        return self._entry is not None

    @property
    def entry(self) -> Entry:
        """Its entry, which is there as soon as it is claimed, joined or reused."""
        assert self._entry is not None, "nothing was stored or claimed yet"
        return self._entry

    @property
    def uid(self) -> str:
        return self.lookup.uid if self._entry is None else self._entry.uid

    @property
    def key(self) -> str:
        return self.task.identity.key

    @property
    def name(self) -> str:
        """Its overrides, or else its uid, for messages."""
        return " ".join(self.task.overrides) or self.uid

    @property
    def is_open(self) -> bool:
        """Whether it has neither an outcome nor a problem yet."""
        return self.outcome is None and self.problem is None

    def has_vanished(self) -> bool:
        """Whether its last job is one that its cluster does not list: that job may be alive."""
        return self.ended is not None and self.ended.end is JobEnd.VANISHED

    def stored_outcome(self) -> Outcome | None:
        """The outcome that is stored now, if it counts."""
        outcome = self.entry.outcome()
        return None if outcome is None or outcome.claim <= self.superseded else outcome

    def has_superseded_outcome(self) -> bool:
        """Whether an outcome that does not count is there, or there again: whoever was to replace it has not."""
        return self.superseded >= 0 and self.entry.outcome() is not None and self.stored_outcome() is None

    def use_stored(self, outcome: Outcome) -> None:
        """Takes a stored outcome as the task's own where that is reused; otherwise it is superseded."""
        if self.action.uses_stored:
            self.outcome = outcome
        else:
            self.superseded = max(self.superseded, outcome.claim)

    def join(self) -> None:
        """Waits for another launch, which has begun to compute it since the lookup."""
        self.action, self.how, self.outcome, self.superseded = Action.JOIN, "joined", None, -1

    def why_again(self) -> str:
        """Why it is submitted again, for messages."""
        job = None if self.claim is None else self.claim.job
        if self.ended is not None:
            job = self.ended.job or job
        if self.ended is None or job is None:
            return "its launch ended before the task started"
        if self.has_vanished():
            return f"its job {job} vanished ({self.ended.words}) and is cancelled, in case it is alive"
        return f"its job {job} ended: {self.ended.explanation}"

    def say_again(self) -> str:
        """That it is submitted again, and how, for messages."""
        retry, self._retry = self._retry, ""
        return f"submitted again{retry}"

    @property
    def num_retries(self) -> int:
        """How often the launch has submitted it again because its job was lost, or needed more."""
        return len(self.attempts)

    def retry(self, report: clusters.JobReport, resources: tp.Mapping[str, tp.Any], description: str) -> None:
        """Lets the launch submit it again with these resources; the message ends with ``description``."""
        claim, self._retry = self.claim, description
        place = {} if claim is None else {"attempt": claim.attempt, "launch": claim.token, "job": claim.job}
        self.attempts.append({**place, "resources": self.asked, "end": report.explanation})
        self.resources |= resources

    def set_entry(self, entry: Entry) -> None:
        self._entry = entry

    def set_outcome(self, outcome: Outcome) -> None:
        """Takes an outcome for its end, and loads the value; raises CacheError if that cannot be read."""
        self.outcome, self.status = outcome, outcome.status
        if outcome.status is Status.COMPLETED:
            self.value = self.entry.load_value(outcome)
