"""Snapshots: copies of code, named by a digest of their content."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import stat
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.errors import CacheError

Sources: tp.TypeAlias = tuple[tuple[Path, Path], ...]
"""Each copied file or folder, and where its copy is below the snapshot."""


@dataclasses.dataclass(frozen=True)
class Module:
    """A top-level module: its file, None for a namespace package, and the folders of a package."""

    name: str
    file: str | None
    folders: tuple[str, ...]

    @property
    def places(self) -> list[Path]:
        """The folders of a package, or the file of a single module."""
        return [Path(place) for place in self.folders or (self.file,) if place is not None]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A copy of code. ``sources`` maps each copied file or folder to where its copy is below ``folder``.

    ``roots`` are its folders that imports search first, ``modules`` are the modules that the launch had imported from
    the sources. ``not_copied`` are the files and folders of the sources that have no copy; they may be imported from
    where they are. ``around`` are folders around the sources, with the folders of the copy that stand for them.
    ``seal`` is what only this very folder has, and ``content`` the digest of its fingerprints.
    """

    folder: Path
    digest: str
    sources: Sources
    roots: tuple[Path, ...] = ()
    modules: tuple[Module, ...] = ()
    not_copied: frozenset[str] = dataclasses.field(default=frozenset(), repr=False)
    around: Sources = ()
    seal: tuple[int, int] | None = dataclasses.field(default=None, compare=False, repr=False)
    content: str | None = dataclasses.field(default=None, compare=False, repr=False)

    def check(self) -> None:
        """Raises CacheError if the copy is gone, or if another user could have put it there, or have changed it."""
        try:
            status = os.lstat(self.folder)
        except OSError:
            raise CacheError(
                f"{self.folder}, the copy of the code that this job was launched with, is gone: launch it again"
            ) from None
        if not stat.S_ISDIR(status.st_mode) or not self.is_sealed(status):
            raise CacheError(
                f"{self.folder} is not the copy of the code that this job was launched with: something else is in its "
                "place, which is not imported. Launch it again"
            )
        if not is_trusted_owner(status.st_uid):
            raise CacheError(f"{self.folder}, the copy of the code, belongs to another user: it is not imported")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise CacheError(
                f"{self.folder}, the copy of the code, can be written by others (mode {status.st_mode & 0o777:o}): it "
                f"is not imported. If you trust all who can write it: chmod -R go-w {self.folder}"
            )

    def sealed(self, content: str) -> Snapshot:
        """The same, for jobs that import only from this very folder: others may rename folders around it."""
        return dataclasses.replace(self, seal=_seal(os.lstat(self.folder)), content=content)

    def is_sealed(self, status: os.stat_result) -> bool:
        """Whether it is this very folder. One of two signs is enough: numbers change, and root compiles modules."""
        return self.seal is None or any(a == b for a, b in zip(self.seal, _seal(status), strict=True))

    def import_roots(self) -> list[str]:
        """The folders of the copy that imports search first."""
        return [str(self.folder / root) for root in self.roots]

    def module_roots(self) -> list[str]:
        """The folders of the copy with the modules that the launch had imported, however these were found."""
        places = [(module, self.copy_of(place)) for module in self.modules for place in module.places]
        return list(dict.fromkeys(str(place.parent) for module, place in places if place.stem == module.name))

    def contains(self, path: Path) -> bool:
        """Whether a file or folder is in the copy; symbolic links are followed."""
        return path.resolve().is_relative_to(self.folder.resolve())

    def copy_of(self, path: Path) -> Path:
        """The copy of a file or folder; ``path`` itself if it has none."""
        if self.contains(path):  # a cache can be in the project
            return path
        copies = (self.folder / place for place in places_in_copy(path.resolve(), self.sources))
        return next(filter(Path.exists, copies), path)

    def has_copy(self, path: Path) -> bool:
        """Whether a file or folder has a copy, or is one."""
        return self.contains(self.copy_of(path))

    def stand_in_for(self, folder: Path) -> Path:
        """The folder of the copy that replaces the working directory ``folder``: its copy, or else the whole."""
        inside = self.copy_of(folder)
        return inside if inside != folder and inside.is_dir() else self.folder

    def original_of(self, path: Path) -> Path | None:
        """The file or folder that ``path`` is a copy of, or would be; None for a path that is not in the copy."""
        path, home = path.resolve(), self.folder.resolve()
        around = [(source, home / copy) for source, copy in self.sources if path.is_relative_to(home / copy)]
        source, copy = max(around, key=lambda pair: len(pair[1].parts), default=(None, home))
        return None if source is None else source / path.relative_to(copy)

    def with_originals(self, text: str) -> str:
        """A text in which the paths of copies are those of the originals."""
        pairs = sorted((*self.sources, *self.around), key=lambda pair: -len(pair[1].parts))
        for folder in {self.folder, Path(os.path.abspath(self.folder)), self.folder.resolve()}:
            for source, copy in pairs if str(folder) in text else ():
                text = str(source).join(re.split(rf"{re.escape(str(folder / copy))}(?=$|[/:;,\s'\"])", text))
        return text

    def link(self, entry: Path) -> None:
        """Makes the link from an entry to the code that computes it, if the file system has links."""
        with contextlib.suppress(OSError), files.replacing(entry / paths.CODE) as temporary:
            os.symlink(os.path.relpath(self.folder.resolve(), entry.resolve()), temporary)


def places_in_copy(path: Path, sources: tp.Iterable[tuple[Path, Path]]) -> tp.Iterator[Path]:
    """Where the copy of a file or folder is below the snapshot, one for each source that it is in."""
    return (copy / path.relative_to(source) for source, copy in sources if path.is_relative_to(source))


def _seal(status: os.stat_result) -> tuple[int, int]:
    """The number of a folder and its time, which nobody but its owner can give to another folder."""
    return status.st_ino, status.st_mtime_ns


def is_trusted_owner(owner: int) -> bool:
    """Whether nobody else can change what that user owns."""
    return owner in (os.getuid(), 0)
