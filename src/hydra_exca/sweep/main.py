"""``hydra_exca.main``: like hydra.main, for functions that take a validated model."""

from __future__ import annotations

import functools
import typing as tp
from fnmatch import fnmatch

import hydra
import pydantic
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hydra_exca.errors import ConfigError, ExcaError, Problem

from . import schema
from .compact import compact

_UNSET: tp.Any = object()


def main(
    config_path: str | None = _UNSET, config_name: str | None = None, version_base: str | None = "1.3"
) -> tp.Callable[[tp.Callable[..., tp.Any]], tp.Any]:
    """Decorates a function whose argument is annotated with a pydantic model: it is handed the validated model.

    The arguments are those of hydra.main, ``version_base`` being "1.3" unless said otherwise. A configuration
    that does not fit is one message that lists every problem. Called with a model or a DictConfig, the
    decorated function just runs.

        @hydra_exca.main(config_path="conf", config_name="config")
        def train(config: Train) -> float: ...
    """
    arguments: dict[str, tp.Any] = {"config_name": config_name, "version_base": version_base}
    if config_path is not _UNSET:
        arguments["config_path"] = config_path

    def decorate(function: tp.Callable[..., tp.Any]) -> tp.Any:
        kind = schema.annotated(function)
        if kind is None or not issubclass(kind, pydantic.BaseModel):
            name = getattr(function, "__qualname__", repr(function))
            raise TypeError(f"hydra_exca.main: the argument of {name} must be annotated with a pydantic model")

        @functools.wraps(function)
        def validated(config: tp.Any) -> tp.Any:
            return function(config if isinstance(config, kind) else _validate(kind, config))

        setattr(validated, schema.RECEIVES, kind)
        return hydra.main(**arguments)(validated)

    return decorate


def _validate(kind: type[pydantic.BaseModel], config: DictConfig) -> pydantic.BaseModel:
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    allowed = schema.allowed_missing()
    missing = sorted(key for key in OmegaConf.missing_keys(config) if not any(fnmatch(key, each) for each in allowed))
    try:
        if missing:
            problems = [Problem("it is ??? and must be given", key, tuple(overrides)) for key in missing]
            raise ConfigError("The configuration is not complete; nothing was run.", problems)
        values = schema.present(OmegaConf.to_container(config, resolve=True))
        return tp.cast(pydantic.BaseModel, schema.validate(kind, values, overrides))
    except ExcaError as error:
        raise compact(error) from None
