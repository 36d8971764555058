"""What a user means by a folder, a factory, a sweep, a launch, or a class: the tasks to list."""

from __future__ import annotations

import difflib
import os
import re
import typing as tp
from pathlib import Path

from hydra_exca import checksums, files, paths, records
from hydra_exca.errors import CacheError, CorruptEntryError
from hydra_exca.store import launches
from hydra_exca.text import name_some

from . import entry_finder
from .listing import list_entries, list_factory_folders, list_launches
from .record import ListedTask

FOLDER_VARIABLE = "EXCA_FOLDER"
_DEFAULT = "exca"


class TaskListing(tp.NamedTuple):
    """The tasks in a place, and its name for people."""

    name: str
    tasks: list[ListedTask]
    launch: Path | None = None


def nearest_cache() -> Path:
    """The cache folder that ``EXCA_FOLDER`` names, or else the nearest folder ``exca`` here or above.

    Raises CacheError if there is none.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / _DEFAULT).is_dir():
            return folder / _DEFAULT
    raise CacheError(
        f"there is no folder exca in {here} or above: name the folder with the results, or {FOLDER_VARIABLE}"
    )


def find_tasks(where: str | os.PathLike[str] | None, folder: Path | None) -> TaskListing:
    """The tasks that ``where`` means; names are looked up in ``folder``, by default the nearest cache.

    Raises CacheError if there is no such place.
    """
    if where is None:
        return _tasks_of_cache(cache_folder(folder))
    where = os.fspath(where)
    place = Path(where).expanduser().absolute()
    if place.is_dir():
        return _tasks_of_folder(place)
    if os.sep in where.rstrip(os.sep):
        folder, where = place.parent, place.name
        if folder.name != paths.LAUNCHES and not list_factory_folders(folder):
            raise CacheError(f"{place} does not exist")
    cache = cache_folder(folder)
    cache = cache.parent if cache.name == paths.LAUNCHES else cache
    launch = find_launch(where, cache)
    if launch is not None:
        return tasks_of_launch(launch)
    return tasks_of_factory(cache, where)


def find_launch(text: str, cache: Path) -> Path | None:
    """The folder of the launch whose path ``text`` is, or whose token has it; None if no launch is meant.

    Raises CacheError if several are meant.
    """
    place = Path(text).expanduser().absolute()
    if place.parent.name == paths.LAUNCHES and place.is_dir():
        return place
    if re.fullmatch(launches.TOKEN_PATTERN, text):
        return paths.launch_folder(cache, text)
    if place.exists() or not re.fullmatch(r"[0-9a-f-]{6,}", text):
        return None
    tokens = [token for token in list_launches(cache) if text in token]
    if len(tokens) > 1:
        raise CacheError(f"{text} matches {len(tokens)} launches of {cache}: {name_some(tokens)}")
    return paths.launch_folder(cache, tokens[0]) if tokens else None


def cache_folder(folder: Path | None) -> Path:
    """The absolute path of this cache folder, by default of the nearest one."""
    return nearest_cache() if folder is None else folder.expanduser().absolute()


def _tasks_of_folder(folder: Path) -> TaskListing:
    if (folder / paths.SWEEP).exists():
        return _tasks_of_sweep(folder)
    if folder.parent.name == paths.LAUNCHES:
        return tasks_of_launch(folder)
    if "," in folder.name and ((folder / paths.NAMES).is_dir() or (folder / paths.PROJECT).exists()):
        return TaskListing(_shown(folder), list_entries(folder.parent, folder.name))
    found = entry_finder.find_by_path(folder)
    if found is not None:
        return TaskListing(_shown(found.path), [ListedTask(str(found.path), found.cache)])
    if (folder / paths.CACHEDIR_TAG).exists() or list_factory_folders(folder):
        return _tasks_of_cache(folder)
    if (folder / _DEFAULT).is_dir():
        return _tasks_of_cache(folder / _DEFAULT)
    raise CacheError(f"{folder} has no results: it is no cache folder, factory folder, sweep folder or launch")


def _tasks_of_cache(cache: Path) -> TaskListing:
    if not cache.is_dir():
        raise CacheError(f"there is no folder {cache} with results")
    return TaskListing(
        _shown(cache), [task for name in list_factory_folders(cache) for task in list_entries(cache, name)]
    )


def tasks_of_factory(cache: Path, name: str, version: str | None = None) -> TaskListing:
    """All tasks of a factory, or of the factories whose names begin so; of all versions, if none is given."""
    there = list_factory_folders(cache)
    names = [each for each in there if each == name or each.rpartition(",")[0] == name]
    names = names or [each for each in there if version is None and each.startswith(name)]
    if version is not None:
        names = [each for each in names if each.rpartition(",")[2] == version]
    elif not names:
        known = sorted({each.rpartition(",")[0] for each in there})
        near = difflib.get_close_matches(name, known, cutoff=0.4) or known[:10]
        hint = f"; it has those of {', '.join(near)}" if near else ""
        raise CacheError(f"{cache} has no results of {name}{hint}")
    tasks = [task for each in names for task in list_entries(cache, each)]
    return TaskListing(_shown(cache / (names[0] if len(names) == 1 else name)), tasks)


def tasks_of_launch(launch: Path) -> TaskListing:
    record = launches.read_record(launch)
    if "entries" not in record:
        why = "its record is missing or damaged" if launch.is_dir() else "there is no such folder"
        raise CacheError(f"the tasks of launch {launch} are not known: {why}")
    cache = launch.parent.parent
    tasks = [ListedTask(f"{cache}/{name}", cache) for name in record["entries"]]
    return TaskListing(f"launch {launch.name}", tasks, launch)


# sweeps


def _tasks_of_sweep(folder: Path) -> TaskListing:
    path = folder / paths.SWEEP
    with records.damage_named(path):
        rows = checksums.parse_json(files.read_file(path))
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise CorruptEntryError(f"{path} is damaged: it is no list of jobs")
    return TaskListing(_shown(folder), [_task_of_row(folder, row) for row in rows])


def _task_of_row(folder: Path, row: dict[str, tp.Any]) -> ListedTask:
    entry = _entry_of_row(folder, row)
    return ListedTask(entry, folder if entry is None else paths.cache_folder(Path(entry)), row)


def _entry_of_row(folder: Path, row: dict[str, tp.Any]) -> str | None:
    """The entry of a job. The cache may have been moved with the sweep folder, whose links are relative."""
    output = row.get("output")
    if not isinstance(output, str):
        return None
    entry, name = os.path.split(output)
    if name == paths.OUTPUT and os.path.basename(entry) == row.get("uid") and os.path.isdir(entry):
        return entry
    for place in (folder / str(row.get("folder")), Path(output)):
        try:
            found = entry_finder.find_by_path(place) if place.exists() else None
        except CacheError:
            continue
        if found is not None:
            return str(found.path)
    return None


def _shown(path: Path) -> str:
    """A path for people: relative where that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)
