"""The formats of values: chooses one for a value, encodes and decodes it.

A format is known by its name, which is also the suffix of its files. See docs/formats.md.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import re
import types
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
    """One way to write values. ``fits`` is true for values that come back exactly; ``dump`` may still refuse them.

    ``kind`` is the class that a format was registered for. ``runs_code`` says that loading runs code, as a pickle does.
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
_RESERVED = {
    name.lower() for name in (*_ALIASES, *(builtin_format.name for builtin_format in _BUILTIN), "Auto", "index", "tmp")
}
_registered: list[Format] = []  # the last one comes first; a name is there twice if its module was loaded twice


def register_format(name: str, kind: type, dump: Dump, load: Load, *, runs_code: bool = False) -> None:
    """Stores instances of ``kind`` as the bytes that ``dump`` returns; ``load`` must return an equal object.

    ``name`` is the suffix of the files. If several formats take a value, the one registered last is used, and all of
    them come before the built-in ones. Pass ``runs_code=True`` if ``load`` runs code from the bytes, as pickle does:
    then only files of trusted users are loaded. Raises ConfigError if the name is invalid or taken.
    """
    if not isinstance(kind, type) or not callable(dump) or not callable(load):
        raise ConfigError(f"format {name!r} needs a class, a function that gives bytes, and one that reads them")
    if not _NAME.fullmatch(name) or name.lower() in _RESERVED:
        why = "is taken" if name.lower() in _RESERVED else "names files, so use a letter, then letters, digits and _"
        raise ConfigError(f"invalid name {name!r} of a format: it {why}. Choose another name")
    new = Format(name, lambda value: isinstance(value, kind), dump, load, runs_code, kind)
    for candidate in _registered:
        if candidate.name == name and _source(candidate) != _source(new):
            raise ConfigError(
                f"format {name!r} is registered already, for {type_name(candidate.kind)} and with other functions: "
                "stored values could be read wrongly. Choose another name"
            )
    _registered.insert(0, new)


def format_named(name: str | None) -> str | None:
    """The full name of the format called ``name``; None if a value's type decides. Raises ConfigError."""
    if name in _AUTO:
        return None
    full_name = _ALIASES.get(str(name), str(name))
    if not _formats_named(full_name):
        names = ", ".join(sorted({candidate.name for candidate in (*_registered, *_BUILTIN)}))
        raise ConfigError(
            f"unknown format {name!r}: choose {names}, or Auto or None, which go by the type of a value. "
            "register_format adds a format"
        )
    return full_name


def format_for(name: str, where: str) -> Format:
    """The format by its stored name. Raises CacheError, with ``where`` in it, if this process does not know it."""
    formats = _formats_named(_ALIASES.get(name, name))
    if not formats:
        raise CacheError(
            f"{where} is in the format {name!r}, which is not registered in this process: import the module that "
            f"calls register_format({name!r}, ...) first"
        )
    return formats[0]


def encode_value(value: tp.Any, what: str, forced: str | None = None, array: Dump = ARRAY.dump) -> tuple[Format, bytes]:
    """Chooses the format of ``value`` and returns it with the encoded bytes; ``array`` encodes arrays.

    ``forced`` names the only format to use. Raises ConfigError, with ``what`` in it, if the value would not come back
    exactly.
    """
    for candidate in _candidates(value, what, forced):
        if candidate is _PICKLE:
            return candidate, pickles.pickle_value(value, what)
        try:
            return candidate, _dump(candidate, value, array)
        except Exception as error:
            if (
                forced is None and candidate in _BUILTIN
            ):  # although the value seemed to fit, it would not come back exactly
                continue
            raise ConfigError(
                f"{what}, a {type_name(type(value))}, cannot be stored in the format {candidate.name!r}: "
                f"{type(error).__name__}: {error}"
            ) from error
    raise AssertionError("pickle fits every value")


def decode_value(load: tp.Callable[[tp.Any], tp.Any], data: tp.Any, where: str) -> tp.Any:
    """Loads a value from its stored form. Raises CacheError, with ``where`` in it, if today's code cannot load it."""
    try:
        return load(data)
    except Exception as error:
        raise CacheError(
            f"{where} is intact, but today's code cannot load it: {type(error).__name__}: {error}. "
            "Restore what is missing, or compute the value again with mode=force"
        ) from error


def type_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _candidates(value: tp.Any, what: str, forced: str | None) -> tp.Iterator[Format]:
    """The formats to try, in order. Pickle takes what a built-in one refuses."""
    if forced is None:
        yield from (candidate for candidate in (*_registered, *_BUILTIN) if _fits(candidate, value, what))
        return
    fitting = [candidate for candidate in _formats_named(forced) if _fits(candidate, value, what)]
    if not fitting:
        raise ConfigError(
            f"{what} is of type {type_name(type(value))} and would not come back exactly from the format {forced!r}. "
            "Choose another format, or none: then the type decides"
        )
    yield fitting[0]


def _fits(candidate: Format, value: tp.Any, what: str) -> bool:
    """Whether a format takes a value; one whose test raises does not, so that no computed result is lost to it."""
    try:
        return candidate.fits(value)
    except Exception as error:  # noqa: BLE001  libraries change what their values can be asked
        reason = f"{type(error).__name__}: {error}"
        log.warning("exca: the format %r is not used for %s: testing the value raised %s", candidate.name, what, reason)
        return False


def _dump(candidate: Format, value: tp.Any, array: Dump) -> bytes:
    data = array(value) if candidate is ARRAY else candidate.dump(value)
    if not isinstance(data, bytes):
        raise TypeError(f"its dump function returned {type_name(type(data))}, not bytes")
    return data


def _formats_named(name: str) -> list[Format]:
    return [candidate for candidate in (*_registered, *_BUILTIN) if candidate.name == name]


def _source(format: Format) -> tuple[tp.Any, ...]:
    """Equal for two formats that the same module has registered, loaded twice (a script, a notebook)."""
    return format.runs_code, *map(_full_name, (format.kind, format.dump, format.load))


def _full_name(obj: tp.Any) -> tp.Any:
    if not isinstance(obj, (type, types.FunctionType, types.MethodType)):
        return obj
    bound_to = _full_name(getattr(obj, "__self__", None))
    # several functions may be called <lambda>
    code = getattr(obj, "__code__", None) if "<" in obj.__qualname__ else None
    return script.module_name(obj), obj.__qualname__, bound_to, code
