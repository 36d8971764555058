"""Typed configurations: the model or dataclass that a task must fit, and what is wrong if it does not."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
import typing as tp
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_exca import script
from hydra_exca.errors import ConfigError, Problem
from hydra_exca.identity import pydantic_types
from hydra_exca.identity.redaction import DEFAULT

from .configs.tree import MISSING, map_leaves

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
        """The infra of a model that has the method's results, None if the method has none."""
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
    """The classes that validate the tasks. The function is handed an object of the first if it ``receives`` one.

    ``method`` is set if the function is a method of that class. Resolved values of a task may be ``???`` if allowed.
    """

    kinds: tuple[type, ...] = ()
    receives: bool = False
    method: Method | None = None

    def problems(self, values: dict[str, tp.Any], config: tp.Callable[[], DictConfig]) -> list[Problem]:
        """Everything wrong with one task's values, each with its key; ``config()`` is what they were resolved from."""
        problems: list[Problem] = []
        for kind in self.kinds:
            if pydantic_types.is_model_class(kind):
                problems += model_problems(kind, without_missing(values))
            else:
                problems += _dataclass_problems(kind, without_missing(values), config)
        return list(dict.fromkeys(problems))

    def model(self, values: dict[str, tp.Any]) -> pydantic.BaseModel:
        """The validated model that the function is handed."""
        return tp.cast("type[pydantic.BaseModel]", self.kinds[0]).model_validate(without_missing(values))

    def identifying_model(self, values: tp.Callable[[], dict[str, tp.Any]]) -> pydantic.BaseModel | None:
        """The model that identifies the task: what the function is handed, else the first with an infra, else None."""
        if self.receives:
            return self.model(values())
        kind: tp.Any = next((kind for kind in self.kinds if _main_infra(kind)), None)
        return None if kind is None else tp.cast("pydantic.BaseModel", kind.model_validate(without_missing(values())))

    def infra(self, model: pydantic.BaseModel) -> TaskInfra | None:
        """The infra that shares the results with the sweep; None if the function is not a method with an infra."""
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
    kinds = (received or annotated(function), _import_schema(named) if named else None)
    present = tuple(kind for kind in kinds if kind is not None)
    return Schema(present, receives=received is not None, method=getattr(function, METHOD, None))


def annotated(function: tp.Any) -> type | None:
    """The pydantic model or dataclass that annotates the function's first argument, None if there is none."""
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        parameters = list(inspect.signature(function).parameters)
        hints = tp.get_type_hints(inspect.unwrap(target))
    except (TypeError, ValueError, NameError):
        return None
    kind = hints.get(parameters[0]) if parameters else None
    members = set(tp.get_args(kind))
    if len(members) == 2 and type(None) in members:  # Optional[Model]
        (kind,) = members - {type(None)}
    return kind if is_schema(kind) else None


def without_missing(values: tp.Any) -> tp.Any:
    """Without keys of mappings whose value is ``???``; in containers of its own, which a validator may change."""
    if not isinstance(values, dict):
        return map_leaves(values, lambda leaf: leaf)
    present = ((key, value) for key, value in values.items() if not (isinstance(value, str) and value == MISSING))
    return {key: without_missing(value) for key, value in present}


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


def _dataclass_problems(kind: tp.Any, values: dict[str, tp.Any], config: tp.Callable[[], DictConfig]) -> list[Problem]:
    """The values fit if pydantic accepts them, or OmegaConf does, which reads enums by name and knows ``???``."""
    import pydantic

    problems = []
    try:
        pydantic.TypeAdapter(kind).validate_python(values)
        return []
    except pydantic.ValidationError as error:
        problems = [_problem(detail, values) for detail in error.errors(include_url=False)]
    except pydantic.PydanticUserError:
        pass
    try:
        OmegaConf.merge(OmegaConf.structured(kind), config())
    except OmegaConfBaseException as error:
        return problems or [Problem(str(error).splitlines()[0], str(error.full_key or ""))]
    except (ValueError, TypeError):
        pass  # a dataclass that OmegaConf cannot read says nothing about the configuration
    return []


def _problem(detail: tp.Any, values: dict[str, tp.Any]) -> Problem:
    given, key = detail["input"], _dotted_key(detail["loc"], values)
    is_shown = detail["type"] != "missing" and not isinstance(given, (dict, list, tuple)) and not DEFAULT.is_secret(key)
    return Problem(f"{detail['msg']} (given: {given!r})" if is_shown else detail["msg"], key)


def _dotted_key(location: tp.Sequence[tp.Any], values: tp.Any) -> str:
    """The key of a place in the values: pydantic also names the members of unions there, which are no keys."""
    parts: list[str] = []
    for index, part in enumerate(location):
        is_index = isinstance(values, (list, tuple)) and isinstance(part, int) and part < len(values)
        if is_index or (isinstance(values, dict) and part in values):
            values = values[part]
        elif index < len(location) - 1:
            continue
        parts.append(str(part))
    return ".".join(parts)


def _main_infra(kind: type) -> str:
    """The name of a class's main infra: ``infra`` or ``_infra``, else the only one; "" if there is none."""
    if not pydantic_types.is_model_class(kind):
        return ""
    from hydra_exca.infra.binding import class_infras

    names = list(class_infras(kind))
    called = [name for name in ("infra", "_infra") if name in names]
    return (called or names)[0] if called or len(names) == 1 else ""


def _import_schema(name: str) -> type:
    """The class that ``hydra.launcher.schema`` names, in a module or in the script itself."""
    module_name, _, attribute = name.rpartition(".")
    try:
        is_script = module_name in ("", "__main__", script.main_name())
        module: tp.Any = sys.modules["__main__"] if is_script else importlib.import_module(module_name)
        kind = getattr(module, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise _invalid_schema(f"{name!r} cannot be imported: {error}") from error
    if not is_schema(kind):
        raise _invalid_schema(f"{name!r} is neither a pydantic model nor a dataclass: {kind!r}")
    return tp.cast(type, kind)


def _invalid_schema(message: str) -> ConfigError:
    return ConfigError("The schema cannot be used; nothing was run.", [Problem(message, "hydra.launcher.schema")])
