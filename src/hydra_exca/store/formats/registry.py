"""Formats of values: which there are, which one a value gets, and how it is written and read.

A format is known by its name, which is also the suffix of its files. See docs/formats.md.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import pickle
import re
import typing as tp

from hydra_exca import script
from hydra_exca.errors import CacheError, ConfigError
from hydra_exca.store import pickles

from . import builtin, frames

log = logging.getLogger("exca.store")
Dump = tp.Callable[[tp.Any], bytes]
Load = tp.Callable[[bytes], tp.Any]
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")


@dataclasses.dataclass(frozen=True)
class Format:
    """One way to write values. ``fits`` tells values that come back exactly, ``dump`` may still refuse one.

    ``kind`` is that of a registered format; loading runs code as a pickle does if ``runs_code``.
    """

    name: str
    fits: tp.Callable[[tp.Any], bool]
    dump: Dump
    load: Load
    runs_code: bool = False
    kind: type = object


ARRAY = Format("array", builtin.is_array, builtin.dump_npy, builtin.load_npy)
TEXT = Format("txt", builtin.is_text, str.encode, bytes.decode)
JSON = Format("json", builtin.is_json, builtin.dump_json, json.loads)
_PICKLE = Format(
    "pickle", lambda value: True, lambda value: pickles.pickle_value(value, "it"), pickle.loads, runs_code=True
)
_BUILTIN = (
    ARRAY,
    Format("torch", builtin.is_tensor, builtin.dump_tensor, builtin.load_tensor),
    Format("parquet", frames.is_frame, frames.dump_frame, frames.load_frame),
    TEXT,
    JSON,
    _PICKLE,
)
_ALIASES = {
    "npy": "array",
    "NumpyArray": "array",
    "MemmapArray": "array",
    "MemmapArrayFile": "array",
    "TorchTensor": "torch",
    "PandasDataFrame": "parquet",
    "ParquetPandasDataFrame": "parquet",
    "String": "txt",
    "Json": "json",
    "Pickle": "pickle",
}
_AUTO = ("Auto", None)
_RESERVED = {name.lower() for name in (*_ALIASES, *(each.name for each in _BUILTIN), "Auto", "index", "tmp")}
_registered: list[Format] = []  # the last one first; one name several times if its module was loaded again


def register_format(name: str, kind: type, dump: Dump, load: Load, *, runs_code: bool = False) -> None:
    """Stores instances of ``kind`` as the bytes that ``dump`` makes of them; ``load`` must give the same back.

    ``name`` is the suffix of the files. Of several formats that take a value the last registered is used, before
    the built-in ones. Say ``runs_code=True`` if ``load`` runs code that is in the bytes, as pickle does: only
    what trusted users wrote is loaded then.
    """
    if not isinstance(kind, type) or not callable(dump) or not callable(load):
        raise ConfigError(f"format {name!r} needs a class, a function that gives bytes, and one that reads them")
    if not _NAME.fullmatch(name) or name.lower() in _RESERVED:
        why = "is taken" if name.lower() in _RESERVED else "names files: a letter, then letters, digits and _ only"
        raise ConfigError(f"a format cannot be registered as {name!r}: the name {why}. Choose another one")
    new = Format(name, lambda value: isinstance(value, kind), dump, load, runs_code, kind)
    for known in _registered:
        if known.name == name and not _is_reregistered(known, new):
            raise ConfigError(
                f"format {name!r} is registered already, for {type_name(known.kind)} and with other functions: "
                "what they wrote could be read wrongly. Choose another name"
            )
    _registered.insert(0, new)


def format_named(name: str | None) -> str | None:
    """The name of the format that is meant by ``name``; None for the one that a value's type gets."""
    if name in _AUTO:
        return None
    found = _ALIASES.get(str(name), str(name))
    if not _formats_named(found):
        names = ", ".join(sorted({each.name for each in (*_registered, *_BUILTIN)}))
        raise ConfigError(
            f"there is no format {name!r}. There are {names}; Auto or None chooses by a value's type, and "
            "register_format adds one"
        )
    return found


def format_for(name: str, where: str) -> Format:
    """The format in which something is stored; CacheError names ``where`` if this process does not have it."""
    found = _formats_named(_ALIASES.get(name, name))
    if not found:
        raise CacheError(
            f"{where} is in the format {name!r}, which is not registered in this process: import the module that "
            f"calls register_format({name!r}, ...) first"
        )
    return found[0]


def encode_value(value: tp.Any, what: str, forced: str | None = None, array: Dump = ARRAY.dump) -> tuple[Format, bytes]:
    """The format of ``value`` and its bytes; arrays are written by ``array``.

    ``forced`` is the name of the only format that will do. Raises ConfigError, with ``what`` in it, when the value
    would not come back exactly.
    """
    for known in _candidates(value, what, forced):
        if known is _PICKLE:
            return known, pickles.pickle_value(value, what)
        try:
            return known, _dump(known, value, array)
        except Exception as error:
            if forced is None and known in _BUILTIN:  # it looked like one that comes back
                continue
            raise ConfigError(
                f"{what}, a {type_name(type(value))}, cannot be stored in the format {known.name!r}: "
                f"{type(error).__name__}: {error}"
            ) from error
    raise AssertionError("pickle takes everything")


def decode_value(format: Format, data: bytes, where: str) -> tp.Any:
    """The value that ``data`` holds; CacheError names ``where`` if the code of today cannot load it."""
    try:
        return format.load(data)
    except Exception as error:
        raise CacheError(
            f"{where} is intact, but the code of today cannot load it: {type(error).__name__}: {error}. "
            "Bring back what it names, or compute it anew with mode=force"
        ) from error


def type_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _candidates(value: tp.Any, what: str, forced: str | None) -> tp.Iterator[Format]:
    """Formats to try one after the other; what a built-in one refuses, pickle takes."""
    if forced is None:
        yield from (known for known in (*_registered, *_BUILTIN) if _fits(known, value, what))
        return
    fitting = [known for known in _formats_named(forced) if _fits(known, value, what)]
    if not fitting:
        raise ConfigError(
            f"{what} is of type {type_name(type(value))}, and would not come back from the format {forced!r} exactly "
            "as it is. Choose another format, or none: then its type decides"
        )
    yield fitting[0]


def _fits(known: Format, value: tp.Any, what: str) -> bool:
    """Whether a format takes a value; one whose test raises does not, so that no computed result is lost to it."""
    try:
        return known.fits(value)
    except Exception as error:  # noqa: BLE001  libraries change what their values can be asked
        reason = f"{type(error).__name__}: {error}"
        log.warning("exca: the format %r is not used for %s: testing the value raised %s", known.name, what, reason)
        return False


def _dump(known: Format, value: tp.Any, array: Dump) -> bytes:
    data = array(value) if known is ARRAY else known.dump(value)
    if not isinstance(data, bytes):
        raise TypeError(f"its function for writing returned {type_name(type(data))}, not bytes")
    return data


def _formats_named(name: str) -> list[Format]:
    return [known for known in (*_registered, *_BUILTIN) if known.name == name]


def _is_reregistered(one: Format, other: Format) -> bool:
    """Whether a module that is loaded again (as the script, or in a notebook) registers what it did before."""
    pairs = ((one.kind, other.kind), (one.dump, other.dump), (one.load, other.load))
    return one.runs_code == other.runs_code and all(_is_same_function(*pair) for pair in pairs)


def _is_same_function(one: tp.Any, other: tp.Any) -> bool:
    if inspect.ismethod(one) and inspect.ismethod(other):
        return _is_same_function(one.__func__, other.__func__) and _is_same_function(one.__self__, other.__self__)
    if not (inspect.isfunction(one) and inspect.isfunction(other)) and not (
        isinstance(one, type) and isinstance(other, type)
    ):
        return bool(one == other)
    same_name = script.module_name(one) == script.module_name(other) and one.__qualname__ == other.__qualname__
    # of functions without a name of their own there may be several
    return same_name and ("<" not in one.__qualname__ or _code(one) == _code(other))


def _code(obj: tp.Any) -> tp.Any:
    return getattr(obj, "__code__", None)
