"""``hydra_exca.main``: like hydra.main, for functions that take a validated model, and for its methods."""

from __future__ import annotations

import functools
import inspect
import typing as tp

import hydra
import pydantic

from . import model_method, schema
from .compose import hydra_private

_UNSET: tp.Any = object()


def main(
    config_path: str | None = _UNSET,
    config_name: str | None = None,
    version_base: str | None = _UNSET,
    model: type[pydantic.BaseModel] | None = None,
    execution_whitelist: tp.Any = _UNSET,
) -> tp.Callable[[tp.Callable[..., tp.Any]], tp.Any]:
    """Makes a program of a function that takes a pydantic model, or of a method of one: the model is the configuration.

    The arguments are those of hydra.main: ``version_base``, which Hydra 1.4 no longer wants, is "1.3" on Hydra 1.3
    unless said otherwise, and ``execution_whitelist`` is of Hydra 1.4. A configuration that does not fit is one message
    that lists every problem. Called with a model or a DictConfig, the program just runs.

        @hydra_exca.main(config_path="conf", config_name="config")
        def train(config: Train) -> float: ...

    A method is called through its infra; a sweep with our launcher fills and finds the same entries as that infra.
    ``model`` is the class of the method, unless that is the class that defines it.

        if __name__ == "__main__":
            hydra_exca.main(config_path="conf", config_name="config")(Train.fit)()

    Raises TypeError for a function that does not take a model, and for a method that takes more than ``self``.
    """
    given = {"config_path": config_path, "version_base": version_base, "execution_whitelist": execution_whitelist}
    arguments = {name: value for name, value in given.items() if value is not _UNSET}
    frame = inspect.currentframe()
    place = model_method.function_in(None if frame is None else frame.f_back)

    def decorate(function: tp.Callable[..., tp.Any]) -> tp.Any:
        method = model_method.find_method(function, model)
        program = _validating(function) if method is None else model_method.method_program(method, place)
        return hydra.main(config_name=config_name, **{**hydra_private.MAIN_ARGUMENTS, **arguments})(program)

    return decorate


def _validating(function: tp.Callable[..., tp.Any]) -> tp.Callable[[tp.Any], tp.Any]:
    """The function, handed the validated model of a configuration."""
    model = schema.annotated(function)
    if model is None or not issubclass(model, pydantic.BaseModel):
        raise _unsuitable_function(function)

    @functools.wraps(function)
    def validated(config: tp.Any) -> tp.Any:
        return function(config if isinstance(config, model) else model_method.receive_config(model, config))

    setattr(validated, schema.RECEIVES, model)
    return validated


def _unsuitable_function(function: tp.Callable[..., tp.Any]) -> TypeError:
    name = model_method.function_name(function)
    if model_method.is_of_unknown_class(function):
        return TypeError(
            f"hydra_exca.main: the class of {name} cannot be found: use hydra_exca.main below the class, and "
            "define that at the top of a module or say model=<the class>"
        )
    return TypeError(
        f"hydra_exca.main: the argument of {name} must be annotated with a pydantic model, or {name} must be "
        "a method of one"
    )
