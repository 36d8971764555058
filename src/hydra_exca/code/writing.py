"""Copies code to folders, and checks that nobody has changed a copy since."""

from __future__ import annotations

import contextlib
import importlib.machinery
import logging
import os
import shutil
import stat
import time
from pathlib import Path

from hydra_exca import files, paths

from .listing import File, folders_around
from .manifest import (
    TRIES,
    ChangedError,
    Manifest,
    content_digest,
    make_manifest,
    store_fingerprints,
    store_index,
    unsettled_error,
)
from .pool import FilePool, is_unchanged, renew, sha256
from .rules import Rules
from .selection import Selection, imported_modules
from .snapshot import Snapshot, is_trusted_owner

log = logging.getLogger("exca.workdir")
_OLD_S = 7 * 86_400
_WRITABLE = 0o222
_WRITABLE_BY_OTHERS = 0o022
_MODULES = tuple(importlib.machinery.all_suffixes())
_EVERYTHING = Rules()


def take_snapshot(
    selection: Selection,
    cache: Path,
    rules: Rules = _EVERYTHING,
    folder: Path | None = None,
    known: Manifest | None = None,
) -> Snapshot:
    """Copies the selected code to ``<cache>/code/<digest>``, unless that copy exists.

    The copy is read-only, and files with the same content in several copies are hard links to one file. With
    ``folder``, the copy is made there, and can be written. ``known`` is a manifest that was just made; if files have
    changed since, they are read again. Raises ConfigError if the code cannot be copied, or ``folder`` holds anything
    else.
    """
    for _ in range(TRIES):
        tree = known or make_manifest(selection.sources, cache, rules)
        known = None
        with contextlib.suppress(ChangedError, FileNotFoundError):
            target = _copy_to_cache(tree, cache, rules) if folder is None else _copy_to_folder(tree, folder, rules)
            store_fingerprints(cache, tree.digest, tree.fingerprints, selection.sources)
            store_index(cache, tree.index, selection.sources)
            copy = _describe_copy(target, tree, selection).sealed(content_digest(tree.fingerprints))
            copy.check()
            return copy
    raise unsettled_error(rules)


def _describe_copy(folder: Path, tree: Manifest, selection: Selection) -> Snapshot:
    sources = tuple((source.resolve(), copy) for source, copy in selection.sources)
    modules = tuple(
        module
        for module in imported_modules()
        if any(place.is_relative_to(source) for place in module.places for source, _ in sources)
    )
    return Snapshot(folder, tree.digest, sources, selection.roots, modules, tree.not_copied, tree.markers.roots)


def _copy_places(cache: Path, digest: str) -> tuple[Path, Path]:
    """The usual place of a copy, and the place to use if that belongs to another user."""
    folder = cache / paths.CODE / digest
    return folder, folder.with_name(f"{digest}.{os.getuid()}")


def _copy_to_cache(tree: Manifest, cache: Path, rules: Rules) -> Path:
    """Makes the copy in the cache. If two launches make the same one at once, the first copy stays."""
    target = _choose_place(tree, cache, rules)
    if target.exists() and not _is_intact(target, tree):
        with contextlib.suppress(FileNotFoundError):  # another launch was quicker
            aside = files.move_aside(target)
            log.warning(
                "exca: the copy of the code %s was changed after it was made; it was moved to %s", target, aside
            )
    if target.exists():
        _renew_copy(target, tree)
        return target
    _make_copy(tree, target, FilePool(cache), rules)
    if not target.exists():  # set aside by another launch
        raise ChangedError
    return target


def _choose_place(tree: Manifest, cache: Path, rules: Rules) -> Path:
    """The folder for a copy; never that of another user, whose jobs may run from it."""
    places = _copy_places(cache, tree.digest)
    for place in places:
        owner = os.lstat(place).st_uid if os.path.lexists(place) else os.getuid()
        if owner == os.getuid() or (is_trusted_owner(owner) and _is_intact(place, tree)):
            return place
    raise rules.error(f"{places[-1]} belongs to another user; remove it, or name another cache folder")


def _is_intact(folder: Path, tree: Manifest) -> bool:
    """Whether a copy has every file unchanged and no further module, and all of it belongs to trusted users."""
    try:
        if any(_has_more_modules(f"{folder}/{inside}", inside, tree) for inside in folders_around(tree.files)):
            return False
    except OSError:
        return False
    has_markers = all(_is_marker(folder / name, content) for name, content in tree.markers.contents.items())
    return has_markers and _find_changed_file(folder, tree, with_mode=True) is None


def _is_marker(path: Path, content: bytes | None) -> bool:
    try:
        return path.is_dir() if content is None else path.read_bytes() == content
    except OSError:
        return False


def _has_more_modules(place: str, inside: str, tree: Manifest) -> bool:
    if not is_trusted_owner(os.lstat(place).st_uid):
        return True
    with os.scandir(place) as entries:
        modules = [entry.name for entry in entries if entry.name.endswith(_MODULES) and not entry.is_dir()]
    return any(os.path.join(inside, name) not in tree.files for name in modules)


def _find_changed_file(folder: Path, tree: Manifest, *, with_mode: bool) -> str | None:
    """The name of a file in a copy that is missing or was changed, None if there is none."""
    for name, file in tree.files.items():
        if not is_unchanged(f"{folder}/{name}", tree.fingerprints[name], file.stat.st_size, with_mode=with_mode):
            return name
    return None


def _renew_copy(folder: Path, tree: Manifest) -> None:
    """Updates the times of files that are older than a week, so that sites that delete old files spare the copy."""
    for name in tree.files:
        with contextlib.suppress(OSError):  # another user's
            if os.lstat(f"{folder}/{name}").st_mtime < time.time() - _OLD_S:
                renew(f"{folder}/{name}")


def _write_copy(tree: Manifest, folder: Path, pool: FilePool | None) -> None:
    """Fills a folder: with a pool, read-only and with hard links; without one, with files that can be written.

    Raises ChangedError if a file has changed since its fingerprint was taken.
    """
    _copy_files(tree, folder, pool)
    for name, content in tree.markers.contents.items():
        if content is None:
            os.mkdir(f"{folder}/{name}")
        else:
            _write(f"{folder}/{name}", content, 0o644 if pool is None else 0o444)
    if pool is None:
        (folder / paths.CODE_MARK).write_text(f"{tree.digest}\n")
    forbidden = _WRITABLE_BY_OTHERS if pool is None else _WRITABLE
    for here, _, _ in os.walk(folder, topdown=False):  # so that no job leaves files in code that others run from
        os.chmod(here, stat.S_IMODE(os.stat(here).st_mode) & ~forbidden)


def _copy_files(tree: Manifest, folder: Path, pool: FilePool | None) -> None:
    for parent in {os.path.dirname(name) for name in tree.files}:
        os.makedirs(f"{folder}/{parent}", exist_ok=True)
    for name, file in tree.files.items():
        if file.link is None:
            _copy_file(file, tree.fingerprints[name], f"{folder}/{name}", pool)
        else:
            os.symlink(file.link, f"{folder}/{name}")


def _copy_file(file: File, fingerprint: str, path: str, pool: FilePool | None) -> None:
    if pool is not None and pool.link(fingerprint, file.stat.st_size, path):
        return
    data = Path(file.path).read_bytes() if file.data is None else file.data
    if sha256(data) != fingerprint.partition(" ")[0]:
        raise ChangedError
    mode = 0o777 if fingerprint.endswith(" x") else 0o666
    if pool is None:
        _write(path, data, mode & ~_WRITABLE_BY_OTHERS)
    else:
        _write(path, data, mode & ~_WRITABLE)
        renew(path)
        pool.add(fingerprint, path)


def _write(path: str, data: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb", buffering=0) as file:
        files.write_all(file.fileno(), data)


def _make_copy(tree: Manifest, target: Path, pool: FilePool | None, rules: Rules) -> None:
    """Makes a copy in a temporary folder, and renames that to ``target``, unless that exists by then."""
    temporary = target.with_name(files.temporary_name(target.name))
    try:
        _make_parent(target.parent, is_shared=pool is not None)
        files.clear_leftovers(target.parent, remove=_remove_copy)
        temporary.mkdir()
        _write_copy(tree, temporary, pool)
        _rename(temporary, target)
    except FileNotFoundError:
        raise
    except OSError as error:
        place = "" if error.filename is None else f" ({os.fsdecode(error.filename)})"
        raise rules.error(f"it cannot be copied to {target}: {error.strerror or error}{place}") from error
    finally:
        if temporary.exists():
            _remove_copy(temporary)


def _make_parent(folder: Path, is_shared: bool) -> None:
    """Makes the folder of all copies; that of a named one exists."""
    if is_shared:
        folder.parent.mkdir(parents=True, exist_ok=True)
        files.make_shared_folder(folder)


def _rename(temporary: Path, target: Path) -> None:
    try:
        os.rename(temporary, target)
    except OSError:
        if not os.path.lexists(target):  # else another launch was quicker
            raise


def _remove_copy(folder: Path | str) -> None:
    """Removes a copy, whose folders may be read-only."""
    for here, _, _ in os.walk(folder):
        os.chmod(here, 0o700)
    shutil.rmtree(folder)


def _copy_to_folder(tree: Manifest, folder: Path, rules: Rules) -> Path:
    """Makes the copy in a folder that was named, with a file that holds its digest."""
    if not _is_copied_to(folder, tree, rules):
        _make_copy(tree, folder, None, rules)
        if not _is_copied_to(folder, tree, rules):  # another launch was quicker
            raise ChangedError
    return folder


def _is_copied_to(folder: Path, tree: Manifest, rules: Rules) -> bool:
    """Whether ``folder`` already holds a copy of this code. Raises ConfigError if it holds anything else."""
    check_place(folder, rules)
    mark = folder / paths.CODE_MARK
    if not mark.exists():
        return False
    if files.read_text(mark) != tree.digest:
        raise rules.error(
            f"{folder} holds a copy of other code, which jobs may still run from. Remove it when none does, or name "
            "another folder",
            "folder",
        )
    changed = _find_changed_file(folder, tree, with_mode=False)  # a shared folder may hold no modes
    if changed is not None:
        raise rules.error(f"{folder / changed} was changed after it was copied; remove {folder}", "folder")
    return True


def check_place(folder: Path, rules: Rules) -> None:
    """Raises ConfigError if ``folder`` cannot hold a copy."""
    if not folder.parent.is_dir():
        raise rules.error(f"{folder.parent} does not exist; create it", "folder")
    is_free = not folder.exists() or (folder.is_dir() and not os.listdir(folder))
    if not is_free and not (folder / paths.CODE_MARK).is_file():
        raise rules.error(f"{folder} exists and is not a copy of code; name another folder", "folder")
