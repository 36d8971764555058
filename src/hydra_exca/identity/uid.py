"""The identity of a task: which results are the same, and their name on disk.

Pure: nothing here writes, and no argument is changed.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing as tp

from hydra_exca.globs import matches_key

from . import model_schema
from .canonical import SCHEME, NamedErrors, Pinned, Walk, canonical, digest, encode
from .label import legal_label, readable_label
from .names import flatten, is_tagged, unescape_key
from .redaction import DEFAULT, Redaction, is_same_redacted
from .scalars import Json, RunDependent, is_same_form

if tp.TYPE_CHECKING:
    import pydantic

__all__ = [
    "SCHEME",
    "Identity",
    "ModelFields",
    "Pinned",
    "RunDependent",
    "canonical",
    "changed_defaults",
    "digest",
    "encode",
    "flatten",
    "make_identity",
    "model_fields",
    "model_identity",
    "readable_label",
]


class ModelFields(tp.NamedTuple):
    """The fields of a model in canonical form: those that differ from the defaults, and all.

    ``excluded`` are the dotted names left out: by its class, by those of its sub-models, and on request.
    """

    non_default: dict[str, Json]
    with_defaults: dict[str, Json]
    excluded: tuple[str, ...]


CARRIED = "hydra.function"
"""The key of what a function carries, among the fields of an identity."""
OF_SCRIPT = "hydra.script"
"""The key of what the script knows beside the configuration."""


def model_fields(model: pydantic.BaseModel, leave_out: tp.Sequence[str] = ()) -> ModelFields:
    """The fields of a model, without what its classes leave out of their uid, and without the names of ``leave_out``.

    Dotted names must be given here rather than to ``exclude``: the forms alone do not say why a sub-model is not the
    default. Raises ConfigError for a value that has no rule, and for a name that is not in the model.
    """
    with NamedErrors():
        schema = model_schema.record_schema(type(model))
        skip = model_schema.NO_NAMES
        if leave_out:
            skip = model_schema.name_tree(leave_out)
            schema.check_names(skip, schema.names)
        walk = Walk()
        return ModelFields(*walk.field_forms(model, schema, skip), (*walk.excluded, *leave_out))


def model_identity(
    factory: str,
    version: str,
    model: pydantic.BaseModel,
    leave_out: tp.Sequence[str] = (),
    captured: tp.Mapping[str, Json] = types.MappingProxyType({}),
    redaction: Redaction = DEFAULT,
) -> Identity:
    """The identity of a validated model, without what its classes and ``leave_out`` leave out.

    ``captured`` are the forms of what its methods carry beside the model.
    """
    fields, full, excluded = model_fields(model, leave_out)
    if not captured:
        return make_identity(factory, version, fields, full, excluded=excluded, redaction=redaction)
    own = {CARRIED: captured}
    redaction = redaction.including(full)
    label = readable_label(redaction.redact_form(fields))
    return make_identity(factory, version, {**fields, **own}, {**full, **own}, label, excluded, redaction)


@dataclasses.dataclass(frozen=True)
class Identity:
    """The identity of a result.

    ``fields`` is the canonical form that is hashed, ``full`` the same with defaults. ``excluded`` are the dotted
    names left out, known so that a field left out since is not taken for one that is gone. What is stored and shown
    has digests where ``redaction`` finds secrets.
    """

    factory: str
    version: str
    fields: dict[str, Json]
    full: dict[str, Json]
    label: str
    digest: str
    excluded: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    redaction: Redaction = dataclasses.field(default=DEFAULT, compare=False)
    lasts: bool = dataclasses.field(default=False, compare=False, repr=False)

    def uid(self, length: int = 8) -> str:
        """The name on disk: ``<label>-<hex>``, or ``default`` exactly when no field differs from its default."""
        return f"{self.label or 'default'}-{self.digest[:length]}" if self.fields else "default"

    @functools.cached_property
    def key(self) -> str:
        """A text that only equal identities share."""
        return f"{self.factory},{self.version}/{self.digest}"

    def to_json(self) -> dict[str, Json]:
        """The JSON form: it is stored with a result and compared on every hit."""
        fields = self.shown_fields
        return {
            "scheme": SCHEME,
            "factory": self.factory,
            "version": self.version,
            "label": self.label,
            "digest": self.digest,
            "fields": fields,
            "full": fields if self.full is self.fields else self._shown(self.full),
        }

    @property
    def shown_fields(self) -> dict[str, Json]:
        """The ``fields`` as they are stored."""
        return self._shown(self.fields)

    def _shown(self, fields: dict[str, Json]) -> dict[str, Json]:
        if self.full is not self.fields and self.redaction.finds_secrets(self.full):
            return tp.cast("dict[str, Json]", self.redaction.including(self.full).redact_form(fields))
        return tp.cast("dict[str, Json]", self.redaction.redact_form(fields))

    def stored_bytes(self) -> bytes:
        """The bytes of ``to_json`` as an outcome has them; a reader that finds them need not parse the identity."""
        return self._stored if self.lasts else self._encoded()

    @functools.cached_property
    def _stored(self) -> bytes:
        return self._encoded()

    def _encoded(self) -> bytes:
        form = self.to_json()
        if self.full is not self.fields:
            return _STORED.encode(form).encode("ascii")
        fields = _STORED.encode(form.pop("fields"))  # one and the same as "full", and most of the work
        del form["full"]
        return f'{_STORED.encode(form)[:-1]},"fields":{fields},"full":{fields}}}'.encode("ascii")

    def same_as(self, stored: tp.Mapping[str, Json]) -> bool:
        """Whether a stored identity is this one: all of it, not only the digest; redacted in any way, or not."""
        mine = {"scheme": SCHEME, "factory": self.factory, "version": self.version}
        is_same = all(is_same_form(stored.get(name), value) for name, value in mine.items())
        return is_same and "fields" in stored and is_same_redacted(stored["fields"], self.fields)


_STORED = json.JSONEncoder(separators=(",", ":"), check_circular=False)


def make_identity(
    factory: str,
    version: str,
    fields: tp.Mapping[str, Json],
    full: tp.Mapping[str, Json] | None = None,
    label: str | None = None,
    excluded: tp.Sequence[str] = (),
    redaction: Redaction = DEFAULT,
) -> Identity:
    """The identity of canonical ``fields``; ``label`` replaces the readable part, which is made of them by default."""
    own = dict(fields)
    unlabelled = Identity(
        factory=factory,
        version=version,
        fields=own,
        full=own if full is None else dict(full),
        label="" if label is None else legal_label(label),
        digest=digest(own),
        excluded=tuple(excluded),
        redaction=redaction,
    )
    if label is not None:
        return unlabelled
    return dataclasses.replace(unlabelled, label=readable_label(unlabelled.shown_fields))


def changed_defaults(stored: tp.Mapping[str, Json], today: Identity) -> list[str]:
    """One message for each default of a stored identity that has changed or disappeared since.

    Defaults are not part of the uid: such a result was computed with a value that the current code does not use.
    """
    if is_same_form(stored["full"], today.full):
        return []

    def text(path: str, value: Json) -> str:
        return "gone" if value is _GONE else _short_text(today.redaction.redact_form(value, path))

    return [
        f"{path}: stored {text(path, old)}, {text(path, new)} today"
        for path, old, new in _changed_leaves("", stored["full"], stored["fields"], today.full)
        if not matches_key(path, today.excluded)
    ]


_GONE: tp.Any = object()


def _changed_leaves(path: str, old: Json, given: Json, new: Json) -> tp.Iterator[tuple[str, Json, Json]]:
    """Path, old and new value of the leaves of ``old`` that are not in ``given`` and differ in ``new``."""
    if isinstance(old, dict) and old and (new is _GONE or (isinstance(new, dict) and new)) and not is_tagged(old):
        for key, child in old.items():
            below = f"{path}.{unescape_key(key)}" if path else unescape_key(key)
            yield from _changed_leaves(below, child, _child(given, key), _child(new, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (child, today) in enumerate(zip(old, new, strict=True)):
            yield from _changed_leaves(f"{path}.{index}", child, _child(given, index), today)
    elif (new is _GONE or not is_same_redacted(old, new)) and not is_same_form(old, given):
        yield path, old, new


def _child(node: Json, key: tp.Any) -> Json:
    if isinstance(node, list):
        return node[key] if isinstance(key, int) and key < len(node) else _GONE
    return node.get(key, _GONE) if isinstance(node, dict) else _GONE


def _short_text(value: Json) -> str:
    text = encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
