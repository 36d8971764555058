"""What the process of a job does when it is told to end: by Slurm, or by who started it on this machine.

SIGUSR2 is a warning: the time is nearly up, or another job is to have the place. SIGTERM is the end. The process
leaves by a SystemExit through the user's code, and its task keeps no outcome: it starts again.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import types
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.clusters.base import AGAIN
from hydra_exca.clusters.slurm import own_job

from . import checkpoints
from .attempt import Attempt, AttemptGuard, current_job_id
from .checkpoints import CheckpointAnswer, write_to_log
from .payload import Payload

TERMINATED = 128 + signal.SIGTERM


class ExitRequest(SystemExit):
    """The way out through the user's code, not an error of it."""


@dataclasses.dataclass(frozen=True)
class RunningJob:
    """The job around this process, and how often it may start again."""

    launch: Path
    number: int
    payload: Payload

    @property
    def on_slurm(self) -> bool:
        return self.payload.cluster == "slurm"

    def is_out_of_time(self) -> bool:
        """Whether its time is nearly up; else another job is to have its place. On this machine it always is."""
        return not self.on_slurm or own_job.is_out_of_time(current_job_id("slurm"), self.payload.signal_delay_s)

    def may_start_again(self, out_of_time: bool) -> bool:
        return not out_of_time or self._timeouts() < self.payload.max_num_timeout

    def start_again(self, out_of_time: bool) -> bool:
        """Lets it start again once this process has left; False, and a word in the log, if that is refused.

        On this machine the exit code `AGAIN` says so, and this does nothing but count.
        """
        refused = own_job.requeue(current_job_id("slurm")) if self.on_slurm else ""
        if refused:
            write_to_log(f"the job cannot be started again, and goes on until its end: {refused}")
        elif out_of_time:
            with open(paths.timeout_counts(self.launch, self.number), "ab") as file:
                file.write(b".")
        return not refused

    def _timeouts(self) -> int:
        path = paths.timeout_counts(self.launch, self.number)
        return path.stat().st_size if path.exists() else 0


class SignalHandlers(AttemptGuard):
    """The signals of a process that computes. Processes that the user's code forks from it keep the usual ones."""

    def __init__(self, job: RunningJob) -> None:
        self.job = job
        self.attempt: Attempt | None = None
        self.position = -1
        self._pid = os.getpid()
        self._is_asking = False
        self._is_terminated = False

    def watch(self, attempt: Attempt) -> None:
        self.attempt = attempt

    def install(self) -> None:
        """Takes the signals over, from the user's code too if that is loaded by now."""
        signal.signal(signal.SIGUSR2, self._on_warning)
        if self.job.on_slurm:
            signal.signal(signal.SIGTERM, self._on_end)

    def warned(self) -> None:
        """The job is told that it will end soon."""
        raise NotImplementedError

    def ended(self) -> None:
        """The job is told to end at once."""
        self.ask()
        self.leave(TERMINATED)

    def ask(self) -> CheckpointAnswer:
        """What the task's own checkpoint says to it, if there is one."""
        if self.attempt is None:
            return CheckpointAnswer.NOTHING
        self._is_asking = True
        try:
            return checkpoints.call_checkpoint(self.attempt.checkpoint, self.job.launch, self.position)
        finally:
            self._is_asking = False

    def leave(self, code: int) -> tp.NoReturn:
        """Ends this process through the user's code."""
        self.leaving = ExitRequest(code)
        raise self.leaving

    def _on_warning(self, number: int, frame: types.FrameType | None) -> None:
        if os.getpid() == self._pid and not self._is_busy():
            self.warned()

    def _on_end(self, number: int, frame: types.FrameType | None) -> None:
        if os.getpid() != self._pid:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self._is_asking:
            self._is_terminated = True
        elif not self._is_busy():
            self.ended()

    def _is_busy(self) -> bool:
        """Whether it is leaving, about to, or stores what it has computed: that is not to be lost."""
        computed = self.attempt is not None and self.attempt.is_computed
        return self.leaving is not None or self._is_asking or computed

    def leave_if_terminated(self) -> None:
        """After a checkpoint: the end may have come while it ran."""
        if self._is_terminated:
            self.leave(TERMINATED)


class SingleTaskSignals(SignalHandlers):
    """Those of a job whose only task runs in its first process, which decides by itself."""

    def __init__(self, job: RunningJob, position: int, decide: tp.Callable[[], object] = lambda: None) -> None:
        """``decide`` is called before it leaves, so that no other rank says how the task ended."""
        super().__init__(job)
        self.position = position
        self._decide = decide

    def leave(self, code: int) -> tp.NoReturn:
        self._decide()
        super().leave(code)

    def warned(self) -> None:
        out_of_time = self.job.is_out_of_time()
        answer = self.ask()
        self.leave_if_terminated()
        if not self.job.may_start_again(out_of_time):
            write_to_log("the time is nearly up, and it may not start again: it goes on until its end")
        elif answer is CheckpointAnswer.REFUSED:
            write_to_log("its checkpoint returned None: it does not start again")
            if not out_of_time:
                self.leave(TERMINATED)
        elif self.job.start_again(out_of_time):
            write_to_log(
                f"{'its time is nearly up' if out_of_time else 'its place is wanted'}: it ends, and starts again"
            )
            self.leave(AGAIN)


class SecondaryRankSignals(SignalHandlers):
    """Those of another rank than the first: the first one acts for all, and the end of its process ends this one."""

    def warned(self) -> None:
        pass

    def ended(self) -> None:
        pass
