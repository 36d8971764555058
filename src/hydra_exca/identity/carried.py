"""What a function carries beside its name, and so beside the configuration: it counts in the identity.

Arguments of a partial, captured variables, the state of a method's or callable object, the code of a function that no
name tells apart. Modules, loggers, and what functions of libraries carry never count.
"""

from __future__ import annotations

import ast
import collections
import collections.abc
import enum
import functools
import inspect
import logging
import struct
import sys
import sysconfig
import types
import typing as tp
from pathlib import Path

from hydra_exca import script
from hydra_exca.errors import ConfigError, Problem

from . import canonical, model_schema, pydantic_types
from .scalars import Json, class_name

_Part: tp.TypeAlias = tuple[str, str, tp.Any]  # its key in the identity, its name in an option, and the value


def factory_name(function: tp.Any) -> str:
    """The dotted name of what computes: module as ``python -m`` spells it, and function; a callable object's class.

    Decorators, functools.partial and hydra-zen's ``zen`` are looked through.
    """
    named = target_of(function)
    return f"{_module_of(named)}.{named.__qualname__}".replace("<locals>.", "").replace("<lambda>", "lambda")


def target_of(function: tp.Any) -> tp.Any:
    """The function that is called in the end, without decorators and arguments; a callable object's class."""
    *_, target = layers(function)
    return target if hasattr(target, "__qualname__") else type(target)


def _module_of(named: tp.Any) -> str:
    if getattr(named, "__module__", None) is None and _is_function_of_module(named):
        return type(named.__self__).__module__
    return script.module_name(named if hasattr(named, "__module__") else named.__objclass__)  # str.join is in no module


def carried_values(
    function: tp.Any,
    left_out: tp.Callable[[str], bool] = lambda name: False,
    convert: tp.Callable[[tp.Any], tp.Any] = lambda value: value,
) -> dict[str, Json]:
    """The canonical forms of what a function carries; empty for one that a module defines.

    ``left_out("log")`` tells whether the value of that name does not count. ``convert`` gives plain values in place of
    those that have no canonical form, and other values as they are.

    Raises ConfigError that names all values without a canonical form.

    >>> carried_values(functools.partial(print, [1, 2], end=""))
    {'argument 0': [1, 2], 'argument end': ''}
    """
    reader = _CarriedReader(_module_of(target_of(function)), left_out, convert)
    return reader.without_problems(reader.function_forms(function, ""))


def captured_values(functions: tp.Iterable[types.FunctionType]) -> dict[str, Json]:
    """The canonical forms of the variables that these nested functions have captured; empty for those of a module.

    Raises ConfigError that names all values without a canonical form.
    """
    parts: list[_Part] = []
    for function in functions:
        for name, value in captured_variables(function).items():
            # a class and its parent may capture different variables of one name
            if not any(name == known and value is part for _, known, part in parts):
                number = sum(name == known for _, known, _ in parts)
                parts.append((f"captured {name}" + number * "'", name, value))
    reader = _CarriedReader()
    return reader.without_problems(reader.named_forms(parts, ""))


def value_form(value: tp.Any) -> Json:
    """The form of a value as of one that a function carries, None if it has none."""
    reader = _CarriedReader()
    form = reader.named_forms([("value", "value", value)], "").get("value")
    return None if reader.problems else form


def value_forms(
    values: tp.Mapping[str, tp.Any],
    left_out: tp.Callable[[str], bool],
    convert: tp.Callable[[tp.Any], tp.Any],
) -> dict[str, Json]:
    """The canonical forms of values of the script, as those that its functions carry: see `carried_values`.

    Raises ConfigError that names all values without a canonical form.
    """
    reader = _CarriedReader(script.main_name(), left_out, convert)
    return reader.without_problems(reader.named_forms([(name, name, value) for name, value in values.items()], ""))


@model_schema.cached_per_class
def capturing_functions(cls: type) -> tuple[types.FunctionType, ...]:
    """The functions of a class that have captured variables: of one that a module defines, none."""
    functions = []
    for base in cls.__mro__:
        for member in vars(base).values() if "<" in base.__qualname__ else ():
            function = inspect.unwrap(member) if callable(member) else None
            # pydantic and dataclasses add functions of their own
            if inspect.isfunction(function) and function.__globals__.get("__name__") == base.__module__:
                functions.append(function)
    return tuple(function for function in functions if captured_variables(function))


class _CarriedReader:
    """Reads one function and the functions it carries. ``problems`` are the values without a canonical form."""

    def __init__(
        self,
        module: str = "",
        left_out: tp.Callable[[str], bool] = lambda name: False,
        convert: tp.Callable[[tp.Any], tp.Any] = lambda value: value,
    ) -> None:
        self.problems: list[Problem] = []
        self._own_module = module  # it may be installed among the libraries
        self._left_out = left_out
        self._convert = convert
        self._seen: dict[int, tuple[int, tp.Any]] = {}

    def without_problems(self, forms: dict[str, Json]) -> dict[str, Json]:
        """The forms. Raises ConfigError if a value of theirs has none."""
        if self.problems:
            raise ConfigError("captured variables and other values of a function have no identity", self.problems)
        return forms

    def function_forms(self, function: tp.Any, path: str) -> dict[str, Json]:
        forms: dict[str, Json] = {}
        for layer in layers(function):
            if self._counts_by_name(layer):
                continue
            holder = layer.__self__ if inspect.ismethod(layer) else layer
            is_by_name = isinstance(holder, type) or (is_routine(holder) and not getattr(holder, "__closure__", 0))
            number = None if is_by_name else self._number_if_seen(holder)
            if number is not None:
                return {**forms, "~seen": number}
            parts = _parts_of(layer, self._is_library)
            if any(key == "attribute self" and value is holder for key, _, value in parts):
                self._seen.pop(id(holder), None)  # it is read as a whole, below
            for key, value in self.named_forms(parts, path).items():
                free = key
                while free in forms:  # two decorators may give one name to what they capture
                    free += "'"
                forms[free] = value
        return forms

    def _counts_by_name(self, layer: tp.Any) -> bool:
        """Whether it is a function of a library: no method of an object, which may hold anything."""
        if not is_routine(layer) or hasattr(layer, "__wrapped__"):
            return False
        owner = getattr(layer, "__self__", None)
        if owner is None or isinstance(owner, (type, types.ModuleType)):
            return self._is_library(layer)
        return _is_function_of_module(layer) and self._is_library(type(owner))

    def named_forms(self, parts: tp.Iterable[_Part], path: str) -> dict[str, Json]:
        forms = {}
        for key, name, value in parts:
            if self._left_out(f"{path}{name}"):
                continue
            try:
                forms[key] = self.form(value, f"{path}{name}")
            except _NeverCountsError:
                continue
        return forms

    def form(self, value: tp.Any, path: str) -> Json:
        """The form of a value. If it has none, that is one more of the problems, and the forms are not used."""
        value = self._convert(value)
        if type(value) is dict:
            value = {key: part for key, part in value.items() if not self._left_out(f"{path}.{key}")}
        if isinstance(value, _NEVER_COUNTED):
            raise _NeverCountsError
        if is_routine(value) or isinstance(value, functools.partial) or is_zen(value):
            return {"function": factory_name(value), **self.function_forms(value, f"{path}.")}
        try:
            form = canonical.canonical(value)
            local = sorted(set(_local_classes(value)), key=_name_of)
            return {"~local": [form, *(self.form(cls, path) for cls in local)]} if local else form
        except ConfigError as error:
            number = self._number_if_seen(value)
            if number is not None:
                return {"~seen": number}
            form = self._parts_form(value, path)
            if form is None:  # never that of a None, which has a canonical form
                below = error.problems[0].key
                message = f"a {class_name(type(value))} has no canonical form"
                self.problems.append(Problem(message, f"{path}.{below}" if below else path))
            return form

    def _number_if_seen(self, value: tp.Any) -> int | None:
        """Its number if it was met before: functions call themselves, objects refer to one another."""
        if id(value) in self._seen:
            return self._seen[id(value)][0]
        self._seen[id(value)] = len(self._seen), value  # kept: no other object gets its id
        return None

    def _parts_form(self, value: tp.Any, path: str) -> Json:
        """The form of a value by those of its parts, None if that is not all there is to it."""
        if isinstance(value, type):
            parts = [] if self._is_library(value) else _class_parts(value, self._is_library)
            return {"class": _name_of(value), **self.named_forms(parts, f"{path}.")}
        if type(value) in (list, tuple):
            items = [(str(index), str(index), each) for index, each in enumerate(value)]
            forms = self.named_forms(items, f"{path}.")
            return [forms.get(key, _UNCOUNTED) for key, _, _ in items]  # the others keep their places
        if type(value) is dict and all(type(key) is str for key in value):
            return self.named_forms([(canonical.escape_key(key), key, each) for key, each in value.items()], f"{path}.")
        state = _state_of(value)
        if state is None:
            return None
        parts = _local_class(type(value)) + _attributes(state)
        return {"object": _name_of(type(value)), **self.named_forms(parts, f"{path}.")}

    def _is_library(self, value: tp.Any) -> bool:
        """Whether a function or class comes with Python or with an installed package that is not the program's own."""
        if isinstance(value, (types.MethodDescriptorType, types.WrapperDescriptorType)):
            value = value.__objclass__
        names = getattr(value, "__globals__", {})  # a decorator's function claims the module of what it decorates
        return _is_library_module(str(names.get("__name__") or getattr(value, "__module__", None)), self._own_module)


def is_users_module(name: str) -> bool:
    """Whether a module that is loaded is neither Python's nor of an installed package."""
    return getattr(sys.modules.get(name), "__file__", None) is not None and not _is_library_module(
        name, script.main_name()
    )


def _is_library_module(name: str, own: str) -> bool:
    """Whether a module comes with Python or with an installed package, and not with that of the module ``own``."""
    package = name.partition(".")[0]
    if package == own.partition(".")[0] or package in _OURS:
        return package in _OURS
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return name in sys.builtin_module_names
    return any(Path(file).is_relative_to(folder) for folder in _library_folders())


_OURS = ("hydra", "hydra_exca", "hydra_plugins", "hydra_zen")  # libraries, even if installed as links to their sources
_UNCOUNTED = {"~uncounted": None}  # a module or logger in a list
_NEVER_COUNTED = (types.ModuleType, logging.Logger, logging.LoggerAdapter)


class _NeverCountsError(Exception):
    """Raised for modules and loggers."""


# -- the layers around a function --------------------------------------------------------------------------------------


def layers(function: tp.Any) -> tp.Iterator[tp.Any]:
    """From the outermost decorator, partial or method to the function itself."""
    while True:
        yield function
        if isinstance(function, functools.partial) or is_zen(function):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif _is_wrapper(function) and not isinstance(function, type):
            function = function.__wrapped__
        else:
            return


def _is_wrapper(function: tp.Any) -> bool:
    """Whether it is a decorator's. Objects with a ``__getattr__`` are not asked: some have every name, or raise."""
    return inspect.getattr_static(function, "__wrapped__", None) is not None


def _is_function_of_module(method: tp.Any) -> bool:
    """Whether a module has the method of an object under its name, as ``random.random``: to its users a function."""
    module = getattr(method, "__module__", None) or type(getattr(method, "__self__", None)).__module__
    name = str(getattr(method, "__name__", None))  # of an object that is bound as a method, there is none
    named = vars(sys.modules[module]).get(name) if module in sys.modules else None
    return type(named) is type(method) and bool(named == method)


def _parts_of(layer: tp.Any, is_library: tp.Callable[[tp.Any], bool]) -> list[_Part]:
    """What one layer carries itself."""
    if isinstance(layer, functools.partial):
        arguments = (*enumerate(layer.args), *layer.keywords.items())
        return [(f"argument {name}", str(name), value) for name, value in arguments]
    if is_zen(layer):
        return _zen_parts(layer)
    if inspect.ismethod(layer):
        return _method_parts(layer)
    if isinstance(layer, type):
        return _local_class(layer)
    if _is_wrapper(layer):
        return _wrapper_parts(layer, is_library)
    if inspect.isfunction(layer):
        return _function_parts(layer)
    if inspect.isbuiltin(layer) or isinstance(layer, types.MethodWrapperType):
        owner = layer.__self__
        return [] if owner is None or isinstance(owner, types.ModuleType) else _whole(owner)
    return _object_parts(layer)


def _object_parts(layer: tp.Any) -> list[_Part]:
    """The state of a callable object."""
    state = _state_of(layer)
    if state is None and is_routine(layer):  # a compiled function has a name, other objects with a __get__ none
        return [] if hasattr(layer, "__qualname__") else _whole(object())
    return _whole(layer) if state is None else _local_class(type(layer)) + _attributes(state)


def _whole(value: tp.Any) -> list[_Part]:
    return [("attribute self", "self", value)]


def _attributes(state: tp.Mapping[str, tp.Any]) -> list[_Part]:
    return [(f"attribute {name}", name, value) for name, value in state.items()]


def _method_parts(method: types.MethodType) -> list[_Part]:
    """The state of the object that a method is bound to, and its class where the method's name does not say it."""
    owner: tp.Any = method.__self__
    cls = owner if isinstance(owner, type) else type(owner)
    is_own = getattr(method.__func__, "__qualname__", "").rpartition(".")[0] == cls.__qualname__
    parts: list[_Part] = _local_class(cls) if is_own else [("class", "class", cls)]
    if isinstance(owner, (type, *_NEVER_COUNTED)):
        return parts
    state = _attributes_and_slots(owner) if model_schema.is_record(cls) else _state_of(owner)
    return parts + (_whole(owner) if state is None else _attributes(state))


def _wrapper_parts(function: tp.Any, is_library: tp.Callable[[tp.Any], bool]) -> list[_Part]:
    """A decorator's code, and what it has captured; of a library's one only hydra-zen's object."""
    parts: list[_Part] = []
    if inspect.isfunction(function):
        held, from_library = captured_variables(function), is_library(function)
        if not from_library:  # its name is that of the function it is around
            parts.append(("code", "code", code_digest(function)))
    else:
        state = _state_of(function) or {}
        held = {name: value for name, value in state.items() if name not in functools.WRAPPER_ASSIGNMENTS}
        from_library = is_library(type(function))
        if not from_library:
            parts.append(("class", "class", type(function)))
    for name, value in held.items():
        if is_zen(value):
            parts += _zen_parts(value)
        elif value is not function.__wrapped__ and not from_library:
            parts.append((f"captured {name}", name, value))
    return parts


def _function_parts(function: types.FunctionType) -> list[_Part]:
    """Nothing of a function that a module defines: its name says which one it is."""
    if "<" not in function.__qualname__:
        return []
    parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
    defaults = [
        (f"default {each.name}", each.name, each.default) for each in parameters if each.default is not each.empty
    ]
    captured = [(f"captured {name}", name, value) for name, value in captured_variables(function).items()]
    return [("code", "code", code_digest(function)), *captured, *defaults]


def captured_variables(function: types.FunctionType) -> dict[str, tp.Any]:
    captured = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            captured[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    captured.pop("__class__", None)  # of a method that says super()
    return captured


_ZEN_DERIVED = ("func", "parameters", "pre_call", "_has_zen_cfg", "_run_in_context")
_ZEN_DEFAULTS = {
    "_resolve": True,
    "_unpack_kwargs": False,
    "_exclude": set(),
    "_instantiation_wrapper": None,
    "_pre_call_iterable": (None,),
}


def is_zen(value: tp.Any) -> bool:
    """Whether it is a function in hydra-zen's ``zen``."""
    return any(cls.__name__ == "Zen" and cls.__module__.startswith("hydra_zen.") for cls in type(value).__mro__)


def _zen_parts(zen: tp.Any) -> list[_Part]:
    """What runs before the function, and what else is not as ``zen(function)`` has it."""
    counted = {name: value for name, value in vars(zen).items() if name not in _ZEN_DERIVED}
    parts: list[_Part] = [
        (f"zen {name.lstrip('_')}", name.lstrip("_"), value)
        for name, value in counted.items()
        if name not in _ZEN_DEFAULTS or value != _ZEN_DEFAULTS[name]
    ]
    is_subclass = not type(zen).__module__.startswith("hydra_zen.")
    return [*parts, ("class", "class", type(zen))] if is_subclass else parts


# -- objects and names -------------------------------------------------------------------------------------------------


def _state_of(value: tp.Any) -> dict[str, tp.Any] | None:
    """The attributes of an object, None if they may not be all of its state: it says itself how it is pickled.

    A ``__getstate__`` says nothing: it may leave out what a method reads.
    """
    cls = type(value)
    if cls is types.SimpleNamespace:
        return dict(vars(value))
    if any(getattr(cls, name) is not getattr(object, name) for name in ("__reduce_ex__", "__reduce__")):
        return None
    if hasattr(cls, "__getnewargs__") or hasattr(cls, "__getnewargs_ex__"):
        return None
    if cls.__dictoffset__ == 0 and all("__slots__" not in vars(each) for each in cls.__mro__):
        return None  # of a type that is not written in Python, and object() itself
    return _attributes_and_slots(value)


def _attributes_and_slots(value: tp.Any) -> dict[str, tp.Any] | None:
    """All attributes of an object, None if it has state that Python does not see, or items."""
    cls = type(value)
    pointers = sum(map(_slot_count, cls.__mro__)) + (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0)
    if cls.__itemsize__ or cls.__basicsize__ > object.__basicsize__ + pointers * struct.calcsize("P"):
        return None  # pickle looks for this, too, but not if there is a __getstate__
    state: tp.Any = object.__getstate__(value)
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    if pydantic_types.is_model_class(cls):  # as in a configuration: no private attributes, nor which fields were set
        slots = slots["__pydantic_extra__"]
    return {**(attributes or {}), **(slots or {})}


def _slot_count(cls: type) -> int:
    slots = vars(cls).get("__slots__", ())
    return len({slots} if isinstance(slots, str) else set(slots) - {"__dict__", "__weakref__"})


def _local_class(cls: type) -> list[_Part]:
    """The class of an object, if its name does not tell it apart."""
    return [("class", "class", cls)] if "<" in cls.__qualname__ else []


def _local_classes(value: tp.Any) -> tp.Iterator[type]:
    """The classes of the parts of a value that has a canonical form, if their names do not tell them apart."""
    cls = type(value)
    if "<" in cls.__qualname__:
        yield cls
    if isinstance(value, collections.abc.Mapping):
        parts: tp.Iterable[tp.Any] = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        parts = value
    else:
        parts = ((_attributes_and_slots(value) or {}) if model_schema.is_record(cls) else {}).values()
    for part in parts:
        yield from _local_classes(part)


def _class_parts(cls: type, is_library: tp.Callable[[tp.Any], bool]) -> list[_Part]:
    """What a class defines, and its bases; nothing of one that a module defines."""
    if "<" not in cls.__qualname__:
        return []
    parts: list[_Part] = [("bases", "bases", cls.__bases__)] if cls.__bases__ != (object,) else []
    members = dict(vars(cls))
    if issubclass(cls, enum.Enum):
        members.update({name: member.value for name, member in cls.__members__.items()})
    for name, member in members.items():
        is_pythons = name == "_abc_impl" or (name.startswith("_") and name.endswith("_"))  # those of an enum, too
        functions = functions_in(member)
        if functions and not (is_pythons and any(_is_added(function, is_library) for function in functions)):
            parts.append((f"code {name}", name, functions))
        elif not is_pythons and not functions and not inspect.isdatadescriptor(member):
            parts.append((f"attribute {name}", name, member))
    return parts


def _is_added(function: tp.Any, is_library: tp.Callable[[tp.Any], bool]) -> bool:
    """Whether Python or a library has added it to a class: a generated function is in no file."""
    code = getattr(function, "__code__", None)
    return is_library(function) or (code is not None and code.co_filename == "<string>")


def is_routine(value: tp.Any) -> bool:
    """Whether it is a function or a method of any kind: for Python 3.14 a partial is one, which has a ``__get__``."""
    return inspect.isroutine(value) and not isinstance(value, functools.partial)


def functions_in(member: tp.Any) -> list[tp.Any]:
    """The functions that the member of a class runs."""
    if inspect.isfunction(member):
        return [member]
    if isinstance(member, property):
        return [member.fget, member.fset, member.fdel]
    if isinstance(member, (staticmethod, classmethod)):
        return [member.__func__]
    return [member.func] if isinstance(member, _WITH_FUNC) else []


_WITH_FUNC = (functools.cached_property, functools.partialmethod, functools.singledispatchmethod)


def _name_of(cls: type) -> str:
    return f"{script.module_name(cls)}.{cls.__qualname__}"


@functools.cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))


# -- code --------------------------------------------------------------------------------------------------------------


def code_digest(function: types.FunctionType) -> str:
    """A digest of what a function does: of its syntax tree, which no version of Python and no run changes.

    Where its source cannot be had, or is not what runs, that of its instructions.
    """
    node = _syntax_tree(function)
    return canonical.digest(_instructions(function.__code__) if node is None else _tree_form(node))


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def _syntax_tree(function: types.FunctionType) -> ast.AST | None:
    """The definition that a function was compiled from; None if its file is gone, or was edited since it was loaded."""
    code = function.__code__
    try:
        lines, _ = inspect.findsource(function)
        tree, codes = _parse("".join(lines))
    except (OSError, SyntaxError, TypeError, ValueError):
        return None
    if code not in codes:
        return None
    named = [node for node in ast.walk(tree) if isinstance(node, _DEFINITIONS) and _starts(node, code)]
    fitting = [node for node in named if len(named) == 1 or _is_compiled_from(code, node)]
    return min(fitting, key=_extent, default=None)


@functools.lru_cache(maxsize=1)  # the methods of a local class are in one file, which takes 30 ms per 1000 lines
def _parse(text: str) -> tuple[ast.AST, frozenset[types.CodeType]]:
    return ast.parse(text), frozenset(nested_codes(compile(text, "", "exec", dont_inherit=True)))


def _starts(node: tp.Any, code: types.CodeType) -> bool:
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
    return first == code.co_firstlineno and getattr(node, "name", "<lambda>") == code.co_name


def _is_compiled_from(code: types.CodeType, node: tp.Any) -> bool:
    """Whether all instructions lie in the body: it tells apart two lambdas of one line."""
    body = node.body if isinstance(node.body, list) else [node.body]
    start = body[0].lineno, body[0].col_offset
    end = body[-1].end_lineno, body[-1].end_col_offset
    places = [(line, column) for line, _, column, _ in code.co_positions() if line is not None and column]
    return all(start <= place <= end for place in places)


def _extent(node: tp.Any) -> tuple[int, int]:
    return node.end_lineno - node.lineno, node.end_col_offset - node.col_offset


def nested_codes(code: types.CodeType) -> tp.Iterator[types.CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from nested_codes(each)


def _tree_form(node: tp.Any) -> Json:
    """A syntax tree as plain JSON, without what one version of Python writes and another does not: empty fields."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if name not in ("ctx", "kind", "type_comment")]
        if isinstance(node, ast.JoinedStr):  # Python 3.12 ends some with an empty text
            fields = [("values", [each for each in node.values if getattr(each, "value", None) != ""])]
        return [type(node).__name__, *([name, _tree_form(value)] for name, value in fields if value not in (None, []))]
    return [_tree_form(each) for each in node] if isinstance(node, list) else canonical.canonical(node)


def _instructions(code: types.CodeType) -> Json:
    constants = [_instructions(each) if isinstance(each, types.CodeType) else each for each in code.co_consts]
    return canonical.canonical([code.co_code.hex(), code.co_names, constants])
