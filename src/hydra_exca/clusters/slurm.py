"""Cluster ``slurm``: one job array, submitted through submitit.

submitit is imported where jobs are submitted: 100 ms that a launch whose tasks are all cached does not need.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import shlex
import shutil
import subprocess
import textwrap
import time
import typing as tp

from hydra_exca.errors import ConfigError, Problem, SubmissionError

from . import environment, scheduler
from .base import Batch, Cluster, EntryPoint, Reference, Report, State, Submission
from .inline import process_report

log = logging.getLogger("exca.clusters")
_GONE = Report(State.ENDED)
_ANSWER_S = 30.0  # a scheduler that takes longer does not answer
_POLL_S = 10.0  # how often the scheduler is asked at most, once it has been asked quickly a few times
DEFAULT_TIMEOUT_MIN = 60  # that of hydra-submitit-launcher


class SlurmCluster(Cluster):
    """Slurm, asked by its own commands and given jobs through submitit."""

    name = "slurm"

    def check(self) -> None:
        for command in (["sbatch", "--version"], scheduler.ping_command()):
            self._check_answer(command)
        environment.check(self.options.environment, "hydra_exca.worker", "submitit")
        with _translated():
            self._executor(os.devnull)

    def submit(self, batch: Batch) -> Submission:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        folder = self.options.submitit_folder
        executor = self._executor(str(batch.folder if folder is None else f"{folder}/{batch.token}"))
        remotes = [Remote(batch.entry_point, str(batch.folder), position) for position in batch.positions]
        # submitit prints what sbatch says; here it is part of the error
        with _outside_of_any_job(), contextlib.redirect_stderr(io.StringIO()):
            try:
                jobs = executor.submit_array(remotes) if len(remotes) > 1 else [executor.submit(remotes[0])]
            except (FailedJobError, FailedSubmissionError, OSError) as error:
                raise self._refused(error) from error
        ids = {position: job.job_id for position, job in zip(batch.positions, jobs, strict=True)}
        return _SlurmSubmission(self, batch, ids)

    def ask(self, references: tp.Sequence[Reference]) -> list[Report]:
        # the launching processes first: one that is gone by now submits nothing after the queue was read
        launching = {r: process_report(r) for r in references if not r.started}
        asked = [r for r in references if r.job or launching.get(r, _GONE).state is not State.PENDING]
        rows = _find(asked) if asked else {}
        return [_conclude(rows, reference, launching.get(reference)) for reference in references]

    def cancel(self, reference: Reference) -> None:
        job = reference.job or self.ask([reference])[0].job
        if job is not None:
            _run(scheduler.cancel_command(job))

    def _check_answer(self, command: list[str]) -> None:
        if shutil.which(command[0]) is None:
            raise _silent(f"there is no {command[0]!r} on this machine")
        done = _run(command)
        if done is None:
            raise _silent(f"{' '.join(command)!r} gave no answer in {_ANSWER_S:g} s")
        if done.returncode != 0 or " is DOWN" in done.stdout:
            said = (done.stderr + done.stdout).strip()
            raise _silent(f"{' '.join(command)!r} ended with status {done.returncode}: {said}")

    def _executor(self, folder: str) -> tp.Any:
        import submitit

        executor = submitit.AutoExecutor(
            cluster="slurm",
            folder=folder,
            slurm_max_num_timeout=self.options.max_num_timeout,
            slurm_python=shlex.quote(environment.python(self.options.environment)),
        )
        executor.update_parameters(**self._parameters())
        return executor

    def _parameters(self) -> dict[str, tp.Any]:
        """The options under submitit's names; what is not set is left to submitit and the site."""
        parameters = {**self.options.common, **{f"slurm_{k}": v for k, v in self.options.slurm.items()}}
        parameters["slurm_array_parallelism"] = self.options.array_parallelism
        if parameters.get("timeout_min") is None:
            parameters["timeout_min"] = DEFAULT_TIMEOUT_MIN
        if any((parameters.get(name) or 1) > 1 for name in ("nodes", "tasks_per_node")):
            parameters.setdefault("slurm_srun_args", ["--kill-on-bad-exit=1"])  # a rank may wait for one that is gone
        return {key: value for key, value in parameters.items() if value is not None}

    def _refused(self, error: Exception) -> SubmissionError:
        sent = "\n".join(f"    {key} = {value!r}" for key, value in sorted(self._parameters().items()))
        return SubmissionError(
            "Slurm refused the jobs; nothing was submitted. sbatch says:\n"
            f"{textwrap.indent(str(error), '    ')}\nThe options sent:\n{sent}"
        )


def look_up(job: str) -> list[scheduler.Row] | None:
    """What Slurm says of anybody's job, by any of its ids: one row, of an array one a task; None if it cannot be asked.

    The controller forgets a job some minutes after its end; the accounting, where there is one, does not.
    """
    shown = _run(scheduler.show_command(job))
    rows = [] if shown is None else scheduler.read_shown(shown.stdout)
    if rows:
        return rows
    accounted = _run(scheduler.accounting_command({job}, (), since=time.time()))
    if accounted is not None and accounted.returncode == 0:
        return scheduler.read_rows(accounted.stdout)
    return [] if shown is not None and "Invalid job id" in shown.stderr else None


class Remote:
    """What a Slurm job calls. submitit calls `checkpoint` when the job is preempted or out of time."""

    def __init__(self, entry_point: EntryPoint, folder: str, position: int) -> None:
        self.entry_point = entry_point
        self.folder = folder
        self.position = position
        self.requeued = False

    def __call__(self) -> None:
        logging.getLogger("submitit").propagate = False  # what it says is not to be in the logs of the user's program
        self.entry_point(self.folder, self.position, lambda: self.requeued)

    def checkpoint(self) -> tp.Any:
        """The same again: the task finds its checkpoints in its output folder."""
        import submitit

        again = Remote(self.entry_point, self.folder, self.position)
        self.requeued = True
        return submitit.helpers.DelayedSubmission(again)


class _SlurmSubmission(Submission):
    def __init__(self, cluster: SlurmCluster, batch: Batch, jobs: dict[int, str]) -> None:
        self._cluster = cluster
        self._references = {
            position: Reference(batch.token, position, job, {}, started=True, submitted=time.time())
            for position, job in jobs.items()
        }
        self._suspects: set[int] = set()
        self._interval = 1.0
        self._next = time.monotonic() + self._interval

    @property
    def jobs(self) -> dict[int, str | None]:
        return {position: reference.job for position, reference in self._references.items()}

    def settle(self, position: int) -> None:
        self._references.pop(position, None)

    def step(self) -> dict[int, Report]:
        if time.monotonic() < self._next or not self._references:
            return {}
        positions = list(self._references)
        reports = dict(zip(positions, self._cluster.ask([self._references[p] for p in positions]), strict=True))
        self._interval = min(_POLL_S, 1.5 * self._interval)
        self._next = time.monotonic() + self._interval
        return {position: report for position, report in reports.items() if self._is_news(position, report)}

    def abandon(self) -> tp.Sequence[int]:
        return ()

    def interrupt(self) -> tp.Sequence[int]:
        return ()  # the jobs go on; the same command joins them

    def _is_news(self, position: int, report: Report) -> bool:
        """An end counts when it is seen twice: the outcome's file may take longer to be seen than the state."""
        if report.state is not State.ENDED:
            self._suspects.discard(position)
            return report.stuck
        if position not in self._suspects:
            self._suspects.add(position)
            self._next = min(self._next, time.monotonic() + 2.0)
            return False
        return True


def _find(references: tp.Sequence[Reference]) -> dict[tuple[str, int], Report] | None:
    """Reports by token and position, None when the scheduler cannot be asked."""
    found: dict[tuple[str, int], Report] = {}
    for known in ([r for r in references if r.job], [r for r in references if not r.job]):
        rows = _rows(known) if known else []
        if rows is None:
            return None
        found.update(_by_position(rows, known))
    return found


def _rows(references: tp.Sequence[Reference]) -> list[scheduler.Row] | None:
    """What queue and accounting list of jobs whose ids are all known, or all unknown; the queue's word comes last."""
    jobs = {reference.job.partition("_")[0] for reference in references if reference.job}
    users = set() if jobs else {str(reference.owner.get("user", os.getuid())) for reference in references}
    queue = _run(scheduler.queue_command(jobs, users))
    if queue is None or (queue.returncode != 0 and "Invalid job id" not in queue.stderr):
        return None
    rows = scheduler.read_rows(queue.stdout)
    if len(_by_position(rows, references)) < len(references):
        since = min(reference.submitted for reference in references)
        accounting = _run(scheduler.accounting_command(jobs, users, since))
        if accounting is not None and accounting.returncode == 0:
            rows = scheduler.read_rows(accounting.stdout) + rows
    return rows


def _by_position(rows: tp.Iterable[scheduler.Row], references: tp.Sequence[Reference]) -> dict[tuple[str, int], Report]:
    """Only rows of these launches: their token is in the path of the script. An id alone comes again."""
    tokens = {reference.token for reference in references}
    found = {}
    for row in rows:
        for token in tokens:
            if token in row.command:
                found[token, scheduler.position(row.job)] = row.report()
    return found


def _conclude(rows: dict[tuple[str, int], Report] | None, reference: Reference, launching: Report | None) -> Report:
    if rows is None:
        return Report(State.UNKNOWN, "Slurm does not answer")
    report = rows.get((reference.token, reference.position))
    if report is not None:
        # a job that ended before it began to compute, of a launch that is gone: what it needed was never written
        unprovided = launching is not None and launching.state is State.ENDED and report.reason.startswith("FAILED")
        return dataclasses.replace(report, failed=False) if unprovided else report
    if launching is not None and reference.job is None:  # not at the scheduler (yet): its launching process decides
        return launching
    return Report(State.ENDED, "Slurm knows nothing of it (any more): cancelled while it was pending?")


def _run(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    """What the command did, None if it did not end in time or could not be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    except (subprocess.TimeoutExpired, OSError):
        return None


def _silent(what: str) -> ConfigError:
    return ConfigError(
        "Slurm does not answer; nothing was run.",
        [Problem(f"{what}. Try again, or run on this machine with hydra/launcher/cluster=local", "cluster")],
    )


@contextlib.contextmanager
def _translated() -> tp.Iterator[None]:
    """Translates what submitit says of options it does not know."""
    try:
        yield
    except (ValueError, NameError, TypeError, AssertionError) as error:
        raise ConfigError(
            "submitit refuses the options of the launcher; nothing was run.", [Problem(str(error))]
        ) from error


@contextlib.contextmanager
def _outside_of_any_job() -> tp.Iterator[None]:
    """A job that submits jobs must not hand them its own SLURM_ variables; where Slurm's configuration is, it must."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    import submitit

    configuration = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with submitit.helpers.clean_env():
        os.environ.update(configuration)
        yield
