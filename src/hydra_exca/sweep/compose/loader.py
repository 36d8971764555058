"""A config loader that composes each job once: what the sweeper composes to check a batch is what is launched."""

from __future__ import annotations

import logging
import typing as tp

from hydra.core.config_loader import ConfigLoader
from hydra.types import HydraContext
from omegaconf import DictConfig

from hydra_exca.sweep.configs.omegaconf_private import DeferredConfig

from . import hydra_private
from .composition import Composition, Template
from .templates import Templates

log = logging.getLogger("exca.sweep")


class SweepLoader:
    """Hydra's loader, but it composes from templates, and remembers compositions until the launcher takes them."""

    def __init__(self, loader: ConfigLoader) -> None:
        self._loader = loader
        self._why_unknown = hydra_private.why_unknown(loader)
        self._has_said_why = False
        self._reader = hydra_private.CachingReader(loader)
        self._templates: dict[int, Templates] = {}
        self._masters: dict[int, DictConfig] = {}  # as long as one is kept, no other has its id
        self._composed: dict[tuple[int, tuple[str, ...]], Composition] = {}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """A job's config, which equals that of Hydra's own loader. `take_composition` finds it again."""
        composition = self._compose(master_config, tuple(sweep_overrides))
        self._masters[id(master_config)] = master_config
        self._composed[id(master_config), tuple(sweep_overrides)] = composition
        return DeferredConfig(composition.config)  # which a sweeper's check of a batch drops, unused

    def take_composition(self, master_config: DictConfig, sweep_overrides: list[str]) -> Composition:
        """The composition of a job: the one that the sweeper has caused, or a new one."""
        composed = self._composed.pop((id(master_config), tuple(sweep_overrides)), None)
        return self._compose(master_config, tuple(sweep_overrides)) if composed is None else composed

    def forget_compositions(self) -> None:
        """Drops the compositions that nobody took. The templates stay: all jobs of a sweep use the same configs."""
        self._composed.clear()
        for templates in self._templates.values():
            templates.release_memory()

    @property
    def repository(self) -> tp.Any:
        """Where Hydra's own loader reads configs."""
        return getattr(self._loader, "repository")  # noqa: B009 - not every loader has one

    @repository.setter
    def repository(self, repository: tp.Any) -> None:
        self._loader.repository = repository  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> tp.Any:
        return getattr(self._loader, name)

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return _same_loader, (self._loader,)  # in a job nothing is composed

    def _compose(self, master: DictConfig, overrides: tuple[str, ...]) -> Composition:
        templates = self._templates_of(master)
        composition = None if templates is None else templates.compose(overrides)
        if composition is not None:
            return composition
        return Composition(Template(self._reader.compose(master, overrides)))

    def _templates_of(self, master: DictConfig) -> Templates | None:
        if self._why_unknown:
            if not self._has_said_why:
                log.warning("exca: Hydra composes each job by itself, which is slow: %s", self._why_unknown)
            self._has_said_why = True
            return None
        if id(master) not in self._templates:
            self._masters[id(master)] = master
            self._templates[id(master)] = Templates(self._loader, self._reader, master)
        return self._templates[id(master)]


def _same_loader(loader: ConfigLoader) -> ConfigLoader:
    return loader


def sweep_loader(context: HydraContext) -> SweepLoader:
    """The loader of this context, which from the first call on leaves to the launcher what the sweeper composes."""
    if not isinstance(context.config_loader, SweepLoader):
        context.config_loader = tp.cast(ConfigLoader, SweepLoader(context.config_loader))
    return tp.cast(SweepLoader, context.config_loader)
