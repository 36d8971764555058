"""The code that was typed into a notebook or console: it is in no file, and changes while the process lives on.

Of it counts what a task reaches: functions and classes by their syntax trees, and the values of the variables that they
read, if these have a canonical form.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import linecache
import types
import typing as tp

from hydra_exca import script

from . import canonical, carried, reached
from .scalars import Json

_CONSOLES = ("<ipython-input", "<python-input")
_MOST_ITEMS = 10_000  # of a variable whose value counts: it is read with each call


def reached_code(roots: tp.Iterable[tp.Any]) -> dict[str, str]:
    """A digest of each function, class and variable of cells that these functions, classes and objects reach, by name.

    Empty for a program that was started from a file.
    """
    if not script.is_typed():
        return {}
    reach = reached.Reached("__main__")
    reach.add(*roots)
    forms: dict[str, set[str]] = collections.defaultdict(set)
    for function in reach.functions:
        forms[function.__code__.co_qualname].add(_code_digest(function))
    variables = {name: value for name, value in list(script.main_names().items()) if name in reach.names}
    for cls in reach.classes:
        members = {name: member for name, member in vars(cls).items() if not name.startswith("_")}
        data = {name: member for name, member in members.items() if not reached.functions_of_member(member)}
        variables |= {f"{cls.__qualname__}.{name}": member for name, member in data.items()}
    for name, value in variables.items():
        form = _value_form(value)
        if form is not None:
            forms[name].add(form)
    return {name: canonical.digest(sorted(forms[name])) for name in sorted(forms)}


@functools.lru_cache(maxsize=1024)  # of notebooks whose methods are called again and again
def _code_digest(function: types.FunctionType) -> str:
    return carried.code_digest(function)


def _value_form(value: tp.Any) -> str | None:
    """The digest of a variable's value, None if it is code or data, or has no canonical form."""
    if carried.is_routine(value) or isinstance(value, (type, types.ModuleType)):
        return None
    try:
        if hasattr(value, "__array__") or (hasattr(value, "__len__") and len(value) > _MOST_ITEMS):
            return None
        is_typed = isinstance(value, functools.partial) or carried.is_zen(value) or type(value).__module__ == "__main__"
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
