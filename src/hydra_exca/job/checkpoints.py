"""A user's own ``checkpoint``: what it says when a task is told to end, and what it leaves for the next start.

As submitit has it: it returns what is to be called next time (anything with function, args and kwargs), or None for
"do not start me again".
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import os
import sys
import traceback
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.store import files

from . import payload as payloads

Checkpoint = tp.Callable[[], tp.Any]
_NAMES = ("__submitit_checkpoint__", "checkpoint")


class CheckpointAnswer(enum.Enum):
    """What a task says to being ended."""

    NOTHING = "nothing"  # it has no checkpoint, or that failed
    AGAIN = "again"
    REFUSED = "refused"  # it is not to be started again


@dataclasses.dataclass(frozen=True)
class CheckpointCall:
    """A function and what it is called with; calling this calls it."""

    function: tp.Callable[..., tp.Any]
    args: tuple[tp.Any, ...] = ()
    kwargs: tp.Mapping[str, tp.Any] = dataclasses.field(default_factory=dict)

    def __call__(self) -> tp.Any:
        return self.function(*self.args, **self.kwargs)

    def is_method(self, kind: type, name: str) -> bool:
        """Whether it calls that method of an object of this class: through its cache, which waits for this very job."""
        return isinstance(getattr(self.function, "__self__", None), kind) and self.function.__name__ == name

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint of the function, to be called with what the function is called with."""
        for name in _NAMES:
            known = getattr(self.function, name, None)
            if callable(known):
                return functools.partial(known, *self.args, **self.kwargs)
        return None


def checkpoint_of_object(obj: tp.Any) -> Checkpoint | None:
    """The ``checkpoint`` of an object whose method computes: one that its class defines, and that takes nothing.

    A field can be called so too.
    """
    if not callable(getattr(type(obj), "checkpoint", None)):
        return None
    found: Checkpoint = obj.checkpoint
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):
        return None
    return found


def call_checkpoint(checkpoint: Checkpoint | None, launch: Path, position: int) -> CheckpointAnswer:
    """Calls a task's checkpoint and keeps what it wants to be called next time."""
    if checkpoint is None:
        return CheckpointAnswer.NOTHING
    try:
        again = checkpoint()
        if again is None:
            return CheckpointAnswer.REFUSED
        _store_call(again, launch, position)
        return CheckpointAnswer.AGAIN
    except Exception:  # noqa: BLE001  the user's code, and whatever it returns
        write_to_log(f"checkpoint failed, and the task will start again as if it had none:\n{traceback.format_exc()}")
        return CheckpointAnswer.NOTHING


def read_resumed_call(launch: Path, position: int) -> CheckpointCall | None:
    """What an earlier start of the task wants to be called instead of its function, None if there is no such thing."""
    path = paths.resumed_call(launch, position)
    try:
        return CheckpointCall(*payloads.unpickle(files.read_trusted(path, ())))
    except FileNotFoundError:
        return None


def write_to_log(message: str) -> None:
    """Tells whoever reads the task's log; not through a buffer, which the signal may have interrupted."""
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"exca: {message}\n".encode(errors="replace"))


def _store_call(again: tp.Any, launch: Path, position: int) -> None:
    path = paths.resumed_call(launch, position)
    if not all(hasattr(again, name) for name in ("function", "args", "kwargs")):
        path.unlink(missing_ok=True)
        return
    call = (again.function, tuple(again.args), dict(again.kwargs))
    files.write_file(path, payloads.pickle_named(call, "what checkpoint returned"), mode=files.PRIVATE)
