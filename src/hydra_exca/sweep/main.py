"""``hydra_exca.main``: like hydra.main, for functions that take a validated model, and for its methods."""

from __future__ import annotations

import functools
import inspect
import typing as tp

import hydra
import pydantic

from . import model_method, schema

_UNSET: tp.Any = object()


def main(
    config_path: str | None = _UNSET,
    config_name: str | None = None,
    version_base: str | None = "1.3",
    model: type[pydantic.BaseModel] | None = None,
) -> tp.Callable[[tp.Callable[..., tp.Any]], tp.Any]:
    """Makes a program of a function that takes a pydantic model, or of a method of one: the model is the configuration.

    The arguments are those of hydra.main, ``version_base`` being "1.3" unless said otherwise. A configuration
    that does not fit is one message that lists every problem. Called with a model or a DictConfig, the
    program just runs.

        @hydra_exca.main(config_path="conf", config_name="config")
        def train(config: Train) -> float: ...

    A method is called through its infra; a sweep with our launcher fills and finds the same entries as that infra.
    ``model`` says whose it is where that is not the class that defines it.

        if __name__ == "__main__":
            hydra_exca.main(config_path="conf", config_name="config")(Train.fit)()
    """
    arguments: dict[str, tp.Any] = {"config_name": config_name, "version_base": version_base}
    if config_path is not _UNSET:
        arguments["config_path"] = config_path
    frame = inspect.currentframe()
    place = model_method.place_of(None if frame is None else frame.f_back)

    def decorate(function: tp.Callable[..., tp.Any]) -> tp.Any:
        found = model_method.find_method(function, model)
        task_function = _receiving(function) if found is None else model_method.method_program(found, place)
        return hydra.main(**arguments)(task_function)

    return decorate


def _receiving(function: tp.Callable[..., tp.Any]) -> tp.Callable[[tp.Any], tp.Any]:
    """The function, handed the validated model of a configuration."""
    kind = schema.annotated(function)
    if kind is None or not issubclass(kind, pydantic.BaseModel):
        name = getattr(function, "__qualname__", repr(function))
        if model_method.is_of_unknown_class(function):
            raise TypeError(
                f"hydra_exca.main: the class of {name} cannot be found: use hydra_exca.main below the class, and "
                "define that at the top of a module or say model=<the class>"
            )
        raise TypeError(
            f"hydra_exca.main: the argument of {name} must be annotated with a pydantic model, or {name} must be "
            "a method of one"
        )
    model = kind

    @functools.wraps(function)
    def validated(config: tp.Any) -> tp.Any:
        return function(config if isinstance(config, model) else model_method.receive_config(model, config))

    setattr(validated, schema.RECEIVES, kind)
    return validated
