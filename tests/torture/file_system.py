"""The file-system calls of a process, counted, and one of them made to fail, to stop half-way or to be the last.

All calls are those of Python's own functions, wrapped: a point costs a fork, and nothing is compiled or traced.
"""

from __future__ import annotations

import builtins
import dataclasses
import errno
import fcntl
import functools
import io
import os
import signal
import typing as tp
from collections.abc import Callable, Sequence
from pathlib import Path

# by path, and by descriptor
NAMED = (
    "open",
    "stat",
    "lstat",
    "listdir",
    "scandir",
    "readlink",
    "chmod",
    "utime",
    "mkdir",
    "rmdir",
    "unlink",
    "remove",
)
NAMED += ("rename", "replace", "link", "symlink")
OPEN = ("read", "pread", "write", "fsync", "fstat")
CHANGES = {*NAMED[6:], "write", "fsync", "close", "create"}
POSSIBLE = {  # by the manual pages; all other calls: EIO, ESTALE and EACCES
    "open": "EIO EACCES ESTALE EMFILE",
    "create": "EIO EACCES ESTALE EMFILE EROFS ENOSPC EDQUOT",
    "mkdir": "EIO EACCES ESTALE EROFS ENOSPC EDQUOT",
    "link": "EIO EACCES ESTALE EROFS ENOSPC EDQUOT",
    "symlink": "EIO EACCES ESTALE EROFS ENOSPC EDQUOT",
    "rename": "EIO EACCES ESTALE EROFS ENOSPC EDQUOT",
    "replace": "EIO EACCES ESTALE EROFS ENOSPC EDQUOT",
    "write": "EIO ESTALE ENOSPC EDQUOT",
    "fsync": "EIO ESTALE ENOSPC EDQUOT",
    "close": "EIO ENOSPC EDQUOT",
    "unlink": "EIO EACCES ESTALE EROFS",
    "rmdir": "EIO EACCES ESTALE EROFS",
    "read": "EIO ESTALE",
    "pread": "EIO ESTALE",
    "fstat": "EIO ESTALE",
    "scandir": "EIO EACCES ESTALE EMFILE",
    "listdir": "EIO EACCES ESTALE EMFILE",
}
LATE = {"link": "EEXIST", "mkdir": "EEXIST", "unlink": "ENOENT", "rename": "ENOENT", "replace": "ENOENT"}
STAYING = "stays "
KILL, TORN, AFTER = "kill", "torn", "after "


@dataclasses.dataclass(frozen=True)
class Call:
    """One call: the function, and the path as it was given or opened."""

    function: str
    path: str

    def faults(self) -> list[str]:
        """All that can go wrong in it; nothing that its manual page excludes."""
        names = POSSIBLE.get(self.function, "EIO EACCES ESTALE").split()
        found = [KILL, *names]
        if self.function == "write":
            found.append(TORN)
        if self.function in LATE:  # NFS: the answer was lost, and the call is repeated by the kernel
            found.append(AFTER + LATE[self.function])
        if self.function in CHANGES:
            found += [STAYING + "ENOSPC", STAYING + "EROFS"]
        return found


class FileSystem:
    """What the calls below ``folders`` do: they are counted, and number ``at`` has the ``fault``."""

    def __init__(self, folders: Sequence[Path], at: int = 0, fault: str = "") -> None:
        self._folders = tuple(map(str, folders))
        self.at, self.fault = at, fault
        self.calls: list[Call] = []
        self.is_on = False
        self._process = 0
        self._log: int | None = None
        self._real: dict[str, Callable[..., tp.Any]] = {}

    def install(self) -> None:
        """Wraps Python's functions, for the rest of this process. Those that it forks count nothing."""
        self._process = os.getpid()
        for name in (*NAMED, *OPEN, "close"):
            self._real[name] = getattr(os, name)
            setattr(os, name, functools.wraps(getattr(os, name))(self._wrapper(name)))
        self._opener = io.open
        builtins.open = io.open = self._open_object  # type: ignore[assignment]
        self.is_on = True

    def log_to(self, path: Path) -> None:
        """Writes the calls from now on into a file, too."""
        self._log = self._real["open"](path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def _wrapper(self, name: str) -> Callable[..., tp.Any]:
        real = self._real[name]

        def call(*args: tp.Any, **more: tp.Any) -> tp.Any:
            path = self._path_of(name, args, more) if self.is_on else None
            if path is None:
                return real(*args, **more)
            is_made = name == "open" and args[1] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
            return self._call(Call("create" if is_made else name, path), functools.partial(real, *args, **more), args)

        return call

    def _path_of(self, name: str, args: Sequence[tp.Any], more: dict[str, tp.Any]) -> str | None:
        """The path of a call if it is one of ours. Of two, as of rename, the one below our folders."""
        for each in args[:2]:
            if isinstance(each, int):
                is_read = name == "close" and not fcntl.fcntl(each, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR)
                path = "" if is_read else self._path_of_descriptor(each)  # closing such a file never fails
            elif isinstance(each, str | os.PathLike):
                folder = more.get("dir_fd")
                path = os.path.abspath(os.path.join(self._path_of_descriptor(folder) if folder else "", each))
            else:
                continue
            if path.startswith(self._folders):
                return path
        return None

    def _path_of_descriptor(self, descriptor: int) -> str:
        try:
            return str(self._real["readlink"](f"/proc/self/fd/{descriptor}"))
        except OSError:
            return ""

    def _call(self, call: Call, real: Callable[[], tp.Any], args: Sequence[tp.Any] = ()) -> tp.Any:
        if os.getpid() == self._process:
            self.calls.append(call)
            if self._log is not None:
                self._real["write"](self._log, f"{call.function} {call.path}\n".encode())
        fault = self._fault_of(call)
        if fault == "":
            return real()
        if fault == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == TORN and call.function == "write":
            self._real["write"](args[0], bytes(args[1])[: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.startswith(AFTER) or call.function == "close":  # close(2) frees the descriptor whatever it returns
            real()
        code = getattr(errno, fault.rpartition(" ")[2])
        raise OSError(code, os.strerror(code), call.path)

    def _fault_of(self, call: Call) -> str:
        now = len(self.calls)
        if self.fault.startswith(STAYING):
            return self.fault if now >= self.at and call.function in CHANGES and call.function != "close" else ""
        return self.fault if now == self.at and os.getpid() == self._process else ""

    def _open_object(self, file: tp.Any, mode: str = "r", *args: tp.Any, **more: tp.Any) -> tp.Any:
        """The same as io.open; what is written through the object are calls, too."""
        path = None if isinstance(file, int) else self._path_of("open", (file,), {})
        opened: Callable[[], tp.Any] = functools.partial(self._opener, file, mode, *args, **more)
        if not self.is_on or path is None:
            return opened()
        return self._call(Call("open" if set(mode) <= set("rbt") else "create", path), opened)
