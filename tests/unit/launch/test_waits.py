"""Which tasks wait for which, as launches record it while they wait."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from hydra_exca import checksums, paths
from hydra_exca.clusters import process
from hydra_exca.job.enclosing import EnclosingTask, computing
from hydra_exca.launch.waits import RecordedWaits, WaitedTask, would_wait_for_itself
from hydra_exca.store import Claim, ClaimState, Entry


class Tasks:
    """Running tasks, each of a launch of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, key: str, state: ClaimState = ClaimState.RUNNING, number: int = 1) -> WaitedTask:
        entry = Entry(self.folder / "f,0" / key)
        entry.create()
        entry.publish_claim(Claim(number, state, f"of-{key}", "local", None, 0, process.describe_process()))
        self.launch(key).mkdir(parents=True, exist_ok=True)
        return WaitedTask(entry.path, key)

    def launch(self, key: str) -> Path:
        return paths.launch_folder(self.folder, f"of-{key}")

    def enclosing(self, key: str) -> EnclosingTask:
        return EnclosingTask(str(self.launch(key)), 0, str(self.folder / "f,0" / key), key)

    def would_wait(self, key: str, for_: WaitedTask) -> bool:
        return would_wait_for_itself(for_, [self.enclosing(key)])


@pytest.fixture
def tasks(tmp_path: Path) -> Tasks:
    return Tasks(tmp_path)


def test_a_task_must_not_wait_for_itself_or_for_one_that_waits_for_it(tasks: Tasks) -> None:
    a, b, c, other = map(tasks.start, "abco")
    with computing(tasks.enclosing("a"), ()), RecordedWaits() as of_a:
        assert of_a.record([b, other]) == []
        with computing(tasks.enclosing("b"), ()), RecordedWaits() as of_b:
            assert of_b.record([c, other]) == []
            assert [tasks.would_wait(key, for_=a) for key in "abco"] == [True, True, True, True]
            assert [tasks.would_wait(key, for_=b) for key in "abco"] == [False, True, True, True]
            with computing(tasks.enclosing("c"), ()), RecordedWaits() as of_c:
                assert of_c.record([a, other]) == [a]
        assert [tasks.would_wait(key, for_=a) for key in "abco"] == [True, True, False, True]
    assert [tasks.would_wait(key, for_=a) for key in "abco"] == [True, False, False, False]


def test_a_launch_outside_of_tasks_records_nothing(tasks: Tasks) -> None:
    with RecordedWaits() as waits:
        assert waits.record([tasks.start("a")]) == []
    assert list(tasks.folder.glob("launches/*/waits")) == []


def test_tasks_that_are_joined_later_are_recorded_too(tasks: Tasks) -> None:
    a, b, c = map(tasks.start, "abc")
    with computing(tasks.enclosing("a"), ()), RecordedWaits() as waits:
        assert waits.record([b]) == waits.record([c]) == []
        assert tasks.would_wait("b", for_=a) and tasks.would_wait("c", for_=a)


def test_what_is_waited_for_no_more_is_not_recorded(tasks: Tasks) -> None:
    a, b, c = map(tasks.start, "abc")
    with computing(tasks.enclosing("a"), ()), RecordedWaits() as waits:
        waits.record([b])
        assert waits.replace([c]) == []
        assert not tasks.would_wait("b", for_=a) and tasks.would_wait("c", for_=a)


@pytest.mark.parametrize("ended", [ClaimState.COMMITTING, ClaimState.RELEASED])
def test_a_task_that_has_ended_waits_for_nothing(tasks: Tasks, ended: ClaimState) -> None:
    a, b = map(tasks.start, "ab")
    with computing(tasks.enclosing("a"), ()), RecordedWaits() as waits:
        waits.record([b])
        tasks.start("a", ended, number=2)
        assert not tasks.would_wait("b", for_=a)


def record(tasks: Tasks, **changes: Any) -> None:
    """Task a is recorded to wait for b."""
    fields = {"task": "a", "waits_for": [[str(tasks.folder / "f,0/b"), "b"]], "owner": process.describe_process()}
    paths.waits(tasks.launch("a")).mkdir()
    content = checksums.dump_record({**fields, "time": time.time(), **changes})
    (paths.waits(tasks.launch("a")) / "x.json").write_bytes(content)


def test_the_record_of_another_process_counts(tasks: Tasks) -> None:
    a, _ = map(tasks.start, "ab")
    record(tasks)
    assert tasks.would_wait("b", for_=a)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "another task of the launch"},
        {"time": 0.0},
        {"owner": {**process.describe_process(), "pid": 1, "started": 0.0}},
        {"waits_for": 7},
    ],
    ids=["of another task", "of an earlier attempt", "of a dead process", "damaged"],
)
def test_a_record_that_does_not_hold_any_more_does_not_count(tasks: Tasks, changes: dict[str, Any]) -> None:
    a, _ = map(tasks.start, "ab")
    record(tasks, **changes)
    assert not tasks.would_wait("b", for_=a)
