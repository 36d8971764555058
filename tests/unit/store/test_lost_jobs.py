"""Entries whose job is believed to be lost: what it commits, if it is alive after all, is accepted or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored import store_value

from hydra_exca import checksums, clusters, paths
from hydra_exca.identity import uid
from hydra_exca.job import lost
from hydra_exca.status import Status
from hydra_exca.store import Claim, ClaimState, Entry, Outcome

OWNER = clusters.describe_process()
IDENTITY = uid.make_identity("train.main", "0", {"x": 1}).to_json()
GONE = clusters.JobReport(clusters.JobState.ENDED, "VANISHED", clusters.JobEnd.VANISHED)


@pytest.fixture
def first(tmp_path: Path) -> Claim:
    """The claim under which a job computes."""
    claim = Claim(1, ClaimState.RUNNING, "first", "slurm", "12", 0, OWNER)
    assert Entry(tmp_path).publish_claim(claim)
    return claim


def commits(entry: Entry, claim: Claim, value: str) -> bool:
    stored = store_value(entry.path, claim.number, value)
    outcome = Outcome(Status.COMPLETED, claim.number, IDENTITY, stored, token=claim.token)
    return entry.commit_outcome(claim, outcome)


def give_up(entry: Entry, claim: Claim) -> bool:
    return lost.give_up_lost_job(entry, claim, lost.describe_lost_job(entry, claim, IDENTITY, GONE))


def value_of(entry: Entry) -> str:
    outcome = entry.outcome()
    assert outcome is not None
    return str(entry.load_value(outcome))


@pytest.mark.parametrize("state", [ClaimState.QUEUED, ClaimState.RUNNING])
def test_a_lost_job_commits_before_the_one_that_replaces_it(tmp_path: Path, first: Claim, state: ClaimState) -> None:
    entry, second = Entry(tmp_path), first.next(state, token="second", lost=("first",))
    entry.publish_claim(second)
    assert commits(entry, first, "of the first") and not commits(entry, second, "of the second")
    assert value_of(entry) == "of the first"


def test_a_lost_job_does_not_commit_after_the_one_that_replaces_it(tmp_path: Path, first: Claim) -> None:
    entry, second = Entry(tmp_path), first.next(ClaimState.RUNNING, token="second", lost=("first",))
    entry.publish_claim(second)
    assert commits(entry, second, "of the second") and not commits(entry, first, "of the first")
    assert value_of(entry) == "of the second"


def test_a_lost_job_commits_after_it_was_given_up(tmp_path: Path, first: Claim) -> None:
    entry = Entry(tmp_path)
    assert give_up(entry, first) and entry.outcome() is None
    assert commits(entry, first, "after all") and value_of(entry) == "after all"


def test_both_lost_jobs_of_a_task_may_commit_and_the_first_outcome_stays(tmp_path: Path, first: Claim) -> None:
    entry, second = Entry(tmp_path), first.next(ClaimState.RUNNING, token="second", lost=("first",))
    entry.publish_claim(second)
    give_up(entry, second)
    assert commits(entry, first, "of the first") and not commits(entry, second, "of the second")


def test_an_error_of_a_lost_job_is_not_stored_as_its_cancellation_may_be_the_cause(
    tmp_path: Path, first: Claim
) -> None:
    entry = Entry(tmp_path)
    give_up(entry, first)
    error = {"kind": "raised", "type": "OSError", "message": "", "traceback": ""}
    assert not entry.commit_outcome(first, Outcome(Status.FAILED, 1, IDENTITY, error=error)) and not entry.outcome()


def test_a_job_that_was_taken_over_for_another_reason_commits_nothing(tmp_path: Path, first: Claim) -> None:
    entry = Entry(tmp_path)
    entry.publish_claim(first.next(ClaimState.QUEUED, token="forced"))
    assert not commits(entry, first, "old") and entry.outcome() is None


def test_a_job_that_its_launch_gave_up_commits_nothing(tmp_path: Path, first: Claim) -> None:
    entry = Entry(tmp_path)
    entry.release_claim(first)
    assert not commits(entry, first, "old") and entry.outcome() is None


def test_the_loss_of_a_job_is_not_stored_over_the_one_that_replaces_it(tmp_path: Path, first: Claim) -> None:
    entry = Entry(tmp_path)
    entry.publish_claim(first.next(ClaimState.RUNNING, token="second", lost=("first",)))
    loss = lost.describe_lost_job(entry, first, IDENTITY, GONE)
    assert not lost.record_lost_job(entry, first, loss) and entry.outcome() is None


def test_a_commit_ends_the_memory_of_lost_jobs(tmp_path: Path, first: Claim) -> None:
    entry, second = Entry(tmp_path), first.next(ClaimState.RUNNING, token="second", lost=("first",))
    entry.publish_claim(second)
    commits(entry, second, "of the second")
    owner = entry.current_claim()
    assert owner is not None and owner.lost == ()


def test_a_claim_without_lost_jobs_is_written_as_before(tmp_path: Path, first: Claim) -> None:
    fields = checksums.parse_record((tmp_path / paths.claim_name(1)).read_bytes())
    assert "lost" not in fields


def test_a_claim_names_lost_jobs_when_it_is_read_back(tmp_path: Path, first: Claim) -> None:
    Entry(tmp_path).publish_claim(first.next(ClaimState.QUEUED, token="second", lost=("first",)))
    owner = Entry(tmp_path).current_claim()
    assert owner is not None and owner.lost == ("first",)


@pytest.mark.parametrize("damage", ["first", [1], ["../elsewhere"], 3])
def test_a_claim_with_damaged_lost_jobs_is_nobodys(tmp_path: Path, first: Claim, damage: object) -> None:
    fields = {**vars(first), "lost": damage}
    del fields["writer"]
    (tmp_path / paths.claim_name(2)).write_bytes(checksums.dump_record(fields))
    owner = Entry(tmp_path).current_claim()
    assert owner is not None and owner.state is ClaimState.RELEASED and owner.lost == ()
