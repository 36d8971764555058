"""What TaskInfra and MapInfra share: settings, identity of the owner, clones."""

from __future__ import annotations

import copy
import typing as tp
from pathlib import Path

import pydantic

from hydra_exca import clusters, paths, script, uid
from hydra_exca.confdict import ConfDict
from hydra_exca.errors import ConfigError, Problem
from hydra_exca.store import CacheFolder
from hydra_exca.uid import Identity

from . import binding
from .binding import Applied

ClusterName = tp.Literal["debug", "local", "slurm", "auto"]
_COMMON = ("timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb")
_SLURM = "slurm_"


class BaseInfra(binding.Bindable, pydantic.BaseModel):
    """Where results are kept and where they are computed. Of its settings only ``version`` is part of a uid.

    ``folder`` None: nothing is kept. ``cluster`` None: in this process. The others are submitit's, under the names
    that exca gives them.
    """

    model_config = pydantic.ConfigDict(extra="forbid")
    _exca_identity_fields: tp.ClassVar[tuple[str, ...]] = ("version",)
    _exca_pickled: tp.ClassVar[tuple[str, ...]] = ()

    folder: Path | str | None = None
    version: str = "0"
    cluster: ClusterName | None = None
    job_name: str | None = None
    timeout_min: int | None = None
    nodes: int | None = 1
    tasks_per_node: int | None = 1
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    slurm_constraint: str | None = None
    slurm_partition: str | None = None
    slurm_account: str | None = None
    slurm_qos: str | None = None
    slurm_use_srun: bool = False
    slurm_additional_parameters: dict[str, int | str | float | bool] | None = None
    slurm_setup: list[str] | None = None

    _owner: tp.Any = pydantic.PrivateAttr(None)
    _name: str = pydantic.PrivateAttr("")
    _applied: Applied | None = pydantic.PrivateAttr(None)

    def _exclude_from_class_uid(self) -> tuple[str, ...]:
        return tuple(name for name in type(self).model_fields if name not in self._exca_identity_fields)

    def __set_name__(self, owner: type, name: str) -> None:
        if self._name:
            raise RuntimeError(
                f"{name!r} of {owner.__qualname__} is another class's infra {self._name!r}: make a new one"
            )
        self._name = name
        binding.install(owner, name, self)

    @pydantic.model_validator(mode="after")
    def _check_settings(self) -> tp.Self:  # type: ignore[name-defined,unused-ignore]
        if not paths.is_version(self.version):
            raise ValueError(f"version={self.version!r} names a folder: letters, digits and ._+- only")
        if self.cluster is not None and self.folder is None:
            raise ValueError(f"cluster={self.cluster!r} needs a folder, where its jobs leave their results")
        return self

    # belonging to an object

    def settings(self) -> dict[str, tp.Any]:
        """What was set, as another infra can be given."""
        return {name: copy.copy(getattr(self, name)) for name in self.model_fields_set}

    def tie(self, owner: pydantic.BaseModel, name: str, default: BaseInfra) -> None:
        """Makes this the infra of ``owner``, with what the one in its class sets and this one does not.

        Raises RuntimeError for an infra of another object, and for one that decorates no method.
        """
        if default._applied is None:
            raise RuntimeError(f"infra {name!r} of {type(owner).__qualname__} was not applied to a method")
        if self._owner is not None and self._owner is not owner:
            raise RuntimeError(f"infra {name!r} belongs to another object, {self._owner!r}")
        self._owner, self._name, self._applied = owner, name, default._applied
        for inherited in default.model_fields_set - self.model_fields_set:
            setattr(self, inherited, copy.copy(getattr(default, inherited)))

    def _bound(self) -> tuple[pydantic.BaseModel, Applied]:
        if self._owner is None or self._applied is None:
            raise RuntimeError(f"{self!r} is not tied to an object and a method")
        return self._owner, self._applied

    def __repr_args__(self) -> tp.Iterator[tuple[str | None, tp.Any]]:
        for name in sorted(self.model_fields_set):
            yield name, getattr(self, name)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.__dict__ == other.__dict__

    def __getstate__(self) -> dict[tp.Any, tp.Any]:
        """What it was set to, and what of the rest another process can use: an owner ties its infras anew."""
        state = super().__getstate__()
        private = type(self)().__pydantic_private__ or {}
        in_class = ("_name", "_applied") if self._owner is None else ()  # of a class that is pickled by value
        kept = {name: getattr(self, name) for name in (*self._exca_pickled, *in_class)}
        return {**state, "__pydantic_private__": {**private, **kept}}

    def __copy__(self) -> tp.Self:  # type: ignore[name-defined,unused-ignore]
        return self.__deepcopy__()

    def __deepcopy__(self, memo: dict[int, tp.Any] | None = None) -> tp.Self:  # type: ignore[name-defined,unused-ignore]
        """Set like this one, and nobody's: without owner, jobs and values."""
        return type(self).model_construct(**copy.deepcopy(self.settings(), memo))

    # identity

    def factory(self) -> str:
        """The dotted name of what computes: class of the object and method.

        A parent's method that the class has replaced (and reaches by ``super()``) goes by both classes' names: it may
        call what the class overrides, so its results are not those of the parent's objects.
        """
        owner, applied = self._bound()
        method, cls = applied.method, type(owner)
        own = getattr(getattr(cls, method.__name__, None), "__wrapped__", None) is method
        name = method.__name__ if own else method.__qualname__
        return f"{script.module_name(cls)}.{cls.__qualname__}.{name}".replace("<locals>.", "")

    def identity(self) -> Identity:
        """What this object's result is the result of. Computing it changes nothing in the object."""
        owner, applied = self._bound()
        left_out = applied.exclusions(owner)
        try:
            fields, full = uid.model_fields(owner, left_out)
        except ConfigError as error:
            raise ConfigError(f"{type(owner).__qualname__} has no uid", [Problem(str(error))]) from error
        excluded = (*uid.class_exclusions(owner), *left_out)
        return uid.make(self.factory(), self.version, fields, full, excluded=excluded)

    def uid(self) -> str:
        """Factory, version and uid, as they name the folder below ``folder``: ``pkg.Train.fit,1/seed=3-4f4ca7cb``."""
        identity = self.identity()
        return f"{identity.factory},{identity.version}/{self._entry_name(identity)}"

    def uid_folder(self, create: bool = False) -> Path | None:
        """The folder of this object's results, None without a ``folder``."""
        cache = self._cache()
        if cache is None:
            return None
        if not create:
            return cache.path / self.uid()
        identity = self.identity()
        cache.create()
        shelf = cache.shelf(identity.factory, identity.version)
        shelf.create({})
        return shelf.open(identity).path

    def _entry_name(self, identity: Identity) -> str:
        cache = self._cache()
        entry = None if cache is None else cache.shelf(identity.factory, identity.version).find(identity)
        return identity.uid() if entry is None else entry.uid

    def _cache(self) -> CacheFolder | None:
        return None if self.folder is None else CacheFolder(Path(self.folder).expanduser().absolute())

    def config(self, uid: bool = True, exclude_defaults: bool = False) -> ConfDict:
        """The owner's configuration; with ``uid`` only what counts for this cache, without defaults if asked."""
        owner, applied = self._bound()
        config = ConfDict.from_model(owner, uid=uid, exclude_defaults=exclude_defaults)
        for name in applied.exclusions(owner) if uid else ():
            config.pop(name, None)
        return config

    def clone_obj(self, *args: dict[str, tp.Any], **kwargs: tp.Any) -> tp.Any:
        """A new object like the owner but for what is given: dotted names, nested dicts, ``=replace=``, keywords."""
        owner, _ = self._bound()
        if len(args) > 1 or (args and kwargs):
            raise TypeError("clone_obj takes one dictionary, or keywords")
        config = ConfDict.from_model(owner, uid=False, exclude_defaults=True)
        config.update(args[0] if args else kwargs)
        return type(owner).model_validate(dict(config))

    def obj_infras(self) -> dict[str, BaseInfra]:
        """All infras of the owner and of the models in it, by dotted name."""
        owner, _ = self._bound()
        return dict(_infras(owner, ""))

    # computing

    def _cluster(self, array_parallelism: int = 256) -> clusters.Cluster:
        common = {name: getattr(self, name) for name in _COMMON}
        if self.job_name is not None:
            common["name"] = self.job_name
        slurm = {
            name.removeprefix(_SLURM): getattr(self, name)
            for name in type(self).model_fields
            if name.startswith(_SLURM)
        }
        return clusters.get(self.cluster, clusters.Options(common, slurm, array_parallelism))


def _infras(value: tp.Any, prefix: str) -> tp.Iterator[tuple[str, BaseInfra]]:
    if isinstance(value, BaseInfra):
        yield prefix, value
    elif isinstance(value, pydantic.BaseModel):
        private = value.__pydantic_private__ or {}
        for name, each in (*value, *private.items()):
            yield from _infras(each, f"{prefix}.{name}" if prefix else name)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _infras(each, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from _infras(each, f"{prefix}.{index}" if prefix else str(index))
