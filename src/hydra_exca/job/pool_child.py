"""A process of a pack as the pack's first process sees it: forked, handed tasks, asked to end. See `packed`."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import signal
import socket
import sys
import time
import typing as tp
from pathlib import Path

from hydra_exca.store import Entry

from . import payload, pool_process
from .checkpoints import CheckpointAnswer
from .signals import RunningJob

if tp.TYPE_CHECKING:
    import psutil

_GRACE_S = 5.0  # between asking a process to end, and ending it
_EXIT_S = 10.0  # for a process that has nothing to do any more
SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR2)  # that the pack's first process waits for


@dataclasses.dataclass(eq=False)
class PoolChild:
    """A process: what it computes, what it was asked, until when it may go on."""

    pid: int
    line: socket.socket
    orders: int
    position: int | None = None
    entry: Entry | None = None
    claim: int | None = None  # the number of the one that it computes under
    is_asked: bool = False  # it has an order, and its answer is awaited
    answer: CheckpointAnswer | None = None
    is_unwanted: bool = False
    is_silent: bool = False  # it will say nothing more: it exits, or the task has closed its line
    deadline: float | None = None
    _buffer: bytes = b""
    _is_ending: bool = False
    _family: list[psutil.Process] = dataclasses.field(default_factory=list)

    def lines(self) -> list[str]:
        """What it has said since this was called last."""
        try:
            while data := self.line.recv(4096, socket.MSG_DONTWAIT):
                self._buffer += data
            self.is_silent = True
        except BlockingIOError:
            pass
        except OSError:
            self.is_silent = True
        *lines, self._buffer = self._buffer.split(b"\n")
        return [line.decode() for line in lines]

    def hand(self, position: int, shared: bool) -> bool:
        """Lets it compute a task; False if it has ended."""
        try:
            self.line.sendall(f"{position} {int(shared)}\n".encode())
        except OSError:
            return False
        self.position, self.entry, self.claim = position, None, None
        self.is_asked, self.answer = False, None
        return True

    def order(self, what: bytes) -> None:
        os.write(self.orders, what)
        self.is_asked = True
        os.kill(self.pid, signal.SIGUSR2)

    def dismiss(self) -> None:
        """It has nothing to do any more, and exits when it learns that."""
        if self.deadline is None:
            self.line.shutdown(socket.SHUT_WR)
            self.deadline = time.monotonic() + _EXIT_S

    def end_once(self) -> None:
        """Asks it to end; it and all it started are ended if they are there a while later."""
        if not self._is_ending:
            self._is_ending = True
            self._family = _descendants(self.pid)
            self.terminate()
            self.deadline = time.monotonic() + _GRACE_S

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)  # it is there until it was waited for

    def end_unless_gone(self) -> None:
        """Asks it to end when its time to exit has passed, and ends it when it does not."""
        if self.deadline is None or time.monotonic() < self.deadline:
            return
        self.deadline = None
        if self._is_ending:
            self._kill()
        else:
            self.end_once()

    def exit_code(self) -> int | None:
        """As subprocess spells it; None as long as it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def close(self) -> None:
        """It is gone, and so is what it has started, if it was ended."""
        self.forget()
        for member in self._family:
            _signal(member, signal.SIGKILL)

    def forget(self) -> None:
        """Closes its lines."""
        self.line.close()
        os.close(self.orders)

    def entry_of(self, job: RunningJob) -> Entry:
        """The entry of the task that it computes."""
        assert self.position is not None
        if self.entry is None:
            self.entry = Entry(Path(payload.read_part(job.launch, job.payload, self.position).entry))
        return self.entry

    def _kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        for member in self._family:
            _signal(member, signal.SIGKILL)


def fork_child(job: RunningJob, forget: tp.Callable[[], None]) -> PoolChild:
    """Makes a process that computes tasks of the job; OSError if there can be none.

    ``forget()`` closes in it what only the first process is to have: the others see by that when it is gone.
    """
    ours, theirs = socket.socketpair()
    orders, ordering = os.pipe()
    fcntl.fcntl(orders, fcntl.F_SETFL, fcntl.fcntl(orders, fcntl.F_GETFL) | os.O_NONBLOCK)
    child, pack = PoolChild(-1, ours, ordering), os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        child.pid = os.fork()
    except OSError:
        child.forget()
        raise
    finally:
        if child.pid != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
            os.close(orders)
    if child.pid == 0:
        child.forget()
        forget()
        pool_process.serve_tasks(job, theirs, orders, mask, pack)
        raise SystemExit(0)
    return child


def _descendants(pid: int) -> list[psutil.Process]:
    import psutil  # only where something is to be ended

    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _signal(process: psutil.Process, number: int) -> None:
    import psutil

    try:
        process.send_signal(number)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        pass
