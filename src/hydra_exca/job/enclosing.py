"""The tasks around this process: the one that it computes, those that launched it, or the one that started it.

They are named in the environment, so that a program that a task starts knows of them.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import os
import sys
import threading
import typing as tp
from pathlib import Path

from hydra_exca.clusters.base import ENCLOSING_TASKS, RANK_VARIABLES
from hydra_exca.code import observer


class EnclosingTask(tp.NamedTuple):
    """One task: the folder of the launch that computes it, its position there, its entry, and its identity's key."""

    launch: str
    position: int
    entry: str
    key: str


def identity_key(identity: tp.Mapping[str, tp.Any]) -> str:
    """The key of an identity, from the form that is stored."""
    return f"{identity['factory']},{identity['version']}/{identity['digest']}"


def enclosing_tasks() -> list[EnclosingTask]:
    """The tasks that wait for whatever this thread does: the outermost first."""
    tasks = _around.get()
    return _starting_tasks() if tasks is None else list(tasks)


def starting_task() -> EnclosingTask | None:
    """The task that started this program, None where no task did: the one that it computes is no such task."""
    tasks = _starting_tasks()
    return tasks[-1] if tasks else None


def use_result(cache: Path, used: str | None) -> None:
    """Lets the tasks around this process depend on what a stored result used, if there are any (see `code.uses`)."""
    # this costs less than to read what this program was started with; a job may use it as it loads its program
    if ENCLOSING_TASKS in os.environ or observer.is_of_job():
        observer.add_result(str(cache), used)


def _starting_tasks() -> list[EnclosingTask]:
    """The tasks in the environment that this program was started with."""
    prefix = f"{ENCLOSING_TASKS}=".encode()
    try:
        variables = Path("/proc/self/environ").read_bytes().split(b"\0")
        given = next((each.removeprefix(prefix) for each in variables if each.startswith(prefix)), b"[]")
        return [EnclosingTask(*each) for each in json.loads(given)]
    except (OSError, ValueError, TypeError):
        return []


@contextlib.contextmanager
def computing(task: EnclosingTask, around: tp.Sequence[EnclosingTask]) -> tp.Iterator[None]:
    """While it lasts, this thread and the programs it starts are known to belong to ``task``, and to those ``around``.

    A distributed run that a task began in this process ends with it: the next task here would take its variables and
    its process group for its own, and wait for ranks that are gone.
    """
    tasks = (*around, task)
    text = json.dumps(tasks)
    before = _around.get()
    try:
        _around.set(tasks)
        _environment.enter(text)
        yield
    finally:
        try:
            _leave(before, text)
        except KeyboardInterrupt:
            _leave(before, text)  # a program that a later call starts would compute this task
            raise


def _leave(before: tuple[EnclosingTask, ...] | None, text: str) -> None:
    _around.set(before)
    _environment.leave(text)


_around: contextvars.ContextVar[tuple[EnclosingTask, ...] | None] = contextvars.ContextVar("around", default=None)


class _TaskEnvironment:
    """What the tasks of a process change in it. Its threads may compute several at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: list[str] = []
        self._before: dict[str, str] = {}
        self._had_group = False

    def enter(self, tasks: str) -> None:
        with self._lock:
            if not self._tasks:
                self._before = {name: os.environ[name] for name in _CHANGED if name in os.environ}
                self._had_group = _process_group() is not None
            self._tasks.append(tasks)
            os.environ[ENCLOSING_TASKS] = tasks

    def leave(self, tasks: str) -> None:
        """May be called again where it, or ``enter``, was interrupted."""
        with self._lock:
            if tasks not in self._tasks:
                return
            others = [*self._tasks]
            others.remove(tasks)
            if others:
                os.environ[ENCLOSING_TASKS] = others[-1]
            else:
                self._restore()
            self._tasks = others

    def _restore(self) -> None:
        for name in _CHANGED:
            os.environ.pop(name, None)
        os.environ.update(self._before)
        group = _process_group()
        if group is not None and not self._had_group:
            group.destroy_process_group()


_CHANGED = (ENCLOSING_TASKS, *RANK_VARIABLES)
_environment = _TaskEnvironment()


def _process_group() -> tp.Any:
    """torch.distributed, if this process has loaded it and is one of its ranks."""
    distributed = sys.modules.get("torch.distributed")
    is_rank = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed if is_rank else None
