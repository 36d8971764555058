"""The readable part of a uid."""

from __future__ import annotations

import functools
import re
import typing as tp

from .canonical import canonical
from .names import flatten, is_tagged, unescape_key

_ILLEGAL = re.compile(r"[^A-Za-z0-9_.+-]+")


LABEL_BYTES = 160 - 1 - 16  # what is left of a file name beside "-" and the longest digest


def readable_label(fields: tp.Mapping[str, tp.Any]) -> str:
    """``fields`` as readable text, in the given order, cut to a legal file name of at most 143 bytes; "" for none.

    >>> readable_label({"coeff": 3, "optim": {"name": "sgd", "lr": 0.1}, "data": "/data/a b.csv"})
    'coeff=3,optim.name=sgd,optim.lr=0.1,data=data_a_b.csv'
    """
    leaves = flatten(fields)
    kept, room = [], LABEL_BYTES - len(",+9999")
    for key, value in leaves.items():
        part = f"{_legal_key(key)}={_legal_value(value if key[-6:] != '~class' else _strip_module(value))}"
        room -= len(part) + 1
        if room < 0:
            break
        kept.append(part)
    return ",".join(kept + ([f"+{len(leaves) - len(kept)}"] if len(kept) < len(leaves) else []))


def _strip_module(name: tp.Any) -> tp.Any:
    """The name of a class without its module."""
    return name.rpartition(":")[2] if isinstance(name, str) else name


@functools.lru_cache(maxsize=4096)
def _legal_key(key: str) -> str:
    return _legal(key.replace("~", ""))[-40:].lstrip("-._+") or "x"


def _legal_value(value: tp.Any) -> str:
    kind = type(value)
    text = value if kind is str else str(value) if kind is int else _value_text(value)
    if len(text) <= 24 and (kind in _LEGAL or (text.isalnum() and text.isascii())):
        return text
    return _short(text) if len(text) <= 99 else _short.__wrapped__(text)


@functools.lru_cache(maxsize=4096)
def _short(text: str) -> str:
    text = _legal(text) if text.startswith("-") else _legal(text).lstrip("_")
    text = text if len(text) <= 24 else f"{text[:12]}..{text[-10:]}"
    return text.rstrip("_") or "empty"


def _legal(text: str) -> str:
    return _ILLEGAL.sub("_", text)


def _value_text(value: tp.Any) -> str:
    """A plain or canonical value as short text; of a pinned value only its text."""
    if isinstance(value, (str, int)) or value is None:
        return str(value)
    if isinstance(value, float):
        text = str(value)
        return text if len(text) <= 6 and text[-2:] != ".0" else min(text, format(value, ".6g"), key=len)
    if isinstance(value, (list, tuple)):
        return "-".join(map(_value_text, value))
    if not isinstance(value, dict):
        return _value_text(canonical(value))
    if not is_tagged(value):
        return "-".join(f"{unescape_key(key)}_{_value_text(child)}" for key, child in value.items())
    tag, content = next(iter(value.items()))
    if isinstance(content, list) and tag in _NAME_FIRST:
        content = content[-1]
    return f"{tag[1:]}_{content[:8]}" if tag == "~secret" else _value_text(content)


_LEGAL = (int, float, bool, type(None))  # whose texts are made of letters, digits, "+", "-" and "."


_NAME_FIRST = ("~array", "~enum", "~ip", "~scalar", "~sub", "~tensor", "~url")  # tags whose last element says most


def readable_value(form: tp.Any) -> tp.Any:
    """A leaf of a canonical form as people write it: of a value that is not JSON, what says most.

    >>> readable_value({"~float": "nan"}), readable_value([{"~enum": ["app.Color", "RED"]}])
    (nan, ['RED'])
    """
    if isinstance(form, list):
        return [readable_value(child) for child in form]
    if not isinstance(form, dict):
        return form
    if not is_tagged(form):
        return {unescape_key(key): readable_value(child) for key, child in form.items() if key != "~class"}
    tag = next(key for key in form if key[:1] == "~")
    content = form[tag]
    if isinstance(content, list) and tag in _NAME_FIRST:
        content = content[-1]
    return _READABLE.get(tag, readable_value)(content)


_READABLE: dict[str, tp.Callable[[tp.Any], tp.Any]] = {
    "~float": float,
    "~int": lambda text: int(text, 16),
    "~secret": lambda digest: "<secret>",
}


def legal_label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+=,-]+", "_", text).lstrip("-._+=,")[:LABEL_BYTES]
