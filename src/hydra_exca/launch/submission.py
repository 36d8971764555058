"""One submission of a launch: claims tasks, packs them into jobs, and follows the jobs."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import typing as tp
from collections import Counter

from hydra_exca import clusters, paths
from hydra_exca import files as store_files
from hydra_exca.code import active
from hydra_exca.code.compare import join_digests
from hydra_exca.code.observer import count_unknown, observe
from hydra_exca.code.snapshot import Snapshot
from hydra_exca.code.uses import UseRecorder
from hydra_exca.errors import CacheError, ConfigError
from hydra_exca.job import checkpoints, payload, worker
from hydra_exca.job.attempt import Attempt, Program, attempt_task
from hydra_exca.job.enclosing import EnclosingTask, computing, enclosing_tasks
from hydra_exca.provenance import launch_record
from hydra_exca.provenance.task_record import Recorder
from hydra_exca.status import Mode
from hydra_exca.store import Claim, ClaimState, describe_owner, launches, own_calls
from hydra_exca.text import count_noun

from . import detached_starter
from .launched_task import LaunchedTask
from .lookup import Lookup, has_begun
from .retries import Retries
from .settings import Settings, Task

log = logging.getLogger("exca.launch")
_SHOWN_CHARACTERS = 200  # of a task's name in messages
_AHEAD = 3  # tasks that a job may have ended since the last poll


@dataclasses.dataclass
class _SubmittedJob:
    """One job: the positions of its tasks in the submission, and in ``left`` those without an outcome, in order."""

    number: int
    options: clusters.Options
    positions: list[int] = dataclasses.field(default_factory=list)
    left: dict[int, None] = dataclasses.field(default_factory=dict)


class Submission:
    """The tasks that one submission has claimed, and their jobs."""

    def __init__(
        self, settings: Settings, program: Program, wanted: tp.Sequence[LaunchedTask], num_reused: int = 0
    ) -> None:
        """Checks and pickles everything before anything is claimed.

        ``num_reused`` is recorded: how many other tasks of the launch have a value.

        Raises ConfigError if the jobs cannot work.
        """
        settings.check()
        self._settings = settings
        self._raw_program = program
        self._num_reused = num_reused
        self._groups = _group_by_resources(wanted)
        options = [self._options_of(group[0]) for group in self._groups]
        settings.cluster.check_options(options)
        Retries(settings).check(options)
        self.token = launches.new_token()
        self.folder = paths.launch_folder(settings.folder.path, self.token)
        self._logs = settings.cluster.log_folder(self.folder)
        self.claimed: list[LaunchedTask] = []
        self._jobs: list[_SubmittedJob] = []
        self._job_of: dict[LaunchedTask, tuple[_SubmittedJob, int]] = {}
        self._cluster_submission: clusters.ClusterSubmission | None = None
        self._job_ids: dict[int, str | None] = {}
        self._copy: Snapshot | None = None
        self._owner: dict[str, tp.Any] = {}
        self._runs_here = isinstance(settings.cluster, clusters.InlineCluster)
        self._program = b""
        self._arguments: dict[LaunchedTask, bytes] = {}
        self._has_payload = self._pickle_tasks(program, wanted)
        self._launched = launch_record.LaunchDescription({}) if settings.provenance is None else settings.provenance()

    def __str__(self) -> str:
        """The number of tasks, their cluster and jobs, for messages."""
        ids = dict.fromkeys(str(job).partition("_")[0] for job in self._job_ids.values() if job is not None)
        as_jobs = f" as job {', '.join(ids)}" if self._settings.cluster.name == "slurm" and ids else ""
        packed = f" in {count_noun(len(self._jobs), 'job', 'jobs')}" if len(self._jobs) < len(self.claimed) else ""
        later = sum(len(self._jobs[number].positions) for number in self._unstarted_jobs()) if as_jobs else 0
        so_far = f" ({later} of them as soon as the queue has room)" if later else ""
        cluster = self._settings.cluster.name
        return f"{len(self.claimed)} submitted to {cluster}{packed}{as_jobs}{so_far}, launch {self.token}"

    def claim_entries(self, lookup: Lookup) -> None:
        """Claims each wanted entry; ``claimed`` has the tasks that no other launch has claimed meanwhile."""
        wanted = [task for group in self._groups for task in group]
        for folder in {lookup.factory_folder(task.task.identity): None for task in wanted}:
            folder.create(self._settings.project)
        own_calls.begin_call(self.token)
        for group in self._groups:
            job = None
            for task in group:
                if job is None or len(job.positions) >= self._tasks_per_job:
                    job = _SubmittedJob(len(self._jobs), self._options_of(task))
                if self._claim_task(lookup, task, job):
                    self._add_to_job(task, job)

    def submit(self) -> None:
        """Copies the code, prepares the entries, writes payload and record, and starts the cluster's submission."""
        header = self._make_payload() if self._has_payload else None
        self._copy = self._settings.here() if self._runs_here or header is None else header.copy
        if self._settings.cells is not None:
            self._settings.cells.store(self._settings.folder.path)
        for task in self.claimed:
            self._prepare_entry(task)
        launches.make_folder(self.folder)
        self._keep_resumed_calls()
        if header is not None:
            payload.write_payload(self.folder, header, map(self._make_part, self.claimed))
            self._arguments.clear()
        if self._launched.kept_patch is not None:
            self._launched.kept_patch.write(self.folder / paths.PATCH)
        self._write_record()
        batch = clusters.Batch(self.folder, self._job_specs(), worker.__name__, self._run_in_process)
        self._cluster_submission = self._settings.cluster.prepare(batch)
        try:
            self._cluster_submission.start()
        finally:
            self._record_job_ids()
        if not self._runs_here:
            own_calls.end_call(self.token)

    def poll(self) -> list[tuple[LaunchedTask, clusters.JobReport]]:
        """Polls the cluster; returns its reports on jobs that have ended or wait for a known reason.

        There is one report per task without an outcome, so that of a job may come several times.
        """
        if self._cluster_submission is None:
            return []
        if self._runs_here and self.has_unstarted():
            own_calls.begin_call(self.token)  # the call that has claimed them may be over
        try:
            reports = self._cluster_submission.poll()
        finally:
            self._record_job_ids()
        return [
            (self.claimed[position], report)
            for number, report in reports.items()
            for position in sorted(self._jobs[number].left)
        ]

    def mark_ended(self, task: LaunchedTask) -> None:
        """Removes a claimed task from its job; without tasks, the job is no longer tracked."""
        job, position = self._job_of[task]
        job.left.pop(position, None)
        if not job.left and self._cluster_submission is not None:
            self._cluster_submission.stop_tracking(job.number)
        if self._runs_here and not any(other.left for other in self._jobs):
            own_calls.end_call(self.token)

    def count_tasks(self) -> tuple[int, Counter[str]]:
        """How many tasks without an outcome run, and how many are queued, by the reason that the cluster gives."""
        waiting = {} if self._cluster_submission is None else self._cluster_submission.waiting_jobs()
        running, queued = 0, Counter[str]()
        for job in self._jobs:
            running_now = 0 if job.number in waiting else min(self._settings.workers_per_job, len(job.left))
            running += running_now
            queued[waiting.get(job.number, "")] += len(job.left) - running_now
        return running, +queued

    def due_tasks(self) -> list[LaunchedTask]:
        """The tasks that may have an outcome by now: the next few of each job.

        A job starts its tasks in order, except those that it tries again because their process has died.
        """
        unstarted = set(self._unstarted_jobs())
        next_few = self._settings.workers_per_job + _AHEAD
        jobs = [job for job in self._jobs if job.left and job.number not in unstarted]
        return [self.claimed[position] for job in jobs for position in itertools.islice(job.left, next_few)]

    def has_begun(self, task: LaunchedTask) -> bool:
        """Whether the job of a claimed task has started any of its tasks."""
        job, _ = self._job_of[task]
        return any(has_begun(self.claimed[position].entry, self.token) for position in job.positions)

    def holds(self, task: LaunchedTask) -> bool:
        """Whether this submission has claimed the task."""
        return task in self._job_of

    def cancel_task(self, task: LaunchedTask) -> bool:
        """Cancels the job of a claimed task, if the job computes nothing else; whether that was possible."""
        if self._cluster_submission is None or not self.holds(task):
            return False
        job, _ = self._job_of[task]
        return len(job.left) == 1 and self._cluster_submission.cancel_job(job.number)

    def has_unstarted(self) -> bool:
        """Whether jobs wait for this process to start them."""
        return bool(self._unstarted_jobs())

    def is_open(self) -> bool:
        """Whether any submitted task has no outcome yet."""
        return bool(self._job_ids) and any(job.left for job in self._jobs)

    def close(self) -> None:
        """Ends the submission, once all outcomes are there."""
        if self._cluster_submission is not None:
            self._cluster_submission.close()

    def cancel_all(self) -> int:
        """Ends all jobs and gives up their tasks; returns the number of tasks."""
        return len(
            self._give_up_jobs(
                self._all_jobs() if self._cluster_submission is None else self._cluster_submission.cancel_all()
            )
        )

    def detach(self) -> list[LaunchedTask]:
        """Lets the jobs run without this process; gives up and returns the tasks for which that is not possible."""
        if self._cluster_submission is not None and self._settings.cluster.name == "local":
            numbers = set(self._cluster_submission.stop_submitting())
            specs = [spec for spec in self._job_specs() if spec.number in numbers]
            detached_starter.start_detached(self.folder, self._settings.cluster.options, specs)
        return self.give_up_unstarted()

    def give_up_unstarted(self) -> list[LaunchedTask]:
        """Gives up and returns the tasks of jobs that were not started.

        Otherwise other launches would wait for them as long as this process lives.
        """
        if self._cluster_submission is None:  # the last claim may not have been noted any more
            for task in (task for group in self._groups for task in group if task.has_entry and not self.holds(task)):
                self._release_claim(task, None)
        given_up = self._give_up_jobs(
            self._all_jobs() if self._cluster_submission is None else self._cluster_submission.stop_submitting()
        )
        if not self._runs_here:  # the jobs that were accepted hold the other claims
            own_calls.end_call(self.token)
        return given_up

    def cancel_unstarted(self) -> list[LaunchedTask]:
        """Cancels the jobs that have not started; gives up and returns the tasks that nobody computes yet."""
        given_up = (
            [] if self._cluster_submission is None else self._give_up_jobs(self._cluster_submission.cancel_pending())
        )
        left = [(task, job.number) for job in self._jobs for task in self._tasks_left(job)]
        queued = [(task, number) for task, number in left if _claim_state(task) is ClaimState.QUEUED]
        return [*given_up, *(task for task, number in queued if self._give_up(task, number))]

    # claiming

    @property
    def _tasks_per_job(self) -> int:
        return 1 if self._runs_here else self._settings.tasks_per_job

    def _options_of(self, task: LaunchedTask) -> clusters.Options:
        return self._settings.cluster.options.with_resources(task.resources)

    def _claim_task(self, lookup: Lookup, task: LaunchedTask, job: _SubmittedJob) -> bool:
        """Claims a task, unless somebody has claimed it since the lookup."""
        entry = lookup.factory_folder(task.task.identity).open_entry(task.task.identity)
        task.set_entry(entry)
        self._owner = self._owner or describe_owner(entry.path)
        last, lost = entry.current_claim(), tuple[str, ...]()
        if last is not None and last.token:
            store_files.clear_leftovers(paths.launch_folder(self._settings.folder.path, last.token))
            lost = self._presumed_lost(lookup, task, last)
            task.resumed_call = lookup.resumed_call(entry, last) if last.token in lost else None
        task.asked = self._settings.cluster.describe_resources(job.options)
        claim = self._next_claim(last, job, lost)
        if last is not None and task.mode in (Mode.FORCE, Mode.RETRY):
            claim = dataclasses.replace(claim, replaces=last.number)
        if (last and last.number) != (task.claim and task.claim.number):
            return False
        if not entry.publish_claim(claim):
            return False
        task.claim = claim
        return True

    def _add_to_job(self, task: LaunchedTask, job: _SubmittedJob) -> None:
        position = len(self.claimed)
        self.claimed.append(task)
        if not job.positions:
            self._jobs.append(job)
        job.positions.append(position)
        job.left[position] = None
        self._job_of[task] = (job, position)

    def _presumed_lost(self, lookup: Lookup, task: LaunchedTask, last: Claim) -> tuple[str, ...]:
        """The launches whose jobs for this task may be alive after all, and may then store what this launch wants."""
        if last.state is ClaimState.COMMITTING or task.mode is not Mode.CACHED:
            return ()
        tokens = last.lost if task.ended is None else (*last.lost, last.token)
        codes = {token: lookup.code_of_launch(token) for token in tokens}
        return tuple(token for token, code in codes.items() if code is None or self._settings.code in (None, code))

    def _next_claim(self, last: Claim | None, job: _SubmittedJob, lost: tuple[str, ...]) -> Claim:
        none = Claim(0, ClaimState.RELEASED, "", "", None, 0, {})
        return (last or none).next(
            ClaimState.QUEUED,
            token=self.token,
            cluster=self._settings.cluster.name,
            job=None,
            number_of_job=job.number,
            owner=self._owner,
            shared=len(job.positions) >= self._settings.workers_per_job,
            lost=lost,
            replaces=0,
        )

    def _job_specs(self) -> list[clusters.JobSpec]:
        workers = self._settings.workers_per_job
        return [
            clusters.JobSpec(
                job.number,
                job.options,
                min(workers, len(job.positions)),
                tuple(self.claimed[position].task.identity.label for position in job.positions),
            )
            for job in self._jobs
        ]

    def _all_jobs(self) -> list[int]:
        return [job.number for job in self._jobs]

    def _unstarted_jobs(self) -> tp.Sequence[int]:
        return () if self._cluster_submission is None else self._cluster_submission.unstarted_jobs()

    def _tasks_left(self, job: _SubmittedJob) -> list[LaunchedTask]:
        return [self.claimed[position] for position in sorted(job.left)]

    # giving up

    def _give_up_jobs(self, numbers: tp.Iterable[int]) -> list[LaunchedTask]:
        left = [(task, number) for number in numbers for task in self._tasks_left(self._jobs[number])]
        return [task for task, number in left if self._give_up(task, number)]

    def _give_up(self, task: LaunchedTask, job: int) -> bool:
        """Releases this launch's claim on a task without an outcome; False if there was no such claim."""
        if not self._release_claim(task, job):  # an interrupt may have come before the task was noted everywhere
            return False
        self.mark_ended(task)
        return True

    def _release_claim(self, task: LaunchedTask, job: int | None) -> bool:
        """Releases this launch's claim on a task, later if the disk refuses that now; False if there is none."""
        try:
            return self._try_to_release(task)
        except (OSError, CacheError) as error:
            log.warning("exca: the claim on %s is released as soon as possible: %s", task.uid, error)
            own_calls.abandon_claim(self.token, job, lambda: self._try_to_release(task))
            return True

    def _try_to_release(self, task: LaunchedTask) -> bool:
        owner = task.entry.current_claim()
        if owner is None or owner.token != self.token or owner.state is ClaimState.RELEASED:
            return False
        outcome = task.entry.outcome()
        if outcome is not None and outcome.claim >= owner.number:  # an older outcome is the one being replaced
            return False
        return task.entry.release_claim(owner)

    # what the jobs need

    def _make_payload(self) -> payload.Payload:
        settings, options = self._settings, self._settings.cluster.options
        header = payload.Payload.of_this_process(settings.cluster.name, self._program, settings.stderr_to_stdout)
        signal_delay_s = options.slurm.get("signal_delay_s")
        header = dataclasses.replace(
            header,
            jobs=tuple(tuple(job.positions) for job in self._jobs),
            workers=settings.workers_per_job,
            fail_jobs=settings.fail_jobs,
            max_num_timeout=options.max_num_timeout,
            signal_delay_s=header.signal_delay_s if signal_delay_s is None else float(signal_delay_s),
            provenance=self._launched.record,
            cells=settings.cell_digest,
            enclosing=header.enclosing if settings.waits else (),
        )
        return settings.prepare(header)

    def _pickle_tasks(self, program: Program, wanted: tp.Sequence[LaunchedTask]) -> bool:
        """Pickles what the jobs need; False if nothing has to be written."""
        if self._runs_here and not self._settings.keeps_payload:
            return False
        try:
            self._program = payload.pickle_named(program, "the function")
            self._arguments = {task: self._pickle_argument(task.task) for task in wanted}
        except ConfigError:
            if not self._runs_here:  # there nothing needs to be pickled
                raise
            return False
        return True

    def _pickle_argument(self, task: Task) -> bytes:
        name = " ".join(task.overrides)
        name = name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}..."
        argument = payload.pickle_named(task.argument, f"what the task {name} is given")
        if self._settings.max_gb is not None and not self._runs_here:
            payload.check_size(self._program, argument, task.argument, name, self._settings.max_gb)
        return argument

    def _prepare_entry(self, task: LaunchedTask) -> None:
        is_owned = task.claim is not None and task.entry.owns(task.claim)  # another force may have been quicker
        if task.mode in (Mode.FORCE, Mode.RETRY) and is_owned:
            task.entry.set_previous_aside(keep_output=task.mode is Mode.RETRY)
        task.entry.write_description(task.task.describe)

    def _keep_resumed_calls(self) -> None:
        """Lets tasks whose job was lost, or needed more, go on from their checkpoints."""
        for position, task in enumerate(self.claimed):
            if task.resumed_call is not None:
                checkpoints.copy_resumed_call(task.resumed_call, self.folder, position)

    def _run_in_process(self, number: int) -> None:
        position = self._jobs[number].positions[0]
        launched = self.claimed[position]
        task, cluster = launched.task, self._settings.cluster
        assert isinstance(cluster, clusters.InlineCluster)
        enclosing = EnclosingTask(str(self.folder), position, str(launched.entry.path), task.identity.key)

        def compute(attempt: Attempt) -> tp.Any:
            copy = self._copy if self._settings.chdir else None
            inside = contextlib.nullcontext() if copy is None else active.inside(copy)
            with computing(enclosing, enclosing_tasks()), inside:
                return cluster.call(lambda: self._raw_program(task.argument, attempt))

        attempt_task(
            launched.entry,
            task.identity.to_json(),
            self.token,
            compute,
            copy=self._copy,
            code=self._code(),
            uses=self._use_recorder(),
            recorder=Recorder(self.folder, self._launched.record, self._recorded_overrides(task)),
        )

    def _use_recorder(self) -> UseRecorder | None:
        """Records what a task of this process uses of the code; what earlier ones have started does not matter."""
        observe(is_of_job=False)
        cache, copy = self._settings.folder.path, self._copy or active.current()
        return None if copy is None else UseRecorder(cache, copy.sources, copy.folder, unknown=count_unknown())

    def _code(self) -> str | None:
        """The code that tasks run: of a file that was edited since the launch began, the copy has its last state."""
        if self._copy is None:
            return self._settings.code
        return join_digests(self._copy.digest, self._settings.cell_digest)

    def _make_part(self, task: LaunchedTask) -> payload.Part:
        identity, recorded = task.task.identity.to_json(), self._recorded_overrides(task.task)
        attempts = {"resources": task.asked, "attempts": task.attempts}
        return payload.Part(str(task.entry.path), identity, self._arguments[task], recorded, attempts)

    def _recorded_overrides(self, task: Task) -> tuple[str, ...]:
        return tuple(task.overrides) if self._settings.records_overrides else ()

    def _record_job_ids(self) -> None:
        """Writes down the ids of jobs that were submitted since: a later launch knows them by that."""
        job_ids = {} if self._cluster_submission is None else self._cluster_submission.job_ids
        if job_ids != self._job_ids:
            self._job_ids = job_ids
            if self._settings.cluster.detaches:
                self._write_record()

    def _write_record(self) -> None:
        record = {
            **self._launched.record,
            **self._settings.record,
            "token": self.token,
            "cluster": self._settings.cluster.name,
            "reused": self._num_reused,
            "code": self._code(),
            "logs": str(self._logs),
            "entries": [str(task.entry.path.relative_to(self._settings.folder.path)) for task in self.claimed],
            "tasks": [job.positions for job in self._jobs],
            "jobs": {str(number): job for number, job in self._job_ids.items()},
        }
        if self._cluster_submission is not None and self._cluster_submission.slurm_clusters:
            names = self._cluster_submission.slurm_clusters
            record["slurm_clusters"] = {str(number): name for number, name in names.items()}
        launches.write_record(self.folder, record)


def _group_by_resources(wanted: tp.Sequence[LaunchedTask]) -> list[list[LaunchedTask]]:
    """The tasks of equal resources each, in the order of their first ones."""
    groups: dict[str, list[LaunchedTask]] = {}
    for task in wanted:
        groups.setdefault(json.dumps(task.resources, sort_keys=True, default=repr), []).append(task)
    return list(groups.values())


def _claim_state(task: LaunchedTask) -> ClaimState | None:
    claim = task.entry.current_claim()
    return None if claim is None else claim.state
