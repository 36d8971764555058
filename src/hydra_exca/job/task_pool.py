"""The first process of a job of several tasks, which assigns them to processes that it forks.

Only those import the user's code. Each loads it once and computes one task after another, see `pool_process`. If a task
kills its process, only that task is lost, and another process is forked.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import os
import selectors
import signal
import socket
import time
import typing as tp

from hydra_exca.clusters.base import AGAIN, JobReport, JobState
from hydra_exca.clusters.process import exit_reason
from hydra_exca.status import Status
from hydra_exca.store import ClaimState, Entry

from . import pool_process
from .attempt import is_wanted
from .checkpoints import CheckpointAnswer
from .logs import write_to_log
from .lost import describe_lost_job, give_up_lost_job, record_lost_job
from .payload import read_part
from .pool_process import POOL_SIGNALS, PoolProcess
from .signals import NO_RESTARTS_LEFT, TERMINATED, RunningJob

log = logging.getLogger("exca.worker")
_CHECK_S = 2.0  # how often the pool checks whether the running tasks are still wanted
_EXIT_TIMEOUT_S = 5.0  # for a task that has answered the order to end
_SAVE_RESERVE_S = 20.0  # reserved, before the time limit, for exiting after the checkpoints
_SIGNAL_LAG_S = 1.0  # how much later than its processes the pool may receive a signal sent to the whole job
_TERMINATE_TIMEOUT_S = {
    "local": 4.0,
    "slurm": 60.0,
}  # for the tasks to end; whoever ends the job then kills what is left
_LONGEST_WAIT_S = 60.0
_TRIES = 2  # of a task whose process ends before it has a claim


@dataclasses.dataclass
class PoolShutdown:
    """The job has to end before its tasks: why, until when it waits for answers, which tasks did not end."""

    out_of_time: bool
    until: float
    unfinished: list[int] = dataclasses.field(default_factory=list)
    refused: list[int] = dataclasses.field(default_factory=list)


class TaskPool:
    """Assigns tasks to processes, ``workers`` of them at a time, and ends these when the job has to end."""

    def __init__(self, job: RunningJob, positions: tp.Iterable[int]) -> None:
        self._job = job
        self._waiting = collections.deque(positions)
        self._tries = collections.Counter[int]()
        self._children: list[PoolProcess] = []
        self._num_begun = 0
        self._num_computed = 0
        self._num_failed = 0
        self._skipped: list[int] = []
        self._shutdown: PoolShutdown | None = None
        self._received: set[int] = set()
        self._next_check = time.monotonic() + _CHECK_S
        self._selector = selectors.PollSelector()
        self._wakeup, self._wakeup_writer = socket.socketpair()

    def run(self) -> None:
        """Returns when every task has ended. Raises SystemExit if the job has to end before."""
        self._install_signal_handlers()
        while self._waiting or self._children:
            if self._shutdown is None:
                self._assign_tasks()
            self._wait(self._seconds_to_deadline())
            self._handle_signals()
            for child in list(self._children):
                self._update(child)
            if self._shutdown is not None:
                self._continue_shutdown(self._shutdown)
            elif time.monotonic() >= self._next_check:
                self._end_unwanted()

    def has_failed_task(self) -> bool:
        """Whether a task of the job has failed, in this start or, if this one has computed anything, an earlier one.

        A job that Slurm requeues because of its exit code, and that finds all outcomes, must not be requeued again.
        """
        return self._num_failed > 0 or (self._num_computed > 0 and any(map(self._is_stored_failure, self._skipped)))

    def _is_stored_failure(self, position: int) -> bool:
        outcome = Entry(read_part(self._job.launch, self._job.payload, position).entry).readable_outcome()
        return outcome is not None and outcome.status is Status.FAILED and outcome.token == self._job.launch.name

    def _install_signal_handlers(self) -> None:
        """Lets signals wake this process up, and no more: `_handle_signals` acts on them."""
        for end in (self._wakeup, self._wakeup_writer):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        for number in POOL_SIGNALS:
            signal.signal(number, lambda number, frame: self._received.add(number))
        self._selector.register(self._wakeup, selectors.EVENT_READ)

    def _close_in_child(self) -> None:
        """Closes in a forked process what belongs to this one."""
        self._wakeup.close()
        self._wakeup_writer.close()
        for child in self._children:
            child.messages.close()

    # assigning tasks

    def _assign_tasks(self) -> None:
        """Assigns waiting tasks to idle processes, and forks new ones."""
        for child in self._children:
            if child.position is None and child.deadline is None:
                self._assign_next(child)
        while self._waiting and len(self._children) < self._job.payload.workers:
            try:
                child = PoolProcess.fork(self._job, self._close_in_child)
            except OSError as error:
                if self._children:  # they will compute the waiting tasks
                    return
                write_to_log(f"cannot start a process: {error}. {len(self._waiting)} tasks of this job were not begun")
                raise SystemExit(1) from None
            self._selector.register(child.messages, selectors.EVENT_READ)
            self._children.append(child)
            self._assign_next(child)

    def _assign_next(self, child: PoolProcess) -> None:
        if not self._waiting:
            child.dismiss()
        elif child.assign_task(self._waiting[0], shared=self._num_begun >= self._job.payload.workers):
            self._waiting.popleft()
            self._num_begun += 1

    def _seconds_to_deadline(self) -> float:
        """The time until the next deadline, if nothing else happens."""
        times = [child.deadline for child in self._children if child.deadline is not None]
        times.append(self._next_check if self._shutdown is None else self._shutdown.until)
        return max(0.0, min(*times, time.monotonic() + _LONGEST_WAIT_S) - time.monotonic())

    def _wait(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._wakeup:
                self._wakeup.recv(4096)

    # messages and ends of the processes

    def _update(self, child: PoolProcess) -> None:
        """Handles the messages of a process, and its end."""
        code = child.exit_code()
        for message in child.read_messages():
            self._handle_message(child, message)
        if code is None:
            if child.is_silent and child.messages in self._selector.get_map():
                self._selector.unregister(child.messages)
            child.enforce_deadline()
            return
        self._children.remove(child)
        if child.messages in self._selector.get_map():
            self._selector.unregister(child.messages)
        child.clean_up()
        if child.position is None:
            return
        self._release_task(child)
        if not child.is_unwanted:
            self._handle_death(child, child.position, code)

    def _release_task(self, child: PoolProcess) -> None:
        """Records that the process computes no more: another launch that has taken its task may wait for that."""
        entry = child.task_entry(self._job)
        with contextlib.suppress(OSError):  # the entry was removed
            owner = entry.current_claim()
            if child.claim is not None and owner is not None and not is_wanted(owner, self._job.launch.name):
                entry.mark_attempt_ended(dataclasses.replace(owner, number=child.claim))

    def _handle_message(self, child: PoolProcess, message: str) -> None:
        if message.startswith(pool_process.CLAIM):
            child.claim = int(message.split()[1])
            return
        if message in (pool_process.COMPUTED, pool_process.FAILED, pool_process.SKIPPED):
            if message == pool_process.SKIPPED and child.position is not None:
                self._skipped.append(child.position)
                self._num_begun -= 1
            else:
                self._num_computed += 1
                self._num_failed += message == pool_process.FAILED
            child.position, child.must_answer = None, False
            return
        child.must_answer, child.answer = False, CheckpointAnswer(message)
        if self._shutdown is not None and not self._keeps_running(child):
            child.deadline = time.monotonic() + _EXIT_TIMEOUT_S

    def _handle_death(self, child: PoolProcess, position: int, code: int) -> None:
        """Handles the task that a process was computing when it died."""
        if self._shutdown is not None:
            refused = not self._shutdown.out_of_time and child.answer is CheckpointAnswer.REFUSED
            (self._shutdown.refused if refused else self._shutdown.unfinished).append(position)
        elif code not in (-signal.SIGTERM, TERMINATED) or not self._is_terminated():
            self._record_death(child, position, code)

    def _is_terminated(self) -> bool:
        """Whether the signal that ended a process was meant for all of the job."""
        deadline = time.monotonic() + _SIGNAL_LAG_S
        while signal.SIGTERM not in self._received and (left := deadline - time.monotonic()) > 0:
            self._wait(left)
        return signal.SIGTERM in self._received

    def _record_death(self, child: PoolProcess, position: int, code: int) -> None:
        """Stores the end of the process as the task's outcome; a task that it had not begun is assigned again."""
        entry = child.task_entry(self._job)
        claim = entry.current_claim()
        if claim is None or not is_wanted(claim, self._job.launch.name) or entry.outcome() is not None:
            return
        if claim.state is ClaimState.QUEUED or claim.owner.get("pid") != child.pid:
            self._num_begun -= 1
            self._tries[position] += 1
            if self._tries[position] < _TRIES:
                self._waiting.append(position)
            return
        launch, payload = self._job.launch, self._job.payload
        identity = read_part(launch, payload, position).identity
        report = JobReport(JobState.ENDED, exit_reason(code))
        is_killed = code == -signal.SIGKILL and not self._job.on_slurm
        end_task = give_up_lost_job if is_killed and entry.has_saved_output() else record_lost_job
        end_task(entry, claim, describe_lost_job(entry, claim, identity, report, payload.code))
        self._num_failed += 1

    def _end_unwanted(self) -> None:
        """Ends the processes of tasks that another launch has taken, or that were given up: somebody waits for that."""
        self._next_check = time.monotonic() + _CHECK_S
        for child in self._busy_children():
            with contextlib.suppress(OSError):  # the next check may succeed
                entry = child.task_entry(self._job)
                claim = entry.current_claim()
                taken = claim is not None and not is_wanted(claim, self._job.launch.name)
                if taken or entry.outcome() is not None:  # stored by somebody else: the task was cancelled
                    child.is_unwanted = True
                    child.request_end()

    def _busy_children(self) -> list[PoolProcess]:
        return [child for child in self._children if child.position is not None]

    # signals

    def _handle_signals(self) -> None:
        received, self._received = self._received, set()
        if signal.SIGTERM in received:
            self._terminate()
        if signal.SIGUSR2 in received and self._shutdown is None:
            self._order_checkpoints()

    def _order_checkpoints(self) -> None:
        """The job will end soon: orders the tasks to save what they have, and to end if the job can start again."""
        out_of_time = self._job.is_out_of_time()
        goes_on = not self._job.may_start_again(out_of_time)
        order = pool_process.OUT_OF_TIME if out_of_time else pool_process.PREEMPTED
        if goes_on:
            order = pool_process.GO_ON
            write_to_log(NO_RESTARTS_LEFT)
        else:
            patience = max(_EXIT_TIMEOUT_S, self._job.payload.signal_delay_s - _SAVE_RESERVE_S)
            self._shutdown = PoolShutdown(out_of_time, time.monotonic() + patience)
        for child in self._children:
            if child.position is not None:
                child.send_order(order)

    def _keeps_running(self, child: PoolProcess) -> bool:
        """Whether a task goes on after the order to end: its checkpoint refuses another start, and time is left."""
        return self._shutdown is not None and self._shutdown.out_of_time and child.answer is CheckpointAnswer.REFUSED

    def _continue_shutdown(self, shutdown: PoolShutdown) -> None:
        """Lets the job start again once all processes have ended, if any task is left."""
        self._end_children(shutdown)
        busy = self._busy_children()
        staying = [child for child in busy if self._keeps_running(child)]
        if len(staying) < len(busy):
            return
        if self._waiting or shutdown.unfinished:
            for child in staying:
                child.request_end()
            if not self._children:
                self._start_again(shutdown)
        elif staying:
            self._shutdown = None
        elif shutdown.refused and not self._children:
            raise SystemExit(TERMINATED)

    def _end_children(self, shutdown: PoolShutdown) -> None:
        """Dismisses the idle processes, and ends those that have not answered in time."""
        late = time.monotonic() >= shutdown.until
        for child in self._children:
            if child.position is None:
                child.dismiss()
            elif late and child.must_answer:
                child.must_answer = False
                child.request_end()
        if late:
            shutdown.until = float("inf")

    def _start_again(self, shutdown: PoolShutdown) -> None:
        if self._job.start_again(shutdown.out_of_time):
            raise SystemExit(AGAIN)
        self._waiting.extendleft(reversed(shutdown.unfinished))
        self._shutdown = None

    def _terminate(self) -> tp.NoReturn:
        """Passes SIGTERM on, waits for tasks that store what they have, and ends."""
        for child in self._children:
            child.terminate()
        deadline = time.monotonic() + _TERMINATE_TIMEOUT_S[self._job.payload.cluster]
        while self._children and (left := deadline - time.monotonic()) > 0:
            self._wait(left)
            self._children = [child for child in self._children if child.exit_code() is None]
        if not self._job.on_slurm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        raise SystemExit(TERMINATED)
