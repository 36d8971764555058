"""Several tasks of one job: each is on its own, whatever the others do to their process."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import typing as tp
from pathlib import Path

import psutil
import pytest
from cluster_jobs import until
from job_side import JobSide, Tools
from submitit.helpers import DelayedSubmission

from hydra_exca.clusters import AGAIN
from hydra_exca.clusters.base import ENCLOSING_TASKS, TASK_FAILED
from hydra_exca.clusters.slurm import own_job
from hydra_exca.job.attempt import Attempt
from hydra_exca.store import ClaimState

pytestmark = pytest.mark.app

THREE = (0, 1, 2)
Program = tp.Callable[[tp.Any, Attempt], tp.Any]


def doing(folder: Path, what: tp.Callable[[int], tp.Any]) -> Program:
    """A program that notes which task begins, and does something."""
    tools = Tools(folder)

    def program(argument: tp.Any, attempt: Attempt) -> tp.Any:
        tools.note(argument["x"])
        return what(argument["x"])

    return program


def at_first(folder: Path, checkpoint: tp.Callable[[], tp.Any] | None = None) -> Program:
    """A program whose tasks but the first wait for a file ``go``, at their first start."""
    tools = Tools(folder)

    def program(argument: tp.Any, attempt: Attempt) -> str:
        attempt.checkpoint = checkpoint
        if attempt.resumed is not None:
            return str(attempt.resumed())
        tools.note(argument["x"])
        if argument["x"] > 0 and attempt.claim.number == 2:
            tools.wait_for()
        return f"{argument['x']} of claim {attempt.claim.number}"

    return program


def children(job: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(job.pid).children()


# -- what it computes


def test_all_tasks_of_a_job_are_computed_in_their_order(tmp_path: Path) -> None:
    side = JobSide(tmp_path, doing(tmp_path, lambda x: 10 * x), THREE)
    assert (side.run(), side.values(), side.notes()) == (0, [0, 10, 20], ["0", "1", "2"])


def test_each_task_has_a_log_of_its_own(tmp_path: Path) -> None:
    side = JobSide(tmp_path, doing(tmp_path, lambda x: print(f"this is {x}")), THREE)
    side.run()
    logs = [(entry.path / "logs/1.log").read_text() for entry in side.entries]
    assert logs == ["this is 0\n", "this is 1\n", "this is 2\n"]


def test_what_a_c_library_prints_is_in_the_log_of_its_task(tmp_path: Path) -> None:
    def printing(x: int) -> None:
        import ctypes

        ctypes.CDLL(None).printf(b"C says %d\n", x)

    side = JobSide(tmp_path, doing(tmp_path, printing), THREE)
    side.run()
    logs = [(entry.path / "logs/1.log").read_text() for entry in side.entries]
    assert logs == ["C says 0\n", "C says 1\n", "C says 2\n"]


def test_what_is_printed_after_the_last_task_is_in_the_log_of_the_job(tmp_path: Path) -> None:
    def registering(x: int) -> None:
        import atexit

        atexit.register(print, "good bye")

    side = JobSide(tmp_path, doing(tmp_path, registering), (0, 1))
    side.run()
    assert side.log() == "good bye\ngood bye\n"


def test_a_task_that_raises_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    side = JobSide(tmp_path, doing(tmp_path, lambda x: 1 // (x - 1)), THREE)
    side.run()
    assert side.statuses() == ["completed", "failed", "completed"]


def test_an_exit_of_a_task_is_its_error_and_no_other_ones(tmp_path: Path) -> None:
    side = JobSide(tmp_path, doing(tmp_path, lambda x: sys.exit(x) if x < 2 else x), THREE)
    side.run()
    assert side.statuses() == ["failed", "failed", "completed"]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL (signal 9)"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "killed by SIGSEGV (signal 11)"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "killed by SIGTERM (signal 15)"),
        (lambda: os._exit(0), "exit code 0"),
        (lambda: os._exit(3), "exit code 3"),
    ],
)
def test_a_task_that_ends_its_process_costs_itself_only(
    tmp_path: Path, how: tp.Callable[[], tp.Any], told: str
) -> None:
    side = JobSide(tmp_path, doing(tmp_path, lambda x: how() if x == 1 else x), THREE)
    assert (side.run(), side.values(), side.notes()) == (TASK_FAILED, [0, told, 2], ["0", "1", "2"])


def test_what_a_lost_task_is_told_to_be_is_a_lost_job(tmp_path: Path) -> None:
    side = JobSide(tmp_path, doing(tmp_path, lambda x: print("last words", flush=True) or os._exit(1)), (0, 1))
    side.run()
    outcome = side.entry.outcome()
    assert outcome is not None and outcome.error is not None
    log = Path(str(side.entry.log_path(outcome))).read_text()
    assert (outcome.error["kind"], outcome.error["type"], log) == ("lost", "JobLostError", "last words\n")


@pytest.mark.parametrize("fails", [lambda x: 1 / x, lambda x: x or os.kill(os.getpid(), signal.SIGKILL)])
def test_the_exit_code_of_a_job_says_that_one_of_its_tasks_failed(tmp_path: Path, fails: tp.Any) -> None:
    side = JobSide(tmp_path, doing(tmp_path, fails), THREE)
    assert (side.run(), side.statuses()) == (TASK_FAILED, ["failed", "completed", "completed"])
    assert side.run() == 0  # it computes nothing: who starts failed jobs again does not for ever


def test_the_exit_code_of_a_job_says_that_a_task_of_an_earlier_start_failed(tmp_path: Path) -> None:
    tools = Tools(tmp_path)

    def program(argument: tp.Any, attempt: Attempt) -> int:
        if argument["x"] == 2 and attempt.claim.number == 2:
            tools.note("waits")
            tools.wait_for()
        return 1 // argument["x"]

    side = JobSide(tmp_path, program, THREE, max_num_timeout=1)
    with side.started() as job:
        until(lambda: side.notes())
        job.send_signal(signal.SIGUSR2)
        assert job.wait(30) == AGAIN
    assert (side.run(), side.statuses()) == (TASK_FAILED, ["failed", "completed", "completed"])


def test_where_jobs_do_not_fail_with_their_tasks_the_exit_code_is_0(tmp_path: Path) -> None:
    side = JobSide(tmp_path, doing(tmp_path, lambda x: 1 / x), THREE, fail_jobs=False)
    assert (side.run(), side.statuses()) == (0, ["failed", "completed", "completed"])


def test_a_task_that_leaves_its_line_open_elsewhere_is_missed_at_once(tmp_path: Path) -> None:
    def forking(x: int) -> int:
        if x == 0:
            if os.fork() == 0:
                os.execvp("sleep", ["sleep", "600"])
            if os.fork() == 0:
                signal.pause()
            os._exit(1)
        return x

    side = JobSide(tmp_path, doing(tmp_path, forking), (0, 1))
    assert (side.run(seconds=30), side.values()) == (TASK_FAILED, ["exit code 1", 1])


# -- what a task finds of the others


def test_what_tasks_commonly_change_in_their_process_is_as_before_for_the_next(tmp_path: Path) -> None:
    def changing(x: int) -> tp.Any:
        import io

        environment = {name: value for name, value in os.environ.items() if name != ENCLOSING_TASKS}  # its own name
        found = [os.getcwd(), environment, list(sys.path), list(sys.argv), signal.getsignal(signal.SIGUSR1)]
        found += [type(sys.stdout).__name__]
        os.chdir("/")
        os.environ["OF_A_TASK"] = os.environ.pop("PATH")
        sys.path.insert(0, "/nowhere")
        sys.argv.append("more")
        signal.signal(signal.SIGUSR1, lambda number, frame: None)
        sys.stdout = io.StringIO()
        return repr(found)

    side = JobSide(tmp_path, doing(tmp_path, changing), THREE)
    side.run()
    assert len(set(side.values())) == 1


def test_a_task_that_closes_its_output_takes_it_from_no_other(tmp_path: Path) -> None:
    side = JobSide(tmp_path, doing(tmp_path, lambda x: sys.stdout.close() if x == 0 else print("heard") or x), THREE)
    side.run()
    assert side.values() == [None, 1, 2] and (side.entries[2].path / "logs/1.log").read_text() == "heard\n"


def test_the_program_is_loaded_once_for_all_tasks_of_a_process(tmp_path: Path) -> None:
    tools = Tools(tmp_path)

    class Heavy:
        """It notes each time it is loaded."""

        def __setstate__(self, state: tp.Any) -> None:
            tools.note("loaded")

        def __getstate__(self) -> tp.Any:
            return {"tools": tools}

        def __call__(self, argument: tp.Any, attempt: Attempt) -> int:
            return int(argument["x"])

    side = JobSide(tmp_path, Heavy(), THREE)
    side.run()
    assert (side.notes(), side.values()) == (["loaded"], [0, 1, 2])


def test_a_program_that_cannot_be_loaded_is_the_error_of_each_task(tmp_path: Path) -> None:
    class Broken:
        def __reduce__(self) -> tp.Any:
            return exec, ("raise ImportError('no such module')",)

    side = JobSide(tmp_path, Broken(), (0, 1))
    side.run()
    assert side.values() == ["no such module"] * 2


# -- several at a time


def test_as_many_tasks_run_at_a_time_as_there_are_workers(tmp_path: Path) -> None:
    tools = Tools(tmp_path)

    def meeting(x: int) -> int:
        (tools.folder / f"is {x}").touch()
        tools.wait_for(f"is {1 - x}")
        return x

    side = JobSide(tmp_path, doing(tmp_path, meeting), (0, 1), workers=2)
    assert (side.run(), side.values()) == (0, [0, 1])


def test_a_slow_task_does_not_hold_the_others(tmp_path: Path) -> None:
    side = JobSide(tmp_path, slow_first(tmp_path), (0, 1, 2, 3), workers=2)
    with side.started() as job:
        until(lambda: side.statuses() == [None] + ["completed"] * 3)
        side.go()
        assert job.wait(30) == 0 and side.values() == [0, 1, 2, 3]


def slow_first(folder: Path) -> Program:
    tools = Tools(folder)
    return doing(folder, lambda x: (tools.wait_for() if x == 0 else None) or x)


def test_tasks_have_the_time_of_their_job_to_themselves_until_another_was_computed(tmp_path: Path) -> None:
    def program(argument: tp.Any, attempt: Attempt) -> bool:
        return attempt.claim.shared

    side = JobSide(tmp_path, program, (0, 1, 2, 3), workers=2)
    side.run()
    assert side.values() == [False, False, True, True]


def test_a_task_after_one_that_was_there_already_has_the_time_to_itself(tmp_path: Path) -> None:
    def program(argument: tp.Any, attempt: Attempt) -> bool:
        return attempt.claim.shared

    side = JobSide(tmp_path, program, (0, 1))
    assert side.entry.publish_claim(side.claim(2, 0, token="of another launch"))
    side.run()
    assert side.values() == [None, False]


# -- another launch takes a task, or the job is ended


def test_a_task_that_another_launch_has_taken_is_ended_and_the_others_go_on(tmp_path: Path) -> None:
    side = JobSide(tmp_path, slow_first(tmp_path), THREE)
    with side.started() as job:
        until(lambda: side.notes())
        assert side.entry.publish_claim(side.claim(3, 0, token="of another launch"))
        assert (job.wait(30), side.values()) == (0, [None, 1, 2])


def test_who_has_taken_a_task_learns_of_the_end_of_its_process(tmp_path: Path) -> None:
    side = JobSide(tmp_path, waits_for_ever(tmp_path), (0, 1))
    with side.started():
        until(lambda: side.notes())
        running = side.entry.current_claim()
        assert running is not None and side.entry.publish_claim(side.claim(3, 0, token="of another launch"))
        until(lambda: side.notes() == ["0", "1"])
        assert side.entry.has_attempt_ended(running)


def test_who_has_taken_a_task_learns_that_it_was_computed_meanwhile(tmp_path: Path) -> None:
    tools = Tools(tmp_path)

    def program(argument: tp.Any, attempt: Attempt) -> None:
        if argument["x"] == 0:
            other = dataclasses.replace(attempt.claim, number=3, token="of another launch", state=ClaimState.QUEUED)
            assert attempt.entry.publish_claim(other)
        else:
            tools.note("next")
            tools.wait_for()

    side = JobSide(tmp_path, program, (0, 1))
    with side.started():
        until(lambda: side.notes())
        assert side.entry.has_attempt_ended(side.claim(2, 0))


def waits_for_ever(folder: Path) -> Program:
    return doing(folder, lambda x: Tools(folder).wait_for(f"never {x}"))


def test_a_task_that_the_launch_gives_up_is_ended(tmp_path: Path) -> None:
    side = JobSide(tmp_path, slow_first(tmp_path), THREE)
    with side.started() as job:
        until(lambda: side.notes())
        assert side.entry.publish_claim(side.claim(3, 0, state=ClaimState.RELEASED))
        assert (job.wait(30), side.values()) == (0, [None, 1, 2])


def test_a_task_that_does_not_end_when_it_is_asked_to_is_killed_with_all_it_started(tmp_path: Path) -> None:
    tools = Tools(tmp_path)

    def stubborn(x: int) -> int:
        if x == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            tools.note(subprocess.Popen(["sleep", "600"]).pid, "sleeper")
            tools.wait_for()
        return x

    side = JobSide(tmp_path, doing(tmp_path, stubborn), (0, 1))
    with side.started() as job:
        sleeper = psutil.Process(int(until(lambda: side.notes("sleeper"))[0]))
        assert side.entry.publish_claim(side.claim(3, 0, token="of another launch"))
        assert job.wait(30) == 0 and side.values() == [None, 1]
    until(lambda: not sleeper.is_running() or sleeper.status() == psutil.STATUS_ZOMBIE)


def test_a_task_ends_with_the_first_process_of_its_job_so_that_it_never_runs_beside_its_next_attempt(
    tmp_path: Path,
) -> None:
    side = JobSide(tmp_path, slow_first(tmp_path), THREE)
    with side.started() as job:
        until(lambda: side.notes())
        (child,) = children(job)
        job.kill()
        job.wait()
        until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
        side.go()
        assert side.values() == [None, None, None]


def test_an_end_of_the_job_ends_its_tasks_and_leaves_no_outcome(tmp_path: Path) -> None:
    side = JobSide(tmp_path, slow_first(tmp_path), THREE)
    with side.started() as job:
        until(lambda: side.notes())
        (child,) = children(job)
        job.terminate()
        assert (job.wait(30), child.is_running(), side.statuses()) == (-signal.SIGTERM, False, [None] * 3)


def test_an_end_of_all_processes_of_the_job_is_no_failure_of_a_task(tmp_path: Path) -> None:
    side = JobSide(tmp_path, slow_first(tmp_path), THREE)
    with side.started() as job:
        until(lambda: side.notes())
        children(job)[0].terminate()
        job.terminate()
        assert (job.wait(30), side.statuses()) == (-signal.SIGTERM, [None] * 3)


def test_tasks_that_no_process_can_be_made_for_stay_claimed(tmp_path: Path) -> None:
    side = JobSide(tmp_path, doing(tmp_path, lambda x: x), THREE)
    script = (
        "import os, sys\ndef fork(): raise OSError(11, 'no')\nos.fork = fork\nfrom hydra_exca.job.worker import run\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", f"{script}run({str(side.launch)!r}, 0)"], capture_output=True)
    states = [claim.state for entry in side.entries if (claim := entry.current_claim())]
    assert (done.returncode, states) == (1, [ClaimState.QUEUED] * 3)


# -- out of time


def test_a_job_that_is_out_of_time_starts_again_with_what_is_left(tmp_path: Path) -> None:
    side = JobSide(tmp_path, at_first(tmp_path), THREE, max_num_timeout=1)
    with side.started() as job:
        until(lambda: side.notes() == ["0", "1"])
        job.send_signal(signal.SIGUSR2)
        assert job.wait(30) == AGAIN
    assert (side.statuses(), side.entries[2].current_claim() and side.entries[2].current_claim().state) == (
        ["completed", None, None],
        ClaimState.QUEUED,
    )
    side.go()
    assert (side.run(), side.values()) == (0, ["0 of claim 2", "1 of claim 3", "2 of claim 2"])


def test_a_warning_for_all_processes_is_followed_once(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    side = JobSide(tmp_path, at_first(tmp_path, lambda: tools.note("saved") or True), (0, 1), max_num_timeout=1)
    with side.started() as job:
        until(lambda: side.notes() == ["0", "1"])
        os.killpg(job.pid, signal.SIGUSR2)
        assert (job.wait(30), side.notes()) == (AGAIN, ["0", "1", "saved"])


def test_each_running_task_is_asked_for_its_checkpoint(tmp_path: Path) -> None:
    checkpoint = lambda: DelayedSubmission("{} of {}".format, 7, 9)  # noqa: E731
    side = JobSide(tmp_path, at_first(tmp_path, checkpoint), THREE, max_num_timeout=1, workers=2)
    with side.started() as job:
        until(lambda: sorted(side.notes()) == ["0", "1", "2"])
        job.send_signal(signal.SIGUSR2)
        assert job.wait(30) == AGAIN
    assert (side.run(), side.values()) == (0, ["0 of claim 2", "7 of 9", "7 of 9"])


def test_a_job_that_may_not_start_again_goes_on(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    side = JobSide(tmp_path, at_first(tmp_path, lambda: tools.note("saved") or True), (0, 1))
    with side.started() as job:
        until(lambda: side.notes() == ["0", "1"])
        job.send_signal(signal.SIGUSR2)
        until(lambda: side.notes() == ["0", "1", "saved"])
        side.go()
        assert (job.wait(30), side.values()) == (0, ["0 of claim 2", "1 of claim 2"])


def test_tasks_that_are_not_to_start_again_go_on_when_nothing_else_is_left(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    side = JobSide(tmp_path, at_first(tmp_path, lambda: tools.note("asked")), (0, 1), max_num_timeout=1)
    with side.started() as job:
        until(lambda: side.notes() == ["0", "1"])
        job.send_signal(signal.SIGUSR2)
        until(lambda: side.notes() == ["0", "1", "asked"])
        side.go()
        assert (job.wait(30), side.values()) == (0, ["0 of claim 2", "1 of claim 2"])


def test_a_task_that_does_not_leave_is_ended_so_that_the_job_starts_again(tmp_path: Path) -> None:
    tools = Tools(tmp_path)

    def staying(x: int) -> None:
        while x:
            try:
                tools.wait_for()
            except BaseException:  # noqa: BLE001
                tools.note("stays")

    side = JobSide(tmp_path, doing(tmp_path, staying), (0, 1), max_num_timeout=1)
    with side.started() as job:
        until(lambda: side.notes() == ["0", "1"])
        job.send_signal(signal.SIGUSR2)
        assert (job.wait(30), side.statuses()) == (AGAIN, ["completed", None])


@pytest.mark.slurm
def test_a_packed_job_of_slurm_is_requeued_and_computes_what_is_left(tmp_path: Path) -> None:
    side = JobSide(tmp_path, at_first(tmp_path), THREE, cluster="slurm", signal_delay_s=30)
    with side.submitted("--time=60") as job:
        until(lambda: side.notes() == ["0", "1"], 300)
        subprocess.run(["scancel", "--signal=USR2", job], check=True)
        until(lambda: (claim := side.entries[1].current_claim()) and claim.number > 2, 300)
        side.go()
        assert until(lambda: side.values() == ["0 of claim 2", "1 of claim 3", "2 of claim 2"])


@pytest.mark.slurm
def test_a_packed_job_of_slurm_that_is_cancelled_asks_each_checkpoint_and_leaves_no_outcome(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    program = at_first(tmp_path, lambda: tools.note("saved"))
    side = JobSide(tmp_path, program, THREE, cluster="slurm", workers=2)
    with side.submitted() as job:
        until(lambda: sorted(side.notes()) == ["0", "1", "2"], 300)
        subprocess.run(["scancel", job], check=True)
        until(lambda: own_job.has_ended(job))
        assert (side.statuses(), side.notes()[3:]) == (["completed", None, None], ["saved", "saved"])
