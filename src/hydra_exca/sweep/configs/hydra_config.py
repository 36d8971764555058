"""HydraConfig, the config behind ``${hydra:}``, exchanged for a while."""

from __future__ import annotations

import contextlib
import typing as tp

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from omegaconf import DictConfig


@contextlib.contextmanager
def exchanged_hydra_config(config: DictConfig | None = None) -> tp.Iterator[tp.Any]:
    """Gives HydraConfig, which meanwhile holds ``config`` itself; afterwards it is as before, or absent.

    ``HydraConfig.set_config`` would hold a copy, which does not see later changes.
    """
    instances: dict[tp.Any, tp.Any] = Singleton._instances  # noqa: SLF001  there is no public way to take one out again
    is_new = HydraConfig not in instances
    singleton: tp.Any = HydraConfig.instance()
    before = singleton.cfg
    singleton.cfg = before if config is None else config
    try:
        yield singleton
    finally:
        singleton.cfg = before
        if is_new:
            instances.pop(HydraConfig, None)
