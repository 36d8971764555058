"""The identity of a task: which results are the same one, and the name they have on disk.

Pure: nothing here writes, and no object that is given is changed.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import json
import re
import typing as tp

from . import quick, records
from .canonical import SCHEME, NamedErrors, Pinned, Walk, canonical, digest, encode
from .errors import CacheError, ConfigError, Problem
from .leaves import Json, RunDependent
from .plain import SCALARS, UnusualError, same

if tp.TYPE_CHECKING:
    import pydantic

__all__ = [
    "SCHEME",
    "Identity",
    "Pinned",
    "RunDependent",
    "canonical",
    "changed_defaults",
    "class_exclusions",
    "digest",
    "encode",
    "exclude",
    "flatten",
    "label",
    "make",
    "model_fields",
    "of_model",
]

_ILLEGAL = re.compile(r"[^A-Za-z0-9_.+-]+")
LABEL_BYTES = 160 - 1 - 16  # what is left of a file name beside "-" and the longest digest


def model_fields(
    model: pydantic.BaseModel, leave_out: tp.Sequence[str] = ()
) -> tuple[dict[str, Json], dict[str, Json]]:
    """The fields of a model in canonical form: those that differ from the defaults, and all.

    Both are without what the classes leave out of their uid, and without the dotted names of ``leave_out``. Those
    must be given here rather than to ``exclude``: ``fields`` alone does not say why a sub-model is not the default.
    """
    try:
        return quick.model_fields(model, tuple(leave_out))[:2]
    except UnusualError:
        return _walked(model, leave_out)


def _walked(model: pydantic.BaseModel, leave_out: tp.Sequence[str]) -> tuple[dict[str, Json], dict[str, Json]]:
    """The same by the general rules; errors say where in the model they are."""
    with NamedErrors():
        facts = records.record_of(type(model))
        skip = records.tree(leave_out)
        facts.check(skip, facts.names)
        return Walk().fields(model, facts, skip)


def of_model(factory: str, version: str, model: pydantic.BaseModel, leave_out: tp.Sequence[str] = ()) -> Identity:
    """The identity of a validated model, without what its classes and ``leave_out`` leave out."""
    try:
        fields, full, left_out = quick.model_fields(model, tuple(leave_out))
    except UnusualError:
        fields, full = _walked(model, leave_out)
        left_out = list(class_exclusions(model))
    return make(factory, version, fields, full, excluded=(*left_out, *leave_out))


def class_exclusions(model: pydantic.BaseModel) -> tuple[str, ...]:
    """The dotted names that the class of a model, and those of its sub-models, leave out of the uid."""
    with NamedErrors():
        return records.excluded_names(model)


# -- dotted names ---------------------------------------------------------------------------------------------------


def flatten(mapping: tp.Mapping[str, tp.Any]) -> dict[str, tp.Any]:
    """A nested mapping, plain or canonical, with dotted names; lists, empty mappings and tagged values are leaves.

    >>> flatten({"optim": {"lr": 0.1, "betas": [0.9, 0.99]}})
    {'optim.lr': 0.1, 'optim.betas': [0.9, 0.99]}
    """
    return dict(_flat(mapping, ""))


def _flat(mapping: tp.Mapping[str, tp.Any], prefix: str) -> list[tuple[str, tp.Any]]:
    found: list[tuple[str, tp.Any]] = []
    for key, child in mapping.items():
        path = prefix + (key if type(key) is str and key[:1] != "~" else _unescaped(key))
        if type(child) not in SCALARS and _has_names(child):
            found += _flat(child, f"{path}.")
        else:
            found.append((path, child))
    return found


def exclude(fields: tp.Mapping[str, tp.Any], patterns: tp.Sequence[str], *, where: str) -> dict[str, tp.Any]:
    """A copy of ``fields`` without some dotted names; in a pattern, ``*`` stands for any text, dots too.

    ``optim`` takes away the subtree, ``optim.lr`` the leaf. ``where`` says in errors who asked: a pattern that
    matches nothing is a ConfigError.
    """
    if isinstance(patterns, str):
        raise ConfigError(f"{where} is the string {patterns!r}: write a list, [{patterns!r}]")
    paths = [path for path, _ in _nodes(fields)]
    unmatched = [pattern for pattern in patterns if not any(map(_regex(pattern).fullmatch, paths))]
    if unmatched:
        problems = [Problem(f"matches nothing{records.near(pattern, paths)}", pattern) for pattern in unmatched]
        raise ConfigError(f"{where} names what is not in the configuration", problems)
    return _without(fields, [_regex(pattern) for pattern in patterns], "")


def _without(node: tp.Mapping[str, tp.Any], patterns: list[re.Pattern[str]], prefix: str) -> dict[str, tp.Any]:
    result = {}
    for key, child in node.items():
        path = prefix + _unescaped(key)
        if not any(pattern.fullmatch(path) for pattern in patterns):
            result[key] = _without(child, patterns, f"{path}.") if _has_names(child) else child
    return result


def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", ".*"), re.DOTALL)


def _nodes(mapping: tp.Mapping[str, tp.Any], prefix: str = "") -> tp.Iterator[tuple[str, tp.Any]]:
    """All subtrees and leaves with their dotted names."""
    for key, child in mapping.items():
        path = prefix + _unescaped(key)
        yield path, child
        if _has_names(child):
            yield from _nodes(child, f"{path}.")


def _has_names(node: tp.Any) -> bool:
    is_mapping = type(node) is dict or (type(node) is not list and isinstance(node, collections.abc.Mapping))
    return is_mapping and bool(node) and not _is_tagged(node)


def _is_tagged(node: tp.Mapping[tp.Any, tp.Any]) -> bool:
    """A canonical value of a type that JSON has not; a record that says its class is not one."""
    return any(_is_tag(key) for key in node if type(key) is not str or key[:1] == "~")


def _is_tag(key: tp.Any) -> bool:
    return isinstance(key, str) and key[:1] == "~" and key[:2] != "~~" and key not in ("~class", "~extra")


def _unescaped(key: tp.Any) -> str:
    text = str(key)
    return text[1:] if text[:2] == "~~" and isinstance(key, str) else text


# -- the readable part ------------------------------------------------------------------------------------------------


def label(fields: tp.Mapping[str, tp.Any]) -> str:
    """``fields`` for people, in the given order, shortened to a legal file name of at most 143 bytes; "" for none.

    >>> label({"coeff": 3, "optim": {"name": "sgd", "lr": 0.1}, "data": "/data/a b.csv"})
    'coeff=3,optim.name=sgd,optim.lr=0.1,data=data_a_b.csv'
    """
    leaves = flatten(fields)
    kept, room = [], LABEL_BYTES - len(",+9999")
    for key, value in leaves.items():
        part = f"{_legal_key(key)}={_legal_value(value if key[-6:] != '~class' else _bare(value))}"
        room -= len(part) + 1
        if room < 0:
            break
        kept.append(part)
    return ",".join(kept + ([f"+{len(leaves) - len(kept)}"] if len(kept) < len(leaves) else []))


def _bare(name: tp.Any) -> tp.Any:
    """The name of a class without its module."""
    return name.rpartition(":")[2] if isinstance(name, str) else name


@functools.lru_cache(maxsize=4096)
def _legal_key(key: str) -> str:
    return _legal(key.replace("~", ""))[-40:].lstrip("-._+") or "x"


def _legal_value(value: tp.Any) -> str:
    kind = type(value)
    text = value if kind is str else str(value) if kind is int else _shown(value)
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


def _shown(value: tp.Any) -> str:
    """A plain or canonical value as short text; never the value of what is pinned."""
    if isinstance(value, (str, int)) or value is None:
        return str(value)
    if isinstance(value, float):
        text = str(value)
        return text if len(text) <= 6 and text[-2:] != ".0" else min(text, format(value, ".6g"), key=len)
    if isinstance(value, (list, tuple)):
        return "-".join(map(_shown, value))
    if not isinstance(value, dict):
        return _shown(canonical(value))
    if not _is_tagged(value):
        return "-".join(f"{_unescaped(key)}_{_shown(child)}" for key, child in value.items())
    tag, content = next(iter(value.items()))
    if isinstance(content, list) and tag in _NAME_FIRST:
        content = content[-1]
    return f"{tag[1:]}_{content[:8]}" if tag == "~secret" else _shown(content)


_LEGAL = (int, float, bool, type(None))  # whose texts are made of letters, digits, "+", "-" and "."
_NAME_FIRST = ("~array", "~enum", "~ip", "~scalar", "~sub", "~tensor", "~url")  # tags whose last element says most


# -- identities -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a result is the result of.

    ``fields`` is the canonical form that is hashed, ``full`` the same with defaults. ``excluded`` are the dotted
    names left out, known so that a field left out since is not taken for one that is gone.
    """

    factory: str
    version: str
    fields: dict[str, Json]
    full: dict[str, Json]
    label: str
    digest: str
    excluded: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    lasts: bool = dataclasses.field(default=False, compare=False, repr=False)

    def uid(self, length: int = 8) -> str:
        """The name on disk: ``<label>-<hex>``, or ``default`` exactly when no field differs from its default."""
        return f"{self.label or 'default'}-{self.digest[:length]}" if self.fields else "default"

    @functools.cached_property
    def key(self) -> str:
        """What tells it from all others, as text."""
        return f"{self.factory},{self.version}/{self.digest}"

    def to_json(self) -> dict[str, Json]:
        """What is stored with a result, to be compared on every hit."""
        return {
            "scheme": SCHEME,
            "factory": self.factory,
            "version": self.version,
            "label": self.label,
            "digest": self.digest,
            "fields": self.fields,
            "full": self.full,
        }

    def stored(self) -> bytes:
        """The bytes of ``to_json`` where it is stored: who finds these need neither read nor compare it."""
        return self._stored if self.lasts else self._encoded()

    @functools.cached_property
    def _stored(self) -> bytes:
        return self._encoded()

    def _encoded(self) -> bytes:
        form = self.to_json()
        if self.full is not self.fields:
            return _STORED.encode(form).encode("ascii")
        del form["fields"], form["full"]  # one and the same, and most of the work
        fields = _STORED.encode(self.fields)
        return f'{_STORED.encode(form)[:-1]},"fields":{fields},"full":{fields}}}'.encode("ascii")

    @classmethod
    def from_json(cls, stored: tp.Mapping[str, Json]) -> Identity:
        """The inverse of ``to_json``; CacheError if it was not written by these rules, or was changed since."""
        names = ("factory", "version", "fields", "full", "label", "digest")
        if not isinstance(stored, tp.Mapping) or not all(name in stored for name in ("scheme", *names)):
            raise CacheError("a stored identity is not complete: the entry was not written by this library")
        if stored["scheme"] != SCHEME:
            raise CacheError(f"a stored identity follows the rules {stored['scheme']}, those of today are {SCHEME}")
        if stored["digest"] != digest(stored["fields"]):
            raise CacheError("a stored identity does not have its digest: the entry was changed after it was written")
        return cls(**{name: stored[name] for name in names})

    def same_as(self, stored: tp.Mapping[str, Json]) -> bool:
        """Whether a stored identity is this one: all of it, not only the digest."""
        mine = self.to_json()
        return all(name in stored and same(stored[name], mine[name]) for name in _COMPARED)


_COMPARED = ("scheme", "factory", "version", "fields")
_STORED = json.JSONEncoder(separators=(",", ":"), check_circular=False)


def make(
    factory: str,
    version: str,
    fields: tp.Mapping[str, Json],
    full: tp.Mapping[str, Json] | None = None,
    label: str | None = None,
    excluded: tp.Sequence[str] = (),
) -> Identity:
    """The identity of canonical ``fields``; ``label`` replaces the readable part, which is made of them by default."""
    own = dict(fields)
    return Identity(
        factory=factory,
        version=version,
        fields=own,
        full=own if full is None else dict(full),
        label=_readable(own) if label is None else _legal_label(label),
        digest=digest(own),
        excluded=tuple(excluded),
    )


_readable = label


def _legal_label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+=,-]+", "_", text).lstrip("-._+=,")[:LABEL_BYTES]


def changed_defaults(stored: tp.Mapping[str, Json], today: Identity) -> list[str]:
    """One message for each default of a stored identity that is another one today, or gone.

    Such a default is not part of the uid, so the stored result is that of another value than the code of today has.
    """
    if same(stored["full"], today.full):
        return []
    left_out = [_regex(pattern) for name in today.excluded for pattern in (name, f"{name}.*")]
    return [
        f"{path}: stored {_brief(old)}, {'gone' if new is _GONE else _brief(new)} today"
        for path, old, new in _changed("", stored["full"], stored["fields"], today.full)
        if not any(pattern.fullmatch(path) for pattern in left_out)
    ]


_GONE: tp.Any = object()


def _changed(path: str, old: Json, given: Json, new: Json) -> tp.Iterator[tuple[str, Json, Json]]:
    """Path, old and new value of the leaves of ``old`` that are not in ``given`` and differ in ``new``."""
    if isinstance(old, dict) and old and (new is _GONE or (isinstance(new, dict) and new)) and not _is_tagged(old):
        for key, child in old.items():
            below = f"{path}.{_unescaped(key)}" if path else _unescaped(key)
            yield from _changed(below, child, _get(given, key), _get(new, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (child, today) in enumerate(zip(old, new, strict=True)):
            yield from _changed(f"{path}.{index}", child, _get(given, index), today)
    elif not same(old, new) and not same(old, given):
        yield path, old, new


def _get(node: Json, key: tp.Any) -> Json:
    if isinstance(node, list):
        return node[key] if isinstance(key, int) and key < len(node) else _GONE
    return node.get(key, _GONE) if isinstance(node, dict) else _GONE


def _brief(value: Json) -> str:
    text = encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
