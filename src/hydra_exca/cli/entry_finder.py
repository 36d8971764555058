"""Finds an entry by its name, a part of it, or a path in the cache or in a sweep folder."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.errors import CacheError

_SHOWN = 20
_SIMILARITY = 0.5  # of names that are shown because they are near


@dataclasses.dataclass(frozen=True)
class FoundEntry:
    """An entry, and the cache folder that it is in."""

    path: Path
    cache: Path

    @property
    def name(self) -> str:
        """The name to type: ``factory,version/uid``."""
        return str(self.path.relative_to(self.cache))

    @property
    def factory(self) -> str:
        return self._shelf[0]

    @property
    def version(self) -> str:
        return self._shelf[2]

    @property
    def _shelf(self) -> tuple[str, str, str]:
        return self.path.relative_to(self.cache).parts[0].rpartition(",")


def find_entry(text: str, folder: Path) -> FoundEntry:
    """The entry that ``text`` means: a path, or a name in the cache ``folder``.

    Raises CacheError with what is there where it means none, or several.
    """
    for place in (Path(text).expanduser(), folder / text):
        found = _find_by_path(place) if place.exists() else None
        if found is not None:
            return found
    place = Path(text).expanduser()
    if place.is_symlink():
        raise CacheError(f"{place} is a link to {os.readlink(place)}, which no longer exists")
    if place.is_absolute() or (os.sep in text and place.exists()):
        what = "is not in an entry of a cache" if place.exists() else "does not exist"
        raise CacheError(f"{place} {what}: name an entry's folder, its output, or a job's directory in a sweep folder")
    return _find_by_name(text.rstrip("/"), folder)


# by a path


def _find_by_path(place: Path) -> FoundEntry | None:
    """The entry that a path is in, or that a job's directory tells of. A link leads out of it: to the code, say."""
    return _find_above(place.resolve()) or _find_above(Path(os.path.abspath(place)))


def _find_above(place: Path) -> FoundEntry | None:
    for folder in (place, *place.parents):
        if _is_entry(folder):
            return _found_entry(folder)
        pointer = _read_pointer(folder)
        if pointer is not None and pointer != folder:
            return _follow_pointer(folder, pointer)
    return None


def _follow_pointer(folder: Path, pointer: Path) -> FoundEntry | None:
    if not pointer.exists():
        raise CacheError(
            f"{folder} shows the outputs in {pointer}, which is not there: was the cache moved, or removed?"
        )
    return _find_by_path(pointer)


def _read_pointer(folder: Path) -> Path | None:
    """The entry, or its output, of a directory in a sweep folder that is no link."""
    for name in (paths.OUTPUT_OWNER, paths.OUTPUT_POINTER):
        try:
            return Path((folder / name).read_text().strip())
        except (OSError, UnicodeDecodeError):
            continue
    return None


def _is_entry(folder: Path) -> bool:
    if "," not in folder.parent.name and not _is_job(folder):
        return False
    if any((folder / name).exists() for name in (paths.OUTCOME, paths.PREVIOUS, f"{paths.ITEMS}/{paths.IDENTITY}")):
        return True
    try:
        return any(paths.claim_number(name) is not None for name in os.listdir(folder))
    except OSError:
        return False


def _found_entry(entry: Path) -> FoundEntry:
    """Of a map's job, the cache is that of the map."""
    return FoundEntry(entry, entry.parents[4] if _is_job(entry) else entry.parents[1])


def _is_job(folder: Path) -> bool:
    """Whether it is where a map keeps the entries of its jobs."""
    return folder.parent.name == paths.ITEM_JOBS and folder.parent.parent.name == paths.ITEMS


# by a name


def _find_by_name(text: str, folder: Path) -> FoundEntry:
    if not folder.is_dir():
        raise CacheError(f"there is no folder {folder} with results: name it with --folder, or in EXCA_FOLDER")
    folder_name, _, name = text.rpartition("/")
    entries = list(_entries(folder))
    exact = any(path.parent.name == folder_name for path in entries)  # else version 1 would be 10, too
    fits = folder_name.__eq__ if exact else lambda parent: parent.startswith(folder_name)
    known = [FoundEntry(path, folder) for path in entries if fits(path.parent.name)]
    meant = _best_matches(name, known) or _best_matches(name, [job for found in known for job in _map_jobs(found)])
    if not meant:
        raise CacheError(f"no entry of {folder} is called {text}{_suggest(name, known)}")
    if len(meant) > 1:
        raise CacheError(f"{text} matches {len(meant)} entries of {folder}:{_list_names(meant)}")
    return meant[0]


def _best_matches(name: str, known: tp.Sequence[FoundEntry]) -> list[FoundEntry]:
    """The entries whose names match best: exactly, by their digits, or by their beginning."""
    for fits in (_is_name, _has_digits, _has_prefix):
        meant = [found for found in known if fits(found.path.name, name)]
        if meant:
            return meant
    return []


def _is_name(name: str, asked: str) -> bool:
    return name == asked


def _has_digits(name: str, asked: str) -> bool:
    """Whether it is asked for by the digits that the name ends in."""
    return bool(re.fullmatch("[0-9a-f]{8,16}", asked)) and name.rpartition("-")[2].startswith(asked)


def _has_prefix(name: str, asked: str) -> bool:
    return bool(asked) and name.startswith(asked)


def _entries(folder: Path) -> tp.Iterator[Path]:
    """Every entry of a cache, those of maps' jobs not."""
    for folder_name in sorted(folder.iterdir()):
        if "," in folder_name.name and folder_name.is_dir():
            yield from _folders(folder_name)


def _folders(folder_name: Path) -> list[Path]:
    return sorted(path for path in folder_name.iterdir() if path.is_dir() and not path.name.startswith("."))


def _map_jobs(of: FoundEntry) -> list[FoundEntry]:
    """The entries of a map's jobs."""
    folder = of.path / paths.ITEMS / paths.ITEM_JOBS
    return [FoundEntry(path, of.cache) for path in _folders(folder)] if folder.is_dir() else []


def _list_names(meant: tp.Sequence[FoundEntry]) -> str:
    more = f"\n  and {len(meant) - _SHOWN} more" if len(meant) > _SHOWN else ""
    return "".join(f"\n  {found.name}" for found in meant[:_SHOWN]) + more


def _suggest(name: str, known: tp.Sequence[FoundEntry]) -> str:
    if not known:
        return ": it has no entries there"
    names = difflib.get_close_matches(name, {found.path.name for found in known}, cutoff=_SIMILARITY)
    near = [found for each in names for found in known if found.path.name == each]
    return f"; similar names:{_list_names(near)}" if near else ""
