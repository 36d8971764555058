"""Whose code a class or function is: recorded with its results, to tell two projects apart. Only looks."""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import re
import sys
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.code import git

_INSTALLED = ("site-packages", "dist-packages")
_MAIN = ("__main__", "__mp_main__")
_CACHED = 4096
_Pairs: tp.TypeAlias = tuple[tuple[Path, Path], ...]


class CopyLocation(tp.Protocol):
    """A copy of code: ``sources`` tells of files and folders where they are and what they are called in ``folder``."""

    @property
    def folder(self) -> Path: ...
    @property
    def sources(self) -> _Pairs: ...


def describe_project(
    target: tp.Any, cache: Path, name: str | None = None, copy: CopyLocation | None = None
) -> dict[str, tp.Any]:
    """Whose code a class or function is: recorded with its results, to tell apart two that have the same name.

    The name that was given. Else, of an installed package, the package: where it is installed says nothing. Else
    the git remote and the place in its repository, and where the code lies as seen from the cache folder, so that
    both can be moved together. Empty where that cannot be told.

    ``copy`` is the one that this process imports from. It is looked up once for a class and a cache folder.
    """
    return {"name": name} if name is not None else dict(_project_of(target, str(cache), _copied_places(copy)))


def project_folder(target: tp.Any, copy: CopyLocation | None = None) -> Path | None:
    """Where the source of a class or function is, None for what is installed and where that cannot be told.

    ``copy`` is the one that this process imports from.
    """
    source = _original(_source(target), _copied_places(copy))
    return None if source is None or _installed_package(source) is not None else source.parent


def _copied_places(copy: CopyLocation | None) -> _Pairs:
    return () if copy is None else tuple((copy.folder / place, source) for source, place in copy.sources)


@functools.lru_cache(maxsize=_CACHED)
def _project_of(target: tp.Any, cache: str, copied: _Pairs) -> dict[str, tp.Any]:
    source = _original(_source(target), copied)
    if source is None:
        return {}
    package = _installed_package(source)
    if package is not None:
        return {"package": package}
    place = {"folder": os.path.relpath(source.parent, Path(cache).resolve())}
    around = _git_origin(source.parent)
    if around is not None and around.remote is not None:
        return {**place, "remote": around.remote, "path": around.path}
    return place


def _source(target: tp.Any) -> Path:
    """The file that a class or function is from. What a notebook defines is from where that was started."""
    by_methods = target.__module__ in _MAIN and inspect.isclass(target) and not _is_in_main(target)
    path = _file_of_methods(target) if by_methods else _file_of(target)
    return _working_directory() / "notebook" if path is None else path


def _is_in_main(cls: type) -> bool:
    """Whether it is of the script that runs here: a job is sent classes by value, too."""
    main = sys.modules.get("__main__")
    return os.path.isfile(getattr(main, "__file__", None) or "") and hasattr(main, _outermost(cls))


def _file_of_methods(cls: type) -> Path | None:
    """The file of the first method that the class or a parent defines in a script."""
    classes = [each for each in cls.__mro__ if each.__module__ in _MAIN]
    names = {_outermost(each) for each in classes}
    members = map(inspect.unwrap, filter(inspect.isfunction, (each for cls in classes for each in vars(cls).values())))
    own = (each for each in members if each.__module__ in _MAIN and _outermost(each) in names)
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
    """As it was when it first counted: whoever changes it later still owns the results."""
    return Path.cwd()


def _original(source: Path, copied: _Pairs) -> Path | None:
    """What a file was copied from; None for a copy of which that is not known."""
    for place, original in copied:
        if source.is_relative_to(place.resolve()):
            return original / source.relative_to(place.resolve())
    parts = source.parts
    in_cache = (part == paths.CODE and re.fullmatch(paths.SNAPSHOT, below) for part, below in itertools.pairwise(parts))
    return None if any(in_cache) else source


def _installed_package(source: Path) -> str | None:
    """The package or module below site-packages that a file is in, None for code that is not installed."""
    folders = [index for index, part in enumerate(source.parts[:-1]) if part in _INSTALLED]
    return source.parts[folders[-1] + 1].removesuffix(".py") if folders else None


@functools.lru_cache(maxsize=_CACHED)
def _git_origin(folder: Path) -> git.Origin | None:
    return git.find_origin(folder)
