"""Submitting to Slurm: an sbatch that fails on the way, and a queue with little room."""

from __future__ import annotations

import os
import typing as tp
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_jobs import (
    Submit,
    batches,
    ends,
    has_started,
    let_go,
    most_at_a_time,
    runs,
    started,
    submitting,
    until,
)
from faults import OwnSlurm, OwnSlurms, accepted, calls, counted, sbatch_that, without

from hydra_exca.clusters import Batch, ClusterSubmission
from hydra_exca.clusters.slurm import sbatch
from hydra_exca.errors import SubmissionError


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Batch]:
    return batches(tmp_path, monkeypatch)


@pytest.fixture
def submit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Submit]:
    """Ends what it has submitted where it has submitted it: before the environment is as it was."""
    with submitting() as submit:
        yield submit


def use(monkeypatch: pytest.MonkeyPatch, environment: tp.Mapping[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("below", ["50%", "50%job t", "%A"])
def test_a_folder_with_a_percent_sign_keeps_the_output_of_jobs(
    submit: Submit, batch: Callable[..., Batch], count: int, below: str
) -> None:
    mine = batch("prints", count=count, below=below)
    submission = submit("slurm", mine)
    ends(submission, count)
    logs = [f"{id_}_0_log.out" for id_ in submission.job_ids.values()]
    assert runs(mine) == [1] * count and all((mine.folder / name).read_text() == "a line\n" for name in logs)


# -- an sbatch that fails ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_what_was_accepted_by_an_sbatch_that_failed_is_found_and_not_submitted_again(
    submit: Submit, batch: Callable[..., Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    use(monkeypatch, sbatch_that(tmp_path / "fault", "fails after it was accepted"))
    mine = batch(count=count, below="my results")
    submission = submit("slurm", mine)
    ends(submission, count)
    (id_,) = accepted(tmp_path / "fault")
    names = [id_] if count == 1 else [f"{id_}_{index}" for index in range(count)]
    assert (list(submission.job_ids.values()), runs(mine)) == (names, [1] * count)


def test_an_sbatch_that_could_not_reach_slurm_is_called_again(
    submit: Submit, batch: Callable[..., Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, sbatch_that(tmp_path / "fault", "times out without accepting", times=2))
    monkeypatch.setattr(sbatch, "_PAUSES_S", (0.01, 0.01, 0.01))
    mine = batch(count=2)
    ends(submit("slurm", mine), 2)
    assert runs(mine) == [1, 1] and len((tmp_path / "fault" / "calls").read_text().splitlines()) == 3


def test_an_sbatch_that_never_reaches_slurm_is_an_error_in_its_words(
    submit: Submit, batch: Callable[..., Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, sbatch_that(tmp_path / "fault", "times out without accepting", times=None))
    monkeypatch.setattr(sbatch, "_PAUSES_S", (0.01, 0.01))
    with pytest.raises(SubmissionError, match=r"(?s)nothing was submitted.*Socket timed out on send/recv operation"):
        submit("slurm", batch())


def test_where_nobody_can_tell_whether_jobs_were_accepted_the_error_says_so(
    submit: Submit, batch: Callable[..., Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, without(tmp_path / "fault", "sbatch", "squeue"))
    monkeypatch.setattr(sbatch, "_PAUSES_S", (0.01, 0.01))
    with pytest.raises(SubmissionError, match=r"(?s)Connection refused.*Nor does squeue answer"):
        submit("slurm", batch())


def test_a_refusal_is_not_tried_again(
    submit: Submit, batch: Callable[..., Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, counted(tmp_path / "counted"))
    with pytest.raises(SubmissionError, match="invalid partition"):
        submit("slurm", batch(), slurm={"partition": "nowhere"})
    assert len(calls(tmp_path / "counted", "sbatch")) == 1


def test_a_refused_array_leaves_the_earlier_ones_and_tells_of_them(
    batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = batch(count=3)
    with submitting() as submit:
        with pytest.raises(SubmissionError, match=r"1 of 3 were submitted before, as \d+, and go on"):
            submit("slurm", mine, per_job=[{}, *[{"slurm_partition": "nowhere"}] * 2])
        until((mine.folder / "0.done").exists)
    assert runs(mine) == [1, 0, 0]


def test_what_was_submitted_before_a_refusal_is_known(batch: Callable[..., Batch]) -> None:
    made: list[ClusterSubmission] = []
    with submitting(made) as submit, pytest.raises(SubmissionError):
        submit("slurm", batch(count=2), per_job=[{}, {"slurm_partition": "nowhere"}])
    assert set(made[0].job_ids) == {0}


# -- a queue with little room ------------------------------------------------------------------------------------------


@pytest.fixture
def own(own_slurm: OwnSlurms, monkeypatch: pytest.MonkeyPatch) -> Callable[..., OwnSlurm]:
    """A Slurm of one's own, in the place of the one that all tests share."""

    def start(accounting: bool = False, **settings: object) -> OwnSlurm:
        slurm = own_slurm(accounting=accounting, **settings)
        use(monkeypatch, slurm.environment)
        return slurm

    return start


def arrays(submission: ClusterSubmission) -> list[str]:
    """The arrays, or jobs alone, that were submitted, in their order."""
    return list(dict.fromkeys(str(job).partition("_")[0] for job in submission.job_ids.values()))


def queued(slurm: OwnSlurm) -> int:
    return len(slurm.squeue("-r", "-t", "PENDING,RUNNING,COMPLETING", "-o", "%i").split())


def most_queued(slurm: OwnSlurm, submission: ClusterSubmission, count: int) -> int:
    """How many jobs were in the queue at most until so many had ended."""
    seen: list[int] = []
    left = set(range(count))

    def step() -> bool:
        left.difference_update(submission.poll())
        seen.append(queued(slurm))
        return not left

    until(step, 120)
    return max(seen)


def test_arrays_are_cut_where_slurm_takes_no_larger_ones(
    submit: Submit, batch: Callable[..., Batch], own: Callable[..., OwnSlurm]
) -> None:
    own(MaxArraySize=3)
    mine = batch(count=7)
    submission = submit("slurm", mine)
    ends(submission, 7)
    first, second, third = arrays(submission)
    assert list(submission.job_ids.values()) == [f"{id_}_{index}" for id_ in (first, second) for index in range(3)] + [
        third
    ]
    assert runs(mine) == [1] * 7


def test_each_group_of_equal_resources_is_an_array_of_its_own(submit: Submit, batch: Callable[..., Batch]) -> None:
    mine = batch(count=4)
    submission = submit("slurm", mine, per_job=[{}, {}, {"timeout_min": 7}, {"timeout_min": 7}])
    ends(submission, 4)
    assert [str(job).partition("_")[2] for job in submission.job_ids.values()] == ["0", "1", "0", "1"]
    assert len(arrays(submission)) == 2 and runs(mine) == [1] * 4


@pytest.mark.parametrize(("largest", "count", "most"), [(4, 12, 3), (2, 8, 2), (2, 7, 3)])
def test_no_more_jobs_run_at_a_time_than_may_over_all_arrays(
    submit: Submit, batch: Callable[..., Batch], own: Callable[..., OwnSlurm], largest: int, count: int, most: int
) -> None:
    own(MaxArraySize=largest)
    mine = batch("brief", count=count)
    submission = submit("slurm", mine, array_parallelism=most)
    ends(submission, count)
    assert most_at_a_time(mine) == most and runs(mine) == [1] * count


def test_what_one_array_needs_no_more_another_may_use(
    submit: Submit, batch: Callable[..., Batch], own: Callable[..., OwnSlurm]
) -> None:
    own(MaxArraySize=4)
    mine = batch("wait", count=8)
    submission = submit("slurm", mine, array_parallelism=4)
    for number in range(4):
        let_go(mine, number)
    until(lambda: submission.poll() is not None and all(has_started(mine, number) for number in range(4, 8)))
    assert most_at_a_time(mine) <= 4


def test_no_more_jobs_are_in_the_queue_than_the_launch_may_have(
    submit: Submit, batch: Callable[..., Batch], own: Callable[..., OwnSlurm]
) -> None:
    slurm = own()
    mine = batch(count=7)
    submission = submit("slurm", mine, max_queued=3)
    assert most_queued(slurm, submission, 7) == 3 and runs(mine) == [1] * 7


def test_a_full_queue_is_waited_for(submit: Submit, batch: Callable[..., Batch], own: Callable[..., OwnSlurm]) -> None:
    own()
    mine = batch("wait", count=3)
    submission = submit("slurm", mine, max_queued=2)
    for number in (0, 1):
        started(mine, submission, number)
    assert list(submission.unstarted_jobs()) == [2]
    let_go(mine, 0)
    started(mine, submission, 2)


@pytest.mark.parametrize("known", [True, False])
def test_a_limit_of_the_site_is_never_exceeded_and_all_jobs_run(
    submit: Submit,
    batch: Callable[..., Batch],
    own: Callable[..., OwnSlurm],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    known: bool,
) -> None:
    """Where the limit cannot be asked for, it is learnt from what is refused."""
    slurm = own(accounting=True, AccountingStorageEnforce="limits")
    slurm.set_limit(MaxSubmitJobs=3)
    hidden = {} if known else without(tmp_path / "hidden", "sacctmgr")
    use(monkeypatch, counted(tmp_path / "counted", over={**os.environ, **hidden}))
    mine = batch(count=8)
    submission = submit("slurm", mine)
    assert most_queued(slurm, submission, 8) <= 3 and runs(mine) == [1] * 8
    tried = len(calls(tmp_path / "counted", "sbatch"))
    assert tried == len(arrays(submission)) if known else tried > len(arrays(submission))


def test_a_queue_that_is_full_of_other_jobs_is_waited_for(
    submit: Submit, batch: Callable[..., Batch], own: Callable[..., OwnSlurm]
) -> None:
    slurm = own(accounting=True, AccountingStorageEnforce="limits")
    slurm.set_limit(MaxSubmitJobs=2)
    others = slurm.run("sbatch", "--parsable", "--hold", "--array=0-1", "--output=/dev/null", "--wrap", "true")
    mine = batch(count=3)
    submission = submit("slurm", mine)
    assert list(submission.unstarted_jobs()) == [0, 1, 2]
    slurm.run("scancel", others)
    ends(submission, 3)
    assert runs(mine) == [1, 1, 1]


def test_one_job_that_is_over_a_limit_with_none_before_it_is_an_error_in_slurms_words(
    submit: Submit, batch: Callable[..., Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, sbatch_that(tmp_path / "fault", "refuses", times=None))
    with pytest.raises(SubmissionError, match=r"(?s)nothing was submitted.*job submit limit"):
        submit("slurm", batch(count=4))


def test_what_is_over_a_limit_while_others_of_the_launch_run_is_submitted_later(
    submit: Submit, batch: Callable[..., Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, sbatch_that(tmp_path / "fault", "refuses", first=2))
    mine = batch(count=4)
    submission = submit("slurm", mine, per_job=[{}, {}, {"timeout_min": 7}, {"timeout_min": 7}])
    assert list(submission.unstarted_jobs()) == [2, 3]
    ends(submission, 4)
    assert runs(mine) == [1] * 4


def test_a_job_that_was_not_submitted_yet_is_cancelled_by_never_being_submitted(
    submit: Submit, batch: Callable[..., Batch]
) -> None:
    mine = batch(count=2)
    submission = submit("slurm", mine, max_queued=1)
    assert submission.cancel_job(1)
    assert ends(submission, 2)[1].reason == "cancelled before it was submitted" and runs(mine) == [1, 0]


def test_while_slurm_does_not_answer_nothing_is_concluded_and_it_is_said_once(
    submit: Submit,
    batch: Callable[..., Batch],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mine = batch(count=2)
    submission = submit("slurm", mine, poll_s=0)
    until(lambda: all((mine.folder / f"{number}.done").exists() for number in (0, 1)))
    with monkeypatch.context() as silence:
        use(silence, without(tmp_path / "silent", "squeue", "sacct"))
        assert [submission.poll() for _ in range(3)] == [{}, {}, {}]
    ends(submission, 2)
    said = [record.getMessage() for record in caplog.records if "answer" in record.getMessage()]
    assert [message.split(";")[0] for message in said] == ["exca: Slurm does not answer", "exca: Slurm answers again"]
