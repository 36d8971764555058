"""The canonical form of values without parts: numbers, text, dates, names of classes and functions, arrays.

``LEAVES`` has the rule of an exact type, `scalar_rule` finds those of families of types.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import hashlib
import ipaddress
import math
import pathlib
import re
import sys
import types
import typing as tp
import uuid

from hydra_exca import script

from .model_schema import UnfitError, cached_per_class

Json: tp.TypeAlias = tp.Any


@dataclasses.dataclass(frozen=True)
class RunDependent:
    """A leaf that depends on the run (the time, the output folder): its text stands in the identity.

    ``sizes`` are the variables that give it the size of its job. What decides them has to be added to the text, so
    that until then it has no canonical form.
    """

    text: str
    sizes: tuple[str, ...] = ()


def class_name(cls: type) -> str:
    """``module:qualname``; without module in a script, which is ``__mp_main__`` in processes of multiprocessing."""
    module = script.module_in_each_python(cls)
    return cls.__qualname__ if module in _SCRIPTS else f"{module}:{cls.__qualname__}"


_SCRIPTS = ("__main__", "__mp_main__")


def is_clean(value: str) -> bool:
    """No surrogates: JSON writes a pair of them as it writes the one character they stand for."""
    return value.isascii() or not _SURROGATES.search(value)


_SURROGATES = re.compile("[\ud800-\udfff]")


def text_form(value: str) -> Json:
    return value if is_clean(value) else {"~str": value.encode("utf-8", "surrogatepass").hex()}


def _int(value: int) -> Json:
    # beyond 64 bits many JSON readers round, and Python refuses more than 4300 decimal digits
    return value if -(2**63) <= value < 2**63 else {"~int": hex(value)}


def _float(value: float) -> Json:
    return value if math.isfinite(value) else {"~float": str(value)}


def _bytes(value: bytes) -> Json:
    if len(value) <= 64:
        return {"~bytes": value.hex()}
    return {"~bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}


def _datetime(value: datetime.datetime | datetime.time) -> Json:
    zone = getattr(value.tzinfo, "key", None)
    if value.tzinfo is not None and zone is None and value.utcoffset() is None:
        raise UnfitError("has a time zone without name and offset")
    iso = value.isoformat() + (f"[{zone}]" if zone else "") + ("#1" if value.fold else "")
    return {f"~{type(value).__name__}": iso}


def _regex(value: re.Pattern[tp.Any]) -> Json:
    return {"~regex": [LEAVES[type(value.pattern)](value.pattern), value.flags]}


def _named(value: tp.Any) -> Json:
    """Functions and classes by the name they are imported under; of others, two may have the same name."""
    module, name = script.module_in_each_python(value), getattr(value, "__qualname__", "")
    target = sys.modules.get(module) if module and module not in _SCRIPTS else None
    for part in name.split("."):
        target = getattr(target, part, None)
    if target is not value:
        raise UnfitError(
            f"{name or value!r} cannot be imported as {module}:{name}: give a function or class of a module"
        )
    return {"~type" if isinstance(value, type) else "~function": f"{module}:{name}"}


def _enum(value: enum.Enum) -> Json:
    shown = value.value if isinstance(value, enum.Flag) else value.name
    return {"~enum": [type(value).__qualname__, shown]}


def _run_dependent(value: RunDependent) -> Json:
    if value.sizes:
        raise UnfitError(f"takes {', '.join(value.sizes)} from its job, and what decides that is not known")
    return {"~run": text_form(value.text)}


def _named_text(tag: str) -> tp.Callable[[tp.Any], Json]:
    return lambda value: {tag: [type(value).__name__, str(value)]}


def _same_object(value: Json) -> Json:
    return value


LEAVES: dict[type, tp.Callable[[tp.Any], Json]] = {
    str: text_form,
    int: _int,
    float: _float,
    bool: _same_object,
    type(None): _same_object,
    bytes: _bytes,
    bytearray: lambda value: {"~bytearray": _bytes(bytes(value))},
    complex: lambda value: {"~complex": [_float(value.real), _float(value.imag)]},
    range: lambda value: {"~range": [_int(value.start), _int(value.stop), _int(value.step)]},
    decimal.Decimal: lambda value: {"~decimal": str(value)},
    fractions.Fraction: lambda value: {"~fraction": [_int(value.numerator), _int(value.denominator)]},
    uuid.UUID: lambda value: {"~uuid": str(value)},
    datetime.date: lambda value: {"~date": value.isoformat()},
    datetime.datetime: _datetime,
    datetime.time: _datetime,
    datetime.timedelta: lambda value: {"~timedelta": [value.days, value.seconds, value.microseconds]},
    re.Pattern: _regex,
    type(...): lambda value: {"~ellipsis": None},
    types.FunctionType: _named,
    types.BuiltinFunctionType: _named,
    RunDependent: _run_dependent,
}
for _cls in (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath):
    LEAVES[_cls] = lambda value: {"~path": text_form(value.as_posix())}
for _name in ("Address", "Network", "Interface"):
    LEAVES[getattr(ipaddress, f"IPv4{_name}")] = LEAVES[getattr(ipaddress, f"IPv6{_name}")] = _named_text("~ip")


# -- numpy and torch: only looked at when the program has imported them ----------------------------------------------


def _array(value: tp.Any) -> Json:
    dtype = _little_endian(value.dtype)
    data = value.astype(dtype, order="C", copy=False).tobytes()
    return {"~array": [dtype.str, list(value.shape), hashlib.sha256(data).hexdigest()]}


def _scalar(value: tp.Any) -> Json:
    dtype = _little_endian(value.dtype)
    plain = int(value.astype("int64")) if dtype.kind in "mM" else value.item()
    return {"~scalar": [dtype.str, LEAVES[type(plain)](plain)]}


def _little_endian(dtype: tp.Any) -> tp.Any:
    # object is pointers; V and longdouble have padding bytes, which are not part of the value
    if dtype.kind not in "biufcSUmM" or dtype.itemsize > {"f": 8, "c": 16}.get(dtype.kind, sys.maxsize):
        raise UnfitError(f"a numpy dtype {dtype} has no rule: convert it, or leave the field out of the uid")
    return dtype.newbyteorder("<")


def _tensor(value: tp.Any) -> Json:
    torch = sys.modules["torch"]
    if value.layout is not torch.strided or value.is_quantized:
        raise UnfitError("only dense tensors have a rule: convert it, or leave the field out of the uid")
    if value.is_meta:  # it has no elements
        return {"~tensor": [str(value.dtype), list(value.shape), None]}
    own = value.detach() if value.element_size() > 1 else value.detach().view(torch.uint8)  # int4 cannot be copied
    own = own.cpu().resolve_conj().resolve_neg()
    # contiguous() leaves one element of a view with the steps of that
    plain = own.clone(memory_format=torch.contiguous_format).reshape(-1)
    data = plain.view(torch.uint8).numpy().tobytes()
    return {"~tensor": [str(value.dtype), list(value.shape), hashlib.sha256(data).hexdigest()]}


def _foreign(cls: type) -> tp.Callable[[tp.Any], Json] | None:
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy and issubclass(cls, numpy.generic):
        return _scalar
    if numpy and cls in (numpy.ndarray, numpy.memmap):  # other subclasses hold more: a mask, a class of its own
        return _array
    if numpy and issubclass(cls, numpy.dtype):
        return lambda value: {"~dtype": f"numpy.{_little_endian(value).str}"}
    if torch and cls in (torch.Tensor, torch.nn.Parameter):
        return _tensor
    if torch and cls in (torch.dtype, torch.device):
        return lambda value: {f"~{cls.__name__}": str(value)}
    return None


@cached_per_class
def scalar_rule(cls: type) -> tp.Callable[[tp.Any], Json] | None:
    """The rule for a type by its base classes, None if it is no scalar."""
    if issubclass(cls, enum.Enum):
        return _enum
    if issubclass(cls, type):
        return _named
    if cls.__module__ in ("pydantic.networks", "pydantic_core._pydantic_core") and cls.__name__.endswith(
        ("Url", "Dsn")
    ):
        return _named_text("~url")
    return _foreign(cls)


SCALARS = frozenset((str, int, float, bool, type(None)))


class UnusualError(Exception):
    """A value is not plain data, so the general rules of `canonical.Walk` apply."""


def plain_form(value: tp.Any) -> Json:
    """The canonical form of plain data: scalars, lists and dicts of names. Raises UnusualError for other values."""
    kind = type(value)
    if kind is dict:
        return _mapping(value)
    if kind is list or kind is tuple:
        return list(map(plain_form, value))
    rule = LEAVES.get(kind)
    if rule is None:
        raise UnusualError
    return rule(value)


def _mapping(value: dict[tp.Any, tp.Any]) -> Json:
    made = {}
    for key in _names(value):
        child = value[key]
        kind = type(child)
        if (kind is str and child.isascii()) or kind is bool:  # a call saved is a third of what a leaf takes
            made[key] = child
        else:
            made[key] = _mapping(child) if kind is dict else plain_form(child)
    return made


def _names(value: dict[tp.Any, tp.Any]) -> list[str]:
    """The keys in order, if they are names that stand for themselves."""
    for key in value:
        if type(key) is not str or key[:1] == "~" or not key.isascii():
            raise UnusualError
    return sorted(value)


def is_same_form(one: Json, other: Json) -> bool:
    """Whether two canonical forms are the same; ``==`` is not enough: ``1 == True == 1.0`` and ``0.0 == -0.0``."""
    if one is other:
        return True
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is dict:
        return one.keys() == other.keys() and all(map(is_same_form, one.values(), map(other.__getitem__, one)))
    if kind is list:
        return len(one) == len(other) and all(map(is_same_form, one, other))
    return bool(one == other) and (kind is not float or math.copysign(1, one) == math.copysign(1, other))
