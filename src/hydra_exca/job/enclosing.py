"""The tasks around this process: the one that it computes, those that launched it, or the one that started it.

They are named in the environment, so that a program that a task starts knows of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import typing as tp
from pathlib import Path

from hydra_exca.clusters.base import ENCLOSING_TASKS, RANK_VARIABLES


class EnclosingTask(tp.NamedTuple):
    """One task: the folder of the launch that computes it, its position there, and the key of its identity."""

    launch: str
    position: int
    key: str


def identity_key(identity: tp.Mapping[str, tp.Any]) -> str:
    """The key of an identity, from the form that is stored."""
    return f"{identity['factory']},{identity['version']}/{identity['digest']}"


def enclosing_tasks() -> list[EnclosingTask]:
    """The tasks that wait for whatever this process does: the outermost first."""
    return _read(os.environ.get(ENCLOSING_TASKS))


def starting_task() -> EnclosingTask | None:
    """The task that started this program, None where no task did: the one that it computes is no such task.

    It is the innermost of those in the environment that the program was started with.
    """
    try:
        variables = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = f"{ENCLOSING_TASKS}=".encode()
    given = next((each.removeprefix(prefix) for each in variables if each.startswith(prefix)), None)
    tasks = _read(given)
    return tasks[-1] if tasks else None


@contextlib.contextmanager
def computing(task: EnclosingTask, around: tp.Sequence[EnclosingTask]) -> tp.Iterator[None]:
    """While it lasts, this process and what it starts are known to belong to ``task``, and to those ``around`` it.

    A distributed run that the task began in this process ends with it: the next task here would take its variables and
    its process group for its own, and wait for ranks that are gone.
    """
    names = (ENCLOSING_TASKS, *RANK_VARIABLES)
    before = {name: os.environ[name] for name in names if name in os.environ}
    had_group = _process_group() is not None
    os.environ[ENCLOSING_TASKS] = json.dumps([*around, task])
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)
        group = _process_group()
        if group is not None and not had_group:
            group.destroy_process_group()


def _process_group() -> tp.Any:
    """torch.distributed, if this process has loaded it and is one of its ranks."""
    distributed = sys.modules.get("torch.distributed")
    is_rank = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed if is_rank else None


def _read(text: str | bytes | None) -> list[EnclosingTask]:
    return [EnclosingTask(*each) for each in json.loads(text or "[]")]
