"""Scalars of numpy and torch in values that JSON can hold otherwise: written as plain ones, read back as they were."""

from __future__ import annotations

import importlib
import sys
import typing as tp

from .builtin import is_json, is_tensor

# for each library, the dtypes whose values JSON's numbers, bools and text hold exactly
_INTEGERS = {"int8", "int16", "int32", "int64", "uint8"}
_FLOATS = {"float16", "float32", "float64"}
_NUMPY = {"bool", "str", "uint16", "uint32", "uint64", *_INTEGERS, *_FLOATS}
_TORCH = {"bool", "bfloat16", *_INTEGERS, *_FLOATS}
_GRAD = " requires_grad"
Types = dict[str, str]


def split_types(value: tp.Any) -> tuple[tp.Any, Types] | None:
    """A value as JSON can hold it, and the types of its scalars by their place; None if it has something else.

    Places are JSON pointers (RFC 6901).

    >>> import numpy
    >>> split_types({"acc": numpy.float32(0.5), "steps": [numpy.int64(3), 4]})
    ({'acc': 0.5, 'steps': [3, 4]}, {'/acc': 'numpy.float32', '/steps/0': 'numpy.int64'})
    """
    types: Types = {}
    try:
        plain = _map_leaves(value, "", lambda leaf, place: _to_plain(leaf, place, types))
    except RecursionError:  # it contains itself
        return None
    return (plain, types) if is_json(plain) else None


def join_types(plain: tp.Any, types: Types) -> tp.Any:
    """The value that was split. Raises ImportError, or what the library raises for a value that it cannot hold."""
    return _map_leaves(plain, "", lambda leaf, place: _from_plain(leaf, types[place]) if place in types else leaf)


def _map_leaves(value: tp.Any, place: str, change: tp.Callable[[tp.Any, str], tp.Any]) -> tp.Any:
    if type(value) is list:
        return [_map_leaves(child, f"{place}/{index}", change) for index, child in enumerate(value)]
    if type(value) is dict:
        return {key: _map_leaves(child, f"{place}/{_token(key)}", change) for key, child in value.items()}
    return change(value, place)


def _token(key: tp.Any) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


def _to_plain(leaf: tp.Any, place: str, types: Types) -> tp.Any:
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and isinstance(leaf, numpy.generic):
        name = "str" if leaf.dtype.kind == "U" else str(leaf.dtype)
        if name in _NUMPY and type(leaf) is numpy.dtype(name).type:  # longlong has the name of int64
            types[place] = f"numpy.{name}"
            return leaf.item()
    elif torch is not None and is_tensor(leaf) and leaf.ndim == 0 and str(leaf.dtype).removeprefix("torch.") in _TORCH:
        types[place] = f"{leaf.dtype}{_GRAD if leaf.requires_grad else ''}"
        return leaf.item()
    return leaf


def _from_plain(leaf: tp.Any, kind: str) -> tp.Any:
    library, _, name = kind.removesuffix(_GRAD).partition(".")
    if name not in {"numpy": _NUMPY, "torch": _TORCH}.get(library, ()):
        raise ValueError(f"unknown type {kind!r}")
    module: tp.Any = importlib.import_module(library)
    if library == "numpy":
        return module.dtype(name).type(leaf)
    return module.tensor(leaf, dtype=getattr(module, name), requires_grad=kind.endswith(_GRAD))
