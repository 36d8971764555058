"""Cuts jobs into arrays and decides how many jobs of each may run at a time. All functions are pure."""

from __future__ import annotations

import dataclasses
import itertools
import typing as tp

from hydra_exca.clusters.base import JobSpec


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of the common limit that one array may use: ``most`` jobs at a time.

    ``after`` is the index of the array that has to end first, None if it need not wait.
    """

    most: int
    after: int | None = None


def cut_arrays(jobs: tp.Sequence[JobSpec], largest: int, room: int | None) -> list[list[JobSpec]]:
    """Cuts as many jobs as there is ``room`` for into arrays of equal options, with at most ``largest`` jobs each.

    >>> from hydra_exca.clusters.base import Options
    >>> plan = cut_arrays([JobSpec(number, Options()) for number in range(5)], largest=2, room=4)
    >>> [[job.number for job in array] for array in plan]
    [[0, 1], [2, 3]]
    """
    fitting = jobs if room is None else jobs[: max(0, room)]
    alike = [list(group) for _, group in itertools.groupby(fitting, key=lambda job: job.options)]
    return [group[start : start + largest] for group in alike for start in range(0, len(group), largest)]


def distribute_limit(sizes: tp.Sequence[int], most: int) -> list[Share]:
    """How many jobs each array may run at a time, so that together they never run more than ``most``.

    If there are more arrays than that, the later ones wait for earlier ones.

    >>> distribute_limit([1001, 1001, 500], most=10)
    [Share(most=4, after=None), Share(most=4, after=None), Share(most=2, after=None)]
    >>> distribute_limit([5, 5, 5], most=2)
    [Share(most=1, after=None), Share(most=1, after=None), Share(most=1, after=0)]
    """
    if len(sizes) > most:
        return [Share(1, place - most if place >= most else None) for place in range(len(sizes))]
    shares = [1] * len(sizes)
    for _ in range(most - len(sizes) if sizes else 0):
        place = max(range(len(sizes)), key=lambda place: sizes[place] / shares[place])
        if shares[place] >= sizes[place]:
            break
        shares[place] += 1
    return [Share(most) for most in shares]


def redistribute_limit(left: tp.Sequence[int], now: tp.Sequence[int], most: int) -> list[int]:
    """The new limits of arrays with ``left`` jobs each that may run ``now`` at a time, once others need less.

    >>> redistribute_limit(left=[3, 900], now=[128, 128], most=256)
    [128, 253]
    """
    spare = max(
        0, most - sum(min(pair) for pair in zip(left, now, strict=True))
    )  # arrays that wait for another one count, too
    larger = list(now)
    for place, (jobs, share) in enumerate(zip(left, now, strict=True)):
        more = min(spare, max(0, jobs - share))
        larger[place] += more
        spare -= more
    return larger
