"""The files of a project that are copied, as they are now."""

from __future__ import annotations

import dataclasses
import functools
import importlib.machinery
import logging
import os
import typing as tp
from pathlib import Path

from hydra_exca.errors import ConfigError, Problem

from . import git
from .rules import Rules, is_written, is_written_file
from .selection import LoadedFiles
from .snapshot import Sources

log = logging.getLogger("exca.workdir")
_MB = 1_000_000
_SHOWN = 10
_SHOWN_CHANGES = 20
_SEARCHED = 5_000  # entries of a folder that a link leads to
_MODULES = tuple(importlib.machinery.all_suffixes())
_NO_CODE = ("__pycache__", ".git")
_NOTHING = LoadedFiles(frozenset(), frozenset(), frozenset())


@dataclasses.dataclass(frozen=True)
class File:
    """A file to copy. For a link that is kept, ``link`` is its relative target.

    ``data`` is the content of a file that may soon be another one.
    """

    path: str
    stat: os.stat_result
    link: str | None = None
    data: bytes | None = dataclasses.field(default=None, repr=False)


class Listing(tp.NamedTuple):
    """The files to copy, by the names of their copies; ``not_copied`` are the skipped folders and modules."""

    files: dict[str, File]
    not_copied: frozenset[str]


def list_files(sources: Sources, rules: Rules, loaded: tp.Callable[[], LoadedFiles] = lambda: _NOTHING) -> Listing:
    """The files to copy, sorted by name, and the folders and modules that are skipped.

    Output of programs is skipped, and so are files that git ignores, except the files that are ``loaded`` and their
    neighbours. Links within the copied code are kept. Raises ConfigError for links that lead to other code, for files
    that cannot be read, and for too many bytes.
    """
    walk = _Walk(sources, rules, loaded)
    try:
        walk.walk_sources()
        files = walk.files_with_links()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable_error(error, rules) from error
    _check_size(files, rules)
    return Listing({name: files[name] for name in sorted(files)}, walk.not_copied)


class _FolderOnWalk(tp.NamedTuple):
    """A folder being walked: the name of its copy, its path below the source with a slash, the paths that git ignores.

    With ``only_loaded``, git ignores the folder or programs write it; it is walked for the loaded files in it.
    """

    copy: str
    inside: str
    ignored: frozenset[str]
    only_loaded: bool = False


class _Walk:
    """Walks through the sources. Links are resolved at the end, when all files are known."""

    def __init__(self, sources: Sources, rules: Rules, loaded: tp.Callable[[], LoadedFiles]) -> None:
        self._sources = [(os.path.realpath(source), "" if copy == Path() else str(copy)) for source, copy in sources]
        self._never_copied = frozenset(map(os.path.realpath, rules.never_copied))
        self._rules = rules
        self._get_loaded = loaded
        self._files: dict[str, File] = {}
        self._links: dict[str, tuple[str, str]] = {}
        self._outside: list[str] = []
        self._not_copied = set(self._never_copied)  # files that the launch writes there later are not code either

    @property
    def not_copied(self) -> frozenset[str]:
        """The files and folders of the sources that are not copied; never a parent of a source."""
        around = {place for source, _ in self._sources for place in _with_parents(source)}
        return frozenset(place for place in self._not_copied - around if self._copy_of(place) is not None)

    def walk_sources(self) -> None:
        """Collects the files that were named, and the files to copy of the folders that were named."""
        for source, copy in self._sources:
            if os.path.isfile(source):
                self._files[copy] = File(source, os.stat(source))
            else:
                ignored = ignored_by_git(source) if self._rules.ignores else frozenset()
                self._walk_folder(_FolderOnWalk(copy, "", ignored), _entries(source))

    def files_with_links(self) -> dict[str, File]:
        """The files and links. A link is kept if its target is copied, too; else it becomes a copy of the target."""
        if self._outside:
            more = [f"and {len(self._outside) - _SHOWN} more"] if len(self._outside) > _SHOWN else []
            raise self._rules.errors([*self._outside[:_SHOWN], *more])
        folders = folders_around(self._files) if self._links else set()
        links = {name: self._file_of_link(name, *link, folders) for name, link in self._links.items()}
        return {**self._files, **{name: file for name, file in links.items() if file is not None}}

    def _file_of_link(self, name: str, path: str, target: str, folders: set[str]) -> File | None:
        if name == target:  # the link was named itself, and is copied as a file
            return None
        if target in self._files or (target in folders and os.path.isdir(path)):
            return File(path, os.lstat(path), os.path.relpath(target or ".", os.path.dirname(name) or "."))
        return File(path, os.stat(path)) if os.path.isfile(path) else None

    def _walk_folder(self, here: _FolderOnWalk, entries: list[os.DirEntry[str]]) -> None:
        for entry in entries:
            path = here.inside + entry.name
            name = f"{here.copy}/{entry.name}" if here.copy else entry.name
            if self._is_excluded(entry, path, here):
                self._mark_not_copied(entry)
            elif entry.is_symlink():
                self._walk_link(entry, name, path)
            elif entry.is_dir():
                only_loaded = here.only_loaded or entry.path in here.ignored
                self._walk_subfolder(entry, _FolderOnWalk(name, f"{path}/", here.ignored, only_loaded))
            elif not self._rules.includes_file(path):
                self._mark_not_copied(entry)
            elif entry.is_file() and not is_written_file(entry.path):
                self._files[name] = File(entry.path, entry.stat())

    def _is_excluded(self, entry: os.DirEntry[str], path: str, here: _FolderOnWalk) -> bool:
        place = entry.path
        if self._rules.excludes_path(path) or place in self._never_copied:
            return True
        if place in here.ignored:
            return place not in (self._loaded.files if entry.is_file(follow_symlinks=False) else self._loaded.folders)
        if not here.only_loaded:
            return False
        if entry.is_dir(follow_symlinks=False):
            return place not in self._loaded.folders
        return os.path.dirname(place) not in self._loaded.beside

    def _mark_not_copied(self, entry: os.DirEntry[str]) -> None:
        if entry.name not in _NO_CODE and (entry.name.endswith(_MODULES) or os.path.isdir(entry)):
            self._not_copied.add(entry.path)

    @functools.cached_property
    def _loaded(self) -> LoadedFiles:
        return self._get_loaded()

    def _walk_subfolder(self, entry: os.DirEntry[str], here: _FolderOnWalk) -> None:
        entries = _entries(entry.path)
        names = {inner.name for inner in entries}
        if is_written(entry.path, names):
            if entry.path not in self._loaded.folders:
                self._mark_not_copied(entry)
                return
            here = here._replace(only_loaded=True)
        if self._rules.ignores and ".git" in names:  # a repository of its own
            here = here._replace(ignored=ignored_by_git(entry.path))
        self._walk_folder(here, entries)

    def _walk_link(self, entry: os.DirEntry[str], name: str, inside: str) -> None:
        target = os.path.realpath(entry.path)
        around = _with_parents(target if os.path.isdir(target) else os.path.dirname(target))
        copy = self._copy_of(target)
        if not self._is_wanted(target, inside) or not self._never_copied.isdisjoint(around):
            self._mark_not_copied(entry)
        elif copy is not None:
            self._links[name] = (entry.path, copy)
        elif any(map(is_written, around)) or (os.path.isdir(target) and not self._folder_has_code(target)):
            self._mark_not_copied(entry)
        else:
            self._outside.append(
                f"the link {entry.path} leads to {target}, which is not copied with it: add the target to "
                f"{self._rules.key}.copied, or exclude the link with {self._rules.key}.excludes"
            )

    def _is_wanted(self, target: str, inside: str) -> bool:
        """Whether there is anything to copy where a link leads."""
        return os.path.isdir(target) or (os.path.exists(target) and self._rules.includes_file(inside))

    def _copy_of(self, target: str) -> str | None:
        for source, copy in self._sources:
            if target == source:
                return copy
            if target.startswith(f"{source}/"):
                return os.path.join(copy, target[len(source) + 1 :])
        return None

    def _folder_has_code(self, folder: str) -> bool:
        """Whether any file in a folder would be copied. Only the first part of a very large folder is searched."""
        seen = 0
        for here, folders, names in os.walk(folder):
            if here in self._never_copied or is_written(here, {*folders, *names}):
                folders.clear()
                continue
            folders[:] = [name for name in folders if not self._rules.excludes_path(name)]
            if any(self._rules.includes_file(name) and not self._rules.excludes_path(name) for name in names):
                return True
            seen += len(names) + len(folders)
            if seen > _SEARCHED:
                return False
        return False


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def folders_around(names: tp.Iterable[str]) -> set[str]:
    """All folders around files with these relative names; the outermost one is ""."""
    folders = {os.path.dirname(name) for name in names}
    return {"", *folders, *(str(parent) for folder in folders for parent in Path(folder).parents if parent.name)}


def _with_parents(folder: str) -> list[str]:
    return [folder, *map(str, Path(folder).parents)]


def unreadable_error(error: OSError, rules: Rules) -> ConfigError:
    """The error for a file or folder of the code that cannot be read."""
    return rules.error(
        f"{os.fsdecode(error.filename or '?')} cannot be read: {error.strerror}. Make it readable, or leave it out "
        f"with {rules.key}.excludes"
    )


def _check_size(files: tp.Mapping[str, File], rules: Rules) -> None:
    sizes = {file.path: file.stat.st_size for file in files.values() if file.link is None}
    total = sum(sizes.values())
    if rules.max_mb is None or total <= rules.max_mb * _MB:
        return
    largest = [f"{_mb(sizes[path])} {path}" for path in sorted(sizes, key=lambda path: -sizes[path])[:_SHOWN]]
    first = f"{len(sizes)} files of {_mb(total)} together are more than {rules.max_mb:g} MB; the largest are:"
    last = f"leave some out with {rules.key}.excludes, or raise the limit"
    raise rules.error("\n      ".join([first, *largest, last]), "max_mb")


def _mb(size: int) -> str:
    return f"{size / _MB:.1f} MB"


def check_committed(sources: Sources, rules: Rules) -> dict[Path, str]:
    """The commit of each repository around the sources.

    Raises ConfigError that lists the files that are not committed: of those to copy, and of all that git tracks in
    these repositories.
    """
    files: dict[Path, set[str]] = {}
    commits: dict[Path, str] = {}
    for source, copy in sources:
        root, commits[root] = _read_commit(source, rules)
        copied = list_files(((source, copy),), rules).files.values()
        files.setdefault(root, set()).update(_path_in_git(file.path) for file in copied)
    changes = [f"{root / name}" for root in commits for name in _find_uncommitted(root, files[root], rules)]
    if changes:
        raise _uncommitted_error(changes, rules)
    return commits


def _read_commit(source: Path, rules: Rules) -> tuple[Path, str]:
    """The root of the repository of a source, and its commit."""
    try:
        repository = git.find_repository(source if source.is_dir() else source.parent)
    except git.GitError as error:
        raise _uncommitted_error([f"git says of {source}: {error}"], rules) from error
    commit = None if repository is None else repository.read_commit()
    if repository is None or commit is None:
        raise _uncommitted_error([f"{source} is in no git repository, or in one without a commit"], rules)
    return repository.root, commit


def _path_in_git(path: str) -> str:
    """The path by which git knows a file: links above it are resolved, and the file itself may be a link."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _find_uncommitted(root: Path, files: set[str], rules: Rules) -> list[str]:
    """The files of a repository that differ from the commit, and those of ``files`` that are not in it."""
    try:
        tracked = git.tracked_files(root)
        changes = git.uncommitted_changes(root, untracked=False)
    except git.GitError as error:
        raise _uncommitted_error([f"git says of {root}: {error}"], rules) from error
    home = root.resolve()
    return sorted({*changes, *({os.path.relpath(file, home) for file in files} - tracked)})


def _uncommitted_error(changes: tp.Sequence[str], rules: Rules) -> ConfigError:
    shown = [Problem(change, f"{rules.key}.log_commit") for change in changes[:_SHOWN_CHANGES]]
    more = len(changes) - len(shown)
    if more:
        shown.append(Problem(f"and {more} more", f"{rules.key}.log_commit"))
    return ConfigError("The code has uncommitted changes; commit them first. Nothing was run.", shown)


def ignored_by_git(folder: str) -> frozenset[str]:
    """The files and folders that git ignores below a folder; none if it is in no repository, or is ignored itself."""
    try:
        names = git.ignored_names(Path(folder))
    except git.NoRepositoryError:
        return frozenset()
    except git.GitError as error:
        log.warning("exca: ignored files in %s are copied, too, because git does not list them: %s", folder, error)
        return frozenset()
    return frozenset() if "./" in names else frozenset(f"{folder}/{name.rstrip('/')}" for name in names)
