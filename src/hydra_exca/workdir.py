"""Snapshots of code: what jobs import, as it was when they were launched."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import importlib.util
import os
import shutil
import sys
import typing as tp
import uuid
from pathlib import Path

from . import paths
from .errors import ConfigError, Problem

if tp.TYPE_CHECKING:
    from .payload import Payload

_TRIES = 5


Sources: tp.TypeAlias = tuple[tuple[Path, Path], ...]
"""Where each file or folder is, and what its copy is called."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """Which files of a folder are copied, by patterns of names: no ``includes`` are all, ``excludes`` hold for folders.

    A file that is asked for itself is copied anyway. ``key`` is the option that messages name.
    """

    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ("__pycache__", ".git", "*.pyc")
    key: str = "hydra.launcher.workdir"

    def keep(self, path: Path) -> bool:
        """Whether the file at ``path`` is to be copied, or the folder to be searched."""
        if path.name == paths.CODE_MARK or _matches(path.name, self.excludes) or not path.exists():
            return False
        return not self.includes or _matches(path.name, self.includes) or path.is_dir()

    def error(self, message: str, option: str = "copied") -> ConfigError:
        return ConfigError("The code cannot be copied; nothing was run.", [Problem(message, f"{self.key}.{option}")])


_EVERYTHING = Rules()


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A copy of code. ``sources`` maps each copied file or folder to where its copy is below ``folder``.

    ``request`` is what it was asked for by, so that the same request in a job is known again. ``within`` is the copy
    that a job made it from, if it did.
    """

    folder: Path
    digest: str
    sources: Sources
    request: tp.Any = None
    within: Snapshot | None = None

    def applied(self, payload: Payload, instead_of: Path | None = None) -> Payload:
        """The payload of jobs that import from the copy: first the copy itself, then what led into the sources.

        It is their working directory too, if it is to be that ``instead_of`` another.
        """
        roots = [self.folder / _import_root(source, copy) for source, copy in self.sources]
        search = [*map(str, roots), str(self.folder)]
        search += [str(self.copy_of(Path(entry))) for entry in payload.search_path]
        search += map(str, self._imported_from())
        script = payload.script
        if script is not None:
            script = dataclasses.replace(script, path=str(self.copy_of(Path(script.path))))
        search_path = tuple(dict.fromkeys(search))
        payload = dataclasses.replace(payload, search_path=search_path, script=script, code=self.digest, copy=self)
        if instead_of is None:
            return payload
        return dataclasses.replace(payload, working_directory=str(self.folder), origin=str(instead_of))

    def copy_of(self, path: Path) -> Path:
        """Where the copy of ``path`` is; ``path`` itself when it is not in what was copied."""
        path = path if self.within is None else self.within.copy_of(path)
        resolved = path.resolve()
        for source, copy in self.sources:
            if resolved == source or source in resolved.parents:
                return self.folder / copy / resolved.relative_to(source)
        return path

    def originals(self) -> Sources:
        """Where each copy is, and what it is a copy of."""
        outer = () if self.within is None else self.within.originals()
        return tuple((self.folder / copy, _original(source, outer)) for source, copy in self.sources)

    def link(self, entry: Path) -> None:
        """Shows in an entry which code computes it; where there are no links, nothing shows it."""
        temporary = entry / paths.temporary_name(paths.CODE, uuid.uuid4().hex)
        try:
            os.symlink(os.path.relpath(self.folder.resolve(), entry.resolve()), temporary)
            os.replace(temporary, entry / paths.CODE)
        except OSError:
            temporary.unlink(missing_ok=True)

    def _imported_from(self) -> tp.Iterator[Path]:
        """The copies of the folders from which this process has imported modules of the sources.

        They need not be in its search path: an editable installation can bring a finder of its own.
        """
        copies: dict[str, Path] = {}
        for name, module in sorted(sys.modules.items()):
            folder, file = os.path.split(getattr(module, "__file__", None) or os.devnull)
            if folder not in copies:
                copies[folder] = self.copy_of(Path(folder))
            if copies[folder] != Path(folder):
                depth = name.count(".") + (file == "__init__.py")
                root = Path(os.path.normpath(Path(copies[folder], *[os.pardir] * depth)))
                if root.is_relative_to(self.folder):
                    yield root


def find(
    copied: tp.Sequence[str], started_from: Path, rules: Rules = _EVERYTHING, within: Snapshot | None = None
) -> Sources:
    """Where the files, folders and importable packages are, and what their copies are called.

    Relative paths are kept relative, absolute ones go by their last name. What the snapshot ``within`` has a copy of
    is that copy. Raises ConfigError for names that are none of the three.
    """
    sources = tuple(_source(name, started_from, rules, within) for name in copied)
    copies = [copy for _, copy in sources]
    twice = sorted({str(copy) for copy in copies if copies.count(copy) > 1})
    if twice:
        raise rules.error(f"two of them would be copied to {twice[0]!r}")
    return sources


def listing(sources: Sources, left_out: tp.Collection[Path], rules: Rules = _EVERYTHING) -> dict[str, Path]:
    """The files to copy, by the names of their copies; those in caches and in the folders ``left_out`` are not."""
    resolved = frozenset(folder.resolve() for folder in left_out)
    return {str(copy / rest): source / rest for source, copy in sources for rest in _files(source, resolved, rules)}


def check_place(folder: Path, rules: Rules) -> None:
    """Raises ConfigError if no copy can be at ``folder``."""
    if not folder.parent.is_dir():
        raise rules.error(f"{folder.parent} does not exist; create it", "folder")
    is_free = not folder.exists() or (folder.is_dir() and not os.listdir(folder))
    if not is_free and not (folder / paths.CODE_MARK).is_file():
        raise rules.error(f"{folder} is there and is no copy of code; name another folder", "folder")


def snapshot(
    sources: Sources,
    cache: Path,
    rules: Rules = _EVERYTHING,
    folder: Path | None = None,
) -> Snapshot:
    """Copies what `find` found below ``<cache>/code/<digest>``, unless that copy is there.

    With ``folder`` the copy is there instead; ConfigError if that holds anything else.
    """
    for _ in range(_TRIES):
        found = listing(sources, [cache] if folder is None else [cache, folder], rules)
        digests = {name: _sha256(path) for name, path in sorted(found.items())}
        whole = hashlib.sha256("".join(f"{name}\0{each}\n" for name, each in digests.items()).encode()).hexdigest()
        target = cache / paths.CODE / whole[:16] if folder is None else folder
        there = target.exists() if folder is None else _holds(folder, whole, digests, rules)
        if there or _copy(found, digests, target, "" if folder is None else whole):
            resolved = tuple((source.resolve(), copy) for source, copy in sources)
            return Snapshot(target, whole[:16], resolved)
    raise rules.error("files change while they are copied; try again")


def _original(path: Path, copies: Sources) -> Path:
    for copy, original in copies:
        if path.is_relative_to(copy.resolve()):
            return original / path.relative_to(copy.resolve())
    return path


def _source(name: str, started_from: Path, rules: Rules, within: Snapshot | None) -> tuple[Path, Path]:
    """Where ``name`` is, and what its copy is called."""
    path = Path(name).expanduser()
    place = _in_copy(started_from / path, within)
    if place.exists():
        return place, Path(path.name) if path.is_absolute() or ".." in path.parts else path
    try:
        whole = name.partition(".")[0]  # a part of a package is imported through the whole
        spec = importlib.util.find_spec(whole)
    except (ImportError, ValueError):
        spec = None
    locations = list(spec.submodule_search_locations or []) if spec is not None else []
    origin = locations[0] if locations else getattr(spec, "origin", None)
    if origin is None or not os.path.exists(origin):
        raise rules.error(f"{name!r} is no file, no folder and no package")
    return _in_copy(Path(origin), within), Path(whole) if locations else Path(Path(origin).name)


def _in_copy(path: Path, within: Snapshot | None) -> Path:
    copy = path if within is None else within.copy_of(path)
    return copy if copy.exists() else path


def _import_root(source: Path, copy: Path) -> Path:
    """The folder, in the copy, from which a copied package is imported: above its outermost ``__init__.py``."""
    if source.is_file():
        source, copy = source.parent, copy.parent
    depth = 0
    while (source / "__init__.py").exists() and depth < len(copy.parts):
        source, depth = source.parent, depth + 1
    return Path(*copy.parts[: len(copy.parts) - depth])


def _files(
    source: Path, left_out: frozenset[Path], rules: Rules, above: frozenset[Path] = frozenset()
) -> tp.Iterator[Path]:
    """The files of a folder that are to be copied, relative to it; for a file: itself.

    Links are followed, but not into a folder that they are in; one that leads nowhere (an editor's lock) is left.
    """
    if source.is_file():
        yield Path()
        return
    here = source.resolve()
    if here in above or _is_left_out(here, left_out, linked=source.is_symlink()):
        return
    for name in sorted(os.listdir(source)):
        if rules.keep(source / name):
            yield from (name / rest for rest in _files(source / name, left_out, rules, above | {here}))


def _is_left_out(folder: Path, left_out: frozenset[Path], linked: bool) -> bool:
    """Whether it is left out or is a cache, or a link into one: what we wrote changes no snapshot."""
    around = (folder, *folder.parents) if linked else (folder,)
    return any(each in left_out or (each / paths.CACHEDIR_TAG).exists() for each in around)


def _matches(name: str, patterns: tp.Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _holds(folder: Path, whole: str, digests: dict[str, str], rules: Rules) -> bool:
    """Whether this code was copied to ``folder`` before. ConfigError if anything else is there."""
    check_place(folder, rules)
    mark = folder / paths.CODE_MARK
    if not mark.exists():
        return False
    if mark.read_text().strip() != whole:
        raise rules.error(
            f"{folder} holds a copy of other code, which jobs may still run from. Remove it when none does, or name "
            "another folder",
            "folder",
        )
    changed = [name for name in digests if not (folder / name).is_file() or _sha256(folder / name) != digests[name]]
    if changed:
        raise rules.error(f"{folder / changed[0]} was changed after it was copied; remove {folder}", "folder")
    return True


def _copy(found: dict[str, Path], digests: dict[str, str], target: Path, mark: str = "") -> bool:
    """Copies beside the target and renames: of two launches that copy the same at once, one copy stays.

    False, and nothing is there, when a file is no longer what its digest says. A ``mark`` tells later what it is.
    """
    temporary = target.with_name(paths.temporary_name(target.name, uuid.uuid4().hex))
    temporary.mkdir(parents=True)
    for name, path in found.items():
        copy = temporary / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    if mark:
        (temporary / paths.CODE_MARK).write_text(f"{mark}\n")
    same = all(_sha256(temporary / name) == digest for name, digest in digests.items())
    if same:
        try:
            os.rename(temporary, target)
            return True
        except OSError:
            same = target.exists() and not mark  # with a mark the next look tells whose it is
    shutil.rmtree(temporary)
    return same
