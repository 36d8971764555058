"""The schema of a model or dataclass: fields, defaults, expected types, names left out of the identity.

A record is a pydantic model or a dataclass. Its class is read once; no value is looked at here.
"""

from __future__ import annotations

import collections.abc
import copy
import dataclasses
import difflib
import functools
import types
import typing as tp

from . import pydantic_types

if tp.TYPE_CHECKING:
    import pydantic

T = tp.TypeVar("T")
MISSING: tp.Any = object()
EXCLUSION_ATTRIBUTES = ("_exclude_from_class_uid", "_exclude_from_cls_uid", "_exclude_from_cache_uid")
IDENTITY_FIELDS_ATTRIBUTE = "_exca_identity_fields"  # of a class of which these fields count, and no other

NameTree = tp.Mapping[str, tp.Any]
"""Names to leave out, as a tree: ``{"device": {}, "optim": {"lr": {}}}``; an empty tree is the end of a name."""
NO_NAMES: NameTree = types.MappingProxyType({})


class UnfitError(Exception):
    """A value cannot be part of an identity. ``parts`` is its path, innermost first."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.parts: list[str] = []


@dataclasses.dataclass(frozen=True)
class ExpectedType:
    """The records that an annotation allows at one place.

    ``classes`` are those that need not say their name, because nothing else can stand there or because the
    discriminator ``keys`` tell them apart. ``tagged``: a callable discriminator, so the class is always shown.
    ``items`` is the same for the elements of a container.
    """

    classes: tuple[type, ...] = ()
    keys: tuple[str, ...] = ()
    tagged: bool = False
    items: ExpectedType | None = None

    @functools.cached_property
    def is_plain(self) -> bool:
        """Whether no record is promised, at any depth: then nothing depends on the annotation for a value without."""
        return not (self.classes or self.keys or self.tagged) and (self.items is None or self.items.is_plain)

    @functools.cached_property
    def only_class(self) -> type | None:
        """The class of all records that can stand here, if there is one and nothing says so but the annotation."""
        return self.classes[0] if len(self.classes) == 1 and not (self.keys or self.tagged) else None


ANYTHING = ExpectedType()


@dataclasses.dataclass(frozen=True)
class Default:
    """A default: a ``value``, or a ``factory`` that makes one; neither where there is none that can be known.

    ``field_type`` is the type of its field if that may hold the default as another value, else MISSING, and ``config``
    is that of the model. ``is_validated``: what is written becomes that value where nothing is given, too. ``forms``
    holds canonical forms of ``value`` once they are computed, for walks without ``by_type`` and with it: a default
    belongs to its class and stays.
    """

    value: tp.Any = MISSING
    factory: tp.Callable[[], tp.Any] | None = None
    field_type: tp.Any = MISSING
    config: tp.Any = None
    is_validated: bool = False
    forms: tuple[dict[str, tp.Any], dict[str, tp.Any]] = dataclasses.field(
        default_factory=lambda: ({}, {}), compare=False
    )

    def make_value(self) -> tp.Any:
        """The default as it is written."""
        return self.value if self.factory is None else self.factory()

    def held_by_type(self) -> tp.Any:
        """The default as a field holds it that is given this value: 3 in a float field is 3.0. MISSING if it cannot."""
        try:
            return MISSING if self._validate is None else self._validate(copy.deepcopy(self.make_value()))
        except Exception:  # noqa: BLE001 - validators are the user's code; then the default is what is written
            return MISSING

    @functools.cached_property
    def _validate(self) -> tp.Callable[[tp.Any], tp.Any] | None:
        return None if self.field_type is MISSING else pydantic_types.validator_of(self.field_type, self.config)


CountedField: tp.TypeAlias = tuple[str, ExpectedType, Default, NameTree]
"""A field that is part of the identity: name, expected type, default, and the names left out of its value."""


@dataclasses.dataclass(frozen=True)
class RecordSchema:
    """The schema of one class. ``fields`` are sorted by name, so that reordering them changes no identity."""

    cls: type
    fields: tuple[tuple[str, ExpectedType, Default], ...]
    is_model: bool
    allows_extra: bool
    declared: tuple[str, ...]  # their names, in the order of the class
    exclusions: tuple[tp.Any, ...]  # tuples of names, and descriptors that give some for an instance
    identity_fields: tuple[str, ...] | None = None  # where the class says which of its fields count, and no other

    @functools.cached_property
    def names(self) -> frozenset[str]:
        return frozenset(name for name, _, _ in self.fields)

    @functools.cached_property
    def fixed_exclusions(self) -> NameTree | None:
        """The names that the class leaves out, None if that depends on the instance."""
        if any(hasattr(raw, "__get__") for raw in self.exclusions):
            return None
        return self._make_excluded_tree(None)

    @functools.cached_property
    def fixed_fields(self) -> tuple[tuple[CountedField, ...], tuple[str, ...]] | None:
        """The fields that count and the names left out, None if that depends on the instance."""
        excluded = self.fixed_exclusions
        return None if excluded is None else (self.all_fields(excluded), leaf_names(excluded))

    def counted_fields(
        self, instance: tp.Any, skip: NameTree, by_uid: bool = True
    ) -> tuple[tuple[CountedField, ...], tuple[str, ...]]:
        """The fields of ``instance`` but for ``skip``, and the names that its class leaves out.

        With ``by_uid`` these are not among the fields; without it nothing is left out.
        """
        if not by_uid:
            return self.all_fields(skip), ()
        if self.fixed_fields is not None and not skip:
            return self.fixed_fields
        excluded = self.excluded_tree(instance)
        return self.all_fields(merge_trees(skip, excluded)), leaf_names(excluded)

    def all_fields(self, skip: NameTree) -> tuple[CountedField, ...]:
        """The fields but for ``skip``, each with the names left out of it."""
        return tuple(
            (name, expect, default, skip.get(name, NO_NAMES))
            for name, expect, default in self.fields
            if name not in skip or skip[name]
        )

    def excluded_tree(self, instance: tp.Any) -> NameTree:
        """The names that this class leaves out of the identity of ``instance``."""
        fixed = self.fixed_exclusions
        return self._make_excluded_tree(instance) if fixed is None else fixed

    def _make_excluded_tree(self, instance: tp.Any) -> NameTree:
        names = [name for raw in self.exclusions for name in _names(self.cls, raw, instance)]
        skip = name_tree(names)
        self.check_names(skip, self.names)
        return skip

    def values(self, instance: tp.Any) -> tp.Mapping[str, tp.Any]:
        """The values of its fields, by name; one that was deleted is missing."""
        if self.is_model:
            return tp.cast("dict[str, tp.Any]", instance.__dict__)
        return {name: getattr(instance, name) for name in self.names if hasattr(instance, name)}

    def extra_values(self, instance: tp.Any) -> dict[str, tp.Any]:
        """The values of an instance that are not fields, if its class allows extra ones."""
        if not self.allows_extra:
            return {}
        if self.is_model:
            return instance.model_extra or {}
        # a pydantic dataclass keeps them among its attributes, where cached properties are too
        return {name: v for name, v in vars(instance).items() if name not in self.names and not hasattr(self.cls, name)}

    def check_names(self, skip: NameTree, known: tp.Collection[str]) -> None:
        """Raises for the first name that is none of ``known``, unless this class takes any name."""
        unknown = [name for name in skip if name not in known]
        if unknown and not self.allows_extra:
            hint = name_hint(unknown[0], known)
            raise UnfitError(f"cannot leave out {unknown[0]!r}: {self.cls.__qualname__} has no such field{hint}")


def cached_per_class(function: tp.Callable[[type], T]) -> tp.Callable[[type], T]:
    """A decorator that caches a function of one class."""
    return functools.lru_cache(maxsize=4096)(function)


def is_record(cls: tp.Any) -> bool:
    return isinstance(cls, type) and (pydantic_types.is_model_class(cls) or dataclasses.is_dataclass(cls))


is_record_class = cached_per_class(is_record)


@cached_per_class
def record_schema(cls: type) -> RecordSchema:
    """The schema of a model or dataclass; computed once per class (0.1 ms)."""
    is_model = pydantic_types.is_model_class(cls)
    infos = cls.model_fields if pydantic_types.is_model_class(cls) else getattr(cls, "__pydantic_fields__", None)
    config = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None) or {}
    if infos is not None:
        fields = {name: (_expect_of_info(info), _default_of_info(info, config)) for name, info in infos.items()}
    else:
        fields = _dataclass_fields(cls)
    counted = getattr(cls, IDENTITY_FIELDS_ATTRIBUTE, None)
    return RecordSchema(
        cls=cls,
        fields=tuple((name, *fields[name]) for name in sorted(fields)),
        is_model=is_model,
        allows_extra=config.get("extra") == "allow",
        declared=tuple(fields),
        exclusions=_exclusions(cls, fields, counted),
        identity_fields=counted,
    )


def _expect_of_info(info: pydantic.fields.FieldInfo) -> ExpectedType:
    return expected_type(info.annotation, [info, *info.metadata])


def _default_of_info(info: pydantic.fields.FieldInfo, config: tp.Any) -> Default:
    if getattr(info, "default_factory_takes_validated_data", False):  # since pydantic 2.10
        return Default()
    factory = tp.cast("tp.Callable[[], tp.Any] | None", info.default_factory)
    if factory is None and info.is_required():
        return Default()
    validates = config.get("validate_default") if info.validate_default is None else info.validate_default
    default = Default(MISSING if factory else info.default, factory, is_validated=bool(validates))
    return _typed_default(default, info.annotation, pydantic_types.metadata_of(info), config)


_CONVERTS = frozenset(("str_strip_whitespace", "str_to_lower", "str_to_upper", "use_enum_values"))


def _typed_default(default: Default, annotation: tp.Any, metadata: tp.Sequence[tp.Any], config: tp.Any) -> Default:
    """The default with the type of its field, unless that holds it as it is written."""
    if isinstance(default.factory, type) or default.value is None:
        return default
    members = tp.get_args(annotation) if tp.get_origin(annotation) in (tp.Union, types.UnionType) else [annotation]
    is_exact = any(member is tp.Any or member is type(default.value) for member in members)
    if is_exact and not metadata and not _CONVERTS.intersection(config or ()):
        return default
    whole = tp.Annotated[(annotation, *metadata)] if metadata else annotation
    return dataclasses.replace(default, field_type=whole, config=config)


def _dataclass_fields(cls: tp.Any) -> dict[str, tuple[ExpectedType, Default]]:
    try:
        hints = tp.get_type_hints(cls, include_extras=True)
    except Exception:  # noqa: BLE001 - names that only a type checker can resolve: nothing is expected, so classes are shown
        hints = {}
    fields = {}
    for field in dataclasses.fields(cls):
        default = Default()
        if field.default is not dataclasses.MISSING:
            default = Default(value=field.default)
        elif field.default_factory is not dataclasses.MISSING:
            default = Default(factory=field.default_factory)
        annotation = hints.get(field.name, tp.Any)
        fields[field.name] = (expected_type(annotation), _typed_default(default, annotation, (), None))
    return fields


# -- annotations ----------------------------------------------------------------------------------------------------

_SCALARS = (int, float, str, bool, bytes, type(None))  # never taken for a record, so they leave no doubt


def expected_type(
    annotation: tp.Any, metadata: tp.Sequence[tp.Any] = (), aliases: tuple[tp.Any, ...] = ()
) -> ExpectedType:
    """The records that ``annotation`` allows; ``aliases`` are the named types around it."""
    origin, args = tp.get_origin(annotation), tp.get_args(annotation)
    if origin is tp.Annotated:
        return expected_type(args[0], [*args[1:], *metadata], aliases)
    if hasattr(annotation, "__value__"):  # type Pet = Cat | Dog; one that refers to itself promises nothing below
        known = annotation in aliases
        return ANYTHING if known else expected_type(annotation.__value__, metadata, (*aliases, annotation))
    if origin in (tp.Union, types.UnionType):
        return _expect_union(args, metadata, aliases)
    if origin is tp.Final and args:
        return expected_type(args[0], metadata, aliases)
    if is_record(origin or annotation):
        return ExpectedType(classes=(origin or annotation,))
    if isinstance(origin, type) and issubclass(origin, collections.abc.Mapping) and len(args) == 2:
        return ExpectedType(items=expected_type(args[1], (), aliases))
    if isinstance(origin, type) and issubclass(origin, collections.abc.Iterable):
        return ExpectedType(items=_merge([expected_type(arg, (), aliases) for arg in args if arg is not ...], False))
    return ANYTHING


def _expect_union(
    members: tp.Sequence[tp.Any], metadata: tp.Sequence[tp.Any], aliases: tuple[tp.Any, ...]
) -> ExpectedType:
    discriminators = [d for d in map(_discriminator, metadata) if d is not None]
    options = [expected_type(member, (), aliases) for member in members if not _is_scalar(member)]
    found = _merge(options, bool(discriminators))
    keys = dict.fromkeys([*(d for d in discriminators if isinstance(d, str)), *found.keys])
    return dataclasses.replace(found, keys=tuple(keys), tagged=found.tagged or any(map(callable, discriminators)))


def _is_scalar(member: tp.Any) -> bool:
    if tp.get_origin(member) is tp.Annotated:
        return _is_scalar(tp.get_args(member)[0])
    return member in _SCALARS or tp.get_origin(member) is tp.Literal


def _discriminator(metadata: tp.Any) -> tp.Any:
    found = getattr(metadata, "discriminator", None)  # of a Field(...), or of a Discriminator(...)
    return (
        _discriminator(found) if isinstance(found, pydantic_types.loaded_pydantic("types", "Discriminator")) else found
    )


def _merge(options: tp.Sequence[ExpectedType], told_apart: bool) -> ExpectedType:
    """The options of a union as one; their classes are only sure when a discriminator tells them apart."""
    if len(options) < 2:
        return options[0] if options else ANYTHING
    items = [option.items or ANYTHING for option in options if not option.classes]
    return ExpectedType(
        classes=tuple(cls for option in options for cls in option.classes) if told_apart else (),
        keys=tuple(dict.fromkeys(key for option in options for key in option.keys)),
        tagged=any(option.tagged for option in options),
        items=_merge(items, False) if any(option.items for option in options) else None,
    )


# -- exclusions -----------------------------------------------------------------------------------------------------


def _exclusions(cls: type, fields: tp.Iterable[str], counted: tuple[str, ...] | None) -> tuple[tp.Any, ...]:
    if counted is not None:
        return (tuple(name for name in fields if name not in counted),)
    return tuple(raw for name in EXCLUSION_ATTRIBUTES if (raw := _declared(cls, name)) is not MISSING)


def _declared(cls: type, name: str) -> tp.Any:
    """The attribute ``name`` of the nearest class in the MRO, MISSING if none has it.

    Pydantic makes private attributes of underscore variables, out of ``vars``, and copies those of the bases.
    """
    for position, base in enumerate(cls.__mro__):
        if name in vars(base):
            return vars(base)[name]
        private = getattr(base, "__private_attributes__", {}).get(name)
        inherited = [getattr(b, "__private_attributes__", {}).get(name) for b in cls.__mro__[position + 1 :]]
        if private is not None and not any(private is other for other in inherited):
            return private.get_default()
    return MISSING


def _names(cls: type, raw: tp.Any, instance: tp.Any) -> list[str]:
    if hasattr(raw, "__get__"):
        raw = raw.__get__(instance, cls)
    if callable(raw):
        raw = raw()
    if isinstance(raw, str):
        raise UnfitError(f"what {cls.__qualname__} leaves out of its uid is the string {raw!r}: write ({raw!r},)")
    if not isinstance(raw, (tuple, list, set, frozenset)) or not all(isinstance(name, str) for name in raw):
        raise UnfitError(f"what {cls.__qualname__} leaves out of its uid must be a tuple of names, not {raw!r}")
    return sorted(raw)


def name_tree(names: tp.Iterable[str]) -> NameTree:
    """Dotted names as a tree: where ``optim`` and ``optim.lr`` meet, the shorter wins."""
    root: dict[str, tp.Any] = {}
    for name in sorted(set(names), key=len, reverse=True):
        *parents, last = name.split(".")
        node = root
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = {}
    return root


def merge_trees(one: NameTree, other: NameTree) -> NameTree:
    """The union of both trees; a name that ends in either ends."""
    if not one or not other:
        return one or other
    result = {**one, **other}
    for name in one.keys() & other.keys():
        result[name] = merge_trees(one[name], other[name]) if one[name] and other[name] else {}
    return result


def name_hint(name: str, known: tp.Collection[str]) -> str:
    """The end of a message about an unknown name: similar names, or the valid ones."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {', '.join(close)}?"
    return f"; valid names: {', '.join(sorted(known)[:10])}" if known else "; there are no names"


def leaf_names(skip: NameTree) -> tuple[str, ...]:
    """The dotted names of a tree."""
    names = (f"{name}.{below}" if below else name for name in skip for below in (leaf_names(skip[name]) or [""]))
    return tuple(sorted(names))
