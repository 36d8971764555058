"""The short pass of `make torture`, and what shows that it can fail."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import random
import typing as tp
from collections.abc import Callable
from pathlib import Path

import claim_model
import damaged_inputs
import fault_points
import long_waits
import pytest
import races
from claim_model import LONG_STARTS, PROTOCOLS, STARTS, Launch, World
from fault_points import Point

from hydra_exca import checksums, clusters, files, paths
from hydra_exca.clusters import inline
from hydra_exca.identity import uid
from hydra_exca.status import Status
from hydra_exca.store import Claim, ClaimState, Entry, Outcome, claims

pytestmark = [pytest.mark.app, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


# -- kills and errors

SAMPLED = {
    ("task", "launch"): 8,
    ("map", "launch"): 6,
    ("stored-task", "launch"): 4,
    ("forced-task", "launch"): 6,
    ("array", "launch"): 4,
    ("local-task", "launch"): 4,
    ("local-map", "job"): 4,
    ("sweep", "launch"): 2,
    ("local-sweep", "launch"): 1,
}


@pytest.mark.parametrize(("program", "process"), SAMPLED)
def test_after_a_kill_or_an_error_of_the_disk_the_same_call_gives_the_value(program: str, process: str) -> None:
    points = fault_points.list_points(program, process)
    chosen = random.Random(0).sample(points, SAMPLED[program, process])
    found = {str(point): fault_points.check_point(point) for point in chosen}
    assert {point: problems for point, problems in found.items() if problems} == {}


def test_the_points_show_an_error_that_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it once was where a record was read."""
    monkeypatch.setattr(files, "_read_error", lambda path, error: error)
    calls = fault_points.count_calls("task", "launch")
    at = next(number for number, call in enumerate(calls, 1) if call.function == "open" and "project" in call.path)
    assert "it raised OSError" in " ".join(fault_points.check_point(Point("task", "launch", at, "EIO")))


def test_the_points_show_a_call_that_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a process that is gone."""
    monkeypatch.setattr(fault_points, "LONGEST_S", 2.0)
    monkeypatch.setattr(inline, "process_report", lambda reference: clusters.JobReport(clusters.JobState.RUNNING))
    calls = fault_points.count_calls("task", "launch")
    at = next(number for number, call in enumerate(calls, 1) if "config.yaml" in call.path)
    assert "it hangs" in " ".join(fault_points.check_point(Point("task", "launch", at, "kill")))


# -- damaged files


def check_inputs(numbers: range) -> list[str]:
    def work(send: Callable[[tp.Any], None]) -> None:
        with damaged_inputs.damager(0, fault_points.SCRATCH) as damager:
            for number in numbers:
                send(damager.check_input(number))

    with fault_points.scratch_folder() as folder:
        found = fault_points.start_process(work, folder).collect()
    assert len(found) == len(numbers)
    return [problem for problem in found if problem]


def test_a_damaged_file_gives_the_value_or_an_error_that_names_it() -> None:
    assert check_inputs(range(200)) == []


def test_the_inputs_show_checksums_that_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def unverified(data: bytes, mark: bytes, end: bytes) -> bytes | None:
        return data[: -16 - len(mark + end)] if mark in data else None

    monkeypatch.setattr(checksums, "_verified", unverified)
    assert any("it gave" in problem for problem in check_inputs(range(400)))


# -- races


def test_racing_launches_of_which_some_are_killed_compute_each_task_once() -> None:
    assert [problem for number in range(2) for problem in races.check_race(number, 0)] == []


def test_the_races_show_a_task_that_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    forced = functools.partial(races.launch, mode="force")
    monkeypatch.setattr(races, "launch", forced)
    assert any("was computed by" in problem for problem in races.check_race(0, 0))


# -- waiting


def test_a_launch_that_waits_for_hours_keeps_memory_and_open_files_flat() -> None:
    problems, _ = long_waits.check_wait(400)
    assert problems == []


# -- the model of claims


@pytest.mark.parametrize("start", STARTS)
def test_claims_keep_their_promises_in_every_state(start: str) -> None:
    assert claim_model.explore(STARTS[start]) > 100


@pytest.mark.parametrize("mutant", PROTOCOLS)
def test_the_model_shows_a_protocol_without_one_of_its_rules(mutant: str) -> None:
    start = (STARTS | LONG_STARTS)[claim_model.CATCH[mutant]]
    with pytest.raises(claim_model.BrokenRuleError):
        claim_model.explore(start, PROTOCOLS[mutant])


IDENTITY = uid.make_identity("train.main", "0", {"x": 1}).to_json()


def held_claims(world: World) -> dict[int, Claim]:
    """The claims that are not removed, by their numbers."""
    return {
        number: Claim(number, held.state, held.token, "slurm", "1", 0, {}, lost=held.lost, time=0.0)
        for number, held in enumerate(world.claims, 1)
        if held is not None
    }


def own_claim(launch: Launch, world: World) -> Claim:
    """The claim under which a launch computes, also if it is removed."""
    own = Claim(launch.number, ClaimState.RUNNING, launch.token, "slurm", "1", 0, {}, lost=launch.lost)
    return dataclasses.replace(held_claims(world).get(launch.number, own), replaces=launch.replaces)


def as_outcome(outcome: tuple[int, str]) -> Outcome:
    number, value = outcome
    return Outcome(Status.COMPLETED, number, IDENTITY, {"format": "json", "inline": value})


def write_world(world: World, folder: Path) -> Entry:
    for number, claim in held_claims(world).items():
        (folder / paths.claim_name(number)).write_bytes(claim.to_json())
    for name, outcome in ((paths.OUTCOME, world.outcome), (paths.PREVIOUS, world.previous)):
        if outcome is not None:
            (folder / name).write_bytes(as_outcome(outcome).to_json())
    return Entry(folder)


def read_world(entry: Entry) -> tuple[tp.Any, ...]:
    numbers = sorted(filter(None, map(paths.claim_number, os.listdir(entry.path))))
    held = [claims.read_claim(entry.path / paths.claim_name(number), number) for number in numbers]
    outcomes = [
        None if found is None else (found.claim, (found.value or {})["inline"])
        for found in (entry.outcome(), entry.previous_outcome())
    ]
    return [(claim.number, claim.token, claim.state, claim.lost) for claim in held], *outcomes


def commit(entry: Entry, launch: Launch, world: World) -> None:
    entry.commit_outcome(own_claim(launch, world), as_outcome((0, launch.token)))


def release(entry: Entry, launch: Launch, world: World) -> None:
    entry.release_claim(own_claim(launch, world))


def set_aside(entry: Entry, launch: Launch, world: World) -> None:
    entry.set_previous_aside(keep_output=False)


def publish_queued(entry: Entry, launch: Launch, world: World) -> None:
    held = Claim(launch.number, ClaimState.RELEASED, "", "slurm", "1", 0, {})
    entry.publish_claim(held.next(ClaimState.QUEUED, token=launch.token, lost=launch.lost))


REAL = {  # the step with which the real call begins, the call, and the steps before which it has ended
    "owns": (commit, ("done", "look")),
    "release": (release, ("gave up", "look")),
    "set aside": (set_aside, ("take",)),
    "publish queued": (publish_queued, ("set aside", "take", "look")),
}


@pytest.mark.parametrize("step", REAL)
def test_the_model_does_what_the_store_does(step: str, tmp_path: Path) -> None:
    """In every state in which a launch of the model may take the step, the real call leaves the same files."""
    call, until = REAL[step]
    seen = set()
    starts = ("two, one believed lost", "two, one stalls", "two, one forces and stalls", "two force")
    for world in itertools.chain.from_iterable(claim_model.reachable(STARTS[start]) for start in starts):
        for index, launch in enumerate(world.launches):
            state = (world.claims, world.outcome, world.previous, launch)
            if launch.step != step or state in seen:
                continue
            seen.add(state)
            folder = tmp_path / str(len(seen))
            folder.mkdir()
            entry = write_world(world, folder)
            call(entry, launch, world)
            after = claim_model.run_alone(world, index, until)
            left = [(number, *held) for number, held in enumerate(after.claims, 1) if held is not None]
            assert read_world(entry) == (left, after.outcome, after.previous), state
    assert len(seen) > 5
