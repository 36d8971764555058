"""The code that functions and objects lead to in a program: by the variables that it reads, and what these hold."""

from __future__ import annotations

import collections
import dis
import functools
import inspect
import itertools
import types
import typing as tp

from . import carried, model_schema
from .scalars import SCALARS

_MOST_ITEMS = 10_000  # of one container
_READ = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")


class Reached:
    """Functions and classes of one module that are reached, and ``names``: its globals that these read.

    ``read_by`` tells which globals the definition of a name reads, beside those that its functions do.
    """

    def __init__(self, module: str, read_by: tp.Callable[[str], tp.Iterable[str]] = lambda name: ()) -> None:
        self.functions: list[types.FunctionType] = []
        self.classes: list[type] = []
        self.names: set[str] = set()
        self._module = module
        self._read_by = read_by
        self._seen: dict[int, tp.Any] = {}  # kept: no other object gets its id

    def leave_out(self, values: tp.Iterable[tp.Any]) -> None:
        """Makes these lead to nothing."""
        self._seen.update((id(value), value) for value in values)

    def add(self, *values: tp.Any) -> None:
        """Adds what these lead to. It takes no recursion: a chain of objects may be long."""
        pending = list(values)
        while pending:
            value = pending.pop()
            if type(value) not in SCALARS and id(value) not in self._seen and not isinstance(value, types.ModuleType):
                self._seen[id(value)] = value
                pending += self._parts(value)

    def read(self, names: tp.Iterable[str], values: tp.Mapping[str, tp.Any]) -> None:
        """Adds what the globals of these names, which have these ``values``, lead to."""
        self.add(*self._values(names, values))

    def _values(self, names: tp.Iterable[str], values: tp.Mapping[str, tp.Any]) -> list[tp.Any]:
        pending, new = list(names), []
        while pending:
            name = pending.pop()
            if name not in self.names:
                self.names.add(name)
                new.append(values.get(name))
                pending += self._read_by(name)
        return new

    def _parts(self, value: tp.Any) -> tp.Iterable[tp.Any]:
        if isinstance(value, type):
            return self._parts_of_class(value) if value.__module__ == self._module else ()
        if inspect.isfunction(value):
            return self._parts_of_function(value)
        if inspect.ismethod(value):
            return value.__func__, value.__self__
        if isinstance(value, dict):
            return *_attributes(value, self._module), *_items(value.values())
        if isinstance(value, (list, tuple, set, frozenset, collections.deque)):
            return _items(value)
        if isinstance(value, functools.partial):
            return value.func, value.args, value.keywords
        return _attributes(value, self._module)

    def _parts_of_function(self, function: types.FunctionType) -> list[tp.Any]:
        defaults = function.__defaults__, function.__kwdefaults__
        parts = [getattr(function, "__wrapped__", None), *carried.captured_variables(function).values(), *defaults]
        names = function.__globals__
        if names.get("__name__") == self._module:
            self.functions.append(function)
            hints = function.__annotations__.values()
            parts += [names.get(hint) if isinstance(hint, str) else hint for hint in hints]
            parts += self._values(global_names(function.__code__), names)
        return parts

    def _parts_of_class(self, cls: type) -> list[tp.Any]:
        self.classes.append(cls)
        fields = model_schema.record_schema(cls).fields if model_schema.is_record(cls) else ()
        parts = [*cls.__bases__, *(each for _, expect, _ in fields for each in expect.classes)]
        for member in vars(cls).values():
            parts += functions_of_member(member) or [member]
        return parts


def _items(values: tp.Iterable[tp.Any]) -> list[tp.Any]:
    """What may lead on of a container: no data, of which there may be much."""
    return [value for value in itertools.islice(values, _MOST_ITEMS) if type(value) not in SCALARS]


def _attributes(value: tp.Any, module: str) -> tp.Iterable[tp.Any]:
    """The class and attributes of an object of the program, or that calls another; of those of libraries nothing."""
    cls = type(value)
    if cls.__module__ == module or carried.is_users_module(cls.__module__) or model_schema.is_record(cls):
        return cls, *_state(value)
    if carried.is_zen(value):
        return [vars(value)]
    wrapped = inspect.getattr_static(value, "__wrapped__", None)  # some objects have every attribute, or raise
    return () if wrapped is None else [value.__wrapped__]


def _state(value: tp.Any) -> list[tp.Any]:
    """What the attributes and slots of an object hold. A ``__getstate__`` of its own may leave out some."""
    state: tp.Any = object.__getstate__(value)
    parts = state if isinstance(state, tuple) else (state,)
    return [each for part in parts if part for each in part.values()]


def functions_of_member(member: tp.Any) -> list[tp.Any]:
    """The functions that the member of a class runs, below pydantic's decorators."""
    is_pydantics = type(member).__module__.startswith("pydantic.")
    return carried.functions_in(getattr(member, "wrapped", member) if is_pydantics else member)


@functools.lru_cache(maxsize=1024)  # of notebooks whose methods are called again and again
def global_names(code: types.CodeType) -> frozenset[str]:
    """The globals that a function or one inside it reads."""
    steps = (step for each in carried.nested_codes(code) for step in dis.get_instructions(each))
    return frozenset(step.argval for step in steps if step.opname in _READ)
