"""A launch as a whole: nothing computed is lost, nothing is computed twice, nothing waits for ever."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import typing as tp
from pathlib import Path

import numpy as np
import psutil
import pytest
from cluster_jobs import until
from stored import store_value

from hydra_exca import checksums, clusters, files, paths
from hydra_exca.clusters import Options, process
from hydra_exca.errors import (
    CacheError,
    ConfigError,
    CorruptEntryError,
    DefaultsChangedError,
    JobLostError,
    SubmissionError,
    TaskFailedError,
)
from hydra_exca.identity import uid
from hydra_exca.job.attempt import Attempt
from hydra_exca.launch import cancellation
from hydra_exca.launch.actions import Action
from hydra_exca.launch.launch import Launch, Result
from hydra_exca.launch.launched_task import LaunchedTask
from hydra_exca.launch.lookup import Lookup, is_given_up
from hydra_exca.launch.settings import Settings, Task
from hydra_exca.status import Mode, OnFailure, Status
from hydra_exca.store import CacheFolder, Claim, ClaimState, Entry, Outcome

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
NOBODY = 65534
CLUSTERS = ["inline", "local", pytest.param("slurm", marks=pytest.mark.slurm)]
JOBS_OF_THEIR_OWN = CLUSTERS[1:]
fork = multiprocessing.get_context("fork")
PROJECT = {"remote": "host/project"}


def task(x: tp.Any = 1, **more: tp.Any) -> Task:
    fields = {"x": x}
    return Task(uid.make_identity("train.main", "0", fields, **more), fields, (f"x={x}",))


def launch(
    folder: Path,
    tasks: tp.Sequence[Task],
    program: tp.Any,
    mode: str = "cached",
    cluster: str = "inline",
    **more: tp.Any,
) -> Launch:
    computed = more.pop("computed", None)
    parallel = more.pop("parallel", 4)
    trust = more.pop("trust", ())
    slurm = more.pop("slurm", {})
    where = clusters.get_cluster(cluster, Options(more, slurm, array_parallelism=parallel))
    settings = Settings(CacheFolder(folder / "exca", trust), where, Mode(mode), PROJECT)
    return Launch(tasks, program, settings, computed)


def run(folder: Path, tasks: tp.Sequence[Task], program: tp.Any, mode: str = "cached", **more: tp.Any) -> list[Result]:
    return launch(folder, tasks, program, mode, **more).run()


def one(folder: Path, program: tp.Any, mode: str = "cached", **more: tp.Any) -> Result:
    return run(folder, [task()], program, mode, **more)[0]


def entry_of(folder: Path, of: Task | None = None) -> Entry:
    """The entry of a task, made if need be, as another launch would make it."""
    cache = CacheFolder(folder / "exca")
    cache.create()
    shelf = cache.factory_folder("train.main", "0")
    shelf.create(PROJECT)
    return shelf.open_entry((of or task()).identity)


class Elsewhere:
    """A call in a process of its own: what it returns, or its error."""

    def __init__(self, function: tp.Callable[[], tp.Any], user: int | None = None) -> None:
        self._here, there = fork.Pipe(False)

        def body() -> None:
            if user is not None:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            try:
                there.send((True, function()))
            except BaseException as error:  # noqa: BLE001  it is handed on
                there.send((False, f"{type(error).__name__}: {error}"))

        self.process = fork.Process(target=body)
        self.process.start()

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *raised: tp.Any) -> None:
        self.process.kill()
        self.process.join()
        self._here.close()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def result(self, seconds: float = 30) -> tp.Any:
        assert self._here.poll(seconds), "it waits for ever"
        ok, value = self._here.recv()
        self.process.join(10)
        assert ok, value
        return value

    def error(self, seconds: float = 30) -> str:
        assert self._here.poll(seconds), "it waits for ever"
        ok, value = self._here.recv()
        self.process.join(10)
        assert not ok, f"no error but {value}"
        return str(value)


def elsewhere(function: tp.Callable[[], tp.Any], seconds: float = 30) -> tp.Any:
    """What a call returns in a process of its own, in time."""
    with Elsewhere(function) as call:
        return call.result(seconds)


def says(folder: Path, value: tp.Any = "value") -> tp.Any:
    """A program that notes each of its runs."""

    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        with open(folder / "runs", "a") as file:
            file.write(f"{argument['x']}\n")
        return value

    return program


def waits(folder: Path, value: tp.Any = "slow") -> tp.Any:
    """A program that notes its run and returns once there is a file ``go``."""

    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:

        with open(folder / "runs", "a") as file:
            file.write(f"{argument['x']}\n")
        deadline = time.monotonic() + 60
        while not (folder / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return value

    return program


def runs(folder: Path) -> list[str]:
    path = folder / "runs"
    return sorted(path.read_text().split()) if path.exists() else []


def fails(argument: tp.Any, attempt: Attempt) -> tp.Any:
    raise ValueError("no luck")


def failing() -> tp.Any:
    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        raise ValueError("no luck")

    return program


def tree(folder: Path) -> dict[str, tuple[int, float]]:
    """Everything below a folder, to see whether anything changed."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime) for path in folder.rglob("*")}


def files_of(entry: Entry) -> list[str]:
    return sorted(name for name in os.listdir(entry.path) if not name.startswith("claim."))


# -- computed once, on every cluster


@pytest.mark.app
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_what_was_computed_is_not_computed_again(tmp_path: Path, cluster: str) -> None:
    tasks = [task(1), task(2)]
    first = run(tmp_path, tasks, says(tmp_path), cluster=cluster)
    again = run(tmp_path, tasks, says(tmp_path, "new"), cluster=cluster)
    assert [(r.how, r.value) for r in first + again] == [("run", "value")] * 2 + [("cached", "value")] * 2


@pytest.mark.app
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_task_asked_for_twice_in_one_launch_is_computed_once(tmp_path: Path, cluster: str) -> None:
    results = run(tmp_path, [task(1), task(2), task(1)], says(tmp_path), cluster=cluster)
    assert [r.value for r in results] == ["value"] * 3 and runs(tmp_path) == ["1", "2"]


@pytest.mark.app
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_failed_task_leaves_the_others_values(tmp_path: Path, cluster: str) -> None:
    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        return 1 / argument["x"]

    results = run(tmp_path, [task(0), task(2)], program, cluster=cluster)
    error = results[0].error
    assert isinstance(error, TaskFailedError) and error.type == "ZeroDivisionError" and results[1].value == 0.5


@pytest.mark.app
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_stored_error_is_raised_again_and_names_task_and_cause(tmp_path: Path, cluster: str) -> None:
    one(tmp_path, failing(), cluster=cluster)
    again = one(tmp_path, says(tmp_path), cluster=cluster)
    assert again.how == "cached" and "x=1-" in str(again.error) and "ValueError: no luck" in str(again.error)


@pytest.mark.app
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_result_that_cannot_be_pickled_is_an_error_that_names_the_culprit(tmp_path: Path, cluster: str) -> None:
    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        return {"model": [threading.Lock()]}

    error = one(tmp_path, program, cluster=cluster).error
    assert isinstance(error, TaskFailedError) and "['model'] -> [0] is of type _thread.lock" in error.text


@pytest.mark.app
@pytest.mark.parametrize("cluster", JOBS_OF_THEIR_OWN)
def test_a_killed_worker_is_a_lost_job_and_leaves_no_value(tmp_path: Path, cluster: str) -> None:
    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        print("last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    error = one(tmp_path, program, cluster=cluster).error
    assert isinstance(error, JobLostError) and "last words" in str(error)


@pytest.mark.app
@pytest.mark.parametrize("cluster", JOBS_OF_THEIR_OWN)
def test_a_worker_that_leaves_without_a_word_is_a_lost_job(tmp_path: Path, cluster: str) -> None:
    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        os._exit(0)

    assert isinstance(one(tmp_path, program, cluster=cluster).error, JobLostError)


@pytest.mark.app
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_results_come_in_the_order_of_the_tasks(tmp_path: Path, cluster: str) -> None:
    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        return argument["x"]

    numbers = [3, 1, 2, 1]
    assert [r.value for r in run(tmp_path, [task(n) for n in numbers], program, cluster=cluster)] == numbers


# -- what is stored cannot be used


def value_file(entry: Entry) -> Path:
    return next(entry.path.glob("value.*"))


BIG = list(range(5000))
DAMAGE: dict[str, tp.Callable[[Entry], tp.Any]] = {
    "an empty outcome": lambda e: os.truncate(e.path / paths.OUTCOME, 0),
    "half an outcome": lambda e: os.truncate(e.path / paths.OUTCOME, 50),
    "garbage for an outcome": lambda e: (e.path / paths.OUTCOME).write_bytes(b"\x80garbage"),
    "null for an outcome": lambda e: (e.path / paths.OUTCOME).write_bytes(b"null"),
    "a folder for an outcome": lambda e: ((e.path / paths.OUTCOME).unlink(), (e.path / paths.OUTCOME).mkdir()),
    "an outcome without its value": lambda e: _edit(e, value=None),
    "an outcome without an identity": lambda e: _edit(e, identity=None),
    "an outcome whose value has no file": lambda e: _edit(e, value={"format": "json"}),
    "an outcome of an unknown format": lambda e: _edit_value(e, format="hdf5"),
    "a value cut short": lambda e: os.truncate(value_file(e), 100),
    "a changed value": lambda e: value_file(e).write_bytes(value_file(e).read_bytes().replace(b"17", b"18")),
    "no value": lambda e: value_file(e).unlink(),
    "a folder for a value": lambda e: (p := value_file(e), p.unlink(), p.mkdir()),
}


def _edit(entry: Entry, **changes: tp.Any) -> None:
    stored = checksums.parse_record((entry.path / paths.OUTCOME).read_bytes())
    (entry.path / paths.OUTCOME).write_bytes(checksums.dump_record({**stored, **changes}))


def _edit_value(entry: Entry, **changes: tp.Any) -> None:
    stored = json.loads((entry.path / paths.OUTCOME).read_bytes())
    _edit(entry, value={**stored["value"], **changes})


@pytest.mark.app
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_what_is_damaged_is_computed_again(tmp_path: Path, damage: tp.Callable[[Entry], tp.Any]) -> None:
    damage(one(tmp_path, says(tmp_path, BIG)).entry)
    again = elsewhere(lambda: (lambda r: (r.how, r.value == BIG, str(r.error)))(one(tmp_path, says(tmp_path, BIG))))
    assert again == ("run", True, "None")


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_what_is_damaged_is_refused_by_read_only(tmp_path: Path, damage: tp.Callable[[Entry], tp.Any]) -> None:
    entry = one(tmp_path, says(tmp_path, BIG)).entry
    damage(entry)
    before = tree(tmp_path)
    with pytest.raises(CorruptEntryError):
        run(tmp_path, [task()], says(tmp_path), "read-only")
    assert tree(tmp_path) == before


def test_what_is_damaged_is_set_aside_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = one(tmp_path, says(tmp_path)).entry
    os.truncate(entry.path / paths.OUTCOME, 50)
    with caplog.at_level(logging.WARNING, "exca"):
        one(tmp_path, says(tmp_path))
    assert "set aside" in caplog.text and any("aside" in name for name in files_of(entry))


def test_what_another_launch_has_mended_meanwhile_is_not_set_aside(tmp_path: Path) -> None:
    value_file(one(tmp_path, says(tmp_path, BIG)).entry).write_bytes(b"damaged")
    first, second = (launch(tmp_path, [task()], says(tmp_path, BIG)) for _ in range(2))
    first.plan_tasks()
    second.plan_tasks()
    first.run()
    assert second.run()[0].value == BIG and len(runs(tmp_path)) == 2


@pytest.mark.parametrize("mode", ["cached", "read-only"])
def test_a_damaged_value_that_another_launch_computes_again_is_joined(tmp_path: Path, mode: str) -> None:
    entry = one(tmp_path, says(tmp_path, BIG)).entry
    value_file(entry).write_bytes(b"damaged")
    first = tp.cast(Claim, entry.current_claim())
    theirs = first.next(ClaimState.QUEUED, token="other", owner=process.describe_process())
    assert entry.publish_claim(theirs)  # before the other launch moves the damaged outcome aside
    late = launch(tmp_path, [task()], says(tmp_path, "late"), mode)
    assert [result.action for result in late.plan_tasks()] == [Action.JOIN]
    late.submit()
    assert late.poll() == 1
    entry.set_outcome_aside()
    value = store_value(entry.path, theirs.number, "theirs")
    assert entry.commit_outcome(theirs, Outcome(Status.COMPLETED, 0, task().identity.to_json(), value))
    assert late.poll() == 0
    assert late.result(task()).value == "theirs" and len(runs(tmp_path)) == 1


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
@pytest.mark.parametrize("is_old", [False, True])
def test_an_outcome_that_never_comes_is_given_up_whatever_the_clocks_of_hosts_say(
    tmp_path: Path, skew: float, is_old: bool
) -> None:
    entry = entry_of(tmp_path)
    owner = {**process.describe_process(), "host": "elsewhere", "boot": "another"}
    claim = Claim(1, ClaimState.COMMITTING, "theirs", "local", None, 0, owner, time=time.time() + skew)
    assert entry.publish_claim(claim)
    path = entry.path / paths.claim_name(1)
    if is_old:
        os.utime(path, (path.stat().st_mtime - 3600,) * 2)
    assert is_given_up(entry, claim) is is_old
    assert sorted(os.listdir(entry.path)) == [path.name]


def test_a_record_of_a_launch_that_could_not_be_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = paths.launch_folder(tmp_path, "theirs")
    folder.mkdir(parents=True)
    (folder / paths.LAUNCH_RECORD).write_text('{"code": "1234"}')
    lookup = Lookup(CacheFolder(tmp_path))
    claim = Claim(1, ClaimState.RUNNING, "theirs", "local", None, 0, {})
    with monkeypatch.context() as broken:
        broken.setattr(files, "read_owned", lambda path: os.read(-1, 1))  # an OSError, as of a network file system
        assert lookup.code_digest(claim) is None
    assert lookup.code_digest(claim) == "1234"


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (None, "its launch ended before the task started"),
        (
            clusters.JobReport(clusters.JobState.ENDED, "PREEMPTED", job="312_4", words="another took its place"),
            "its job 312_4 ended: another took its place (PREEMPTED)",
        ),
        (clusters.JobReport(clusters.JobState.ENDED, "TIMEOUT", job="312"), "its job 312 ended: TIMEOUT"),
        (
            clusters.JobReport(clusters.JobState.ENDED, "", clusters.JobEnd.VANISHED, job="312", words="gone"),
            "its job 312 vanished (gone) and is cancelled, in case it is alive",
        ),
    ],
)
def test_a_task_that_is_submitted_again_says_what_became_of_its_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, report: clusters.JobReport | None, reason: str
) -> None:
    owner = {**process.describe_process(), "pid": 1, "started": 0.0}
    entry_of(tmp_path).publish_claim(Claim(1, ClaimState.QUEUED, "theirs", "local", None, 0, owner))
    mine = launch(tmp_path, [task()], says(tmp_path))
    mine.plan_tasks()
    (orphan,) = mine.missing()
    orphan.ended = report
    with caplog.at_level(logging.INFO, "exca"):
        mine._run_again([orphan])
    assert f"x=1: {reason}; submitted again" in caplog.text


@needs_root
def test_a_value_of_another_user_stops_the_launch_and_says_how_to_go_on(tmp_path: Path) -> None:
    os.chown(value_file(one(tmp_path, says(tmp_path, (1, 2))).entry), NOBODY, NOBODY)
    with pytest.raises(CacheError, match=r"trust_users=\[nobody\]"):
        run(tmp_path, [task()], says(tmp_path))


@needs_root
def test_a_value_of_a_trusted_user_is_used(tmp_path: Path) -> None:
    os.chown(value_file(one(tmp_path, says(tmp_path, (1, 2))).entry), NOBODY, NOBODY)
    assert one(tmp_path, says(tmp_path), trust=["nobody"]).value == (1, 2)


def test_a_value_that_others_can_write_stops_the_launch(tmp_path: Path) -> None:
    value_file(one(tmp_path, says(tmp_path, (1, 2))).entry).chmod(0o664)
    with pytest.raises(CacheError, match="chmod go-w"):
        run(tmp_path, [task()], says(tmp_path))


def test_a_changed_default_stops_the_launch_and_names_it(tmp_path: Path) -> None:
    def with_default(lr: float) -> Task:
        return Task(uid.make_identity("train.main", "0", {"x": 1}, {"x": 1, "lr": lr}), {"x": 1})

    run(tmp_path, [with_default(0.1)], says(tmp_path))
    with pytest.raises(DefaultsChangedError, match=r"lr: stored 0\.1, 0\.2 today.*version"):
        run(tmp_path, [with_default(0.2)], says(tmp_path))


# -- two identities in one place


@pytest.mark.app
def test_an_outcome_of_another_identity_is_never_returned(tmp_path: Path) -> None:
    """The rules of identities have changed since, and both have the name ``default``."""
    today = Task(uid.make_identity("train.main", "0", {}), {"x": "today"})
    run(tmp_path, [today], says(tmp_path, "old"))
    entry = entry_of(tmp_path, today)
    stored = json.loads((entry.path / paths.OUTCOME).read_bytes())
    _edit(entry, identity={**stored["identity"], "scheme": 0, "digest": "0" * 64})
    assert elsewhere(lambda: run(tmp_path, [today], says(tmp_path, "new"))[0].value) == "new"


@pytest.mark.app
def test_equal_first_digits_and_a_lost_record_of_names_return_no_foreign_value(tmp_path: Path) -> None:
    def crafted(x: int) -> Task:  # the first eight digits alike, the rest not
        identity = uid.make_identity("train.main", "0", {"x": x}, label="same")
        return Task(dataclasses.replace(identity, digest="0" * 8 + identity.digest[8:]), {"x": x})

    run(tmp_path, [crafted(1)], says(tmp_path, "first"))
    shutil.rmtree(tmp_path / "exca/train.main,0" / paths.NAMES)
    assert elsewhere(lambda: run(tmp_path, [crafted(2)], says(tmp_path, "second"))[0].value) == "second"


# -- modes


@pytest.mark.app
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_force_replaces_the_value(tmp_path: Path, cluster: str) -> None:
    one(tmp_path, says(tmp_path, "old"), cluster=cluster)
    assert one(tmp_path, says(tmp_path, "new"), "force", cluster=cluster).value == "new"
    assert one(tmp_path, says(tmp_path), cluster=cluster).value == "new"


@pytest.mark.parametrize("mode", ["force", "retry"])
def test_a_mode_applies_once_to_one_object(tmp_path: Path, mode: str) -> None:
    one(tmp_path, fails)
    computed: set[str] = set()
    first = one(tmp_path, says(tmp_path), mode, computed=computed)
    second = one(tmp_path, says(tmp_path, "again"), mode, computed=computed)
    assert (first.how, second.how, second.value) == ("run", "cached", "value")


def leaves(name: str) -> tp.Any:
    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        attempt.entry.output.mkdir(exist_ok=True)
        seen = sorted(os.listdir(attempt.entry.output))
        (attempt.entry.output / name).touch()
        if name == "checkpoint":
            raise ValueError("preempted")
        return seen

    return program


def test_retry_keeps_the_output_folder(tmp_path: Path) -> None:
    one(tmp_path, leaves("checkpoint"))
    assert one(tmp_path, leaves("model"), "retry").value == ["checkpoint"]


def test_retry_reuses_a_value(tmp_path: Path) -> None:
    one(tmp_path, says(tmp_path))
    assert one(tmp_path, says(tmp_path, "new"), "retry").value == "value"


@pytest.mark.parametrize("first", ["checkpoint", "model"])
def test_force_starts_with_an_empty_output_folder(tmp_path: Path, first: str) -> None:
    one(tmp_path, leaves(first))
    assert one(tmp_path, leaves("forced"), "force").value == []


def test_force_keeps_what_it_computed_if_the_old_value_comes_back_meanwhile(tmp_path: Path) -> None:
    """By a launch that stalled while it gave up an earlier force."""
    one(tmp_path, says(tmp_path, "old"))

    def program(argument: tp.Any, attempt: Attempt) -> str:
        attempt.entry.restore_previous()
        return "new"

    assert one(tmp_path, program, "force").value == "new"
    assert entry_of(tmp_path).has_value() and not entry_of(tmp_path).has_previous()


def test_force_drops_the_old_value_once_the_new_is_complete(tmp_path: Path) -> None:
    entry = one(tmp_path, says(tmp_path, BIG)).entry
    one(tmp_path, says(tmp_path, [0, *BIG]), "force")
    assert [name.partition(".")[0] for name in files_of(entry)] == ["config", "outcome", "value"]


def test_while_a_forced_attempt_runs_the_old_value_is_kept(tmp_path: Path) -> None:
    one(tmp_path, says(tmp_path, "old"))

    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        return attempt.entry.load_value(attempt.entry.previous_outcome())

    assert one(tmp_path, program, "force").value == "old"


def interrupts(argument: tp.Any, attempt: Attempt) -> tp.Any:
    attempt.entry.output.mkdir(exist_ok=True)
    raise KeyboardInterrupt


def test_a_forced_attempt_that_is_interrupted_brings_the_old_value_back(tmp_path: Path) -> None:
    one(tmp_path, leaves("model"))
    with pytest.raises(KeyboardInterrupt):
        one(tmp_path, interrupts, "force")
    again = one(tmp_path, says(tmp_path))
    assert again.value == [] and os.listdir(again.entry.output) == ["model"] and runs(tmp_path) == []


@pytest.mark.app
def test_a_forced_attempt_whose_process_was_killed_brings_the_old_value_back(tmp_path: Path) -> None:
    one(tmp_path, says(tmp_path, "old"))
    with Elsewhere(lambda: one(tmp_path, waits(tmp_path), "force")):
        until(lambda: len(runs(tmp_path)) == 2)
    again = elsewhere(lambda: (lambda r: (r.how, r.value))(one(tmp_path, says(tmp_path))))
    assert again == ("cached", "old")


@pytest.mark.app
def test_force_can_follow_a_forced_attempt_that_was_killed_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the marker, before the old value was dropped."""
    one(tmp_path, leaves("old"))

    def dies(entry: Entry) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(Entry, "_drop_previous", dies)
        with Elsewhere(lambda: one(tmp_path, leaves("new"), "force")) as killed:
            killed.process.join(30)
    assert elsewhere(lambda: one(tmp_path, leaves("newer"), "force").value) == []


@pytest.mark.app
def test_a_forced_launch_that_was_killed_while_making_room_loses_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = one(tmp_path, leaves("model")).entry
    replace = os.replace

    def dies(source: tp.Any, target: tp.Any) -> None:
        if Path(target).name == paths.PREVIOUS:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with Elsewhere(lambda: one(tmp_path, leaves("forced"), "force")) as killed:
            killed.process.join(30)
    elsewhere(lambda: one(tmp_path, says(tmp_path)).value)
    assert entry.output.exists() and os.listdir(entry.output) == ["model"]


def test_read_only_refuses_what_is_not_there_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"read-only.*\n.*x=1.*not submitted"):
        run(tmp_path, [task()], says(tmp_path), "read-only")
    assert os.listdir(tmp_path) == []


def test_read_only_returns_what_is_there_and_writes_nothing(tmp_path: Path) -> None:
    one(tmp_path, says(tmp_path, BIG))
    before = tree(tmp_path)
    assert one(tmp_path, fails, "read-only").value == BIG and tree(tmp_path) == before


def test_read_only_returns_a_stored_error(tmp_path: Path) -> None:
    one(tmp_path, fails)
    assert isinstance(one(tmp_path, says(tmp_path), "read-only").error, TaskFailedError)


@pytest.mark.app
def test_read_only_joins_what_runs(tmp_path: Path) -> None:
    with Elsewhere(lambda: one(tmp_path, waits(tmp_path, "theirs")).value):
        until(lambda: runs(tmp_path))
        with Elsewhere(lambda: one(tmp_path, fails, "read-only").value) as reader:
            (tmp_path / "go").touch()
            assert reader.result() == "theirs"


@pytest.mark.parametrize("mode", ["cached", "read-only", "retry"])
def test_a_job_that_ends_while_it_is_looked_up_has_left_its_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    entry, ask = entry_of(tmp_path), Lookup.ask_clusters
    gone = {**clusters.describe_process(), "started": 1.0}
    claim = Claim(1, ClaimState.RUNNING, "theirs", "local", "1", 0, gone)
    assert entry.publish_claim(claim)

    def commit_first(lookup: Lookup, claims: tp.Sequence[Claim]) -> tp.Any:
        value = {"format": "json", "inline": "theirs"}
        entry.commit_outcome(claim, Outcome(Status.COMPLETED, 0, task().identity.to_json(), value=value))
        return ask(lookup, claims)

    monkeypatch.setattr(Lookup, "ask_clusters", commit_first)
    result = launch(tmp_path, [task()], fails, mode).look_up()[0]
    assert (result.status, result.action, result.value) == (Status.COMPLETED, Action.REUSE, "theirs")


@pytest.mark.app
def test_read_only_does_not_wait_for_a_job_that_died(tmp_path: Path) -> None:
    with Elsewhere(lambda: one(tmp_path, waits(tmp_path)).value) as owner:
        until(lambda: runs(tmp_path))
        with Elsewhere(lambda: type(one(tmp_path, fails, "read-only").error).__name__) as reader:
            entry = entry_of(tmp_path)
            until(lambda: reader.process.is_alive() and entry.current_claim())
            reader._here.poll(0.5)
            owner.process.kill()
            owner.process.join()
            assert reader._here.poll(15), "it waits for ever"


def test_a_survey_writes_nothing(tmp_path: Path) -> None:
    one(tmp_path, fails)
    run(tmp_path, [task(2)], says(tmp_path))
    before = tree(tmp_path)
    for mode in ("cached", "retry", "force"):
        launch(tmp_path, [task(), task(2), task(3)], says(tmp_path), mode).plan_tasks()
    assert tree(tmp_path) == before


# -- several launches at once


@pytest.mark.app
@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_launches_at_once_compute_each_task_once(tmp_path: Path, cluster: str) -> None:
    barrier = fork.Barrier(4)

    def launches() -> list[tp.Any]:
        barrier.wait(30)
        return [
            r.value for r in run(tmp_path, [task(n) for n in range(5)], says(tmp_path), cluster=cluster, parallel=2)
        ]

    with contextlib.ExitStack() as stack:
        calls = [stack.enter_context(Elsewhere(launches)) for _ in range(4)]
        assert [call.result(60) for call in calls] == [["value"] * 5] * 4
    assert runs(tmp_path) == ["0", "1", "2", "3", "4"]


BEFORE: dict[str, tuple[str, tp.Callable[[Path], tp.Any]]] = {
    "a retry": ("retry", lambda folder: one(folder, fails)),
    "a force": ("force", lambda folder: one(folder, lambda argument, attempt: "old")),
    "one that was given up": (
        "cached",
        lambda folder: entry_of(folder).publish_claim(
            Claim(1, ClaimState.RELEASED, "t", "inline", None, 0, process.describe_process())
        ),
    ),
}


@pytest.mark.app
@pytest.mark.parametrize(("mode", "before"), BEFORE.values(), ids=BEFORE.keys())
def test_what_another_launch_has_started_since_the_survey_is_not_taken_from_it(
    tmp_path: Path, mode: str, before: tp.Callable[[Path], tp.Any]
) -> None:
    """It has a live claim by then: whoever comes later joins."""
    before(tmp_path)
    late = launch(tmp_path, [task()], says(tmp_path, "late"), mode)
    late.plan_tasks()
    with Elsewhere(lambda: one(tmp_path, waits(tmp_path, "theirs"), mode).value) as other:
        until(lambda: runs(tmp_path))
        with Elsewhere(lambda: late.run()[0].value) as mine:
            mine._here.poll(1)
            (tmp_path / "go").touch()
            values = (other.result(), mine.result())
    assert values == ("theirs", "theirs") and runs(tmp_path) == ["1"]


@pytest.mark.app
def test_a_lost_job_that_another_launch_retries_since_the_survey_is_joined(tmp_path: Path) -> None:
    entry = entry_of(tmp_path)
    gone = subprocess.Popen(["true"])
    owner = {**process.describe_process(), "pid": gone.pid, "started": 1.0}
    gone.wait()
    entry.publish_claim(Claim(1, ClaimState.RUNNING, "dead", "local", str(gone.pid), 0, owner))
    late = launch(tmp_path, [task()], says(tmp_path, "late"))
    late.plan_tasks()
    launched = next(iter(late._launched.values()))
    ended = clusters.JobReport(clusters.JobState.ENDED, "OUT_OF_MEMORY")  # as Slurm says it
    lookup = launched.lookup._replace(ended=ended, status=Status.FAILED, action=Action.RAISE)
    late._launched[launched.key] = LaunchedTask(launched.task, lookup)
    with Elsewhere(lambda: one(tmp_path, waits(tmp_path, "theirs")).value) as other:
        until(lambda: runs(tmp_path))
        with Elsewhere(lambda: late.run()[0].value) as mine:
            mine._here.poll(1)
            (tmp_path / "go").touch()
            assert (other.result(), mine.result()) == ("theirs", "theirs")


@pytest.mark.app
def test_a_live_claim_is_joined(tmp_path: Path) -> None:
    with Elsewhere(lambda: one(tmp_path, waits(tmp_path, "theirs")).value) as other:
        until(lambda: runs(tmp_path))
        with Elsewhere(lambda: one(tmp_path, says(tmp_path, "mine")).value) as mine:
            mine._here.poll(0.5)  # gives it the time to do wrong
            (tmp_path / "go").touch()
            values = (other.result(), mine.result())
    assert values == ("theirs", "theirs") and runs(tmp_path) == ["1"]


@pytest.mark.app
def test_a_queued_claim_of_a_dead_launch_is_taken_over(tmp_path: Path) -> None:
    tasks = [task(1), task(2)]
    with Elsewhere(lambda: run(tmp_path, tasks, waits(tmp_path), cluster="local", parallel=1)) as first:
        until(lambda: runs(tmp_path))
        first.process.kill()
        first.process.join()
        with Elsewhere(
            lambda: [r.value for r in run(tmp_path, tasks, says(tmp_path, "mine"), cluster="local")]
        ) as second:
            until(lambda: len(runs(tmp_path)) == 2)
            (tmp_path / "go").touch()
            values = second.result()
    assert sorted(values) == ["mine", "slow"] and runs(tmp_path) == ["1", "2"]


@pytest.mark.app
def test_workers_of_a_dead_launch_go_on_and_are_joined(tmp_path: Path) -> None:
    with Elsewhere(lambda: one(tmp_path, waits(tmp_path), cluster="local")) as first:
        until(lambda: runs(tmp_path))
    assert not first.process.is_alive()
    with Elsewhere(lambda: one(tmp_path, says(tmp_path, "mine")).value) as second:
        second._here.poll(0.5)  # gives it the time to do wrong
        (tmp_path / "go").touch()
        value = second.result()
    assert value == "slow" and runs(tmp_path) == ["1"]


@pytest.mark.app
def test_what_a_worker_of_a_dead_launch_stored_is_kept(tmp_path: Path) -> None:
    with Elsewhere(lambda: one(tmp_path, waits(tmp_path), cluster="local")):
        until(lambda: runs(tmp_path))
    (tmp_path / "go").touch()
    until(lambda: entry_of(tmp_path).outcome())
    assert one(tmp_path, fails).value == "slow"


@pytest.mark.app
def test_a_claim_with_the_pid_of_another_process_is_taken_over(tmp_path: Path) -> None:
    owner = {**process.describe_process(), "started": 1.0}
    entry_of(tmp_path).publish_claim(Claim(1, ClaimState.RUNNING, "dead", "local", str(os.getpid()), 0, owner))
    assert elsewhere(lambda: one(tmp_path, says(tmp_path)).value) == "value"


@pytest.mark.app
@pytest.mark.parametrize("mode", ["cached", "retry", "force"])
def test_a_claim_of_another_host_is_never_taken_over(tmp_path: Path, mode: str) -> None:
    owner = {**process.describe_process(), "host": "another"}
    entry = entry_of(tmp_path)
    entry.publish_claim(Claim(1, ClaimState.RUNNING, "theirs", "local", "1", 0, owner))
    with Elsewhere(lambda: one(tmp_path, says(tmp_path), mode)) as call:
        call._here.poll(3)  # longer than an owner is left unasked
    claim = entry.current_claim()
    assert claim is not None and claim.token == "theirs" and runs(tmp_path) == []


@pytest.mark.app
def test_force_goes_on_when_what_it_cannot_cancel_has_ended(tmp_path: Path) -> None:
    """A task in another process's own thread, say in a notebook that stays open."""

    def notebook() -> None:
        one(tmp_path, waits(tmp_path, "theirs"))
        threading.Event().wait(60)

    with Elsewhere(notebook):
        until(lambda: runs(tmp_path))
        with Elsewhere(lambda: one(tmp_path, says(tmp_path, "forced"), "force").value) as forced:
            forced._here.poll(0.5)
            (tmp_path / "go").touch()
            assert forced.result(15) == "forced"


@pytest.mark.app
def test_force_cancels_a_running_job_and_computes(tmp_path: Path) -> None:
    with Elsewhere(lambda: one(tmp_path, waits(tmp_path, "theirs"), cluster="local").value) as theirs:
        until(lambda: runs(tmp_path))
        value = elsewhere(lambda: one(tmp_path, says(tmp_path, "forced"), "force", cluster="local").value)
        assert (value, theirs.result()) == ("forced", "forced")


@pytest.mark.app
def test_force_computes_also_when_the_cancelled_jobs_own_launch_notes_its_end_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_of(tmp_path)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as job:
        claim = Claim(1, ClaimState.RUNNING, "theirs", "local", str(job.pid), 0, process.describe_process(job.pid))
        entry.publish_claim(claim)
        lost = {"kind": "lost", "type": "JobLostError", "message": "killed by SIGTERM", "traceback": ""}
        end = cancellation.cancel_jobs

        def and_its_launch_notices(lookup: tp.Any, running: tp.Any) -> None:
            end(lookup, running)
            entry.commit_outcome(claim, Outcome(Status.FAILED, 0, task().identity.to_json(), error=lost))

        monkeypatch.setattr(cancellation, "cancel_jobs", and_its_launch_notices)
        forced = one(tmp_path, says(tmp_path, "forced"), "force")
    assert (forced.value, forced.error) == ("forced", None)


@pytest.mark.app
@needs_root
def test_the_running_job_of_another_user_is_not_cancelled() -> None:
    with tempfile.TemporaryDirectory() as name, Elsewhere(lambda: threading.Event().wait(60), user=NOBODY) as theirs:
        owner = until(lambda: _described(theirs.pid))
        entry = entry_of(Path(name))
        entry.publish_claim(Claim(1, ClaimState.RUNNING, "theirs", "local", str(theirs.pid), 0, owner))
        with pytest.raises(CacheError, match="computed by nobody; their job is not cancelled"):
            one(Path(name), fails, "force")
        assert theirs.process.is_alive()


def _described(pid: int) -> dict[str, tp.Any] | None:
    running = psutil.Process(pid)
    return {**process.describe_process(pid), "user": NOBODY} if running.uids().real == NOBODY else None


# -- interrupted, refused, out of room


@pytest.mark.app
def test_an_interrupt_of_a_local_launch_ends_its_workers_and_gives_everything_up(tmp_path: Path) -> None:
    tasks = [task(n) for n in range(3)]
    with Elsewhere(lambda: run(tmp_path, tasks, waits(tmp_path), cluster="local", parallel=1)) as call:
        until(lambda: runs(tmp_path))
        workers = psutil.Process(call.pid).children()
        os.kill(call.pid, signal.SIGINT)
        assert call.error().startswith("KeyboardInterrupt")
    states = {entry_of(tmp_path, each).current_claim().state for each in tasks}  # type: ignore[union-attr]
    assert states == {ClaimState.RELEASED} and not any(worker.is_running() for worker in workers)


@pytest.mark.app
def test_after_an_interrupt_the_same_launch_computes_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [task(1), task(2)], interrupts)
    assert elsewhere(lambda: [r.value for r in run(tmp_path, [task(1), task(2)], says(tmp_path))]) == ["value"] * 2


class Stop(BaseException):
    """Of a library that ends programs its own way."""


@pytest.mark.app
@pytest.mark.parametrize("cluster", ["inline", "local"])
@pytest.mark.parametrize("error", [ValueError("no"), Stop(), SystemExit(1)], ids=lambda e: type(e).__name__)
def test_after_an_error_of_the_launch_itself_the_same_process_can_go_on(
    tmp_path: Path, cluster: str, error: BaseException
) -> None:
    """Its claims are those of a live process, so nobody else could ever take them."""
    tasks = [task(n) for n in range(3)]

    def both() -> list[tp.Any]:
        def breaks(result: Result) -> None:
            raise error

        first = launch(tmp_path, tasks, says(tmp_path), cluster=cluster, parallel=1)
        first.on_result = breaks
        with contextlib.suppress(type(error)):
            first.run()
        return [r.value for r in run(tmp_path, tasks, says(tmp_path), cluster=cluster)]

    assert elsewhere(both, 20) == ["value"] * 3


@pytest.mark.app
def test_after_a_stop_of_the_task_the_same_process_can_go_on(tmp_path: Path) -> None:
    def stops(argument: tp.Any, attempt: Attempt) -> tp.Any:
        raise Stop

    def both() -> tp.Any:
        with contextlib.suppress(Stop):
            one(tmp_path, stops)
        return one(tmp_path, says(tmp_path), "retry").value

    assert elsewhere(both, 15) == "value"


def test_a_task_that_another_call_computes_than_has_claimed_it_is_not_computed_twice(tmp_path: Path) -> None:
    began: list[str] = []

    def program(argument: tp.Any, attempt: Attempt) -> str:
        began.append(attempt.claim.token)
        if len(began) == 1:
            other = threading.Thread(target=lambda: began.extend(["status", str(status())]))
            other.start()
            other.join()
        return "value"

    def status() -> Status:
        return launch(tmp_path, [task()], program).look_up()[0].status

    first = launch(tmp_path, [task()], program)
    first.submit()
    assert status() is Status.NOT_SUBMITTED  # the call is over, and nobody may ever poll
    first.poll()
    assert began[1:] == ["status", "running"]


@pytest.mark.app
def test_an_outcome_that_somebody_deleted_is_computed_again_by_the_process_that_wrote_it(tmp_path: Path) -> None:
    def both() -> tp.Any:
        (one(tmp_path, says(tmp_path)).entry.path / paths.OUTCOME).unlink()
        return one(tmp_path, says(tmp_path, "again")).value

    assert elsewhere(both, 15) == "again"


@pytest.mark.app
@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_an_error_of_the_disk_in_a_cache_that_a_task_uses_is_no_failure_of_the_task(
    tmp_path: Path, cluster: str
) -> None:
    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        with files.disk_errors_translated(attempt.entry.path):
            raise OSError(errno.ENOSPC, "No space left on device", "features")

    def error() -> BaseException | None:
        try:
            return one(tmp_path, program, cluster=cluster).error
        except CacheError as raised:
            return raised

    problem = error()
    assert isinstance(problem, CacheError) and "features cannot be read or written: No space left on device" in str(
        problem
    )
    assert problem.__cause__ is not problem
    assert launch(tmp_path, [task()], program).look_up()[0].status is Status.NOT_SUBMITTED
    assert one(tmp_path, says(tmp_path, "again")).value == "again"


def test_an_error_that_cannot_be_shown_does_not_end_the_launch(tmp_path: Path) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("it has no text")

    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        raise MuteError

    assert isinstance(one(tmp_path, program).error, TaskFailedError)


@pytest.mark.slurm
def test_a_refused_submission_gives_its_claims_up_and_keeps_the_old_value(tmp_path: Path) -> None:
    one(tmp_path, says(tmp_path, "old"))
    with pytest.raises(SubmissionError):
        one(tmp_path, says(tmp_path), "force", cluster="slurm", slurm={"partition": "nowhere"})
    assert one(tmp_path, fails).value == "old"


UNPICKLABLE = threading.Lock()


def test_a_program_that_cannot_be_pickled_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    lock = threading.Lock()

    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        return lock

    with pytest.raises(ConfigError, match="the function cannot be pickled: its captured variable 'lock'"):
        one(tmp_path, program, cluster="local")
    assert os.listdir(tmp_path) == []


def test_a_global_that_cannot_be_pickled_is_named(tmp_path: Path) -> None:
    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        return UNPICKLABLE

    with pytest.raises(ConfigError, match="global 'UNPICKLABLE'"):
        one(tmp_path, program, cluster="local")


def test_an_argument_that_cannot_be_pickled_is_refused_and_names_task_and_part(tmp_path: Path) -> None:
    bad = dataclasses.replace(task(), argument={"model": {"lock": threading.Lock()}})
    with pytest.raises(ConfigError, match=r"the task x=1 is given cannot be pickled: its \['model'\] -> \['lock'\]"):
        run(tmp_path, [bad], says(tmp_path), cluster="local")
    assert os.listdir(tmp_path) == []


def test_missing_parents_of_the_folder_are_made(tmp_path: Path) -> None:
    assert one(tmp_path / "missing", says(tmp_path)).value == "value"


@pytest.mark.app
@needs_root
def test_an_unwritable_folder_is_refused_before_anything_is_written() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        with Elsewhere(lambda: one(Path(name), fails), user=NOBODY) as call:
            assert "cannot be written by nobody" in call.error()


@pytest.mark.app
@needs_root
def test_what_another_user_computed_is_reused_without_write_permission() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        one(Path(name), lambda argument, attempt: BIG)
        with Elsewhere(lambda: one(Path(name), fails).value, user=NOBODY) as call:
            assert call.result() == BIG


@pytest.mark.app
@needs_root
def test_a_shelf_that_only_its_owner_can_write_is_an_error_of_ours() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        one(Path(name), lambda argument, attempt: 1)
        (Path(name) / "exca").chmod(0o777)
        with Elsewhere(lambda: run(Path(name), [task(2)], fails), user=NOBODY) as call:
            assert call.error().partition(":")[0] in ("CacheError", "ConfigError")


def test_another_project_is_refused_before_anything_runs(tmp_path: Path) -> None:
    one(tmp_path, says(tmp_path))
    other = launch(tmp_path, [task(2)], says(tmp_path))
    other.settings = dataclasses.replace(other.settings, project={"remote": "host/other"})
    with pytest.raises(CacheError, match="another project"):
        other.run()


@pytest.mark.app
def test_an_array_travels_whole_through_a_job(tmp_path: Path) -> None:
    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        return np.arange(argument["x"] * 1000.0)

    assert run(tmp_path, [task(3)], program, cluster="local")[0].value.tolist() == list(range(3000))


def test_what_another_thread_is_about_to_store_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    publish = files.publish_file

    def look_and_publish(path: Path, *args: tp.Any, **more: tp.Any) -> bool:
        if path.name == "outcome.json":  # the claim says committing, and there is no outcome yet
            seen.extend(str(each.action) for each in launch(tmp_path, [task()], says(tmp_path)).look_up())
        return publish(path, *args, **more)

    monkeypatch.setattr(files, "publish_file", look_and_publish)
    assert one(tmp_path, says(tmp_path)).value == "value"
    assert seen == ["join"]


def test_threads_that_ask_for_the_same_tasks_all_get_their_values(tmp_path: Path) -> None:
    asked = [task(number) for number in range(8)]
    found: list[tp.Any] = []

    def ask(turn: int) -> None:
        for each in asked[turn:] + asked[:turn]:
            found.append(run(tmp_path, [each], says(tmp_path))[0].value)  # noqa: PERF401 - each ends before the next

    threads = [threading.Thread(target=ask, args=(turn,), daemon=True) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == ["value"] * 32
    assert len(runs(tmp_path)) == 8


# -- what is said of many tasks


def test_a_changed_default_that_many_tasks_have_is_named_once(tmp_path: Path) -> None:
    run(tmp_path, [task(x, full={"x": x, "lr": 0.1}) for x in range(8)], says(tmp_path))
    changed = [task(x, full={"x": x, "lr": 0.2}) for x in range(8)]
    with pytest.raises(DefaultsChangedError) as raised:
        launch(tmp_path, changed, says(tmp_path)).plan_tasks()
    (_, line) = str(raised.value).splitlines()
    assert line.startswith("  x=0, x=1, x=2, x=3, x=4 and 3 more: was computed under other defaults: lr: stored 0.1, ")


@pytest.mark.parametrize(("what", "words"), [("stop", "not started"), ("cancel", "cancelled before the start")])
def test_a_launch_that_stops_says_what_it_stopped_and_which_options_go_on(
    what: str, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        raise ValueError("no luck")

    stopped = launch(tmp_path, [task(x) for x in range(4)], program)
    stopped.settings = dataclasses.replace(stopped.settings, on_failure=OnFailure(what), option_prefix="launcher.")
    stopped.run()
    (message,) = [record.getMessage() for record in caplog.records if "on_failure" in record.getMessage()]
    assert message == (
        f"exca: x=0 failed, and on_failure={what}: 3 tasks were {words}. launcher.mode=retry runs what failed and what "
        "was not started, launcher.on_failure=continue only what was not started"
    )
