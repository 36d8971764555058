"""Finds an entry by its name, a part of it, a path in the cache or in a sweep folder, or the id of its job."""

from __future__ import annotations

import difflib
import os
import re
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.errors import CacheError, CorruptEntryError
from hydra_exca.launch.find_job import find_slurm_job, is_job_id
from hydra_exca.store import folder_pointers

from .found_entry import FoundEntry
from .listing import list_entries, list_factory_folders, list_map_jobs
from .record import ListedTask

_SHOWN = 20
_SIMILARITY = 0.5  # of names that are shown because they are near


def find_entry(text: str, folder: Path) -> FoundEntry:
    """The entry that ``text`` means: a path, a name in the cache ``folder``, or the id of a job.

    Raises CacheError with what is there where it means none, or several.
    """
    folder = folder.expanduser().absolute()
    for place in (Path(text).expanduser(), folder / text):
        found = find_by_path(place) if place.exists() else None
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


def find_by_path(place: Path) -> FoundEntry | None:
    """The entry that contains a path, or that a job's directory points to.

    Links are followed first. A link in an entry may lead out of it, as ``code`` does: then it counts where it is.
    """
    return _find_above(place.resolve()) or _find_above(Path(os.path.abspath(place)))


def _find_above(place: Path) -> FoundEntry | None:
    for folder in (place, *place.parents):
        if _is_entry(folder):
            return FoundEntry(folder, folder.parents[4 if _is_job_of_map(folder) else 1])
        pointer = _read_pointer(folder)
        if pointer is not None and pointer != folder:
            if not pointer.exists():
                message = f"{folder} shows the outputs in {pointer}, which is not there"
                raise CacheError(f"{message}: was the cache moved, or removed?")
            return find_by_path(pointer)
    return None


def _read_pointer(folder: Path) -> Path | None:
    """The entry, or its output, of a directory in a sweep folder that is no link."""
    for name in (paths.OUTPUT_OWNER, paths.OUTPUT_POINTER):
        try:
            pointer = folder_pointers.read_pointer(folder / name)
        except (OSError, CorruptEntryError):
            continue
        if pointer is not None:
            return Path(pointer)
    return None


def _is_entry(folder: Path) -> bool:
    if "," not in folder.parent.name and not _is_job_of_map(folder):
        return False
    if any((folder / name).exists() for name in (paths.OUTCOME, paths.PREVIOUS, f"{paths.ITEMS}/{paths.IDENTITY}")):
        return True
    try:
        return any(paths.claim_number(name) is not None for name in os.listdir(folder))
    except OSError:
        return False


def _is_job_of_map(folder: Path) -> bool:
    """Whether it is in the folder where a map keeps the entries of its jobs."""
    return folder.parent.name == paths.ITEM_JOBS and folder.parent.parent.name == paths.ITEMS


# by a name


def _find_by_name(text: str, folder: Path) -> FoundEntry:
    if not folder.is_dir() and not is_job_id(text):
        raise CacheError(f"there is no folder {folder} with results: name it with --folder, or in EXCA_FOLDER")
    factory_folder, _, name = text.rpartition("/")
    tasks = _list_tasks(folder, factory_folder) if folder.is_dir() else []
    entries = _found(tasks)
    meant = _best_matches(name, entries) or _best_matches(name, _found(list_map_jobs(tasks)))
    meant = meant or _find_by_job(text, folder)
    if not meant:
        nor = ", and no job has this id" if is_job_id(text) else ""
        raise CacheError(f"no entry of {folder} is called {text}{nor}{_suggest(name, entries)}")
    if len(meant) > 1:
        raise CacheError(f"{text} matches {len(meant)} entries of {folder}:{_list_names(meant)}")
    return meant[0]


def _find_by_job(text: str, folder: Path) -> list[FoundEntry]:
    """The entry of the job with this id, of Slurm or of a process."""
    job = find_slurm_job(job_id=text, folder=folder if folder.is_dir() else None) if is_job_id(text) else None
    return [] if job is None else [FoundEntry(job.path, job.launch.parent.parent)]


def _list_tasks(folder: Path, factory_folder: str) -> list[ListedTask]:
    """The tasks of a cache below the factory folders of this name, or of names that begin so."""
    names = list_factory_folders(folder)
    exact = [name for name in names if name == factory_folder]  # else version 1 would be 10, too
    return [
        task
        for name in exact or [name for name in names if name.startswith(factory_folder)]
        for task in list_entries(folder, name)
    ]


def _found(tasks: tp.Iterable[ListedTask]) -> list[FoundEntry]:
    return [FoundEntry(Path(task.entry), task.cache) for task in tasks if task.entry is not None]


def _best_matches(name: str, entries: tp.Sequence[FoundEntry]) -> list[FoundEntry]:
    """The entries whose names match best: exactly, by the digits at their end, their beginning, or a part."""
    is_digits = re.fullmatch("[0-9a-f]{8,16}", name)
    return (
        [entry for entry in entries if entry.path.name == name]
        or [entry for entry in entries if is_digits and entry.path.name.rpartition("-")[2].startswith(name)]
        or [entry for entry in entries if name and entry.path.name.startswith(name)]
        or [entry for entry in entries if name and name in entry.path.name]
    )


def _list_names(entries: tp.Sequence[FoundEntry]) -> str:
    more = f"\n  and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return "".join(f"\n  {entry.name}" for entry in entries[:_SHOWN]) + more


def _suggest(name: str, entries: tp.Sequence[FoundEntry]) -> str:
    if not entries:
        return ": it has no entries there"
    names = difflib.get_close_matches(name, {entry.path.name for entry in entries}, cutoff=_SIMILARITY)
    similar = [entry for name in names for entry in entries if entry.path.name == name]
    return f"; similar names:{_list_names(similar)}" if similar else ""
