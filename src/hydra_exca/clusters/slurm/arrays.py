"""How jobs are cut into arrays, and how many of each may run at a time. All pure."""

from __future__ import annotations

import dataclasses
import itertools
import typing as tp

from hydra_exca.clusters.base import JobSpec


@dataclasses.dataclass(frozen=True)
class Share:
    """What one array may take of what all may: ``most`` jobs at a time.

    ``after`` is the array, by its place in the plan, that has to end before, None where it need not wait.
    """

    most: int
    after: int | None = None


def cut_arrays(jobs: tp.Sequence[JobSpec], largest: int, room: int | None) -> list[list[JobSpec]]:
    """The arrays for as many of the jobs as there is room for: equal options together, none over ``largest``.

    >>> from hydra_exca.clusters.base import Options
    >>> plan = cut_arrays([JobSpec(number, Options()) for number in range(5)], largest=2, room=4)
    >>> [[job.number for job in array] for array in plan]
    [[0, 1], [2, 3]]
    """
    fitting = jobs if room is None else jobs[: max(0, room)]
    alike = [list(group) for _, group in itertools.groupby(fitting, key=lambda job: job.options)]
    return [group[start : start + largest] for group in alike for start in range(0, len(group), largest)]


def distribute_limit(sizes: tp.Sequence[int], most: int) -> list[Share]:
    """Who may run how many jobs at a time, such that all together never run more than ``most``.

    Arrays that are more than that come one after another.

    >>> distribute_limit([1001, 1001, 500], most=10)
    [Share(most=4, after=None), Share(most=4, after=None), Share(most=2, after=None)]
    >>> distribute_limit([5, 5, 5], most=2)
    [Share(most=1, after=None), Share(most=1, after=None), Share(most=1, after=0)]
    """
    if len(sizes) > most:
        return [Share(1, place - most if place >= most else None) for place in range(len(sizes))]
    given = [1] * len(sizes)
    for _ in range(most - len(sizes) if sizes else 0):
        place = max(range(len(sizes)), key=lambda place: sizes[place] / given[place])
        if given[place] >= sizes[place]:
            break
        given[place] += 1
    return [Share(each) for each in given]


def redistribute_limit(left: tp.Sequence[int], now: tp.Sequence[int], most: int) -> list[int]:
    """The shares of arrays that have ``left`` jobs each and may run ``now`` at a time, with what others need no more.

    >>> redistribute_limit(left=[3, 900], now=[128, 128], most=256)
    [128, 253]
    """
    spare = max(0, most - sum(min(pair) for pair in zip(left, now, strict=True)))  # those in a row count all
    larger = list(now)
    for place, (jobs, share) in enumerate(zip(left, now, strict=True)):
        more = min(spare, max(0, jobs - share))
        larger[place] += more
        spare -= more
    return larger
