"""The objects that a model is made of: as long as they are the same ones, its identity is the same."""

from __future__ import annotations

import itertools
import typing as tp

from . import model_schema, pydantic_types
from .model_schema import UnfitError
from .scalars import SCALARS, UnusualError

if tp.TYPE_CHECKING:
    import pydantic

_END: tp.Any = object()


def model_contents(model: pydantic.BaseModel, leave_out: tp.Sequence[str] = ()) -> list[tp.Any] | None:
    """The immutable objects that the fields of a model are made of, and marks for how they are nested.

    None where they do not settle the identity: for a value that is neither plain data nor a model (it can change
    without being replaced), and where a function makes a default, which may be another one each time.
    """
    contents: list[tp.Any] = []
    try:
        _append_contents(model, contents, leave_out)
    except (KeyError, RecursionError, UnfitError, UnusualError):
        return None
    return contents


def _append_contents(value: tp.Any, contents: list[tp.Any], leave_out: tp.Sequence[str] = ()) -> None:
    kind: tp.Any = type(value)
    contents.append(kind)
    if kind is list or kind is tuple:
        parts: tp.Iterable[tp.Any] = value
    elif kind is dict:
        parts = itertools.chain.from_iterable(value.items())
    else:
        names = _fixed_names(kind)
        if names is None:
            raise UnusualError
        kept = [name for name in names if name not in leave_out] if leave_out else names
        parts = map(value.__dict__.__getitem__, kept)
    for part in parts:
        if type(part) in SCALARS:
            contents.append(part)
        else:
            _append_contents(part, contents)
    contents.append(_END)


@model_schema.cached_per_class
def _fixed_names(cls: type) -> tuple[str, ...] | None:
    """The fields of a model class that count, where nothing else does; None for any other class."""
    if not pydantic_types.is_model_class(cls):
        return None
    schema = model_schema.record_schema(cls)
    if schema.allows_extra or schema.fixed_fields is None:
        return None
    factories = [default.factory for _, _, default, _ in schema.fixed_fields[0] if default.factory is not None]
    return tuple(name for name, *_ in schema.fixed_fields[0]) if all(isinstance(f, type) for f in factories) else None
