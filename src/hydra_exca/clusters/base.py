"""What every cluster can do, in the singular; the modules beside this one are the clusters."""

from __future__ import annotations

import abc
import dataclasses
import enum
import typing as tp
from pathlib import Path


class State(enum.Enum):
    """Where a job stands, as far as its cluster says."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"  # it computes no more; whether it left an outcome, the entry tells
    UNKNOWN = "unknown"  # the cluster could not be asked, or cannot tell: nothing may be concluded

    @property
    def final(self) -> bool:
        return self is State.ENDED


@dataclasses.dataclass(frozen=True)
class Report:
    """What a cluster says of one job. ``reason`` is why it ended or waits, in the cluster's words ("" if unknown).

    ``failed`` is False where the cluster knows only that the job is no more, not that something went wrong.
    ``stuck`` says of one that waits that it may wait for ever unless somebody acts.
    """

    state: State
    reason: str = ""
    failed: bool = True
    stuck: bool = False
    job: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """What is known of a job, maybe of another launch: enough to ask for it.

    ``started`` tells whether a job said that it computes, ``owner`` describes the process that said so (or the
    launching process before that), ``submitted`` is when, in seconds since the epoch.
    """

    token: str
    position: int
    job: str | None
    owner: tp.Mapping[str, tp.Any]
    started: bool
    submitted: float


EntryPoint = tp.Callable[[str, int, tp.Callable[[], bool]], None]


@dataclasses.dataclass(frozen=True)
class Batch:
    """What a cluster is asked to run.

    ``folder`` is the launch's, and ends in its token. ``entry_point(folder, position, requeued)`` runs one
    position in a job and is importable there, and ``requeued()`` tells it whether an exit under way is one after
    which the job starts again; ``here(position)`` runs it in this process.
    """

    folder: Path
    positions: tp.Sequence[int]
    entry_point: EntryPoint
    here: tp.Callable[[int], None]

    @property
    def token(self) -> str:
        return self.folder.name


@dataclasses.dataclass(frozen=True)
class Options:
    """What jobs are given: the options of submitit under its names (``timeout_min``, ``gpus_per_node``, ...).

    ``slurm`` holds those that only Slurm knows, without the prefix. ``environment`` is the name or path of the one
    whose python runs the jobs, None for this process's own.
    """

    common: tp.Mapping[str, tp.Any] = dataclasses.field(default_factory=dict)
    slurm: tp.Mapping[str, tp.Any] = dataclasses.field(default_factory=dict)
    array_parallelism: int = 256
    max_num_timeout: int = 0
    submitit_folder: str | None = None
    environment: str | None = None


class Submission(abc.ABC):
    """The jobs of one batch, as seen by the launch that submitted them."""

    @property
    @abc.abstractmethod
    def jobs(self) -> dict[int, str | None]:
        """The job id of each position, None where it has none (yet)."""

    @abc.abstractmethod
    def step(self) -> dict[int, Report]:
        """Does what there is to do (start the next process, ask the scheduler when it is time) without waiting.

        Returns reports of the positions that ended since the last call, and of those that wait for a reason
        worth telling.
        """

    def settle(self, position: int) -> None:  # noqa: B027  most clusters have nothing to do
        """No more questions about this one: its outcome is there."""

    def close(self) -> None:  # noqa: B027  most clusters have nothing to do
        """The launch is over: waits a little for processes that have stored their outcome and are about to exit."""

    def cancel(self, position: int) -> bool:
        """Ends one of its positions, started or not, if it can; else the cluster's own `cancel` is to be asked."""
        return False

    def has_unstarted(self) -> bool:
        """Whether positions wait for `step` to start them."""
        return False

    @abc.abstractmethod
    def abandon(self) -> tp.Sequence[int]:
        """The launch fails: returns the positions that were never started and never will be; the others go on."""

    @abc.abstractmethod
    def interrupt(self) -> tp.Sequence[int]:
        """What a Ctrl-C means here: returns the positions that were cancelled and can be given up."""


class Cluster(abc.ABC):
    """A place where jobs run."""

    name: str

    def __init__(self, options: Options) -> None:
        self.options = options

    @abc.abstractmethod
    def check(self) -> None:
        """Raises ConfigError if jobs with these options cannot be submitted. Submits nothing."""

    @abc.abstractmethod
    def submit(self, batch: Batch) -> Submission:
        """Submits all positions; raises SubmissionError if that is refused."""

    @abc.abstractmethod
    def ask(self, references: tp.Sequence[Reference]) -> list[Report]:
        """What is known of jobs of any launch, one report for each, in one question to the scheduler."""

    @abc.abstractmethod
    def cancel(self, reference: Reference) -> None:
        """Asks for a job's end; `ask` tells when it has come."""
