"""What travels from a launch to its jobs: one file for all of them, and a slice of a second for each.

Of the first everything is plain data but the program, which is unpickled last, when the job can import what
the launch could.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import sys
import threading
import typing as tp
import zlib
from pathlib import Path

from . import paths, script, workdir
from .errors import ConfigError, Problem
from .store import files, values
from .workdir import Snapshot, Sources

_WINDOW = 32 * 1024  # as far as zlib looks back
_LEVEL = 6
_GB = 1024**3  # as submitit counts
_ZIP = f"python{sys.version_info.major}{sys.version_info.minor}.zip"


@dataclasses.dataclass(frozen=True)
class Part:
    """One task, as its job needs it: which entry it is to fill, under which identity, and its argument, pickled.

    ``overrides`` are recorded with what it gives.
    """

    entry: str
    identity: dict[str, tp.Any]
    argument: bytes
    overrides: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Payload:
    """What all jobs of a launch have in common. ``program(argument, attempt)`` computes a task, once loaded.

    ``main_name`` is what the launch calls its ``__main__``, whether they load that script or not.
    ``code`` is the digest of the snapshot that they import from, None where they import what the launch did, and
    ``copy`` the snapshot; ``origin`` is what it stands in for as their working directory. ``environment`` is the part
    of the search path that is of the launch's python, if they run under another. ``logs`` is where their logs go, with
    ``{folder}``, ``{user}`` and ``%j`` in it, None for the entries' own place. ``jobs`` has the positions of the tasks
    of each job, by its number; ``workers`` of them are computed at a time. A job that is out of time starts again at
    most ``max_num_timeout`` times; it is told ``signal_delay_s`` seconds before.
    ``provenance`` is what is recorded of the launch.
    """

    cluster: str
    program: bytes
    search_path: tuple[str, ...]
    argv: tuple[str, ...]
    working_directory: str
    script: script.Script | None
    stderr_to_stdout: bool
    code: str | None = None
    slices: tuple[tuple[int, int], ...] = ()
    copy: Snapshot | None = None
    origin: str | None = None
    environment: tuple[str, ...] = ()
    logs: str | None = None
    main_name: str | None = None
    jobs: tuple[tuple[int, ...], ...] = ()
    workers: int = 1
    max_num_timeout: int = 0
    signal_delay_s: float = 90.0
    provenance: dict[str, tp.Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_this_process(cls, cluster: str, program: bytes, stderr_to_stdout: bool) -> Payload:
        """What makes a job import what this process does, from a copy of the code if this one runs from one."""
        copy, origin = current(), _process.origin(Path.cwd())
        payload = cls(
            cluster=cluster,
            program=program,
            search_path=tuple(map(_absolute, sys.path)),
            argv=tuple(sys.argv),
            working_directory=os.getcwd(),
            script=script.current(),
            main_name=script.main_name(),
            stderr_to_stdout=stderr_to_stdout,
            origin=None if origin is None else str(origin),
        )
        return payload if copy is None else copy.applied(payload)

    def of_another_python(self) -> Payload:
        """The same for jobs that run under another python than this process, which has packages of its own."""
        return dataclasses.replace(self, environment=tuple(filter(_is_of_this_python, self.search_path)))

    def enter(self) -> None:
        """Makes this process one that can load the program: search path, working directory, script."""
        if self.copy is not None:
            self.copy.check()
        sys.path[:] = self._search_path()
        sys.argv[:] = self.argv
        os.chdir(self.working_directory)
        _process.settle(self.copy, self.origin)
        if self.copy is not None:
            workdir.forget_originals(self.copy)
        script.stand_for(self.main_name)
        if self.script is not None:
            script.load(self.script)

    def _search_path(self) -> list[str]:
        """Under another python its own packages stand where the launch's did."""
        if not self.environment:
            return list(self.search_path)
        first = min(self.search_path.index(folder) for folder in self.environment)
        others = [folder for folder in self.search_path[first:] if folder not in self.environment]
        own = [folder for folder in sys.path if folder and folder not in others]
        return list(dict.fromkeys([*self.search_path[:first], *own, *others]))


def write(launch: Path, payload: Payload, parts: tp.Iterable[Part]) -> None:
    """Writes both files into a launch's folder. They can hold secrets: only their owner may read them.

    The tasks of a sweep are much alike: each is compressed against the first one.
    """
    slices, chunks, start, alike = [], [], 0, b""
    for part in parts:
        data = pickle.dumps((part.entry, part.identity, part.argument, part.overrides), protocol=5)
        chunk = _compressed(data, alike)
        alike = alike or data[-_WINDOW:]
        slices.append((start, len(chunk)))
        chunks.append(chunk)
        start += len(chunk)
    files.write(launch / paths.ARGUMENTS, b"".join(chunks), mode=files.PRIVATE)
    whole = dataclasses.replace(payload, slices=tuple(slices))
    files.write(launch / paths.PAYLOAD, pickle.dumps(whole, protocol=5), mode=files.PRIVATE)


def read(launch: Path) -> Payload:
    """What all jobs of a launch have in common; CacheError if others could have written it."""
    payload: Payload = pickle.loads(files.read_trusted(launch / paths.PAYLOAD, ()))
    return payload


def read_part(launch: Path, payload: Payload, position: int) -> Part:
    """The task at ``position`` of a launch; CacheError if others could have written it."""
    return Parts(launch, payload).read(position)


class Parts:
    """The tasks of a launch, for who reads several: what they are compressed against is read once."""

    def __init__(self, launch: Path, payload: Payload) -> None:
        self._path = launch / paths.ARGUMENTS
        self._slices = payload.slices
        self._first: bytes | None = None

    def read(self, position: int) -> Part:
        """The task at ``position``; CacheError if others could have written it."""
        with open(self._path, "rb") as file:
            files.check_trusted(file, self._path, ())
            if self._first is None:
                self._first = zlib.decompress(self._slice(file, 0))
            data = self._first
            if position > 0:
                alike = self._first[-_WINDOW:]
                data = zlib.decompressobj(zdict=alike).decompress(self._slice(file, position))
        return Part(*pickle.loads(data))

    def _slice(self, file: tp.BinaryIO, position: int) -> bytes:
        start, size = self._slices[position]
        file.seek(start)
        return file.read(size)


def _compressed(data: bytes, alike: bytes) -> bytes:
    compressor = zlib.compressobj(_LEVEL, zdict=alike) if alike else zlib.compressobj(_LEVEL)
    return compressor.compress(data) + compressor.flush()


def dump(value: tp.Any, what: str) -> bytes:
    """Pickles a program or an argument; ConfigError names ``what`` and the part that does not pickle."""
    return values.dumps(value, what)


def loads(data: bytes) -> tp.Any:
    """What `dump` wrote."""
    return pickle.loads(data)


def check_size(program: bytes, argument: bytes, value: tp.Any, what: str, limit_gb: float) -> None:
    """Raises ConfigError if what one job is sent is larger than ``limit_gb``; ``value`` is the argument itself."""
    size = len(program) + len(argument)
    if size <= limit_gb * _GB:
        return
    parts = {name: len(dump(part, name)) for name, part in getattr(value, "__dict__", {}).items()}
    largest = max(parts, key=lambda name: parts[name], default=None)
    most = "" if largest is None else f", {_gb(parts[largest])} of it {largest!r}"
    raise ConfigError(
        "A job would be sent more than is allowed; nothing was run.",
        [
            Problem(
                f"{what} is sent {_gb(size)}{most}, and the limit is {limit_gb:g} GB. Give it a path to the data "
                "instead, or raise the limit",
                "infra.max_pickle_size_gb",
            )
        ],
    )


def _gb(size: int) -> str:
    return f"{size / _GB:.3g} GB"


def _absolute(entry: str) -> str:
    """An entry of the search path; import hooks of editable installations have some that are no folders."""
    return os.path.abspath(entry) if not entry or os.path.exists(entry) else entry


def _is_of_this_python(folder: str) -> bool:
    """Whether a folder of the search path comes with the python that runs here, and with no project."""
    import site
    import sysconfig  # no job asks this

    library = sysconfig.get_path("stdlib")
    packages = [*site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    user = site.getusersitepackages()
    return folder in (*packages, user) or Path(folder).is_relative_to(library) or folder.endswith(_ZIP)


# the copy of code that this process runs from


@dataclasses.dataclass(eq=False)
class _Stay:
    """A time for which a copy is the working directory; ``before`` is where it was until then."""

    copy: Snapshot
    before: Path


class _Process:
    """``code`` is the copy that a job imports from; of its stays in copies the last one counts."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.code: Snapshot | None = None
        self.stays: list[_Stay] = []

    def settle(self, copy: Snapshot | None, origin: str | None) -> None:
        """Runs from a copy for good; it is the working directory if there is an ``origin``."""
        self.code = copy
        workdir.prefer(copy)
        self.stays[:] = [] if copy is None or origin is None else [_Stay(copy, Path(origin))]

    def origin(self, here: Path) -> Path | None:
        """What the copies stand in for, None where the working directory is in none of them."""
        inside = any(here.is_relative_to(stay.copy.folder.resolve()) for stay in self.stays)
        return self.stays[0].before if inside else None

    def leave(self, stay: _Stay) -> None:
        first, last = self.stays[0], self.stays[-1]
        self.stays.remove(stay)
        if not self.stays:
            os.chdir(stay.before)
        elif stay is first:
            self.stays[0].before = stay.before
        elif stay is last:
            remaining = self.stays[-1].copy.folder
            os.chdir(stay.before if stay.before.is_relative_to(remaining.resolve()) else remaining)


_process = _Process()


def current() -> Snapshot | None:
    """The copy of code that this process runs from, None if it runs from none."""
    return _process.stays[-1].copy if _process.stays else _process.code


def import_from(copy: Snapshot | None) -> None:
    """Makes this process import from a copy, or none, from now on; its working directory stays."""
    _process.settle(copy, None)


def copied() -> Sources:
    """What this process imports from a copy: where each copy is, and what of."""
    return () if _process.code is None else _process.code.originals()


def missing_in_copy(error: BaseException) -> str:
    """What to say of an error that is there because code runs from a copy; nothing for any other error."""
    copy = current()
    if copy is None or not isinstance(error, OSError) or not isinstance(error.filename, (str, os.PathLike)):
        return ""
    original = copy.original_of(Path(os.path.abspath(error.filename)))
    if original is None:
        return ""
    if isinstance(error, FileNotFoundError) and original.exists():
        return " (the copy of the code has no such file: workdir.includes needs a pattern for it)"
    if isinstance(error, PermissionError):
        return " (the copy of the code is read-only: write to the output directory)"
    return ""


def home() -> Path:
    """Where relative paths in settings count from: the working directory, or what a copy stands in for there."""
    here = Path.cwd()
    return _process.origin(here) or here


def located(path: Path | str) -> Path:
    """Where a path in settings leads: a relative one from `home`, one of the user from theirs."""
    expanded = Path(path).expanduser()
    return expanded if expanded.is_absolute() else home() / expanded


@contextlib.contextmanager
def inside(copy: Snapshot) -> tp.Iterator[None]:
    """The copy is the working directory until this ends; with several threads, until the last of them is out of it."""
    with _process.lock:
        stay = _Stay(copy, Path.cwd())
        _process.stays.append(stay)
        os.chdir(copy.folder)
    try:
        yield
    finally:
        with _process.lock:
            _process.leave(stay)
