"""Checkpoints of the user's code: called when a task has to end, they return what the next start should call.

As in submitit, a checkpoint returns an object with function, args and kwargs, or None for "do not start me again".
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import inspect
import traceback
import typing as tp
from pathlib import Path

from hydra_exca import checksums, files, paths
from hydra_exca.errors import CacheError

from .logs import write_to_log
from .payload import MOST_BYTES, pickle_named, read_pickle

Checkpoint = tp.Callable[[], tp.Any]
_NAMES = ("__submitit_checkpoint__", "checkpoint")


class CheckpointAnswer(enum.Enum):
    """The answer of a task's checkpoint when the task has to end."""

    NOTHING = "nothing"  # it has no checkpoint, or that failed
    AGAIN = "again"
    REFUSED = "refused"  # it is not to be started again


@dataclasses.dataclass(frozen=True)
class CheckpointCall:
    """A function with its arguments; call the object to call it."""

    function: tp.Callable[..., tp.Any]
    args: tuple[tp.Any, ...] = ()
    kwargs: tp.Mapping[str, tp.Any] = dataclasses.field(default_factory=dict)

    def __call__(self) -> tp.Any:
        return self.function(*self.args, **self.kwargs)

    def is_method(self, kind: type, name: str) -> bool:
        """Whether it calls that method of this class. Through its cache, the method would wait for this very job."""
        return isinstance(getattr(self.function, "__self__", None), kind) and self.function.__name__ == name

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint of the function, with the same arguments."""
        for name in _NAMES:
            checkpoint = getattr(self.function, name, None)
            if callable(checkpoint):
                return functools.partial(checkpoint, *self.args, **self.kwargs)
        return None


def checkpoint_of_object(obj: tp.Any) -> Checkpoint | None:
    """The ``checkpoint`` method of an object, None if its class defines none that can be called without arguments.

    A field of the class can have that name, too.
    """
    if not callable(getattr(type(obj), "checkpoint", None)):
        return None
    checkpoint: Checkpoint = obj.checkpoint
    try:
        inspect.signature(checkpoint).bind()
    except (TypeError, ValueError):
        return None
    return checkpoint


def call_checkpoint(checkpoint: Checkpoint | None, launch: Path, position: int) -> CheckpointAnswer:
    """Calls the checkpoint of a task and stores what the next start should call."""
    if checkpoint is None:
        return CheckpointAnswer.NOTHING
    try:
        resume = checkpoint()
        if resume is None:
            return CheckpointAnswer.REFUSED
        _store_call(resume, launch, position)
        return CheckpointAnswer.AGAIN
    except Exception:  # noqa: BLE001  the user's code, and whatever it returns
        write_to_log(f"the checkpoint failed and is ignored:\n{traceback.format_exc()}")
        return CheckpointAnswer.NOTHING


def read_resumed_call(launch: Path, position: int) -> CheckpointCall | None:
    """What an earlier start of the task wants called instead of its function, None if there is no such thing."""
    path = paths.resumed_call(launch, position)
    try:
        return CheckpointCall(*read_pickle(path))
    except FileNotFoundError:
        return None


def copy_resumed_call(source: Path, launch: Path, position: int) -> None:
    """Gives the task at ``position`` of a launch what an earlier launch of it has left to be called."""
    with contextlib.suppress(FileNotFoundError, CacheError):  # the task then begins anew
        data = files.read_trusted(source, (), MOST_BYTES)
        files.write_file(paths.resumed_call(launch, position), data, mode=files.PRIVATE)


def _store_call(resume: tp.Any, launch: Path, position: int) -> None:
    path = paths.resumed_call(launch, position)
    if not all(hasattr(resume, name) for name in ("function", "args", "kwargs")):
        path.unlink(missing_ok=True)
        return
    call = (resume.function, tuple(resume.args), dict(resume.kwargs))
    data = pickle_named(call, "what checkpoint returned")
    files.write_file(path, checksums.add_checksum(data), mode=files.PRIVATE)
