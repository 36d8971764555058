"""The canonical form of a value: plain JSON that is equal for two values exactly when they are the same.

Types outside JSON are written ``{"~tag": ...}``; a key of a user's dict that starts with ``~`` gets one more.
The rules are in ``docs/design/uid.md``.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
import sys
import typing as tp

from hydra_exca.errors import ConfigError, Problem

from . import model_schema, pydantic_types, scalars
from .model_schema import (
    ANYTHING,
    MISSING,
    NO_NAMES,
    Default,
    ExpectedType,
    NameTree,
    RecordSchema,
    UnfitError,
    merge_trees,
)
from .scalars import LEAVES, SCALARS, Json, UnusualError, class_name, is_clean, is_same_form, scalar_rule, text_form

SCHEME = 1
"""Version of these rules. The golden values in the tests change only together with it."""

FormPair: tp.TypeAlias = tuple[Json, Json]


@dataclasses.dataclass(frozen=True)
class Pinned:
    """A leaf that reached outside the configuration (an environment variable): its text and a digest of its value."""

    text: str
    value: tp.Any


def canonical(value: tp.Any, key: str = "") -> Json:
    """The canonical form of ``value``: a model or dataclass with its class and all its fields.

    Raises ConfigError for what has no rule; the error names it by its dotted path, below ``key``.

    >>> canonical({"b": 2, "a": (1.0, None)})
    {'a': [1.0, None], 'b': 2}
    """
    try:
        return scalars.plain_form(value)
    except (UnusualError, UnfitError, RecursionError):  # the walk knows all rules, and its errors name the place
        pass
    with NamedErrors(key):
        return Walk(by_type=False).forms(value)[1]


def encode(form: Json) -> bytes:
    """The bytes of a canonical form that are hashed: JSON with sorted keys, no spaces and only ASCII."""
    return _ENCODER.encode(form).encode("ascii")


def digest(form: Json) -> str:
    """64 hex digits: the sha256 of `SCHEME` and of the bytes of a canonical form."""
    return hashlib.sha256(b"exca-%d:" % SCHEME + encode(form)).hexdigest()


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False, allow_nan=False)


class NamedErrors:
    """Turns an UnfitError value into a ConfigError with its whole path; a class since it must cost nothing per call."""

    def __init__(self, key: str = "") -> None:
        self.key = key

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: tp.Any, error: BaseException | None, trace: tp.Any) -> None:
        if isinstance(error, UnfitError):
            path = ".".join(filter(None, [self.key, *reversed(error.parts)]))
            raise ConfigError("the configuration has no identity", [Problem(error.message, path)]) from None
        if isinstance(error, RecursionError):
            problem = Problem("is nested too deeply", self.key)
            raise ConfigError("the configuration has no identity", [problem]) from None


class Walk:
    """One walk over a value. It gives two canonical forms: without the defaults of records, and with them.

    ``forced`` counts the records met that have a discriminator: a field with such a record stays, default or not.
    ``excluded`` collects the dotted names that the classes of records leave out; without ``by_uid`` these stay in.
    ``by_type``: what equals a default as its field's type holds it is the default, and has its form.
    """

    __slots__ = ("_open", "by_type", "by_uid", "excluded", "forced")

    def __init__(self, by_uid: bool = True, by_type: bool = True) -> None:
        self._open: set[int] = set()
        self.by_uid = by_uid
        self.by_type = by_type
        self.excluded: list[str] = []
        self.forced = 0

    def forms(self, value: tp.Any, expect: ExpectedType = ANYTHING, skip: NameTree = NO_NAMES) -> FormPair:
        kind = type(value)
        if kind in _PLAIN_CONTAINERS and not skip and expect.is_plain:
            try:
                form = scalars.plain_form(value)
                return form, form
            except (UnusualError, UnfitError, RecursionError):
                pass
        leaf_rule, part_rule = _rules(kind)
        if leaf_rule is not None:
            if skip and value is not None:
                self._refuse_names(value, expect, skip)
            form = leaf_rule(value)
            return form, form
        if id(value) in self._open:
            raise UnfitError("refers to itself")
        self._open.add(id(value))  # after an error the walk is over, so nobody misses that it is taken out again
        if kind is expect.only_class and not skip:  # in most places of a record only one class can stand
            pair = self.field_forms(value, model_schema.record_schema(kind), skip)
        else:
            if skip and part_rule not in _REACHED:
                self._refuse_names(value, expect, skip)
            pair = part_rule(self, value, expect, skip)
        self._open.discard(id(value))
        return pair

    def _child_forms(self, name: str, value: tp.Any, expect: ExpectedType, skip: NameTree = NO_NAMES) -> FormPair:
        """The forms of a part; its errors, and the names left out of it, get ``name`` in front."""
        count = len(self.excluded)
        try:
            pair = self.forms(value, expect, skip)
        except UnfitError as error:
            error.parts.append(name)
            raise
        if len(self.excluded) > count:
            self.excluded[count:] = _prefix_names(name, tuple(self.excluded[count:]))
        return pair

    def _refuse_names(self, value: tp.Any, expect: ExpectedType, skip: NameTree) -> None:
        if not expect.classes:  # else the name is for the other values that the annotation allows
            raise UnfitError(f"cannot leave out {next(iter(skip))!r}: names do not reach into a {type(value).__name__}")

    def full_form(self, value: tp.Any) -> Json:
        return self.forms(value)[1]

    # -- containers

    def sequence_forms(self, value: tp.Sequence[tp.Any], expect: ExpectedType, skip: NameTree) -> FormPair:
        items = expect.items or ANYTHING
        pairs = [self._child_forms(str(index), item, items) for index, item in enumerate(value)]
        return [non_default for non_default, _ in pairs], [with_defaults for _, with_defaults in pairs]

    def set_forms(self, value: tp.AbstractSet[tp.Any], expect: ExpectedType, skip: NameTree) -> FormPair:
        form = {"~set": sorted(map(self.full_form, value), key=encode)}
        return form, form

    def mapping_forms(self, value: dict[tp.Any, tp.Any], expect: ExpectedType, skip: NameTree) -> FormPair:
        # a dict in the place of a record must not be equal to that record
        if expect.classes or not all(type(key) is str and is_clean(key) for key in value):
            non_default, with_defaults = self._item_forms(value, expect)
            return {"~dict": sorted(non_default, key=encode)}, {"~dict": sorted(with_defaults, key=encode)}
        result: FormPair = {}, {}
        items = expect.items or ANYTHING
        for key in sorted(value):
            below = skip.get(key)
            if below is None or below:
                name = escape_key(key)
                result[0][name], result[1][name] = self._child_forms(key, value[key], items, below or NO_NAMES)
        return result

    def ordered_forms(self, value: tp.Mapping[tp.Any, tp.Any], expect: ExpectedType, skip: NameTree) -> FormPair:
        non_default, with_defaults = self._item_forms(value, expect)
        return {"~ordered": non_default}, {"~ordered": with_defaults}

    def _item_forms(self, value: tp.Mapping[tp.Any, tp.Any], expect: ExpectedType) -> tuple[list[Json], list[Json]]:
        non_default, with_defaults = self.sequence_forms(list(value.values()), expect, NO_NAMES)
        keys = list(map(self.full_form, value))
        return [list(item) for item in zip(keys, non_default, strict=True)], [
            list(item) for item in zip(keys, with_defaults, strict=True)
        ]

    def tagged_forms(self, value: tp.Any, expect: ExpectedType, skip: NameTree) -> FormPair:
        """The few other types with parts; records in them keep their defaults."""
        tag, parts = _PARTS[type(value)]
        form = {tag: [self.full_form(part) for part in parts(value)]}
        return form, form

    def pinned_forms(self, value: Pinned, expect: ExpectedType, skip: NameTree) -> FormPair:
        form = {"~pinned": text_form(value.text), "sha256": digest(self.full_form(value.value))}
        return form, form

    def secret_forms(self, value: tp.Any, expect: ExpectedType, skip: NameTree) -> FormPair:
        form = {"~secret": digest(self.full_form(value.get_secret_value()))}
        return form, form

    def subclass_forms(self, value: tp.Any, expect: ExpectedType, skip: NameTree) -> FormPair:
        """A subclass of a plain type: its class and the plain value, if it holds nothing else."""
        cls = type(value)
        base = next(base for base in cls.__mro__ if base in _PLAIN)
        slots = any(vars(klass).get("__slots__") for klass in cls.__mro__)
        if slots or getattr(value, "__dict__", None):
            raise UnfitError(f"a {class_name(cls)} holds more than a {base.__name__}: convert it")
        non_default, with_defaults = self.forms(_PLAIN[base](value), expect, skip)
        return {"~sub": [class_name(cls), non_default]}, {"~sub": [class_name(cls), with_defaults]}

    def module_forms(self, value: tp.Any, expect: ExpectedType, skip: NameTree) -> FormPair:
        """A module of torch: its class and all attributes, but those of torch's own that are as in an empty module."""
        empty = vars(sys.modules["torch"].nn.Module())
        attributes = {
            name: collections.OrderedDict(held) if name in _ORDERED_IN_MODULES else held
            for name, held in sorted(vars(value).items())
            if name not in empty or name == "training" or held != empty[name]
        }
        forms = {escape_key(name): self._child_forms(name, held, ANYTHING)[1] for name, held in attributes.items()}
        form = {"~module": [class_name(type(value)), forms]}
        return form, form

    # -- records

    def record_forms(self, value: tp.Any, expect: ExpectedType, skip: NameTree) -> FormPair:
        cls = type(value)
        schema = model_schema.record_schema(cls)
        sure = cls in expect.classes
        if skip and sure:
            schema.check_names(
                skip, {name for option in expect.classes for name in model_schema.record_schema(option).names}
            )
        keys = [key for key in expect.keys if key in schema.names]
        non_default, with_defaults = self.field_forms(value, schema, skip, keys)
        is_told_apart = not expect.keys or (keys and all(key in with_defaults for key in keys))
        if not sure or expect.tagged or not is_told_apart:
            non_default, with_defaults = (
                {"~class": class_name(cls), **non_default},
                {"~class": class_name(cls), **with_defaults},
            )
        self.forced += bool(expect.keys) or expect.tagged
        return non_default, with_defaults

    def field_forms(
        self, value: tp.Any, schema: RecordSchema, skip: NameTree, keys: tp.Container[str] = ()
    ) -> FormPair:
        """The forms of a record's fields: those that differ from the defaults (and ``keys``), and all."""
        counted, excluded = schema.counted_fields(value, skip, self.by_uid)
        self.excluded += excluded
        values = value.__dict__ if schema.is_model else schema.values(value)
        non_default: dict[str, Json] = {}
        with_defaults: dict[str, Json] = {}
        for name, expect, default, below in counted:
            child, stays = values.get(name, MISSING), name in keys
            kind = type(child)
            if kind in SCALARS and not below:  # most are; the calls saved are a third of the whole walk
                with_defaults[name] = one = form = LEAVES[kind](child)
                if child is default.value and not stays:
                    continue
            else:
                forced = self.forced
                one, form = self._child_forms(name, child, expect, below)
                with_defaults[name] = form
                stays = stays or self.forced > forced
            default_form = self.default_form(form, expect, default, below)
            if default_form is not MISSING:
                with_defaults[name] = default_form
                if not (stays or expect.is_plain or default.field_type is MISSING):
                    one, stays = self._discriminated_default(name, default, expect, below)
            if stays or default_form is MISSING:
                non_default[name] = one
        if schema.allows_extra:
            self._add_extra(value, schema, skip, non_default, with_defaults)
        return non_default, with_defaults

    def _discriminated_default(
        self, name: str, default: Default, expect: ExpectedType, skip: NameTree
    ) -> tuple[Json, bool]:
        """The form of a default that its field's type holds as a record, and whether that has a discriminator."""
        held = default.held_by_type() if self.by_type else MISSING
        if held is MISSING:
            return MISSING, False
        forced = self.forced
        return self._child_forms(name, held, expect, skip)[0], self.forced > forced

    def _add_extra(self, value: tp.Any, schema: RecordSchema, skip: NameTree, *forms: dict[str, Json]) -> None:
        extra = schema.extra_values(value)
        left_out = merge_trees(skip, schema.excluded_tree(value)) if self.by_uid else skip
        # an alias frees the name of its field for an extra of the same name
        clash = {key: child for key, child in extra.items() if key in schema.names}
        apart = {key: child for key, child in extra.items() if key not in schema.names}
        for form, values in zip(forms, self.forms(apart, ANYTHING, left_out), strict=True):
            form.update(values)
        if clash:
            for form, values in zip(forms, self.forms(clash), strict=True):
                form["~extra"] = values

    def default_form(self, form: Json, expect: ExpectedType, default: Default, skip: NameTree = NO_NAMES) -> Json:
        """The form of a default as it is written, if ``form`` is that of the default; else MISSING.

        The default may also be given as the field's type holds it, and left out in part.
        """
        lasts = default.factory is None and self.by_uid and not skip
        forms = default.forms[self.by_type] if lasts else {}
        if "written" not in forms:
            try:
                value = default.make_value()
            except Exception:  # noqa: BLE001 - the user's code; without a default the field counts, which is always right
                return MISSING
            forms["written"] = self._form_of_default(value, expect, skip)
        written = forms["written"]
        if is_same_form(form, written):
            return form
        if "held" not in forms:
            forms["held"] = self._held_form(default, written, expect, skip)
        if not is_same_form(form, forms["held"]):
            return MISSING
        return forms["held"] if written is MISSING else written

    def _form_of_default(self, value: tp.Any, expect: ExpectedType, skip: NameTree) -> Json:
        try:
            return Walk(self.by_uid, self.by_type).forms(value, expect, skip)[1]
        except UnfitError:  # also for a field without default
            return MISSING

    def _held_form(self, default: Default, written: Json, expect: ExpectedType, skip: NameTree) -> Json:
        """The form of a default as its field's type holds it; MISSING if that is not defined."""
        if not self.by_type or default.field_type is MISSING:
            return MISSING
        held = self._form_of_default(default.held_by_type(), expect, skip)
        # a list that is made of a set has another order in each process
        is_ordered = MISSING not in (written, held) and _count_sets(held) < _count_sets(written)
        # what nobody validates stays as it is written, and a validator may make another value of it
        is_other = not (default.is_validated or MISSING in (written, held) or _is_same_value(written, held))
        return MISSING if is_ordered or is_other else held


def _is_same_value(written: Json, held: Json) -> bool:
    """Whether two forms may be one value in other types: another number or text is another value."""
    for kind in (str, (int, float)):
        if isinstance(written, kind) and isinstance(held, kind):
            return bool(written == held)
    if isinstance(written, dict) and isinstance(held, dict):
        return all(_is_same_value(written[key], held[key]) for key in written.keys() & held.keys())
    if isinstance(written, list) and isinstance(held, list):
        return all(map(_is_same_value, written, held))
    return True


def _count_sets(form: Json) -> int:
    return encode(form).count(b'"~set"')


@functools.lru_cache(maxsize=4096)
def _prefix_names(prefix: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in names)  # an infra leaves out 25, which takes longer than all else


def escape_key(key: str) -> str:
    return f"~{key}" if key.startswith("~") else key


PartRule: tp.TypeAlias = tp.Callable[[Walk, tp.Any, ExpectedType, NameTree], FormPair]

_CONTAINERS: dict[type, PartRule] = {
    list: Walk.sequence_forms,
    tuple: Walk.sequence_forms,
    dict: Walk.mapping_forms,
    set: Walk.set_forms,
    frozenset: Walk.set_forms,
    collections.OrderedDict: Walk.ordered_forms,
    Pinned: Walk.pinned_forms,
}
_PARTS: dict[type, tuple[str, tp.Callable[[tp.Any], tp.Sequence[tp.Any]]]] = {
    slice: ("~slice", lambda value: [value.start, value.stop, value.step]),
    collections.deque: ("~deque", lambda value: [list(value), value.maxlen]),
    collections.defaultdict: ("~defaultdict", lambda value: [value.default_factory, dict(value)]),
    functools.partial: ("~partial", lambda value: [value.func, value.args, value.keywords]),
}
_PLAIN: dict[type, tp.Callable[[tp.Any], tp.Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    tuple: tuple,
    list: list,
    collections.OrderedDict: collections.OrderedDict,
    dict: dict,
    set: set,
    frozenset: frozenset,
}


_SECRETS = ("SecretStr", "SecretBytes", "Secret")
_REACHED = (Walk.mapping_forms, Walk.subclass_forms, Walk.record_forms)  # where the names to leave out lead somewhere


_ORDERED_IN_MODULES = ("_parameters", "_buffers", "_modules")  # a Sequential computes in this order
_PLAIN_CONTAINERS = frozenset((list, tuple, dict))


@model_schema.cached_per_class
def _rules(cls: type) -> tuple[tp.Callable[[tp.Any], Json] | None, PartRule]:
    """The rule for a type without parts, if it is one, and the rule for its parts."""
    return LEAVES.get(cls) or scalar_rule(cls), _part_rule(cls)


def _part_rule(cls: type) -> PartRule:
    if issubclass(cls, pydantic_types.loaded_pydantic("types", *_SECRETS)):
        return Walk.secret_forms
    if cls in _CONTAINERS:
        return _CONTAINERS[cls]
    if cls in _PARTS:
        return Walk.tagged_forms
    plain = any(base in _PLAIN for base in cls.__mro__)
    if model_schema.is_record(cls) and not plain:  # a dataclass that is a dict too holds more than its fields
        return Walk.record_forms
    if _is_module_of_torch(cls):
        return Walk.module_forms
    return Walk.subclass_forms if plain else _refuse


def _is_module_of_torch(cls: type) -> bool:
    """Whether all of such an object is in its attributes; one that is compiled has more."""
    torch = sys.modules.get("torch")
    return torch is not None and issubclass(cls, torch.nn.Module) and not issubclass(cls, torch.jit.ScriptModule)


def _refuse(walk: Walk, value: tp.Any, expect: ExpectedType, skip: NameTree) -> FormPair:
    if value is MISSING:  # a field that was deleted, or that construction without validation has not set
        raise UnfitError("has no value")
    name = class_name(type(value))
    raise UnfitError(f"a {name} has no rule for the uid: give plain values, or leave the field out of the uid")
