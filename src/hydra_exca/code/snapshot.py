"""Snapshots: copies of code, named by what is in them."""

from __future__ import annotations

import dataclasses
import logging
import os
import typing as tp
import uuid
from pathlib import Path

from hydra_exca import paths
from hydra_exca.errors import CacheError

log = logging.getLogger("exca.workdir")


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A copy of code. ``sources`` maps each copied file or folder to where its copy is below ``folder``.

    ``roots`` are the folders of it where imports look first, ``modules`` what the launch had imported of the sources.
    ``request`` is what it was asked for by, so that the same request in a job is known again. ``within`` is the copy
    that a job made it from, if it did. ``passed_over`` is what of the sources was not copied, and may be imported from
    where it is: folders, and files.
    """

    folder: Path
    digest: str
    sources: Sources
    roots: tuple[Path, ...] = ()
    modules: tuple[Module, ...] = ()
    request: tp.Any = None
    within: Snapshot | None = None
    passed_over: frozenset[str] = dataclasses.field(default=frozenset(), repr=False)

    def check(self) -> None:
        """Raises CacheError if the copy is gone, or is somebody else's, who could change what is imported from it."""
        try:
            owner = os.stat(self.folder).st_uid
        except OSError:
            raise CacheError(
                f"{self.folder} is gone, the copy of the code that this was launched with: launch it again"
            ) from None
        if not is_trusted_owner(owner):
            raise CacheError(f"{self.folder}, the copy of the code, belongs to another user: it is not imported")

    def import_roots(self) -> list[str]:
        """The folders of the copy where imports look first."""
        return [str(self.folder / root) for root in self.roots]

    def module_roots(self) -> list[str]:
        """The folders of the copy that hold what the launch had imported, however it was found."""
        places = [(module, self.copy_of(place)) for module in self.modules for place in module.places]
        return list(dict.fromkeys(str(place.parent) for module, place in places if place.stem == module.name))

    def copy_of(self, path: Path) -> Path:
        """Where the copy of ``path`` is; ``path`` itself when it was not copied."""
        path = path if self.within is None else self.within.copy_of(path)
        resolved = path.resolve()
        if resolved.is_relative_to(self.folder.resolve()):  # a cache can be in the project
            return path
        for source, copy in self.sources:
            if resolved == source or source in resolved.parents:
                place = self.folder / copy / resolved.relative_to(source)
                if place.exists():
                    return place
        return path

    def original_of(self, path: Path) -> Path | None:
        """What a path in the copy is a copy of, or would be; None for a path outside of it."""
        for copy, original in self.originals():
            if path.is_relative_to(copy):
                return original / path.relative_to(copy)
        return None

    def source_of(self, path: Path) -> Path | None:
        """What a path in this copy was copied from, or would have been; of a job's copy that is a copy, too."""
        path, home = path.resolve(), self.folder.resolve()
        around = [(source, home / copy) for source, copy in self.sources if path.is_relative_to(home / copy)]
        if not around:
            return None
        source, copy = max(around, key=lambda pair: len(pair[1].parts))
        return source / path.relative_to(copy)

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


def _original(path: Path, copies: Sources) -> Path:
    for copy, original in copies:
        if path.is_relative_to(copy.resolve()):
            return original / path.relative_to(copy.resolve())
    return path


# making


@dataclasses.dataclass(frozen=True)
class Module:
    """A module at the top level: its file, None for a namespace, and the folders of a package's modules."""

    name: str
    file: str | None
    folders: tuple[str, ...]

    @property
    def places(self) -> list[Path]:
        """The files and folders that it is in."""
        return [Path(each) for each in self.folders or (self.file,) if each is not None]


Sources: tp.TypeAlias = tuple[tuple[Path, Path], ...]


def is_trusted_owner(owner: int) -> bool:
    """Whether nobody else can change what that user owns."""
    return owner in (os.getuid(), 0)
