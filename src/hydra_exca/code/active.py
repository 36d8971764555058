"""The copy of code that this process runs from."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import typing as tp
from pathlib import Path

from .importer import import_from_copy
from .snapshot import Snapshot


@dataclasses.dataclass(eq=False)
class _Stay:
    """A period in which a copy is the working directory; ``before`` is the working directory before it.

    It belongs to a ``thread``, or to the whole process where that is None.
    """

    copy: Snapshot
    before: Path
    thread: int | None = None


class _Process:
    """``code`` is the copy that a job imports from; of its stays in copies the last one counts."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.code: Snapshot | None = None
        self.stays: list[_Stay] = []

    def leave(self, stay: _Stay) -> None:
        """Ends a stay; threads may leave in another order than they came."""
        first, last = self.stays[0], self.stays[-1]
        self.stays.remove(stay)
        if not self.stays:
            os.chdir(stay.before)
        elif stay is first:
            self.stays[0].before = stay.before
        elif stay is last:
            remaining = self.stays[-1].copy
            os.chdir(stay.before if remaining.contains(stay.before) else remaining.folder)


_process = _Process()


class OriginalPlaces(os._Environ):  # type: ignore[type-arg]  # noqa: SLF001
    """Environment variables that code of a copy sets to places in the copy get the original places.

    The data that a program looks for from its root is there, and results do not depend on the copy. ``PYTHONPATH``
    stays as it is: programs that a task starts import from the copy.
    """

    def __setitem__(self, key: tp.Any, value: tp.Any) -> None:
        copy = current()
        if copy is not None and isinstance(value, str) and key != "PYTHONPATH":
            original, before = copy.with_originals(value), self.get(key, "")
            if original != value:  # as it was spelled where the launch has set it, perhaps with links
                value = before if before and os.path.realpath(before) == os.path.realpath(original) else original
        super().__setitem__(key, value)


def current() -> Snapshot | None:
    """The copy of code that this process runs from, None if it runs from none."""
    return _process.stays[-1].copy if _process.stays else _process.code


def current_of_thread() -> Snapshot | None:
    """The copy of code that this thread runs from: that of the process, or the one that it is `inside` itself.

    A launch takes its code from here: the copy that another thread is in may be of other code.
    """
    own = [stay.copy for stay in _process.stays if stay.thread in (None, threading.get_ident())]
    return own[-1] if own else _process.code


def run_from(copy: Snapshot | None, instead_of: Path | None = None) -> None:
    """Makes this process import from a copy, or none, from now on.

    The working directory does not change here. If it is in the copy, that stands in for the folder ``instead_of``.
    """
    _process.code = copy
    _watch_environment()
    import_from_copy(copy)
    _process.stays[:] = [] if copy is None or instead_of is None else [_Stay(copy, instead_of)]


def _watch_environment() -> None:
    if not isinstance(os.environ, OriginalPlaces):
        os.environ.__class__ = OriginalPlaces  # not another object: who imported it has this one


def missing_in_copy(error: BaseException) -> str:
    """A hint to add to an error that only occurs because code runs from a copy; "" for any other error."""
    copy = current()
    if copy is None or not isinstance(error, OSError) or not isinstance(error.filename, (str, os.PathLike)):
        return ""
    original = copy.original_of(Path(os.path.abspath(error.filename)))
    if original is None:
        return ""
    if isinstance(error, FileNotFoundError) and original.exists():
        return (
            " (the copy of the code has no such file: workdir.includes needs a pattern for it; "
            "a path to data should not start from __file__)"
        )
    if isinstance(error, PermissionError):
        return " (the copy of the code is read-only: write to the output directory)"
    return ""


def replaced_directory() -> Path | None:
    """The folder that the copies stand in for; None if the working directory is in none of them."""
    here = Path.cwd()
    return _process.stays[0].before if any(stay.copy.contains(here) for stay in _process.stays) else None


def home() -> Path:
    """The folder that relative paths in settings start from: the working directory, or the one that a copy replaces."""
    return replaced_directory() or Path.cwd()


def located(path: Path | str) -> Path:
    """The absolute path of a path in settings: relative ones start from `home`, and ``~`` is expanded."""
    expanded = Path(path).expanduser()
    return expanded if expanded.is_absolute() else home() / expanded


@contextlib.contextmanager
def inside(copy: Snapshot) -> tp.Iterator[None]:
    """Makes a copy the working directory; if several threads do so, until the last of them has left."""
    with _process.lock:
        target = copy.stand_in_for(home())
        stay = _Stay(copy, Path.cwd(), threading.get_ident())
        _process.stays.append(stay)
        _watch_environment()
        os.chdir(target)
    try:
        yield
    finally:
        with _process.lock:
            _process.leave(stay)
