"""The tasks and the settings of a launch."""

from __future__ import annotations

import dataclasses
import typing as tp

from hydra_exca import clusters
from hydra_exca.code.snapshot import Snapshot
from hydra_exca.identity.uid import Identity
from hydra_exca.job import payload
from hydra_exca.status import Mode, OnCodeChange, OnFailure, OnInterrupt
from hydra_exca.store import CacheFolder

from .retry_policy import RetryPolicy

if tp.TYPE_CHECKING:
    from hydra_exca.provenance.launch_record import LaunchDescription

    from .cell_code import CellCode


@dataclasses.dataclass(frozen=True)
class Task:
    """One task of a launch: its identity, the argument of the program, and its name in messages.

    ``overrides`` are for messages; ``describe()`` gives the YAML of what is in the uid and of the whole. ``resources``
    are those in which its job differs from the cluster's options, under submitit's names; ``reads`` has those that its
    identity depends on, each with a key of its config that reads it.
    """

    identity: Identity
    argument: tp.Any
    overrides: tp.Sequence[str] = ()
    describe: tp.Callable[[], tuple[str, str]] = lambda: ("", "")
    resources: tp.Mapping[str, tp.Any] = dataclasses.field(default_factory=dict)
    reads: tp.Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a launch. ``record`` is stored with the launch, ``project`` with the results.

    ``check`` raises before anything is claimed if no job can work. ``prepare`` may change what is sent to the jobs,
    such as their search path. ``here`` gives the copy of the code for tasks in this process; with ``chdir`` it is
    their working directory. ``max_gb`` limits what is sent to one job. A job computes ``tasks_per_job`` tasks of
    the same resources, ``workers_per_job`` of them at a time. With ``fail_jobs``, it fails if one of its tasks
    does. If ``on_interrupt`` is None, the cluster decides.

    ``provenance`` is called once, when something is about to be submitted. The overrides of the tasks are recorded
    with it, unless ``records_overrides`` says that they are only for messages. With ``keeps_payload``, what jobs
    would be sent is also written for tasks in this process, if it can be pickled. ``code`` is the digest of the
    current code, and ``cells`` the part of it that is in no file. ``code_changes`` gives the files in which code of
    another digest differs from it, None if these are not known, and ``used_changes`` those that count for a task, by
    the digest of what it used. ``on_code_change`` says what to do with results of different code. ``option_prefix`` is
    what stands before the name of an option where the user sets it. With ``warns_once``, a warning of changed code that
    another launch of this process has given is not repeated. If the launch does not wait for its tasks (``waits``), the
    tasks around it do not either.
    """

    folder: CacheFolder
    cluster: clusters.Cluster
    mode: Mode = Mode.CACHED
    project: dict[str, tp.Any] = dataclasses.field(default_factory=dict)
    record: dict[str, tp.Any] = dataclasses.field(default_factory=dict)
    stderr_to_stdout: bool = True
    check: tp.Callable[[], None] = lambda: None
    prepare: tp.Callable[[payload.Payload], payload.Payload] = lambda unchanged: unchanged
    chdir: bool = True
    here: tp.Callable[[], Snapshot | None] = lambda: None
    max_gb: float | None = None
    tasks_per_job: int = 1
    workers_per_job: int = 1
    fail_jobs: bool = True
    retries: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)
    on_failure: OnFailure = OnFailure.CONTINUE
    on_interrupt: OnInterrupt | None = None
    provenance: tp.Callable[[], LaunchDescription] | None = None
    records_overrides: bool = True
    keeps_payload: bool = False
    code: str | None = None
    cells: CellCode | None = None
    on_code_change: OnCodeChange = OnCodeChange.WARN
    code_changes: tp.Callable[[str], list[str] | None] = lambda digest: None
    used_changes: tp.Callable[[str, str], list[str] | None] | None = None
    option_prefix: str = ""
    warns_once: bool = False
    waits: bool = True

    @property
    def cell_digest(self) -> str | None:
        """The digest of the cells that the tasks reach, if there are any."""
        return None if self.cells is None else self.cells.digest
