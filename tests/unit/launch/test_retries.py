"""How often a task runs again whose job was killed or needed more, on this machine; and what such options refuse."""

from __future__ import annotations

import json
import os
import signal
import typing as tp
from pathlib import Path

import pytest
from apps import PACKED, App
from infra_models import Slow
from submitit.helpers import DelayedSubmission

from hydra_exca import clusters
from hydra_exca.clusters import JobEnd, JobReport, JobState, Options
from hydra_exca.identity import uid
from hydra_exca.job.attempt import Attempt
from hydra_exca.launch.launch import Launch
from hydra_exca.launch.launched_task import LaunchedTask
from hydra_exca.launch.lookup import LookupResult
from hydra_exca.launch.results import Result
from hydra_exca.launch.retries import Retries
from hydra_exca.launch.retry_policy import RetryPolicy
from hydra_exca.launch.settings import Settings, Task
from hydra_exca.status import Mode, Status
from hydra_exca.store import CacheFolder

IDENTITY = uid.make_identity("train.main", "0", {"x": 1})
NAMES = ("mem_gb", "timeout_min", "partition", "cpus_per_task")


def starts(folder: Path) -> int:
    return len((folder / "starts").read_bytes()) if (folder / "starts").exists() else 0


def doing(folder: Path, what: tp.Callable[[int, Attempt], tp.Any]) -> tp.Callable[[tp.Any, Attempt], tp.Any]:
    """A program that counts its starts, and does something at each."""

    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        with open(folder / "starts", "ab") as file:
            file.write(b".")
        return what(len((folder / "starts").read_bytes()), attempt)

    return program


def killed_at_first(times: int) -> tp.Callable[[int, Attempt], int]:
    def what(start: int, attempt: Attempt) -> int:
        if start <= times:
            os.kill(os.getpid(), signal.SIGKILL)
        return start

    return what


def launch(folder: Path, program: tp.Any, policy: RetryPolicy, mode: Mode = Mode.CACHED, **common: tp.Any) -> Result:
    where = clusters.get_cluster("local", Options(common))
    settings = Settings(CacheFolder(folder / "exca"), where, mode, retries=policy, option_prefix="infra.")
    return Launch([Task(IDENTITY, None)], program, settings).run()[0]


@pytest.mark.app
def test_a_job_that_was_killed_runs_again_as_often_as_the_policy_says(tmp_path: Path) -> None:
    program = doing(tmp_path, killed_at_first(3))
    assert launch(tmp_path, program, RetryPolicy(2)).status is Status.FAILED
    assert starts(tmp_path) == 3
    assert launch(tmp_path, program, RetryPolicy(2)).status is Status.FAILED and starts(tmp_path) == 3  # it is stored
    assert launch(tmp_path, program, RetryPolicy(2), Mode.RETRY).value == 4


@pytest.mark.app
def test_an_error_of_the_task_is_not_run_again(tmp_path: Path) -> None:
    result = launch(tmp_path, doing(tmp_path, lambda start, attempt: 1 / 0), RetryPolicy(3))
    assert (result.status, starts(tmp_path)) == (Status.FAILED, 1)


@pytest.mark.app
def test_a_killed_job_that_has_saved_something_is_none_of_its_tasks_failures(tmp_path: Path) -> None:
    def saves(start: int, attempt: Attempt) -> str:
        saved = attempt.entry.path / "step"
        if start == 1:
            saved.write_text("7")
            os.kill(os.getpid(), signal.SIGKILL)
        return saved.read_text()

    program = doing(tmp_path, saves)
    lost = launch(tmp_path, program, RetryPolicy())
    assert lost.status is Status.NOT_SUBMITTED and lost.error is not None and "SIGKILL" in str(lost.error)
    assert launch(tmp_path, program, RetryPolicy()).value == "7"


@pytest.mark.app
def test_a_killed_job_whose_checkpoint_says_what_to_call_next_is_none_of_its_tasks_failures(tmp_path: Path) -> None:
    def leaves(start: int, attempt: Attempt) -> str:
        if attempt.resumed is not None:
            return str(attempt.resumed())
        attempt.checkpoint = lambda: DelayedSubmission("step {}".format, 7)
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGKILL)
        return "unreachable"

    program = doing(tmp_path, leaves)
    assert launch(tmp_path, program, RetryPolicy()).status is Status.NOT_SUBMITTED
    assert launch(tmp_path, program, RetryPolicy()).value == "step 7"


@pytest.mark.app
def test_a_forced_task_that_was_killed_runs_again_and_does_not_give_the_old_value(tmp_path: Path) -> None:
    second_is_killed = killed_at_first(2)
    program = doing(tmp_path, lambda start, attempt: second_is_killed(start, attempt) if start > 1 else start)
    assert launch(tmp_path, program, RetryPolicy()).value == 1
    assert launch(tmp_path, program, RetryPolicy(1), Mode.FORCE).value == 3


@pytest.mark.app
def test_a_job_that_ran_out_of_time_gets_more(tmp_path: Path) -> None:
    import time

    program = doing(tmp_path, lambda start, attempt: time.sleep(600) if start == 1 else start)
    policy = RetryPolicy(1, on_timeout={"timeout_min": 1})
    assert launch(tmp_path, program, policy, timeout_min=0.02).value == 2


@pytest.mark.app
def test_a_sweep_says_each_retry_and_records_its_attempts(tmp_path: Path) -> None:
    body = """
    import os
    note("start", cfg.seed)
    if len(Path("notes.txt").read_text().splitlines()) == 1:
        os.kill(os.getpid(), 9)
    return 10 * cfg.seed
    """
    app = App(tmp_path, body)
    result = app.run("seed=2", "hydra.launcher.retries=2", cluster="local")
    assert result.values == [20] and len(app.notes) == 2
    line = "killed by SIGKILL (signal 9); submitted again (retry 1 of 2)"
    assert result.text.count(line) == 1 and result.text.count("submitted again") == 1
    record = json.loads((app.entries[0] / "provenance.json").read_text())
    assert [each["attempt"] for each in record["attempts"]] == [1] and "SIGKILL" in record["attempts"][0]["end"]


@pytest.mark.app
@pytest.mark.parametrize("cluster", ["local", PACKED])
def test_the_same_command_goes_on_from_what_a_killed_task_has_saved(tmp_path: Path, cluster: str) -> None:
    body = """
    import os
    saved = Path(HydraConfig.get().runtime.output_dir, "saved")
    if saved.exists():
        return int(saved.read_text())
    saved.write_text("7")
    os.kill(os.getpid(), 9)
    """
    app = App(tmp_path, body)
    assert app.run("seed=1,2", cluster=cluster).statuses == ["FAILED"] * 2 and app.entries == []
    assert app.run("seed=1,2", cluster=cluster).values == [7, 7]


@pytest.mark.app
def test_a_task_that_is_not_the_first_of_its_job_runs_again_as_often_as_the_first(tmp_path: Path) -> None:
    body = """
    import os
    note("start", cfg.seed)
    if cfg.seed == 2:
        os.kill(int(os.environ["SUBMITIT_LOCAL_JOB_ID"]), 9)
        wait_for("never")
    return cfg.seed
    """
    app = App(tmp_path, body)
    result = app.run("seed=1,2,3", "hydra.launcher.retries=1", cluster=PACKED)
    assert [app.notes.count(f"start {seed}") for seed in (1, 2, 3)] == [1, 2, 1], result.text
    assert "retries=1 allows no more" in result.text and result.statuses == ["COMPLETED", "FAILED", "COMPLETED"]


@pytest.mark.parametrize(("retries", "count"), [(0, 1), (1, 0)])
def test_a_rule_that_has_no_effect_is_said(caplog: pytest.LogCaptureFixture, retries: int, count: int) -> None:
    policy = RetryPolicy(retries, on_oom={"mem_gb": "2x"})
    cluster = clusters.get_cluster("local", Options())
    Retries(Settings(CacheFolder("unused"), cluster, retries=policy, option_prefix="infra.")).check([Options()])
    assert caplog.text.count("infra.on_oom has no effect, as infra.retries is 0") == count


# -- with what ---------------------------------------------------------------------------------------------------------


def next_attempt(
    policy: RetryPolicy, end: JobEnd, common: dict[str, tp.Any], **given: float
) -> dict[str, tp.Any] | None:
    """The resources of the next attempt after a job with these options has ended; None if there is none."""
    where = clusters.get_cluster("local", Options(common))
    settings = Settings(CacheFolder("unused"), where, retries=policy)
    task = LaunchedTask(Task(IDENTITY, None), LookupResult(IDENTITY))
    report = JobReport(JobState.ENDED, "it ended", end, given=given)
    return task.resources if Retries(settings).prepare(task, report) else None


OOM = JobEnd.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("rule", "common", "given", "limit", "expected"),
    [
        ({"mem_gb": "2x"}, {"mem_gb": 4}, {}, None, {"mem_gb": 8}),
        ({"mem_gb": "1.5x"}, {"mem_gb": 3}, {}, None, {"mem_gb": 4.5}),
        ({"mem_gb": 20}, {"mem_gb": 4}, {}, None, {"mem_gb": 20}),
        ({"mem_gb": 20}, {}, {}, None, {"mem_gb": 20}),
        ({"mem_gb": "2x"}, {"mem_gb": 4}, {"mem_gb": 6.0}, None, {"mem_gb": 12}),
        ({"mem_gb": "2x"}, {"mem_gb": 4}, {}, 5, {"mem_gb": 5}),
        ({"mem_gb": "2x"}, {"mem_gb": 5}, {}, 5, None),
        ({"mem_gb": 4}, {"mem_gb": 4}, {}, None, None),
        ({"mem_gb": "2x"}, {}, {}, None, None),
        (
            {"mem_gb": "2x", "cpus_per_task": "1.5x"},
            {"mem_gb": 1, "cpus_per_task": 3},
            {},
            None,
            {"mem_gb": 2, "cpus_per_task": 5},
        ),
        ({"slurm_partition": "big"}, {}, {}, None, {"slurm_partition": "big"}),
    ],
    ids=str,
)
def test_the_next_attempt_gets_what_the_rule_says(
    rule: dict[str, tp.Any],
    common: dict[str, tp.Any],
    given: dict[str, float],
    limit: float | None,
    expected: dict[str, tp.Any] | None,
) -> None:
    assert next_attempt(RetryPolicy(1, on_oom=rule, max_mem_gb=limit), OOM, common, **given) == expected


@pytest.mark.parametrize("end", [JobEnd.EXITED, JobEnd.REMOVED, JobEnd.PAST_DEADLINE, JobEnd.OUT_OF_TIME])
def test_other_ends_have_no_next_attempt(end: JobEnd) -> None:
    assert next_attempt(RetryPolicy(3, on_oom={"mem_gb": 8}), end, {}) is None


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"retries": -1}, "retries"),
        ({"retries": 1, "on_oom": {"memory": 3}}, "on_oom"),
        ({"retries": 1, "on_oom": {"mem_gb": "0.5x"}}, "on_oom"),
        ({"retries": 1, "on_oom": {"mem_gb": "more"}}, "on_oom"),
        ({"retries": 1, "on_timeout": {"timeout_min": 0}}, "on_timeout"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(settings: dict[str, tp.Any], option: str) -> None:
    assert [name for name, _ in RetryPolicy(**settings).problems(NAMES)] == [option]
    with pytest.raises(ValueError, match=option):
        Slow(infra={"folder": "unused", **settings})
