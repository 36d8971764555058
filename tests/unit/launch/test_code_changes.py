"""Stored results that other code has computed: they are told of, refused or computed anew, as one has chosen."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import shutil
import typing as tp
from pathlib import Path

import pytest
from job_side import kills_itself
from stored import store_value

from hydra_exca import OnCodeChange, checksums, clusters, paths
from hydra_exca.clusters import Options, process
from hydra_exca.errors import CacheError, JobLostError, TaskFailedError
from hydra_exca.identity import uid
from hydra_exca.job import lost
from hydra_exca.job.attempt import Attempt
from hydra_exca.launch.actions import decide, mode_for_other_code
from hydra_exca.launch.launch import Launch
from hydra_exca.launch.results import Result
from hydra_exca.launch.settings import Settings, Task
from hydra_exca.status import Mode, Status
from hydra_exca.store import CacheFolder, Claim, ClaimState, Entry, Outcome, cache_folder

Changes = dict[str, list[str] | None]


def task(x: int = 1, version: str = "0") -> Task:
    return Task(uid.make_identity("train.main", version, {"x": x}), {"x": x}, (f"x={x}",))


class Cache:
    """A cache folder, what its tasks have run, and what launches have said."""

    def __init__(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.folder = CacheFolder(folder / "exca")
        self.ran: list[int] = []
        self._caplog = caplog
        caplog.set_level(logging.INFO, "exca")

    def launch(
        self,
        program: tp.Any,
        *tasks: Task,
        code: str | None = "new",
        on: str = "warn",
        mode: str = "cached",
        changes: Changes | None = None,
        computed: set[str] | None = None,
        told: set[str] | None = None,
    ) -> Launch:
        cluster = clusters.get_cluster("inline", Options())
        known = {"old": ["model.py"]} if changes is None else changes
        settings = Settings(
            self.folder,
            cluster,
            Mode(mode),
            code=code,
            on_code_change=OnCodeChange(on),
            code_changes=known.get,
            option_prefix="door.",
        )
        return Launch(tasks or [task()], program, settings, computed, told)

    def run(self, value: tp.Any, *tasks: Task, **how: tp.Any) -> list[Result]:
        """Each task's result; those that run return ``value``, or raise it."""

        def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
            self.ran.append(argument["x"])
            if isinstance(value, Exception):
                raise value
            return value

        return self.launch(program, *tasks, **how).run()

    def one(self, value: tp.Any, **how: tp.Any) -> Result:
        return self.run(value, **how)[0]

    def entry(self) -> Entry:
        found = self.folder.factory_folder("train.main", "0").find_entry(task().identity)
        assert found is not None
        return found

    @property
    def said(self) -> list[str]:
        """What was said of the code."""
        return [line for line in self._caplog.messages if "code" in line]

    @property
    def warned(self) -> list[str]:
        levels = {record.getMessage(): record.levelno for record in self._caplog.records}
        return [line for line in self.said if levels[line] == logging.WARNING]

    def tree(self) -> dict[str, int]:
        """Everything below the cache folder, to see whether anything changed."""
        return {str(path): path.stat().st_mtime_ns for path in self.folder.path.rglob("*")}


@pytest.fixture
def cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Cache:
    return Cache(tmp_path, caplog)


# -- what is recorded


def test_an_outcome_says_of_which_code_it_is(cache: Cache) -> None:
    outcome = cache.one(1, code="old").entry.outcome()
    assert outcome is not None and outcome.code == "old"


def test_a_failure_says_of_which_code_it_is(cache: Cache) -> None:
    outcome = cache.one(ValueError("no luck"), code="old").entry.outcome()
    assert outcome is not None and (outcome.status, outcome.code) == (Status.FAILED, "old")


def test_an_outcome_from_before_codes_were_recorded_is_read(cache: Cache) -> None:
    entry = cache.one(1, code="old").entry
    fields = checksums.parse_record((entry.path / paths.OUTCOME).read_bytes())
    del fields["code"]
    (entry.path / paths.OUTCOME).write_bytes(checksums.dump_record(fields))
    outcome = entry.outcome()
    assert outcome is not None and outcome.code is None


# -- when it is told


def test_a_result_of_other_code_is_used_and_told_of(cache: Cache) -> None:
    cache.one("old", code="old")
    assert cache.one("new").value == "old" and len(cache.warned) == 1


@pytest.mark.parametrize(("stored", "present"), [("old", "old"), (None, "new"), ("old", None), (None, None)])
def test_the_same_code_and_code_that_is_not_known_are_not_told_of(
    cache: Cache, stored: str | None, present: str | None
) -> None:
    cache.one(1, code=stored)
    cache.one(2, code=present)
    assert cache.said == []


@pytest.mark.parametrize("on", OnCodeChange)
def test_another_digest_of_which_no_file_differs_is_the_same_code(cache: Cache, on: str) -> None:
    cache.one("old", code="old")
    assert cache.one("new", on=on, changes={"old": []}).value == "old" and cache.said == []


def test_a_task_is_told_of_once_to_one_object(cache: Cache) -> None:
    cache.one(1, code="old")
    told: set[str] = set()
    cache.one(2, told=told)
    cache.one(2, told=told)
    assert len(cache.warned) == 1


@pytest.mark.parametrize("on", ["warn", "rerun"])
def test_a_further_batch_is_told_of_its_own_tasks(cache: Cache, on: str) -> None:
    cache.run(1, task(1), task(2), task(3), code="old")
    told: set[str] = set()
    cache.run(2, task(1), told=told, on=on)
    cache.run(2, task(1), task(2), task(3), told=told, on=on)
    assert [line.split()[1:4] for line in cache.said] == [["1", "stored", "result"], ["2", "stored", "results"]]


def test_another_object_is_told_too(cache: Cache) -> None:
    cache.one(1, code="old")
    cache.one(2)
    cache.one(2)
    assert len(cache.warned) == 2


def test_ignore_says_nothing(cache: Cache) -> None:
    cache.one("old", code="old")
    assert cache.one("new", on="ignore").value == "old" and cache.said == []


@pytest.mark.parametrize("on", OnCodeChange)
def test_a_forced_launch_uses_nothing_and_says_nothing(cache: Cache, on: str) -> None:
    cache.one("old", code="old")
    assert cache.one("new", mode="force", on=on).value == "new" and cache.said == []


@pytest.mark.parametrize("on", OnCodeChange)
def test_a_retried_failure_is_not_used_and_not_told_of(cache: Cache, on: str) -> None:
    cache.one(ValueError("no luck"), code="old")
    assert cache.one("new", mode="retry", on=on).value == "new" and cache.said == []


# -- what is told


def test_the_warning_says_how_many_and_which_files_and_what_can_be_chosen_as_the_door_calls_it(cache: Cache) -> None:
    cache.run(1, task(1), task(2), code="old")
    cache.run(2, task(1), task(2), task(3))
    assert cache.warned == [
        "exca: 2 stored results were computed with different code (changed: model.py). "
        "door.on_code_change=rerun recomputes them, another door.version keeps both, "
        "door.on_code_change=ignore silences this warning"
    ]


def test_a_result_that_two_jobs_share_counts_once(cache: Cache) -> None:
    cache.one(1, code="old")
    cache.run(2, task(), task())
    assert "1 stored result was computed with" in cache.warned[0]


def test_failures_are_told_apart_from_results(cache: Cache) -> None:
    cache.run(1, task(1), task(2), code="old")
    cache.run(ValueError("no luck"), task(3), code="old")
    cache.run(2, task(1), task(2), task(3))
    assert "2 stored results and 1 stored failure were computed with different code" in cache.warned[0]


def test_the_files_of_several_codes_are_told_together(cache: Cache) -> None:
    cache.run(1, task(1), code="old")
    cache.run(1, task(2), code="older")
    cache.run(2, task(1), task(2), changes={"old": ["b.py"], "older": ["a.py", "b.py"]})
    assert "with different code (2 states of it; changed: a.py and b.py)" in cache.warned[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"old": ["b", "a"]}, "(changed: a and b)"),
        ({"old": list("hgfedcba")}, "(changed: a, b, c, d, e and 3 more)"),
        ({"old": None}, "(the changed files are not known)"),
    ],
)
def test_only_a_few_of_the_files_are_named(cache: Cache, changes: Changes, words: str) -> None:
    cache.one(1, code="old")
    cache.one(2, changes=changes)
    assert words in cache.warned[0]


def test_files_that_are_not_known_of_one_of_several_codes_are_told_of(cache: Cache) -> None:
    cache.run(1, task(1), code="old")
    cache.run(1, task(2), code="lost")
    cache.run(2, task(1), task(2))
    assert "changed: model.py, and perhaps others)" in cache.warned[0]


def test_how_the_code_differs_is_not_looked_up_for_nothing(cache: Cache) -> None:
    cache.one(1, code="new")
    asked: list[str] = []
    launch = cache.launch(lambda argument, attempt: 2)
    settings = dataclasses.replace(launch.settings, code_changes=lambda digest: asked.append(digest) or [])
    Launch([task()], launch.program, settings).run()
    assert asked == []


def test_a_failure_is_run_again_and_beside_results_the_warning_says_so(cache: Cache) -> None:
    cache.run(1, task(1), code="old")
    cache.run(ValueError("no luck"), task(2), code="old")
    assert [result.value for result in cache.run(2, task(1), task(2))] == [1, 2]
    assert (
        "(changed: model.py); the failure is run again. door.on_code_change=rerun recomputes the results"
        in (cache.warned[0])
    )


def test_a_failure_of_the_present_code_is_not_run_again(cache: Cache) -> None:
    cache.one(ValueError("no luck"), code="new")
    assert isinstance(cache.one("new").error, TaskFailedError)


def test_a_failure_is_run_again_once(cache: Cache) -> None:
    cache.one(ValueError("no luck"), code="old")
    cache.one(ValueError("no luck"))
    assert isinstance(cache.one("new").error, TaskFailedError) and cache.ran == [1, 1]


# -- error


def test_error_runs_nothing_and_lists_tasks_and_files(cache: Cache) -> None:
    cache.run(1, task(1), code="old")
    with pytest.raises(CacheError, match=r"Nothing was run.*changed: model\.py[\s\S]*x=1: x=1-[\s\S]*keeps both"):
        cache.run(2, task(1), task(2), on="error")
    assert cache.ran == [1]


def test_error_writes_nothing(cache: Cache) -> None:
    cache.one(1, code="old")
    before = cache.tree()
    with pytest.raises(CacheError):
        cache.run(2, task(1), task(2), on="error")
    assert cache.tree() == before


def test_error_lists_the_first_tasks_of_many(cache: Cache) -> None:
    tasks = [task(x) for x in range(23)]
    cache.run(1, *tasks, code="old")
    with pytest.raises(CacheError) as raised:
        cache.run(2, *tasks, on="error")
    lines = str(raised.value).splitlines()
    assert len([line for line in lines if ": x=" in line]) == 20 and "  and 3 more" in lines


def test_error_of_a_further_batch_says_nothing_of_the_earlier_ones(cache: Cache) -> None:
    cache.run(1, task(2), code="old")
    computed: set[str] = set()
    cache.run(2, task(1), on="error", computed=computed)
    with pytest.raises(CacheError, match="^Nothing of this batch was run"):
        cache.run(2, task(2), on="error", computed=computed)


def test_error_is_none_where_all_is_of_the_present_code(cache: Cache) -> None:
    cache.one("new")
    assert cache.one("newer", on="error").value == "new"


def test_a_look_does_not_raise_what_error_would(cache: Cache) -> None:
    cache.one(1, code="old")
    launch = cache.launch(lambda argument, attempt: 2, on="error")
    launch.look_up()
    assert "refuses" in str(launch.code_changes)


# -- code that is not known


@pytest.mark.parametrize("on", ["error", "rerun"])
def test_that_it_cannot_be_told_which_code_computed_a_result_is_said_where_one_has_chosen(
    cache: Cache, on: str
) -> None:
    cache.run("old", task(1), task(2), code=None)
    values = [result.value for result in cache.run("new", task(1), task(2), on=on)]
    assert (values, cache.warned) == (
        ["old", "old"],
        [
            f"exca: on_code_change={on}: 2 stored results do not say which code computed them; "
            "they are used nevertheless"
        ],
    )


@pytest.mark.parametrize("on", ["error", "rerun"])
def test_that_results_cannot_be_told_from_the_present_code_is_said_where_that_is_not_copied(
    cache: Cache, on: str
) -> None:
    cache.one("old", code="old")
    assert cache.one("new", code=None, on=on).value == "old" and "as no copy of the current code" in cache.warned[0]


def test_code_that_is_not_known_is_told_of_once_to_one_object(cache: Cache) -> None:
    cache.one("old", code=None)
    told: set[str] = set()
    cache.one("new", on="rerun", told=told)
    cache.one("new", on="rerun", told=told)
    assert len(cache.warned) == 1


# -- what runs just now


def running(cache: Cache, code: str | None) -> Claim:
    """The claim of another launch that computes the task, from this code."""
    shelf = cache.folder.factory_folder("train.main", "0")
    cache.folder.create()
    shelf.create({})
    entry, record = shelf.open_entry(task().identity), paths.launch_folder(cache.folder.path, "theirs")
    claim = Claim(1, ClaimState.QUEUED, "theirs", "inline", None, 0, process.describe_process())
    entry.create()
    assert entry.publish_claim(claim)
    record.mkdir(parents=True)
    (record / paths.LAUNCH_RECORD).write_text(json.dumps({"code": code}))
    return claim


@pytest.mark.parametrize("on", ["warn", "rerun"])
def test_a_task_that_other_code_computes_just_now_is_waited_for_and_told_of(cache: Cache, on: str) -> None:
    claim = running(cache, "old")
    launch = cache.launch(lambda argument, attempt: pytest.fail("it ran"), on=on)
    launch.submit()
    commit(cache, claim, "theirs")
    assert launch.run()[0].value == "theirs"
    assert (
        "1 running task is being computed with different code (changed: model.py); running tasks are joined"
        in cache.warned[0]
    )


def test_a_running_task_is_told_of_beside_stored_results(cache: Cache) -> None:
    cache.run(1, task(2), task(3), code="old")
    running(cache, "old")
    cache.launch(lambda argument, attempt: 2, task(1), task(2), task(3)).plan_tasks()
    assert "2 stored results and 1 running task were or are being computed with" in cache.warned[0]


def test_rerun_says_which_are_computed_anew_and_which_are_waited_for(cache: Cache) -> None:
    cache.run(1, task(2), code="old")
    running(cache, "old")
    cache.launch(lambda argument, attempt: 2, task(1), task(2), on="rerun").plan_tasks()
    assert "; what is stored is recomputed, what runs is joined" in cache.said[0]


def test_error_refuses_a_task_that_other_code_computes_just_now(cache: Cache) -> None:
    running(cache, "old")
    with pytest.raises(
        CacheError, match=r"Nothing was run.*1 running task is being computed with different code[\s\S]*x=1: x=1-"
    ):
        cache.run(2, task(1), task(2), on="error")
    assert cache.ran == []


@pytest.mark.parametrize("code", [None, "new"])
def test_a_running_task_of_the_same_or_of_unknown_code_is_not_told_of(cache: Cache, code: str | None) -> None:
    running(cache, code)
    cache.launch(lambda argument, attempt: 2, on="error").plan_tasks()
    assert cache.said == []


# -- rerun


def test_rerun_computes_anew_what_other_code_has_computed_and_nothing_else(cache: Cache) -> None:
    cache.run("old", task(1), code="old")
    cache.run("new", task(2), code="new")
    values = [result.value for result in cache.run("newer", task(1), task(2), on="rerun")]
    assert (values, cache.ran) == (["newer", "new"], [1, 2, 1])


def test_rerun_says_what_it_does(cache: Cache) -> None:
    cache.one("old", code="old")
    cache.one("new", on="rerun")
    assert (
        cache.said == ["exca: 1 stored result was computed with different code (changed: model.py); it is recomputed"]
        and not cache.warned
    )


def test_what_was_computed_anew_is_of_the_present_code(cache: Cache) -> None:
    cache.one("old", code="old")
    cache.one("new", on="rerun")
    assert cache.one("newer", on="rerun").value == "new" and cache.ran == [1, 1]


def test_rerun_computes_a_failure_of_other_code_anew(cache: Cache) -> None:
    cache.one(ValueError("no luck"), code="old")
    assert cache.one("new", on="rerun").value == "new"


def test_rerun_leaves_a_failure_of_the_present_code(cache: Cache) -> None:
    cache.one(ValueError("no luck"), code="new")
    assert isinstance(cache.one("new", on="rerun").error, TaskFailedError) and cache.ran == [1]


def test_rerun_leaves_a_result_of_which_the_code_is_not_known(cache: Cache) -> None:
    cache.one("old", code=None)
    assert cache.one("new", on="rerun").value == "old"


def test_while_a_result_is_computed_anew_the_old_one_is_kept(cache: Cache) -> None:
    cache.one("old", code="old")

    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        return attempt.entry.load_value(attempt.entry.previous_outcome())

    assert cache.launch(program, on="rerun").run()[0].value == "old"


def test_what_is_computed_anew_starts_with_an_empty_output_folder(cache: Cache) -> None:
    def leaves(argument: tp.Any, attempt: Attempt) -> tp.Any:
        attempt.entry.output.mkdir(exist_ok=True)
        seen = os.listdir(attempt.entry.output)
        (attempt.entry.output / "model").touch()
        return seen

    cache.launch(leaves, code="old").run()
    assert cache.launch(leaves, on="rerun").run()[0].value == []


def test_a_rerun_that_is_interrupted_brings_the_old_result_back(cache: Cache) -> None:
    cache.one("old", code="old")

    def interrupts(argument: tp.Any, attempt: Attempt) -> tp.Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.launch(interrupts, on="rerun").run()
    assert cache.one("new").value == "old"


def test_a_rerun_that_fails_keeps_the_old_result_beside_the_error(cache: Cache) -> None:
    cache.one("old", code="old")
    failed = cache.one(ValueError("no luck"), on="rerun")
    assert "an earlier value is kept" in str(failed.error) and failed.entry.previous_outcome().code == "old"


def test_a_rerun_that_could_not_be_submitted_holds_nobody_up(cache: Cache) -> None:
    cache.one("old", code="old")
    launch = cache.launch(lambda argument, attempt: "mine", on="rerun")

    def fails() -> tp.Any:
        raise OSError(errno.ENOSPC, "no space left")

    with pytest.raises(CacheError, match="no space"):
        Launch([task()], launch.program, dataclasses.replace(launch.settings, here=fails)).run()
    assert launch.run()[0].value == "mine"


def test_a_rerun_whose_entry_somebody_deletes_is_computed_once_more(cache: Cache) -> None:
    cache.one("old", code="old")
    starts: list[int] = []

    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        starts.append(attempt.claim.number)
        if len(starts) == 1:
            shutil.rmtree(attempt.entry.path)
        return "new"

    assert cache.launch(program, on="rerun").run()[0].value == "new" and len(starts) == 2


def test_rerun_applies_once_to_one_object(cache: Cache) -> None:
    cache.one("old", code="old")
    computed: set[str] = set()
    cache.one("new", on="rerun", computed=computed)
    assert cache.one("newer", on="rerun", computed=computed, code="newest").value == "new"


def test_retry_with_rerun_computes_each_task_once(cache: Cache) -> None:
    cache.run("old", task(1), code="old")
    cache.run(ValueError("no luck"), task(2), code="old")
    values = [result.value for result in cache.run("new", task(1), task(2), mode="retry", on="rerun")]
    assert (values, cache.ran) == (["new", "new"], [1, 2, 1, 2])


def test_read_only_wins_over_rerun_and_warns(cache: Cache) -> None:
    cache.one("old", code="old")
    assert cache.one("new", mode="read-only", on="rerun").value == "old"
    assert "In another mode than read-only" in cache.warned[0]


def test_a_survey_that_finds_other_code_writes_nothing(cache: Cache) -> None:
    cache.one(1, code="old")
    before = cache.tree()
    cache.launch(lambda argument, attempt: 2, on="rerun").plan_tasks()
    assert cache.tree() == before


# -- rerun, and jobs that are lost


def lose(cache: Cache, tasks: int = 1, **how: tp.Any) -> list[Result]:
    """Stores values, then loses the jobs that are to replace them."""
    several = [task(x) for x in range(1, tasks + 1)]
    cache.run("old", *several, code="old")
    launch = cache.launch(kills_itself, *several, on="rerun")
    cluster = clusters.get_cluster("local", Options())
    return Launch(several, kills_itself, dataclasses.replace(launch.settings, cluster=cluster, **how)).run()


PACKED = {"tasks_per_job": 2}


@pytest.mark.app
@pytest.mark.parametrize("how", [{}, PACKED], ids=["alone", "packed"])
def test_a_lost_job_that_was_to_replace_a_value_gives_it_back(cache: Cache, how: dict[str, tp.Any]) -> None:
    lose(cache, 2, **how)
    assert [result.value for result in cache.run("new", task(1), task(2))] == ["old", "old"]


@pytest.mark.app
@pytest.mark.parametrize("how", [{}, PACKED], ids=["alone", "packed"])
def test_who_waited_for_it_is_told_that_the_job_was_lost(cache: Cache, how: dict[str, tp.Any]) -> None:
    errors = [result.error for result in lose(cache, 2, **how)]
    assert all(isinstance(error, JobLostError) for error in errors)
    assert all("SIGKILL (signal 9); the earlier value is stored again" in str(error) for error in errors)


@pytest.mark.app
def test_a_value_that_came_back_can_be_replaced(cache: Cache) -> None:
    lose(cache)
    assert cache.one("new", on="rerun").value == "new"


def test_who_has_joined_is_told_that_the_job_was_lost(cache: Cache) -> None:
    claim, launch = replacing(cache)
    launch.submit()
    note_loss(cache, claim)
    assert isinstance(launch.run()[0].error, JobLostError)


def test_a_loss_from_before_is_not_told_to_who_waits_for_the_next_attempt(cache: Cache) -> None:
    claim, _ = replacing(cache)
    note_loss(cache, claim)
    launch = cache.launch(lambda argument, attempt: pytest.fail("it ran"), on="rerun")
    claim = claimed(cache)
    launch.submit()
    left = launch.poll()
    commit(cache, claim, "theirs")
    assert (left, launch.run()[0].value) == (1, "theirs")


def test_a_job_that_is_about_to_store_its_value_is_not_lost(cache: Cache) -> None:
    claim, _ = replacing(cache)
    assert cache.entry().publish_claim(claim.next(ClaimState.COMMITTING))
    assert (note_loss(cache, claim), cache.entry().outcome()) == (False, None)


def test_a_value_that_is_given_up_while_its_launch_waits_is_computed_once_more(cache: Cache) -> None:
    cache.one("old", code="old")
    starts: list[int] = []

    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        starts.append(attempt.claim.number)
        if len(starts) == 1:
            attempt.entry.release_claim(attempt.claim)
        return "new"

    assert cache.launch(program, on="rerun").run()[0].value == "new" and len(starts) == 2


# -- rerun, and others at the same task


def replacing(cache: Cache) -> tuple[Claim, Launch]:
    """The claim of another launch that has made room for what it computes, and a launch that would join it."""
    cache.one("old", code="old")
    claim = claimed(cache)
    cache.entry().set_previous_aside(keep_output=False)
    return claim, cache.launch(lambda argument, attempt: pytest.fail("it ran"), on="rerun")


def note_loss(cache: Cache, claim: Claim) -> bool:
    """Writes down that the job of a claim is no more."""
    report = clusters.JobReport(clusters.JobState.ENDED, "CANCELLED", clusters.JobEnd.REMOVED)
    loss = lost.describe_lost_job(cache.entry(), claim, task().identity.to_json(), report)
    return lost.record_lost_job(cache.entry(), claim, loss)


def claimed(cache: Cache) -> Claim:
    """The claim of another launch, alive, that is to replace what is stored and has not made room yet."""
    last = cache.entry().current_claim()
    assert last is not None
    claim = last.next(ClaimState.QUEUED, token="theirs", owner=process.describe_process())
    assert cache.entry().publish_claim(claim)
    return claim


def commit(cache: Cache, claim: Claim, value: str) -> None:
    """What that launch does in the end."""
    entry = cache.entry()
    entry.set_previous_aside(keep_output=False)
    stored = store_value(entry.path, claim.number, value)
    outcome = Outcome(Status.COMPLETED, claim.number, task().identity.to_json(), stored, token="theirs", code="new")
    assert entry.commit_outcome(claim, outcome)


def test_what_another_launch_is_about_to_replace_is_waited_for(cache: Cache) -> None:
    cache.one("old", code="old")
    claim = claimed(cache)
    launch = cache.launch(lambda argument, attempt: pytest.fail("it ran"), on="rerun")
    launch.submit()
    left = launch.poll()
    commit(cache, claim, "theirs")
    assert (left, launch.run()[0].value) == (1, "theirs")


def test_what_another_launch_gave_up_to_replace_is_computed_here(cache: Cache) -> None:
    cache.one("old", code="old")
    claim = claimed(cache)
    launch = cache.launch(lambda argument, attempt: "mine", on="rerun")
    launch.submit()
    cache.entry().release_claim(claim)
    assert launch.run()[0].value == "mine"


def test_a_replacement_that_another_launch_has_begun_since_the_survey_is_waited_for(cache: Cache) -> None:
    cache.one("old", code="old")
    launch = cache.launch(lambda argument, attempt: pytest.fail("it ran"), on="rerun")
    launch.plan_tasks()
    claim = claimed(cache)
    launch.submit()
    left = launch.poll()
    commit(cache, claim, "theirs")
    assert (left, launch.run()[0].value) == (1, "theirs")


def test_a_replacement_that_came_since_the_survey_is_used(cache: Cache) -> None:
    cache.one("old", code="old")
    launch = cache.launch(lambda argument, attempt: pytest.fail("it ran"), on="rerun")
    launch.plan_tasks()
    commit(cache, claimed(cache), "theirs")
    assert launch.run()[0].value == "theirs"


def test_a_failure_that_another_launch_is_about_to_retry_is_waited_for(cache: Cache) -> None:
    cache.one(ValueError("no luck"), code="new")
    claim = claimed(cache)
    launch = cache.launch(lambda argument, attempt: pytest.fail("it ran"), mode="retry")
    launch.submit()
    left = launch.poll()
    commit(cache, claim, "theirs")
    assert (left, launch.run()[0].value) == (1, "theirs")


# -- the table


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("on", [on for on in OnCodeChange if on is not OnCodeChange.RERUN])
def test_only_rerun_changes_what_is_done_and_warn_for_a_failure(status: Status, mode: Mode, on: OnCodeChange) -> None:
    is_again = (status, mode, on) == (Status.FAILED, Mode.CACHED, OnCodeChange.WARN)
    assert mode_for_other_code(status, mode, on) is (Mode.RETRY if is_again else mode)


@pytest.mark.parametrize("mode", Mode)
def test_rerun_cancels_nothing_that_the_mode_would_not(mode: Mode) -> None:
    rerun = mode_for_other_code(Status.RUNNING, mode, OnCodeChange.RERUN)
    assert decide(Status.RUNNING, rerun) is decide(Status.RUNNING, mode)


def test_the_public_words_are_these() -> None:
    assert [str(word) for word in OnCodeChange] == ["warn", "ignore", "error", "rerun"]


# -- other versions


def test_other_versions_are_counted_by_their_results(cache: Cache) -> None:
    cache.run(1, task(1, "1"), task(2, "1"), task(1, "2"))
    assert cache.folder.other_versions("train.main", "0") == {"1": 2, "2": 1}


def test_a_failure_is_no_result_of_another_version(cache: Cache) -> None:
    cache.run(1, task(1, "1"))
    cache.run(ValueError("no luck"), task(2, "1"), task(1, "2"))
    assert cache.folder.other_versions("train.main", "0") == {"1": 1}


def test_the_versions_that_are_used_are_no_other_ones(cache: Cache) -> None:
    cache.run(1, task(1, "1"), task(1, "2"))
    assert cache.folder.other_versions("train.main", "1", "2") == {}


def test_versions_of_other_factories_are_not_counted(cache: Cache) -> None:
    cache.run(1, task(1, "1"))
    assert cache.folder.other_versions("train", "0") == {}


def test_no_more_results_of_another_version_are_read_than_are_told_of(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_folder, "MOST_COUNTED", 2)
    cache.run(*(task(x, "1") for x in range(4)))
    assert cache.folder.other_versions("train.main", "0") == {"1": 2}


def test_of_many_other_versions_the_newest_are_counted(cache: Cache) -> None:
    for number, version in enumerate("dacb"):
        cache.run(1, task(1, version))
        os.utime(paths.factory_folder(cache.folder.path, "train.main", version), (number, number))
    assert list(cache.folder.other_versions("train.main", "0")) == ["b", "c", "a"]


def test_a_damaged_entry_of_another_version_is_passed_over(cache: Cache) -> None:
    results = cache.run(1, task(1, "1"), task(2, "1"))
    (results[0].entry.path / paths.OUTCOME).write_text("")
    assert cache.folder.other_versions("train.main", "0") == {"1": 1}


def test_a_folder_that_is_not_there_has_no_other_versions(cache: Cache) -> None:
    assert cache.folder.other_versions("train.main", "0") == {}
