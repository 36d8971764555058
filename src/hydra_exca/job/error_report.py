"""Descriptions of errors, as they are stored."""

from __future__ import annotations

import traceback
import types
import typing as tp

from hydra_exca.code import active
from hydra_exca.errors import ConfigError
from hydra_exca.store.formats.builtin import is_json

_PLUMBING = {"hydra_exca", "hydra", "hydra_plugins", "runpy"}


class RankError(Exception):
    """An error of another rank; ``description`` is what `describe_error` returned there."""

    def __init__(self, description: dict[str, tp.Any]) -> None:
        super().__init__(description["message"])
        self.description = description


def describe_error(error: BaseException) -> dict[str, tp.Any]:
    """The type, message and traceback of an error as text, without the frames above the task's own code."""
    kind = type(error)
    if isinstance(error, ConfigError):
        return {"kind": "raised", "type": kind.__name__, "message": str(error), "traceback": ""}
    frames = error.__traceback__
    while frames is not None and _is_plumbing(frames):
        frames = frames.tb_next
    message = text_of(error) + active.missing_in_copy(error)
    text = "".join(traceback.format_exception(type(error), error, frames or error.__traceback__))
    module = "" if kind.__module__ in ("builtins", "__main__", "__mp_main__") else f"{kind.__module__}."
    return {
        "kind": "raised",
        "type": f"{module}{kind.__qualname__}",
        "message": message,
        "traceback": text,
        "content": _content(error),
    }


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


def _is_plumbing(frame: types.TracebackType) -> bool:
    return str(frame.tb_frame.f_globals.get("__name__", "")).partition(".")[0] in _PLUMBING
