"""Copies of an object within this process: in a fraction of the memory and time that ``copy.deepcopy`` takes."""

from __future__ import annotations

import contextvars
import copy
import functools
import io
import pickle
import sys
import types
import typing as tp

from omegaconf import ValueNode


class PickledCopy:
    """An object as bytes. Its copies have the same classes and functions, also where no name leads to these.

    Hydra executes its plugins' modules once more when it looks for plugins: what was made of their classes before that
    does not pickle by name. What does not pickle at all is kept as it is.

    ``shared``: objects that stand in a config are in its copies, too, as in those that OmegaConf makes.
    """

    def __init__(self, value: tp.Any, *, shared: bool = False) -> None:
        buffer = io.BytesIO()
        pickler = _CopyPickler(buffer, shared)
        self._kept = pickler.kept
        self._pickled: bytes | None
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
        before = _loading.set(self._kept)
        try:
            return pickle.loads(self._pickled)
        finally:
            _loading.reset(before)


_loading: contextvars.ContextVar[list[tp.Any]] = contextvars.ContextVar("what is kept of the pickle that is loaded")
PLAIN = {type(None), bool, int, float, str, bytes}


class _CopyPickler(pickle.Pickler):
    """Keeps what is not to be pickled.

    ``persistent_id`` would do that, too, but is asked about everything, each time: that takes longer than the rest.
    """

    def __init__(self, file: tp.BinaryIO, shared: bool) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.kept: list[tp.Any] = []
        self._shared = shared

    def reducer_override(self, part: tp.Any) -> tp.Any:
        kind: tp.Any = type(part)
        if _is_leaf(kind):
            if self._shared and type(part.__dict__["_val"]) not in PLAIN:
                state = part.__dict__.copy()
                return _node, (kind, self._keep(state.pop("_val"))), state
        elif isinstance(part, (type, types.FunctionType)) and _named(part) is not part:
            return _recall, (self._keep(part),)
        return NotImplemented

    def _keep(self, part: tp.Any) -> int:
        self.kept.append(part)
        return len(self.kept) - 1


@functools.cache
def _is_leaf(kind: type) -> bool:
    return issubclass(kind, ValueNode)


def _recall(number: int) -> tp.Any:
    return _loading.get()[number]


def _node(kind: type[ValueNode], number: int) -> ValueNode:
    node = kind.__new__(kind)
    node.__dict__["_val"] = _recall(number)
    return node


def _named(part: tp.Any) -> tp.Any:
    found: tp.Any = sys.modules.get(part.__module__)
    for name in part.__qualname__.split("."):
        found = getattr(found, name, None)
    return found
