"""What jobs that are composed from one template have in common, so that it is found out once."""

from __future__ import annotations

import dataclasses
import functools
import typing as tp

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_exca.errors import Problem
from hydra_exca.sweep.configs.hydra_config import exchanged_hydra_config
from hydra_exca.sweep.configs.omegaconf_private import cached_parsing, separate_resolver_cache
from hydra_exca.sweep.configs.overlay import ConfigOverlay, JobVariant
from hydra_exca.sweep.configs.tree import Path, leaves_of, raw, structured, unresolved, without_hydra

from . import resolve
from .dependence import Dependence

_OF_THE_JOB: tuple[Path, ...] = tuple(
    ("hydra", *path) for path in (("job", "num"), ("job", "id"), ("job", "override_dirname"), ("overrides",))
)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of one job's config beside its leaves.

    ``types`` are the classes of structured configs, by path; ``env_set`` is ``hydra.job.env_set``, as
    `worlds.env_set` gives it. ``config()`` is the config without ``hydra``, until that of the next job is asked for.
    """

    types: tp.Mapping[Path, str]
    env_set: dict[str, tp.Any]
    config: tp.Callable[[], DictConfig]


class SharedFacts:
    """The facts of jobs whose configs are variants of one."""

    def __init__(self, config: DictConfig, node_env: tp.Sequence[str]) -> None:
        """``config`` is kept, and changed."""
        self._variants = ConfigOverlay(config)
        self._node_env = node_env
        self._env_set = raw(config.hydra.job.env_set) or {}

    def of(self, variant: JobVariant) -> Facts:
        return Facts(self._types_of(variant), self._env_set_of(variant), lambda: self._plain(variant))

    def _plain(self, variant: JobVariant) -> DictConfig:
        return without_hydra(self._variants.show(variant))

    def _types_of(self, variant: JobVariant) -> tp.Mapping[Path, str]:
        if self._types and self._has_changing_targets:
            return dict(structured(self._variants.show(variant)))
        return self._types

    def folders(self, variants: tp.Sequence[JobVariant]) -> list[tuple[str, str] | Problem]:
        """``hydra.sweep.dir`` and ``subdir`` of each, resolved as run_job would, or why they are not."""
        config = self._variants.config
        known = OmegaConf.get_cache(config).get("now", {})
        leaves = dict(leaves_of(raw(config)))
        dependence = Dependence(
            leaves, lambda name, arguments: name == "oc.env" or (name == "now" and (arguments,) in known)
        )
        changed = {*_OF_THE_JOB, *(path for variant in variants for path in variant.leaves)}
        ask = [_Asked(config, path, leaves.get(path), dependence.is_apart(path, changed)) for path in _FOLDERS]
        with exchanged_hydra_config(config), cached_parsing():
            return [self._folders(variant, ask) for variant in variants]

    def _folders(self, variant: JobVariant, ask: list[_Asked]) -> tuple[str, str] | Problem:
        config = self._variants.config
        found = [each.without_a_look(variant) for each in ask]
        if None not in found:
            return tp.cast("tuple[str, str]", tuple(found))
        self._variants.show(variant)
        with separate_resolver_cache(config):  # what resolvers give one job is not for the next
            try:
                return ask[0].value(), ask[1].value()
            except OmegaConfBaseException as error:
                return Problem(f"does not resolve: {str(error).splitlines()[0]}", "hydra.sweep")

    def _env_set_of(self, variant: JobVariant) -> dict[str, tp.Any]:
        if any(isinstance(value, str) and "${" in value for value in self._env_set.values()):
            return resolve.env_set(self._variants.show(variant), node_env=self._node_env)
        return self._plain_env_set

    @functools.cached_property
    def _plain_env_set(self) -> dict[str, tp.Any]:
        return resolve.env_set(self._variants.config, node_env=self._node_env) if self._env_set else {}

    @functools.cached_property
    def _types(self) -> dict[Path, str]:
        return dict(structured(self._variants.config))

    @functools.cached_property
    def _has_changing_targets(self) -> bool:
        """Whether an interpolation may lead to another place in another job: its text has one in it."""
        leaves = leaves_of(unresolved(self._variants.config, without="hydra"))
        return any(isinstance(text, str) and text.count("${") > 1 for _, text in leaves)


_FOLDERS: tuple[Path, ...] = (("hydra", "sweep", "dir"), ("hydra", "sweep", "subdir"))


class _Asked:
    """A key of a config that is shown as one job's after the other, asked for once if it is the same for all."""

    def __init__(self, config: DictConfig, path: Path, text: tp.Any, is_same: bool) -> None:
        self._config, self._key, self._text, self._is_same = config, ".".join(path), text, is_same
        self._known: str | None = None

    def without_a_look(self, variant: JobVariant) -> str | None:
        """The value where the job need not be shown for it: it is known, or nearly everybody's ``subdir``."""
        if self._text == "${hydra.job.num}" and variant.number is not None:
            return str(variant.number)
        return variant.dirname if self._text == "${hydra.job.override_dirname}" else self._known

    def value(self) -> str:
        if self._known is not None:
            return self._known
        found = str(OmegaConf.select(self._config, self._key))
        self._known = found if self._is_same else None
        return found
