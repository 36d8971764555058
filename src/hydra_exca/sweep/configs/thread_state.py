"""State of the process that one thread sees differently for a while: other threads see it, and change it, as it is.

A launch has threads of the user's beside it. They would read assumed values if this state were exchanged for all, and
lose what they set when it is put back. So each thing is replaced once, for good, by one that looks in a context
variable first. Threads that start inside the block see the process as it is, too: a context is not inherited.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import os
import subprocess
import typing as tp
import warnings

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from hydra_exca.code.active import OriginalPlaces

Function: tp.TypeAlias = tp.Callable[..., tp.Any]


@contextlib.contextmanager
def replaced_function(holder: tp.Any, name: str, replace: tp.Callable[[Function], Function]) -> tp.Iterator[None]:
    """In this thread, a function of a module or class is what ``replace`` makes of it."""
    current = _replaceable(holder, name)
    token = current.set(replace(current.get()))
    try:
        yield
    finally:
        current.reset(token)


@functools.cache
def _replaceable(holder: tp.Any, name: str) -> contextvars.ContextVar[Function]:
    original = getattr(holder, name)
    current: contextvars.ContextVar[Function] = contextvars.ContextVar(name, default=original)

    @functools.wraps(original)
    def call(*args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        return current.get()(*args, **kwargs)

    is_static = isinstance(inspect.getattr_static(holder, name), staticmethod)
    setattr(holder, name, staticmethod(call) if is_static else call)
    return current


@contextlib.contextmanager
def own_hydra_config(config: DictConfig) -> tp.Iterator[None]:
    """In this thread, HydraConfig holds ``config`` itself.

    ``HydraConfig.set_config`` would hold a copy, which does not see later changes.
    """
    holder = object.__new__(HydraConfig)  # calling the class would give the one of the process
    holder.cfg = tp.cast(tp.Any, config)
    with replaced_function(HydraConfig, "instance", lambda original: lambda: holder):
        yield


class OwnEnviron(dict[bytes, bytes]):
    """The environment of one thread. It records which variables were read since the last `forget_reads`."""

    def forget_reads(self) -> None:
        self.read: set[bytes] = set()
        self.read_unset: set[bytes] = set()
        self.is_listed = False

    def names_read(self) -> set[str]:
        """The variables that were read one by one. Who lists all also reads all that are set."""
        names = self.read_unset if self.is_listed else self.read_unset | self.read
        return set(map(os.fsdecode, names))

    def __getitem__(self, key: bytes) -> bytes:
        (self.read if key in self else self.read_unset).add(key)
        return super().__getitem__(key)

    def __iter__(self) -> tp.Iterator[bytes]:
        self.is_listed = True
        return super().__iter__()


@contextlib.contextmanager
def own_environ() -> tp.Iterator[OwnEnviron]:
    """In this thread, ``os.environ`` is a copy, and so is what `subprocess` gives to programs.

    Other ways to start programs (``os.system``, `multiprocessing`), and libraries in C, read the environment of the
    process, which is not to be changed while other threads may read it.
    """
    for environ in (os.environ, os.environb):
        environ.__class__ = _ThreadEnviron  # not another object: who imported it has this one
    own = OwnEnviron(os.environ._data)  # type: ignore[attr-defined]  # noqa: SLF001
    own.forget_reads()
    token = _environ.set(own)
    try:
        with replaced_function(subprocess.Popen, "__init__", _with_own_environ):
            yield own
    finally:
        _environ.reset(token)


_environ: contextvars.ContextVar[OwnEnviron | None] = contextvars.ContextVar("environ", default=None)


class _ThreadEnviron(OriginalPlaces):
    """Reads and changes the copy of a thread that has one."""

    @property
    def _data(self) -> dict[bytes, bytes]:
        own = _environ.get()
        return tp.cast("dict[bytes, bytes]", vars(self)["_data"]) if own is None else own

    def __setitem__(self, key: tp.Any, value: tp.Any) -> None:
        own = _environ.get()
        if own is None:
            super().__setitem__(key, value)
        else:
            own[self.encodekey(key)] = self.encodevalue(value)

    def __delitem__(self, key: tp.Any) -> None:
        own = _environ.get()
        if own is None:
            super().__delitem__(key)
        elif own.pop(self.encodekey(key), None) is None:
            raise KeyError(key)


_POPEN = inspect.signature(subprocess.Popen.__init__)


def _with_own_environ(start: Function) -> Function:
    def start_program(*args: tp.Any, **kwargs: tp.Any) -> None:
        bound = _POPEN.bind(*args, **kwargs)
        if bound.arguments.get("env") is None:
            bound.arguments["env"] = dict(os.environ)
        start(*bound.args, **bound.kwargs)

    return start_program


@contextlib.contextmanager
def ignored_warnings() -> tp.Iterator[None]:
    """In this thread, nothing warns. ``warnings.catch_warnings`` would silence all threads."""
    rule: tp.Any = ("ignore", _ThreadMatcher, Warning, None, 0)
    warnings.filters.insert(0, rule)  # type: ignore[attr-defined]
    token = _is_silent.set(True)
    try:
        yield
    finally:
        _is_silent.reset(token)
        with contextlib.suppress(ValueError):  # another thread has restored the filters of before
            warnings.filters.remove(rule)  # type: ignore[attr-defined]


_is_silent: contextvars.ContextVar[bool] = contextvars.ContextVar("warnings are ignored", default=False)


class _ThreadMatcher:
    """Stands where a filter of warnings has the compiled pattern of their text."""

    @staticmethod
    def match(text: str) -> bool:
        return _is_silent.get()
