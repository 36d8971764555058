"""A job, read from its records on disk and from its cluster, whoever submitted it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import typing as tp
from pathlib import Path

from hydra_exca import clusters, files, paths, records
from hydra_exca.confdict import ConfDict
from hydra_exca.errors import CacheError, CorruptEntryError, ExcaError, JobLostError
from hydra_exca.polling import Pause
from hydra_exca.status import Status
from hydra_exca.store import Claim, ClaimState, Entry, Outcome, descriptions, launches
from hydra_exca.store.claims import read_claim

from .results import stored_error

_LAG_S = 2.0  # on a network file system a file may take longer to be seen than the state of its job


@dataclasses.dataclass(frozen=True)
class JobPaths:
    """The paths of a job's files, which may not exist yet; Slurm writes into ``folder`` at first."""

    stdout: Path
    stderr: Path
    folder: Path
    submitit_stdout: Path
    submitit_stderr: Path


@dataclasses.dataclass(frozen=True)
class SlurmJob:
    """A job on Slurm or, as its ``cluster`` says, of this machine, and the entry at ``path`` that it fills.

    It is job ``number`` of the launch in folder ``launch``; what it prints at first is in ``logs``.

    Nothing here changes anything. Only `result` loads what the job stored, and only if nobody else can have
    written it.
    """

    job_id: str
    path: Path
    launch: Path = dataclasses.field(repr=False)
    number: int = dataclasses.field(repr=False)
    logs: Path = dataclasses.field(repr=False)
    cluster: str = "slurm"

    @property
    def config(self) -> ConfDict:
        """The whole configuration of the task."""
        return read_description(self._description())

    @property
    def uid_config(self) -> ConfDict:
        """The part of the configuration in the uid: what counts and differs from the defaults."""
        return read_counting(self._description())

    @property
    def paths(self) -> JobPaths:
        """The logs of the last attempt; until the job has begun to compute, those that Slurm writes."""
        stdout, stderr = (self.logs / f"{self.job_id}_0_log.{end}" for end in ("out", "err"))
        own = (stdout, stderr if stderr.exists() else stdout)
        if self.cluster == "local":
            own = (paths.job_log(self.launch, self.number),) * 2
        claim = self._running_claim()
        logs = (claim and Entry(self.path).log_paths(claim)) or own
        return JobPaths(logs[0], logs[1], self.logs, own[0], own[1])

    def stdout(self) -> str | None:
        """Its standard output so far, None before it has a log."""
        return self._log_text(self.paths.stdout)

    def stderr(self) -> str | None:
        """Its standard error so far, None before it has a log."""
        return self._log_text(self.paths.stderr)

    def state(self) -> str:
        """The state by Slurm's name: PENDING, RUNNING, COMPLETED, FAILED, TIMEOUT, ...

        Of a local job, and of one that Slurm does not know any more: COMPLETED or FAILED if it has stored an outcome,
        else UNKNOWN once it has ended.
        """
        report = self._report()
        has_ended = report.state is clusters.JobState.ENDED
        if report.job is not None and not (has_ended and report.end is clusters.JobEnd.VANISHED):
            return report.reason.partition(":")[0] if has_ended else report.state.name
        outcome = self._outcome()
        if outcome is not None:
            return outcome.status.name
        return "UNKNOWN" if has_ended else report.state.name

    def done(self) -> bool:
        """Whether it has stored a value or an error, or has ended without."""
        return self._outcome() is not None or self._report().state is clusters.JobState.ENDED

    def result(self) -> tp.Any:
        """The value, waited for. Raises TaskFailedError, or JobLostError if the job ended without a word."""
        outcome = self._wait()
        if outcome is None or outcome.status is not Status.COMPLETED:
            raise self._error(outcome)
        return Entry(self.path).load_value(outcome)

    def exception(self) -> ExcaError | None:
        """The error, waited for; None if there is a value."""
        outcome = self._wait()
        return None if outcome is not None and outcome.status is Status.COMPLETED else self._error(outcome)

    def _wait(self) -> Outcome | None:
        pause = Pause(first_s=0.25, longest_s=10.0)
        while not self.done():
            pause.sleep()
        if self._outcome() is None:
            time.sleep(_LAG_S)
        return self._outcome()

    def _outcome(self) -> Outcome | None:
        """The outcome that this job, or a requeued start of it, has stored; not that of a later launch."""
        entry = Entry(self.path)
        outcome = entry.outcome()
        if outcome is None and entry.has_previous():
            outcome = entry.previous_outcome()
        return outcome if outcome is not None and outcome.token == self.launch.name else None

    def _error(self, outcome: Outcome | None) -> ExcaError:
        if outcome is not None:
            return stored_error(Entry(self.path), outcome, outcome.identity["factory"])
        claim = Entry(self.path).current_claim()
        later = claim is not None and claim.token != self.launch.name
        hint = "; a later launch has computed the task again" if later else ""
        state, log_path = self.state(), str(self.paths.stderr)
        reason = self._report().explanation or state
        return JobLostError(
            f"{self.path.name}: its job ({self.cluster} {self.job_id}) ended without a result: {reason}{hint}\n"
            f"  log: {log_path}",
            state=state,
            uid=self.path.name,
            job_id=self.job_id,
            log=log_path,
        )

    def _log_text(self, path: Path) -> str | None:
        try:
            return files.read_end(path)
        except (OSError, CorruptEntryError):
            return None if self._outcome() is None else ""  # an empty log does not stay

    def _report(self) -> clusters.JobReport:
        where = launches.read_record(self.launch).get("slurm_clusters", {}).get(str(self.number))
        claim = self._running_claim()
        reference = clusters.JobReference(
            self.launch.name,
            self.number,
            self.job_id,
            {} if claim is None else claim.owner,
            started=True,
            submitted=time.time(),
            slurm_cluster=where,
            logs=self.logs,
        )
        return clusters.get_cluster(self.cluster, clusters.Options()).query_jobs([reference])[0]

    def _running_claim(self) -> Claim | None:
        """The last claim under which this job has computed."""
        names = os.listdir(self.path) if self.path.is_dir() else ()
        for number in sorted(filter(None, map(paths.claim_number, names)), reverse=True):
            with contextlib.suppress(OSError, CorruptEntryError):
                claim = read_claim(self.path / paths.claim_name(number), number)
                if claim.token == self.launch.name and claim.state is ClaimState.RUNNING:
                    return claim
        last = Entry(self.path).current_claim()
        return last if last is not None and last.token == self.launch.name and last.attempt else None

    def _description(self) -> Path:
        """That of the entry, or (of a map's job) of what it is part of."""
        for folder in (self.path, *self.path.parents):
            path = folder / paths.CONFIG_YAML
            if folder == self.launch.parent.parent:
                break
            if path.is_file():
                return path
        raise CacheError(
            f"{self.path} has no {paths.CONFIG_YAML} (any more): the entry of job {self.job_id} was removed"
        )


def read_description(path: Path) -> ConfDict:
    """The configuration that an entry has for people. Raises CorruptEntryError if it is damaged."""
    return _parse_yaml(path, files.read_text(path))


def read_counting(path: Path) -> ConfDict:
    """The part of a configuration that is in the uid. Raises CorruptEntryError if it is damaged."""
    text = descriptions.counting_text(files.read_text(path))
    if text is not None:
        return _parse_yaml(path, text)
    older = path.with_name(paths.UID_YAML)
    return _parse_yaml(older, files.read_text(older))


def _parse_yaml(path: Path, text: str) -> ConfDict:
    import yaml  # an import of hydra_exca does without its 10 ms

    try:
        return ConfDict.from_yaml(f"{text}\n") if text.strip() else ConfDict()
    except (yaml.YAMLError, *records.DAMAGES) as error:
        raise CorruptEntryError(f"{path} is damaged: {error}") from error
