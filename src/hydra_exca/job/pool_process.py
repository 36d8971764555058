"""A process that computes tasks of a pack, one after another, and what it and the pack's first process tell each other.

Between two tasks the working directory, the environment, sys.path, sys.argv, standard output and standard error, and
the signal handlers are made what they were. All else that a task changes in its process is there for the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import socket
import sys
import typing as tp
from pathlib import Path

from hydra_exca.clusters.base import AGAIN
from hydra_exca.provenance.task_record import Recorder
from hydra_exca.store import Entry

from . import payload as payloads
from .attempt import Attempt, LoadedProgram, attempt_task, redirect_to_log
from .checkpoints import CheckpointAnswer
from .signals import RunningJob, SignalHandlers

GO_ON = b"c"  # the orders that come with SIGUSR2: call the checkpoint, and go on;
OUT_OF_TIME = b"t"  # or leave, unless the checkpoint says that there is no second start;
PREEMPTED = b"p"  # or leave
COMPUTED, SKIPPED, CLAIM = "computed", "skipped", "claim"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_KEPT = (signal.SIGKILL, signal.SIGSTOP)


class ParentPipe:
    """The child's end of its line to the pack: positions come, lines go. Orders come beside, with a signal."""

    def __init__(self, line: socket.socket, orders: int) -> None:
        self._line = line
        self._orders = orders
        self._buffer = b""

    def next(self) -> tuple[int, bool] | None:
        """The next position, and whether other tasks came before it; None if there is none, or no pack any more."""
        while b"\n" not in self._buffer:
            try:
                data = self._line.recv(4096)
            except ConnectionError:
                data = b""
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        position, shared = line.split()
        return int(position), shared == b"1"

    def say(self, word: str) -> bool:
        """Tells the pack; False if it is gone."""
        try:
            self._line.sendall(f"{word}\n".encode())
            return True
        except OSError:
            return False

    def order(self) -> bytes:
        """The last order that came, nothing if none did."""
        try:
            return os.read(self._orders, 4096)[-1:]
        except BlockingIOError:
            return b""


class PoolSignals(SignalHandlers):
    """The signals of a process of a pack. srun sends them to all of a job; only what the pack orders is done."""

    def __init__(self, job: RunningJob, link: ParentPipe) -> None:
        super().__init__(job)
        self._link = link

    def begin(self, position: int) -> None:
        """This is the task now; no order came for it yet."""
        self._link.order()
        self.position, self.attempt = position, None

    def watch(self, attempt: Attempt) -> None:
        super().watch(attempt)
        self._link.say(f"{CLAIM} {attempt.claim.number}")

    def over(self) -> None:
        """It is no more."""
        self.position, self.attempt = -1, None

    def warned(self) -> None:
        order = self._link.order()
        if not order or self.position < 0:
            return
        answer = self.ask()
        self._link.say(answer.value)
        self.leave_if_terminated()
        if order == PREEMPTED or (order == OUT_OF_TIME and answer is not CheckpointAnswer.REFUSED):
            self.leave(AGAIN)


class ProcessState:
    """What tasks commonly change in their process, as it is now."""

    def __init__(self) -> None:
        self._folder = os.getcwd()
        self._environment = dict(os.environ)
        self._path, self._argv = list(sys.path), list(sys.argv)
        self._streams = sys.stdout, sys.stderr
        self._handlers = {number: signal.getsignal(number) for number in signal.valid_signals() if number not in _KEPT}

    def restore(self) -> None:
        os.chdir(self._folder)
        if dict(os.environ) != self._environment:
            os.environ.clear()
            os.environ.update(self._environment)
        sys.path[:], sys.argv[:] = self._path, self._argv
        sys.stdout, sys.stderr = self._streams
        for number, handler in self._handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


class LogFiles:
    """Where this process prints between two tasks."""

    def __init__(self) -> None:
        self._own = os.dup(1), os.dup(2)

    def restore(self) -> None:
        """What was printed is in the task's log; what comes is in that of the job."""
        flush_output()
        _libc().fflush(None)
        for number, own in enumerate(self._own, start=1):
            os.dup2(own, number)


class TaskServer:
    """Computes what the pack hands over, until it hands over no more."""

    def __init__(self, job: RunningJob, link: ParentPipe) -> None:
        self._job = job
        self._link = link
        self._handlers = PoolSignals(job, link)
        self._handlers.install()
        self._loaded = LoadedProgram(job.launch, job.payload, self._keep)
        self._parts = payloads.PartReader(job.launch, job.payload)
        self._kept: ProcessState | None = None
        self._logs = LogFiles()

    def serve(self) -> None:
        while (handed := self._link.next()) is not None:
            position, shared = handed
            self._handlers.begin(position)
            self._compute(position, shared)
            told = SKIPPED if self._handlers.attempt is None else COMPUTED
            flush_output()
            if self._kept is not None:
                self._kept.restore()
            self._logs.restore()
            self._handlers.over()
            if not self._link.say(told) or sys.stdout.closed or sys.stderr.closed:  # it could not print
                return

    def _compute(self, position: int, shared: bool) -> None:
        part = self._parts.read(position)
        entry = Entry(Path(part.entry))
        status = attempt_task(
            entry,
            part.identity,
            self._job.launch.name,
            self._loaded.computing(part, position),
            redirect=self._redirect,
            copy=self._job.payload.copy,
            recorder=Recorder(self._job.launch, self._job.payload.provenance, part.overrides),
            shared=shared,
            guard=self._handlers,
        )
        if status is None and self._handlers.attempt is not None:
            entry.mark_attempt_ended(self._handlers.attempt.claim)  # whoever has taken it waits for that

    def _redirect(self, attempt: Attempt) -> None:
        redirect_to_log(attempt, self._job.payload)

    def _keep(self) -> None:
        self._handlers.install()
        self._kept = ProcessState()


def flush_output() -> None:
    """Writes what was printed, through whatever the task has put there."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def serve_tasks(job: RunningJob, line: socket.socket, orders: int, mask: tp.Iterable[int], pack: int) -> None:
    """What a process does that the pack has forked, with its signals held back; ``mask`` are those held back before.

    It ends with the pack: the launch takes the job for ended then, and has others compute its tasks.
    """
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != pack:  # it is gone already
        os._exit(1)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    server = TaskServer(job, ParentPipe(line, orders))
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    server.serve()
