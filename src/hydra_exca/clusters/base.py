"""The interface of clusters, and what they share; the modules beside this one implement it."""

from __future__ import annotations

import abc
import dataclasses
import enum
import os
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.errors import CorruptEntryError

_SLURM = "slurm_"
_RESOURCES = (
    *("timeout_min", "mem_gb", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "slurm_partition"),
    *("slurm_mem_per_cpu", "slurm_mem_per_gpu", "slurm_gpus_per_task", "slurm_gres", "slurm_constraint", "slurm_qos"),
)
# exit codes of jobs, of sysexits.h
DISK_ERROR = os.EX_IOERR  # the disk took nothing of what the job had to write
DISK_FULL = "its disk took nothing more from it"
AGAIN = os.EX_TEMPFAIL  # the job asks to be started again
TASK_FAILED = os.EX_SOFTWARE  # a task of the job failed; not 1, with which some sites let jobs run again (RequeueExit)


def job_command(python: str, module: str, folder: Path) -> list[str]:
    """The command that runs a job, without the job's number.

    The shell ignores the signal that comes before a time limit, which would end python until it has a handler. ``-P``
    keeps the working directory from shadowing installed modules.
    """
    ignore_warning = ["/bin/sh", "-c", 'trap "" USR2; exec "$0" "$@"']
    return [*ignore_warning, python, "-u", "-P", "-m", module, str(folder)]


def count_timeouts(launch: Path, number: int) -> int:
    """How often a job of a launch has reached its time limit and asked to be started again."""
    try:
        descriptor, status = files.open_file(paths.timeout_counts(launch, number))
    except (FileNotFoundError, CorruptEntryError):
        return 0
    os.close(descriptor)
    return status.st_size


class JobState(enum.Enum):
    """The state of a job, as far as its cluster knows it."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"  # with or without an outcome: only the entry tells
    UNKNOWN = "unknown"  # the cluster gave no answer, so nothing may be concluded


IN_PROCESS = ("inline", "debug")
"""The clusters whose tasks run in the launching process."""


class JobEnd(enum.Enum):
    """How a job ended, as far as it says whose fault it is that a task has no outcome."""

    EXITED = "exited"  # by itself, or killed: the fault of a task that it was computing
    KILLED = "killed"  # a local job, by SIGKILL: by a person, or by the kernel for the machine's memory
    OUT_OF_MEMORY = "out of memory"  # the fault of its task, even if it had not begun it
    OUT_OF_TIME = "out of time"  # the same
    PAST_DEADLINE = "past deadline"  # the same
    REMOVED = "removed"  # cancelled or refused: the fault of no task
    LOST = "lost"  # preempted for good, or its node failed: the same
    VANISHED = "vanished"  # the cluster does not know it (any more): it may even be alive

    @property
    def is_exhausted(self) -> bool:
        """Whether the job had not enough of something."""
        return self in (JobEnd.OUT_OF_MEMORY, JobEnd.OUT_OF_TIME, JobEnd.PAST_DEADLINE)


ENCLOSING_TASKS = "EXCA_ENCLOSING_TASKS"
"""The environment variable that names the tasks around a process (`job/enclosing.py`)."""
SECOND_START = "EXCA_SECOND_START"
"""The environment variable of a process that computes the task which started it (`job/repeated_command.py`)."""
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
    own = {ENCLOSING_TASKS, SECOND_START, *(RANK_VARIABLES if is_distributed_rank() else ())}
    variables = os.environ.items()
    return {name: value for name, value in variables if name not in own and not name.startswith("TORCHELASTIC_")}


@dataclasses.dataclass(frozen=True)
class JobReport:
    """A cluster's report on one job. ``reason`` is why it ended or waits, in the cluster's words ("" if unknown).

    ``end`` matters once it has ended, and ``words`` say what the reason of that means. A ``stuck`` job may wait for
    ever unless somebody acts. ``log`` is what the job prints to where no task has a log, ``slurm_output`` what Slurm
    wrote there since it started the job last. That start ``never_began`` if it ended before it came to the tasks.
    ``given`` is what the scheduler says that it gave the job of what ran out, under submitit's name.
    """

    state: JobState
    reason: str = ""
    end: JobEnd = JobEnd.EXITED
    stuck: bool = False
    job: str | None = None
    words: str = ""
    log: Path | None = None
    slurm_output: str = ""
    never_began: bool = False
    given: tp.Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def explanation(self) -> str:
        """What the reason means, and the reason."""
        return f"{self.words} ({self.reason})" if self.words and self.reason else self.words or self.reason


@dataclasses.dataclass(frozen=True, eq=False)
class JobReference:
    """A job, possibly of another launch, as a cluster can be asked about it.

    ``number`` is its number in the launch ``token``, ``job`` the cluster's id of it. ``owner`` describes the process
    that computes if the job has ``started``, and the launching process before. ``submitted`` is in seconds since the
    epoch. ``slurm_cluster`` names the cluster of a federation to which the job was submitted, None for the one at hand.
    ``logs`` is the folder of what jobs print to where no task has a log.
    """

    token: str
    number: int
    job: str | None
    owner: tp.Mapping[str, tp.Any]
    started: bool
    submitted: float
    slurm_cluster: str | None = None
    logs: Path | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of jobs, under submitit's names (``timeout_min``, ``gpus_per_node``, ...).

    ``slurm`` has those that only Slurm knows, without the prefix ``slurm_``. ``environment`` is the name or path of the
    Python environment that runs the jobs, None for the one of this process; ``python`` is a command that runs Python in
    Slurm jobs instead, as a shell reads it. At most ``array_parallelism`` jobs run at a
    time, and at most ``max_queued`` wait or run. The scheduler is asked at least every ``poll_s`` seconds. Without
    ``share_machine``, local jobs do not wait for cores and GPUs that jobs of other launches use. ``names_tasks``: the
    name of a Slurm job tells its tasks, too.
    """

    common: tp.Mapping[str, tp.Any] = dataclasses.field(default_factory=dict)
    slurm: tp.Mapping[str, tp.Any] = dataclasses.field(default_factory=dict)
    array_parallelism: int = 256
    max_num_timeout: int = 0
    submitit_folder: str | None = None
    environment: str | None = None
    python: str | None = None
    max_queued: int | None = None
    poll_s: float = 10.0
    share_machine: bool = True
    names_tasks: bool = True

    def resource(self, name: str) -> tp.Any:
        """What is asked for of a resource, under submitit's name; None if that is left to the cluster."""
        return self.slurm.get(name.removeprefix(_SLURM)) if name.startswith(_SLURM) else self.common.get(name)

    def with_resources(self, resources: tp.Mapping[str, tp.Any]) -> Options:
        """A copy with other resources, under submitit's names; those that only Slurm knows start with ``slurm_``."""
        if not resources:
            return self
        slurm = {key.removeprefix(_SLURM): value for key, value in resources.items() if key.startswith(_SLURM)}
        common = {key: value for key, value in resources.items() if not key.startswith(_SLURM)}
        return dataclasses.replace(self, common={**self.common, **common}, slurm={**self.slurm, **slurm})


@dataclasses.dataclass(frozen=True)
class JobSpec:
    """One job for a cluster: its number in the launch, its options, and the readable names of its tasks.

    It runs ``workers`` processes at a time, which share one machine and the job's resources.
    """

    number: int
    options: Options
    workers: int = 1
    tasks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Batch:
    """The jobs that one launch hands to a cluster.

    ``folder`` is the folder of the launch, and named by its token. A job is ``python -m <module> <folder> <number>``,
    or ``run_inline(number)`` in this process. Jobs with equal options are next to one another.
    """

    folder: Path
    jobs: tp.Sequence[JobSpec]
    module: str
    run_inline: tp.Callable[[int], None]

    @property
    def token(self) -> str:
        return self.folder.name


class ClusterSubmission(abc.ABC):
    """The jobs of one batch, for the launch that submits them. Jobs are known by their numbers."""

    @abc.abstractmethod
    def start(self) -> None:
        """Submits as many jobs as may be submitted now; `poll` submits the others.

        Raises SubmissionError if the cluster refuses; jobs that it has accepted before continue.
        """

    @property
    @abc.abstractmethod
    def job_ids(self) -> dict[int, str | None]:
        """The cluster's id of each job, None for jobs without one."""

    @property
    def slurm_clusters(self) -> dict[int, str]:
        """The cluster of a federation to which each job was submitted, without those of the one at hand."""
        return {}

    @abc.abstractmethod
    def poll(self) -> dict[int, JobReport]:
        """Starts the next jobs, or asks the scheduler when it is time; never waits.

        Returns reports on the jobs that have ended since the last call, and on those that wait for a known reason.
        """

    def stop_tracking(self, number: int) -> None:  # noqa: B027  most clusters have nothing to do
        """Asks no more about this job: all its tasks have outcomes."""

    def close(self) -> None:  # noqa: B027  most clusters have nothing to do
        """Ends the submission; waits a little for processes that have stored their outcome and are about to exit."""

    def cancel_job(self, number: int) -> bool:
        """Ends a job, started or not. False if only `Cluster.cancel_jobs` can."""
        return False

    def unstarted_jobs(self) -> tp.Sequence[int]:
        """The jobs that only this process can still start or submit, in `poll`."""
        return ()

    def waiting_jobs(self) -> tp.Mapping[int, str]:
        """The jobs that have not begun to run, with the reason where the cluster says it."""
        return dict.fromkeys(self.unstarted_jobs(), "")

    @abc.abstractmethod
    def stop_submitting(self) -> tp.Sequence[int]:
        """Submits no more jobs, and returns those that were not submitted. The others continue."""

    @abc.abstractmethod
    def cancel_pending(self) -> tp.Sequence[int]:
        """Cancels all jobs that have not started.

        Returns those that were not submitted; `poll` reports the end of the others.
        """

    @abc.abstractmethod
    def cancel_all(self) -> tp.Sequence[int]:
        """Ends every job, running or not, and returns them."""


class Cluster(abc.ABC):
    """A place where jobs run."""

    name: str
    detaches: bool = False
    """Whether jobs run without the launch, so that it may leave them."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def __str__(self) -> str:
        """Where jobs go and how long they may take, for messages."""
        return self.name

    def resource(self, name: str, options: Options) -> tp.Any:
        """What jobs with these options get of a resource, under submitit's name; None if that is not known."""
        return options.resource(name)

    def describe_resources(self, options: Options) -> dict[str, tp.Any]:
        """What jobs with these options ask for, for records: without what is left to the cluster."""
        asked = {name: options.resource(name) for name in _RESOURCES}
        return {name: value for name, value in asked.items() if value is not None}

    def changed_resources(self, options: Options, changes: tp.Mapping[str, tp.Any]) -> dict[str, tp.Any]:
        """``changes`` of these options for `Options.with_resources`, and what else has to change with them."""
        return dict(changes)

    def log_folder(self, launch: Path) -> Path:
        """The folder for the output of jobs whose task has no log yet. Raises ConfigError if they cannot use it."""
        return launch

    @abc.abstractmethod
    def check_options(self, options: tp.Sequence[Options]) -> None:
        """Raises ConfigError if jobs with any of these options cannot be submitted. Submits nothing."""

    @abc.abstractmethod
    def prepare(self, batch: Batch) -> ClusterSubmission:
        """A submission of these jobs that has not started."""

    @abc.abstractmethod
    def query_jobs(self, references: tp.Sequence[JobReference]) -> list[JobReport]:
        """One report on each of these jobs, of whatever launch; asks the scheduler once."""

    @abc.abstractmethod
    def cancel_jobs(self, references: tp.Sequence[JobReference]) -> None:
        """Requests the end of these jobs; `query_jobs` tells when they have ended."""

    def cancel_vanished(self, references: tp.Sequence[JobReference]) -> None:  # noqa: B027  a process is there or not
        """Requests the end of jobs that the cluster does not list, as they may be alive all the same."""
