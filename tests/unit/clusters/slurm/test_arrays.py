"""How jobs become arrays: what may run at a time, and the names by which they are known again."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_exca import paths
from hydra_exca.clusters import JobSpec, Options
from hydra_exca.clusters.slurm import arrays

numbers = st.integers(1, 60)
sizes = st.lists(numbers, max_size=30)


@st.composite
def jobs(draw: st.DrawFn) -> list[JobSpec]:
    """Jobs of a launch, those of equal resources together."""
    first = draw(st.integers(0, 2000))
    groups = draw(st.lists(st.integers(1, 30), max_size=5))
    resources = [minutes for minutes, size in enumerate(groups, 1) for _ in range(size)]
    return [JobSpec(first + place, Options({"timeout_min": each})) for place, each in enumerate(resources)]


@st.composite
def running(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """How many jobs arrays have left, and how many of each may run at a time."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 60), numbers), max_size=12))
    return [left for left, _ in pairs], [now for _, now in pairs]


def taken(left: list[int], now: list[int]) -> int:
    """How many jobs run at most."""
    return sum(map(min, left, now))


# -- cutting


@given(jobs(), numbers)
def test_no_array_is_larger_than_allowed(jobs: list[JobSpec], largest: int) -> None:
    assert max((len(array) for array in arrays.cut_arrays(jobs, largest, None)), default=0) <= largest


@given(jobs(), numbers)
def test_every_job_is_in_one_array_in_its_order(jobs: list[JobSpec], largest: int) -> None:
    assert list(itertools.chain(*arrays.cut_arrays(jobs, largest, None))) == jobs


@given(jobs(), numbers, st.integers(-3, 200))
def test_where_there_is_room_for_some_the_first_are_taken(jobs: list[JobSpec], largest: int, room: int) -> None:
    assert list(itertools.chain(*arrays.cut_arrays(jobs, largest, room))) == jobs[: max(0, room)]


@given(jobs(), numbers)
def test_all_jobs_of_an_array_have_the_same_options(jobs: list[JobSpec], largest: int) -> None:
    assert all(
        len({job.options.common["timeout_min"] for job in array}) == 1
        for array in arrays.cut_arrays(jobs, largest, None)
    )


@given(jobs(), numbers, st.integers(0, 200))
def test_the_jobs_of_an_array_follow_one_another(jobs: list[JobSpec], largest: int, room: int) -> None:
    """The number of a job is that of its array's first, and its index."""
    cut = arrays.cut_arrays(jobs, largest, room)
    assert all([job.number - array[0].number for job in array] == list(range(len(array))) for array in cut)


@given(st.integers(1, 500), numbers)
def test_equal_jobs_need_as_few_arrays_as_there_can_be(count: int, largest: int) -> None:
    plan = arrays.cut_arrays([JobSpec(number, Options()) for number in range(count)], largest, None)
    assert len(plan) == -(-count // largest)


# -- sharing


def most_at_a_time(sizes: list[int], shares: list[arrays.Share], seed: int) -> int:
    """How many jobs run at most when arrays end in some order, and what waits for one starts with its end."""
    order, left, peak = random.Random(seed), dict(enumerate(sizes)), 0
    while left:
        able = [place for place in left if shares[place].after not in left]
        peak = max(peak, sum(min(left[place], shares[place].most) for place in able))
        del left[order.choice(able)]
    return peak


@given(sizes, numbers, st.integers())
def test_all_arrays_together_never_run_more_than_may(sizes: list[int], most: int, seed: int) -> None:
    assert most_at_a_time(sizes, arrays.distribute_limit(sizes, most), seed) <= most


@given(sizes, numbers)
def test_every_array_has_a_share(sizes: list[int], most: int) -> None:
    shares = arrays.distribute_limit(sizes, most)
    assert len(shares) == len(sizes) and all(share.most >= 1 for share in shares)


@given(sizes, numbers)
def test_an_array_waits_only_for_an_earlier_one(sizes: list[int], most: int) -> None:
    assert all(
        share.after < place
        for place, share in enumerate(arrays.distribute_limit(sizes, most))
        if share.after is not None
    )


@given(sizes, numbers)
def test_no_two_arrays_wait_for_the_same_one(sizes: list[int], most: int) -> None:
    waited = [share.after for share in arrays.distribute_limit(sizes, most) if share.after is not None]
    assert len(set(waited)) == len(waited)


@given(sizes, numbers)
def test_nothing_waits_where_each_array_may_run_a_job(sizes: list[int], most: int) -> None:
    waits = any(share.after is not None for share in arrays.distribute_limit(sizes, most))
    assert waits == (len(sizes) > most)


@given(sizes, numbers)
def test_as_many_run_at_first_as_may(sizes: list[int], most: int) -> None:
    first = [share.most for share in arrays.distribute_limit(sizes, most) if share.after is None]
    assert sum(first) == min(most, sum(sizes))


# -- handing on


@given(running(), st.integers(0, 80))
def test_what_is_handed_on_never_lets_more_run_than_may(now: tuple[list[int], list[int]], more: int) -> None:
    left, shares = now
    most = taken(left, shares) + more
    assert taken(left, arrays.redistribute_limit(left, shares, most)) <= most


@given(running(), st.integers(1, 80))
def test_no_share_becomes_smaller(now: tuple[list[int], list[int]], most: int) -> None:
    left, shares = now
    grown = arrays.redistribute_limit(left, shares, most)
    assert all(after >= before for after, before in zip(grown, shares, strict=True))


@given(running(), st.integers(0, 80))
def test_nothing_that_somebody_could_use_is_left_over(now: tuple[list[int], list[int]], more: int) -> None:
    left, shares = now
    most = taken(left, shares) + more
    assert taken(left, arrays.redistribute_limit(left, shares, most)) == min(most, sum(left))


# -- names


folders = st.sampled_from(["/data/exca/launches", "/home/me/my results/launches", "/1.sh/2.sh", "/a/b.sh c/launches"])


@given(folders, st.from_regex(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{12}", fullmatch=True), st.integers(0, 10**7))
def test_a_script_tells_its_launch_and_its_first_job(folder: str, token: str, first: int) -> None:
    script = paths.job_script(Path(folder, token), first)
    assert (
        paths.parse_script_path(str(script)) == paths.parse_script_path(f"sbatch --parsable {script}") == (token, first)
    )


@pytest.mark.parametrize("command", ["", "(null)", "/data/launches/t/payload.pkl", "/data/launches/t/x.sh", "1.sh"])
def test_what_is_no_script_of_a_launch_tells_nothing(command: str) -> None:
    assert paths.parse_script_path(command) is None
