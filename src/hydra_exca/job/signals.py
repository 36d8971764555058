"""The signals of a job: from Slurm, or from whoever started it on this machine.

SIGUSR2 is a warning: the time limit is near, or the job is preempted. SIGTERM is the end. The process leaves by a
SystemExit that passes through the user's code. Its task gets no outcome, so that it can start again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import types
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.clusters.base import AGAIN, count_timeouts
from hydra_exca.clusters.slurm import own_job

from . import checkpoints
from .attempt import Attempt, AttemptGuard, current_job_id
from .checkpoints import CheckpointAnswer
from .logs import write_to_log
from .payload import Payload

TERMINATED = 128 + signal.SIGTERM
NO_RESTARTS_LEFT = "the time is nearly up and no restarts are left (max_num_timeout): it continues until its limit"


class ExitRequest(SystemExit):
    """Ends the process through the user's code. It is no error of that code."""


@dataclasses.dataclass(frozen=True)
class RunningJob:
    """The job that this process belongs to, and whether it may start again."""

    launch: Path
    number: int
    payload: Payload

    @property
    def on_slurm(self) -> bool:
        return self.payload.cluster == "slurm"

    def is_out_of_time(self) -> bool:
        """Whether a warning is about the time limit, not a preemption. Without Slurm it always is."""
        return not self.on_slurm or own_job.is_out_of_time(current_job_id("slurm"), self.payload.signal_delay_s)

    def may_start_again(self, out_of_time: bool) -> bool:
        return not out_of_time or count_timeouts(self.launch, self.number) < self.payload.max_num_timeout

    def start_again(self, out_of_time: bool) -> bool:
        """Requests another start after this process has ended; returns False, and logs why, if Slurm refuses.

        Without Slurm the exit code `AGAIN` is the request, and only the time-outs are counted here.
        """
        refused = own_job.requeue(current_job_id("slurm")) if self.on_slurm else ""
        if refused:
            write_to_log(f"the job cannot be requeued and continues until its end: {refused}")
        elif out_of_time:
            with open(paths.timeout_counts(self.launch, self.number), "ab") as file:
                file.write(b".")
        return not refused


class SignalHandlers(AttemptGuard):
    """The signal handlers of a process that computes. In processes that the user's code forks they do nothing.

    This class is for a job with one task, whose first process decides alone. ``before_exit`` is called before it
    leaves, so that no other rank decides how the task ended. ``ignore`` is for the other ranks: the first one acts for
    all, and its end ends them.
    """

    def __init__(
        self,
        job: RunningJob,
        position: int = -1,
        *,
        before_exit: tp.Callable[[], object] = lambda: None,
        ignore: bool = False,
    ) -> None:
        self.job = job
        self.attempt: Attempt | None = None
        self.position = position
        self._before_exit = before_exit
        self._ignore = ignore
        self._pid = os.getpid()
        self._is_handling = False
        self._is_terminated = False

    def watch_attempt(self, attempt: Attempt) -> None:
        self.attempt = attempt

    def install(self) -> None:
        """Installs the handlers. Called again after the user's code is loaded, which may have installed its own."""
        signal.signal(signal.SIGUSR2, self._handle_sigusr2)
        if self.job.on_slurm:
            signal.signal(signal.SIGTERM, self._handle_sigterm)

    def on_warning(self) -> None:
        """Calls the checkpoint, as the job will end soon, and leaves if the job can start again."""
        out_of_time = self.job.is_out_of_time()
        answer = self.call_checkpoint()
        self.leave_if_terminated()
        if not self.job.may_start_again(out_of_time):
            write_to_log(NO_RESTARTS_LEFT)
        elif answer is CheckpointAnswer.REFUSED:
            write_to_log("the checkpoint returned None: the task does not start again")
            if not out_of_time:
                self.leave(TERMINATED)
        elif self.job.start_again(out_of_time):
            write_to_log(
                f"{'the time is nearly up' if out_of_time else 'the job is preempted'}: it ends, to start again"
            )
            self.leave(AGAIN)

    def call_checkpoint(self) -> CheckpointAnswer:
        """Calls the checkpoint of the task, if it has one, and returns its answer."""
        if self.attempt is None:
            return CheckpointAnswer.NOTHING
        return checkpoints.call_checkpoint(self.attempt.checkpoint, self.job.launch, self.position)

    def leave(self, code: int) -> tp.NoReturn:
        """Ends this process by an exception that passes through the user's code."""
        self._before_exit()
        self.exit_request = ExitRequest(code)
        raise self.exit_request

    def leave_if_terminated(self) -> None:
        """Called after a checkpoint, and in the end: SIGTERM may have come meanwhile."""
        if self._is_terminated:
            self.leave(TERMINATED)

    def _handle_sigusr2(self, number: int, frame: types.FrameType | None) -> None:
        if os.getpid() == self._pid and not self._is_busy():
            with self._handling():
                self.on_warning()
            self.leave_if_terminated()

    def _handle_sigterm(self, number: int, frame: types.FrameType | None) -> None:
        if os.getpid() != self._pid:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self._is_handling:
            self._is_terminated = True
        elif not self._is_busy():
            with self._handling():
                self.call_checkpoint()
                self.leave(TERMINATED)

    @contextlib.contextmanager
    def _handling(self) -> tp.Iterator[None]:
        """No other signal is acted on meanwhile: Slurm ends a job that has just asked to be requeued."""
        self._is_handling = True
        try:
            yield
        finally:
            self._is_handling = False

    def _is_busy(self) -> bool:
        """Whether the process is leaving already, or stores what it has computed, which must not be lost."""
        computed = self.attempt is not None and self.attempt.is_computed
        return self._ignore or self.exit_request is not None or self._is_handling or computed
