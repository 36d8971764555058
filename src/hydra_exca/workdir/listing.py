"""The files of a project that are copied, as they are now."""

from __future__ import annotations

import dataclasses
import functools
import os
import typing as tp
from pathlib import Path

from hydra_exca.errors import ConfigError

from .ignored import ignored_by_git
from .rules import Rules, is_written, is_written_file

Loaded: tp.TypeAlias = tuple[tp.Collection[str], tp.Collection[str]]
"""Files, and the folders around them."""

Sources: tp.TypeAlias = tuple[tuple[Path, Path], ...]
"""Where each file or folder is, and what its copy is called."""

_MB = 1_000_000
_SHOWN = 10
_SEARCHED = 5_000  # entries of a folder that a link leads to


@dataclasses.dataclass(frozen=True)
class File:
    """A file to copy; of a link that is kept, ``link`` is where it leads, from where it is."""

    path: str
    stat: os.stat_result
    link: str | None = None


def listing(
    sources: Sources,
    left_out: tp.Collection[Path],
    rules: Rules,
    loaded: tp.Callable[[], Loaded] = lambda: ((), ()),
) -> dict[str, File]:
    """The files to copy, by the names of their copies, sorted.

    What programs have written is not among them, nor what git ignores, nor what is ``left_out``; but for the files
    that are ``loaded``, and the folders with these. Links that lead from one place of what is copied to another are
    kept. Raises ConfigError for links that lead out of it, for what cannot be read, and for too many bytes.
    """
    walk = _Walk(sources, frozenset(os.path.realpath(place) for place in left_out), rules, loaded)
    try:
        walk.enter_all()
        found = walk.settled()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(error, rules) from error
    _check_size(found, rules)
    return {name: found[name] for name in sorted(found)}


class _Walk:
    """Goes through the sources, and remembers what links lead to until all files are known."""

    def __init__(
        self, sources: Sources, left_out: frozenset[str], rules: Rules, loaded: tp.Callable[[], Loaded]
    ) -> None:
        self._sources = [(os.path.realpath(source), _name(copy)) for source, copy in sources]
        self._left_out = left_out
        self._rules = rules
        self._get_loaded = loaded
        self._files: dict[str, File] = {}
        self._links: dict[str, tuple[str, str]] = {}
        self._outside: list[str] = []

    def enter_all(self) -> None:
        """Takes the files that were asked for, and what is to be copied of the folders that were."""
        for source, copy in self._sources:
            if os.path.isfile(source):
                self._files[copy] = File(source, os.stat(source))
            else:
                ignored = ignored_by_git(source) if self._rules.ignores else frozenset()
                self._folder(source, copy, "", ignored, _entries(source))

    def settled(self) -> dict[str, File]:
        """The files; a link is kept if what it leads to is among them, else it is a copy of the file."""
        if self._outside:
            more = len(self._outside) - _SHOWN
            told = [*self._outside[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
            raise self._rules.errors(told)
        if not self._links:
            return self._files
        files, folders = dict(self._files), _folders(self._files)
        for name, (path, target) in self._links.items():
            if name == target:  # it was named itself, and its copy is there
                continue
            if target in self._files or (target in folders and os.path.isdir(path)):
                link = os.path.relpath(target or ".", os.path.dirname(name) or ".")
                files[name] = File(path, os.lstat(path), link)
            elif os.path.isfile(path):
                files[name] = File(path, os.stat(path))
        return files

    def _folder(
        self, folder: str, copy: str, inside: str, ignored: frozenset[str], entries: list[os.DirEntry[str]]
    ) -> None:
        rules, left_out = self._rules, self._left_out
        for entry in entries:
            path, place = inside + entry.name, entry.path
            if rules.excludes_path(path) or place in left_out or (place in ignored and not self._is_loaded(entry)):
                continue
            name = f"{copy}/{entry.name}" if copy else entry.name
            if entry.is_symlink():
                self._link(place, name, path)
            elif entry.is_dir():
                self._subfolder(place, name, path, ignored)
            elif entry.is_file() and rules.includes_file(path) and not is_written_file(place):
                self._files[name] = File(place, entry.stat())

    def _is_loaded(self, entry: os.DirEntry[str]) -> bool:
        return entry.path in self._loaded[0 if entry.is_file(follow_symlinks=False) else 1]

    @functools.cached_property
    def _loaded(self) -> Loaded:
        return self._get_loaded()

    def _subfolder(self, folder: str, copy: str, inside: str, ignored: frozenset[str]) -> None:
        entries = _entries(folder)
        names = {entry.name for entry in entries}
        if is_written(folder, names) and folder not in self._loaded[1]:
            return
        if self._rules.ignores and ".git" in names:  # a repository of its own
            ignored = ignored_by_git(folder)
        self._folder(folder, copy, f"{inside}/", ignored, entries)

    def _link(self, path: str, name: str, inside: str) -> None:
        target = os.path.realpath(path)
        is_folder = os.path.isdir(target)
        if not os.path.exists(target) or (not is_folder and not self._rules.includes_file(inside)):
            return
        around = _around(target if is_folder else os.path.dirname(target))
        if any(each in self._left_out for each in around):
            return
        copy = self._copy_of(target)
        if copy is not None:
            self._links[name] = (path, copy)
        elif not any(map(is_written, around)) and not (is_folder and not self._has_code(target)):
            self._outside.append(_leads_out(path, target, self._rules.key))

    def _copy_of(self, target: str) -> str | None:
        for source, copy in self._sources:
            if target == source:
                return copy
            if target.startswith(f"{source}/"):
                inside = target[len(source) + 1 :]
                return f"{copy}/{inside}" if copy else inside
        return None

    def _has_code(self, folder: str) -> bool:
        """Whether anything in a folder would be copied; of a very large one, whether the first part shows it."""
        seen = 0
        for here, folders, names in os.walk(folder):
            if here in self._left_out or is_written(here, {*folders, *names}):
                folders.clear()
                continue
            folders[:] = [each for each in folders if not self._rules.excludes_path(each)]
            if any(self._rules.includes_file(name) and not self._rules.excludes_path(name) for name in names):
                return True
            seen += len(names) + len(folders)
            if seen > _SEARCHED:
                return False
        return False


def _name(copy: Path) -> str:
    return "" if copy == Path() else str(copy)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _folders(names: tp.Iterable[str]) -> set[str]:
    """All folders that the files are in, the outermost one too."""
    found = {""}
    for name in names:
        folder = os.path.dirname(name)
        while folder not in found:
            found.add(folder)
            folder = os.path.dirname(folder)
    return found


def _around(folder: str) -> list[str]:
    return [folder, *map(str, Path(folder).parents)]


def _leads_out(path: str, target: str, key: str) -> str:
    return (
        f"the link {path} leads to {target}, which is not copied with it: name that in {key}.copied, too, or the "
        f"link in {key}.excludes"
    )


def unreadable(error: OSError, rules: Rules) -> ConfigError:
    """What to raise where a file or folder of the code cannot be read."""
    return rules.error(
        f"{os.fsdecode(error.filename or '?')} cannot be read: {error.strerror}. Make it readable, or leave it out by "
        f"{rules.key}.excludes"
    )


def _check_size(found: tp.Mapping[str, File], rules: Rules) -> None:
    sizes = {name: file.stat.st_size for name, file in found.items() if file.link is None}
    total = sum(sizes.values())
    if rules.max_mb is None or total <= rules.max_mb * _MB:
        return
    largest = sorted(sizes, key=lambda name: -sizes[name])[:_SHOWN]
    told = [f"{_mb(sizes[name])} {found[name].path}" for name in largest]
    first = f"{len(sizes)} files of {_mb(total)} together are more than {rules.max_mb:g} MB; the largest are:"
    last = f"leave some out by {rules.key}.excludes, or raise the limit"
    raise rules.error("\n      ".join([first, *told, last]), "max_mb")


def _mb(size: int) -> str:
    return f"{size / _MB:.1f} MB"
