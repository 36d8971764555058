"""Claims: of any number of processes that want to compute an entry, in any order, one outcome is accepted."""

from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import tempfile
import threading
import typing as tp
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from hypothesis_profiles import examples

from hydra_exca import checksums, files, paths
from hydra_exca.clusters import process
from hydra_exca.errors import CacheError, CorruptEntryError
from hydra_exca.identity import uid
from hydra_exca.job.attempt import Attempt, AttemptGuard, attempt_task
from hydra_exca.status import Status
from hydra_exca.store import Claim, ClaimState, Entry, Outcome, claims

fork = multiprocessing.get_context("fork")
IDENTITY = uid.make_identity("train.main", "0", {"x": 1}).to_json()


def claim(number: int = 1, token: str = "launch", state: ClaimState = ClaimState.RUNNING) -> Claim:
    return Claim(number, state, token, "local", "1", 0, {})


def outcome(value: tp.Any) -> Outcome:
    return Outcome(Status.COMPLETED, 0, IDENTITY, value={"format": "json", "inline": value})


def value_of(entry: Entry) -> tp.Any:
    found = entry.outcome()
    return None if found is None else entry.load_value(found)


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    return Entry(tmp_path)


def at_once(work: tp.Callable[[int], tp.Any], processes: int = 2) -> list[tp.Any]:
    """What so many processes return that start at the same moment."""
    barrier, queue = fork.Barrier(processes), fork.SimpleQueue()

    def body(number: int) -> None:
        barrier.wait(30)
        queue.put(work(number))

    children = [fork.Process(target=body, args=(number,)) for number in range(processes)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * processes
    return [queue.get() for _ in children]


# -- the simple rules


def test_the_highest_number_owns(entry: Entry) -> None:
    for number in (1, 2, 10):
        assert entry.publish_claim(claim(number, f"t{number}"))
    assert not entry.publish_claim(claim(9, "t9"))
    owner = entry.current_claim()
    assert owner is not None and owner.token == "t10"


def test_a_number_is_taken_once(entry: Entry) -> None:
    assert entry.publish_claim(claim(1, "a")) and not entry.publish_claim(claim(1, "b"))


def test_a_claim_reads_as_it_was_written(entry: Entry) -> None:
    mine = Claim(1, ClaimState.QUEUED, "t", "slurm", "12_3", 4, {"host": "h", "pid": 5, "started": 1.25}, True, 2.5)
    entry.publish_claim(mine)
    assert entry.current_claim() == mine


@pytest.mark.parametrize("name", [".claim.7.json.ab.tmp", "claim.x.json", "claim.7.json.bak", "claim.-7.json"])
def test_what_is_not_a_claims_file_is_no_claim(entry: Entry, name: str) -> None:
    (entry.path / name).write_text("{}")
    assert entry.current_claim() is None


def test_an_entry_that_does_not_exist_has_no_claim(tmp_path: Path) -> None:
    assert claims.owning_claim(tmp_path / "missing") is None


@pytest.mark.parametrize("content", [b"", b"{", b"null", b'{"number":1}'])
def test_a_claim_that_cannot_be_read_is_nobodys_and_keeps_its_number(entry: Entry, content: bytes) -> None:
    (entry.path / "claim.1.json").write_bytes(content)
    owner = entry.current_claim()
    assert owner is not None and (owner.number, owner.state) == (1, ClaimState.RELEASED)


def test_an_owner_whose_claim_was_taken_over_cannot_commit(entry: Entry) -> None:
    entry.publish_claim(claim(1, "a"))
    entry.publish_claim(claim(2, "b"))
    assert not entry.commit_outcome(claim(1, "a"), outcome("a")) and entry.outcome() is None


def test_an_owner_cannot_commit_twice(entry: Entry) -> None:
    entry.publish_claim(claim())
    assert entry.commit_outcome(claim(), outcome("first")) and not entry.commit_outcome(claim(), outcome("second"))


def test_a_claim_that_was_given_up_cannot_commit(entry: Entry) -> None:
    entry.publish_claim(claim())
    entry.release_claim(claim())
    assert not entry.commit_outcome(claim(), outcome("late")) and entry.outcome() is None


def test_a_claim_that_was_committed_cannot_be_given_up(entry: Entry) -> None:
    entry.publish_claim(claim())
    entry.commit_outcome(claim(), outcome("value"))
    assert not entry.release_claim(claim())


def test_of_two_outcomes_the_accepted_one_stays(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that comes back from the dead, between publishing that it commits and writing the marker."""
    entry.publish_claim(claim(1, "dead"))
    take = Entry.publish_claim

    def then_it_was_away(self: Entry, committing: Claim) -> bool:
        won = take(self, committing)
        monkeypatch.setattr(Entry, "publish_claim", take)
        mine = committing.next(ClaimState.RUNNING, token="successor")
        assert entry.publish_claim(mine) and entry.commit_outcome(mine, outcome("accepted"))
        return won

    monkeypatch.setattr(Entry, "publish_claim", then_it_was_away)
    entry.commit_outcome(claim(1, "dead"), outcome("late"))
    assert value_of(entry) == "accepted"


def test_a_repeated_command_while_the_first_commits_does_not_change_what_was_accepted(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a job that Slurm starts again though the first one still runs: it stalls before it writes the marker."""
    entry.publish_claim(claim(1, "launch", ClaimState.QUEUED))
    accepted: list[tp.Any] = []
    stalled, go_on = threading.Event(), threading.Event()
    take = Entry.publish_claim

    def stalls(self: Entry, mine: Claim) -> bool:
        won = take(self, mine)
        if threading.current_thread() is first and mine.state is ClaimState.COMMITTING:
            stalled.set()
            go_on.wait(30)
        return won

    def second(attempt: Attempt) -> str:
        go_on.set()
        first.join(30)
        accepted.append(value_of(entry))
        return "second"

    monkeypatch.setattr(Entry, "publish_claim", stalls)
    first = threading.Thread(target=attempt_task, args=(entry, IDENTITY, "launch", lambda attempt: "first"))
    first.start()
    assert stalled.wait(30)
    attempt_task(entry, IDENTITY, "launch", second)
    go_on.set()
    first.join(30)
    assert value_of(entry) == (accepted[0] if accepted else "first")


# -- several processes


@pytest.mark.app
def test_of_two_processes_one_gets_the_claim_in_fifty_rounds(tmp_path: Path) -> None:
    for number in range(1, 51):
        won = at_once(lambda me, number=number: Entry(tmp_path).publish_claim(claim(number, f"{me}")))  # type: ignore[misc]
        assert sorted(won) == [False, True]


@pytest.mark.app
def test_whose_claim_it_is_says_the_file(tmp_path: Path) -> None:
    results = at_once(lambda me: (me, Entry(tmp_path).publish_claim(claim(1, f"{me}"))), processes=8)
    owner = Entry(tmp_path).current_claim()
    assert [f"{me}" for me, won in results if won] == [owner.token if owner else None]


@pytest.mark.app
def test_of_many_starts_under_one_claim_one_computes(tmp_path: Path) -> None:
    """Slurm may start a job on another node while the first one still runs."""
    Entry(tmp_path).publish_claim(claim(1, "launch", ClaimState.QUEUED))

    def start(me: int) -> bool:
        ran: list[int] = []
        attempt_task(Entry(tmp_path), IDENTITY, "launch", lambda attempt: ran.append(me) or me)
        return bool(ran) and value_of(Entry(tmp_path)) == me

    assert sum(at_once(start, processes=8)) == 1


@pytest.mark.app
def test_of_a_commit_and_a_takeover_at_once_exactly_one_succeeds(tmp_path: Path) -> None:
    for number in range(20):
        entry = Entry(tmp_path / f"{number}")
        entry.create()
        entry.publish_claim(claim(1, "old"))

        def act(me: int, entry: Entry = entry) -> bool:
            return entry.publish_claim(claim(2, "new")) if me else entry.commit_outcome(claim(1, "old"), outcome("old"))

        assert sorted(at_once(act)) == [False, True]
        owner = entry.current_claim()
        assert owner is not None and (value_of(entry) == "old") == (owner.token != "new")


def test_a_complete_entry_has_no_claims_and_its_outcome_tells_the_last(entry: Entry) -> None:
    entry.publish_claim(claim(1, "mine", ClaimState.QUEUED))
    attempt_task(entry, IDENTITY, "mine", lambda attempt: 5)
    assert [name for name in os.listdir(entry.path) if name.startswith("claim.")] == []
    owner = entry.current_claim()
    assert owner is not None
    assert (owner.number, owner.state, owner.token, owner.attempt) == (3, ClaimState.COMMITTING, "mine", 1)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_number_of_a_claim_that_was_removed_never_comes_back(number: int, entry: Entry) -> None:
    entry.publish_claim(claim(1, "mine", ClaimState.QUEUED))
    attempt_task(entry, IDENTITY, "mine", lambda attempt: 5)
    assert not entry.publish_claim(claim(number, "late"))
    assert [name for name in os.listdir(entry.path) if name.startswith("claim.")] == []
    assert entry.publish_claim(claim(4, "next"))


def test_a_value_that_is_to_be_replaced_keeps_the_numbers_of_claims(entry: Entry) -> None:
    entry.publish_claim(claim(1, "mine", ClaimState.QUEUED))
    attempt_task(entry, IDENTITY, "mine", lambda attempt: 5)
    entry.set_previous_aside(keep_output=False)
    assert not entry.publish_claim(claim(3, "late"))


def test_a_value_that_was_set_aside_without_a_claim_keeps_nobody_from_the_task(entry: Entry) -> None:
    """As by a slow launch that forces, after another force has taken over and ended."""
    entry.publish_claim(claim(1, "mine", ClaimState.QUEUED))
    attempt_task(entry, IDENTITY, "mine", lambda attempt: 5)
    entry.set_previous_aside(keep_output=False)
    owner = entry.current_claim()
    assert owner is not None and (owner.number, owner.state) == (3, ClaimState.RELEASED)
    assert entry.publish_claim(owner.next(ClaimState.QUEUED, token="next"))


def test_an_outcome_that_is_set_aside_leaves_a_claim_that_is_nobodys(entry: Entry) -> None:
    entry.publish_claim(claim(1, "mine", ClaimState.QUEUED))
    attempt_task(entry, IDENTITY, "mine", lambda attempt: 5)
    entry.set_outcome_aside()
    owner = entry.current_claim()
    assert owner is not None and (owner.number, owner.state) == (3, ClaimState.RELEASED)


def test_after_a_damaged_outcome_an_attempt_has_a_log_of_its_own(entry: Entry) -> None:
    entry.publish_claim(claim(1, "mine", ClaimState.QUEUED))
    attempt_task(entry, IDENTITY, "mine", lambda attempt: 5)
    (entry.path / paths.LOGS).mkdir()
    (entry.path / paths.LOGS / "1.log").write_text("of the first attempt")
    (entry.path / paths.OUTCOME).write_text("damaged")
    entry.set_outcome_aside()
    entry.publish_claim(claim(1, "next", ClaimState.QUEUED))
    attempt_task(entry, IDENTITY, "next", lambda attempt: attempt.claim.attempt)
    assert value_of(entry) == 2


def test_an_outcome_that_is_removed_before_its_claims_are_leaves_a_later_number(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by `clear` while the job stores its value."""
    remove = Entry._remove_claims

    def late(self: Entry, number: int) -> None:
        entry.remove_outcome()
        remove(self, number)

    monkeypatch.setattr(Entry, "_remove_claims", late)
    entry.publish_claim(claim(1, "mine", ClaimState.QUEUED))
    attempt_task(entry, IDENTITY, "mine", lambda attempt: 5)
    owner = entry.current_claim()
    assert entry.outcome() is None
    assert owner is not None and owner.number > 3 and owner.state is ClaimState.RELEASED


def test_a_claim_that_follows_an_outcome_stays_when_earlier_ones_are_removed(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, later = Entry._remove_claims, claim(4, "forces", ClaimState.QUEUED)
    monkeypatch.setattr(Entry, "_remove_claims", lambda *each: (entry.publish_claim(later), remove(*each)))
    entry.publish_claim(claim(1, "mine", ClaimState.QUEUED))
    attempt_task(entry, IDENTITY, "mine", lambda attempt: 5)
    assert (claims.owning_claim(entry.path), claims.owning_number(entry.path)) == (later, 4)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_late_claim_whose_process_was_killed_before_it_looked_again_owns_nothing(number: int, entry: Entry) -> None:
    entry.publish_claim(claim(1, "mine", ClaimState.QUEUED))
    attempt_task(entry, IDENTITY, "mine", lambda attempt: 5)
    (entry.path / paths.claim_name(number)).write_bytes(claim(number, "killed", ClaimState.QUEUED).to_json())
    owner = entry.current_claim()
    assert owner is not None and (owner.number, owner.state, owner.token) == (3, ClaimState.COMMITTING, "mine")
    assert entry.publish_claim(owner.next(ClaimState.QUEUED, token="forces"))


def test_a_claim_goes_away_if_its_writer_cannot_look_again(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(path: Path) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(claims, "owning_number", refuses)
        with pytest.raises(OSError, match="Input/output"):
            entry.publish_claim(claim(1, "mine"))
    assert os.listdir(entry.path) == [] and entry.publish_claim(claim(1, "mine"))


@pytest.mark.parametrize(("replaces", "expected"), [(3, "new"), (0, "old")])
def test_an_outcome_that_is_older_than_a_force_and_comes_back_is_replaced(
    replaces: int, expected: str, entry: Entry
) -> None:
    """By a launch that stalled while it gave up an earlier force; without force, the first outcome stays."""
    entry.publish_claim(claim(1, "first", ClaimState.QUEUED))
    attempt_task(entry, IDENTITY, "first", lambda attempt: "old")
    mine = dataclasses.replace(claim(4, "forces", ClaimState.QUEUED), replaces=replaces)
    assert entry.publish_claim(mine)
    entry.set_previous_aside(keep_output=False)

    def compute(attempt: Attempt) -> str:
        entry.restore_previous()
        return "new"

    attempt_task(entry, IDENTITY, "forces", compute)
    assert value_of(entry) == expected and not entry.has_previous()


# -- the worker


def test_a_worker_whose_claim_was_taken_over_before_it_starts_computes_nothing(entry: Entry) -> None:
    entry.publish_claim(claim(1, "other"))
    attempt_task(entry, IDENTITY, "mine", lambda attempt: pytest.fail("it ran"))
    assert os.listdir(entry.path) == ["claim.1.json"]


def test_a_worker_whose_claim_is_taken_over_while_it_computes_writes_no_outcome(entry: Entry) -> None:
    entry.publish_claim(claim(1, "mine", ClaimState.QUEUED))
    attempt_task(entry, IDENTITY, "mine", lambda attempt: entry.publish_claim(claim(3, "other")))
    assert entry.outcome() is None


def test_a_worker_whose_claim_was_given_up_computes_nothing(entry: Entry) -> None:
    entry.publish_claim(claim(1, "mine", ClaimState.RELEASED))
    attempt_task(entry, IDENTITY, "mine", lambda attempt: pytest.fail("it ran"))
    assert entry.outcome() is None


def test_a_worker_that_finds_an_outcome_computes_nothing(entry: Entry) -> None:
    entry.publish_claim(claim())
    entry.commit_outcome(claim(), outcome("there"))
    attempt_task(entry, IDENTITY, "launch", lambda attempt: pytest.fail("it ran"))
    assert value_of(entry) == "there"


def test_a_requeued_worker_computes_under_a_claim_of_its_own(entry: Entry) -> None:
    entry.publish_claim(claim(1, "mine", ClaimState.QUEUED))

    guard = AttemptGuard()

    def preempted(attempt: Attempt) -> None:
        guard.exit_request = SystemExit(0)
        raise guard.exit_request

    with pytest.raises(SystemExit):
        attempt_task(entry, IDENTITY, "mine", preempted, guard=guard)
    attempt_task(entry, IDENTITY, "mine", lambda attempt: attempt.claim.number)
    assert value_of(entry) == 3


def test_an_exit_of_the_task_is_its_error(entry: Entry) -> None:
    entry.publish_claim(claim(1, "mine", ClaimState.QUEUED))

    def leaves(attempt: Attempt) -> None:
        raise SystemExit("no data")

    attempt_task(entry, IDENTITY, "mine", leaves)
    found = entry.outcome()
    assert found is not None and found.error is not None and found.error["type"] == "SystemExit"


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it has no text")


def test_an_error_that_cannot_be_shown_is_an_outcome_too(entry: Entry) -> None:
    entry.publish_claim(claim(1, "mine", ClaimState.QUEUED))

    def fails(attempt: Attempt) -> None:
        raise MuteError

    attempt_task(entry, IDENTITY, "mine", fails)
    found = entry.outcome()
    assert found is not None and found.error is not None and "MuteError" in found.error["type"]


# -- any order of events


class Claims(RuleBasedStateMachine):
    """Three owners take, commit and give up in any order; a model of one line says what must be on disk."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.entry = Entry(Path(self.folder.name))
        self.held: dict[str, Claim] = {}
        self.seen: dict[str, Claim | None] = {}
        self.number = 0
        self.open: str | None = None  # whose claim it is: the only one that may still commit
        self.accepted: str | None = None

    owners = st.sampled_from("abc")

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(owner=owners)
    def look(self, owner: str) -> None:
        self.seen[owner] = self.entry.current_claim()

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def take_what_was_seen(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(self.seen)))
        seen = self.seen[owner]
        mine = claim((seen.number if seen else 0) + 1, owner)
        won = self.entry.publish_claim(mine)
        assert won == (mine.number == self.number + 1)
        if won:
            self.number, self.open, self.held[owner] = mine.number, owner, mine

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(self.held)))
        won = self.entry.commit_outcome(self.held[owner], outcome(f"{owner}{self.held[owner].number}"))
        owns = self.open == owner and self.held[owner].number == self.number
        assert won == (owns and self.accepted is None)
        if owns:
            self.number, self.open = self.number + 1, None
        if won:
            self.accepted = f"{owner}{self.held[owner].number}"

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(self.held)))
        won = self.entry.release_claim(self.held[owner])
        assert won == (self.open == owner and self.held[owner].number == self.number)
        if won:
            self.number, self.open = self.number + 1, None

    @invariant()
    def the_outcome_is_the_accepted_one(self) -> None:
        assert value_of(self.entry) == self.accepted

    @invariant()
    def nothing_temporary_is_left(self) -> None:
        assert [name for name in os.listdir(self.entry.path) if name.endswith(".tmp")] == []


def test_in_any_order_of_events_only_the_owner_changes_the_outcome() -> None:
    run_state_machine_as_test(
        Claims,
        settings=examples(60, stateful_step_count=25),
    )


def test_an_outcome_is_committed_though_the_disk_does_not_answer_at_first(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, listed, failures = claim(), os.listdir, [errno.EIO, errno.ESTALE]
    entry.publish_claim(mine)

    def list_folder(path: tp.Any) -> list[str]:
        if failures:
            raise OSError(failures.pop(), "the disk does not answer", str(path))
        return listed(path)

    monkeypatch.setattr(files, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(os, "listdir", list_folder)
    assert entry.commit_outcome(mine, outcome("value"))


@pytest.mark.parametrize(
    "changes",
    [
        {"token": "x" * 5000},
        {"token": "../elsewhere"},
        {"token": None},
        {"lost": [None]},
        {"job": "--user=me"},
        {"job": ""},
        {"owner": {"host": ""}},
        {"owner": {"host": None}},
        {"owner": {"pid": None}},
        {"owner": {"machine": {"a": 1}}},
        {"owner": {"boot": []}},
        {"owner": {"pid_namespace": "/dev/zero"}},
        {"owner": {"pid_namespace": 10**400}},
    ],
    ids=str,
)
def test_a_claim_with_a_name_that_none_can_have_is_nobodys(tmp_path: Path, changes: dict[str, tp.Any]) -> None:
    """Of one that seems to be held elsewhere, the end would be waited for for ever."""
    fields = json.loads(claim(1, "t").to_json())
    owner = {**process.describe_process(), **changes.get("owner", {})}
    (tmp_path / paths.claim_name(1)).write_bytes(checksums.dump_record({**fields, **changes, "owner": owner}))
    with pytest.raises(CorruptEntryError, match="claim.1.json is damaged"):
        claims.read_claim(tmp_path / paths.claim_name(1), 1)
    owning = claims.owning_claim(tmp_path)
    assert owning is not None and owning.state is ClaimState.RELEASED


def test_a_claim_of_something_that_is_no_process_is_nobodys(tmp_path: Path) -> None:
    fields = json.loads(claim(1, "t").to_json())
    (tmp_path / paths.claim_name(1)).write_bytes(checksums.dump_record({**fields, "owner": {"a": 1}}))
    owning = claims.owning_claim(tmp_path)
    assert owning is not None and owning.state is ClaimState.RELEASED


def test_a_claim_on_a_cluster_that_is_not_known_is_an_error_and_somebodys(tmp_path: Path) -> None:
    """A later version may have published it."""
    path = tmp_path / paths.claim_name(1)
    path.write_bytes(dataclasses.replace(claim(1, "t"), cluster="pbs").to_json())
    with pytest.raises(CacheError, match=rf"{path} has a cluster that this version .* does not know: pbs"):
        claims.owning_claim(tmp_path)
