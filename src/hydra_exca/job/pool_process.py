"""A process of a task pool, from both ends: the pool's handle on it, and the code that runs in it.

The pool forks it and assigns it one task after another over a socket; it answers with messages. What to do about a
warning comes the same way, together with SIGUSR2. Between two tasks the working directory, the environment,
sys.path, sys.argv, standard output and standard error, and the signal handlers are restored. Anything else that a
task changes in its process stays for the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import re
import signal
import socket
import sys
import time
import typing as tp

from hydra_exca.clusters.base import AGAIN
from hydra_exca.clusters.process import descendants, send_signal
from hydra_exca.code.observer import observe
from hydra_exca.status import Status
from hydra_exca.store import Entry

from .attempt import Attempt, LoadedProgram, attempt_part
from .checkpoints import CheckpointAnswer
from .payload import PartReader, read_part
from .signals import RunningJob, SignalHandlers

if tp.TYPE_CHECKING:
    import psutil

# orders, which come with SIGUSR2: call the checkpoint, and ...
GO_ON = b"c"  # go on
OUT_OF_TIME = b"t"  # leave, unless the checkpoint refuses a second start
PREEMPTED = b"p"  # leave
# messages; the answer to an order is the value of a CheckpointAnswer
COMPUTED, FAILED, SKIPPED, CLAIM = "computed", "failed", "skipped", "claim"
_TASK = re.compile(rb"(\d+) ([01])\n")  # the position, and whether other tasks came before
POOL_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR2)  # that the pool waits for
_GRACE_S = 5.0  # between asking a process to end, and killing it
_EXIT_S = 10.0  # for a process that has nothing to do any more
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_NOT_SETTABLE = (signal.SIGKILL, signal.SIGSTOP)


# the pool's end


@dataclasses.dataclass(eq=False)
class PoolProcess:
    """A forked process, with the task that it computes, its answer to the last order, and its deadline."""

    pid: int
    messages: socket.socket
    position: int | None = None
    entry: Entry | None = None
    claim: int | None = None  # the number of the claim under which it computes
    must_answer: bool = False  # to an order
    answer: CheckpointAnswer | None = None
    is_unwanted: bool = False
    is_silent: bool = False  # no message will come: it exits, or the task has closed the socket
    deadline: float | None = None
    _buffer: bytes = b""
    _is_ending: bool = False
    _family: list[psutil.Process] = dataclasses.field(default_factory=list)

    @classmethod
    def fork(cls, job: RunningJob, close_pool: tp.Callable[[], None]) -> PoolProcess:
        """Starts a process that computes tasks of the job. Raises OSError if it cannot be started.

        ``close_pool()`` closes the pool's own ends in it: by these, other processes see when the pool is gone.
        """
        ours, theirs = socket.socketpair()
        child, pool = cls(-1, ours), os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, POOL_SIGNALS)
        try:
            child.pid = os.fork()
        except OSError:
            ours.close()
            raise
        finally:
            if child.pid != 0:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                theirs.close()
        if child.pid == 0:
            ours.close()
            close_pool()
            _serve_tasks(job, PoolConnection(theirs), mask, pool)
            raise SystemExit(0)
        return child

    def read_messages(self) -> list[str]:
        """The messages that came since the last call."""
        try:
            while data := self.messages.recv(4096, socket.MSG_DONTWAIT):
                self._buffer += data
            self.is_silent = True
        except BlockingIOError:
            pass
        except OSError:
            self.is_silent = True
        *lines, self._buffer = self._buffer.split(b"\n")
        return [line.decode() for line in lines]

    def assign_task(self, position: int, shared: bool) -> bool:
        """Assigns a task; False if the process has ended."""
        try:
            self.messages.sendall(f"{position} {int(shared)}\n".encode())
        except OSError:
            return False
        self.position, self.entry, self.claim = position, None, None
        self.must_answer, self.answer = False, None
        return True

    def send_order(self, order: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self.messages.sendall(order + b"\n")
        self.must_answer = True
        os.kill(self.pid, signal.SIGUSR2)

    def dismiss(self) -> None:
        """Lets it exit, as it has nothing to do any more."""
        if self.deadline is None:
            self.messages.shutdown(socket.SHUT_WR)
            self.deadline = time.monotonic() + _EXIT_S

    def request_end(self) -> None:
        """Sends SIGTERM, once. If it has not ended after a while, it is killed with all that it has started."""
        if not self._is_ending:
            self._is_ending = True
            self._family = descendants(self.pid)
            self.terminate()
            self.deadline = time.monotonic() + _GRACE_S

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)  # its pid is not reused before `exit_code` has waited for it

    def enforce_deadline(self) -> None:
        """Asks it to end once its deadline has passed, and kills it after the next one."""
        if self.deadline is None or time.monotonic() < self.deadline:
            return
        self.deadline = None
        if self._is_ending:
            os.kill(self.pid, signal.SIGKILL)
            self._kill_family()
        else:
            self.request_end()

    def exit_code(self) -> int | None:
        """The exit code, as in `subprocess`; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def clean_up(self) -> None:
        """Called after its end: kills what it has started, if it was asked to end."""
        self.messages.close()
        self._kill_family()

    def task_entry(self, job: RunningJob) -> Entry:
        """The entry of the task that it computes."""
        assert self.position is not None
        if self.entry is None:
            self.entry = Entry(read_part(job.launch, job.payload, self.position).entry)
        return self.entry

    def _kill_family(self) -> None:
        for member in self._family:
            send_signal(member, signal.SIGKILL)


# its own end


class PoolConnection:
    """The process's end of the socket."""

    def __init__(self, messages: socket.socket) -> None:
        self._messages = messages
        self._buffer = b""

    def receive_task(self) -> tuple[int, bool] | None:
        """The next position, and whether other tasks came before it; None if there is none, or the pool is gone.

        Orders before it were meant for the previous task and are dropped.
        """
        while not (match := _TASK.search(self._buffer)):
            try:
                data = self._messages.recv(4096)
            except ConnectionError:
                data = b""
            if not data:
                return None
            self._buffer += data
        self._buffer = self._buffer[match.end() :]
        return int(match[1]), match[2] == b"1"

    def send_message(self, message: str) -> bool:
        """False if the pool is gone."""
        try:
            self._messages.sendall(f"{message}\n".encode())
            return True
        except OSError:
            return False

    def read_order(self) -> bytes:
        """The last order that came, b"" if there is none. While a task is computed, the pool sends nothing else."""
        with contextlib.suppress(OSError):
            self._buffer += self._messages.recv(4096, socket.MSG_DONTWAIT)
        *orders, self._buffer = self._buffer.split(b"\n")
        return orders[-1] if orders else b""


class PoolSignals(SignalHandlers):
    """Signal handlers in a process of a pool. srun signals all processes of a job: only the pool's orders count."""

    def __init__(self, job: RunningJob, pool: PoolConnection) -> None:
        super().__init__(job)
        self._pool = pool

    def begin_task(self, position: int) -> None:
        """Drops earlier orders, which were meant for another task."""
        self._pool.read_order()
        self.position, self.attempt = position, None

    def watch_attempt(self, attempt: Attempt) -> None:
        super().watch_attempt(attempt)
        self._pool.send_message(f"{CLAIM} {attempt.claim.number}")

    def end_task(self) -> None:
        self.position, self.attempt = -1, None

    def on_warning(self) -> None:
        order = self._pool.read_order() if self.position >= 0 else b""
        if not order:
            return
        answer = self.call_checkpoint()
        self._pool.send_message(answer.value)
        self.leave_if_terminated()
        if order == PREEMPTED or (order == OUT_OF_TIME and answer is not CheckpointAnswer.REFUSED):
            self.leave(AGAIN)


class ProcessState:
    """A copy of the state that tasks commonly change in their process."""

    def __init__(self) -> None:
        self._folder = os.getcwd()
        self._environment = dict(os.environ)
        self._path, self._argv = list(sys.path), list(sys.argv)
        self._streams = sys.stdout, sys.stderr
        settable = [number for number in signal.valid_signals() if number not in _NOT_SETTABLE]
        self._handlers = {number: signal.getsignal(number) for number in settable}

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


class TaskServer:
    """Computes the tasks that the pool assigns, until it assigns no more."""

    def __init__(self, job: RunningJob, pool: PoolConnection) -> None:
        self._job = job
        self._pool = pool
        self._handlers = PoolSignals(job, pool)
        self._handlers.install()
        self._program = LoadedProgram(job.launch, job.payload, self._save_state)
        self._parts = PartReader(job.launch, job.payload)
        self._state: ProcessState | None = None
        self._job_log = os.dup(1), os.dup(2)

    def serve(self) -> None:
        while (task := self._pool.receive_task()) is not None:
            position, shared = task
            self._handlers.begin_task(position)
            status = self._compute(position, shared)
            message = FAILED if status is Status.FAILED else COMPUTED
            message = SKIPPED if self._handlers.attempt is None else message
            _flush_output()
            if self._state is not None:
                self._state.restore()
            self._print_to_job_log()
            self._handlers.end_task()
            if (
                not self._pool.send_message(message) or sys.stdout.closed or sys.stderr.closed
            ):  # the next task could not print
                return

    def _compute(self, position: int, shared: bool) -> Status | None:
        part = self._parts.read(position)
        compute = self._program.compute_function(part, position)
        status = attempt_part(self._job.launch, self._job.payload, part, compute, self._handlers, shared=shared)
        attempt = self._handlers.attempt
        if status is None and attempt is not None:
            attempt.entry.mark_attempt_ended(attempt.claim)  # whoever has taken it waits for that
        return status

    def _save_state(self) -> None:
        self._handlers.install()
        self._state = ProcessState()

    def _print_to_job_log(self) -> None:
        """Flushes the output to the task's log and then redirects it to the log of the job, until the next task."""
        _flush_output()
        ctypes.CDLL(None).fflush(None)
        for number, own in enumerate(self._job_log, start=1):
            os.dup2(own, number)


def _serve_tasks(job: RunningJob, connection: PoolConnection, mask: tp.Iterable[int], pool: int) -> None:
    """Runs in the forked process, with signals blocked; ``mask`` is the set that was blocked before the fork.

    The process ends with the pool: the launch then regards the job as ended, and other jobs compute its tasks.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != pool:  # the pool is gone already
        os._exit(1)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    observe(anew=True)
    server = TaskServer(job, connection)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    server.serve()


def _flush_output() -> None:
    """Flushes both streams, which the task may have replaced."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
