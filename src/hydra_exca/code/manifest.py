"""The current state of the code: the files to copy, with a fingerprint of each."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
import typing as tp
from pathlib import Path

from hydra_exca import checksums, files, paths, records
from hydra_exca.errors import ConfigError, CorruptEntryError

from .listing import File, list_files, unreadable_error
from .pool import is_unchanged, sha256
from .root_markers import RootMarkers, find_root_markers
from .rules import Rules
from .selection import loaded_files
from .snapshot import Snapshot, Sources, is_trusted_owner

TRIES = 5
_FINE_NS = 50_000_000  # after this time, the clock of a file system has moved on
_COARSE_NS = 2_000_000_000  # the same for a clock that counts only seconds or milliseconds
_RECENT_NS = 10_000_000_000  # a file that has changed since may be one that a program writes again and again

Index: tp.TypeAlias = dict[str, list[tp.Any]]
"""For the path of each file: what `_stamp` gave when it was read, and the SHA-256 of its content."""


class ChangedError(Exception):
    """A file has changed while or since it was read."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The files by the names of their copies, the fingerprint of each (see `compare`), and the digest of them all.

    ``not_copied`` are the files and folders of the sources that are skipped. With the ``index``, the next launch need
    not read the files again. ``markers`` are in the copy too, and are not code.
    """

    files: dict[str, File]
    fingerprints: dict[str, str]
    digest: str
    index: Index = dataclasses.field(repr=False)
    not_copied: frozenset[str] = dataclasses.field(default=frozenset(), repr=False)
    markers: RootMarkers = dataclasses.field(default=RootMarkers({}, ()), repr=False)


def make_manifest(sources: Sources, cache: Path, rules: Rules) -> Manifest:
    """The current state of the code. Raises ConfigError if it cannot be copied.

    As with git's index, a file is read again only if its size, times or inode have changed.
    """
    for _ in range(TRIES):
        with contextlib.suppress(ChangedError, FileNotFoundError):
            return _read_sources(sources, cache, rules)
    raise unsettled_error(rules)


def unsettled_error(rules: Rules) -> ConfigError:
    """The error to raise if files were different at each of several tries."""
    return rules.error("files change while they are copied; try again, or leave them out", "excludes")


def read_manifest(cache: Path, digest: str, *, trusted: bool = False) -> dict[str, str] | None:
    """The fingerprints of a snapshot's files, None if they are not stored; ``trusted`` requires a trusted owner."""
    stored = _read_entries(paths.snapshot_manifest(cache, digest), trusted=trusted)
    return {name: str(fingerprint) for name, fingerprint in stored.items()} if stored else None


def check_copy(copy: Snapshot) -> None:
    """Raises CacheError as `Snapshot.check` does; a copy that was made again since is as good as the first one."""
    if copy.seal is not None and os.path.lexists(copy.folder) and not copy.is_sealed(os.lstat(copy.folder)):
        stored = read_manifest(copy.folder.parent.parent, copy.digest, trusted=True)
        if stored is not None and content_digest(stored) == copy.content and _has_files(copy.folder, stored):
            copy = dataclasses.replace(copy, seal=None)
    copy.check()


def content_digest(fingerprints: tp.Mapping[str, str]) -> str:
    """The digest of the fingerprints of a copy."""
    return sha256(json.dumps(sorted(fingerprints.items())).encode())


def _has_files(folder: Path, fingerprints: tp.Mapping[str, str]) -> bool:
    unknown = -1  # so that each is read
    return all(is_unchanged(f"{folder}/{name}", each, unknown) for name, each in fingerprints.items())


def store_fingerprints(cache: Path, digest: str, fingerprints: dict[str, str] | None, sources: Sources) -> None:
    """Stores the fingerprints of a copy, if they are known: later launches compare their code with them."""
    if fingerprints is not None and read_manifest(cache, digest, trusted=True) is None:
        places = [[str(source), str(copy)] for source, copy in sources]
        _write(paths.snapshot_manifest(cache, digest), {"files": fingerprints, "sources": places})


def store_index(cache: Path, index: Index, sources: Sources) -> None:
    """Stores the index of sources that were copied for the first time."""
    path = _index_path(cache, sources)
    if not path.exists():
        _write(path, {"files": index})


def _read_sources(sources: Sources, cache: Path, rules: Rules) -> Manifest:
    # a cache can be the folder of the project itself: then its parts are left out by name
    parts = (cache, cache / paths.CODE, cache / paths.LAUNCHES)
    rules = dataclasses.replace(rules, never_copied=(*parts, *rules.never_copied))
    listing = list_files(sources, rules, loaded_files)
    path = _index_path(cache, sources)
    known, index, fingerprints = _read_entries(path, trusted=True), {}, {}
    for name, file in listing.files.items():
        if file.link is not None:
            fingerprints[name] = f"-> {file.link}"
            continue
        entry = known.get(file.path)
        if not isinstance(entry, list) or entry[:-1] != _stamp(file.stat):
            listing.files[name], entry = _read_file(file, rules)
        index[file.path] = entry
        fingerprints[name] = f"{entry[-1]} x" if listing.files[name].stat.st_mode & 0o100 else entry[-1]
    if index != known and (cache / paths.CODE).is_dir():
        _write(path, {"files": index})
    markers = find_root_markers(sources, listing.files.keys())
    return Manifest(listing.files, fingerprints, _digest(fingerprints, markers), index, listing.not_copied, markers)


def _digest(fingerprints: tp.Mapping[str, str], markers: RootMarkers) -> str:
    of_markers = {name: ".git" if content is None else sha256(content) for name, content in markers.contents.items()}
    fingerprints = {**fingerprints, **of_markers}
    return sha256(os.fsencode("".join(f"{name}\0{each}\0" for name, each in fingerprints.items())))[:16]


def _read_file(file: File, rules: Rules) -> tuple[File, list[tp.Any]]:
    """A file as it is now, and its entry in the index; that has no stamp if the file could still change unseen."""
    try:
        with open(file.path, "rb", buffering=0) as opened:
            before = os.fstat(opened.fileno())
            data = opened.read()
            stat = os.fstat(opened.fileno())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable_error(error, rules) from error
    if _stamp(stat) != _stamp(before):
        raise ChangedError
    is_recent = time.time_ns() - stat.st_ctime_ns < _RECENT_NS
    file = dataclasses.replace(file, stat=stat, data=data if is_recent else None)
    return file, [*(_stamp(stat) if _is_settled(stat) else []), sha256(data)]


def _stamp(stat: os.stat_result) -> list[int]:
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _is_settled(stat: os.stat_result) -> bool:
    """Whether any later change will give the file another time."""
    changed_ns = max(stat.st_mtime_ns, stat.st_ctime_ns)
    tick = _FINE_NS if stat.st_ctime_ns % 1_000_000 else _COARSE_NS
    return time.time_ns() - changed_ns > tick


def _index_path(cache: Path, sources: Sources) -> Path:
    """The file of the index. Each user has one, because those of others are not trusted."""
    places = [(os.path.realpath(source), str(copy)) for source, copy in sources]
    return paths.read_files_index(cache, sha256(repr((os.getuid(), places)).encode())[:16])


def _read_entries(path: Path, *, trusted: bool) -> dict[str, tp.Any]:
    """The files in a stored manifest or index; empty if there is none, it is damaged, or its owner is not trusted."""
    try:
        data, owner = files.read_owned(path)
        if trusted and not is_trusted_owner(owner):
            return {}
        entries = checksums.parse_record(data)["files"]
    except (OSError, CorruptEntryError, *records.DAMAGES):
        return {}
    return entries if isinstance(entries, dict) else {}


def _write(path: Path, content: dict[str, tp.Any]) -> None:
    """Stores a file that only saves time: if the cache cannot be written, there is no error."""
    with contextlib.suppress(OSError):
        path.parent.parent.parent.mkdir(parents=True, exist_ok=True)
        files.make_shared_folder(path.parent.parent)
        files.make_folder(path.parent)
        files.clear_leftovers(path.parent)
        files.write_file(path, checksums.dump_record(content), durable=False)
