"""What a task function is called, and whose it is."""

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


def factory_name(function: tp.Any) -> str:
    """The dotted name of what computes: module as ``python -m`` spells it, and function; a callable object's class.

    Decorators and functools.partial are looked through.
    """
    named = target_of(function)
    return f"{script.module_name(named)}.{named.__qualname__}".replace("<locals>.", "").replace("<lambda>", "lambda")


def carried_values(function: tp.Any) -> dict[str, Json]:
    """What a function carries along beside its name, in canonical form; empty for one that a module defines.

    Arguments of a partial, variables that a nested function captured, attributes of a method's object, the code of
    a lambda: as far as these are constants or functions. What can change while the program runs (lists, objects)
    is not part of it; of a callable object only the class counts.
    """
    found: dict[str, tp.Any] = {}
    while isinstance(function, functools.partial):
        found.update(
            {f"argument {name}": each for name, each in (*enumerate(function.args), *function.keywords.items())}
        )
        function = function.func
    function = inspect.unwrap(function)
    if inspect.ismethod(function):
        found.update({f"attribute {name}": each for name, each in getattr(function.__self__, "__dict__", {}).items()})
        function = function.__func__
    if inspect.isfunction(function) and "<" in function.__qualname__:
        found["code"] = _code(function.__code__)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        found.update({f"captured {name}": cell.cell_contents for name, cell in cells})
    told = {name: _constant(each) for name, each in found.items()}
    return {name: each for name, each in told.items() if each is not None}


def _constant(value: tp.Any) -> Json:
    """The canonical form of a constant or a function, None for anything else."""
    if inspect.isroutine(value) or isinstance(value, functools.partial):
        return {"function": factory_name(value), **carried_values(value)}
    try:
        hash(value)
        return uid.canonical(value)
    except (TypeError, ConfigError):
        return None


def _code(code: types.CodeType) -> str:
    """A digest of what a function does: its instructions, names and constants, those of functions in it too."""
    parts = [code.co_code.hex(), *code.co_names]
    parts += [_code(each) if isinstance(each, types.CodeType) else repr(each) for each in code.co_consts]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def target_of(function: tp.Any) -> tp.Any:
    """What a task function is called after: itself without decorators and arguments, a callable object's class."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    return function if hasattr(function, "__qualname__") else type(function)
