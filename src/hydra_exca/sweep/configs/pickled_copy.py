"""Copies of an object within this process, in a fraction of the memory and time that ``copy.deepcopy`` takes."""

from __future__ import annotations

import contextvars
import copy
import io
import pickle
import sys
import types
import typing as tp


class PickledCopy:
    """An object as bytes. Its copies have the same classes and functions, even if these cannot be imported by name.

    Hydra executes the modules of its plugins once more when it looks for plugins. Instances of the classes of before do
    not pickle by name. An object that does not pickle at all is kept as it is.
    """

    def __init__(self, value: tp.Any) -> None:
        buffer = io.BytesIO()
        pickler = _CopyPickler(buffer)
        self._kept = pickler.kept
        self._pickled: bytes | None
        try:
            pickler.dump(value)
        except Exception:  # noqa: BLE001 - whatever the user's objects raise
            self._pickled, self._value = None, value
            return
        self._pickled = buffer.getvalue()

    def copy(self) -> tp.Any:
        """A copy of the object, which the caller may change."""
        if self._pickled is None:
            return copy.deepcopy(self._value)
        before = _loading.set(self._kept)
        try:
            return pickle.loads(self._pickled)
        finally:
            _loading.reset(before)


_loading: contextvars.ContextVar[list[tp.Any]] = contextvars.ContextVar("what is kept of the pickle that is loaded")


class _CopyPickler(pickle.Pickler):
    """Keeps classes and functions that do not pickle by name.

    ``persistent_id`` would do that, too, but is asked about everything, each time: that takes longer than the rest.
    """

    def __init__(self, file: tp.BinaryIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.kept: list[tp.Any] = []

    def reducer_override(self, part: tp.Any) -> tp.Any:
        if isinstance(part, (type, types.FunctionType)) and _named_object(part) is not part:
            self.kept.append(part)
            return _recall, (len(self.kept) - 1,)
        return NotImplemented


def _recall(number: int) -> tp.Any:
    return _loading.get()[number]


def _named_object(part: tp.Any) -> tp.Any:
    """The object that a pickle would import by the name of a class or function, None if there is none."""
    place: tp.Any = sys.modules.get(part.__module__)
    for name in part.__qualname__.split("."):
        place = getattr(place, name, None)
    return place
