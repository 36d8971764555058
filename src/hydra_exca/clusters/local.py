"""Cluster ``local``: processes of this machine, which outlive the launch that started them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import signal
import subprocess
import time
import typing as tp

from hydra_exca import paths
from hydra_exca.errors import ConfigError, Problem

from . import python_environment
from .base import (
    AGAIN,
    DISK_ERROR,
    DISK_FULL,
    Batch,
    Cluster,
    ClusterSubmission,
    JobEnd,
    JobReference,
    JobReport,
    JobSpec,
    JobState,
    Options,
    count_timeouts,
    job_command,
    job_environment,
)
from .devices import usable_cores, visible_gpus
from .inline import process_report
from .process import end_processes, exit_reason, keep_until_ended
from .slots import MachineSlots, Request, TakenSlots

log = logging.getLogger("exca.clusters")
_ASK_S = 0.1  # how often it is asked whether other launches have freed cores and GPUs
_EXIT_S = 5.0  # for processes that have stored their outcome to exit
_SIGNAL_DELAY_S = 120.0  # hydra-submitit-launcher's
_WARNED_PART = 0.25  # of a time limit, at most


class LocalCluster(Cluster):
    """Runs jobs as processes of this machine, each in a session of its own, so that they survive the launch."""

    name = "local"

    def check_options(self, options: tp.Sequence[Options]) -> None:
        python_environment.check_environment(self.options.environment, "hydra_exca.job.worker")
        most = max(map(_num_gpus, options), default=0)
        gpus = self._visible_gpus if most else None
        if gpus is not None and most > len(gpus):
            raise ConfigError(
                "More GPUs are asked for than this machine has; nothing was run.",
                [Problem(f"{most} asked, {len(gpus)} here", "gpus_per_node")],
            )

    def prepare(self, batch: Batch) -> ClusterSubmission:
        return _LocalSubmission(batch, self.options, self._find_gpus(batch.jobs))

    @functools.cached_property
    def _visible_gpus(self) -> dict[str, str] | None:
        return visible_gpus()

    def _find_gpus(self, jobs: tp.Sequence[JobSpec]) -> dict[str, str]:
        """The GPUs for these jobs; numbers, as many as the jobs can use at a time, if nothing tells which there are."""
        most = max((_num_gpus(job.options) for job in jobs), default=0)
        gpus = self._visible_gpus if most else {}
        if gpus is not None:
            return gpus
        log.warning("this machine shows no GPU: the tasks are given numbers from 0 on")
        number = most * min(max(1, self.options.array_parallelism), len(usable_cores()))
        return {str(index): str(index) for index in range(number)}

    def query_jobs(self, references: tp.Sequence[JobReference]) -> list[JobReport]:
        return [process_report(reference) for reference in references]

    def cancel_jobs(self, references: tp.Sequence[JobReference]) -> None:
        end_processes(*(each.owner["pid"] for each in references if process_report(each).state is JobState.RUNNING))


@dataclasses.dataclass
class _LocalProcess:
    """The process of a job, and its time limit. Times are those of the monotonic clock."""

    process: subprocess.Popen[bytes]
    spec: JobSpec
    started: float
    timeouts: int
    warned: bool = False
    cancelled: bool = False

    @property
    def limit_s(self) -> float | None:
        minutes = self.spec.options.common.get("timeout_min")
        return None if minutes is None else 60.0 * minutes

    def is_late(self, now: float) -> bool:
        return self.limit_s is not None and now > self.started + self.limit_s

    def needs_warning(self, now: float) -> bool:
        """Whether the time limit is near: as near as on Slurm, but never earlier than in the last quarter."""
        if self.warned or self.limit_s is None:
            return False
        delay = float(self.spec.options.slurm.get("signal_delay_s", _SIGNAL_DELAY_S))
        return now > self.started + self.limit_s - min(delay, _WARNED_PART * self.limit_s)


class _LocalSubmission(ClusterSubmission):
    def __init__(self, batch: Batch, options: Options, gpus: tp.Mapping[str, str]) -> None:
        self._batch = batch
        self._python = python_environment.python_of(options.environment)
        self._max_running = max(1, options.array_parallelism)
        self._slots = MachineSlots(batch.folder, options.share_machine)
        self._cores = self._slots.core_slots(usable_cores())
        self._gpus = self._slots.gpu_slots(gpus)
        self._waiting = {job.number: job for job in batch.jobs}
        self._running: dict[int, _LocalProcess] = {}
        self._cancelled: list[int] = []
        self._ask_again = 0.0
        self._pids: dict[int, str | None] = dict.fromkeys(self._waiting)

    def start(self) -> None:
        """`poll` starts the jobs."""

    @property
    def job_ids(self) -> dict[int, str | None]:
        return dict(self._pids)

    def cancel_job(self, number: int) -> bool:
        if number in self._running:
            self._running[number].cancelled = True
            end_processes(self._running[number].process.pid)
        elif self._waiting.pop(number, None):
            self._cancelled.append(number)
            if not self._waiting:
                self._slots.leave_queue()
        return True

    def poll(self) -> dict[int, JobReport]:
        reports = {
            number: JobReport(JobState.ENDED, "cancelled before it started", JobEnd.REMOVED)
            for number in self._cancelled
        }
        self._cancelled.clear()
        now = time.monotonic()
        for number, running in list(self._running.items()):
            if running.process.poll() is not None or running.is_late(now):
                report = self._end_job(number)
                reports |= {} if report is None else {number: report}
            elif running.needs_warning(now):
                running.warned = True
                running.process.send_signal(signal.SIGUSR2)
        if not reports:  # the launch has to see them first: after a failure it may start nothing more
            self._start_more()
        return reports

    def close(self) -> None:
        deadline = time.monotonic() + _EXIT_S
        for running in self._running.values():
            try:
                running.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("process %d has stored its result and does not exit", running.process.pid)
        self._running.clear()

    def unstarted_jobs(self) -> tp.Sequence[int]:
        return (*self._waiting, *self._cancelled)

    def stop_submitting(self) -> tp.Sequence[int]:
        waiting, self._waiting = tuple(self._waiting), {}
        self._slots.leave_queue()
        return waiting

    def cancel_pending(self) -> tp.Sequence[int]:
        return self.stop_submitting()

    def cancel_all(self) -> tp.Sequence[int]:
        numbers = [*self.stop_submitting(), *self._running]
        end_processes(*(running.process.pid for running in self._running.values()))
        for running in self._running.values():
            running.process.wait()
        self._running.clear()
        return numbers

    def _end_job(self, number: int) -> JobReport | None:
        """Ends a process that is out of time; returns why it ended, None if it has to start again."""
        running, output = self._running.pop(number), paths.job_log(self._batch.folder, number)
        self._ask_again = 0.0
        if running.process.poll() is None:
            end_processes(running.process.pid)
            running.process.wait()
            reason = f"TIMEOUT: it ran longer than timeout_min={(running.limit_s or 0) / 60:g}"
            return JobReport(JobState.ENDED, reason, JobEnd.OUT_OF_TIME, log=output)
        if running.process.returncode == AGAIN and count_timeouts(self._batch.folder, number) > running.timeouts:
            self._waiting = {number: running.spec, **self._waiting}
            return None
        if running.cancelled:
            return JobReport(JobState.ENDED, "cancelled while it was running", JobEnd.REMOVED, log=output)
        if running.process.returncode == DISK_ERROR:
            return JobReport(JobState.ENDED, DISK_FULL, JobEnd.REMOVED, log=output)
        code = running.process.returncode
        end = JobEnd.KILLED if code == -signal.SIGKILL else JobEnd.EXITED
        return JobReport(JobState.ENDED, exit_reason(code), end, log=output)

    def _start_more(self) -> None:
        """Starts jobs in order, as long as there are cores and GPUs; no job overtakes one that waits."""
        while self._waiting and len(self._running) < self._max_running and time.monotonic() >= self._ask_again:
            spec = next(iter(self._waiting.values()))
            taken = self._slots.take(self._requests(spec))
            if taken is None:
                self._ask_again = time.monotonic() + _ASK_S
                return
            with contextlib.closing(taken):
                self._start(spec, taken)

    def _requests(self, spec: JobSpec) -> list[Request]:
        """The slots for a job: one core per worker, or all cores if there are fewer, and its GPUs."""
        cores = Request(min(spec.workers, len(self._cores)), self._cores, "core")
        num_gpus = _num_gpus(spec.options)
        return [cores, Request(num_gpus, list(self._gpus), "GPU")] if num_gpus else [cores]

    def _start(self, spec: JobSpec, taken: TakenSlots) -> None:
        timeouts = count_timeouts(self._batch.folder, spec.number)
        gpus = [self._gpus[slot] for slot in taken.files if slot in self._gpus]
        with open(paths.job_log(self._batch.folder, spec.number), "ab") as output:
            process = subprocess.Popen(
                [*job_command(self._python, self._batch.module, self._batch.folder), str(spec.number)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=list(taken.files.values()),
                env={
                    **job_environment(),
                    **taken.environment(),
                    **({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}),
                },
            )
        del self._waiting[spec.number]  # not before: if it cannot be started now, the next poll tries again
        self._running[spec.number] = _LocalProcess(process, spec, time.monotonic(), timeouts)
        self._pids[spec.number] = str(process.pid)
        keep_until_ended(process)
        taken.record_holder(self._batch.folder, process.pid)


def _num_gpus(options: Options) -> int:
    return int(options.common.get("gpus_per_node") or 0)
