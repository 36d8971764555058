"""Models and their methods as programs: finding the class of a method, and making the model of a configuration."""

from __future__ import annotations

import dataclasses
import functools
import inspect
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
from .configs.tree import MISSING, dotted, leaves_of, raw, to_resolved
from .hydra_errors import as_compact_error, shown_cause
from .schema import Method

if tp.TYPE_CHECKING:
    import pydantic


@dataclasses.dataclass(frozen=True)
class Computation:
    """The method without its cache, which a job runs instead of the program. Its result is kept in ``folder``."""

    method: Method
    folder: Path


def find_method(function: tp.Any, model: type[pydantic.BaseModel] | None) -> Method | None:
    """The function as a method of ``model``, or of the class that defines it; None if it is not the method of a model.

    Raises TypeError for a method that cannot be a program.
    """
    if inspect.ismethod(function) and pydantic_types.is_model(function.__self__):
        if schema.annotated(function) is None:
            own = f"{type(function.__self__).__qualname__}.{function.__name__}"
            raise TypeError(f"hydra_exca.main got the method of one object: give it the class's, {own}")
        return None
    kind = model or _defining_class(function)
    if not pydantic_types.is_model_class(kind):
        return None
    name = _attribute_name(kind, function)
    if name is not None:
        _check_takes_self_alone(function)
        return Method(kind, name)
    if model is not None:
        raise TypeError(f"hydra_exca.main: {model.__qualname__} has no method {function_name(function)}")
    return None


def _attribute_name(kind: type, function: tp.Any) -> str | None:
    attributes = ((name, value) for cls in kind.__mro__ for name, value in vars(cls).items())
    return next((name for name, value in attributes if value is function), None)


def function_name(function: tp.Any) -> str:
    """The name of a function in messages."""
    return getattr(function, "__qualname__", repr(function))


def is_of_unknown_class(function: tp.Any) -> bool:
    """Whether a function looks like a method, and its class cannot be found by its name."""
    above = str(getattr(function, "__qualname__", "")).rpartition(".")[0]
    return bool(above) and not above.endswith("<locals>") and _defining_class(function) is None


def method_program(method: Method, place: types.FunctionType) -> tp.Callable[[tp.Any], tp.Any]:
    """The function that Hydra is given: it calls the method, through its infra, on the validated model."""

    @functools.wraps(place)  # Hydra looks for the configuration, and for the job's name, from there
    def run(config: tp.Any) -> tp.Any:
        model = config if isinstance(config, method.kind) else receive_config(method.kind, config)
        try:
            return method.call(model)
        except ExcaError as error:
            raise as_compact_error(error) from shown_cause(error)

    run.__name__, run.__qualname__ = method.name, f"{method.kind.__qualname__}.{method.name}"
    run.__doc__ = getattr(method.kind, method.name).__doc__
    setattr(run, schema.RECEIVES, method.kind)
    setattr(run, schema.METHOD, method)
    return run


def function_in(frame: types.FrameType | None) -> types.FunctionType:
    """A function as if it were defined in the code that a frame runs."""

    def place() -> None: ...

    if frame is not None:
        place.__code__ = place.__code__.replace(co_filename=frame.f_code.co_filename)
        place.__module__ = frame.f_globals.get("__name__", "__main__")
    return tp.cast(types.FunctionType, place)


def receive_config(kind: type[pydantic.BaseModel], config: DictConfig) -> tp.Any:
    """The validated model of a configuration; an error that Hydra shows as one message with all problems."""
    hydra: tp.Any = HydraConfig.get() if HydraConfig.initialized() else None
    try:
        model = _make_model(kind, config, hydra)
    except ExcaError as error:
        raise as_compact_error(error) from None
    if hydra is not None and Path(hydra.runtime.cwd) != Path.cwd():  # hydra.job.chdir
        _anchor_infras(model, Path(hydra.runtime.cwd))
    return model


def _make_model(kind: type[pydantic.BaseModel], config: DictConfig, hydra: tp.Any) -> pydantic.BaseModel:
    allowed = () if hydra is None else OmegaConf.select(hydra, "launcher.allow_missing") or ()
    # not OmegaConf.missing_keys: 2.4 has what refers to a missing value among them, and 2.3 raises
    unset = (dotted(path) for path, value in leaves_of(raw(config)) if isinstance(value, str) and value == MISSING)
    missing = sorted(key for key in unset if not matches_key(key, allowed))
    problems = [Problem("it is ??? and must be given", key) for key in missing]
    values = {} if missing else schema.without_missing(to_resolved(config))
    problems = problems or schema.model_problems(kind, values)
    if problems:
        overrides = () if hydra is None else tuple(raw(hydra.overrides.task))
        problems = [dataclasses.replace(problem, overrides=overrides) for problem in problems]
        raise ConfigError(f"The configuration does not fit {kind.__qualname__}; nothing was run.", problems)
    return kind.model_validate(values)


def _anchor_infras(model: pydantic.BaseModel, folder: Path) -> None:
    """Makes relative folders of its infras count from ``folder``, wherever a job works."""
    from hydra_exca.infra.base import infras_in

    for _, infra in infras_in(model):
        if infra.folder is not None:
            infra.folder = folder / Path(infra.folder).expanduser()


def _check_takes_self_alone(function: tp.Any) -> None:
    parameters = inspect.signature(function).parameters.values()
    if len(parameters) != 1:
        shown = ", ".join(map(str, parameters))
        raise TypeError(
            f"hydra_exca.main: {function_name(function)} takes ({shown}), and a program needs a method of self alone"
        )


def _defining_class(function: tp.Any) -> tp.Any:
    """The class that the function's qualified name mentions, None if it cannot be found."""
    parts = str(getattr(function, "__qualname__", "")).split(".")[:-1]
    try:
        return functools.reduce(getattr, parts, sys.modules[function.__module__]) if parts else None
    except (AttributeError, KeyError):
        return None
