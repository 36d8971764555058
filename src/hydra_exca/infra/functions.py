"""with_infra: a function whose calls are tasks, each the `build` of a pydantic model that holds its arguments."""

from __future__ import annotations

import functools
import inspect
import logging
import types
import typing as tp
import warnings

import pydantic

from hydra_exca.text import log_once

from .task import TaskInfra

log = logging.getLogger("exca.helpers")
P = tp.ParamSpec("P")
R = tp.TypeVar("R")
R_co = tp.TypeVar("R_co", covariant=True)


class Config(tp.Protocol[R_co]):
    """The arguments of a call, as a pydantic model: ``build()`` is the call."""

    infra: TaskInfra

    def build(self) -> R_co: ...


class FunctionWithInfra(tp.Protocol[P, R_co]):
    """A function that `with_infra` has decorated. ``__wrapped__`` is the function itself."""

    __name__: str

    @property
    def __wrapped__(self) -> tp.Callable[P, R_co]: ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def config(self, *args: P.args, **kwargs: P.kwargs) -> Config[R_co]: ...


def with_infra(**infra: tp.Any) -> tp.Callable[[tp.Callable[P, R]], FunctionWithInfra[P, R]]:
    """Gives a function whose parameters are annotated a cache and a cluster, with the settings of TaskInfra.

        @with_infra(folder="results", cluster="local")
        def simulate(a: int, b: float = 2.0) -> float: ...

        simulate(a=3)  # computed once; keywords only
        config = simulate.config(a=3)  # the same as a pydantic model
        config.infra.status(), config.infra.job(), config.build()

    Results are known by the function's dotted name and by the arguments that differ from their defaults; the code
    does not count: give another ``version`` when it computes something else. Arguments are converted to their
    annotations. Each call is an object of its own: ``keep_in_ram`` and ``mode="force"`` hold for one config.
    """

    def decorate(function: tp.Callable[P, R]) -> FunctionWithInfra[P, R]:
        signature = _signature(function)
        model = _model(function, signature, TaskInfra(**infra))

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> tp.Any:
            return _call(model, signature, args, kwargs)

        vars(call).update(config=model, __signature__=signature)
        return tp.cast("FunctionWithInfra[P, R]", call)

    return decorate


class _FunctionCall(pydantic.BaseModel):
    """The base class of the models of all functions."""

    model_config = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())

    def __new__(cls, /, *args: tp.Any, **_: tp.Any) -> tp.Self:  # type: ignore[name-defined,unused-ignore]
        _refuse_positional(cls.__qualname__, cls.model_fields, args)
        return super().__new__(cls)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _complete(cls, data: tp.Any) -> tp.Any:
        """Validates given settings of the infra together with those of the function's infra."""
        given = data.get("infra") if isinstance(data, dict) else None
        if not isinstance(given, dict):
            return data
        return {**data, "infra": {**cls.model_fields["infra"].default.settings(), **given}}


def _call(
    model: type[_FunctionCall], signature: inspect.Signature, args: tuple[tp.Any, ...], kwargs: dict[str, tp.Any]
) -> tp.Any:
    name = model.__name__
    _refuse_positional(name, signature.parameters, args)
    try:
        signature.bind(**kwargs)
    except TypeError as error:
        raise TypeError(f"{name}(): {error}") from None
    config: tp.Any = model(**kwargs)
    if config.infra.folder is None and config.infra.cluster is None:
        log_once(
            log,
            logging.WARNING,
            "exca: %s just computes: with_infra does nothing without a folder. Give it one, or remove it",
            f"{model.__module__}.{name}",
        )
    return config.build()


def _refuse_positional(name: str, parameters: tp.Iterable[str], args: tuple[tp.Any, ...]) -> None:
    if args:
        named = ", ".join(f"{parameter}=..." for parameter, _ in zip(parameters, args, strict=False))
        raise TypeError(f"{name}() takes keywords only, as its results are known by them: {name}({named})")


def _model(function: tp.Callable[..., tp.Any], signature: inspect.Signature, infra: TaskInfra) -> type[_FunctionCall]:
    """The class of a function's calls. Whoever asks for it by name, say a pickle, finds it as ``function.config``."""
    parameters = signature.parameters.values()

    def build(self: _FunctionCall) -> tp.Any:
        return function(**{name: getattr(self, name) for name in signature.parameters})

    name = f"{function.__qualname__}.config"
    build.__module__, build.__qualname__ = function.__module__, f"{name}.build"
    namespace = {
        "__module__": function.__module__,
        "__qualname__": name,
        "__doc__": function.__doc__,
        "__annotations__": {**{parameter.name: parameter.annotation for parameter in parameters}, "infra": TaskInfra},
        **{parameter.name: _default(parameter) for parameter in parameters if parameter.default is not parameter.empty},
        "infra": infra,
        "build": infra.apply(build),
        "_exca_function": function,
    }
    with warnings.catch_warnings():  # a parameter may have the name of one of pydantic's older methods: copy, json
        warnings.filterwarnings("ignore", message="Field name .* shadows an attribute", category=UserWarning)
        return types.new_class(function.__name__, (_FunctionCall,), exec_body=lambda empty: empty.update(namespace))


def _default(parameter: inspect.Parameter) -> tp.Any:
    """Converted like what is given: with ``b: float = 2`` a call without b is the one with ``b=2``."""
    given = parameter.default
    return given if isinstance(given, pydantic.fields.FieldInfo) else pydantic.Field(given, validate_default=True)


# -- what can be decorated --------------------------------------------------------------------------------------------


def _signature(function: tp.Callable[..., tp.Any]) -> inspect.Signature:
    """The signature of the decorated function. Raises TypeError if its calls cannot be identified or stored."""
    if not inspect.isfunction(function) or function.__name__ == "<lambda>":
        raise TypeError(f"with_infra decorates a function that is written with def, and not {function!r}")
    config = getattr(function, "config", None)
    if isinstance(config, type) and issubclass(config, _FunctionCall):
        raise TypeError(f"{function.__qualname__} has an infra already: one with_infra has all settings")
    if any(is_of_kind(function) for is_of_kind in _NOT_STORED):
        raise TypeError(f"{function.__qualname__} gives a coroutine or a generator, which with_infra cannot store")
    signature = inspect.signature(function)
    names = inspect.unwrap(function).__globals__
    parameters = [
        _check_parameter(parameter, function.__qualname__, names) for parameter in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters)


_NOT_STORED = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _check_parameter(parameter: inspect.Parameter, function: str, names: dict[str, tp.Any]) -> inspect.Parameter:
    """The parameter as it is given from now on: by keyword, with the type that its annotation means."""
    name, what = parameter.name, f"parameter {parameter.name!r} of {function}"
    if parameter.kind not in _NAMED:
        raise TypeError(f"{what} takes what has no name: with_infra knows calls by their named arguments")
    if (
        name in ("infra", "build")
        or name.startswith("_")
        or (name.startswith("model_") and hasattr(_FunctionCall, name))
    ):
        raise TypeError(f"{what} has a name that with_infra uses itself: give it another one")
    if parameter.annotation is parameter.empty:
        raise TypeError(f"{what} has no annotation, and with_infra converts and compares arguments by it: add a type")
    hint = _resolve_annotation(parameter.annotation, what, names)
    if parameter.default is None:  # ``x: int = None`` means what it does elsewhere
        hint = hint | None
    return parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hint)


def _resolve_annotation(annotation: tp.Any, what: str, names: dict[str, tp.Any]) -> tp.Any:
    stand_in = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return tp.get_type_hints(stand_in, names, include_extras=True)["it"]
    except NameError as error:
        raise TypeError(
            f"{what} is annotated {annotation!r}, and {error}, at least not above it in its module: with_infra needs "
            "the type when it decorates. Import or define it before"
        ) from error
