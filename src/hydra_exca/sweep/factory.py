"""What a task function is called, and whose it is."""

from __future__ import annotations

import functools
import inspect
import os
import typing as tp
from pathlib import Path

from hydra_exca import provenance, script


def factory(function: tp.Any) -> str:
    """The dotted name of what computes: module as ``python -m`` spells it, and function; a callable object's class.

    Decorators and functools.partial are looked through.
    """
    target = _target(function)
    return f"{script.module_name(target)}.{target.__qualname__}".replace("<locals>.", "").replace("<lambda>", "lambda")


def project(function: tp.Any, folder: Path, name: str | None) -> dict[str, tp.Any]:
    """Whose code it is, to tell apart two that have the same name.

    The name that was given; else the git remote and the place in its repository; else where the code lies as
    seen from the cache folder, so that both can be moved together.
    """
    if name is not None:
        return {"name": name}
    source = _source_folder(function)
    repository = provenance.git(source)
    if repository is not None and repository.remote is not None:
        return {"remote": repository.remote, "path": repository.path}
    return {"folder": os.path.relpath(source, folder.resolve())}


def _target(function: tp.Any) -> tp.Any:
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    return function if hasattr(function, "__qualname__") else type(function)


def _source_folder(function: tp.Any) -> Path:
    try:
        return Path(inspect.getfile(_target(function))).resolve().parent
    except (TypeError, OSError):
        return Path.cwd()
