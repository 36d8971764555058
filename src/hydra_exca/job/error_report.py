"""Descriptions of errors, as they are stored."""

from __future__ import annotations

import traceback
import types
import typing as tp

from hydra_exca.code import active
from hydra_exca.errors import ConfigError, ExcaError, TaskFailedError
from hydra_exca.store.formats.builtin import is_json

_PLUMBING = {"hydra_exca", "hydra", "hydra_plugins", "runpy"}
_HEADER = "Traceback (most recent call last):\n"


class RankError(Exception):
    """An error of another rank; ``description`` is what `describe_error` returned there."""

    def __init__(self, description: dict[str, tp.Any]) -> None:
        super().__init__(description["message"])
        self.description = description


def describe_error(error: BaseException) -> dict[str, tp.Any]:
    """The type, message, notes and traceback of an error as text, without the frames above the task's own code.

    An error of another task that this one has asked for is that error, with the frames of both.
    """
    kind = type(error)
    if isinstance(error, ConfigError):
        return {"kind": "raised", "type": kind.__name__, "message": str(error), "traceback": ""}
    own_notes = [str(note) for note in getattr(error, "__notes__", ())]
    if isinstance(error, TaskFailedError) and error.traceback:
        text = "".join([_join_tracebacks(error, error.traceback), *(f"{note}\n" for note in own_notes)])
        notes = [*error.notes, *own_notes]
        return {"kind": "raised", "type": error.type, "message": error.text, "notes": notes, "traceback": text}
    module = "" if kind.__module__ in ("builtins", "__main__", "__mp_main__") else f"{kind.__module__}."
    return {
        "kind": "raised",
        "type": f"{module}{kind.__qualname__}",
        "message": text_of(error) + active.missing_in_copy(error),
        "notes": own_notes,
        "traceback": _format_error(error),
        "content": _content(error),
    }


def _format_error(error: BaseException) -> str:
    """The traceback of an error and of those that it came from, each without our frames where they tell nothing."""
    formatted = shown = traceback.TracebackException.from_exception(error)
    while True:
        shown.stack = traceback.StackSummary.from_list(_shown_frames(error, shown.stack))
        is_told = isinstance(error, TaskFailedError)  # its message has the errors that it came from
        before = None if is_told else error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if is_told:
            shown.__cause__ = shown.__context__ = None
        following = shown.__cause__ or shown.__context__
        if before is None or following is None:
            return "".join(formatted.format())
        error, shown = before, following


def _shown_frames(error: BaseException, stack: traceback.StackSummary) -> list[traceback.FrameSummary]:
    """The frames of an error from the first of the user's on; of one that we raise on purpose, only the user's."""
    is_ours = [_is_plumbing(frame) for frame, _ in traceback.walk_tb(error.__traceback__)]
    if all(is_ours):
        return list(stack)
    first = is_ours.index(False)
    return [
        frame
        for number, (frame, ours) in enumerate(zip(stack, is_ours, strict=False))
        if number >= first and not (ours and isinstance(error, ExcaError))
    ]


def _join_tracebacks(error: BaseException, inner: str) -> str:
    """The traceback of another task, as text, below the frames of this one from which ``error`` came."""
    own = "".join(traceback.format_list(_shown_frames(error, traceback.extract_tb(error.__traceback__))))
    before, header, frames = inner.rpartition(_HEADER)
    return f"{before}{header}{own}{frames}"


def text_of(error: BaseException) -> str:
    """The message of an error."""
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001  the task's own class makes it
        return f"its text is not available: {type(second).__name__}"


def is_made_by_python(kind: type) -> bool:
    """Whether no code of the class itself runs when one of its objects is taken apart and made again."""
    names = ("__new__", "__reduce__", "__setstate__", "__getattribute__", "__setattr__")
    return not any(isinstance(getattr(kind, name, None), types.FunctionType) for name in names)


def _content(error: BaseException) -> dict[str, tp.Any] | None:
    """What makes the error once more, None if JSON does not keep all of it or its class has a way of its own.

    A pickle would do for all, but reading one runs code, and others may be allowed to write what this is stored in.
    """
    kind = type(error)
    if not is_made_by_python(kind):
        return None
    reduced: tuple[tp.Any, ...] = tuple(error.__reduce__())  # class, arguments, and attributes if there are any
    content = {
        "module": kind.__module__,
        "class": kind.__qualname__,
        "args": [*reduced[1]],
        "state": dict(*reduced[2:]),
    }
    return content if is_json(content) else None


def _is_plumbing(frame: types.FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in _PLUMBING
