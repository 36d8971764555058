"""The sweep folder as Hydra users know it: a view of the entries' outputs, one name for each job."""

from __future__ import annotations

import json
import os
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.store import ClaimState, Entry, files


def show(job_folder: Path, output: Path, *, link: bool, sweep_folder: Path) -> None:
    """Makes ``job_folder`` show the entry's ``output``: a link, or a real folder with a file that names it.

    What stands in the way is moved aside, never deleted; a link is only replaced.
    """
    if os.path.normpath(output) == os.path.normpath(job_folder):
        return
    if link and _can_be_a_link(job_folder, sweep_folder) and _link(job_folder, output):
        return
    if job_folder.is_symlink():
        job_folder.unlink()
    if not give_way(job_folder, None):
        return
    job_folder.mkdir(parents=True, exist_ok=True)
    files.write(job_folder / paths.OUTPUT_POINTER, f"{output}\n".encode())


def is_there(output: Path) -> bool:
    """Whether the output folder of an entry is there: what no sweep has computed is given an empty one, if possible."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True


def give_way(job_folder: Path, entry: Entry | None) -> bool:
    """Moves a real folder with another entry's outputs aside, and tells that entry where they are now.

    With an ``entry`` the folder is marked as holding its outputs. False, and nothing is changed, where another task
    writes into the folder at this moment.
    """
    mark = job_folder / paths.OUTPUT_OWNER
    owner = Path(mark.read_text().strip()) if mark.exists() else None
    if owner is not None and (entry is None or owner != entry.path):
        if _is_at_work(Entry(owner)):
            return False
        aside = files.set_aside(job_folder)
        if owner.is_dir():
            Entry(owner).note_output(aside)
    if entry is not None:
        job_folder.mkdir(parents=True, exist_ok=True)
        files.write(mark, f"{entry.path}\n".encode())
    return True


def _is_at_work(entry: Entry) -> bool:
    claim = entry.claim()
    return claim is not None and claim.state is ClaimState.RUNNING and entry.outcome() is None


def write_index(sweep_folder: Path, rows: tp.Sequence[dict[str, tp.Any]]) -> None:
    """Writes ``sweep.json``: overrides, uid, status and output of every job of the sweep."""
    sweep_folder.mkdir(parents=True, exist_ok=True)
    files.write(sweep_folder / paths.SWEEP, json.dumps(list(rows), indent=1).encode())


def _can_be_a_link(job_folder: Path, sweep_folder: Path) -> bool:
    """Not the sweep folder itself (``hydra.sweep.subdir=.``): it holds what is not the job's."""
    return os.path.normpath(job_folder) != os.path.normpath(sweep_folder)


def _link(job_folder: Path, output: Path) -> bool:
    """Whether the link is there now; False on a file system that has none."""
    job_folder.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(output.resolve(), job_folder.parent.resolve())
    if job_folder.is_symlink() and os.readlink(job_folder) == target:
        return True
    temporary = job_folder.with_name(paths.temporary_name(job_folder.name, files.unique()))
    try:
        os.symlink(target, temporary)
    except OSError:
        return False
    if job_folder.exists() and not job_folder.is_symlink():
        _clear(job_folder)
    os.replace(temporary, job_folder)
    return True


def _clear(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # not empty, or a file
        files.set_aside(folder)
