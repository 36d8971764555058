"""Snapshots of code: what jobs import, as it was when they were launched."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
import shutil
import typing as tp
import uuid
from pathlib import Path

from . import paths
from .errors import ConfigError, Problem

if tp.TYPE_CHECKING:
    from .payload import Payload

_TRIES = 5
_SKIPPED = {"__pycache__", ".git"}


Sources: tp.TypeAlias = tuple[tuple[Path, Path], ...]
"""Where each file or folder is, and what its copy is called."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A copy of code. ``sources`` maps each copied file or folder to where its copy is below ``folder``."""

    folder: Path
    digest: str
    sources: Sources

    def applied(self, payload: Payload) -> Payload:
        """The payload of jobs that import from the copy: first the copy itself, then what led into the sources."""
        roots = [self.folder / _import_root(source, copy) for source, copy in self.sources]
        search = [*map(str, roots), str(self.folder)]
        search += [str(self.copy_of(Path(entry))) for entry in payload.search_path]
        script = payload.script
        if script is not None:
            script = dataclasses.replace(script, path=str(self.copy_of(Path(script.path))))
        return dataclasses.replace(payload, search_path=tuple(dict.fromkeys(search)), script=script, code=self.digest)

    def copy_of(self, path: Path) -> Path:
        """Where the copy of ``path`` is; ``path`` itself when it is not in what was copied."""
        resolved = path.resolve()
        for source, copy in self.sources:
            if resolved == source or source in resolved.parents:
                return self.folder / copy / resolved.relative_to(source)
        return path


def find(copied: tp.Sequence[str], started_from: Path) -> Sources:
    """Where the files, folders and importable packages are, and what their copies are called.

    Relative paths are kept relative, absolute ones go by their last name. Raises ConfigError for names that are
    none of the three.
    """
    sources = tuple(_source(name, started_from) for name in copied)
    _refuse_clashes(sources)
    return sources


def snapshot(sources: Sources, cache: Path) -> Snapshot:
    """Copies what `find` found below ``<cache>/code/<digest>``, unless that copy is there."""
    for _ in range(_TRIES):
        found = {
            str(copy / rest): source / rest for source, copy in sources for rest in _files(source, cache.resolve())
        }
        digests = {name: _sha256(path) for name, path in sorted(found.items())}
        digest = hashlib.sha256("".join(f"{name}\0{each}\n" for name, each in digests.items()).encode()).hexdigest()
        target = cache / paths.CODE / digest[:16]
        if target.exists() or _copy(found, digests, target):
            return Snapshot(target, digest[:16], tuple((source.resolve(), copy) for source, copy in sources))
    problem = Problem("files change while they are copied; try again", "hydra.launcher.workdir.copied")
    raise ConfigError("The code cannot be copied; nothing was run.", [problem])


def _refuse_clashes(sources: tp.Sequence[tuple[Path, Path]]) -> None:
    copies = [copy for _, copy in sources]
    twice = sorted({str(copy) for copy in copies if copies.count(copy) > 1})
    if twice:
        problem = Problem(f"two of them would be copied to {twice[0]!r}", "hydra.launcher.workdir.copied")
        raise ConfigError("The code cannot be copied; nothing was run.", [problem])


def _source(name: str, started_from: Path) -> tuple[Path, Path]:
    """Where ``name`` is, and what its copy is called."""
    path = Path(name).expanduser()
    place = started_from / path
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
        problem = Problem(f"{name!r} is no file, no folder and no package", "hydra.launcher.workdir.copied")
        raise ConfigError("The code cannot be copied; nothing was run.", [problem])
    return Path(origin), Path(whole) if locations else Path(Path(origin).name)


def _import_root(source: Path, copy: Path) -> Path:
    """The folder, in the copy, from which a copied package is imported: above its outermost ``__init__.py``."""
    if source.is_file():
        source, copy = source.parent, copy.parent
    depth = 0
    while (source / "__init__.py").exists() and depth < len(copy.parts):
        source, depth = source.parent, depth + 1
    return Path(*copy.parts[: len(copy.parts) - depth])


def _files(source: Path, cache: Path, above: frozenset[Path] = frozenset()) -> tp.Iterator[Path]:
    """All files of a folder but those of caches, git and byte code, relative to it; for a file: itself.

    Links are followed, but not into a folder that they are in; one that leads nowhere (an editor's lock) is left.
    """
    if source.is_file():
        yield Path()
        return
    here = source.resolve()
    if here in above or _is_in_cache(here, cache, linked=source.is_symlink()):
        return
    for name in sorted(os.listdir(source)):
        if name not in _SKIPPED and not name.endswith(".pyc") and (source / name).exists():
            yield from (name / rest for rest in _files(source / name, cache, above | {here}))


def _is_in_cache(folder: Path, cache: Path, linked: bool) -> bool:
    """Whether it is the cache folder or any other cache, or a link into one: what we wrote changes no snapshot."""
    around = (folder, *folder.parents) if linked else (folder,)
    return cache in around or any((each / paths.CACHEDIR_TAG).exists() for each in around)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _copy(found: dict[str, Path], digests: dict[str, str], target: Path) -> bool:
    """Copies beside the target and renames: of two launches that copy the same at once, one copy stays.

    False, and nothing is there, when a file is no longer what its digest says.
    """
    temporary = target.with_name(paths.temporary_name(target.name, uuid.uuid4().hex))
    temporary.mkdir(parents=True)
    for name, path in found.items():
        copy = temporary / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    same = all(_sha256(temporary / name) == digest for name, digest in digests.items())
    if same:
        try:
            os.rename(temporary, target)
            return True
        except OSError:
            same = target.exists()
    shutil.rmtree(temporary)
    return same
