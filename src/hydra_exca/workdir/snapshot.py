"""Snapshots: copies of code, named by what is in them."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import typing as tp
import uuid
from pathlib import Path

from hydra_exca import paths
from hydra_exca.errors import CacheError

from . import copying
from . import sources as finding
from . import tree as trees
from .copying import ChangedError, Last
from .listing import Sources
from .rules import Rules
from .sources import Module, Wanted
from .tree import Tree

if tp.TYPE_CHECKING:
    from hydra_exca.payload import Payload

log = logging.getLogger("exca.workdir")
_TRIES = 5
_EVERYTHING = Rules()


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

    def applied(self, payload: Payload, instead_of: Path | None = None) -> Payload:
        """The payload of jobs that import from the copy: first the copy itself, then what led into the sources.

        It is their working directory too, if it is to be that ``instead_of`` another.
        """
        search = [*self.import_roots(), *(str(self.copy_of(Path(entry))) for entry in payload.search_path)]
        script = payload.script
        if script is not None:
            script = dataclasses.replace(script, path=str(self.copy_of(Path(script.path))))
        search_path = tuple(dict.fromkeys(search))
        payload = dataclasses.replace(payload, search_path=search_path, script=script, code=self.digest, copy=self)
        if instead_of is None:
            return payload
        inside = self.copy_of(instead_of)
        working_directory = inside if inside != instead_of and inside.is_dir() else self.folder
        return dataclasses.replace(payload, working_directory=str(working_directory), origin=str(instead_of))

    def check(self) -> None:
        """Raises CacheError if the copy is gone, or is somebody else's, who could change what is imported from it."""
        try:
            owner = os.stat(self.folder).st_uid
        except OSError:
            raise CacheError(
                f"{self.folder} is gone, the copy of the code that this was launched with: launch it again"
            ) from None
        if not trees.is_own(owner):
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


def check_place(folder: Path, rules: Rules) -> None:
    """Raises ConfigError if no copy can be at ``folder``."""
    if not folder.parent.is_dir():
        raise rules.error(f"{folder.parent} does not exist; create it", "folder")
    is_free = not folder.exists() or (folder.is_dir() and not os.listdir(folder))
    if not is_free and not (folder / paths.CODE_MARK).is_file():
        raise rules.error(f"{folder} is there and is no copy of code; name another folder", "folder")


def snapshot(
    wanted: Wanted,
    cache: Path,
    rules: Rules = _EVERYTHING,
    folder: Path | None = None,
    left_out: tp.Collection[Path] = (),
    known: Tree | None = None,
) -> Snapshot:
    """Copies what `find` found below ``<cache>/code/<digest>``, unless that copy is there; files are read-only.

    Files that have not changed since the last copy are hard links to it. With ``folder`` the copy is there instead,
    and can be written; ConfigError if that holds anything else. ``known`` is what `look` has just found.
    """
    left_out = [*left_out, *([] if folder is None else [folder])]
    for _ in range(_TRIES):
        tree = known or trees.look(wanted.sources, cache, rules, left_out)
        known = None
        with contextlib.suppress(ChangedError, FileNotFoundError):
            target = _make(tree, wanted, cache, rules) if folder is None else _put(tree, wanted, cache, folder, rules)
            sources = tuple((source.resolve(), copy) for source, copy in wanted.sources)
            modules = tuple(module for module in finding.imported() if _is_of(module, sources))
            return Snapshot(target, tree.digest, sources, wanted.roots, modules, passed_over=tree.passed_over)
    raise rules.error("files change while they are copied; try again")


def _is_of(module: Module, sources: Sources) -> bool:
    return any(place.is_relative_to(source) for place in module.places for source, _ in sources)


def _original(path: Path, copies: Sources) -> Path:
    for copy, original in copies:
        if path.is_relative_to(copy.resolve()):
            return original / path.relative_to(copy.resolve())
    return path


# making


def _make(tree: Tree, wanted: Wanted, cache: Path, rules: Rules) -> Path:
    """The copy below the cache. Of two launches that make the same one at once, one copy stays."""
    target = _place(tree, cache, rules)
    if target.exists():
        if copying.is_whole(target, tree):
            copying.renew(target, tree)
        else:
            _set_aside(target)
    if not target.exists():
        with _filling(target, rules) as temporary:
            copying.fill(tree, temporary, Last(cache, tree.last or trees.newest(cache)), read_only=True)
        if not target.exists():
            raise ChangedError
    trees.remember(cache, tree, wanted.sources)
    return target


def _place(tree: Tree, cache: Path, rules: Rules) -> Path:
    """Where the copy is to be; never in place of one of another user: jobs may run from that."""
    places = copying.places(cache, tree.digest)
    for place in places:
        owner = _owner(place)
        if owner in (None, os.getuid()) or (trees.is_own(owner) and copying.is_whole(place, tree)):
            return place
    raise rules.error(f"{places[-1]} is there, and belongs to another user; remove it, or name another cache folder")


def _owner(place: Path) -> int | None:
    try:
        return os.lstat(place).st_uid
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _filling(target: Path, rules: Rules) -> tp.Iterator[Path]:
    """A folder to fill, which then is at ``target``, unless another launch was quicker; if that fails, nothing is."""
    temporary = target.with_name(paths.temporary_name(target.name, uuid.uuid4().hex))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _rename(temporary, target)
    except FileNotFoundError:
        raise
    except OSError as error:
        place = "" if error.filename is None else f" ({os.fsdecode(error.filename)})"
        raise rules.error(f"it cannot be copied to {target}: {error.strerror or error}{place}") from error
    finally:
        copying.remove(temporary)


def _rename(temporary: Path, target: Path) -> None:
    try:
        os.rename(temporary, target)
    except OSError:
        if not os.path.lexists(target):  # else another launch was quicker
            raise


def _set_aside(target: Path) -> None:
    aside = target.with_name(paths.aside_name(target.name, uuid.uuid4().hex[:12]))
    with contextlib.suppress(FileNotFoundError):
        os.rename(target, aside)
        log.warning("exca: the copy of the code %s was changed after it was made; it is set aside as %s", target, aside)


def _put(tree: Tree, wanted: Wanted, cache: Path, folder: Path, rules: Rules) -> Path:
    """The copy in a folder that was named. A mark in it tells later what it is."""
    if not _holds(folder, tree, rules):
        with _filling(folder, rules) as temporary:
            copying.fill(tree, temporary, Last(cache, None), read_only=False)
            (temporary / paths.CODE_MARK).write_text(f"{tree.digest}\n")
        if not _holds(folder, tree, rules):  # another launch was quicker
            raise ChangedError
    trees.remember(cache, tree, wanted.sources)
    return folder


def _holds(folder: Path, tree: Tree, rules: Rules) -> bool:
    """Whether this code was copied to ``folder`` before. ConfigError if anything else is there."""
    check_place(folder, rules)
    mark = folder / paths.CODE_MARK
    if not mark.exists():
        return False
    if mark.read_text().strip() != tree.digest:
        raise rules.error(
            f"{folder} holds a copy of other code, which jobs may still run from. Remove it when none does, or name "
            "another folder",
            "folder",
        )
    changed = [name for name in tree.files if copying.told(folder / name) != tree.told[name].removesuffix(" x")]
    if changed:
        raise rules.error(f"{folder / changed[0]} was changed after it was copied; remove {folder}", "folder")
    return True
