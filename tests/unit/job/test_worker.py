"""The job of one task: what it stores, and what it does when it is told to end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import typing as tp
from pathlib import Path

import pydantic
import pytest
from apps import App, Result
from cluster_jobs import until
from job_side import Fit, JobSide, Tools
from submitit.helpers import DelayedSubmission

from hydra_exca import paths
from hydra_exca.clusters import AGAIN, process
from hydra_exca.clusters.base import DISK_ERROR, TASK_FAILED
from hydra_exca.clusters.slurm import commands, own_job
from hydra_exca.infra.task_jobs import MethodProgram
from hydra_exca.job.attempt import Attempt
from hydra_exca.job.checkpoints import checkpoint_of_object
from hydra_exca.store import ClaimState

NO_SLURM = {"SLURM_CONF": os.devnull, "SLURM_JOB_ID": "999999"}  # the scheduler cannot be asked
SOON = {**NO_SLURM, "SLURM_JOB_END_TIME": "1"}
Program = tp.Callable[[tp.Any, Attempt], tp.Any]


def waiting(folder: Path, checkpoint: tp.Callable[[], tp.Any] | None = None) -> Program:
    """A program that notes its start and waits for a file ``go``; the second start does not wait."""
    tools = Tools(folder)

    def program(argument: tp.Any, attempt: Attempt) -> str:
        attempt.checkpoint = checkpoint
        if attempt.resumed is not None:
            attempt.checkpoint = attempt.resumed.checkpoint
            return str(attempt.resumed())
        tools.note("start")
        if attempt.claim.number == 2:
            tools.wait_for()
        return f"of claim {attempt.claim.number}"

    return program


def is_begun(side: JobSide) -> bool:
    return bool(side.notes())


def told(side: JobSide, *numbers: signal.Signals, **environment: str) -> int | None:
    """The exit code of a job that gets signals while it computes, None if it goes on for all that."""
    with side.started(**environment) as job:
        until(lambda: is_begun(side))
        for number in numbers:
            job.send_signal(number)
        try:
            return job.wait(8)
        except subprocess.TimeoutExpired:
            side.go()
            assert job.wait(30) == 0
            return None


@pytest.mark.app
def test_a_job_computes_its_own_task_only(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path), [0], [1])
    side.go()
    side.run(1)
    assert side.statuses() == [None, "completed"]


@pytest.mark.app
@pytest.mark.parametrize(("settings", "code"), [({}, TASK_FAILED), ({"fail_jobs": False}, 0)])
def test_the_exit_code_says_that_the_task_failed(tmp_path: Path, settings: dict[str, bool], code: int) -> None:
    side = JobSide(tmp_path, lambda argument, attempt: 1 / 0, **settings)
    assert (side.run(), side.statuses()) == (code, ["failed"])
    assert side.run() == 0  # the failure is stored, and nothing is computed


@pytest.mark.app
def test_a_job_that_cannot_enter_its_folder_is_no_failure_of_the_task(tmp_path: Path) -> None:
    side = JobSide(tmp_path, lambda argument, attempt: 1, working_directory=str(tmp_path / "not mounted here"))
    assert (side.run(), side.statuses()) == (DISK_ERROR, [None])
    claim = side.entry.current_claim()
    assert claim is not None and claim.state is ClaimState.RELEASED


@pytest.mark.app
def test_a_job_whose_factory_is_gone_when_it_commits_was_not_taken_over(tmp_path: Path) -> None:
    def unmount(argument: tp.Any, attempt: Attempt) -> int:
        attempt.entry.path.parent.rename(tmp_path / "not mounted any more")
        return 1

    assert JobSide(tmp_path, unmount).run() == DISK_ERROR


@pytest.mark.app
def test_the_task_of_a_job_alone_has_its_time_to_itself(tmp_path: Path) -> None:
    side = JobSide(tmp_path, lambda argument, attempt: attempt.claim.shared)
    side.run()
    assert side.value() is False


@pytest.mark.app
def test_the_first_process_of_a_job_imports_neither_hydra_nor_submitit() -> None:
    script = (
        "import sys, hydra_exca.job.worker; print([m for m in sys.modules if m in ('hydra', 'omegaconf', 'submitit')])"
    )
    command = [sys.executable, "-P", "-c", script]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


# -- out of time


@pytest.mark.app
def test_a_job_that_is_out_of_time_ends_and_asks_to_be_started_again(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path), max_num_timeout=1)
    assert (told(side, signal.SIGUSR2), side.statuses()) == (AGAIN, [None])


@pytest.mark.app
def test_a_job_that_starts_again_computes_under_a_new_claim(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path), max_num_timeout=1)
    told(side, signal.SIGUSR2)
    assert (side.run(), side.values()) == (0, ["of claim 3"])


@pytest.mark.app
def test_a_job_that_may_not_start_again_goes_on_when_its_time_is_nearly_up(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path), max_num_timeout=0)
    assert (told(side, signal.SIGUSR2), side.values()) == (None, ["of claim 2"])


@pytest.mark.app
def test_each_repeated_command_is_counted(tmp_path: Path) -> None:
    side = JobSide(tmp_path, lambda argument, attempt: os.kill(os.getpid(), signal.SIGUSR2), max_num_timeout=2)
    assert [side.run() for _ in range(3)] == [AGAIN, AGAIN, 0]


@pytest.mark.app
def test_the_exit_passes_through_the_tasks_own_code(tmp_path: Path) -> None:
    tools = Tools(tmp_path)

    def program(argument: tp.Any, attempt: Attempt) -> None:
        try:
            tools.note("start")
            tools.wait_for()
        finally:
            tools.note("cleaned")

    side = JobSide(tmp_path, program, max_num_timeout=1)
    told(side, signal.SIGUSR2)
    assert side.notes() == ["start", "cleaned"]


@pytest.mark.app
def test_an_exit_that_the_task_swallows_leaves_no_outcome(tmp_path: Path) -> None:
    tools = Tools(tmp_path)

    def program(argument: tp.Any, attempt: Attempt) -> str:
        try:
            tools.note("start")
            tools.wait_for()
        except BaseException:  # noqa: BLE001
            tools.note("swallowed")
        return "half a result"

    side = JobSide(tmp_path, program, max_num_timeout=1)
    assert (told(side, signal.SIGUSR2), side.statuses(), side.notes()) == (AGAIN, [None], ["start", "swallowed"])


@pytest.mark.app
def test_an_error_that_replaces_the_exit_leaves_no_outcome(tmp_path: Path) -> None:
    tools = Tools(tmp_path)

    def program(argument: tp.Any, attempt: Attempt) -> str:
        try:
            tools.note("start")
            tools.wait_for()
        except BaseException as error:
            raise ValueError("while cleaning up") from error
        return "never"

    side = JobSide(tmp_path, program, max_num_timeout=1)
    assert (told(side, signal.SIGUSR2), side.statuses()) == (AGAIN, [None])


@pytest.mark.app
def test_what_is_computed_is_stored_though_the_time_is_up(tmp_path: Path) -> None:
    tools = Tools(tmp_path)

    class Slow:
        """It takes its time to be pickled."""

        def __reduce__(self) -> tp.Any:
            tools.note("start")
            tools.wait_for()
            return str, ("stored",)

    side = JobSide(tmp_path, lambda argument, attempt: Slow(), max_num_timeout=1)
    assert (told(side, signal.SIGUSR2), side.values()) == (None, ["stored"])


@pytest.mark.app
def test_a_process_that_the_task_forks_is_not_taken_for_the_task(tmp_path: Path) -> None:
    tools = Tools(tmp_path)

    def program(argument: tp.Any, attempt: Attempt) -> int | None:
        import multiprocessing
        import os
        import signal

        child = multiprocessing.get_context("fork").Process(target=tools.wait_for)
        child.start()
        os.kill(child.pid or 0, signal.SIGUSR2)
        child.join(0.2)
        child.terminate()
        child.join()
        return child.exitcode

    side = JobSide(tmp_path, program, cluster="slurm", max_num_timeout=1)
    side.run(**SOON)
    assert side.values() == [-signal.SIGTERM]


# -- a checkpoint of the user's own


@pytest.mark.app
def test_a_checkpoint_is_called_before_the_job_ends(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    side = JobSide(tmp_path, waiting(tmp_path, lambda: tools.note("saved") or True), max_num_timeout=1)
    assert (told(side, signal.SIGUSR2), side.notes()) == (AGAIN, ["start", "saved"])


@pytest.mark.app
def test_after_a_checkpoint_that_returns_true_the_task_starts_as_before(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path, lambda: True), max_num_timeout=1)
    told(side, signal.SIGUSR2)
    side.run()
    assert side.values() == ["of claim 3"]


@pytest.mark.app
def test_what_a_checkpoint_returns_is_called_instead_next_time(tmp_path: Path) -> None:
    checkpoint = lambda: DelayedSubmission("{} of {total}".format, 7, total=9)  # noqa: E731
    side = JobSide(tmp_path, waiting(tmp_path, checkpoint), max_num_timeout=1)
    told(side, signal.SIGUSR2)
    side.run()
    assert (side.values(), side.notes()) == (["7 of 9"], ["start"])


@pytest.mark.app
def test_a_second_checkpoint_is_that_of_what_was_called_instead(tmp_path: Path) -> None:
    class Steps:
        """As submitit's users write it: it leaves itself, with what it has done."""

        def __init__(self, done: int) -> None:
            self.done = done

        def __call__(self, name: str) -> str:
            import os
            import signal

            if self.done < 2:
                os.kill(os.getpid(), signal.SIGUSR2)
            return f"{name} after {self.done}"

        def checkpoint(self, name: str) -> DelayedSubmission:
            return DelayedSubmission(Steps(self.done + 1), name)

    side = JobSide(tmp_path, waiting(tmp_path, lambda: DelayedSubmission(Steps(0), "it")), max_num_timeout=3)
    assert told(side, signal.SIGUSR2) == AGAIN
    assert ([side.run(), side.run(), side.run()], side.values()) == ([AGAIN, AGAIN, 0], ["it after 2"])


@pytest.mark.app
def test_a_task_whose_checkpoint_returns_none_is_not_started_again(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path, lambda: None), max_num_timeout=1)
    assert (told(side, signal.SIGUSR2), side.values()) == (None, ["of claim 2"])


@pytest.mark.app
def test_an_error_of_a_checkpoint_is_in_the_log_and_the_task_starts_again(tmp_path: Path) -> None:
    def checkpoint() -> None:
        raise ValueError("disk full")

    side = JobSide(tmp_path, waiting(tmp_path, checkpoint), max_num_timeout=1)
    code = told(side, signal.SIGUSR2)
    told_in_log = (side.entry.path / "logs/1.log").read_text()
    assert code == AGAIN and "Traceback" in told_in_log and "ValueError: disk full" in told_in_log


@pytest.mark.app
def test_a_checkpoint_that_cannot_be_kept_is_as_none_at_all(tmp_path: Path) -> None:
    checkpoint = lambda: DelayedSubmission(print, threading.Lock())  # noqa: E731
    side = JobSide(tmp_path, waiting(tmp_path, checkpoint), max_num_timeout=1)
    told(side, signal.SIGUSR2)
    side.run()
    assert side.values() == ["of claim 3"]


@pytest.mark.app
def test_a_checkpoint_is_called_though_the_job_may_not_start_again(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    side = JobSide(tmp_path, waiting(tmp_path, lambda: tools.note("saved") or True), max_num_timeout=0)
    assert (told(side, signal.SIGUSR2), side.notes()) == (None, ["start", "saved"])


# -- what has a checkpoint

ENDS_ONCE = """
import os, signal
from submitit.helpers import DelayedSubmission

def ends(*what):
    note("start", *what)
    if len(Path(os.environ["NOTES"]).read_text().split()) < 3:
        os.kill(os.getpid(), signal.SIGUSR2)
    return "computed"
"""


def swept(folder: Path, *overrides: str, **app: str) -> tuple[App, Result]:
    made = App(folder, **app)
    return made, made.run("hydra.launcher.max_num_timeout=1", *overrides, cluster="local")


@pytest.mark.app
def test_the_checkpoint_of_a_task_function_is_called_with_the_config(tmp_path: Path) -> None:
    head = f"{ENDS_ONCE}\ndef checkpoint(cfg):\n    return DelayedSubmission('{{}} again'.format, cfg.seed + 1)\n"
    after = "\n\ntrain.checkpoint = checkpoint\n"
    app = App(tmp_path, "return ends(cfg.seed)", head=head)
    script = (tmp_path / "train.py").read_text()
    (tmp_path / "train.py").write_text(script.replace("\n\nif __name__", f"{after}\nif __name__"))
    result = app.run("hydra.launcher.max_num_timeout=1", cluster="local")
    assert (result.values, app.notes) == (["2 again"], ["start 1"])


@pytest.mark.app
def test_a_task_without_checkpoint_starts_again_in_its_output_folder(tmp_path: Path) -> None:
    body = "Path('left').touch() if not os.path.exists('left') else note('found')\nreturn ends()"
    head = f"{ENDS_ONCE}\n"
    app, result = swept(tmp_path, "hydra.job.chdir=true", body=body, head=head)
    assert (result.values, app.notes) == (["computed"], ["start", "found", "start"])


TRAINER = f"""
from pathlib import Path
import hydra
from apps import note, tell_returns
{ENDS_ONCE}

class Trainer:
    def __init__(self, steps):
        self.steps = steps

    def __call__(self, cfg):
        ends()
        return self.steps + cfg.seed

    def checkpoint(self, cfg):
        return DelayedSubmission(Trainer(self.steps + 10), cfg)

if __name__ == "__main__":
    tell_returns()
    hydra.main(version_base="1.3", config_path="conf", config_name="config")(Trainer(0))()
"""
MODEL = f"""
import pydantic
{ENDS_ONCE}
class Config(pydantic.BaseModel):
    seed: int

def checkpoint(config: Config):
    note("saved", type(config).__name__)
    return True

def keeps(function):
    function.checkpoint = checkpoint
    return function
"""


@pytest.mark.app
def test_the_checkpoint_of_a_callable_object_is_its_method(tmp_path: Path) -> None:
    app = App(tmp_path, files={"trainer.py": TRAINER})
    result = app.run("hydra.launcher.max_num_timeout=1", cluster="local", script=["trainer.py"])
    assert (result.values, app.notes) == ([11], ["start", "start"])


@pytest.mark.app
def test_the_checkpoint_of_a_function_of_a_model_is_called_with_the_model(tmp_path: Path) -> None:
    app = App(tmp_path, "return ends()", head=f"import hydra_exca\n{MODEL}", main="hydra_exca.main", argument="Config")
    script = (tmp_path / "train.py").read_text()
    (tmp_path / "train.py").write_text(script.replace("\ndef train", "\n@keeps\ndef train"))
    result = app.run("hydra.launcher.max_num_timeout=1", cluster="local")
    assert (result.values, app.notes) == (["computed"], ["start", "saved Config", "start"])


def fitted(folder: Path, leaves_itself: bool) -> list[tp.Any]:
    """What a cached method returns that is told to end once, and what was noted."""
    model = Fit(folder=str(folder), leaves_itself=leaves_itself)
    side = JobSide(folder, lambda argument, attempt: MethodProgram("infra")(model, attempt), max_num_timeout=1)
    assert [side.run(), side.run()] == [AGAIN, 0]
    return [side.value(), *side.notes()]


@pytest.mark.app
def test_the_checkpoint_of_a_cached_method_is_that_of_its_object(tmp_path: Path) -> None:
    assert fitted(tmp_path, leaves_itself=False) == ["left", "run1", "saved1"]


@pytest.mark.app
def test_a_checkpoint_may_leave_the_cached_method_itself(tmp_path: Path) -> None:
    assert fitted(tmp_path, leaves_itself=True) == [2, "run1", "saved1", "run2"]


def test_a_field_called_checkpoint_is_none() -> None:
    class Model(pydantic.BaseModel):
        checkpoint: tp.Any = print

    assert checkpoint_of_object(Model()) is None


def test_a_checkpoint_that_takes_arguments_is_not_that_of_an_object() -> None:
    class Model(pydantic.BaseModel):
        def checkpoint(self, path: str) -> None: ...

    assert checkpoint_of_object(Model()) is None


# -- Slurm


@pytest.mark.parametrize(
    ("printed", "seconds"),
    [("1:30\n", 90), ("59", 59), ("2:00:00", 7200), ("1-00:00:01", 86401), ("UNLIMITED", float("inf"))]
    + [(said, None) for said in ("INVALID", "NOT_SET", "", "a:b")],
)
def test_the_time_left_is_read_as_squeue_prints_it(printed: str, seconds: float | None) -> None:
    assert commands.read_duration(printed) == seconds


@pytest.mark.app
def test_on_slurm_the_end_comes_after_the_checkpoint_and_leaves_no_outcome(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    side = JobSide(tmp_path, waiting(tmp_path, lambda: tools.note("saved") or True), cluster="slurm")
    assert (told(side, signal.SIGTERM, **NO_SLURM), side.statuses(), side.notes()) == (143, [None], ["start", "saved"])


@pytest.mark.app
def test_an_end_that_comes_while_the_checkpoint_runs_waits_for_it(tmp_path: Path) -> None:
    tools = Tools(tmp_path)

    def checkpoint() -> bool:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGTERM)
        tools.note("saved")
        return True

    side = JobSide(tmp_path, waiting(tmp_path, checkpoint), cluster="slurm", max_num_timeout=1)
    assert (told(side, signal.SIGUSR2, **SOON), side.notes()) == (143, ["start", "saved"])


@pytest.mark.app
def test_the_end_that_comes_with_a_requeue_calls_no_second_checkpoint_and_the_time_out_counts(tmp_path: Path) -> None:
    """Slurm ends the processes of a job that asks to be requeued before scontrol has answered."""
    tools = Tools(tmp_path)
    side = JobSide(tmp_path, waiting(tmp_path, lambda: tools.note("saved") or True), cluster="slurm", max_num_timeout=1)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\nkill -TERM $PPID\n")
    scontrol.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert told(side, signal.SIGUSR2, **SOON, PATH=path) == AGAIN
    assert side.notes() == ["start", "saved"] and paths.timeout_counts(side.launch, 0).stat().st_size == 1


@pytest.mark.app
def test_a_job_that_slurm_will_not_start_again_goes_on(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path), cluster="slurm", max_num_timeout=1)
    assert (told(side, signal.SIGUSR2, **SOON), side.values()) == (None, ["of claim 2"])


@pytest.mark.app
def test_only_the_first_rank_acts_on_a_signal(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path), cluster="slurm", max_num_timeout=1)
    assert side.entry.publish_claim(side.claim(2, 0, state=ClaimState.RUNNING))  # by the first one
    second = {**SOON, "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}
    assert told(side, signal.SIGUSR2, signal.SIGTERM, **second) is None


@pytest.mark.app
def test_a_task_that_another_job_of_the_launch_computes_is_left_to_it(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path), cluster="slurm")
    assert side.entry.publish_claim(
        side.claim(2, 0, state=ClaimState.RUNNING, job="888888")
    )  # nobody can say how it is
    side.run(**NO_SLURM)
    assert side.notes() == []


@pytest.mark.app
def test_a_local_task_that_another_process_of_the_launch_computes_is_left_to_it(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path))
    assert side.entry.publish_claim(side.claim(2, 0, state=ClaimState.RUNNING, owner=process.describe_process()))
    side.run()
    assert side.notes() == []


def warn(job: str) -> None:
    subprocess.run(["scancel", "--signal=USR2", job], check=True)


@contextlib.contextmanager
def begun(side: JobSide, *options: str) -> tp.Iterator[str]:
    """The job on Slurm, once its task runs."""
    with side.submitted(*options) as job:
        until(lambda: is_begun(side), 300)
        yield job


def runs_again(side: JobSide, value: str = "of claim 3") -> bool:
    return bool(until(lambda: side.values() != [None], 300)) and side.values() == [value]


@pytest.mark.slurm
def test_a_job_that_is_preempted_runs_again(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path), cluster="slurm", signal_delay_s=30)
    with begun(side, "--time=60") as job:
        warn(job)
        assert runs_again(side)


@pytest.mark.slurm
def test_a_job_of_slurm_that_is_out_of_time_runs_again(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path), cluster="slurm", signal_delay_s=30, max_num_timeout=1)
    with begun(side, "--time=1") as job:
        warn(job)
        assert runs_again(side) and paths.timeout_counts(side.launch, 0).stat().st_size == 1


@pytest.mark.slurm
def test_slurms_own_warning_is_understood(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path), cluster="slurm", signal_delay_s=50, max_num_timeout=1)
    with begun(side, "--time=1", "--signal=USR2@50"):
        assert runs_again(side)


@pytest.mark.slurm
def test_a_preemption_uses_up_no_start(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path), cluster="slurm", signal_delay_s=30, max_num_timeout=1)
    with begun(side, "--time=60") as job:
        warn(job)
        assert runs_again(side) and not paths.timeout_counts(side.launch, 0).exists()


@pytest.mark.slurm
def test_a_requeued_job_calls_what_the_checkpoint_has_left(tmp_path: Path) -> None:
    checkpoint = lambda: DelayedSubmission("{} of {}".format, 7, 9)  # noqa: E731
    side = JobSide(tmp_path, waiting(tmp_path, checkpoint), cluster="slurm", signal_delay_s=30)
    with begun(side, "--time=60") as job:
        warn(job)
        assert runs_again(side, "7 of 9")


@pytest.mark.slurm
def test_a_job_of_slurm_that_is_cancelled_leaves_no_outcome(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    side = JobSide(tmp_path, waiting(tmp_path, lambda: tools.note("saved")), cluster="slurm")
    with begun(side) as job:
        subprocess.run(["scancel", job], check=True)
        until(lambda: own_job.has_ended(job))
        assert (side.statuses(), side.notes()) == ([None], ["start", "saved"])


@pytest.mark.slurm
def test_a_second_submission_leaves_the_task_to_the_first(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path), cluster="slurm")
    with begun(side), side.submitted() as second:
        until(lambda: own_job.has_ended(second), 300)
        side.go()
        assert runs_again(side, "of claim 2") and side.notes() == ["start"]


@pytest.mark.slurm
def test_a_task_of_a_job_that_is_over_is_taken_over(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waiting(tmp_path), cluster="slurm")
    with begun(side) as job:
        subprocess.run(["scancel", "--signal=KILL", job], check=True)
        until(lambda: own_job.has_ended(job))
    with side.submitted():
        assert runs_again(side)
