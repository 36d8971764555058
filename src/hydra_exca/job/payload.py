"""The payload of a launch: one file for all its jobs, and a second file with a byte range for each task.

The first file is plain data, except for the pickled program. That is loaded last, when the job can import all that the
launch could.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import sys
import typing as tp
import zlib
from pathlib import Path

from hydra_exca import checksums, files, paths, script
from hydra_exca.code import active
from hydra_exca.code.compare import join_digests
from hydra_exca.code.importer import forget_originals
from hydra_exca.code.manifest import check_copy
from hydra_exca.code.snapshot import Snapshot
from hydra_exca.errors import CacheError, ConfigError, CorruptEntryError, Problem
from hydra_exca.identity.cells import Anchors, anchors, set_anchors, set_typed_sources, typed_sources
from hydra_exca.store import pickles

from .enclosing import EnclosingTask, enclosing_tasks

_WINDOW = 32 * 1024  # as far as zlib looks back
_LEVEL = 6
MOST_BYTES = 1 << 32  # of what all jobs of a launch share: their program
_GB = 1024**3  # as submitit counts
_ZIP = f"python{sys.version_info.major}{sys.version_info.minor}.zip"


@dataclasses.dataclass(frozen=True)
class Part:
    """One task, as its job needs it: the entry to fill, the identity, and the pickled argument.

    ``overrides`` are recorded with the result, and so are ``attempts``: what this one has asked for, and earlier ones.
    """

    entry: str
    identity: dict[str, tp.Any]
    argument: bytes
    overrides: tuple[str, ...] = ()
    attempts: dict[str, tp.Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Payload:
    """What all jobs of a launch have in common. ``program(argument, attempt)`` computes a task, once loaded.

    ``main_name`` is what the launch calls its ``__main__`` and ``main_file`` its file, whether they load it or not.
    Of a notebook they get its path, the text of its cells in ``sources``, what tells it apart without a name, and in
    ``cells`` the digest of those that the tasks reach.
    ``arguments`` are those that the script was started with, and ``command`` is the whole command; ``argv`` is what the
    script has left of it for Hydra. ``enclosing`` are the tasks that wait for this launch.
    ``code`` is the digest of the snapshot that they import from, None where they import what the launch did, and
    ``copy`` the snapshot; ``origin`` is what it stands in for as their working directory. ``environment`` is the part
    of the search path that is of the launch's python, if they run under another. ``logs`` is where their logs go, with
    ``{folder}``, ``{user}`` and ``%j`` in it, None for the entries' own place. ``jobs`` has the positions of the tasks
    of each job, by its number; ``workers`` of them are computed at a time. A job that is out of time starts again at
    most ``max_num_timeout`` times; a signal warns it ``signal_delay_s`` seconds before. With ``fail_jobs``, a job fails
    if one of its tasks does. ``provenance`` is what is recorded of the launch.
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
    main_file: str | None = None
    notebook: str | None = None
    sources: dict[str, str] | None = None
    anchors: Anchors | None = None
    cells: str | None = None
    arguments: tuple[str, ...] | None = None
    command: tuple[str, ...] = ()
    enclosing: tuple[EnclosingTask, ...] = ()
    jobs: tuple[tuple[int, ...], ...] = ()
    workers: int = 1
    max_num_timeout: int = 0
    signal_delay_s: float = 90.0
    fail_jobs: bool = True
    provenance: dict[str, tp.Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_this_process(cls, cluster: str, program: bytes, stderr_to_stdout: bool) -> Payload:
        """The payload for jobs that import what this process does, from a copy of the code if this process does."""
        copy, origin = active.current(), active.replaced_directory()
        arguments = script.original_arguments()
        payload = cls(
            cluster=cluster,
            program=program,
            search_path=tuple(map(_absolute_path, sys.path)),
            argv=tuple(sys.argv),
            working_directory=os.getcwd(),
            script=script.running_script(),
            main_name=script.main_name(),
            main_file=getattr(sys.modules["__main__"], "__file__", None),
            notebook=script.notebook_path(),
            sources=typed_sources(),
            anchors=anchors(),
            arguments=None if arguments is None else tuple(arguments),
            command=tuple(sys.orig_argv),
            enclosing=tuple(enclosing_tasks()),
            stderr_to_stdout=stderr_to_stdout,
            origin=None if origin is None else str(origin),
        )
        return payload if copy is None else payload.importing_from(copy)

    def importing_from(self, copy: Snapshot, instead_of: Path | None = None) -> Payload:
        """The same payload for jobs that import from a copy of the code instead of the sources.

        If the copy stands in for the folder ``instead_of``, it is their working directory, too.
        """
        search = [*copy.import_roots(), *(str(copy.copy_of(Path(entry))) for entry in self.search_path)]
        script = self.script
        if script is not None:
            script = dataclasses.replace(script, path=str(copy.copy_of(Path(script.path))))
        search_path = tuple(dict.fromkeys(search))
        payload = dataclasses.replace(self, search_path=search_path, script=script, code=copy.digest, copy=copy)
        if instead_of is None:
            return payload
        working_directory = str(copy.stand_in_for(instead_of))
        return dataclasses.replace(payload, working_directory=working_directory, origin=str(instead_of))

    def of_another_python(self) -> Payload:
        """The same payload for jobs under another python, which has its own packages."""
        return dataclasses.replace(self, environment=tuple(filter(_belongs_to_python, self.search_path)))

    def load_program(self) -> tp.Any:
        """Sets up this process as that of the launch, and loads the program.

        Like the script, modules that are imported now for the first time see the original command line.
        """
        self._enter()
        program = pickle.loads(self.program)
        sys.argv[:] = self.argv
        return program

    def enter(self) -> None:
        """Sets up this process as that of the launch: search path, working directory, script, command line."""
        self._enter()
        sys.argv[:] = self.argv

    def _enter(self) -> None:
        try:
            with files.disk_errors_translated(Path(self.working_directory)):
                self._enter_copy()
        except CacheError as error:
            error.is_passing = True  # no user's code runs here
            raise
        script.set_main_name(self.main_name, self.notebook)
        set_typed_sources(self.sources or {})
        set_anchors(self.anchors)
        if self.script is not None:
            script.load_script(self.script)
        else:
            script.become_unloaded_main(self.main_file)
        os.chdir(self.working_directory)  # a script that changes to its own folder did so before the launch

    def _enter_copy(self) -> None:
        if self.copy is not None:
            check_copy(self.copy)
        sys.path[:] = self._search_path()
        sys.argv[:] = self.argv if self.arguments is None else [*self.argv[:1], *self.arguments]
        sys.orig_argv[:] = self.command or sys.orig_argv
        os.chdir(self.working_directory)
        active.run_from(self.copy, None if self.origin is None else Path(self.origin))
        if self.copy is not None:
            forget_originals(self.copy)

    @property
    def all_code(self) -> str | None:
        """The name of all code that the jobs run: of the files that they import, and of cells."""
        return join_digests(None if self.copy is None else self.copy.digest, self.cells)

    def _search_path(self) -> list[str]:
        """The search path of the job. Under another python, its own packages replace those of the launch."""
        if not self.environment:
            return list(self.search_path)
        first = min(self.search_path.index(folder) for folder in self.environment)
        others = [folder for folder in self.search_path[first:] if folder not in self.environment]
        own = [folder for folder in sys.path if folder and folder not in others]
        return list(dict.fromkeys([*self.search_path[:first], *own, *others]))


def write_payload(launch: Path, payload: Payload, parts: tp.Iterable[Part]) -> None:
    """Writes both files into the folder of a launch, readable only by their owner: they can hold secrets.

    The tasks of a sweep are similar, so each is compressed with the first one as its dictionary.
    """
    slices, chunks, start, alike = [], [], 0, b""
    for part in parts:
        data = pickle.dumps((part.entry, part.identity, part.argument, part.overrides, part.attempts), protocol=5)
        chunk = _compress(data, alike)
        alike = alike or data[-_WINDOW:]
        slices.append((start, len(chunk)))
        chunks.append(chunk)
        start += len(chunk)
    files.write_file(launch / paths.ARGUMENTS, b"".join(chunks), mode=files.PRIVATE)
    header = pickle.dumps(dataclasses.replace(payload, slices=tuple(slices)), protocol=5)
    files.write_file(launch / paths.PAYLOAD, checksums.add_checksum(header), mode=files.PRIVATE)


def read_payload(launch: Path) -> Payload:
    """Reads what all jobs of a launch have in common. Raises CacheError if others could have written it."""
    payload: Payload = read_pickle(launch / paths.PAYLOAD)
    return payload


def read_pickle(path: Path) -> tp.Any:
    """Reads a pickle of a launch or job. Raises CacheError if it is damaged or others could have written it."""
    data = files.read_trusted(path, (), MOST_BYTES)
    try:
        return pickle.loads(checksums.remove_checksum(data))
    except (ValueError, pickle.UnpicklingError, EOFError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CorruptEntryError:
    return CorruptEntryError(f"{path} is damaged ({error}): start the launch again")


def read_part(launch: Path, payload: Payload, position: int) -> Part:
    """Reads the task at ``position`` of a launch. Raises CacheError if others could have written it."""
    return PartReader(launch, payload).read(position)


class PartReader:
    """Reads several tasks of a launch; the first one, with which they are compressed, is read only once."""

    def __init__(self, launch: Path, payload: Payload) -> None:
        self._path = launch / paths.ARGUMENTS
        self._slices = payload.slices
        self._first: bytes | None = None

    def read(self, position: int) -> Part:
        """Reads the task at ``position``. Raises CacheError if it is damaged or others could have written it."""
        descriptor, status = files.open_file(self._path)
        with open(descriptor, "rb") as file:
            files.check_trusted(status, self._path, ())
            try:
                if self._first is None:
                    self._first = zlib.decompress(self._slice(file, 0))
                data = self._first
                if position > 0:
                    decoder = zlib.decompressobj(zdict=self._first[-_WINDOW:])
                    data = decoder.decompress(self._slice(file, position))
                    if not decoder.eof:  # the checksum of a part is at its end
                        raise zlib.error("it ends too early")
            except zlib.error as error:
                raise _damaged(self._path, error) from error
        return Part(*pickle.loads(data))

    def _slice(self, file: tp.BinaryIO, position: int) -> bytes:
        start, size = self._slices[position]
        file.seek(start)
        return file.read(size)


def _compress(data: bytes, alike: bytes) -> bytes:
    compressor = zlib.compressobj(_LEVEL, zdict=alike) if alike else zlib.compressobj(_LEVEL)
    return compressor.compress(data) + compressor.flush()


def pickle_named(value: tp.Any, what: str) -> bytes:
    """Pickles a program or an argument. Raises ConfigError with ``what`` and the part that cannot be pickled.

    What the script defines and no job can load is, in the job, in its ``__main__``.
    """
    return pickles.pickle_value(value, what, into_main=True)


def check_size(program: bytes, argument: bytes, value: tp.Any, what: str, limit_gb: float) -> None:
    """Raises ConfigError if the program and the argument of a job exceed ``limit_gb``; ``value`` is the argument."""
    size = len(program) + len(argument)
    if size <= limit_gb * _GB:
        return
    parts = {name: len(pickle_named(part, name)) for name, part in getattr(value, "__dict__", {}).items()}
    largest = max(parts, key=lambda name: parts[name], default=None)
    most = "" if largest is None else f", {_format_gb(parts[largest])} of it {largest!r}"
    raise ConfigError(
        "A job would be sent more than is allowed; nothing was run.",
        [
            Problem(
                f"{what} is sent {_format_gb(size)}{most}, and the limit is {limit_gb:g} GB. Give it a path to the "
                "data instead, or raise the limit",
                "infra.max_pickle_size_gb",
            )
        ],
    )


def _format_gb(size: int) -> str:
    return f"{size / _GB:.3g} GB"


def _absolute_path(entry: str) -> str:
    """An absolute entry of the search path. Import hooks of editable installations add some that are no folders."""
    return os.path.abspath(entry) if not entry or os.path.exists(entry) else entry


def _belongs_to_python(folder: str) -> bool:
    """Whether a folder of the search path belongs to the python that runs here, not to a project."""
    import site
    import sysconfig  # no job asks this

    library = sysconfig.get_path("stdlib")
    packages = [*site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    user = site.getusersitepackages()
    return folder in (*packages, user) or Path(folder).is_relative_to(library) or folder.endswith(_ZIP)
