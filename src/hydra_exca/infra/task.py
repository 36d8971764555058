"""TaskInfra: a method of a pydantic model with a cache and a cluster."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import functools
import typing as tp

import pydantic

from hydra_exca import clusters
from hydra_exca.errors import CacheError, ConfigError, Problem, TaskFailedError
from hydra_exca.identity.redaction import Redaction
from hydra_exca.identity.uid import Identity
from hydra_exca.job.attempt import Attempt
from hydra_exca.launch.actions import Action
from hydra_exca.launch.current_code import CurrentCode
from hydra_exca.launch.launch import Launch
from hydra_exca.launch.lookup import Lookup
from hydra_exca.launch.settings import Settings, Task
from hydra_exca.status import Mode, Status
from hydra_exca.store import CacheFolder, Entry

from . import binding, fast_lookup, launch_settings
from .base import BaseInfra, private
from .binding import AppliedMethod, Exclusions
from .task_jobs import ComputedTask, MethodProgram, TaskJob, submit_launch

DECORATED = "__exca_decorated__"
Method = tp.TypeVar("Method", bound=tp.Callable[..., tp.Any])


class Decorated(tp.NamedTuple):
    """The attribute ``DECORATED`` of a method, for callers that run it other than by calling it.

    ``method`` is the one below the cache, ``infra_of`` gives an object's infra with the cache, if it has one.
    """

    method: tp.Callable[[tp.Any], tp.Any]
    infra_of: tp.Callable[[tp.Any], TaskInfra | None]


class TaskInfra(BaseInfra):
    """Gives a method that takes only ``self`` a cache and a cluster.

        class Train(pydantic.BaseModel):
            seed: int = 12
            infra: TaskInfra = TaskInfra(version="1")

            @infra.apply
            def fit(self) -> float: ...

        Train(seed=3, infra={"folder": "results", "cluster": "slurm"}).fit()

    ``keep_in_ram`` keeps the result in the object too. Modes are those of the launcher. The jobs of an array compute
    ``tasks_per_job`` tasks each, ``workers_per_job`` of them at a time.
    """

    mode: tp.Literal["cached", "retry", "force", "read-only"] = "cached"
    # keep the result in the object, too
    keep_in_ram: bool = False
    tasks_per_job: tp.Annotated[int, pydantic.Field(ge=1)] = 1
    workers_per_job: tp.Annotated[int, pydantic.Field(ge=1)] = 1

    _exca_pickled: tp.ClassVar[tuple[str, ...]] = ("_computed",)
    _computed: set[str] = pydantic.PrivateAttr(default_factory=set)
    _kept: dict[str, tp.Any] = pydantic.PrivateAttr(default_factory=dict)
    _job: tp.Any = pydantic.PrivateAttr(None)

    @tp.overload
    def apply(self, method: Method) -> Method: ...

    @tp.overload
    def apply(self, *, exclude_from_cache_uid: Exclusions = ()) -> tp.Callable[[Method], Method]: ...

    def apply(self, method: tp.Any = None, *, exclude_from_cache_uid: Exclusions = ()) -> tp.Any:
        """Decorates a method; what ``exclude_from_cache_uid`` names does not count for its cache.

        It is a list of names, a function of the object, or ``"method:<name>"``, which alone follows an override.
        """
        if method is None:
            return functools.partial(self.apply, exclude_from_cache_uid=exclude_from_cache_uid)
        if self._applied is not None:
            raise RuntimeError(f"this infra is applied to {self._applied.name} already")
        binding.check_signature(method, 1, "self alone")
        self._applied = applied = AppliedMethod(method, exclude_from_cache_uid)

        def infra_of(obj: tp.Any) -> TaskInfra | None:
            infra = getattr(obj, private(self)["_name"], None)
            if not isinstance(infra, TaskInfra):
                return None
            state = private(infra)
            if state["_owner"] is None:
                binding.attach_infra(obj)  # an object that was made without validation
            return infra if state["_applied"] is applied else None  # a subclass may have given it to another method

        @functools.wraps(method)
        def cached(obj: tp.Any) -> tp.Any:
            infra = infra_of(obj)
            return method(obj) if infra is None else infra._call_for_user()

        setattr(cached, DECORATED, Decorated(method, infra_of))
        return cached

    def _refuse_conflicts(self) -> None:
        super()._refuse_conflicts()
        if self.workers_per_job > self.tasks_per_job:
            raise ValueError(f"workers_per_job={self.workers_per_job} needs a tasks_per_job of as many at least")
        if self.tasks_per_job > 1 and ((self.nodes or 1) > 1 or (self.tasks_per_node or 1) > 1):
            raise ValueError("tasks_per_job is for jobs of one process: with nodes and tasks_per_node 1")

    # what a user asks

    def status(self) -> tp.Literal["not submitted", "running", "completed", "failed"]:
        """The status of this task; submits nothing."""
        cache = self._cache()
        if cache is None:
            return "not submitted"
        identity = self.identity()
        if fast_lookup.find_hit(cache, identity, type(self._bound()[0]), Mode.CACHED) is not None:
            return "completed"
        status: tp.Any = Lookup(cache).look_up([identity], lambda result: Mode.CACHED)[0].status.value
        return tp.cast('tp.Literal["not submitted", "running", "completed", "failed"]', status)

    def why_not_reused(self) -> str | None:
        """Why the next call computes this task: what differs from the nearest stored result.

        For example ``nearest stored: n=600-1a2b3c4d, n: 600 -> 500``. None if the call computes nothing, or if no
        result of the method is stored. Submits nothing.
        """
        cache = self._cache()
        if cache is None:
            return None
        result = Lookup(cache).look_up([self.identity()], lambda result: Mode(self.mode))[0]
        from hydra_exca.catalog.reuse import ReuseExplainer  # few programs ask

        return ReuseExplainer(cache.path).explain(result) if result.action is Action.RUN else None

    def job(self) -> TaskJob:
        """The job that computes this task: submitted if need be, never twice, and not waited for."""
        key = self._key()
        if self._job is None or self._job[0] != key:
            self._job = (key, start_jobs([self], self._cluster())[0])
        return tp.cast(TaskJob, self._job[1])

    def clear_job(self) -> None:
        """Removes the result and cancels the job, if there is one: the next call computes it again."""
        self._job = None
        self._kept.clear()
        cache = self._cache()
        if cache is not None:
            identity = self.identity()
            cache.factory_folder(identity.factory, identity.version).check_project(self._project(cache))
            self._launch(Mode.FORCE, program=_run_nothing).clear()

    @contextlib.contextmanager
    def job_array(
        self, max_workers: int = 256, allow_empty: bool = False, allow_repeated_tasks: bool = False
    ) -> tp.Iterator[list[tp.Any]]:
        """A list to append tasks to; leaving the context submits what is missing as one array, and does not wait.

        Raises ConfigError for an empty list, and for tasks with the same uid (both configurations are shown),
        unless these are allowed.
        """
        _, applied = self._bound()
        tasks: list[tp.Any] = []
        yield tasks
        if not tasks and not allow_empty:
            raise ConfigError("job_array got no task; allow_empty=True allows that")
        infras = [self._infra_of(task, applied) for task in tasks]
        keys = [infra._key() for infra in infras]
        if not allow_repeated_tasks:
            _refuse_repeated(infras, keys)
        if infras:
            jobs = start_jobs(infras, self._cluster(max_workers), self)
            for infra, key, job in zip(infras, keys, jobs, strict=True):
                infra._job = (key, job)

    # how it is done

    def _stored_identity(self, entry: Entry) -> dict[str, tp.Any] | None:
        outcome = entry.readable_outcome()
        return outcome.identity if outcome is not None and outcome.status is Status.COMPLETED else None

    def _infra_of(self, obj: tp.Any, applied: AppliedMethod) -> TaskInfra:
        infra = getattr(obj, self._name, None)
        if not isinstance(infra, TaskInfra) or infra._applied is not applied:
            raise TypeError(f"job_array of {applied.name} got {obj!r}, which has no such method")
        return infra

    def _call_for_user(self) -> tp.Any:
        try:
            return self._call()
        except TaskFailedError as error:
            # its message has the frames of the method; without a folder, its cause is what the method has raised
            raise error.with_traceback(None) from error.__cause__

    def _call(self) -> tp.Any:
        """The method's result: kept, stored, or computed."""
        if not self.keep_in_ram:
            return self._result()
        key = self._key() + self._cell_digest()
        if key in self._kept and (self.mode != "force" or key in self._computed):
            return self._kept[key]
        value = self._kept[key] = self._result()
        self._computed.add(key)
        return value

    def _result(self) -> tp.Any:
        """The method's result: stored, or computed."""
        if self.folder is None:
            return self._compute(*self._bound())
        identity, last = self.identity(), private(self)["_job"]
        job = last[1] if last is not None and last[0] == self._key(identity) else None
        # the result of a job that has ended may have been deleted since, or recomputed
        return self._run(identity) if job is None or job.done() else job.result()

    def _compute(self, owner: pydantic.BaseModel, applied: AppliedMethod) -> tp.Any:
        """The method's own result; its error is raised as on any cluster."""
        if self.mode == "read-only":
            raise CacheError(f"{self.factory()}: mode=read-only, and without a folder there is no stored result")
        self._refuse_without_folder()
        try:
            return applied.method(owner)
        except Exception as error:
            raise self._task_error(error) from error

    def _run(self, identity: Identity) -> tp.Any:
        mode = Mode(self.mode)
        if mode in (Mode.FORCE, Mode.RETRY) and identity.key in self._computed:
            mode = Mode.CACHED  # they apply once
        hit = fast_lookup.find_hit(
            fast_lookup.cache_folder(tp.cast(str, self.folder)), identity, type(self._bound()[0]), mode, *self._code()
        )
        return start_jobs([self], self._cluster())[0].result() if hit is None else hit.value

    def _code(self) -> tuple[CurrentCode | None, bool]:
        """The current code, None if it does not count, and whether unknown code counts, too."""
        cache = self._cache()
        if self.on_code_change == "ignore" or cache is None:
            return None, False
        files = launch_settings.recent_code(self.workdir, cache.path)
        return CurrentCode(cache.path, files, self._cells()), self.on_code_change != "warn"

    def _cell_digest(self) -> str:
        """The digest of the cells that count, "" if there are none."""
        typed = None if self.on_code_change == "ignore" else self._cells()
        return "" if typed is None else typed.digest

    def task(self) -> Task:
        """This infra's task, for a launch."""
        owner, _ = self._bound()
        return Task(self.identity(), owner, LazyRepr(owner, self._redaction()), self._describe, self._resources())

    def _settings(self, cache: CacheFolder, cluster: clusters.Cluster, mode: Mode) -> Settings:
        settings = super()._settings(cache, cluster, mode)
        return dataclasses.replace(settings, tasks_per_job=self.tasks_per_job, workers_per_job=self.workers_per_job)

    def _launch(self, mode: Mode, program: tp.Any) -> Launch:
        cache = self._cache()
        assert cache is not None
        return Launch([self.task()], program, self._settings(cache, self._cluster(), mode), self._computed)


def _run_nothing(argument: tp.Any, attempt: Attempt) -> tp.Any:
    raise AssertionError("clearing runs nothing")


class LazyRepr(collections.abc.Sequence[str]):
    """A sequence of one text, the repr of an object without secrets; it is made only when a message needs it."""

    def __init__(self, obj: object, redaction: Redaction) -> None:
        self._obj = obj
        self._redaction = redaction

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: tp.Any) -> tp.Any:
        return self._redaction.redact_arguments([repr(self._obj)])[index]


def _refuse_repeated(infras: tp.Sequence[TaskInfra], keys: tp.Sequence[str]) -> None:
    seen: dict[str, TaskInfra] = {}
    for infra, key in zip(infras, keys, strict=True):
        first = seen.get(key)
        seen[key] = infra
        if first is not None:
            shown = [Problem(repeated._describe()[1]) for repeated in (first, infra)]
            raise ConfigError(
                f"two tasks of the array are the same, {infra.uid()}; allow_repeated_tasks=True allows that", shown
            )


def start_jobs(infras: tp.Sequence[TaskInfra], cluster: clusters.Cluster, by: TaskInfra | None = None) -> list[TaskJob]:
    """Submits what is missing of these tasks, one array for each folder, mode and project; one job a task, in order.

    The settings of ``by`` decide how jobs run, by default those of the first task of each array.
    """
    jobs: dict[int, TaskJob] = {}
    groups: dict[tuple[tp.Any, ...], tuple[CacheFolder, dict[str, tp.Any], list[TaskInfra]]] = {}
    for infra in infras:
        cache = infra._cache()
        if cache is None:
            jobs[id(infra)] = _compute_here(infra)
        else:
            project = infra._project(cache)
            key = (str(cache.path), infra.mode, *project.items())
            groups.setdefault(key, (cache, project, []))[2].append(infra)
    for cache, project, members in groups.values():
        settings = (by or members[0])._settings(cache, cluster, Mode(members[0].mode))
        submitted = _submit_group(members, dataclasses.replace(settings, project=project))
        jobs.update(zip(map(id, members), submitted, strict=True))
    return [jobs[id(infra)] for infra in infras]


def _compute_here(infra: TaskInfra) -> TaskJob:
    try:
        return ComputedTask(infra._call())
    except TaskFailedError as error:
        return ComputedTask(error=error)


def _submit_group(members: tp.Sequence[TaskInfra], settings: Settings) -> list[TaskJob]:
    computed = set().union(*(infra._computed for infra in members))
    launch = Launch([infra.task() for infra in members], MethodProgram(members[0]._name), settings, computed)
    jobs = submit_launch(launch, members[0]._bound()[1].name)
    for infra in members:
        infra._computed.update(computed)
    return jobs
