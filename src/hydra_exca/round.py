"""One submission of a launch: claims what is wanted, writes what the jobs need, and watches the jobs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
import typing as tp

from . import clusters, paths, payload, worker
from .status import Mode
from .store import CacheFolder, Claim, ClaimState
from .store import files as store_files
from .survey import Standing, Survey
from .uid import Identity
from .workdir import Snapshot

_SHOWN = 200  # characters of a task in messages


@dataclasses.dataclass(frozen=True)
class Task:
    """One task of a launch: its identity, what the program is given, and how to speak of it.

    ``overrides`` are for messages; ``describe()`` gives the texts of ``uid.yaml`` and ``config.yaml``.
    """

    identity: Identity
    argument: tp.Any
    overrides: tuple[str, ...] = ()
    describe: tp.Callable[[], tuple[str, str]] = lambda: ("", "")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a launch goes about it. ``record`` is kept with the launch, ``project`` with the results.

    ``check`` raises before anything is claimed, if no job can work. ``prepare`` may change what the jobs get, say
    their search path; ``here`` gives the copy of code that tasks in this process have as their working directory.
    ``max_gb`` limits what one job is sent.
    """

    folder: CacheFolder
    cluster: clusters.Cluster
    mode: Mode = Mode.CACHED
    project: dict[str, tp.Any] = dataclasses.field(default_factory=dict)
    record: dict[str, tp.Any] = dataclasses.field(default_factory=dict)
    stderr_to_stdout: bool = False
    check: tp.Callable[[], None] = lambda: None
    prepare: tp.Callable[[payload.Payload], payload.Payload] = lambda unchanged: unchanged
    here: tp.Callable[[], Snapshot | None] = lambda: None
    max_gb: float | None = None


class Round:
    """The tasks that one submission has claimed, and their jobs."""

    def __init__(self, settings: Settings, program: worker.Program, wanted: tp.Sequence[tuple[Standing, Task]]) -> None:
        """Checks and pickles everything first: what cannot work is refused before anything is claimed."""
        settings.check()
        self._settings = settings
        self._raw_program = program
        self._wanted = wanted
        self.token = f"{time.strftime('%Y%m%d-%H%M%S')}-{store_files.unique()}"
        self.folder = paths.launch_folder(settings.folder.path, self.token)
        self.claimed: list[Standing] = []
        self._tasks: list[Task] = []
        self._submission: clusters.Submission | None = None
        self._copy: Snapshot | None = None
        self._here = isinstance(settings.cluster, clusters.InlineCluster)
        self._program = b"" if self._here else payload.dump(program, "the function")
        self._arguments = {id(standing): self._dump(task) for standing, task in wanted}

    def __str__(self) -> str:
        """What was submitted, for people."""
        jobs = [] if self._submission is None else list(self._submission.jobs.values())
        name = self._settings.cluster.name
        as_job = f" as job {str(jobs[0]).partition('_')[0]}" if name == "slurm" and jobs else ""
        return f"{len(self.claimed)} submitted to {name}{as_job}, launch {self.token}"

    def claim(self, survey: Survey) -> None:
        """Publishes a claim on each wanted entry; ``claimed`` has those that nobody else took meanwhile."""
        for standing, task in self._wanted:
            shelf = survey.shelf(standing.identity)
            shelf.create(self._settings.project)
            entry = standing.entry = shelf.open(standing.identity)
            last = entry.claim()
            if _number(last) != _number(standing.claim):
                continue
            claim = self._claim_after(last)
            if entry.take(claim):
                standing.claim = claim
                self.claimed.append(standing)
                self._tasks.append(task)

    def submit(self) -> None:
        """Copies the code, makes room in the entries, writes payload and record, and hands over to the cluster."""
        header = None if self._here else self._header()
        self._copy = self._settings.here() if header is None else header.copy
        for standing, task in zip(self.claimed, self._tasks, strict=True):
            self._make_room(standing, task)
        self.folder.mkdir(parents=True)
        if header is not None:
            payload.write(self.folder, header, [self._job(s) for s in self.claimed])
        self._write_record({})
        batch = clusters.Batch(self.folder, range(len(self.claimed)), worker.run, self._run_here)
        self._submission = self._settings.cluster.submit(batch)
        self._write_record(self._submission.jobs)

    def step(self) -> list[tuple[Standing, clusters.Report]]:
        """Lets the cluster go on; returns what it has to tell: jobs that ended, or that wait for a telling reason."""
        if self._submission is None:
            return []
        for position, standing in enumerate(self.claimed):
            if standing.outcome is not None:
                self._submission.settle(position)
        return [(self.claimed[position], report) for position, report in self._submission.step().items()]

    def cancel(self, standing: Standing) -> bool:
        """Ends the job of one that was claimed, if that can be done from here."""
        if self._submission is None or standing not in self.claimed:
            return False
        return self._submission.cancel(self.claimed.index(standing))

    def has_unstarted(self) -> bool:
        """Whether jobs wait for this process to start them."""
        return self._submission is not None and self._submission.has_unstarted()

    def close(self) -> None:
        """All outcomes are there."""
        if self._submission is not None:
            self._submission.close()

    def interrupt(self) -> str:
        """Gives up what was not submitted, and what the cluster cancels on an interrupt; says what became of it."""
        everything = range(len(self.claimed))
        positions = list(everything if self._submission is None else self._submission.interrupt())
        self._release(positions)
        if positions or self._submission is None:
            return f"{len(positions)} tasks of launch {self.token} are cancelled"
        return f"the jobs go on ({self}); the same command joins them, scancel ends them"

    def abandon(self) -> None:
        """The launch fails: gives up what was not started, which nobody else could take from a live process."""
        everything = range(len(self.claimed))
        self._release(everything if self._submission is None else self._submission.abandon())

    def _release(self, positions: tp.Iterable[int]) -> None:
        for position in positions:
            entry = self.claimed[position].entry
            assert entry is not None
            owner = entry.claim()
            if owner is not None and owner.token == self.token and entry.outcome() is None:
                entry.release(owner)

    def _claim_after(self, last: Claim | None) -> Claim:
        none = Claim(0, ClaimState.RELEASED, "", "", None, 0, {})
        return (last or none).next(
            ClaimState.QUEUED,
            token=self.token,
            cluster=self._settings.cluster.name,
            job=None,
            position=len(self.claimed),
            owner=clusters.describe_process(),
        )

    def _header(self) -> payload.Payload:
        settings = self._settings
        header = payload.Payload.of_this_process(settings.cluster.name, self._program, settings.stderr_to_stdout)
        return settings.prepare(header)

    def _dump(self, task: Task) -> bytes:
        if self._here:
            return b""
        name = " ".join(task.overrides)
        name = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
        argument = payload.dump(task.argument, f"what the task {name} is given")
        if self._settings.max_gb is not None:
            payload.check_size(self._program, argument, task.argument, name, self._settings.max_gb)
        return argument

    def _make_room(self, standing: Standing, task: Task) -> None:
        assert standing.entry is not None
        if self._settings.mode in (Mode.FORCE, Mode.RETRY):
            standing.entry.set_previous_aside(keep_output=self._settings.mode is Mode.RETRY)
        standing.outcome = None
        standing.entry.write_description(*task.describe())

    def _run_here(self, position: int) -> None:
        standing, task = self.claimed[position], self._tasks[position]
        assert standing.entry is not None
        identity, cluster = standing.identity.to_json(), self._settings.cluster
        assert isinstance(cluster, clusters.InlineCluster)

        def compute(attempt: worker.Attempt) -> tp.Any:
            with contextlib.nullcontext() if self._copy is None else payload.inside(self._copy):
                return cluster.call(lambda: self._raw_program(task.argument, attempt))

        worker.attempt_task(standing.entry, identity, self.token, compute, copy=self._copy)

    def _job(self, standing: Standing) -> payload.Job:
        assert standing.entry is not None
        return payload.Job(str(standing.entry.path), standing.identity.to_json(), self._arguments[id(standing)])

    def _write_record(self, jobs: tp.Mapping[int, str | None]) -> None:
        record = {
            **self._settings.record,
            "token": self.token,
            "cluster": self._settings.cluster.name,
            "code": None if self._copy is None else self._copy.digest,
            "entries": [str(s.entry.path.relative_to(self._settings.folder.path)) for s in self.claimed if s.entry],
            "jobs": {str(position): job for position, job in jobs.items()},
        }
        store_files.write(self.folder / paths.LAUNCH_RECORD, json.dumps(record, indent=1).encode())


def _number(claim: Claim | None) -> int:
    return 0 if claim is None else claim.number
