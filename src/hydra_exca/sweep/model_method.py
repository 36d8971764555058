"""Methods of models as programs: whose method it is, and what a plain run and a job do with a configuration."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import sys
import types
import typing as tp
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hydra_exca.errors import ConfigError, ExcaError, Problem
from hydra_exca.globs import matches_key
from hydra_exca.identity import pydantic_types

from . import schema
from .hydra_errors import raise_compact
from .schema import Method

if tp.TYPE_CHECKING:
    import pydantic


@dataclasses.dataclass(frozen=True)
class Computation:
    """What a job runs instead of the program: the method below its cache, whose result is kept in ``folder``."""

    method: Method
    folder: Path

    def __call__(self, config: tp.Any) -> tp.Any:
        return self.method.compute(receive_config(self.method.kind, config), self.folder)


def find_method(function: tp.Any, model: type[pydantic.BaseModel] | None) -> Method | None:
    """The method that a function is: of ``model``, or of the class that defines it; None if it is no model's.

    Raises TypeError for one that cannot be a program.
    """
    name = getattr(function, "__qualname__", repr(function))
    if inspect.ismethod(function) and pydantic_types.is_model(function.__self__):
        if schema.annotated(function) is None:
            told = f"{type(function.__self__).__qualname__}.{function.__name__}"
            raise TypeError(f"hydra_exca.main got the method of one object: give it the class's, {told}")
        return None
    kind = _definer(function) if model is None else model
    found = None if kind is None else _name_in(kind, function)
    if model is not None and found is None:
        raise TypeError(f"hydra_exca.main: {model.__qualname__} has no method {name}")
    if kind is None or found is None:
        return None
    taken = inspect.signature(function).parameters.values()
    if len(taken) != 1:
        shown = ", ".join(map(str, taken))
        raise TypeError(f"hydra_exca.main: {name} takes ({shown}), and a program needs a method of self alone")
    return Method(kind, found)


def is_of_unknown_class(function: tp.Any) -> bool:
    """Whether it looks like a method whose class cannot be found by its name."""
    above = str(getattr(function, "__qualname__", "")).rpartition(".")[0]
    return bool(above) and not above.endswith("<locals>") and _named(function) is None


def method_program(method: Method, place: types.FunctionType) -> tp.Callable[[tp.Any], tp.Any]:
    """The function that Hydra is given: it calls the method, through its infra, on the validated model."""

    @functools.wraps(place)  # Hydra looks for the configuration, and for the job's name, from there
    def run(config: tp.Any) -> tp.Any:
        model = config if isinstance(config, method.kind) else receive_config(method.kind, config)
        try:
            return method.call(model)
        except ExcaError as error:
            raise raise_compact(error) from (error if os.environ.get("HYDRA_FULL_ERROR") == "1" else None)

    run.__name__, run.__qualname__ = method.name, f"{method.kind.__qualname__}.{method.name}"
    run.__doc__ = getattr(method.kind, method.name).__doc__
    setattr(run, schema.RECEIVES, method.kind)
    setattr(run, schema.METHOD, method)
    return run


def place_of(frame: types.FrameType | None) -> types.FunctionType:
    """A function as if it were written in the code that a frame runs."""

    def place() -> None: ...

    if frame is not None:
        place.__code__ = place.__code__.replace(co_filename=frame.f_code.co_filename)
        place.__module__ = frame.f_globals.get("__name__", "__main__")
    return tp.cast(types.FunctionType, place)


def receive_config(kind: type[pydantic.BaseModel], config: DictConfig) -> tp.Any:
    """The validated model of a configuration; an error that Hydra shows as one message with all problems."""
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    allowed = schema.allowed_missing()
    missing = sorted(key for key in OmegaConf.missing_keys(config) if not matches_key(key, allowed))
    try:
        if missing:
            problems = [Problem("it is ??? and must be given", key, tuple(overrides)) for key in missing]
            raise ConfigError("The configuration is not complete; nothing was run.", problems)
        values = schema.without_missing(OmegaConf.to_container(config, resolve=True))
        model = schema.validate(kind, values, overrides)
    except ExcaError as error:
        raise raise_compact(error) from None
    started_from = Path(HydraConfig.get().runtime.cwd) if HydraConfig.initialized() else Path.cwd()
    if started_from != Path.cwd():  # hydra.job.chdir
        schema.anchor(model, started_from)
    return model


def _definer(function: tp.Any) -> type[pydantic.BaseModel] | None:
    """The model that defines a function. That of an inherited method is the parent: it is the same function."""
    found = _named(function)
    return found if pydantic_types.is_model_class(found) else None


def _named(function: tp.Any) -> tp.Any:
    """What the function's qualified name says that it is in, None if that is not to be found."""
    parts = str(getattr(function, "__qualname__", "")).split(".")[:-1]
    try:
        return functools.reduce(getattr, parts, sys.modules[function.__module__]) if parts else None
    except (AttributeError, KeyError):
        return None


def _name_in(kind: type, function: tp.Any) -> str | None:
    attributes = ((name, value) for cls in kind.__mro__ for name, value in vars(cls).items())
    return next((name for name, value in attributes if value is function), None)
