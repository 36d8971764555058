"""The protocol of claims as a small model, all of whose states are explored.

Up to three launches want one task. A step is one call of the file system, and any launch may take the next one. Within
a budget launches die, stall while they commit, read an old listing or miss a file (as a network file system may show
them), are believed to be lost though they are alive, are told that a link was not made though it was, or give up. A
launch that forces cancels the others. `PROTOCOLS` has protocols with one rule left out: each must be caught.

Once an outcome is written its launch removes the claims for which it stands, one by one, as late as it likes. So the
number of one that was removed can be published again; whoever does so looks again, and withdraws it.

What a claim is followed by, and what a lost job may still commit, is asked of `hydra_exca.store.Claim` itself.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import typing as tp
from collections.abc import Iterator

from hydra_exca.store import Claim, ClaimState

QUEUED, RUNNING, COMMITTING, RELEASED = ClaimState
OLD = "old"  # the value that is there before a launch forces
ENDED = ("done", "dead", "gave up")
REMOVED = None
IN_JOB = ("take", "publish running", "compute", "owns", "publish committing", "publish outcome")


class Held(tp.NamedTuple):
    """A claim on disk; its number is its place, from 1."""

    token: str
    state: ClaimState
    lost: tuple[str, ...] = ()


class Launch(tp.NamedTuple):
    """A launch: what it does next, the number of the claim that it holds or has seen, and the value that it got.

    Where it forces, outcomes up to claim ``replaces`` are older than that. ``removed`` is the last claim that it has
    removed.
    """

    token: str
    forces: bool = False
    step: str = "look"
    number: int = 0
    lost: tuple[str, ...] = ()
    value: str = ""
    replaces: int = 0
    removed: int = 0

    @property
    def stage(self) -> str:
        """What it does next, but for looking again before that."""
        return self.step.rpartition(" and ")[2]


class Budget(tp.NamedTuple):
    """How often each may still happen."""

    deaths: int = 1
    stalls: int = 0
    stale: int = 0
    errors: int = 0
    believed_lost: int = 0
    late_links: int = 0


class World(tp.NamedTuple):
    """The entry, the launches, and what may still go wrong. An outcome is its claim and who computed it."""

    claims: tuple[Held | None, ...]
    outcome: tuple[int, str] | None
    previous: tuple[int, str] | None
    launches: tuple[Launch, ...]
    budget: Budget


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The rules; each that is False is a mutant."""

    claims_by_link: bool = True
    counts_links: bool = True
    outcome_by_link: bool = True
    claims_before_commit: bool = True
    spares_the_living: bool = True
    looks_again: bool = True
    restores_by_link: bool = True
    drops_older_only: bool = True
    looks_after_publishing: bool = True
    outcome_stands_for_claims: bool = True
    replaces_older_outcome: bool = True


PROTOCOLS = {field.name: Protocol(**{field.name: False}) for field in dataclasses.fields(Protocol)}
Step = tuple[str, World]


class BrokenRuleError(Exception):
    """A rule that does not hold, and how the world came there."""


@functools.cache
def _claim(number: int, held: Held) -> Claim:
    return Claim(number, held.state, held.token, "slurm", "1", 0, {}, lost=held.lost, time=0.0)


class Model:
    """The steps that are possible in a world."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol

    def steps(self, world: World) -> Iterator[Step]:
        for index, launch in enumerate(world.launches):
            if launch.step in ENDED:
                continue
            first, _, following = launch.step.rpartition(" and ")
            name = f"_{(first or following).replace(' ', '_')}"
            method = functools.partial(getattr(self, name), following) if first else getattr(self, name)
            for name, after in method(world, index, launch):
                yield f"{launch.token}: {name}", after
            if world.budget.deaths:
                dead = _spend(_with(world, index, launch._replace(step="dead")), "deaths")
                yield f"{launch.token} dies before it would {launch.step}", dead

    # what a launch does before it has the entry

    def _look(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        for name, outcome, after in _read_outcome(world, launch):
            if outcome is not None and not launch.forces:
                yield name, _with(after, index, launch._replace(step="done", value=outcome[1]))
            else:
                yield name, _with(after, index, launch._replace(step="look at claims"))

    def _look_at_claims(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        for listed, number, seen in self._current_claim(world, launch):
            for name, after in self._decide(listed, seen, index, launch, number):
                wants = after.launches[index]
                if self.protocol.looks_again and wants.step != "look":
                    after = _with(after, index, wants._replace(step=f"look again and {wants.step}"))
                yield name, after

    def _look_again(self, following: str, world: World, index: int, launch: Launch) -> Iterator[Step]:
        """`Entry.read_state`: outcomes come under a claim, so none is missed between the reads."""
        for name, outcome, after in _read_outcome(world, launch):
            step = "look" if outcome is not None and not launch.forces else following
            yield f"again {name}", _with(after, index, launch._replace(step=step))

    def _current_claim(self, world: World, launch: Launch) -> Iterator[tuple[str, int, World]]:
        """`Entry.current_claim`: an earlier claim than that of the outcome is nobody's."""
        for listed, number, seen in _list(world, launch):
            for name, outcome, after in _read_outcome(seen, launch):
                counts = outcome is not None and (self.protocol.outcome_stands_for_claims or not number)
                yield f"{listed}, {name}", max(number, outcome[0]) if counts and outcome else number, after

    def _decide(self, name: str, world: World, index: int, launch: Launch, number: int) -> Iterator[Step]:
        held = _held(world, number) or Held("", RELEASED)
        if world.outcome is not None and number == world.outcome[0]:
            held = Held("", RELEASED)  # whoever computed it has ended, or is about to remove its claims
        claims = launch._replace(step="publish queued", number=number, lost=() if launch.forces else held.lost)
        if held.state is RELEASED:
            yield f"{name}: free", _with(world, index, claims)
        elif self._is_gone(world, held):
            restores = world.previous is not None and not launch.forces
            yield (
                f"{name}: gone",
                _with(world, index, claims._replace(step="publish restoring" if restores else claims.step)),
            )
        else:
            yield f"{name}: waits", _with(world, index, launch._replace(step="look"))
            yield from self._meet_the_living(name, world, index, claims, held)

    def _meet_the_living(self, name: str, world: World, index: int, claims: Launch, held: Held) -> Iterator[Step]:
        owner = next(other for other in world.launches if other.token == held.token)
        if not self.protocol.spares_the_living:
            yield f"{name}: taken over", _with(world, index, claims)
        if claims.forces and owner.step not in ENDED and held.state is not COMMITTING:
            cancelled = _with(world, world.launches.index(owner), owner._replace(step="dead"))
            yield f"{name}: {held.token} is cancelled", _with(cancelled, index, claims)
        if held.state is COMMITTING and world.budget.stalls:
            yield f"{name}: {held.token} has stalled", _spend(_with(world, index, claims), "stalls")
        if owner.stage in IN_JOB and held.state is not COMMITTING and world.budget.believed_lost:
            lost = claims._replace(lost=() if claims.forces else (*held.lost, held.token))
            yield f"{name}: {held.token} is believed to be lost", _spend(_with(world, index, lost), "believed_lost")

    def _is_gone(self, world: World, held: Held) -> bool:
        return all(launch.step in ENDED for launch in world.launches if launch.token == held.token)

    def _publish_queued(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        following = "set aside" if launch.forces else "take"
        launch = launch._replace(replaces=launch.number if launch.forces else 0)
        yield from self._publish(world, index, launch, Held(launch.token, QUEUED, launch.lost), following, "look")

    def _set_aside(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        moved = world if world.outcome is None else world._replace(outcome=None, previous=world.outcome)
        yield "sets the outcome aside", _with(moved, index, launch._replace(step="take"))

    # in its job

    def _take(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        for listed, number, seen in _list(world, launch):
            if number != launch.number:
                yield f"{listed}: taken over", _with(seen, index, launch._replace(step="look"))
                continue
            for name, outcome, after in _read_outcome(seen, launch):
                step = "publish running"
                if outcome is not None and self.protocol.looks_again:
                    step = "release" if launch.forces else "look"
                yield f"{listed}, {name}", _with(after, index, launch._replace(step=step))

    def _publish_running(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        held = Held(launch.token, RUNNING, launch.lost)
        yield from self._publish(world, index, launch, held, "compute", "look")

    def _compute(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        yield "has computed", _with(world, index, launch._replace(step="owns"))
        if world.budget.errors:
            yield "gives up", _spend(_with(world, index, launch._replace(step="release")), "errors")

    def _owns(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        """`Entry.commit_outcome`: the number that it follows, that of an heir if its job was believed to be lost."""
        for listed, number, seen in _list(world, launch):
            own = launch._replace(step="publish committing")
            held = _held(seen, number)
            if number == launch.number and held is not None and held.token == launch.token:
                yield f"{listed}: owns it", _with(seen, index, own)
            elif held is not None and seen.outcome is None and _claim(number, held).is_heir_of(_own(launch)):
                yield f"{listed}: was believed to be lost", _with(seen, index, own._replace(number=number))
            else:
                yield f"{listed}: lost it", _with(seen, index, launch._replace(step="look"))

    def _publish_committing(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        if not self.protocol.claims_before_commit:
            yield "commits at once", _with(world, index, launch._replace(step="publish outcome"))
            return
        yield from self._publish(world, index, launch, Held(launch.token, COMMITTING), "publish outcome", "look")

    def _publish_outcome(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        found = world.outcome
        if found is not None and self.protocol.outcome_by_link:
            is_older = found[0] <= launch.replaces and len(world.claims) == launch.number
            if is_older and self.protocol.replaces_older_outcome:
                written = world._replace(outcome=(launch.number, launch.token))
                yield "replaces an older outcome", _with(written, index, launch._replace(step="drop previous"))
            else:
                yield "finds an outcome", _with(world, index, launch._replace(step="look"))
            return
        written = world._replace(outcome=(launch.number, launch.token))
        yield "writes the outcome", _with(written, index, launch._replace(step="drop previous"))

    def _drop_previous(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        ended = launch._replace(step="remove claims", value=launch.token)
        is_older = world.previous is not None and world.previous[0] < launch.number
        drops = is_older or not self.protocol.drops_older_only
        yield "drops the previous outcome", _with(world._replace(previous=None) if drops else world, index, ended)

    def _remove_claims(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        """One claim a step, the last one last."""
        later = range(launch.removed + 1, launch.number + 1)
        number = next((number for number in later if _held(world, number) is not None), None)
        if number is None:
            yield "has removed the claims", _with(world, index, launch._replace(step="done", removed=0))
        else:
            removed = _with_claim(world, number, REMOVED)
            yield f"removes claim {number}", _with(removed, index, launch._replace(removed=number))

    # giving up

    def _release(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        for listed, number, seen in _list(world, launch):
            step = "restore" if number == launch.number else "gave up"
            yield listed, _with(seen, index, launch._replace(step=step))

    def _publish_restoring(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        """`give_up_lost_job`: what a launch was to replace, that is gone, comes back."""
        yield from self._publish(world, index, launch, Held(launch.token, COMMITTING), "restore lost", "look")

    def _restore_lost(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        yield from self._restore(world, index, launch, "publish restored")

    def _restore(
        self, world: World, index: int, launch: Launch, following_step: str = "publish released"
    ) -> Iterator[Step]:
        following = launch._replace(step=following_step)
        if world.previous is None:
            yield "has nothing to restore", _with(world, index, following)
        elif world.outcome is None or not self.protocol.restores_by_link:
            restored = world._replace(outcome=world.previous, previous=None)
            yield "restores the previous outcome", _with(restored, index, following)
        else:
            yield "finds an outcome", _with(world, index, following)

    def _publish_released(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        held = Held(launch.token, RELEASED, launch.lost)
        yield from self._publish(world, index, launch, held, "gave up", "gave up")

    def _publish_restored(self, world: World, index: int, launch: Launch) -> Iterator[Step]:
        yield from self._publish(world, index, launch, Held(launch.token, RELEASED), "look", "look")

    # one call

    def _publish(self, world: World, index: int, launch: Launch, held: Held, won: str, lost: str) -> Iterator[Step]:
        """link(2): the next number, if nobody has it."""
        number = launch.number + 1
        if _held(world, number) is not None and self.protocol.claims_by_link:
            yield f"is late for claim {number}", _with(world, index, launch._replace(step=lost))
            return
        after = _with_claim(world, number, held)
        looks = "look for later claims and " if self.protocol.looks_after_publishing else ""
        made = launch._replace(step=f"{looks}{won}", number=number)
        yield f"publishes claim {number}", _with(after, index, made)
        if world.budget.late_links:
            step = made if self.protocol.counts_links else launch._replace(step=lost)
            yield f"publishes claim {number}, reported as failed", _spend(_with(after, index, step), "late_links")

    def _look_for_later_claims(self, following: str, world: World, index: int, launch: Launch) -> Iterator[Step]:
        """The link has just changed the folder, so that this look is not an old one."""
        step = "look for outcomes" if len(world.claims) == launch.number else "withdraw"
        yield f"lists {len(world.claims)}", _with(world, index, launch._replace(step=f"{step} and {following}"))

    def _look_for_outcomes(self, following: str, world: World, index: int, launch: Launch) -> Iterator[Step]:
        found = world.outcome or world.previous
        is_new = found is None or found[0] < launch.number
        step = following if is_new else f"withdraw and {following}"
        yield "finds an outcome" if found else "finds none", _with(world, index, launch._replace(step=step))

    def _withdraw(self, following: str, world: World, index: int, launch: Launch) -> Iterator[Step]:
        step = following if following == "gave up" else "look"
        after = _with_claim(world, launch.number, REMOVED)
        yield f"withdraws claim {launch.number}", _with(after, index, launch._replace(step=step))


def _held(world: World, number: int) -> Held | None:
    return world.claims[number - 1] if 0 < number <= len(world.claims) else None


def _own(launch: Launch) -> Claim:
    """The claim under which a launch computes."""
    return _claim(launch.number, Held(launch.token, RUNNING))


def _with_claim(world: World, number: int, held: Held | None) -> World:
    claims = [*world.claims, *[REMOVED] * (number - len(world.claims))]
    claims[number - 1] = held
    while claims and claims[-1] is REMOVED:
        claims.pop()
    return world._replace(claims=tuple(claims))


def _list(world: World, launch: Launch) -> Iterator[tuple[str, int, World]]:
    """The highest number that a listing shows; a cached one lacks what another launch has just published."""
    number, held = len(world.claims), _held(world, len(world.claims))
    yield f"lists {number}", number, world
    if world.budget.stale and number > launch.number and held is not None and held.token != launch.token:
        older = next((each for each in range(number - 1, 0, -1) if _held(world, each) is not None), 0)
        yield f"lists {older}, which is old", older, _spend(world, "stale")


def _read_outcome(world: World, launch: Launch) -> Iterator[tuple[str, tuple[int, str] | None, World]]:
    yield "reads the outcome" if world.outcome else "finds no outcome", world.outcome, world
    if world.budget.stale and world.outcome is not None and world.outcome[1] != launch.token:
        yield "misses the outcome", None, _spend(world, "stale")


def _with(world: World, index: int, launch: Launch) -> World:
    return world._replace(launches=(*world.launches[:index], launch, *world.launches[index + 1 :]))


def _spend(world: World, name: str) -> World:
    budget = world.budget
    return world._replace(budget=budget._replace(**{name: getattr(budget, name) - 1}))


# -- exploring


def explore(start: World, protocol: Protocol = Protocol()) -> int:
    """Explores all worlds; returns how many there are. Raises BrokenRuleError, with the shortest way to the fault."""
    return len(reachable(start, protocol))


def reachable(start: World, protocol: Protocol = Protocol()) -> tp.Collection[World]:
    """All worlds; raises as `explore` does."""
    model = Model(protocol)
    came_from: dict[World, tuple[World, str] | None] = {start: None}
    before: dict[World, list[World]] = collections.defaultdict(list)
    queue = collections.deque([start])
    while queue:
        world = queue.popleft()
        for name, after in model.steps(world):
            problem = _problem(start, world, after)
            if problem:
                raise BrokenRuleError(f"{problem}: {_way(came_from, world)}; {name}")
            before[after].append(world)
            if after not in came_from:
                came_from[after] = (world, name)
                queue.append(after)
    stuck = came_from.keys() - _that_can_end(came_from, before)
    if stuck:
        raise BrokenRuleError(f"it can never end: {_way(came_from, next(each for each in came_from if each in stuck))}")
    return came_from.keys()


def _problem(start: World, world: World, after: World) -> str:
    is_kept = world.outcome in (None, after.outcome, after.previous)
    if not is_kept and not any(_is_older(world.outcome, launch) for launch in _changed(world, after)):
        return "an outcome was lost"
    if world.previous is not None and after.previous is None and after.outcome is None:
        return "a previous outcome was lost"
    is_forced = any(launch.forces for launch in start.launches)
    if world.outcome is not None and after.outcome != world.outcome and not is_forced:
        return "an outcome was replaced, and nobody forced that"
    computing = [launch.token for launch in after.launches if launch.step == "compute"]
    begins = any(launch.step == "compute" for launch in _changed(world, after))
    has_stalled = after.budget.stalls < start.budget.stalls
    if len(computing) > 1 and not has_stalled and after.budget.believed_lost == start.budget.believed_lost:
        return f"{' and '.join(computing)} compute at the same time"
    is_blind = after.budget.stale < start.budget.stale or is_forced or has_stalled
    if begins and after.outcome is not None and not is_blind:
        return "a task with an outcome is computed"
    if any(old is not None and new not in (old, REMOVED) for old, new in zip(world.claims, after.claims, strict=False)):
        return "a claim was replaced"
    known = [found[0] for found in (after.outcome, after.previous) if found is not None]
    if any(launch.step == "compute" and launch.number <= max(known, default=0) for launch in _changed(world, after)):
        return "a number came back"
    return ""


def _is_older(outcome: tuple[int, str] | None, launch: Launch) -> bool:
    """Whether an outcome is older than what a launch that forces has just stored."""
    return outcome is not None and launch.step == "drop previous" and outcome[0] <= launch.replaces


def _changed(world: World, after: World) -> list[Launch]:
    return [new for old, new in zip(world.launches, after.launches, strict=True) if old != new]


def _that_can_end(worlds: tp.Iterable[World], before: dict[World, list[World]]) -> set[World]:
    """The worlds from which all launches can end, and the entry is then free for others or has an outcome."""
    ended = {world for world in worlds if all(launch.step in ENDED for launch in world.launches)}
    queue = collections.deque(ended)
    while queue:
        for world in before[queue.popleft()]:
            if world not in ended:
                ended.add(world)
                queue.append(world)
    return ended


def _way(came_from: dict[World, tuple[World, str] | None], world: World) -> str:
    names = []
    while (step := came_from[world]) is not None:
        world, name = step
        names.append(name)
    return "; ".join(reversed(names))


def start_of(launches: int, forcing: int = 0, **budget: int) -> World:
    """A task without an outcome that several launches want; where some force, one with an old value, without claims."""
    members = [Launch(token, forces=number < forcing) for number, token in zip(range(launches), "ABC", strict=False)]
    old = (3, OLD) if forcing else None
    return World((), old, None, tuple(members), Budget(**budget))


def start_after_death(launches: int, forcing: int, **budget: int) -> World:
    """The same after a launch has set the old value aside, and died."""
    world = start_of(launches, forcing, **budget)
    return world._replace(claims=(REMOVED, REMOVED, REMOVED, Held("0", QUEUED)), outcome=None, previous=world.outcome)


def run_alone(world: World, index: int, until: tp.Collection[str]) -> World:
    """The world after one launch has gone on, alone and without a fault, until one of these steps is its next."""
    world, model = world._replace(budget=Budget(0)), Model(Protocol())
    while world.launches[index].step not in until:
        (_, world), *_ = [s for s in model.steps(world) if s[0].startswith(f"{world.launches[index].token}: ")]
    return world


CATCH = {  # where each mutant is caught
    "claims_by_link": "two die",
    "counts_links": "two, stale caches",
    "outcome_by_link": "two, stale caches",
    "claims_before_commit": "two, one believed lost",
    "spares_the_living": "two die",
    "looks_again": "two die",
    "restores_by_link": "three, one forces",
    "drops_older_only": "two, one forces and stalls",
    "looks_after_publishing": "two, stale caches",
    "outcome_stands_for_claims": "two force",
    "replaces_older_outcome": "two after one that died, one forces and stalls",
}
STARTS = {  # all that fits in a second each, and what a minute allows
    "two die": start_of(2, deaths=2),
    "two, stale caches": start_of(2, deaths=1, stale=2, late_links=1),
    "two, one believed lost": start_of(2, deaths=1, believed_lost=1, stale=1),
    "two, one stalls": start_of(2, deaths=1, stalls=1, errors=1),
    "two, one forces": start_of(2, forcing=1, deaths=1, errors=1),
    "two, one forces and stalls": start_of(2, forcing=1, deaths=2, stalls=1),
    "two after one that died, one forces and stalls": start_after_death(2, forcing=1, deaths=1, stalls=1),
    "two force": start_of(2, forcing=2, deaths=1, stale=1, late_links=1),
    "three die": start_of(3, deaths=3),
}
LONG_STARTS = {
    "three, all at once": start_of(3, deaths=1, stale=1, late_links=1, errors=1),
    "three, believed lost": start_of(3, deaths=1, believed_lost=1),
    "three, one forces": start_of(3, forcing=1, deaths=2, stalls=1, errors=1),
    "three, two force and one stalls": start_of(3, forcing=2, deaths=1, stalls=1),
    "three, two force": start_of(3, forcing=2, deaths=0, believed_lost=1),
}
