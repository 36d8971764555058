"""The project that a class or function belongs to: recorded with its results, to tell two projects apart."""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import re
import sys
import typing as tp
from pathlib import Path

from hydra_exca import paths, script
from hydra_exca.code import git
from hydra_exca.code.snapshot import Snapshot

_INSTALLED = ("site-packages", "dist-packages")
_MAIN = ("__main__", "__mp_main__")
_CACHED = 4096


def describe_project(
    target: tp.Any, cache: Path, name: str | None = None, copy: Snapshot | None = None
) -> dict[str, tp.Any]:
    """The project that a class or function belongs to, recorded with its results: two projects may use one name.

    The name that was given, if there is one. For an installed package it is the package, wherever that is installed.
    For other code it is the git remote with the place in the repository, and the folder of the code relative to the
    cache folder, so that both can be moved together. Empty where the source cannot be found.

    ``copy`` is the one that this process imports from.
    """
    return {"name": name} if name is not None else dict(_describe_code(target, str(cache), copy))


def project_folder(target: tp.Any, copy: Snapshot | None = None) -> Path | None:
    """The folder with the source of a class or function; None if it is installed or cannot be found.

    ``copy`` is the one that this process imports from.
    """
    source = _original(_source(target), copy)
    return None if source is None or _installed_package(source) is not None else source.parent


@functools.lru_cache(maxsize=_CACHED)  # asked for with each stored result that a job looks up
def _describe_code(target: tp.Any, cache: str, copy: Snapshot | None) -> dict[str, tp.Any]:
    source = _original(_source(target), copy)
    if source is None:
        return {}
    package = _installed_package(source)
    if package is not None:
        return {"package": package}
    place = {"folder": os.path.relpath(source.parent, Path(cache).resolve())}
    repository = _repository(source.parent)
    if repository is not None and repository.remote is not None:
        return {**place, "remote": repository.remote, "path": repository.path}
    return place


def _source(target: tp.Any) -> Path:
    """The file that defines a class or function: the notebook, or a file in the folder where a console was started."""
    was_sent = target.__module__ in _MAIN and inspect.isclass(target) and not _is_in_main(target)
    path = _file_of_methods(target) if was_sent else _file_of(target)
    if path is not None:
        return path
    notebook = script.notebook_path()
    return _working_directory() / "notebook" if notebook is None else Path(notebook).resolve()


def _is_in_main(cls: type) -> bool:
    """Whether the script of this process defines a class; a job is also sent classes of other scripts by value."""
    main = sys.modules.get("__main__")
    return os.path.isfile(getattr(main, "__file__", None) or "") and hasattr(main, _outermost(cls))


def _file_of_methods(cls: type) -> Path | None:
    """The file of the first method that the class or a parent defines in a script."""
    classes = [parent for parent in cls.__mro__ if parent.__module__ in _MAIN]
    names = {_outermost(parent) for parent in classes}
    members = (member for parent in classes for member in vars(parent).values())
    functions = map(inspect.unwrap, filter(inspect.isfunction, members))
    own = (function for function in functions if function.__module__ in _MAIN and _outermost(function) in names)
    return next(filter(None, map(_file_of, own)), None)


def _outermost(target: tp.Any) -> str:
    return str(target.__qualname__).partition(".")[0]


def _file_of(target: tp.Any) -> Path | None:
    try:
        path = Path(inspect.getfile(target)).resolve()
    except (TypeError, OSError):
        return None
    return path if path.is_file() or target.__module__ not in _MAIN else None


@functools.cache
def _working_directory() -> Path:
    """The working directory at the first call: a notebook that changes it later still owns its results."""
    return Path.cwd()


def _original(source: Path, copy: Snapshot | None) -> Path | None:
    """The file that a file was copied from, or the file itself; None for a copy whose original is not known."""
    original = None if copy is None else copy.original_of(source)
    if original is not None:
        return original
    pairs = itertools.pairwise(source.parts)
    is_copy = any(folder == paths.CODE and re.fullmatch(paths.SNAPSHOT, below) for folder, below in pairs)
    return None if is_copy else source


def _installed_package(source: Path) -> str | None:
    """The package or module below site-packages that a file is in, None for code that is not installed."""
    folders = [index for index, part in enumerate(source.parts[:-1]) if part in _INSTALLED]
    return source.parts[folders[-1] + 1].removesuffix(".py") if folders else None


@functools.lru_cache(maxsize=_CACHED)
def _repository(folder: Path) -> git.Repository | None:
    try:
        return git.find_repository(folder)
    except git.GitError:
        return None
