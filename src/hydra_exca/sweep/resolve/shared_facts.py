"""Facts about jobs that are composed from one template: what they have in common is found out once."""

from __future__ import annotations

import dataclasses
import functools
import typing as tp

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_exca.errors import Problem
from hydra_exca.sweep.configs.omegaconf_private import cached_parsing, separate_resolver_cache
from hydra_exca.sweep.configs.overlay import ConfigOverlay, JobVariant
from hydra_exca.sweep.configs.thread_state import own_hydra_config
from hydra_exca.sweep.configs.tree import Path, leaves_of, raw, raw_task, structured_classes, without_hydra

from . import resolve
from .dependence import Dependence

_JOB_PATHS: tuple[Path, ...] = tuple(
    ("hydra", *path) for path in (("job", "num"), ("job", "id"), ("job", "override_dirname"), ("overrides",))
)


@dataclasses.dataclass(frozen=True)
class JobFacts:
    """Facts about one job's config, beside its leaves.

    ``types`` are the classes of structured configs, by path; ``env_set`` is ``hydra.job.env_set``, as
    `resolve_env_set` gives it, and ``env_texts`` as it was written. ``config()`` is the config without ``hydra``, valid
    until that of the next job is asked for.
    """

    types: tp.Mapping[Path, str]
    env_set: dict[str, tp.Any]
    env_texts: tp.Mapping[str, tp.Any]
    config: tp.Callable[[], DictConfig]


class SharedFacts:
    """The facts of jobs whose configs are variants of one."""

    def __init__(
        self, config: DictConfig, node_env: tp.Sequence[str], sizes: tp.Mapping[str, str] | None = None
    ) -> None:
        """Keeps ``config``, and changes it. ``node_env`` and ``sizes`` are those of `resolve_env_set`."""
        self._overlay = ConfigOverlay(config)
        self._resolve_env_set = functools.partial(resolve.resolve_env_set, node_env=node_env, sizes=sizes)
        self._env_set = raw(config.hydra.job.env_set) or {}

    def facts_of(self, variant: JobVariant) -> JobFacts:
        return JobFacts(
            self._types_of(variant), self._env_set_of(variant), self._env_set, lambda: self._config_of(variant)
        )

    def _config_of(self, variant: JobVariant) -> DictConfig:
        return without_hydra(self._overlay.show_job(variant))

    def _types_of(self, variant: JobVariant) -> tp.Mapping[Path, str]:
        if self._types and self._has_changing_targets:
            return dict(structured_classes(self._overlay.show_job(variant)))
        return self._types

    def resolve_folders(self, variants: tp.Sequence[JobVariant]) -> list[tuple[str, str] | Problem]:
        """``hydra.sweep.dir`` and ``subdir`` of each, resolved as run_job would, or the problem of resolving them."""
        config = self._overlay.config
        used_times = OmegaConf.get_cache(config).get("now", {})
        leaves = dict(leaves_of(raw(config)))
        dependence = Dependence(
            leaves, lambda name, arguments: name == "oc.env" or (name == "now" and (arguments,) in used_times)
        )
        changed = {*_JOB_PATHS, *(path for variant in variants for path in variant.leaves)}
        keys = [
            _FolderKey(config, path, leaves.get(path), dependence.is_independent(path, changed)) for path in _FOLDERS
        ]
        with own_hydra_config(config), cached_parsing():
            return [self._folders(variant, keys) for variant in variants]

    def _folders(self, variant: JobVariant, keys: list[_FolderKey]) -> tuple[str, str] | Problem:
        config = self._overlay.config
        values = [key.value_by_variant(variant) for key in keys]
        if None not in values:
            return tp.cast("tuple[str, str]", tuple(values))
        self._overlay.show_job(variant)
        with separate_resolver_cache(config):  # what resolvers give one job is not for the next
            try:
                return keys[0].resolve(), keys[1].resolve()
            except OmegaConfBaseException as error:
                return Problem(f"does not resolve: {str(error).splitlines()[0]}", "hydra.sweep")

    def _env_set_of(self, variant: JobVariant) -> dict[str, tp.Any]:
        if any(isinstance(value, str) and "${" in value for value in self._env_set.values()):
            return self._resolve_env_set(self._overlay.show_job(variant))
        return self._plain_env_set

    @functools.cached_property
    def _plain_env_set(self) -> dict[str, tp.Any]:
        return self._resolve_env_set(self._overlay.config) if self._env_set else {}

    @functools.cached_property
    def _types(self) -> dict[Path, str]:
        return dict(structured_classes(self._overlay.config))

    @functools.cached_property
    def _has_changing_targets(self) -> bool:
        """Whether an interpolation may lead to another place in another job: its text has one in it."""
        leaves = leaves_of(raw_task(self._overlay.config))
        return any(isinstance(text, str) and text.count("${") > 1 for _, text in leaves)


_FOLDERS: tuple[Path, ...] = (("hydra", "sweep", "dir"), ("hydra", "sweep", "subdir"))


class _FolderKey:
    """A key of a config that takes the values of one job after another; resolved once if all jobs see the same."""

    def __init__(self, config: DictConfig, path: Path, text: tp.Any, is_shared: bool) -> None:
        self._config, self._key, self._text, self._is_shared = config, ".".join(path), text, is_shared
        self._shared_value: str | None = None

    def value_by_variant(self, variant: JobVariant) -> str | None:
        """The value if it is known without the job's config: that of all jobs, or the default ``subdir``. Else None."""
        if self._text == "${hydra.job.num}" and variant.number is not None:
            return str(variant.number)
        return variant.dirname if self._text == "${hydra.job.override_dirname}" else self._shared_value

    def resolve(self) -> str:
        if self._shared_value is not None:
            return self._shared_value
        value = str(OmegaConf.select(self._config, self._key))
        if self._is_shared:
            self._shared_value = value
        return value
