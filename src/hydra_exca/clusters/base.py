"""What every cluster can do, in the singular; the modules beside this one are the clusters."""

from __future__ import annotations

import abc
import dataclasses
import enum
import os
import typing as tp
from pathlib import Path

from hydra_exca import paths

_SLURM = "slurm_"
AGAIN = 75  # the exit code of a job of this machine that is to be started again: sysexits.h's EX_TEMPFAIL


def job_command(python: str, module: str, folder: Path) -> list[str]:
    """What starts a job, but for its number.

    Until python listens, the signal before a time limit would end it. -P: the working directory is not to shadow what
    is installed.
    """
    deaf = ["/bin/sh", "-c", 'trap "" USR2; exec "$0" "$@"']
    return [*deaf, python, "-u", "-P", "-m", module, str(folder)]


def count_timeouts(launch: Path, number: int) -> int:
    """How often a job of a launch was out of time and started again."""
    path = paths.timeout_counts(launch, number)
    return path.stat().st_size if path.exists() else 0


class JobState(enum.Enum):
    """Where a job stands, as far as its cluster says."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"  # it computes no more; whether it left an outcome, the entry tells
    UNKNOWN = "unknown"  # the cluster could not be asked, or cannot tell: nothing may be concluded

    @property
    def final(self) -> bool:
        return self is JobState.ENDED


ENCLOSING_TASKS = "EXCA_ENCLOSING_TASKS"
"""The environment variable that names the tasks around a process (`job/enclosing.py`)."""
RANK_VARIABLES = (
    *("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
)
"""The environment variables by which torchrun and Lightning tell a process which rank of which run it is."""


def is_distributed_rank() -> bool:
    """Whether torchrun or Lightning has started this process, as one rank of several."""
    return "WORLD_SIZE" in os.environ and ("RANK" in os.environ or "LOCAL_RANK" in os.environ)


def job_environment() -> dict[str, str]:
    """The environment of this process for its jobs, without what says which rank or task this process is."""
    own = {ENCLOSING_TASKS, *(RANK_VARIABLES if is_distributed_rank() else ())}
    variables = os.environ.items()
    return {name: value for name, value in variables if name not in own and not name.startswith("TORCHELASTIC_")}


@dataclasses.dataclass(frozen=True)
class JobReport:
    """What a cluster says of one job. ``reason`` is why it ended or waits, in the cluster's words ("" if unknown).

    ``failed`` is False where the cluster knows only that the job is no more, not that something went wrong.
    ``stuck`` says of one that waits that it may wait for ever unless somebody acts. ``cancelled``: somebody wanted
    its end. ``timed_out``: its time was up.
    """

    state: JobState
    reason: str = ""
    failed: bool = True
    stuck: bool = False
    job: str | None = None
    cancelled: bool = False
    timed_out: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class JobReference:
    """What is known of a job, maybe of another launch: enough to ask for it.

    ``number`` is its number in the launch ``token``. ``started`` tells whether a job said that it computes, ``owner``
    describes the process that said so (or the launching process before that), ``submitted`` is when, in seconds since
    the epoch.
    """

    token: str
    number: int
    job: str | None
    owner: tp.Mapping[str, tp.Any]
    started: bool
    submitted: float


@dataclasses.dataclass(frozen=True)
class Options:
    """What jobs are given: the options of submitit under its names (``timeout_min``, ``gpus_per_node``, ...).

    ``slurm`` holds those that only Slurm knows, without the prefix. ``environment`` is the name or path of the one
    whose python runs the jobs, None for this process's own. At most ``array_parallelism`` jobs run, and at most
    ``max_queued`` wait or run, at a time; the scheduler is asked every ``poll_s`` seconds at the least. Without
    ``share_machine``, local jobs do not wait for cores and GPUs that those of other launches use.
    """

    common: tp.Mapping[str, tp.Any] = dataclasses.field(default_factory=dict)
    slurm: tp.Mapping[str, tp.Any] = dataclasses.field(default_factory=dict)
    array_parallelism: int = 256
    max_num_timeout: int = 0
    submitit_folder: str | None = None
    environment: str | None = None
    max_queued: int | None = None
    poll_s: float = 10.0
    share_machine: bool = True

    def with_resources(self, resources: tp.Mapping[str, tp.Any]) -> Options:
        """The same with other resources: names of submitit, those that only Slurm knows with ``slurm_`` before."""
        if not resources:
            return self
        slurm = {key.removeprefix(_SLURM): value for key, value in resources.items() if key.startswith(_SLURM)}
        common = {key: value for key, value in resources.items() if not key.startswith(_SLURM)}
        return dataclasses.replace(self, common={**self.common, **common}, slurm={**self.slurm, **slurm})


@dataclasses.dataclass(frozen=True)
class JobSpec:
    """One job that a cluster is asked to run, by its number in its launch, and what it is given.

    It runs ``workers`` processes at a time, on the same machine and with the same resources.
    """

    number: int
    options: Options
    workers: int = 1


@dataclasses.dataclass(frozen=True)
class Batch:
    """What a cluster is asked to run.

    ``folder`` is the launch's, and ends in its token. ``python -m <module> <folder> <number>`` is a job, where it has
    a process of its own; ``run_inline(number)`` does the same in this process. Jobs of equal options stand together.
    """

    folder: Path
    jobs: tp.Sequence[JobSpec]
    module: str
    run_inline: tp.Callable[[int], None]

    @property
    def token(self) -> str:
        return self.folder.name


class ClusterSubmission(abc.ABC):
    """The jobs of one batch, as seen by the launch that submits them. Jobs go by their numbers."""

    @abc.abstractmethod
    def start(self) -> None:
        """Submits as much as may be submitted now; `poll` does the rest.

        Raises SubmissionError if that is refused: what was accepted before goes on.
        """

    @property
    @abc.abstractmethod
    def job_ids(self) -> dict[int, str | None]:
        """The cluster's id of each job, None where it has none (yet)."""

    @abc.abstractmethod
    def poll(self) -> dict[int, JobReport]:
        """Does what there is to do (start the next process, ask the scheduler when it is time) without waiting.

        Returns reports of the jobs that ended since the last call, and of those that wait for a reason worth telling.
        """

    def stop_tracking(self, number: int) -> None:  # noqa: B027  most clusters have nothing to do
        """No more questions about this one: all its outcomes are there."""

    def close(self) -> None:  # noqa: B027  most clusters have nothing to do
        """The launch is over: waits a little for processes that have stored their outcome and are about to exit."""

    def cancel_job(self, number: int) -> bool:
        """Ends a job, started or not, if it can; else the cluster's own `cancel` is to be asked."""
        return False

    def unstarted_jobs(self) -> tp.Sequence[int]:
        """The jobs that only `poll` of this process will start or submit."""
        return ()

    @abc.abstractmethod
    def stop_submitting(self) -> tp.Sequence[int]:
        """Starts and submits nothing more: returns the jobs that never will be; the others go on."""

    @abc.abstractmethod
    def cancel_pending(self) -> tp.Sequence[int]:
        """Cancels all jobs that have not begun to run.

        Returns what `stop_submitting` does; the end of the others is reported by `poll`.
        """

    @abc.abstractmethod
    def cancel_all(self) -> tp.Sequence[int]:
        """Ends every job, running or not, and returns them."""


class Cluster(abc.ABC):
    """A place where jobs run."""

    name: str
    detaches: bool = False
    """Whether the jobs are somebody else's to run, so that a launch may leave them."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def log_folder(self, launch: Path) -> Path:
        """Where a job's output goes before its task has a log of its own."""
        return launch

    @abc.abstractmethod
    def check_options(self, options: tp.Sequence[Options]) -> None:
        """Raises ConfigError if jobs with any of these options cannot be submitted. Submits nothing."""

    @abc.abstractmethod
    def prepare(self, batch: Batch) -> ClusterSubmission:
        """What is to be submitted; nothing is yet."""

    @abc.abstractmethod
    def query_jobs(self, references: tp.Sequence[JobReference]) -> list[JobReport]:
        """What is known of jobs of any launch, one report for each, in one question to the scheduler."""

    @abc.abstractmethod
    def cancel_jobs(self, references: tp.Sequence[JobReference]) -> None:
        """Asks for the end of jobs; `query_jobs` tells when it has come."""
