"""The code that was typed into a notebook or console: it is in no file, and changes while the process lives on.

Of it counts what a task reaches: functions and classes by their syntax trees, and the values of the variables that they
read, if these have a canonical form.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import inspect
import linecache
import types
import typing as tp

from hydra_exca import script

from . import canonical, carried, model_schema
from .scalars import Json

_MAIN = "__main__"
_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")
_CONSOLES = ("<ipython-input", "<python-input")
_MOST_ITEMS = 10_000  # of a variable whose value counts: it is read with each call


def reached_code(roots: tp.Iterable[tp.Any]) -> dict[str, str]:
    """A digest of each function, class and variable of cells that these functions, classes and objects reach, by name.

    Empty for a program that was started from a file.
    """
    if not script.is_typed():
        return {}
    reader = _CellReader()
    for root in roots:
        reader.visit(root)
    while reader.pending:
        reader.visit_function(reader.pending.pop())
    return {name: canonical.digest(sorted(forms)) for name, forms in sorted(reader.forms.items())}


class _CellReader:
    """``pending`` are the functions to read, ``forms`` the digests by name."""

    def __init__(self) -> None:
        self.pending: list[types.FunctionType] = []
        self.forms: dict[str, set[str]] = {}
        self._seen: set[int] = set()

    def visit(self, value: tp.Any) -> None:
        """Adds what a value is made of: the functions of a function or class, the classes of an object."""
        pending = [value]  # a list of nodes, each of which leads to the next, may be long
        while pending:
            part = pending.pop()
            if id(part) not in self._seen and not isinstance(part, types.ModuleType):
                self._seen.add(id(part))
                pending += self._visit_part(part)

    def _visit_part(self, value: tp.Any) -> tp.Iterable[tp.Any]:
        if isinstance(value, type):
            self._visit_class(value)
            return ()
        if inspect.isfunction(value):
            self.pending += [value] if _is_typed(value) else []
            return (getattr(value, "__wrapped__", None),)
        return _parts(value)

    def visit_function(self, function: types.FunctionType) -> None:
        digest, names = _read(function)
        self.forms.setdefault(function.__code__.co_qualname, set()).add(digest)
        for cell in function.__closure__ or ():
            try:
                self.visit(cell.cell_contents)
            except ValueError:  # not bound yet
                continue
        for hint in function.__annotations__.values():
            self.visit(function.__globals__.get(hint) if isinstance(hint, str) else hint)
        for name in names:
            if name in function.__globals__:
                value = function.__globals__[name]
                self.visit(value)
                self._add_value(name, value)

    def _add_value(self, name: str, value: tp.Any) -> None:
        if not inspect.isroutine(value) and not isinstance(value, (type, types.ModuleType)):
            form = _value_form(value)
            if form is not None:
                self.forms.setdefault(name, set()).add(form)

    def _visit_class(self, cls: type) -> None:
        if cls.__module__ != _MAIN:
            return
        for name, member in vars(cls).items():
            functions = carried.functions_in(getattr(member, "wrapped", member))  # below pydantic's decorators
            for function in functions:
                self.visit(function)
            if not functions and not name.startswith("_"):
                self._add_value(f"{cls.__qualname__}.{name}", member)
        fields = model_schema.record_schema(cls).fields if model_schema.is_record(cls) else ()
        for each in (*cls.__bases__, *(each for _, expect, _ in fields for each in expect.classes)):
            self.visit(each)


def _parts(value: tp.Any) -> tp.Iterable[tp.Any]:
    """What an object may call: the function of a partial, the class of an object, what is in it."""
    if isinstance(value, functools.partial) or carried.is_zen(value):
        return [value.func]
    if inspect.ismethod(value):
        return [value.__func__, value.__self__]
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, (list, tuple)):
        return value
    is_typed = type(value).__module__ == _MAIN or model_schema.is_record(type(value))
    attributes = vars(value).values() if is_typed and type(value).__dictoffset__ else ()
    return [type(value), *attributes] if is_typed else []


def _is_typed(function: types.FunctionType) -> bool:
    return function.__globals__.get("__name__") == _MAIN


@functools.lru_cache(maxsize=1024)
def _read(function: types.FunctionType) -> tuple[str, tuple[str, ...]]:
    """The digest of a function's code, and the global names that it reads."""
    return carried.code_digest(function), tuple(dict.fromkeys(_global_names(function.__code__)))


def _global_names(code: types.CodeType) -> tp.Iterator[str]:
    yield from (step.argval for step in dis.get_instructions(code) if step.opname in _GLOBAL)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _value_form(value: tp.Any) -> str | None:
    """The digest of a variable's value, None if it has no canonical form, or is data."""
    try:
        if hasattr(value, "__array__") or (hasattr(value, "__len__") and len(value) > _MOST_ITEMS):
            return None
        is_typed = isinstance(value, functools.partial) or carried.is_zen(value) or type(value).__module__ == _MAIN
        form = carried.value_form(value) if is_typed else canonical.canonical(value)
        return None if form is None and is_typed else canonical.digest(form)
    except Exception:  # noqa: BLE001 - the user's code: a stream has no length
        return None


# -- notebooks without a name -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Anchors:
    """What tells apart notebooks whose names are not known: the code that each factory had when it was first used."""

    digests: dict[str, str] = dataclasses.field(default_factory=dict)

    def captured(self, factory: str, roots: tp.Iterable[tp.Any]) -> dict[str, Json]:
        """What counts in the identity of the factory's tasks."""
        if factory not in self.digests:
            self.digests[factory] = canonical.digest(dict(reached_code(roots)))
        return {"first cell": self.digests[factory]}


_own = Anchors()
_of_launch: list[Anchors | None] = []


def anchors() -> Anchors | None:
    """Those of this process, or of the launch that it is a job of; None unless that is a notebook without a name."""
    if _of_launch:
        return _of_launch[0]
    return _own if script.is_unnamed_notebook() else None


def set_anchors(given: Anchors | None) -> None:
    """Makes this process, a job, tell notebooks apart as its launch does."""
    _of_launch[:] = [given]


# -- sources ----------------------------------------------------------------------------------------------------------


def typed_sources() -> dict[str, str]:
    """The text of all cells, by the names of their files: a job needs it for tracebacks, and to know the code."""
    if not script.is_typed():
        return {}
    entries = {name: entry for name, entry in list(linecache.cache.items()) if len(entry) == 4 and entry[1] is None}
    typed = {name for name in entries if not name.startswith("<") or name.startswith(_CONSOLES)}
    return {name: "".join(entries[name][2]) for name in typed}


def set_typed_sources(sources: tp.Mapping[str, str]) -> None:
    """Makes this process, a job, know the text of its launch's cells."""
    for name, text in sources.items():
        linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
