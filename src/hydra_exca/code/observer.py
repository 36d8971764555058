"""What this process, and those that it forks or that multiprocessing starts, import, open and list.

An audit hook sees files as they are opened, and folders as they are listed; a finder sees the names that are imported,
found or not. Neither can be removed, so one observer serves all tasks of a process. What it sees is a set of facts,
each seen once, so a task that opens a thousand files costs nothing that can be measured.

Other processes write their facts to a file in memory of the first one, at once, as they may be killed. Who starts one
announces it, and it reports: if a report is missing, its facts are not known.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import json
import os
import sys
import types
import typing as tp

from .rules import OWN
from .selection import is_installed

FILE, FOLDER, NAME, RESULT = "file", "folder", "name", "result"
_STARTED, _BEGUN, _UNKNOWN = "started", "begun", "unknown"
_WATCHED = (".py", ".pyc", ".pyw", ".ipynb", ".yaml", ".yml", ".toml")
_IMPORTS = "<frozen importlib"
_HOOKED = "hydra_exca.code.observer"
Fact: tp.TypeAlias = tuple[str, ...]
"""A kind, and a file, a folder, a name with the folders in which it is looked for, or a cache with what a result there
used; or what became of a process."""


class _Address(tp.NamedTuple):
    """Where the other processes of an observer write: a file that only the process ``pid`` has open."""

    pid: int
    descriptor: int
    device: int
    inode: int

    def open(self) -> int:
        """Opens the file for appending. Raises OSError if the process is gone, or something else is in its place."""
        opened = os.open(f"/proc/{self.pid}/fd/{self.descriptor}", os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        status = os.fstat(opened)
        if (status.st_dev, status.st_ino) != (self.device, self.inode):
            os.close(opened)
            raise FileNotFoundError(self.descriptor)
        return opened


class _Observer:
    """The facts of this process.

    Other processes than the first one of a task send each fact to ``address``. A rank of a job that is the first one of
    its own processes shares it at ``path``, with the first rank.
    """

    def __init__(self) -> None:
        self.address: _Address | None = None
        self.path: str | None = None
        self.is_first = False
        self.is_hooked = False
        self.is_blind = False
        self.is_of_job = False
        self.unknown = 0
        self._facts: dict[Fact, None] = {}
        self._last_search: tuple[tp.Any, ...] = ()
        self._searched: tuple[str, ...] = ()

    def become_first(self) -> None:
        """Makes this the first process of tasks, to which the others report."""
        descriptor = os.memfd_create("exca-observer", os.MFD_CLOEXEC)
        status = os.fstat(descriptor)
        self.address = _Address(os.getpid(), descriptor, status.st_dev, status.st_ino)
        self.is_first, self.path, self.unknown = True, None, 0
        self._facts = {fact: None for fact in self._facts if fact[0] in (FILE, FOLDER, NAME, RESULT)}

    def add(self, *fact: str) -> None:
        """Adds a fact, unless it is there."""
        if fact not in self._facts:
            self._facts[fact] = None
            if not self.is_first or self.path is not None:
                self._send([fact])

    def _send(self, facts: tp.Iterable[Fact]) -> None:
        """Writes facts to where the first process reads them. If that fails, the report is missing as well."""
        data = "".join(f"{json.dumps(fact)}\n" for fact in facts).encode()
        with contextlib.suppress(OSError):
            opened = self._open_target()
            try:
                os.write(opened, data)
            finally:
                os.close(opened)

    def _open_target(self) -> int:
        if self.path is not None:
            return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if self.address is None:
            raise FileNotFoundError
        return self.address.open()

    def facts(self, others: tp.Iterable[str] = (), unknown: int = 0) -> list[Fact] | None:
        """All facts, also of ranks that have shared theirs at the paths ``others``; None if some are not known.

        So it is if more than ``unknown`` processes that do not report were started.
        """
        received = self._received() if self.address is not None and not self.is_blind else None
        shared = [_read_shared(path) for path in others]
        if received is None or None in shared:
            return None
        facts = [*self._facts, *received, *(fact for facts in shared for fact in facts or ())]
        kinds = collections.Counter(fact[0] for fact in facts)
        is_known = kinds[_STARTED] <= kinds[_BEGUN] and self.unknown + kinds[_UNKNOWN] <= unknown
        return [*facts, *module_facts()] if is_known else None

    def count_unknown(self) -> int:
        """How many processes that do not report were started so far."""
        return self.unknown + sum(fact[0] == _UNKNOWN for fact in self._received() or ())

    def share(self, path: str) -> None:
        """Shares all facts so far, and from now on, with the first rank of the job."""
        self.path = path
        received = self._received()
        unknown = [(_UNKNOWN,)] * (self.unknown + (received is None))
        self._send([*self._facts, *module_facts(), *(received or ()), *unknown])

    def _received(self) -> list[Fact] | None:
        try:
            return None if self.address is None else _parse(_read(self.address.open()))
        except OSError:
            return None

    def announce(self) -> None:
        """Another process of this task is about to start, and will report."""
        self.add(_STARTED, os.urandom(8).hex())

    def report_fork(self) -> None:
        """This process was forked; what it knows so far, the other one knows."""
        self.is_first, self.path = False, None
        self._send([(_BEGUN,)])

    def follow(self, address: tuple[int, ...]) -> None:
        """Reports the start of this process to the first one of the task, with all that it has imported by now."""
        self.address, self.is_first = _Address(*address) if address else None, False
        self._send([(_BEGUN,), *module_facts()])

    # events

    def handle_open(self, path: tp.Any, mode: str | None) -> None:
        path = os.fsdecode(path) if isinstance(path, (bytes, os.PathLike)) else path
        if not isinstance(path, str) or not path.endswith(_WATCHED) or _is_open_data(path):
            return
        if mode is None and not os.path.isabs(path):
            self._add_unknown(_caller())  # os.open, perhaps with a dir_fd, of which the event says nothing
        with contextlib.suppress(OSError, ValueError):  # there may be no working directory
            path = source_of(os.path.abspath(path))
            if (FILE, path) not in self._facts and _is_watched(path) and not _is_own(_caller()):
                self.add(FILE, path)

    def handle_listing(self, folder: tp.Any = None) -> None:
        frame = _caller()
        if _is_import(frame):
            return  # it looks for a name, which is a fact of its own
        with contextlib.suppress(OSError, ValueError):
            folder = os.readlink(f"/proc/self/fd/{folder}") if isinstance(folder, int) else os.fsdecode(folder or ".")
            folder = os.path.abspath(folder)
            if (FOLDER, folder) not in self._facts and not is_installed(f"{folder}/") and not _is_own(frame):
                self.add(FOLDER, folder)

    def handle_fork(self) -> None:
        self.announce()

    def handle_process(self, *of_what: tp.Any) -> None:
        self._add_unknown(_caller())

    def _add_unknown(self, frame: types.FrameType | None) -> None:
        if not _is_own(frame):
            self.unknown += 1
            if not self.is_first or self.path is not None:
                self._send([(_UNKNOWN,)])

    def look_for(self, name: str, path: tp.Sequence[str] | None, first: tp.Sequence[str] = ()) -> None:
        """A name is imported, from the folders ``path``, or from those that come ``first`` and the search path."""
        if path is None:
            search = (_working_directory(), *sys.path)
            if self._last_search != search:
                self._last_search, self._searched = search, _project_part(sys.path)
            self.add(NAME, name, *first, *self._searched)
        elif name.startswith("multiprocessing."):
            _follow_multiprocessing()
        elif not all(map(is_installed, folders := absolute_folders(path))):
            self.add(NAME, name, *folders)

    def find_spec(self, name: str, path: tp.Sequence[str] | None = None, target: object = None) -> None:
        """As a finder: finds nothing, but is asked for every name, first."""
        self.look_for(name, path)


_observer = _Observer()


def _caller() -> types.FrameType | None:
    """The frame that has caused the event whose handler calls this; None if C has, as at the exit of the process."""
    return sys._getframe(2).f_back  # noqa: SLF001


def _is_import(frame: types.FrameType | None) -> bool:
    return frame is not None and frame.f_code.co_filename.startswith(_IMPORTS)


def _is_own(frame: types.FrameType | None) -> bool:
    """Whether this package does what a frame does: what it reads for itself is nothing that a task depends on.

    The standard library and Hydra act for whoever calls them, and the import system for whoever wrote the module.
    """
    if _is_import(frame):
        return False
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if not _acts_for_callers(package, frame.f_code.co_filename):
            return package in OWN[:2]
        frame = frame.f_back
    return False


def _acts_for_callers(package: str, file: str) -> bool:
    """Whether it is Hydra or the standard library: a module of a project may have a name of the latter."""
    if package in ("hydra", "omegaconf"):
        return True
    return package in sys.stdlib_module_names and (file.startswith("<") or is_installed(file))


def _working_directory() -> str:
    """The working directory, "" if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def absolute_folders(path: tp.Iterable[object]) -> list[str]:
    """The places of a search path in which Python looks: it may have other things in it, too."""
    here = _working_directory()
    places = (os.path.join(here, folder) for folder in path if isinstance(folder, str))
    return [os.path.normpath(place) for place in places if os.path.isabs(place)]


def _project_part(path: tp.Iterable[object]) -> tuple[str, ...]:
    """The folders of a search path up to the last one that is not of Python or of installed packages."""
    folders = absolute_folders(path)
    while folders and is_installed(f"{folders[-1]}/"):
        folders.pop()
    return tuple(folders)


def source_of(path: str) -> str:
    """The source of compiled code, also of what is in no ``__pycache__``; other paths as they are.

    >>> source_of("/p/__pycache__/a.cpython-311.pyc"), source_of("/p/a.pyc"), source_of("/p/a.py")
    ('/p/a.py', '/p/a.py', '/p/a.py')
    """
    if not path.endswith(".pyc"):
        return path
    try:
        return importlib.util.source_from_cache(path)
    except ValueError:
        return path[:-1]


def _is_open_data(path: str) -> bool:
    """Whether a file is neither Python nor in a hidden place, as its whole path tells."""
    return path[:1] == "/" and "/." not in path and not path.endswith((".py", ".pyc", ".pyw", ".ipynb"))


def _is_watched(path: str) -> bool:
    """Whether a file is Python, or in a hidden place, and so does not count as code unless it is opened."""
    return not is_installed(path) and (path.endswith((".py", ".pyw", ".ipynb")) or "/." in path)


def module_facts() -> tp.Iterator[Fact]:
    """The facts about the modules that this process has imported by now."""
    searched = _project_part(sys.path)
    for name in list(sys.modules):
        file = module_attribute(name, "__file__")
        if isinstance(file, str) and not is_installed(file):
            yield from ((FILE, source_of(place)) for place in absolute_folders([file]))
        package = name.rpartition(".")[0]
        if not package:
            yield NAME, name, *searched
        elif isinstance(file, str) and not is_installed(file):
            yield NAME, name, *absolute_folders(module_attribute(package, "__path__") or ())


def module_attribute(module: str, name: str) -> tp.Any:
    """An attribute of an imported module, None if it has none; asking a lazy module for one would import it."""
    try:
        return object.__getattribute__(sys.modules.get(module), "__dict__").get(name)
    except AttributeError:
        return None


def _read(opened: int) -> bytes:
    with open(opened, "rb") as file:
        file.seek(0)
        return file.read()


def _read_shared(path: str) -> list[Fact] | None:
    """What a rank has shared, None if it has not, or not yet."""
    try:
        return _parse(_read(os.open(path, os.O_RDONLY | os.O_CLOEXEC)))
    except OSError:
        return None


def _parse(data: bytes) -> list[Fact] | None:
    """The facts that `_Observer` has sent, None if they are damaged."""
    try:
        return [tuple(map(str, json.loads(line))) for line in data.splitlines()]
    except (ValueError, TypeError):
        return None


# the hook


def _handlers() -> dict[str, tp.Callable[..., None]]:
    processes = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")
    return {
        "os.listdir": _observer.handle_listing,
        "os.scandir": _observer.handle_listing,
        "os.fork": _observer.handle_fork,
        "os.forkpty": _observer.handle_fork,
        **dict.fromkeys(processes, _observer.handle_process),
        _HOOKED: lambda: setattr(_observer, "is_hooked", True),
    }


def _install_hook() -> None:
    handlers, handle_open, watched = _handlers(), _observer.handle_open, _WATCHED

    def hook(event: str, args: tuple[tp.Any, ...]) -> None:
        if event == "open":
            path = args[0]
            if type(path) is not str or path.endswith(watched):
                handle_open(path, args[1])
        elif event in handlers:
            handlers[event](*args)

    sys.addaudithook(hook)
    sys.audit(_HOOKED)
    os.register_at_fork(after_in_child=_observer.report_fork)


class _Follower:
    """What a process of multiprocessing inherits, and so reports as soon as it has received its task.

    Pickling it announces the process: that is done to start one, and for nothing else.
    """

    def __reduce__(self) -> tuple[tp.Any, ...]:
        _observer.announce()
        return _follow, (tuple(_observer.address or ()),)


def _follow(address: tuple[int, ...]) -> _Follower:
    """Observes this process for the task whose processes report to ``address``."""
    _start()
    _observer.follow(address)
    return _Follower()


def _follow_multiprocessing() -> None:
    """Lets all processes that multiprocessing starts from here report, with every method, and with loky."""
    process: tp.Any = sys.modules.get("multiprocessing.process")
    if process is not None and hasattr(process, "current_process"):
        # there is no public way: each new process, and those that it starts, get a copy of this dictionary
        process.current_process()._config.setdefault("hydra_exca", _Follower())  # noqa: SLF001


def _start() -> None:
    if not _observer.is_hooked:
        _install_hook()
        sys.meta_path.insert(0, _observer)
        _follow_multiprocessing()


def observe(anew: bool = False, is_of_job: bool = True) -> None:
    """Observes this process and those that it starts. ``anew``: it was forked, and is the first one of its own tasks.

    Of a job, all that the process does is for its tasks; otherwise, what it does while it computes one.

    A process that another one has started for its task goes on to report to that.
    """
    is_new = not _observer.is_hooked
    _start()
    if is_new:
        _observer.is_blind = not _observer.is_hooked or _has_children()
        _observer.is_of_job = is_of_job
    if is_new or anew:
        _observer.become_first()


def look_for(name: str, path: tp.Sequence[str] | None, first: tp.Sequence[str]) -> None:
    """Another finder, which is asked first, is asked for a name, and looks in folders before the search path."""
    if _observer.is_hooked:
        _observer.look_for(name, path, first)


def share_with_first_rank(path: str) -> None:
    """Makes what this rank of a job does known to the first one, which reads it at ``path``."""
    _observer.share(path)


def count_unknown() -> int:
    """How many processes that do not report this process and those that do have started so far."""
    return _observer.count_unknown()


def observed_facts(others: tp.Iterable[str] = (), unknown: int = 0) -> list[Fact] | None:
    """What the processes of the tasks so far did, see `_Observer.facts`."""
    return _observer.facts(others, unknown)


def is_of_job() -> bool:
    """Whether all that this process does is for the tasks of a job."""
    return _observer.is_of_job


def add_result(cache: str, used: str | None) -> None:
    """The task depends on a stored result, and so on what that used (see `uses`), as far as that is known."""
    if _observer.is_hooked:
        _observer.add(RESULT, cache, used or "")


def _has_children() -> bool:
    """Whether processes of multiprocessing run that nobody has followed."""
    multiprocessing: tp.Any = sys.modules.get("multiprocessing")
    return multiprocessing is not None and bool(multiprocessing.active_children())
