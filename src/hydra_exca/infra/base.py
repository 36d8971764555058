"""The base class of TaskInfra and MapInfra: settings, identity of the owner, clones."""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import operator
import os
import sys
import time
import types
import typing as tp
from pathlib import Path

import pydantic

from hydra_exca import clusters, paths, script
from hydra_exca.code import active
from hydra_exca.code.launch_code import LaunchCode
from hydra_exca.confdict import ConfDict
from hydra_exca.errors import ConfigError, ExcaError, Problem, TaskFailedError
from hydra_exca.identity import carried, cells, uid
from hydra_exca.identity.contents import model_contents
from hydra_exca.identity.redaction import SECRET_KEYS, Redaction
from hydra_exca.identity.uid import Identity
from hydra_exca.job.error_report import describe_error
from hydra_exca.job.payload import Payload
from hydra_exca.launch.cell_code import CellCode, reached_cells
from hydra_exca.launch.current_code import CurrentCode
from hydra_exca.launch.results import original_error
from hydra_exca.launch.retry_policy import RetryPolicy
from hydra_exca.launch.settings import Settings
from hydra_exca.launch.slurm_job import read_description
from hydra_exca.provenance import launch_record, project
from hydra_exca.status import Mode, OnCodeChange
from hydra_exca.store import CacheFolder, Entry
from hydra_exca.text import with_message

from . import binding, clones, fast_lookup, launch_settings
from .binding import AppliedMethod
from .launch_settings import WorkDir

log = logging.getLogger("exca.infra")
ClusterName = tp.Literal["debug", "local", "slurm", "auto"]
_COMMON = ("timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb")
_SLURM = "slurm_"
_CHANGE_S = 5.0  # so old may be what git says of code that this process has imported


class BaseInfra(binding.Bindable, pydantic.BaseModel):
    """Settings of a cache and of the cluster that computes its results. Of them only ``version`` is part of a uid.

    ``folder`` None: nothing is kept. ``cluster`` None: in this process. The others are submitit's, under the names
    that exca gives them.
    """

    model_config = pydantic.ConfigDict(extra="forbid")
    _exca_identity_fields: tp.ClassVar[tuple[str, ...]] = ("version",)
    _exca_pickled: tp.ClassVar[tuple[str, ...]] = ()
    _exca_pools: tp.ClassVar[tuple[str, ...]] = ()

    # where results are stored; None: nowhere, each object keeps its own
    folder: Path | str | None = None
    version: str = "0"
    # where the method runs: debug, local, slurm, auto; None: in this process
    cluster: ClusterName | None = None
    # the name of its jobs
    job_name: str | None = None
    timeout_min: int | None = None
    nodes: int | None = 1
    tasks_per_node: int | None = 1
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    share_machine: bool = True
    retries: tp.Annotated[int, pydantic.Field(ge=0)] = 0
    on_oom: dict[str, int | float | str] = {}
    on_timeout: dict[str, int | float | str] = {}
    max_mem_gb: float | None = None
    max_timeout_min: int | None = None
    fail_jobs: bool = True
    max_num_timeout: tp.Annotated[int, pydantic.Field(ge=0)] = 0
    slurm_constraint: str | None = None
    slurm_partition: str | None = None
    slurm_account: str | None = None
    slurm_qos: str | None = None
    slurm_use_srun: bool = False
    slurm_additional_parameters: dict[str, int | str | float | bool] | None = None
    slurm_setup: list[str] | None = None
    # an environment whose python runs the jobs
    conda_env: Path | str | None = None
    # the code that jobs import from a copy; None: from where it is
    workdir: WorkDir | None = None
    # where the logs of jobs are
    logs: Path | str = launch_settings.LOGS
    # the largest pickle of an object and its method that a job receives; None: 1
    max_pickle_size_gb: float | None = None
    on_code_change: tp.Literal["warn", "ignore", "error", "rerun"] = "warn"
    secret_keys: tuple[str, ...] = SECRET_KEYS

    _owner: tp.Any = pydantic.PrivateAttr(None)
    _name: str = pydantic.PrivateAttr("")
    _applied: AppliedMethod | None = pydantic.PrivateAttr(None)
    _remembered: tp.Any = pydantic.PrivateAttr(None)
    _remembered_name: tp.Any = pydantic.PrivateAttr(None)

    def __set_name__(self, owner: type, name: str) -> None:
        if self._name:
            raise RuntimeError(
                f"{name!r} of {owner.__qualname__} is another class's infra {self._name!r}: make a new one"
            )
        self._name = name
        binding.install_infras(owner, name, self)

    @pydantic.model_validator(mode="after")
    def _check_settings(self) -> tp.Self:  # type: ignore[name-defined,unused-ignore]
        if not paths.is_version(self.version):
            raise ValueError(f"version={self.version!r} names a folder: letters, digits and ._+- only")
        if self.cluster not in (None, *self._exca_pools) and self.folder is None:
            raise ValueError(f"cluster={self.cluster!r} needs a folder, where its jobs leave their results")
        self._refuse_conflicts()
        return self

    def _refuse_conflicts(self) -> None:
        """Raises ValueError for settings that do not go together."""
        if self.conda_env is not None and self.cluster not in ("local", "slurm", "auto"):
            raise ValueError(
                f"conda_env={str(self.conda_env)!r} is for jobs, and with cluster={self.cluster!r} the method runs "
                "under the python that runs here: use cluster local, slurm or auto, or conda_env=None"
            )
        if self.cluster in ("slurm", "auto") and (self.tasks_per_node or 1) > 1 and not self.slurm_use_srun:
            raise ValueError(
                f"tasks_per_node={self.tasks_per_node} needs slurm_use_srun=True: srun is what starts several"
            )
        for option, message in self._retry_policy().problems(self._resource_names()):
            raise ValueError(f"{option}={getattr(self, option)!r}: {message}")
        unknown = launch_settings.unknown_placeholder(self.logs)
        if unknown is not None:
            raise ValueError(
                f"logs={str(self.logs)!r} has the unknown placeholder {unknown!r}: use {{folder}}, {{user}} and %j"
            )

    # belonging to an object

    def settings(self) -> dict[str, tp.Any]:
        """The settings that were given, as keyword arguments for another infra."""
        return {name: copy.copy(getattr(self, name)) for name in self.model_fields_set}

    def bind_to(self, owner: pydantic.BaseModel, name: str, default: BaseInfra) -> None:
        """Makes this the infra of ``owner``; it inherits the settings that only the infra in the class has.

        Raises RuntimeError for an infra of another object, and for one that decorates no method.
        """
        state, applied = private(self), private(default)["_applied"]
        if applied is None:
            raise RuntimeError(f"infra {name!r} of {type(owner).__qualname__} was not applied to a method")
        if state["_owner"] is not None and state["_owner"] is not owner:
            raise RuntimeError(f"infra {name!r} belongs to another object, {self._owner!r}")
        state.update(_owner=owner, _name=name, _applied=applied)
        missing = default.model_fields_set - self.model_fields_set
        for inherited in missing:
            setattr(self, inherited, copy.copy(getattr(default, inherited)))
        if missing:
            self._refuse_conflicts()

    def _bound(self) -> tuple[pydantic.BaseModel, AppliedMethod]:
        state = private(self)
        owner, applied = state["_owner"], state["_applied"]
        if owner is None or applied is None:
            raise RuntimeError(f"{self!r} is not tied to an object and a method")
        return owner, applied

    def __repr_args__(self) -> tp.Iterator[tuple[str | None, tp.Any]]:
        for name in sorted(self.model_fields_set):
            yield name, getattr(self, name)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.__dict__ == other.__dict__

    def __getstate__(self) -> dict[tp.Any, tp.Any]:
        """The settings, and what else another process can use; an owner binds its infras again."""
        state = super().__getstate__()
        private = type(self)().__pydantic_private__ or {}
        in_class = ("_name", "_applied") if self._owner is None else ()  # of a class that is pickled by value
        kept = {name: getattr(self, name) for name in (*self._exca_pickled, *in_class)}
        return {**state, "__pydantic_private__": {**private, **kept}}

    def __setstate__(self, state: dict[tp.Any, tp.Any]) -> None:
        """What an earlier version has pickled has the defaults of the settings that are new."""
        cls = type(self)
        settings = {name: field.get_default(call_default_factory=True) for name, field in cls.model_fields.items()}
        private = {name: attribute.get_default() for name, attribute in cls.__private_attributes__.items()}
        settings |= state["__dict__"]
        private |= state["__pydantic_private__"] or {}
        super().__setstate__({**state, "__dict__": settings, "__pydantic_private__": private})

    def __copy__(self) -> tp.Self:  # type: ignore[name-defined,unused-ignore]
        return self.__deepcopy__()

    def __deepcopy__(self, memo: dict[int, tp.Any] | None = None) -> tp.Self:  # type: ignore[name-defined,unused-ignore]
        """Set like this one, and nobody's: without owner, jobs and values."""
        return type(self).model_construct(**copy.deepcopy(self.settings(), memo))

    # identity

    def factory(self) -> str:
        """The dotted name of what computes: class of the object and method.

        A parent's method that the class has replaced (and reaches by ``super()``) goes by both classes' names: it may
        call what the class overrides, so its results are not those of the parent's objects. A class that was made for
        a function (``_exca_function``) goes by the function's name.
        """
        owner, applied = self._bound()
        method, cls = applied.method, type(owner)
        function = vars(cls).get("_exca_function")
        if function is not None:
            return f"{script.module_name(function)}.{function.__qualname__}".replace("<locals>.", "")
        own = getattr(getattr(cls, method.__name__, None), "__wrapped__", None) is method
        name = method.__name__ if own else method.__qualname__
        return f"{script.module_name(cls)}.{cls.__qualname__}.{name}".replace("<locals>.", "")

    def identity(self) -> Identity:
        """The identity of this object's result. Computing it changes nothing in the object."""
        owner, applied = self._bound()
        cls, state = type(owner), private(self)
        version, left_out, keys = self.version, applied.exclusions(owner), tuple(self.secret_keys)
        # the first three are what `factory` depends on
        inputs = cls, getattr(cls, applied.method.__name__, None), script.module_of(cls), version, left_out, keys
        contents = model_contents(owner, left_out)
        last: _RememberedIdentity | None = state["_remembered"]
        if last is not None and last.inputs == inputs and _are_same_objects(last.contents, contents):
            if not last.identity.lasts:
                state["_remembered"] = last = last._replace(identity=dataclasses.replace(last.identity, lasts=True))
            return last.identity
        try:
            factory, anchors, capturing = self.factory(), cells.anchors(), _capturing_functions(cls)
            captured = carried.captured_values(capturing)
            if anchors is not None:
                captured |= anchors.captured(factory, [owner])
            identity = uid.model_identity(factory, version, owner, left_out, captured, Redaction(keys))
        except ConfigError as error:
            raise ConfigError(f"{type(owner).__qualname__} has no uid", [Problem(str(error))]) from error
        # another thread may have changed the object while its identity was computed
        is_unchanged = _are_same_objects(contents, model_contents(owner, left_out))
        lasts = is_unchanged and not capturing  # captured variables may change
        state["_remembered"] = _RememberedIdentity(inputs, contents, identity) if lasts else None
        return identity

    def left_out(self) -> tuple[str, ...]:
        """The names that this cache leaves out of the uid, beside those that the classes leave out."""
        owner, applied = self._bound()
        return applied.exclusions(owner)

    def uid(self) -> str:
        """Factory, version and uid, as they name the folder below ``folder``: ``pkg.Train.fit,1/seed=3-4f4ca7cb``."""
        identity, state = self.identity(), private(self)
        last: _RememberedName | None = state["_remembered_name"]
        if last is None or last.identity is not identity or not last.is_valid(self.folder):
            state["_remembered_name"] = last = self._find_name(identity)
        return last.uid

    def uid_folder(self, create: bool = False) -> Path | None:
        """The folder of this object's results, None without a ``folder``."""
        cache = self._cache()
        if cache is None:
            return None
        if not create:
            return cache.path / self.uid()
        identity = self.identity()
        cache.create()
        factory_folder = cache.factory_folder(identity.factory, identity.version)
        factory_folder.create(self._project(cache))
        return factory_folder.open_entry(identity).path

    def _find_name(self, identity: Identity) -> _RememberedName:
        uid, cache = f"{identity.factory},{identity.version}/{identity.uid()}", self._cache()
        if cache is None:
            return _RememberedName(identity, uid, None)
        witness = f"{cache.path}/{uid}/{paths.OUTCOME}"
        before = fast_lookup.file_state(witness) if str(self.folder)[:1] == os.sep else None
        if fast_lookup.stored_outcome(cache, identity) is not None:
            return _RememberedName(identity, uid, self.folder, witness, before)
        entry = cache.factory_folder(identity.factory, identity.version).find_entry(identity)
        return _RememberedName(identity, uid if entry is None else f"{uid.rpartition('/')[0]}/{entry.uid}", self.folder)

    def _cache(self) -> CacheFolder | None:
        return None if self.folder is None else fast_lookup.cache_folder(self.folder)

    def _project(self, cache: CacheFolder) -> dict[str, tp.Any]:
        """The project whose code computes, as recorded with the results."""
        return project.describe_project(type(self._bound()[0]), cache.path, copy=active.current())

    def _key(self, identity: Identity | None = None) -> str:
        """The key of a result: its folder and its identity."""
        identity = self.identity() if identity is None else identity
        return f"{self.folder}/{identity.key}"

    def config(self, uid: bool = True, exclude_defaults: bool = False) -> ConfDict:
        """The owner's configuration.

        ``uid``: only the fields that count for this cache; ``exclude_defaults``: only those that differ from their
        defaults.
        """
        owner, applied = self._bound()
        config = ConfDict.from_model(owner, uid=uid, exclude_defaults=exclude_defaults)
        for name in applied.exclusions(owner) if uid else ():
            config.pop(name, None)
            parent = name.rpartition(".")[0]
            while parent and config.get(parent) == {}:  # all that was in it is left out
                config.pop(parent)
                parent = parent.rpartition(".")[0]
        return config

    def _redaction(self) -> Redaction:
        return Redaction(tuple(self.secret_keys))

    def _describe(self) -> tuple[str, str]:
        counting, whole = self.config(uid=True, exclude_defaults=True), self.config(uid=False)
        redaction = self._redaction().including(whole)
        return ConfDict.to_yaml(redaction.redact_tree(counting)), ConfDict.to_yaml(redaction.redact_tree(whole))

    def clone_obj(self, *args: dict[str, tp.Any], **kwargs: tp.Any) -> tp.Any:
        """A copy of the owner with some fields changed.

        The changes are one dictionary, nested or with dotted names, or keywords; ``=replace=`` in a dictionary
        replaces instead of merging. What is not changed keeps its class and value. Raises TypeError for both at once.
        """
        owner, _ = self._bound()
        if len(args) > 1 or (args and kwargs):
            raise TypeError("clone_obj takes one dictionary, or keywords")
        return clones.clone(owner, args[0] if args else kwargs)

    def iter_cached(self) -> tp.Iterator[tp.Any]:
        """The objects of the owner's class whose results are stored in this folder, under this version.

        Their infra has the settings of this one. An entry whose configuration makes a different object with the
        current code is left out; the logger ``exca.infra`` warns of it.
        """
        owner, _ = self._bound()
        cache, identity = self._cache(), self.identity()
        entries = () if cache is None else cache.factory_folder(identity.factory, identity.version).entries()
        for entry in entries:
            stored = self._stored_identity(entry)
            if stored is None:
                continue
            try:
                config = dict(read_description(entry.path / paths.CONFIG_YAML))
                config.pop(self._name, None)
                obj = type(owner).model_validate({**config, **self._as_field()})
                infra = getattr(obj, self._name)
                infra.folder = self.folder
                same = infra.identity().same_as(stored)
            except (OSError, ValueError, ExcaError) as error:
                log.warning("%s is left out: its configuration cannot be read: %s", entry.path, error)
                continue
            if same:
                yield obj
            else:
                hides = "its secrets are not stored" if "~secret" in str(stored) else ""
                why = hides or "its configuration makes a different object today"
                log.warning("%s is left out: %s", entry.path, why)

    def _as_field(self) -> dict[str, tp.Any]:
        """This infra as its owner's class can be given it; one in a private attribute cannot be."""
        return {self._name: self.settings()} if self._name in type(self._bound()[0]).model_fields else {}

    def _stored_identity(self, entry: Entry) -> dict[str, tp.Any] | None:
        """The identity of an entry's results, None if it has none."""
        raise NotImplementedError

    def obj_infras(self) -> dict[str, BaseInfra]:
        """All infras of the owner and of the models in it, by dotted name."""
        owner, _ = self._bound()
        return dict(infras_in(owner))

    # computing

    def _task_error(self, error: Exception) -> TaskFailedError:
        """The error to raise for one that the method raised in this process: the same as from a job."""
        report = describe_error(error)
        message = f"{self.factory()} raised {with_message(report['type'], report['message'])}\n{report['traceback']}"
        return TaskFailedError(message, factory=self.factory(), **original_error(report))

    def _settings(self, cache: CacheFolder, cluster: clusters.Cluster, mode: Mode) -> Settings:
        """The settings of a launch of this infra's method."""
        code, typed = launch_settings.launch_code(self.workdir, cache.path), self._cells()
        current = CurrentCode(cache.path, launch_settings.readable(code), typed)
        return Settings(
            folder=cache,
            cluster=cluster,
            mode=mode,
            project=self._project(cache),
            record={"version": self.version, "started": time.time()},
            provenance=functools.cache(lambda: self._provenance(cluster)),  # later submissions run the same copy
            records_overrides=False,
            check=functools.partial(self._check_launch, code),
            prepare=functools.partial(self._prepare_payload, code),
            here=lambda: None if code is None else code.snapshot(),
            chdir=code is not None and code.options.chdir,
            max_gb=launch_settings.MAX_PICKLE_SIZE_GB if self.max_pickle_size_gb is None else self.max_pickle_size_gb,
            code=current.digest,
            cells=typed,
            on_code_change=OnCodeChange(self.on_code_change),
            code_changes=current.changes,
            used_changes=current.changes,
            fail_jobs=self.fail_jobs,
            retries=self._retry_policy(),
            option_prefix="infra.",
            warns_once=True,
        )

    def _cells(self) -> CellCode | None:
        """The code of cells that this object's method reaches, None if there is none."""
        return reached_cells([self._bound()[0]])

    def _check_launch(self, code: LaunchCode | None) -> None:
        """Raises ConfigError if a launch cannot work; the settings may have been assigned one by one."""
        try:
            self._refuse_conflicts()
        except ValueError as error:
            message = "The settings of the infra cannot work; nothing was run."
            raise ConfigError(message, [Problem(str(error), "infra")]) from None
        if code is not None:
            code.check()

    def _prepare_payload(self, code: LaunchCode | None, payload: Payload) -> Payload:
        """The common part of all jobs, changed as the settings ask."""
        if code is not None:
            payload = payload.importing_from(code.snapshot(), code.replaced_directory)
        if self.conda_env is not None:
            payload = payload.of_another_python()
        return dataclasses.replace(payload, logs=launch_settings.logs_pattern(self.logs))

    def _provenance(self, cluster: clusters.Cluster) -> launch_record.LaunchDescription:
        """The record of a launch. In this process many small ones may follow one another."""
        folder = project.project_folder(type(self._bound()[0]), active.current()) or active.home()
        max_age_s = _CHANGE_S if isinstance(cluster, clusters.InlineCluster) else 0.0
        argv = self._redaction().redact_arguments(sys.argv)
        return launch_record.describe_launch(folder, max_age_s=max_age_s, argv=argv)

    def _resources(self) -> dict[str, tp.Any]:
        """The resources that were set: tasks of one array that differ in them get arrays of their own."""
        return {name: getattr(self, name) for name in self._resource_names() if name in self.model_fields_set}

    def _resource_names(self) -> list[str]:
        return [*_COMMON, *(name for name in type(self).model_fields if name.startswith(_SLURM))]

    def _refuse_without_folder(self) -> None:
        """Raises ConfigError where what was set needs a folder."""
        if self.workdir is not None and self.folder is None:
            problem = Problem("the copy of the code needs a place: set infra.folder", "infra.workdir")
            raise ConfigError("The code cannot be copied; nothing was run.", [problem])

    def _retry_policy(self) -> RetryPolicy:
        return RetryPolicy(self.retries, self.on_oom, self.on_timeout, self.max_mem_gb, self.max_timeout_min)

    def _cluster(self, array_parallelism: int = 256) -> clusters.Cluster:
        owner, applied = self._bound()
        function = vars(type(owner)).get("_exca_function")
        named = f"{type(owner).__qualname__}.{applied.method.__name__}" if function is None else function.__qualname__
        resources = {name: getattr(self, name) for name in self._resource_names()}
        resources["name"] = named.replace("<locals>.", "") if self.job_name is None else self.job_name
        options = clusters.Options(
            array_parallelism=array_parallelism,
            max_num_timeout=self.max_num_timeout,
            environment=launch_settings.environment_path(self.conda_env),
            share_machine=self.share_machine,
            names_tasks=self.job_name is None,
        )
        return clusters.get_cluster(self.cluster, options.with_resources(resources))


def _capturing_functions(cls: type) -> tuple[types.FunctionType, ...]:
    """The function that a class was made for, or else the functions of a class that a function defines."""
    function = vars(cls).get("_exca_function")
    if function is None:
        return carried.capturing_functions(cls)
    return (function,) if function.__closure__ else ()


class _RememberedIdentity(tp.NamedTuple):
    """The last identity of an object, and everything that it was computed from."""

    inputs: tuple[tp.Any, ...]
    contents: list[tp.Any] | None
    identity: Identity


class _RememberedName(tp.NamedTuple):
    """The name of an identity's entry, valid as long as there is no folder, or the same file is its outcome.

    A file that was replaced has another inode or time; without an outcome, others may still give the entry its name.
    """

    identity: Identity
    uid: str
    folder: Path | str | None
    witness: str = ""
    state: tuple[int, ...] | None = None

    def is_valid(self, folder: Path | str | None) -> bool:
        if folder is None:
            return self.folder is None
        return self.state is not None and folder == self.folder and fast_lookup.file_state(self.witness) == self.state


def _are_same_objects(one: list[tp.Any] | None, other: list[tp.Any] | None) -> bool:
    """Whether both are known, and the very same objects."""
    if one is None or other is None:
        return False
    return len(one) == len(other) and all(map(operator.is_, one, other))


def private(infra: BaseInfra) -> dict[str, tp.Any]:
    """An infra's private attributes; asked for one by one, they take pydantic ten times as long."""
    return tp.cast("dict[str, tp.Any]", infra.__pydantic_private__)


def infras_in(value: tp.Any, prefix: str = "") -> tp.Iterator[tuple[str, BaseInfra]]:
    """All infras of a model and of the models in it, by dotted name."""
    children: tp.Iterable[tuple[tp.Any, tp.Any]] = ()
    if isinstance(value, BaseInfra):
        yield prefix, value
    elif isinstance(value, pydantic.BaseModel):
        children = (*value, *(value.__pydantic_private__ or {}).items())
    elif isinstance(value, dict):
        children = value.items()
    elif isinstance(value, (list, tuple)):
        children = enumerate(value)
    for name, child in children:
        yield from infras_in(child, f"{prefix}.{name}" if prefix else str(name))
