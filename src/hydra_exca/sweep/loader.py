"""Composing: each job once, since what the sweeper has composed to check it is launched; and from a copy."""

from __future__ import annotations

import typing as tp
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.types import HydraContext
from omegaconf import DictConfig

from hydra_exca.workdir import Snapshot


class RememberingLoader:
    """Hydra's own loader, which hands out again what it has composed, once."""

    def __init__(self, loader: ConfigLoader) -> None:
        self._loader = loader
        self._composed: dict[tuple[int, tuple[str, ...]], DictConfig] = {}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Composes a job, and remembers it for `take`."""
        config = self._loader.load_sweep_config(master_config, sweep_overrides)
        self._composed[id(master_config), tuple(sweep_overrides)] = config
        return config

    def take(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """A job's config, which is the taker's own: composed before and not used since, or composed now."""
        config = self._composed.pop((id(master_config), tuple(sweep_overrides)), None)
        return self._loader.load_sweep_config(master_config, sweep_overrides) if config is None else config

    def forget(self) -> None:
        """Whatever was not taken."""
        self._composed.clear()

    def __getattr__(self, name: str) -> tp.Any:
        return getattr(self._loader, name)

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return _itself, (self._loader,)  # in a job nothing is composed


def _itself(loader: ConfigLoader) -> ConfigLoader:
    return loader


def remember(context: HydraContext) -> None:
    """Makes the sweeper of this context leave what it composes to the launcher."""
    if not isinstance(context.config_loader, RememberingLoader):
        context.config_loader = tp.cast(ConfigLoader, RememberingLoader(context.config_loader))


def compose(context: HydraContext, master: DictConfig, overrides: list[str]) -> DictConfig:
    """A job's config, composed by Hydra."""
    loader = context.config_loader
    if isinstance(loader, RememberingLoader):
        return loader.take(master, overrides)
    return loader.load_sweep_config(master, overrides)


def redirect(loader: ConfigLoader, copy: Snapshot) -> None:
    """Makes Hydra compose from the config files of a copy of the code, where they were copied.

    This reaches into Hydra's own loader: the sources of configs have no public way to be moved.
    """
    repository = getattr(loader, "repository", None)
    for source in getattr(repository, "sources", ()):
        if source.scheme() == "file":
            source.path = _moved(source.path, copy)
    search_path = getattr(loader, "config_search_path", None)
    for element in search_path.get_path() if search_path is not None else ():
        if element.path is not None and element.path.startswith("file://"):
            element.path = f"file://{_moved(element.path.removeprefix('file://'), copy)}"


def _moved(path: str, copy: Snapshot) -> str:
    place = copy.copy_of(Path(path))
    return str(place) if place.is_dir() else path


def forget(context: HydraContext) -> None:
    """What the sweeper has composed and nobody has launched."""
    if isinstance(context.config_loader, RememberingLoader):
        context.config_loader.forget()
