"""What a function carried by the first rules, which dropped lists, objects and the state of callable objects.

Results that were stored by these rules may be those of another function. They are never returned; that there are some
is said.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
import typing as tp

from hydra_exca import script
from hydra_exca.errors import ConfigError
from hydra_exca.identity import uid
from hydra_exca.identity.scalars import Json


def older_name_and_values(function: tp.Any) -> tuple[str, dict[str, Json]]:
    """The factory of ``function`` and the values it carries, by the first rules."""
    return _older_name(function), _older_values(function)


def _older_name(function: tp.Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    named = function if hasattr(function, "__qualname__") else type(function)
    module = script.module_name(named)
    if script.notebook_path() is not None and module == script.main_name():
        module = "interactive"  # so all notebooks were called
    return f"{module}.{named.__qualname__}".replace("<locals>.", "").replace("<lambda>", "lambda")


def _older_values(function: tp.Any) -> dict[str, Json]:
    parts: dict[str, tp.Any] = {}
    while isinstance(function, functools.partial):
        parts.update(
            {f"argument {name}": part for name, part in (*enumerate(function.args), *function.keywords.items())}
        )
        function = function.func
    function = inspect.unwrap(function)
    if inspect.ismethod(function):
        parts.update({f"attribute {name}": part for name, part in getattr(function.__self__, "__dict__", {}).items()})
        function = function.__func__
    if inspect.isfunction(function) and "<" in function.__qualname__:
        parts["code"] = _bytecode(function.__code__)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        parts.update({f"captured {name}": cell.cell_contents for name, cell in cells})
    forms = {name: _older_form(part) for name, part in parts.items()}
    return {name: form for name, form in forms.items() if form is not None}


def _older_form(value: tp.Any) -> Json:
    if inspect.isroutine(value) or isinstance(value, functools.partial):
        return {"function": _older_name(value), **_older_values(value)}
    try:
        hash(value)
        return uid.canonical(value)
    except (TypeError, ConfigError):
        return None


def _bytecode(code: types.CodeType) -> str:
    parts = [code.co_code.hex(), *code.co_names]
    parts += [_bytecode(each) if isinstance(each, types.CodeType) else repr(each) for each in code.co_consts]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
