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

_SKIPPED = {"__pycache__", ".git"}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A copy of code. ``sources`` maps each copied file or folder to where its copy is below ``folder``."""

    folder: Path
    digest: str
    sources: tuple[tuple[Path, Path], ...]

    def applied(self, payload: Payload) -> Payload:
        """The payload of jobs that import from the copy: first the copy itself, then what led into the sources."""
        search = [str(self.folder), *(str(self.copy_of(Path(entry))) for entry in payload.search_path)]
        script = payload.script
        if script is not None:
            script = dataclasses.replace(script, path=str(self.copy_of(Path(script.path))))
        return dataclasses.replace(payload, search_path=tuple(dict.fromkeys(search)), script=script)

    def copy_of(self, path: Path) -> Path:
        """Where the copy of ``path`` is; ``path`` itself when it is not in what was copied."""
        resolved = path.resolve()
        for source, copy in self.sources:
            if resolved == source or source in resolved.parents:
                return self.folder / copy / resolved.relative_to(source)
        return path


def snapshot(copied: tp.Sequence[str], cache: Path, started_from: Path) -> Snapshot:
    """Copies files, folders and importable packages below ``<cache>/code/<digest>``, unless that copy is there.

    Relative paths are kept relative, absolute ones go by their last name. Raises ConfigError for names that are
    none of the three.
    """
    sources = [_source(name, started_from) for name in copied]
    found = sorted((str(copy / rest), source / rest) for source, copy in sources for rest in _files(source, cache))
    digest = _digest(found)
    target = cache / paths.CODE / digest
    if not target.exists():
        _copy(found, target)
    return Snapshot(target, digest, tuple((source.resolve(), copy) for source, copy in sources))


def _source(name: str, started_from: Path) -> tuple[Path, Path]:
    """Where ``name`` is, and what its copy is called."""
    path = Path(name).expanduser()
    place = started_from / path
    if place.exists():
        return place, Path(path.name) if path.is_absolute() or ".." in path.parts else path
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        problem = Problem(f"{name!r} is no file, no folder and no package", "hydra.launcher.workdir.copied")
        raise ConfigError("The code cannot be copied; nothing was run.", [problem])
    locations = list(spec.submodule_search_locations or [])
    source = Path(locations[0] if locations else str(spec.origin))
    return source, Path(*name.split(".")) if locations else Path(source.name)


def _files(source: Path, cache: Path) -> tp.Iterator[Path]:
    """All files of a folder but those of caches, git and byte code, relative to it; for a file: itself."""
    if source.is_file():
        yield Path()
        return
    for folder, folders, names in os.walk(source):
        here = Path(folder)
        folders[:] = sorted(
            name
            for name in folders
            if name not in _SKIPPED and here / name != cache and not (here / name / paths.CACHEDIR_TAG).exists()
        )
        yield from ((here / name).relative_to(source) for name in sorted(names) if not name.endswith(".pyc"))


def _digest(found: tp.Sequence[tuple[str, Path]]) -> str:
    total = hashlib.sha256()
    for name, path in found:
        total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def _copy(found: tp.Sequence[tuple[str, Path]], target: Path) -> None:
    """Copies beside the target and renames: of two launches that copy the same at once, one copy stays."""
    temporary = target.with_name(paths.temporary_name(target.name, uuid.uuid4().hex))
    for name, path in found:
        copy = temporary / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(temporary, target)
    except OSError:
        shutil.rmtree(temporary)
        if not target.exists():
            raise
