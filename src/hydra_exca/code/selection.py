"""The selection of code to copy: code that was named, or that this process imports from outside of site-packages."""

from __future__ import annotations

import dataclasses
import importlib.machinery
import importlib.util
import logging
import os
import re
import sys
import sysconfig
import tempfile
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.text import log_once

from . import git
from .rules import AUTO, OWN, PACKAGES, ROOT_MARKERS, Rules
from .snapshot import Module, Snapshot, Sources, places_in_copy

log = logging.getLogger("exca.workdir")
_INSTALLED = {"site-packages", "dist-packages"}
# not asked of sysconfig: that imports its settings first, and the observer of imports needs these folders for it
_STDLIB = os.path.dirname(os.__file__)
_LIBRARIES = (f"{_STDLIB}/", f"{os.path.join(sys.exec_prefix, sys.platlibdir, os.path.basename(_STDLIB))}/")
_EVERYTHING = Rules()
_NO_PROJECT = (
    "exca: %s is not a project, so only %s and the modules that it has imported are copied. Move it to a folder of "
    "its own, or name the code in workdir.copied"
)


@dataclasses.dataclass(frozen=True)
class Selection:
    """The sources of a copy. ``roots`` are the folders of the copy that imports search first.

    ``named`` are the sources that were named.
    """

    sources: Sources = ()
    roots: tuple[Path, ...] = ()
    named: Sources = ()


def select_sources(
    copied: tp.Sequence[str],
    started_from: Path,
    rules: Rules = _EVERYTHING,
    names: tp.Iterable[str] = (),
    *,
    with_script: bool = False,
) -> Selection:
    """Where the files, folders and importable packages are, and what their copies are called.

    A relative path keeps its place in the copy, an absolute one goes by its last name, and code in the script's project
    keeps its place there. ``auto`` stands for `automatic_sources`, with ``names``. ``with_script`` adds the script, if
    it is in none of the sources. Raises ConfigError for a name that is not a file, a folder or a package, and for two
    sources whose copies would be in one place.
    """
    automatic = automatic_sources(names) if AUTO in copied else Selection()
    pairs = [pair for name in copied if name != AUTO for pair in _locate(name, started_from, rules)]
    named = tuple(dict.fromkeys(_in_project(place, copy, automatic.sources) for place, copy in pairs))
    resolved = {(source.resolve(), copy) for source, copy in named}
    sources = (*named, *(pair for pair in automatic.sources if pair not in resolved))
    if with_script:
        sources += _script_beside(sources)
    _check_places(sources, rules)
    own_roots = [*(_import_root(source, copy) for source, copy in named), Path()] if named else []
    return Selection(sources, tuple(dict.fromkeys([*own_roots, *automatic.roots])), named)


def automatic_sources(names: tp.Iterable[str] = ()) -> Selection:
    """The project of the script, and all other code that is imported from outside of site-packages.

    The project is the git repository around the script, or else the folder with another root marker, or else the
    script's folder. ``names`` are top-level modules
    that are not imported yet.
    """
    project = _find_project()
    sources: list[tuple[Path, Path]] = [] if project is None else [project]
    roots: list[Path] = []
    for module in {module.name: module for module in (*imported_modules(), *_importable(names))}.values():
        outside = [place for place in module.places if not _is_within(place, sources)]
        for number, place in enumerate(outside):
            root = Path(PACKAGES, module.name if number == 0 else f"{module.name}.{number}")
            *around, last = module.name.split(".")
            sources.append((place, root.joinpath(*around, last if place.is_dir() else place.name)))
            roots.append(root)
    return Selection(tuple(sources), tuple(roots))


def imported_modules() -> list[Module]:
    """The top-level modules that this process has imported from outside of site-packages."""
    specs = [getattr(sys.modules[name], "__spec__", None) for name in sorted(sys.modules) if _is_top(name)]
    return [module for module in map(_module, specs) if module is not None]


def _is_top(name: str) -> bool:
    """Whether a module is in no package's folder; the namespace package of an import hook has none."""
    around = sys.modules.get(name.rpartition(".")[0])
    if around is None:
        return "." not in name
    folders = getattr(around, "__path__", None)
    return getattr(around, "__file__", None) is None and folders is not None and not any(map(os.path.isdir, folders))


class LoadedFiles(tp.NamedTuple):
    """The files that a process has imported from outside of site-packages, and all folders around them.

    ``beside`` has the folders that directly hold one of them.
    """

    files: frozenset[str]
    folders: frozenset[str]
    beside: frozenset[str]


def loaded_files() -> LoadedFiles:
    """The files that this process has imported, and so needs."""
    origins = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    files = {os.path.realpath(file) for file in origins if isinstance(file, str) and not is_installed(file)}
    folders = {Path(file).parent for file in files}
    around = {str(place) for folder in folders for place in (folder, *folder.parents)}
    return LoadedFiles(frozenset(files), frozenset(around), frozenset(map(str, folders)))


def script_file() -> Path | None:
    """The script that was started; None for a console, and for a command that was installed with a package."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if path is not None and is_installed(path) and sys.argv[0].endswith(".py"):
        path = sys.argv[0]  # started by a profiler
    if path is None or not os.path.isfile(path):
        return None
    file = Path(path).resolve()
    return None if is_installed(file) or file.parent == Path(sysconfig.get_path("scripts")).resolve() else file


def _script_beside(sources: Sources) -> Sources:
    """The script with the place of its copy, if it is in none of the sources."""
    file = script_file()
    if file is None or _is_within(file, [(source.resolve(), copy) for source, copy in sources]):
        return ()
    return ((file, Path(PACKAGES, "__main__", file.name)),)


def is_installed(path: Path | str) -> bool:
    """Whether a file is part of Python, or of a package that is installed as a copy.

    Its path decides, not where links lead: some installers keep files elsewhere and link to them.
    """
    return any(f"/{name}/" in f"/{path}/" for name in _INSTALLED) or str(path).startswith(_LIBRARIES)


def _importable(names: tp.Iterable[str]) -> tp.Iterator[Module]:
    """The modules of these names that are not imported yet, and can be."""
    specs = [_find_spec(name) for name in names if name not in sys.modules]
    return filter(None, map(_module, specs))


def _module(spec: tp.Any) -> Module | None:
    """The module of a specification, without the folders in site-packages; None if nothing else is left."""
    name = getattr(spec, "name", None)
    if not isinstance(name, str) or name.partition(".")[0] in OWN:
        return None
    file = None
    if spec.has_location and spec.origin:
        if is_installed(spec.origin) or not os.path.isfile(spec.origin):
            return None
        file = os.path.realpath(spec.origin)
    folders = tuple(folder for folder in package_folders(spec) if not is_installed(folder))
    return Module(name, file, folders) if file or folders else None


def package_folders(spec: tp.Any) -> list[str]:
    """The folders of a package. If an editable installation consists of links to files, these are their targets."""
    folders = [os.path.realpath(each) for each in spec.submodule_search_locations or () if os.path.isdir(each)]
    if not folders or not spec.origin:
        return folders
    own, target = os.path.realpath(os.path.dirname(spec.origin)), os.path.dirname(os.path.realpath(spec.origin))
    return [target if folder == own else folder for folder in folders]


def _find_project() -> tuple[Path, Path] | None:
    """The folder of the script's project. A home folder is no project: of a script there, it is the script alone."""
    file = script_file()
    if file is None:
        return None
    for folder in _project_candidates(file):
        if folder not in _no_projects() or _is_tracked(file, folder):
            return folder, Path()
    log_once(log, logging.WARNING, _NO_PROJECT, file.parent, file.name)
    return file, Path(file.name)


def _project_candidates(file: Path) -> tp.Iterator[Path]:
    """A copy of code around a script, its git repository, a root, and the folder that its own imports start from."""
    yield from filter(_is_copy, file.parents)
    yield from (folder for folder in file.parents if (folder / ".git").exists())
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    is_profiler = spec is not None and is_installed(spec.origin or "")
    start = file.parent if spec is None or is_profiler else file.parents[spec.name.count(".")]
    yield from (folder for folder in (start, *start.parents) if any((folder / name).exists() for name in ROOT_MARKERS))
    yield start


def _is_tracked(file: Path, folder: Path) -> bool:
    """Whether git tracks a file in a folder; a repository for the settings of a home folder does not track scripts."""
    try:
        return str(file.relative_to(folder)) in git.tracked_files(folder)
    except git.GitError:
        return False


def _no_projects() -> list[Path]:
    return [Path.home().resolve(), Path(tempfile.gettempdir()).resolve(), Path("/")]


def _is_copy(folder: Path) -> bool:
    in_cache = folder.parent.name == paths.CODE and (folder.parent.parent / paths.CACHEDIR_TAG).exists()
    return in_cache and re.fullmatch(paths.SNAPSHOT, folder.name) is not None


def _is_within(path: Path, sources: tp.Iterable[tuple[Path, Path]]) -> bool:
    """Whether a file or folder is in one of these sources, and so is copied with it."""
    return any(path.is_relative_to(source) for source, _ in sources)


def _locate(name: str, started_from: Path, rules: Rules) -> Sources:
    """The places of a file, folder or package, and the names of their copies; a namespace may have several places."""
    path = Path(name).expanduser()
    place = started_from / path
    if place.exists():
        if ".." in path.parts:
            return ((place, Path(place.resolve().name)),)
        return ((place, Path(path.name) if path.is_absolute() else path),)
    return _locate_package(name, rules)


def _locate_package(name: str, rules: Rules) -> Sources:
    package, spec = name.partition(".")[0], _find_package(name)
    folders = [] if spec is None else package_folders(spec)
    if folders:
        own = [folder for folder in folders if not is_installed(folder)] or folders[:1]
        copies = [Path(package), *(Path(PACKAGES, f"{package}.{number}", package) for number in range(1, len(own)))]
        return tuple(zip(map(Path, own), copies, strict=True))
    origin = getattr(spec, "origin", None)
    if origin is None or not os.path.exists(origin):
        raise rules.error(f"{name!r} is not a file, a folder or a package")
    return ((Path(origin), Path(Path(origin).name)),)


def _in_project(place: Path, copy: Path, sources: Sources) -> tuple[Path, Path]:
    """A named source with the place of its copy, which is in that of the project if the source is in the project."""
    return place, next(places_in_copy(place.resolve(), sources), copy)


def _check_places(sources: Sources, rules: Rules) -> None:
    """Raises ConfigError if two sources would be copied to one place, or one into the folder of another."""
    for source, copy in sources:
        for other, around in sources:
            place = other / copy.relative_to(around) if copy.is_relative_to(around) else source
            if os.path.lexists(place) and place.resolve() != source.resolve():
                raise rules.error(f"two of them would be copied to {str(copy)!r}: {source} and {place}")


def is_copied(name: str, started_from: Path, snapshot: Snapshot) -> bool:
    """Whether a snapshot has a copy of the file, folder or importable package that a name stands for."""
    place = started_from / Path(name).expanduser()
    if snapshot.has_copy(place):
        return True
    spec = None if place.exists() else _find_package(name)
    places = [] if spec is None else package_folders(spec) or filter(None, [spec.origin])
    return any(snapshot.has_copy(Path(place)) for place in places)


def _find_package(name: str) -> tp.Any:
    """The specification of the package that a dotted name is imported through, None if there is no such module."""
    package, *inside = name.split(".")
    spec = _find_spec(package)
    if spec is None or not inside:
        return spec
    folders = [str(Path(folder, *inside[:-1])) for folder in package_folders(spec)]
    return spec if importlib.machinery.PathFinder.find_spec(inside[-1], folders) is not None else None


def _find_spec(name: str) -> tp.Any:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None


def _import_root(source: Path, copy: Path) -> Path:
    """The folder of the copy from which a package is imported: the one above its outermost ``__init__.py``."""
    if copy.parts[:1] == (PACKAGES,):
        return Path(*copy.parts[:2])
    if source.is_file():
        source, copy = source.parent, copy.parent
    depth = 0
    while (source / "__init__.py").exists() and depth < len(copy.parts):
        source, depth = source.parent, depth + 1
    return Path(*copy.parts[: len(copy.parts) - depth])
