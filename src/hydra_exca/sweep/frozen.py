"""Copies of an object within this process: in a fraction of the memory and time that ``copy.deepcopy`` takes."""

from __future__ import annotations

import copy
import io
import pickle
import sys
import types
import typing as tp


class Frozen:
    """An object as bytes. Its copies have the same classes and functions, also where no name leads to these.

    Hydra executes its plugins' modules once more when it looks for plugins: what was made of their classes before that
    does not pickle by name. What does not pickle at all is kept as it is.
    """

    def __init__(self, value: tp.Any) -> None:
        self._kept: list[tp.Any] = []
        self._pickled: bytes | None
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL)
        pickler.persistent_id = self._keep  # type: ignore[method-assign]
        try:
            pickler.dump(value)
        except Exception:  # noqa: BLE001 - whatever the user's objects raise
            self._pickled, self._value = None, value
            return
        self._pickled = buffer.getvalue()

    def copy(self) -> tp.Any:
        """The object as it was, as its taker's own."""
        if self._pickled is None:
            return copy.deepcopy(self._value)
        unpickler = pickle.Unpickler(io.BytesIO(self._pickled))
        unpickler.persistent_load = self._kept.__getitem__  # type: ignore[method-assign]
        return unpickler.load()

    def _keep(self, part: tp.Any) -> int | None:
        """The place of a class or function that is not what its name leads to, None for all else."""
        if not isinstance(part, (type, types.FunctionType)) or _named(part) is part:
            return None
        self._kept.append(part)
        return len(self._kept) - 1


def _named(part: tp.Any) -> tp.Any:
    found: tp.Any = sys.modules.get(part.__module__)
    for name in part.__qualname__.split("."):
        found = getattr(found, name, None)
    return found
