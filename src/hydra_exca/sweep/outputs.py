"""The sweep folder as Hydra users know it: a view of the entries' outputs, with one name for each job."""

from __future__ import annotations

import functools
import json
import logging
import os
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.errors import CorruptEntryError
from hydra_exca.store import ClaimState, Entry, folder_pointers

log = logging.getLogger("exca.sweep")


class SweepFolder:
    """A sweep folder that shows the outputs of entries.

    ``link``: as links, where the file system has them; else as real folders with a file that names the outputs. What
    stands in the way is moved aside, never deleted; a link is only replaced.
    """

    def __init__(self, path: str, *, link: bool) -> None:
        self._path = os.path.abspath(path)
        self._link = link
        # nearly all jobs of a sweep have the same folders, and to resolve them is half of what a link takes
        self._relative_path = functools.cache(_relative_path)
        self.has_real_folders = False

    def show(self, subfolder: str, output: str) -> None:
        """Makes the job's folder show ``output``, which is made as an empty folder if it is not there."""
        shown = os.path.normpath(os.path.join(self._path, subfolder))
        if os.path.normpath(output) == shown:
            return
        # the sweep folder itself holds more than a job's outputs, and is never a link
        if self._link and shown != self._path and _make_folder(output):
            parent = os.path.dirname(shown)
            os.makedirs(parent, exist_ok=True)
            if _link(shown, self._relative_target(output, parent)):
                return
        self.has_real_folders = True
        folder = Path(shown)
        if folder.is_symlink():
            folder.unlink()
        if make_way(folder, None):
            folder.mkdir(parents=True, exist_ok=True)
            folder_pointers.write_pointer(folder / paths.OUTPUT_POINTER, output)

    def _relative_target(self, output: str, parent: str) -> str:
        """The path of an output for a link in the folder ``parent``."""
        entry, name = os.path.split(os.path.normpath(output))
        if os.path.islink(output) or os.path.islink(entry):
            return _relative_path(output, parent)
        factory_folder, uid = os.path.split(entry)
        return os.path.join(self._relative_path(factory_folder, parent), uid, name)


def _make_folder(path: str) -> bool:
    """Whether a folder is there now: that of an infra's entry is made when a sweep first shows it."""
    try:
        if not os.path.isdir(path):
            os.makedirs(path, exist_ok=True)
    except OSError:
        return False
    return True


def _relative_path(folder: str, start: str) -> str:
    return os.path.relpath(os.path.realpath(folder), os.path.realpath(start))


def make_way(job_folder: Path, entry: Entry | None) -> bool:
    """Moves a real folder with another entry's outputs aside, and records in that entry where they are now.

    With an ``entry`` the folder is marked as holding its outputs. Returns False and changes nothing if another task is
    writing to the folder.
    """
    mark = job_folder / paths.OUTPUT_OWNER
    owner = _read_owner(mark)
    if owner is not None and (entry is None or owner.path != entry.path):
        if _is_running(owner):
            return False
        aside = files.move_aside(job_folder)
        if owner.current_claim() is not None:
            owner.record_output_folder(aside)
    if entry is not None:
        job_folder.mkdir(parents=True, exist_ok=True)
        files.clear_leftovers(job_folder)
        folder_pointers.write_pointer(mark, entry.path)
    return True


def _read_owner(mark: Path) -> Entry | None:
    """The entry whose outputs a folder holds, None if it holds none. A folder whose mark is damaged is set aside."""
    try:
        owner = folder_pointers.read_pointer(mark)
    except NotADirectoryError:
        return None
    except CorruptEntryError as error:
        log.warning("exca: %s; the folder is set aside as %s", error, files.move_aside(mark.parent))
        return None
    return None if owner is None else Entry(owner)


def _is_running(entry: Entry) -> bool:
    claim = entry.current_claim()
    return claim is not None and claim.state is ClaimState.RUNNING and entry.outcome() is None


def write_index(sweep_folder: Path, rows: tp.Sequence[dict[str, tp.Any]]) -> None:
    """Writes ``sweep.json``: overrides, uid, status and output of every job of the sweep."""
    sweep_folder.mkdir(parents=True, exist_ok=True)
    files.clear_leftovers(sweep_folder)
    lines = ",\n ".join(map(json.dumps, rows))
    files.write_file(sweep_folder / paths.SWEEP, f"[\n {lines}\n]\n".encode())


def _link(shown: str, target: str) -> bool:
    """Whether the link is there now; False on a file system that has none."""
    try:
        os.symlink(target, shown)
    except FileExistsError:
        return (os.path.islink(shown) and os.readlink(shown) == target) or _replace_by_link(Path(shown), target)
    except OSError:
        return False
    return True


def _replace_by_link(shown: Path, target: str) -> bool:
    try:
        with files.replacing(shown) as temporary:
            os.symlink(target, temporary)
            if shown.exists() and not shown.is_symlink():
                _clear_way(shown)
    except OSError:
        return False
    return True


def _clear_way(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:  # it is not empty, or a file
        files.move_aside(path)
