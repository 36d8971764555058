"""The sweep folder as Hydra users know it: a view of the entries' outputs, one name for each job."""

from __future__ import annotations

import functools
import json
import os
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.store import ClaimState, Entry


class View:
    """A sweep folder that shows the outputs of entries.

    ``link``: as links, where the file system has them; else as real folders with a file that names the outputs. What
    stands in the way is moved aside, never deleted; a link is only replaced.
    """

    def __init__(self, sweep_folder: str, *, link: bool) -> None:
        self._sweep_folder = os.path.join(os.getcwd(), sweep_folder)
        self._link = link
        # shared by nearly all jobs of a sweep, and half of what a link takes
        self._real = functools.lru_cache(maxsize=64)(os.path.realpath)
        self._relative = functools.lru_cache(maxsize=64)(os.path.relpath)
        self._made: set[str] = set()
        self.is_of_links = True

    def show(self, subfolder: str, output: str) -> None:
        """Makes the job's folder show ``output``, which is given an empty folder if no sweep has computed it."""
        shown = str(Path(self._sweep_folder, subfolder))
        there = _is_there(output)
        if os.path.normpath(output) == os.path.normpath(shown):
            return
        if self._link and there and self._shows_link(shown, output):
            return
        self.is_of_links = False
        folder = Path(shown)
        if folder.is_symlink():
            folder.unlink()
        if make_way(folder, None):
            folder.mkdir(parents=True, exist_ok=True)
            files.write_file(folder / paths.OUTPUT_POINTER, f"{output}\n".encode())

    def _shows_link(self, shown: str, output: str) -> bool:
        """Whether the link is there now; the sweep folder itself, which holds what is no job's, is never one."""
        if os.path.normpath(shown) == os.path.normpath(self._sweep_folder):
            return False
        parent = os.path.dirname(shown)
        if parent not in self._made:
            os.makedirs(parent, exist_ok=True)
            self._made.add(parent)
        return _link(shown, self._target(output, parent))

    def _target(self, output: str, parent: str) -> str:
        entry, name = os.path.split(os.path.normpath(output))
        shelf, uid = os.path.split(entry)
        if os.path.islink(output) or os.path.islink(entry):
            return os.path.relpath(os.path.realpath(output), self._real(parent))
        return os.path.join(self._relative(self._real(shelf), self._real(parent)), uid, name)


def _is_there(output: str) -> bool:
    """Whether the output folder of an entry is there or can be made."""
    try:
        if not os.path.isdir(output):
            os.makedirs(output, exist_ok=True)
    except OSError:
        return False
    return True


def make_way(job_folder: Path, entry: Entry | None) -> bool:
    """Moves a real folder with another entry's outputs aside, and tells that entry where they are now.

    With an ``entry`` the folder is marked as holding its outputs. False, and nothing is changed, where another task
    writes into the folder at this moment.
    """
    mark = job_folder / paths.OUTPUT_OWNER
    owner = Path(mark.read_text().strip()) if mark.exists() else None
    if owner is not None and (entry is None or owner != entry.path):
        if _is_at_work(Entry(owner)):
            return False
        aside = files.move_aside(job_folder)
        if owner.is_dir():
            Entry(owner).record_output_folder(aside)
    if entry is not None:
        job_folder.mkdir(parents=True, exist_ok=True)
        files.write_file(mark, f"{entry.path}\n".encode())
    return True


def _is_at_work(entry: Entry) -> bool:
    claim = entry.current_claim()
    return claim is not None and claim.state is ClaimState.RUNNING and entry.outcome() is None


def write_index(sweep_folder: Path, rows: tp.Sequence[dict[str, tp.Any]]) -> None:
    """Writes ``sweep.json``: overrides, uid, status and output of every job of the sweep."""
    sweep_folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n ".join(map(json.dumps, rows))
    files.write_file(sweep_folder / paths.SWEEP, f"[\n {lines}\n]\n".encode())


def _link(shown: str, target: str) -> bool:
    """Whether the link is there now; False on a file system that has none."""
    try:
        os.symlink(target, shown)
        return True
    except FileExistsError:
        pass
    except OSError:
        return False
    if os.path.islink(shown) and os.readlink(shown) == target:
        return True
    folder = Path(shown)
    try:
        with files.replacing(folder) as temporary:
            os.symlink(target, temporary)
            if folder.exists() and not folder.is_symlink():
                _clear(folder)
    except OSError:
        return False
    return True


def _clear(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # not empty, or a file
        files.move_aside(folder)
