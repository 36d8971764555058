"""One submission of a launch: claims what is wanted, packs it into jobs, and watches them."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import time
import typing as tp

from hydra_exca import clusters, paths
from hydra_exca.code import Snapshot, active
from hydra_exca.errors import ConfigError
from hydra_exca.job import payload, worker
from hydra_exca.provenance import launch_record
from hydra_exca.provenance.task_record import Recorder
from hydra_exca.status import Mode
from hydra_exca.store import Claim, ClaimState
from hydra_exca.store import files as store_files
from hydra_exca.text import counted

from . import detached_starter
from .lookup import Lookup, LookupResult
from .settings import Settings, Task

_SHOWN = 200  # characters of a task in messages
_AHEAD = 3  # tasks that a job may have ended since the last look


@dataclasses.dataclass
class _SubmittedJob:
    """One job and where its tasks stand in the round; ``left`` are those without an outcome, in their order."""

    number: int
    options: clusters.Options
    positions: list[int] = dataclasses.field(default_factory=list)
    left: dict[int, None] = dataclasses.field(default_factory=dict)


class Submission:
    """The tasks that one submission has claimed, and their jobs."""

    def __init__(
        self, settings: Settings, program: worker.Program, wanted: tp.Sequence[tuple[LookupResult, Task]]
    ) -> None:
        """Checks and pickles everything first: what cannot work is refused before anything is claimed."""
        settings.check()
        self._settings = settings
        self._raw_program = program
        self._wanted = _alike_together(wanted)
        settings.cluster.check_options([self._options(group[0][1]) for group in self._wanted])
        self.token = f"{time.strftime('%Y%m%d-%H%M%S')}-{store_files.random_token()}"
        self.folder = paths.launch_folder(settings.folder.path, self.token)
        self.claimed: list[LookupResult] = []
        self._tasks: list[Task] = []
        self._jobs: list[_SubmittedJob] = []
        self._job_of: dict[int, tuple[_SubmittedJob, int]] = {}
        self._submission: clusters.ClusterSubmission | None = None
        self._submitted: dict[int, str | None] = {}
        self._copy: Snapshot | None = None
        self._owner: dict[str, tp.Any] = {}
        self._here = isinstance(settings.cluster, clusters.InlineCluster)
        self._program = b""
        self._arguments: dict[int, bytes] = {}
        self._has_payload = self._pickle(program, wanted)
        self._launched = launch_record.Launched({}) if settings.provenance is None else settings.provenance()

    def __str__(self) -> str:
        """What was submitted, for people."""
        ids = dict.fromkeys(str(job).partition("_")[0] for job in self._submitted.values() if job is not None)
        as_jobs = f" as job {', '.join(ids)}" if self._settings.cluster.name == "slurm" and ids else ""
        packed = f" in {counted(len(self._jobs), 'job', 'jobs')}" if len(self._jobs) < len(self.claimed) else ""
        later = sum(len(self._jobs[number].positions) for number in self._unstarted()) if as_jobs else 0
        so_far = f" ({later} of them as soon as the queue has room)" if later else ""
        cluster = self._settings.cluster.name
        return f"{len(self.claimed)} submitted to {cluster}{packed}{as_jobs}{so_far}, launch {self.token}"

    def claim(self, survey: Lookup) -> None:
        """Publishes a claim on each wanted entry; ``claimed`` has those that nobody else took meanwhile."""
        for shelf in {survey.shelf(standing.identity): None for group in self._wanted for standing, _ in group}:
            shelf.create(self._settings.project)
        self._owner = clusters.describe_process()
        for group in self._wanted:
            job = None
            for standing, task in group:
                if job is None or len(job.positions) >= self._tasks_per_job:
                    job = _SubmittedJob(len(self._jobs), self._options(task))
                if self._take(survey, standing, task, job):
                    self._add(standing, task, job)

    def submit(self) -> None:
        """Copies the code, makes room in the entries, writes payload and record, and hands over to the cluster."""
        header = self._header() if self._has_payload else None
        self._copy = self._settings.here() if self._here or header is None else header.copy
        for standing, task in self._of_claimed():
            self._make_room(standing, task)
        self.folder.mkdir(parents=True)
        if header is not None:
            payload.write_payload(self.folder, header, (self._part(*each) for each in self._of_claimed()))
            self._arguments.clear()
        if self._launched.patch is not None:
            store_files.write_file(self.folder / paths.PATCH, self._launched.patch)
        self._write_record()
        batch = clusters.Batch(self.folder, self._specs(), worker.__name__, self._run_here)
        self._submission = self._settings.cluster.prepare(batch)
        try:
            self._submission.start()
        finally:
            self._note_jobs()

    def step(self) -> list[tuple[LookupResult, clusters.JobReport]]:
        """Lets the cluster go on; returns what it has to tell: jobs that ended, or that wait for a telling reason.

        A report of a job is one of each of its tasks that have no outcome.
        """
        if self._submission is None:
            return []
        try:
            reports = self._submission.poll()
        finally:
            self._note_jobs()
        return [
            (self.claimed[position], report)
            for number, report in reports.items()
            for position in sorted(self._jobs[number].left)
        ]

    def settle(self, standing: LookupResult) -> None:
        """The outcome of one that was claimed is there."""
        job, position = self._job_of[id(standing)]
        job.left.pop(position, None)
        if not job.left and self._submission is not None:
            self._submission.stop_tracking(job.number)

    def due(self) -> list[LookupResult]:
        """What may have an outcome by now: of each job that is not over, those that it computes next.

        A job begins its tasks in their order, unless one is handed out once more.
        """
        unstarted = set(self._unstarted())
        few = self._settings.workers_per_job + _AHEAD
        jobs = [job for job in self._jobs if job.left and job.number not in unstarted]
        return [self.claimed[position] for job in jobs for position in itertools.islice(job.left, few)]

    def has_begun(self, standing: LookupResult) -> bool:
        """Whether the job of one that was claimed has begun to compute any of its tasks."""
        job, _ = self._job_of[id(standing)]
        return any(_has_begun(self.claimed[position]) for position in job.positions)

    def holds(self, standing: LookupResult) -> bool:
        """Whether it was claimed here."""
        return id(standing) in self._job_of

    def cancel(self, standing: LookupResult) -> bool:
        """Ends the job of one that was claimed, if that can be done from here and computes nothing else."""
        if self._submission is None or not self.holds(standing):
            return False
        job, _ = self._job_of[id(standing)]
        return len(job.left) == 1 and self._submission.cancel_job(job.number)

    def has_unstarted(self) -> bool:
        """Whether jobs wait for this process to start them."""
        return bool(self._unstarted())

    def is_open(self) -> bool:
        """Whether anything that it has submitted has no outcome yet."""
        return bool(self._submitted) and any(job.left for job in self._jobs)

    def close(self) -> None:
        """All outcomes are there."""
        if self._submission is not None:
            self._submission.close()

    def end(self) -> int:
        """Ends all jobs and gives their tasks up; returns how many there were."""
        return len(self._release(self._everything() if self._submission is None else self._submission.cancel_all()))

    def detach(self) -> list[LookupResult]:
        """Leaves the jobs to run without this process; returns what cannot be, and is given up."""
        if self._submission is not None and self._settings.cluster.name == "local":
            numbers = set(self._submission.stop_submitting())
            kept = [spec for spec in self._specs() if spec.number in numbers]
            detached_starter.start_detached(self.folder, self._settings.cluster.options, kept)
        return self.abandon()

    def abandon(self) -> list[LookupResult]:
        """Gives up what was not started, which nobody else could take from a live process, and returns it."""
        return self._release(self._everything() if self._submission is None else self._submission.stop_submitting())

    def withdraw(self) -> list[LookupResult]:
        """Has the jobs cancelled that have not begun, gives up what nobody computes yet, and returns it."""
        given_up = [] if self._submission is None else self._release(self._submission.cancel_pending())
        queued = [s for job in self._jobs for s in self._left_of(job) if _claim_state(s) is ClaimState.QUEUED]
        return [*given_up, *(standing for standing in queued if self._give_up(standing))]

    # claiming

    @property
    def _tasks_per_job(self) -> int:
        return 1 if self._here else self._settings.tasks_per_job

    def _options(self, task: Task) -> clusters.Options:
        return self._settings.cluster.options.with_resources(task.resources)

    def _take(self, survey: Lookup, standing: LookupResult, task: Task, job: _SubmittedJob) -> bool:
        entry = standing.entry = survey.shelf(standing.identity).open_entry(standing.identity)
        last = entry.current_claim()
        if _number(last) != _number(standing.claim):
            return False
        claim = self._claim_after(last, job)
        if not entry.publish_claim(claim):
            return False
        standing.claim = claim
        return True

    def _add(self, standing: LookupResult, task: Task, job: _SubmittedJob) -> None:
        position = len(self.claimed)
        self.claimed.append(standing)
        self._tasks.append(task)
        if not job.positions:
            self._jobs.append(job)
        job.positions.append(position)
        job.left[position] = None
        self._job_of[id(standing)] = (job, position)

    def _claim_after(self, last: Claim | None, job: _SubmittedJob) -> Claim:
        none = Claim(0, ClaimState.RELEASED, "", "", None, 0, {})
        return (last or none).next(
            ClaimState.QUEUED,
            token=self.token,
            cluster=self._settings.cluster.name,
            job=None,
            number_of_job=job.number,
            owner=self._owner,
            shared=len(job.positions) >= self._settings.workers_per_job,
        )

    # giving up

    def _specs(self) -> list[clusters.JobSpec]:
        workers = self._settings.workers_per_job
        return [clusters.JobSpec(job.number, job.options, min(workers, len(job.positions))) for job in self._jobs]

    def _everything(self) -> list[int]:
        return [job.number for job in self._jobs]

    def _unstarted(self) -> tp.Sequence[int]:
        return () if self._submission is None else self._submission.unstarted_jobs()

    def _left_of(self, job: _SubmittedJob) -> list[LookupResult]:
        return [self.claimed[position] for position in sorted(job.left)]

    def _release(self, numbers: tp.Iterable[int]) -> list[LookupResult]:
        left = [standing for number in numbers for standing in self._left_of(self._jobs[number])]
        return [standing for standing in left if self._give_up(standing)]

    def _give_up(self, standing: LookupResult) -> bool:
        entry = standing.entry
        assert entry is not None
        owner = entry.current_claim()
        mine = owner is not None and owner.token == self.token and owner.state is not ClaimState.RELEASED
        if owner is None or not mine:
            return False
        outcome = entry.outcome()
        if outcome is not None and outcome.claim >= owner.number:  # any other is the one that was to be replaced
            return False
        self.settle(standing)
        return entry.release_claim(owner)

    # what the jobs need

    def _header(self) -> payload.Payload:
        settings, options = self._settings, self._settings.cluster.options
        header = payload.Payload.of_this_process(settings.cluster.name, self._program, settings.stderr_to_stdout)
        told = options.slurm.get("signal_delay_s")
        header = dataclasses.replace(
            header,
            jobs=tuple(tuple(job.positions) for job in self._jobs),
            workers=settings.workers_per_job,
            max_num_timeout=options.max_num_timeout,
            signal_delay_s=header.signal_delay_s if told is None else float(told),
            provenance=self._launched.record,
        )
        return settings.prepare(header)

    def _pickle(self, program: worker.Program, wanted: tp.Sequence[tuple[LookupResult, Task]]) -> bool:
        """Pickles what is to be written down; False if that is nothing."""
        if self._here and not self._settings.keeps_payload:
            return False
        try:
            self._program = payload.pickle_named(program, "the function")
            self._arguments = {id(standing): self._dump(task) for standing, task in wanted}
        except ConfigError:
            if not self._here:  # there nothing needs to be pickled
                raise
            return False
        return True

    def _dump(self, task: Task) -> bytes:
        name = " ".join(task.overrides)
        name = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
        argument = payload.pickle_named(task.argument, f"what the task {name} is given")
        if self._settings.max_gb is not None and not self._here:
            payload.check_size(self._program, argument, task.argument, name, self._settings.max_gb)
        return argument

    def _make_room(self, standing: LookupResult, task: Task) -> None:
        assert standing.entry is not None
        if standing.mode in (Mode.FORCE, Mode.RETRY):
            standing.entry.set_previous_aside(keep_output=standing.mode is Mode.RETRY)
        standing.outcome = None
        standing.entry.write_description(*task.describe())

    def _run_here(self, number: int) -> None:
        position = self._jobs[number].positions[0]
        standing, task = self.claimed[position], self._tasks[position]
        assert standing.entry is not None
        identity, cluster = standing.identity.to_json(), self._settings.cluster
        assert isinstance(cluster, clusters.InlineCluster)

        def compute(attempt: worker.Attempt) -> tp.Any:
            copy = self._copy if self._settings.chdir else None
            with contextlib.nullcontext() if copy is None else active.inside(copy):
                return cluster.call(lambda: self._raw_program(task.argument, attempt))

        recorder = Recorder(self.folder, self._launched.record, self._recorded(task))
        code = self._settings.code
        worker.attempt_task(
            standing.entry, identity, self.token, compute, copy=self._copy, code=code, recorder=recorder
        )

    def _of_claimed(self) -> tp.Iterator[tuple[LookupResult, Task]]:
        return zip(self.claimed, self._tasks, strict=True)

    def _part(self, standing: LookupResult, task: Task) -> payload.Part:
        assert standing.entry is not None
        identity, argument = standing.identity.to_json(), self._arguments[id(standing)]
        return payload.Part(str(standing.entry.path), identity, argument, self._recorded(task))

    def _recorded(self, task: Task) -> tuple[str, ...]:
        return tuple(task.overrides) if self._settings.records_overrides else ()

    def _note_jobs(self) -> None:
        """Writes down which jobs were submitted since: whoever comes back knows them by that."""
        submitted = {} if self._submission is None else self._submission.job_ids
        if submitted != self._submitted:
            self._submitted = submitted
            if self._settings.cluster.detaches:
                self._write_record()

    def _write_record(self) -> None:
        record = {
            **self._launched.record,
            **self._settings.record,
            "token": self.token,
            "cluster": self._settings.cluster.name,
            "code": self._settings.code if self._copy is None else self._copy.digest,
            "logs": str(self._settings.cluster.log_folder(self.folder)),
            "entries": [str(s.entry.path.relative_to(self._settings.folder.path)) for s in self.claimed if s.entry],
            "tasks": [job.positions for job in self._jobs],
            "jobs": {str(number): job for number, job in self._submitted.items()},
        }
        store_files.write_file(self.folder / paths.LAUNCH_RECORD, json.dumps(record).encode())


def _alike_together(wanted: tp.Sequence[tuple[LookupResult, Task]]) -> list[list[tuple[LookupResult, Task]]]:
    """The tasks of equal resources each, in the order of their first ones."""
    groups: dict[str, list[tuple[LookupResult, Task]]] = {}
    for standing, task in wanted:
        groups.setdefault(json.dumps(task.resources, sort_keys=True, default=repr), []).append((standing, task))
    return list(groups.values())


def _has_begun(standing: LookupResult) -> bool:
    return standing.outcome is not None or _claim_state(standing) in (ClaimState.RUNNING, ClaimState.COMMITTING)


def _claim_state(standing: LookupResult) -> ClaimState | None:
    claim = None if standing.entry is None else standing.entry.current_claim()
    return None if claim is None else claim.state


def _number(claim: Claim | None) -> int:
    return 0 if claim is None else claim.number
