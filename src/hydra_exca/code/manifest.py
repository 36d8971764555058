"""The code as it is now: the files to copy, and what is in them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
import typing as tp
from pathlib import Path

from hydra_exca import files, paths

from . import selection as finding
from .compare import differing_files
from .listing import File, unreadable, walk_sources
from .rules import Rules
from .snapshot import Sources, is_trusted_owner

_KEPT = 64_000_000  # bytes of files that are kept from hashing to copying
_FINE_NS = 50_000_000  # after that time the clock of a file system has moved on
_COARSE_NS = 2_000_000_000  # where it only counts seconds or milliseconds
_TRIES = 5

Index: tp.TypeAlias = dict[str, list[tp.Any]]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The files by the names of their copies, the fingerprint of each (see `compare`), and the digest of all these.

    ``not_copied`` is what stays where it is: files and folders of the sources. ``contents`` has the bytes of the files
    that were just read, ``index`` what is known of all files from reading them.
    """

    files: dict[str, File]
    fingerprints: dict[str, str]
    digest: str
    contents: dict[str, bytes] = dataclasses.field(repr=False)
    index: dict[str, tp.Any] = dataclasses.field(repr=False)
    not_copied: frozenset[str] = dataclasses.field(default=frozenset(), repr=False)


def make_manifest(sources: Sources, cache: Path, rules: Rules, never_copied: tp.Collection[Path] = ()) -> Manifest:
    """The code as it is now. Raises ConfigError where it cannot be copied.

    As git does with its index, a file is read again only if its size, times or inode have changed since.
    """
    for _ in range(_TRIES):
        try:
            return _read_sources(sources, cache, rules, never_copied)
        except FileNotFoundError as error:
            vanished = error
    raise rules.error(f"files vanish while they are read, the last one was {vanished.filename}; try again")


def changed_files(cache: Path, old: str, new: tp.Mapping[str, str]) -> list[str] | None:
    """The files in which the code of digest ``old`` differs, None if it is not known any more what was in it."""
    before = read_manifest(cache, old)
    return None if before is None else differing_files(before, new)


def read_manifest(cache: Path, digest: str, *, trusted: bool = False) -> dict[str, str] | None:
    """The fingerprints of a snapshot's files, None if they are not stored; with ``trusted``, by a trusted user."""
    try:
        stored = _read(paths.snapshot_manifest(cache, digest), trusted=trusted)
        return {str(name): str(fingerprint) for name, fingerprint in stored["files"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def store_manifest(cache: Path, tree: Manifest, sources: Sources) -> None:
    """Writes down what is in a copy, and what is known of the files of its sources from reading them."""
    path = paths.snapshot_manifest(cache, tree.digest)
    if read_manifest(cache, tree.digest, trusted=True) is None:
        _write(path, {"files": tree.fingerprints, "sources": [[str(source), str(copy)] for source, copy in sources]})
    path = _index_path(cache, sources)
    if not path.exists():
        _write(path, tree.index)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_sources(sources: Sources, cache: Path, rules: Rules, never_copied: tp.Collection[Path]) -> Manifest:
    # a cache can be the folder of the project itself: what is in it is left out by name then
    ours = [cache, cache / paths.CODE, cache / paths.LAUNCHES]
    files, not_copied = walk_sources(sources, [*ours, *never_copied], rules, finding.loaded_files)
    path = _index_path(cache, sources)
    index = _read_index(path)
    reader = _Reader(index["files"], rules)
    fingerprints = {name: reader.fingerprint(name, file) for name, file in files.items()}
    files.update(reader.rewritten)
    index["files"] = {file.path: reader.index[file.path] for file in files.values() if file.link is None}
    if reader.is_updated and (cache / paths.CODE).is_dir():
        _write(path, index)
    return Manifest(files, fingerprints, _digest(fingerprints), reader.contents, index, not_copied)


def _digest(fingerprints: tp.Mapping[str, str]) -> str:
    return sha256(os.fsencode("".join(f"{name}\0{each}\0" for name, each in fingerprints.items())))[:16]


class _Reader:
    """Gives the fingerprints of files; those that have not changed since they were indexed are not read again."""

    def __init__(self, index: Index, rules: Rules) -> None:
        self.index = index
        self._rules = rules
        self.is_updated = False
        self.contents: dict[str, bytes] = {}
        self.rewritten: dict[str, File] = {}  # those that were written to since they were listed
        self._room = _KEPT

    def fingerprint(self, name: str, file: File) -> str:
        if file.link is not None:
            return f"-> {file.link}"
        known = self.index.get(file.path)
        if isinstance(known, list) and known[:-1] == _stamp(file.stat):
            return _with_mode(known[-1], file.stat)
        return self._read(name, file)

    def _read(self, name: str, file: File) -> str:
        try:
            with open(file.path, "rb", buffering=0) as opened:
                data = opened.read()
                stat = os.fstat(opened.fileno())
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unreadable(error, self._rules) from error
        digest = sha256(data)
        self.index[file.path] = [*(_stamp(stat) if _is_settled(stat) else []), digest]
        self.is_updated = self.is_updated or _is_settled(stat)
        if len(data) <= self._room:
            self._room -= len(data)
            self.contents[name] = data
        if _stamp(stat) != _stamp(file.stat):
            self.rewritten[name] = dataclasses.replace(file, stat=stat)
        return _with_mode(digest, stat)


def _with_mode(digest: str, stat: os.stat_result) -> str:
    return f"{digest} x" if stat.st_mode & 0o100 else digest


def _stamp(stat: os.stat_result) -> list[int]:
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _is_settled(stat: os.stat_result) -> bool:
    """Whether any further change would give the file another time."""
    changed_ns = max(stat.st_mtime_ns, stat.st_ctime_ns)
    tick = _FINE_NS if stat.st_ctime_ns % 1_000_000 else _COARSE_NS
    return time.time_ns() - changed_ns > tick


def _index_path(cache: Path, sources: Sources) -> Path:
    """The index of this user: what others have written is not believed."""
    places = [(os.path.realpath(source), str(copy)) for source, copy in sources]
    return paths.read_files_index(cache, sha256(repr((os.getuid(), places)).encode())[:16])


def _read_index(path: Path) -> dict[str, tp.Any]:
    try:
        index: dict[str, tp.Any] = _read(path, trusted=True)
        return index if isinstance(index["files"], dict) else {"files": {}}
    except (OSError, ValueError, KeyError, TypeError):
        return {"files": {}}


def _read(path: Path, *, trusted: bool) -> tp.Any:
    with open(path, "rb") as file:
        if trusted and not is_trusted_owner(os.fstat(file.fileno()).st_uid):
            raise PermissionError
        return json.load(file)


def _write(path: Path, content: dict[str, tp.Any]) -> None:
    """Writes what saves time the next time; where it cannot be written, that is lost and nothing else."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_file(path, files.dump_json(content), durable=False)
