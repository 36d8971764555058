"""Looks for faults: python tests/torture [--seed N] [--only POINT ...] [--workers N].

Prints how many points, inputs, launches and states it has tried, and what is wrong. Fails if anything is. A seed makes
all of it repeatable, as far as processes are: which fault a call has, what is damaged, who is killed in a race.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parent)]

import claim_model  # noqa: E402
import damaged_inputs  # noqa: E402
import fault_points  # noqa: E402
import long_waits  # noqa: E402
import races  # noqa: E402
from fault_points import Point  # noqa: E402

# of each program and process: every n-th call, and whether with all faults or with a kill and one error
PLAN = {
    ("task", "launch"): (2, True),
    ("map", "launch"): (3, True),
    ("stored-task", "launch"): (1, True),
    ("stored-map", "launch"): (1, True),
    ("small-task", "launch"): (4, False),
    ("forced-task", "launch"): (1, False),
    ("array", "launch"): (2, False),
    ("local-task", "launch"): (2, False),
    ("local-task", "job"): (2, False),
    ("local-map", "launch"): (4, False),
    ("local-map", "job"): (3, False),
    ("local-array", "launch"): (4, False),
    ("sweep", "launch"): (10, False),
    ("local-sweep", "launch"): (10, False),
    ("local-sweep", "job"): (40, False),
}
INPUTS, RACES, POLLS = 50_000, 12, 4000
_CHUNK = 250


def points(seed: int) -> Iterator[Point]:
    """The points of the long pass."""
    for (program, process), (step, has_all) in PLAN.items():
        by_call: dict[int, list[Point]] = {}
        for point in fault_points.list_points(program, process):
            by_call.setdefault(point.number, []).append(point)
        for number in list(by_call)[seed % step :: step]:
            kill, *others = by_call[number]
            yield kill
            yield from others if has_all else [random.Random(f"{seed}:{kill}").choice(others)]


def check_point(point: Point) -> list[str]:
    problems = fault_points.check_point(point)
    return [f"{point}: {problem} (again: python tests/torture --only '{point}')" for problem in problems]


def check_inputs(seed: int, first: int) -> list[str]:
    with damaged_inputs.damager(seed, fault_points.SCRATCH) as damager:
        found = {number: damager.check_input(number) for number in range(first, first + _CHUNK)}
    again = f"(again: python tests/torture --seed {seed} --only"
    return [f"input {number}: {problem} {again} input:{number})" for number, problem in found.items() if problem]


def check_race(seed: int, number: int) -> list[str]:
    again = f"(again: python tests/torture --seed {seed} --only race:{number})"
    return [f"race {number}: {problem} {again}" for problem in races.check_race(number, seed)]


def check_states(name: str) -> tuple[int, list[str]]:
    try:
        return claim_model.explore((claim_model.STARTS | claim_model.LONG_STARTS)[name]), []
    except claim_model.BrokenRuleError as broken:
        return 0, [f"model, {name}: {broken}"]


class Report:
    """Counts, and says at once what is wrong."""

    def __init__(self) -> None:
        self.failures = 0
        self.figures: list[str] = []
        self._begun = time.monotonic()

    def add(self, what: str, count: int, problems: Iterable[str]) -> None:
        failures = 0
        for problem in problems:
            failures += 1
            print(f"FAILED {problem}", flush=True)
        self.failures += failures
        minutes = (time.monotonic() - self._begun) / 60
        self.figures.append(f"{count:>7,} {what}, {failures} failures")
        print(f"{self.figures[-1]} (after {minutes:.1f} min)", flush=True)


def only(names: list[str], seed: int) -> Iterator[str]:
    for name in names:
        kind, _, number = name.partition(":")
        if kind == "race":
            yield from check_race(seed, int(number))
        elif kind == "input":
            with damaged_inputs.damager(seed, fault_points.SCRATCH) as damager:
                problem = damager.check_input(int(number))
            yield from [problem] if problem else []
        else:
            yield from check_point(Point.parse(name))


def run_all(seed: int, workers: int) -> Report:
    report = Report()
    with multiprocessing.get_context("fork").Pool(workers, maxtasksperchild=200) as pool:
        flat = lambda results: (problem for problems in results for problem in problems)  # noqa: E731
        found = list(points(seed))
        report.add("kill and fault points", len(found), flat(pool.imap_unordered(check_point, found)))
        starts = range(0, INPUTS, _CHUNK)
        inputs = pool.imap_unordered(functools.partial(check_inputs, seed), starts)
        report.add("damaged inputs", INPUTS, flat(inputs))
        states = pool.map(check_states, [*claim_model.STARTS, *claim_model.LONG_STARTS])
        report.add("states of the model of claims", sum(count for count, _ in states), flat(each for _, each in states))
    report.add("racing launchers", RACES * races.LAUNCHES, flat(check_race(seed, each) for each in range(RACES)))
    problems, figures = long_waits.check_wait(POLLS)
    report.add(f"polls in {figures['hours']} h, {figures['bytes']} bytes more", POLLS, problems)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the random parts")
    parser.add_argument("--only", nargs="+", metavar="POINT", help="as a failure names it")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if arguments.only:
        problems = list(only(arguments.only, arguments.seed))
        print("\n".join(problems) or "nothing is wrong")
        return bool(problems)
    report = run_all(arguments.seed, arguments.workers)
    print(f"\nseed {arguments.seed}:", *report.figures, sep="\n")
    return bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
