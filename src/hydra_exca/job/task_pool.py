"""Several tasks of one job: a light process that hands them to processes of its own, forked from it.

Only the forked ones import the user's code: each loads it once and computes one task after another, see `packed`.
One that a task kills costs that task only.
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

from hydra_exca.clusters.base import AGAIN
from hydra_exca.clusters.process import exit_reason
from hydra_exca.store import ClaimState

from . import lost, payload, pool_process
from .attempt import Attempt, attempt_log_paths, is_wanted, make_outcome
from .checkpoints import CheckpointAnswer, write_to_log
from .pool_child import SIGNALS, PoolChild, fork_child
from .signals import TERMINATED, RunningJob

log = logging.getLogger("exca.worker")
_LOOK_S = 2.0  # how often it is looked whether the running tasks are still wanted
_LEAVE_S = 5.0  # for a task that was told to end and has answered
_STORE_S = 20.0  # of the time between the warning and the end, left for what comes after the checkpoints
_ECHO_S = 1.0  # by which a signal for all may come later here than to a task's process
_END_S = {"local": 4.0, "slurm": 60.0}  # for the tasks to end; who asks for it ends what is left
_PAUSE_S = 60.0
_TRIES = 2  # of a task whose process ends before it has a claim


def run_task_pool(job: RunningJob, positions: tp.Iterable[int]) -> None:
    """Computes several tasks of a job, ``workers`` of them at a time."""
    TaskPool(job, positions).run()


@dataclasses.dataclass
class PoolShutdown:
    """The job is to end before its tasks have: why, until when answers are waited for, which tasks are left."""

    out_of_time: bool
    until: float
    left: list[int] = dataclasses.field(default_factory=list)
    refused: list[int] = dataclasses.field(default_factory=list)


class TaskPool:
    """The first process of a job of several tasks."""

    def __init__(self, job: RunningJob, positions: tp.Iterable[int]) -> None:
        self._job = job
        self._waiting = collections.deque(positions)
        self._tries = collections.Counter[int]()
        self._children: list[PoolChild] = []
        self._begun = 0
        self._leave: PoolShutdown | None = None
        self._caught: set[int] = set()
        self._look = time.monotonic() + _LOOK_S
        self._selector = selectors.PollSelector()
        self._wakeup, self._waking = socket.socketpair()

    def run(self) -> None:
        """Returns when every task was handed out and is over; raises SystemExit when it is told to end."""
        self._listen()
        while self._waiting or self._children:
            if self._leave is None:
                self._start()
            self._wait(self._pause())
            self._follow_signals()
            for child in list(self._children):
                self._attend(child)
            if self._leave is not None:
                self._see_to_leaving(self._leave)
            elif time.monotonic() >= self._look:
                self._end_unwanted()

    def _listen(self) -> None:
        """Lets signals wake this process up, and nothing else: what they mean is seen to in `run_task_pool`."""
        for end in (self._wakeup, self._waking):
            end.setblocking(False)
        signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda number, frame: self._caught.add(number))
        self._selector.register(self._wakeup, selectors.EVENT_READ)

    def _forget(self) -> None:
        """In a forked process: closes what is this process's."""
        self._wakeup.close()
        self._waking.close()
        for child in self._children:
            child.forget()

    # handing out

    def _start(self) -> None:
        """Hands what waits to processes that have nothing to do, and makes new ones."""
        for child in self._children:
            if child.position is None and child.deadline is None:
                self._hand(child)
        while self._waiting and len(self._children) < self._job.payload.workers:
            try:
                child = fork_child(self._job, self._forget)
            except OSError as error:
                if self._children:  # they do it
                    return
                write_to_log(f"no process can be made: {error}. {len(self._waiting)} tasks of this job were not begun")
                raise SystemExit(1) from None
            self._selector.register(child.line, selectors.EVENT_READ)
            self._children.append(child)
            self._hand(child)

    def _hand(self, child: PoolChild) -> None:
        if not self._waiting:
            child.dismiss()
        elif child.hand(self._waiting[0], shared=self._begun >= self._job.payload.workers):
            self._waiting.popleft()
            self._begun += 1

    def _pause(self) -> float:
        """How long nothing need be done if nothing happens."""
        times = [child.deadline for child in self._children if child.deadline is not None]
        times.append(self._look if self._leave is None else self._leave.until)
        return max(0.0, min(*times, time.monotonic() + _PAUSE_S) - time.monotonic())

    def _wait(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._wakeup:
                self._wakeup.recv(4096)

    # what the processes say, and how they end

    def _attend(self, child: PoolChild) -> None:
        """Sees to what a process has said since, and whether it is gone."""
        code = child.exit_code()
        for line in child.lines():
            self._hear(child, line)
        if code is None:
            if child.is_silent and child.line in self._selector.get_map():
                self._selector.unregister(child.line)
            child.end_unless_gone()
            return
        self._children.remove(child)
        if child.line in self._selector.get_map():
            self._selector.unregister(child.line)
        child.close()
        if child.position is None:
            return
        self._let_go(child)
        if not child.is_unwanted:
            self._ended(child, child.position, code)

    def _let_go(self, child: PoolChild) -> None:
        """Tells whoever has taken a process's task, and waits for its end, that it has come."""
        entry = child.entry_of(self._job)
        with contextlib.suppress(OSError):  # the entry was removed
            owner = entry.current_claim()
            if child.claim is not None and owner is not None and not is_wanted(owner, self._job.launch.name):
                entry.mark_attempt_ended(dataclasses.replace(owner, number=child.claim))

    def _hear(self, child: PoolChild, line: str) -> None:
        if line.startswith(pool_process.CLAIM):
            child.claim = int(line.split()[1])
            return
        if line in (pool_process.COMPUTED, pool_process.SKIPPED):
            child.position, child.is_asked = None, False
            self._begun -= line == pool_process.SKIPPED
            return
        child.is_asked, child.answer = False, CheckpointAnswer(line)
        if self._leave is not None and not self._stays(child):
            child.deadline = time.monotonic() + _LEAVE_S

    def _ended(self, child: PoolChild, position: int, code: int) -> None:
        """A process has ended in the middle of a task."""
        if self._leave is not None:
            refused = not self._leave.out_of_time and child.answer is CheckpointAnswer.REFUSED
            (self._leave.refused if refused else self._leave.left).append(position)
        elif code not in (-signal.SIGTERM, TERMINATED) or not self._is_terminated_too():
            self._lose(child, position, code)

    def _is_terminated_too(self) -> bool:
        """Whether the signal that ended a process was meant for all of the job."""
        deadline = time.monotonic() + _ECHO_S
        while signal.SIGTERM not in self._caught and (left := deadline - time.monotonic()) > 0:
            self._wait(left)
        return signal.SIGTERM in self._caught

    def _lose(self, child: PoolChild, position: int, code: int) -> None:
        """Writes how the task ended that a process has died of; one that it had not begun is handed out again."""
        entry = child.entry_of(self._job)
        claim = entry.current_claim()
        if claim is None or not is_wanted(claim, self._job.launch.name) or entry.outcome() is not None:
            return
        if claim.state is ClaimState.QUEUED or claim.owner.get("pid") != child.pid:
            self._begun -= 1
            self._tries[position] += 1
            if self._tries[position] < _TRIES:
                self._waiting.append(position)
            return
        copy = self._job.payload.copy
        attempt = Attempt(entry, claim, code=None if copy is None else copy.digest)
        error = {"kind": "lost", "type": "JobLostError", "message": exit_reason(code), "traceback": ""}
        identity = payload.read_part(self._job.launch, self._job.payload, position).identity
        log_path = attempt_log_paths(attempt)[0]
        lost.store_lost_outcome(
            entry, claim, make_outcome(attempt, identity, claim.time, error=error, log_path=log_path)
        )

    def _end_unwanted(self) -> None:
        """Ends the processes of tasks that another launch has taken, or theirs given up: somebody waits for that."""
        self._look = time.monotonic() + _LOOK_S
        for child in self._busy():
            with contextlib.suppress(OSError):  # the next look may see more
                entry = child.entry_of(self._job)
                claim = entry.current_claim()
                lost = claim is not None and not is_wanted(claim, self._job.launch.name)
                if lost or entry.outcome() is not None:  # or somebody has said that it failed: it is cancelled
                    child.is_unwanted = True
                    child.end_once()

    def _busy(self) -> list[PoolChild]:
        return [child for child in self._children if child.position is not None]

    # being told to end

    def _follow_signals(self) -> None:
        caught, self._caught = self._caught, set()
        if signal.SIGTERM in caught:
            self._end_all()
        if signal.SIGUSR2 in caught and self._leave is None:
            self._warn()

    def _warn(self) -> None:
        """Time or place are lost soon: lets the tasks save what they have, and end if the job can start again."""
        out_of_time = self._job.is_out_of_time()
        goes_on = not self._job.may_start_again(out_of_time)
        if goes_on:
            write_to_log("the time is nearly up, and the job may not start again: it goes on until its end")
        else:
            patience = max(_LEAVE_S, self._job.payload.signal_delay_s - _STORE_S)
            self._leave = PoolShutdown(out_of_time, time.monotonic() + patience)
        for child in self._children:
            if child.position is not None:
                child.order(
                    pool_process.GO_ON
                    if goes_on
                    else pool_process.OUT_OF_TIME
                    if out_of_time
                    else pool_process.PREEMPTED
                )

    def _stays(self, child: PoolChild) -> bool:
        """Whether a task goes on that was told to end: it is not to be started again, and has a little time."""
        return self._leave is not None and self._leave.out_of_time and child.answer is CheckpointAnswer.REFUSED

    def _see_to_leaving(self, leave: PoolShutdown) -> None:
        """Once all have answered and ended, lets the job start again, if there is something left to do."""
        self._dismiss_and_end(leave)
        busy = self._busy()
        staying = [child for child in busy if self._stays(child)]
        if len(staying) < len(busy):
            return
        if self._waiting or leave.left:
            for child in staying:
                child.end_once()
            if not self._children:
                self._start_again(leave)
        elif staying:
            self._leave = None
        elif leave.refused and not self._children:
            raise SystemExit(TERMINATED)

    def _dismiss_and_end(self, leave: PoolShutdown) -> None:
        """Lets go who has nothing to do, and ends who has not answered in time."""
        late = time.monotonic() >= leave.until
        for child in self._children:
            if child.position is None:
                child.dismiss()
            elif late and child.is_asked:
                child.is_asked = False
                child.end_once()
        if late:
            leave.until = float("inf")

    def _start_again(self, leave: PoolShutdown) -> None:
        if self._job.start_again(leave.out_of_time):
            raise SystemExit(AGAIN)
        self._waiting.extendleft(reversed(leave.left))
        self._leave = None

    def _end_all(self) -> tp.NoReturn:
        """The job is over: hands the signal on, and waits for tasks that store what they have."""
        for child in self._children:
            child.terminate()
        deadline = time.monotonic() + _END_S[self._job.payload.cluster]
        while self._children and (left := deadline - time.monotonic()) > 0:
            self._wait(left)
            self._children = [child for child in self._children if child.exit_code() is None]
        if not self._job.on_slurm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        raise SystemExit(TERMINATED)
