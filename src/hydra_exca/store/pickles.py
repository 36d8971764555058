"""Pickles of values, with the script's classes and functions by name, and errors that name what cannot be pickled.

Loading one runs code: see `files.check_trusted`. Stored pickles name `_code`, `_load_storage`, `_tensor_in_storage`
and `script.attribute` by their modules: moving or renaming any of them makes these pickles unreadable.
"""

from __future__ import annotations

import importlib
import inspect
import io
import re
import sys
import types
import typing as tp

import cloudpickle

from hydra_exca import script
from hydra_exca.errors import ConfigError

from .formats.builtin import is_dense_tensor


def pickle_value(value: tp.Any, what: str, *, into_main: bool = False) -> bytes:
    """Pickles ``value``; classes and functions of the user's script by name, so that the next run's are equal.

    With ``into_main``, those that only travel by value are in ``__main__`` again where the pickle is loaded, as in the
    process that defined them. Raises ConfigError that names ``what`` and the part that cannot be pickled.
    """
    buffer = io.BytesIO()
    try:
        (_MainPickler if into_main else _ValuePickler)(buffer, protocol=5).dump(value)
    except ConfigError:  # of an object that says itself what cannot be pickled
        raise
    except Exception as error:
        raise ConfigError(f"{what} cannot be pickled: {_describe_culprit(value, error)}") from error
    return buffer.getvalue()


class _ValuePickler(cloudpickle.Pickler):  # type: ignore[misc,unused-ignore]
    """Pickles what the script defines by name. cloudpickle alone would copy it."""

    def reducer_override(self, obj: tp.Any) -> tp.Any:
        reference = self._reference(obj) if isinstance(obj, (type, types.FunctionType)) else None
        if reference is not None:
            return script.attribute, reference
        if isinstance(obj, types.CodeType):
            return _code, (*self.dispatch_table[types.CodeType](obj)[:2], obj.co_filename)
        torch: tp.Any = sys.modules.get("torch")
        if type(obj) is getattr(torch, "UntypedStorage", None):
            return _load_storage, (_dump_storage(obj),)
        if type(obj) is getattr(torch, "Tensor", None) and _SUB_BYTE.fullmatch(str(obj.dtype)):
            return _view_as, (obj.view(torch.uint8), str(obj.dtype).partition(".")[2])
        if is_dense_tensor(obj) and not (obj.is_conj() or obj.is_neg()):
            place = obj.storage_offset(), tuple(obj.shape), obj.stride()
            return _tensor_in_storage, (obj.untyped_storage(), obj.dtype, *place, obj.requires_grad)
        return super().reducer_override(obj)

    def _reference(self, obj: type | types.FunctionType) -> tuple[str, str, int] | None:
        return script.attribute_reference(obj)


class _MainNames(dict[str, tp.Any]):
    """Stands for the names of ``__main__`` in a pickle."""


class _MainPickler(_ValuePickler):
    """Pickles by value what the script defines and no job can load, for the ``__main__`` of a job.

    Its functions share their globals there, and whatever refers to them by name (pickle, joblib) finds them.
    """

    def __init__(self, file: tp.BinaryIO, protocol: int) -> None:
        super().__init__(file, protocol=protocol)
        self._names = script.main_names()
        self.globals_ref[id(self._names)] = _MainNames(__name__="__main__")

    def reducer_override(self, obj: tp.Any) -> tp.Any:
        if type(obj) is _MainNames:
            return script.main_names, ()
        reduced = super().reducer_override(obj)
        if isinstance(reduced, tuple) and len(reduced) == 6 and self._names.get(obj.__qualname__) is obj:
            make, arguments, state, _, _, restore = reduced
            return make, arguments, (restore, state), None, None, _restore_in_main
        return reduced

    def _reference(self, obj: type | types.FunctionType) -> tuple[str, str, int] | None:
        return None if script.is_below_guard(obj) else super()._reference(obj)


def _restore_in_main(obj: tp.Any, state: tuple[tp.Callable[..., None], tp.Any]) -> None:
    restore, own = state
    script.main_names()[obj.__qualname__] = obj
    restore(obj, own)


def _code(make: tp.Callable[..., types.CodeType], arguments: tuple[tp.Any, ...], filename: str) -> types.CodeType:
    """Code with the name of its file, which tracebacks need to show its lines; cloudpickle 3.1.3 leaves it out."""
    return make(*arguments).replace(co_filename=filename)


def _dump_storage(storage: tp.Any) -> bytes:
    """The memory of tensors. Torch's own pickles cannot read that of float8 and uint16, which they write (2.13)."""
    torch: tp.Any = sys.modules["torch"]
    buffer = io.BytesIO()
    torch.save(torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage), buffer)
    return buffer.getvalue()


def _load_storage(data: bytes) -> tp.Any:
    loaded = importlib.import_module("torch").load(io.BytesIO(data), weights_only=True)
    return loaded.untyped_storage() if hasattr(loaded, "untyped_storage") else loaded  # else of an earlier version


def _tensor_in_storage(storage: tp.Any, dtype: tp.Any, *place: tp.Any) -> tp.Any:
    """A tensor that shares its memory with others of the pickle, as tied weights do. Torch's own pickles copy it."""
    *where, requires_grad = place
    empty = importlib.import_module("torch").empty(0, dtype=dtype, device=storage.device)
    return empty.set_(storage, *where).requires_grad_(requires_grad)


_SUB_BYTE = re.compile(r"torch\.u?int[1-7]")  # torch 2.13 pickles none of them


def _view_as(data: tp.Any, dtype: str) -> tp.Any:
    return data.view(getattr(importlib.import_module("torch"), dtype))


def _describe_culprit(value: tp.Any, error: Exception) -> str:
    """Names the part of ``value`` that cannot be pickled, as deep inside it as possible."""
    path, part = _deepest_unpicklable(value, (), 0)
    where = f"its {path} is" if path else "it is"
    return f"{where} of type {type(part).__module__}.{type(part).__qualname__} ({type(error).__name__}: {error})"


def _deepest_unpicklable(value: tp.Any, trail: tuple[str, ...], depth: int) -> tuple[str, tp.Any]:
    for name, part in _parts(value) if depth < 8 else ():
        if not _can_pickle(part):
            return _deepest_unpicklable(part, (*trail, name), depth + 1)
    return " -> ".join(trail), value


def _parts(value: tp.Any) -> tp.Iterator[tuple[str, tp.Any]]:
    for label, parts in _groups_of_parts(value):
        yield from ((label.format(name), part) for name, part in parts)


def _groups_of_parts(value: tp.Any) -> list[tuple[str, tp.Iterable[tuple[tp.Any, tp.Any]]]]:
    if isinstance(value, dict):
        return [("[{!r}]", value.items())]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [("[{}]", enumerate(value))]
    if isinstance(value, types.FunctionType):
        used = inspect.getclosurevars(value)
        return [("captured variable {!r}", used.nonlocals.items()), ("global {!r}", used.globals.items())]
    if hasattr(value, "__dict__") and not isinstance(value, (type, types.ModuleType)):
        return [("attribute {!r}", vars(value).items())]
    return []


def _can_pickle(value: tp.Any) -> bool:
    try:
        _ValuePickler(io.BytesIO(), protocol=5).dump(value)
    except Exception:  # noqa: BLE001  see `pickle_value`
        return False
    return True
