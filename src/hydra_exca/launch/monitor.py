"""What a launch waits for: outcomes as they come, jobs that end without one, and the owners of joined tasks."""

from __future__ import annotations

import logging
import time
import typing as tp

from hydra_exca import clusters
from hydra_exca.clusters import JobState
from hydra_exca.errors import CacheError, ExcaError
from hydra_exca.job import lost
from hydra_exca.polling import Pause
from hydra_exca.status import Mode, Status
from hydra_exca.store import CacheFolder, Claim, ClaimState, Outcome

from .lookup import Lookup, LookupResult, is_given_up, is_to_blame

if tp.TYPE_CHECKING:
    from .submission import Submission

log = logging.getLogger("exca.launch")
_PAUSE_PER_LOOK = 4.0  # of the time that looking takes, which is long on a network file system
_PAUSE_PER_LOOK_AT_ALL = 20.0
_TELL_S = 60.0  # how often a launch that waits says how far it is
_ASK_OWNERS_S = 2.0  # how often the owners of joined tasks are asked for at first, where that costs a scheduler


class Monitor:
    """Follows the standings that a launch waits for, to their outcomes.

    ``again`` is called with those that nobody computes any more and that have not failed, ``arrived`` with each that
    has come to its end. Slurm is asked for the jobs of other launches every ``poll_s`` seconds at the least.
    """

    def __init__(
        self,
        folder: CacheFolder,
        survey: Lookup,
        again: tp.Callable[[list[LookupResult]], None],
        arrived: tp.Callable[[LookupResult], None],
        poll_s: float,
    ) -> None:
        self._folder = folder
        self._survey = survey
        self._again = again
        self._arrived = arrived
        self.rounds: list[Submission] = []
        self._waiting: dict[int, LookupResult] = {}
        self._joined: dict[int, LookupResult] = {}
        self._since: dict[int, int] = {}  # the claim at which waiting began
        self._told: set[tuple[str, str]] = set()
        self._total = 0
        self._poll_s = poll_s
        self._interval = min(_ASK_OWNERS_S, poll_s)
        self._look_s = self._look_at_all = 0.0
        self._asked = self._said = time.monotonic()

    def expect(self, own: tp.Sequence[LookupResult], joined: tp.Sequence[LookupResult]) -> None:
        """What is waited for from now on; what was joined is another launch's, or to be found out about."""
        before = len(self._waiting)
        self._waiting.update((id(standing), standing) for standing in (*own, *joined))
        self._total += len(self._waiting) - before
        self._since.update((id(each), each.claim.number if each.claim else 0) for each in (*own, *joined))
        for standing in own:
            self._joined.pop(id(standing), None)
        self._joined.update((id(standing), standing) for standing in joined)
        self._interval = min(_ASK_OWNERS_S, self._poll_s)

    def is_open(self, standing: LookupResult) -> bool:
        """Whether it is still waited for."""
        return id(standing) in self._waiting

    def poll(self, is_all: bool = True) -> int:
        """Looks once, at what the clusters say and then for outcomes; returns how many are left.

        ``is_all`` False is for who looks again and again: each time where one is to come next, now and then at all.
        """
        again: list[LookupResult] = []
        for round_ in self.rounds:
            for standing, report in round_.step():
                again += self._heed(standing, report, round_)
        self._run_again(again)
        if time.monotonic() - self._asked > self._interval:
            self._watch_joined()
            self._asked = time.monotonic()
        self._look(is_all or time.monotonic() >= self._look_at_all)
        if time.monotonic() - self._said > _TELL_S:
            log.info("exca: %d of %d done", self._total - len(self._waiting), self._total)
            self._said = time.monotonic()
        return len(self._waiting)

    def _look(self, is_all: bool) -> None:
        """Takes the outcomes that are there."""
        began = time.monotonic()
        due = self._waiting.values() if is_all else (standing for round_ in self.rounds for standing in round_.due())
        for standing in list(due):
            if self.collect(standing):
                self._waiting.pop(id(standing), None)
        self._look_s = time.monotonic() - began
        if is_all:
            self._look_at_all = time.monotonic() + _PAUSE_PER_LOOK_AT_ALL * self._look_s

    def wait(self) -> None:
        """Returns when everything has come to its end."""
        pause = Pause()
        left = len(self._waiting)
        while left:
            now = self.poll(is_all=False)
            if now < left:
                pause = Pause()
            elif now:
                pause.sleep(_PAUSE_PER_LOOK * self._look_s)
            left = now

    def collect(self, standing: LookupResult) -> bool:
        """Takes the outcome and its value, if it is there."""
        assert standing.entry is not None
        if standing.outcome is None and standing.problem is None:
            try:
                standing.outcome = self._ending(standing)
                if standing.outcome is None:
                    return False
                standing.status = standing.outcome.status
                if standing.status is Status.COMPLETED:
                    standing.value = standing.entry.load_value(standing.outcome)
            except CacheError as error:
                standing.problem = error
            self._over(standing)
        return True

    def _ending(self, standing: LookupResult) -> Outcome | None:
        """The outcome that is waited for, or how the job was lost that was to replace what is there; None so far."""
        entry, since = standing.entry, self._since.get(id(standing), 0)
        assert entry is not None
        stored = entry.outcome()
        if stored is None:
            return None
        is_own = any(round_.holds(standing) for round_ in self.rounds)
        if is_own and standing.mode is Mode.CACHED:
            return stored  # nothing was to be replaced: another thread was quicker
        owner = None if stored.claim >= since else entry.current_claim()
        if owner is None or owner.number < since:  # all was removed meanwhile, and computed anew
            return stored if stored.claim > standing.passed_over else None
        ended = lost.read_lost_outcome(entry, standing.claim.token if standing.claim else "", since)
        ended = ended or lost.read_lost_outcome(entry, owner.token, since)
        if ended is None and is_own:
            standing.passed_over, standing.mode = stored.claim, Mode.FORCE  # another launch has given it up
        return ended or standing.stored()

    def fail(self, standing: LookupResult, problem: ExcaError) -> None:
        """One that will have no outcome."""
        standing.problem = problem
        self._over(standing)

    def lose(self, standing: LookupResult, report: clusters.JobReport) -> None:
        """Writes that a job ended without an outcome, or gives back what it was to replace, if nobody was quicker."""
        entry, claim = standing.entry, standing.claim
        assert entry is not None and claim is not None
        logs = self._survey.log_folder(claim)
        code = self._survey.code(claim)
        lost.record_lost_job(entry, claim, standing.identity.to_json(), report, self._folder.path, logs, code)

    def _over(self, standing: LookupResult) -> None:
        self._waiting.pop(id(standing), None)
        for round_ in self.rounds:
            if round_.holds(standing):
                round_.settle(standing)
        self._arrived(standing)

    def _run_again(self, standings: tp.Sequence[LookupResult]) -> None:
        left = [standing for standing in standings if not self.collect(standing)]
        if left:
            self._again(left)

    def _heed(self, standing: LookupResult, report: clusters.JobReport, round_: Submission) -> list[LookupResult]:
        """What a cluster says of a job of this launch; returns what has to be computed by another one."""
        assert standing.entry is not None
        self._tell(standing, report)
        if report.state is not JobState.ENDED or self.collect(standing):
            return []
        claim = standing.claim = standing.entry.current_claim()
        elsewhere = claim is None or claim.token != round_.token or claim.state is ClaimState.RELEASED
        if claim is None or elsewhere or _is_of_another_job(claim, report):
            self._joined[id(standing)] = standing
        elif is_to_blame(claim, report) or (report.failed and not round_.has_begun(standing)):
            self.lose(standing, report)
        else:
            return [standing]
        return []

    def _watch_joined(self) -> None:
        """Whether whoever computes what this launch waits for is still there; if not, it is settled or run again."""
        joined = [standing for standing in self._joined.values() if not self.collect(standing)]
        for standing in joined:
            assert standing.entry is not None
            standing.claim = standing.entry.current_claim()
        if any(standing.claim is not None and standing.claim.cluster == "slurm" for standing in joined):
            self._interval = min(self._poll_s, 1.5 * self._interval)
        orphans = self._orphans(joined)
        self._joined = {id(standing): standing for standing in joined if standing not in orphans}
        self._run_again(orphans)

    def _orphans(self, joined: tp.Sequence[LookupResult]) -> list[LookupResult]:
        """What nobody computes any more; a job that its cluster says has failed is noted as failed instead."""
        owned = [s for s in joined if s.claim is not None and not is_given_up(s.claim)]
        orphans = [standing for standing in joined if standing not in owned]
        for standing, report in zip(owned, self._survey.ask(owned), strict=True):
            assert standing.claim is not None
            self._tell(standing, report)
            if report.state is JobState.ENDED and not self.collect(standing):
                if is_to_blame(standing.claim, report):
                    self.lose(standing, report)
                else:
                    orphans.append(standing)
        return orphans

    def _tell(self, standing: LookupResult, report: clusters.JobReport) -> None:
        """Once for each reason: whoever waits for what may never come is told so."""
        entry, claim = standing.entry, standing.claim
        assert entry is not None and claim is not None
        troubled = report.stuck or report.state is JobState.UNKNOWN
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


def _is_of_another_job(claim: Claim, report: clusters.JobReport) -> bool:
    """A job that was submitted twice by accident runs once, and not always under the id that the launch was told."""
    return claim.state is ClaimState.RUNNING and report.job is not None and claim.job != report.job
