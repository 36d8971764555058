"""Typed configurations: which model or dataclass a task must fit, and what is wrong where it does not."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import typing as tp
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_exca import script
from hydra_exca.errors import ConfigError, Problem
from hydra_exca.identity import pydantic_types

if tp.TYPE_CHECKING:
    import pydantic

    from hydra_exca.infra.task import Decorated, TaskInfra

# what hydra_exca.main writes on the function it hands to Hydra
RECEIVES = "__exca_receives__"
METHOD = "__exca_method__"


@dataclasses.dataclass(frozen=True)
class Method:
    """A method as a program: a model of class ``kind`` is made of the configuration, and its ``name`` is called."""

    kind: type[pydantic.BaseModel]
    name: str

    def infra(self, model: pydantic.BaseModel) -> TaskInfra | None:
        """The infra of a model that has the method's results, None where the method has none."""
        decorated = self._decorated(model)
        return None if decorated is None else decorated.infra_of(model)

    def factory(self, model: pydantic.BaseModel) -> str:
        """The dotted name of what computes: the model's class and the method, as in its infra's cache."""
        infra = self.infra(model)
        if infra is not None:
            return infra.factory()
        cls = type(model)
        return f"{script.module_name(cls)}.{cls.__qualname__}.{self.name}".replace("<locals>.", "")

    def call(self, model: pydantic.BaseModel) -> tp.Any:
        """What the method returns, through its infra."""
        return getattr(model, self.name)()

    def compute(self, model: pydantic.BaseModel, folder: Path) -> tp.Any:
        """What the method itself returns, in a job that keeps the result in ``folder``.

        Through its infra it could wait for the entry that this very job is to fill.
        """
        decorated, infra = self._decorated(model), self.infra(model)
        if decorated is None or infra is None:
            return self.call(model)
        infra.folder = folder
        return decorated.method(model)

    def _decorated(self, model: pydantic.BaseModel) -> Decorated | None:
        from hydra_exca.infra.task import DECORATED  # a plain run of a plain function needs no clusters

        return getattr(getattr(type(model), self.name), DECORATED, None)


@dataclasses.dataclass(frozen=True)
class Schema:
    """What validates the tasks: ``kinds`` in turn; the function is handed the first if it ``receives`` it.

    ``method``: that model's method is the function.
    """

    kinds: tuple[type, ...] = ()
    receives: bool = False
    method: Method | None = None

    def problems(self, values: dict[str, tp.Any], config: tp.Callable[[], DictConfig]) -> list[Problem]:
        """Everything wrong with one task's resolved values, each with its key; ``config()`` is what they are of."""
        found: list[Problem] = []
        for kind in self.kinds:
            if pydantic_types.is_model_class(kind):
                found += model_problems(kind, values)
            else:
                found += _dataclass_problems(kind, values, config)
        return list(dict.fromkeys(found))

    def check(self, values: dict[str, tp.Any], config: DictConfig) -> None:
        """Raises ConfigError that lists every problem."""
        problems = self.problems(values, lambda: config)
        if problems:
            raise ConfigError("The configuration does not fit its schema; nothing was run.", problems)

    def model(self, values: dict[str, tp.Any]) -> pydantic.BaseModel:
        """The validated model that the function is handed."""
        return tp.cast("type[pydantic.BaseModel]", self.kinds[0]).model_validate(values)

    def speaker(self, values: tp.Callable[[], dict[str, tp.Any]]) -> pydantic.BaseModel | None:
        """The model that speaks for a task: what the function is handed, else one that has an infra, else None."""
        if self.receives:
            return self.model(values())
        kind: tp.Any = next((kind for kind in self.kinds if _main_infra(kind)), None)
        return None if kind is None else tp.cast("pydantic.BaseModel", kind.model_validate(values()))

    def infra(self, model: pydantic.BaseModel) -> TaskInfra | None:
        """The infra whose results these are too, None if the function is no method with one."""
        return None if self.method is None else self.method.infra(model)

    def version(self, model: pydantic.BaseModel) -> str | None:
        """The version that a model sets for its results, None if it sets none: that of the method's infra."""
        infra = self.infra(model)
        if infra is not None:
            return infra.version
        name = _main_infra(type(model))
        main = getattr(model, name) if name else None
        return main.version if main is not None and "version" in main.model_fields_set else None


def schema_of(function: tp.Any, named: str | None) -> Schema:
    """The schema of a task function: what it receives or is annotated with, and what ``named`` says."""
    received = getattr(function, RECEIVES, None)
    kinds = [received if received is not None else annotated(function)]
    if named:
        kinds.append(_import(named))
    known = tuple(kind for kind in kinds if kind is not None)
    return Schema(known, receives=received is not None, method=getattr(function, METHOD, None))


def annotated(function: tp.Any) -> type | None:
    """The pydantic model or dataclass that annotates the function's first argument, None if there is none."""
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        parameters = list(inspect.signature(function).parameters)
        hints = tp.get_type_hints(inspect.unwrap(target))
    except (TypeError, ValueError, NameError):
        return None
    kind = hints.get(parameters[0]) if parameters else None
    members = [each for each in tp.get_args(kind) if each is not type(None)]
    if len(members) == 1 and type(None) in tp.get_args(kind):  # Optional[Model]
        kind = members[0]
    return kind if is_schema(kind) else None


def allowed_missing() -> list[str]:
    """What ``hydra.launcher.allow_missing`` names, in a job or a plain run."""
    if not HydraConfig.initialized():
        return []
    return list(OmegaConf.select(tp.cast(DictConfig, HydraConfig.get()), "launcher.allow_missing") or [])


def without_missing(values: tp.Any) -> tp.Any:
    """Without leaves that may stay missing; in containers of its own, which a validator may change."""
    if isinstance(values, dict):
        return {
            key: without_missing(value)
            for key, value in values.items()
            if not (isinstance(value, str) and value == "???")
        }
    return list(map(_own, values)) if isinstance(values, list) else values


def _own(value: tp.Any) -> tp.Any:
    if isinstance(value, dict):
        return {key: _own(each) for key, each in value.items()}
    return list(map(_own, value)) if isinstance(value, list) else value


def is_schema(kind: tp.Any) -> bool:
    return isinstance(kind, type) and (pydantic_types.is_model_class(kind) or dataclasses.is_dataclass(kind))


def model_problems(kind: type[pydantic.BaseModel], values: dict[str, tp.Any]) -> list[Problem]:
    """What pydantic says against the values, each with the key in the configuration."""
    import pydantic  # whoever has no models starts without it

    try:
        kind.model_validate(values)
    except pydantic.ValidationError as error:
        return [_problem(detail, values) for detail in error.errors(include_url=False)]
    return []


def validate(kind: type[pydantic.BaseModel], values: dict[str, tp.Any], overrides: tp.Sequence[str]) -> tp.Any:
    """The model; raises ConfigError that lists every problem."""
    problems = model_problems(kind, values)
    if problems:
        found = [dataclasses.replace(problem, overrides=tuple(overrides)) for problem in problems]
        raise ConfigError(f"The configuration does not fit {kind.__qualname__}; nothing was run.", found)
    return kind.model_validate(values)


@functools.lru_cache(maxsize=256)
def _main_infra(kind: type) -> str:
    """The infra of a class that speaks for the whole: the one called so, else the only one; "" if there is none."""
    if not pydantic_types.is_model_class(kind):
        return ""
    from hydra_exca.infra.binding import class_infras

    names = list(class_infras(kind))
    called = [name for name in ("infra", "_infra") if name in names]
    return (called or names)[0] if called or len(names) == 1 else ""


def anchor(model: pydantic.BaseModel, folder: Path) -> None:
    """Lets relative folders of its infras count from ``folder``, wherever a job works."""
    from hydra_exca.infra.base import infras_in

    for _, infra in infras_in(model):
        if infra.folder is not None:
            infra.folder = folder / Path(infra.folder).expanduser()


def _problem(detail: tp.Any, values: dict[str, tp.Any]) -> Problem:
    key = _key(detail["loc"], values)
    shown = detail["input"]
    given = "" if detail["type"] == "missing" or isinstance(shown, (dict, list)) else f" (given: {shown!r})"
    return Problem(f"{detail['msg']}{given}", key)


def _key(location: tp.Sequence[tp.Any], values: tp.Any) -> str:
    """The dotted key of a place: pydantic also names members of unions there, which the configuration has not."""
    parts: list[str] = []
    for index, part in enumerate(location):
        inside = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if inside or (isinstance(values, dict) and part in values):
            values = values[part]
        elif index < len(location) - 1:
            continue
        parts.append(str(part))
    return ".".join(parts)


def _dataclass_problems(kind: tp.Any, values: dict[str, tp.Any], config: tp.Callable[[], DictConfig]) -> list[Problem]:
    """What is wrong by pydantic and by OmegaConf, which reads enums by name and knows ???: either may accept."""
    import pydantic

    try:
        adapter = pydantic.TypeAdapter(kind, config=None)
        adapter.validate_python(values)
        return []
    except pydantic.ValidationError as error:
        details = error.errors(include_url=False)
    except pydantic.PydanticUserError:
        details = []
    try:
        OmegaConf.merge(OmegaConf.structured(kind), config())
        return []
    except OmegaConfBaseException as error:
        own = Problem(str(error).splitlines()[0], str(error.full_key or ""))
    except (ValueError, TypeError):
        return []  # a dataclass that neither can read says nothing about the configuration
    return [_problem(detail, values) for detail in details] or [own]


def _import(name: str) -> type:
    """The class that ``hydra.launcher.schema`` names, in a module or in the script itself."""
    module_name, _, attribute = name.rpartition(".")
    try:
        module: tp.Any = _script_module(module_name) or importlib.import_module(module_name)
        kind = getattr(module, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise _schema_error(f"{name!r} cannot be imported: {error}") from error
    if not is_schema(kind):
        raise _schema_error(f"{name!r} is no pydantic model and no dataclass, but {kind!r}")
    return tp.cast(type, kind)


def _script_module(name: str) -> tp.Any:
    import sys

    main = sys.modules.get("__main__")
    probe = type("probe", (), {"__module__": "__main__"})
    return main if name in ("", "__main__", script.module_name(probe)) else None


def _schema_error(message: str) -> ConfigError:
    return ConfigError("The schema cannot be used; nothing was run.", [Problem(message, "hydra.launcher.schema")])
