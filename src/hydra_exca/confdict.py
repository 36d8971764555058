"""A dictionary for configurations: dotted names, updates that merge, YAML, and export of pydantic models."""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
import types
import typing as tp
from collections import OrderedDict
from pathlib import Path, PurePath

import pydantic
import pydantic_core

from . import script
from .errors import ConfigError
from .identity import model_schema, uid
from .identity.canonical import NamedErrors, Walk
from .identity.model_schema import ANYTHING, MISSING, NO_NAMES, Default, ExpectedType, NameTree, UnfitError
from .identity.scalars import LEAVES, SCALARS, class_name, scalar_rule

__all__ = ["ConfDict"]

Patch: tp.TypeAlias = tp.Mapping[str, tp.Any] | tp.Iterable[tuple[str, tp.Any]]


class ConfDictOps:
    """The operations that a patch can contain; any other text of the form ``=...=`` is refused as a typo."""

    REPLACE, DELETE, BEFORE, AFTER = "=replace=", "=delete=", "=before=", "=after="

    @classmethod
    def is_op(cls, value: tp.Any) -> bool:
        """Whether ``value`` is one of the four; ValueError if it only looks like one."""
        if not isinstance(value, str) or not re.fullmatch("=.+=", value):
            return False
        if value not in _OPS:
            raise ValueError(f"{value!r} is not an operation: choose one of {', '.join(_OPS)}")
        return True


_OPS = (ConfDictOps.REPLACE, ConfDictOps.DELETE, ConfDictOps.BEFORE, ConfDictOps.AFTER)


class ConfDict(dict[str, tp.Any]):
    """A nested dictionary whose keys can be dotted names; what is put in is merged with what is there.

    >>> config = ConfDict({"optim.lr": 0.1}, seed=3)
    >>> config.update({"optim": {"name": "sgd"}})
    >>> config
    {'seed': 3, 'optim': {'lr': 0.1, 'name': 'sgd'}}
    >>> config.update({"optim": {"=replace=": True, "name": "adam"}})
    >>> config.flat()
    {'seed': 3, 'optim.name': 'adam'}
    """

    ops = ConfDictOps
    OVERRIDE = ConfDictOps.REPLACE  # its older name
    LATEST_UID_VERSION = UID_VERSION = uid.SCHEME

    def __init__(self, mapping: Patch | None = None, **kwargs: tp.Any) -> None:
        super().__init__()
        self.update(mapping, **kwargs)

    @classmethod
    def from_model(cls, model: pydantic.BaseModel, uid: bool = False, exclude_defaults: bool = False) -> ConfDict:
        """The values of a model: sub-models become dictionaries, all other values stay the same objects.

        ``uid``: without the fields that the classes leave out of their uid; of an infra only the version.
        ``exclude_defaults``: without the fields that have their default; those with a discriminator stay. Raises
        TypeError for anything but a model, ConfigError for exclusions that name no field.

        >>> class Optim(pydantic.BaseModel):
        ...     name: str = "sgd"
        ...     lr: float = 0.1
        >>> ConfDict.from_model(Optim(lr=0.2), exclude_defaults=True)
        {'lr': 0.2}
        """
        if not model_schema.is_record(type(model)):
            raise TypeError(f"a {type(model).__qualname__} is not a model: give an instance of a pydantic model")
        with NamedErrors():
            return _literal(cls, _export(model, uid, exclude_defaults))

    @classmethod
    def from_yaml(cls, yaml: str | Path | tp.IO[str] | tp.IO[bytes]) -> ConfDict:
        """Reads YAML from a text, a path (also as a text of one line), or an open file.

        Raises TypeError if the content is not a mapping.

        >>> ConfDict.from_yaml("optim.lr: 0.1\\nseed: 3\\n")
        {'optim': {'lr': 0.1}, 'seed': 3}
        """
        import yaml as pyyaml  # here and below: an import of hydra_exca does without its 10 ms

        is_file = isinstance(yaml, Path) or (isinstance(yaml, str) and "\n" not in yaml and os.path.isfile(yaml))
        content = pyyaml.safe_load(Path(tp.cast(str, yaml)).read_bytes() if is_file else tp.cast(str, yaml))
        if not isinstance(content, dict):
            raise TypeError(f"{yaml!r} is neither a file nor a mapping in YAML: it contains {content!r}")
        return cls(content)

    @classmethod
    def from_args(cls, args: tp.Sequence[str]) -> ConfDict:
        """Reads arguments like ``--a.b=3``; the values are text, which a pydantic model converts.

        Raises ValueError for an argument of any other form.

        >>> ConfDict.from_args(["--optim.lr=0.1"])
        {'optim': {'lr': '0.1'}}
        """
        wrong = [arg for arg in args if not arg.startswith("--") or "=" not in arg]
        if wrong:
            raise ValueError(f"arguments must have the form --name=value; invalid: {wrong}")
        return cls(dict(arg.lstrip("-").split("=", 1) for arg in args))

    def __getitem__(self, key: str) -> tp.Any:
        return _get_value(self, key)

    def get(self, key: str, default: tp.Any = None) -> tp.Any:
        try:
            return _get_value(self, key)
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        return self.get(tp.cast(str, key), MISSING) is not MISSING

    def __setitem__(self, key: str, value: tp.Any) -> None:
        _check_patch({key: value})
        _put_value(self, key, value)

    def setdefault(self, key: str, default: tp.Any = None) -> tp.Any:
        if key not in self:
            self[key] = default
        return self[key]

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def pop(self, key: str, default: tp.Any = MISSING) -> tp.Any:
        above, _, last = ("", "", key) if dict.__contains__(self, key) else key.rpartition(".")
        parent = self.get(above) if above else self
        if isinstance(parent, dict) and dict.__contains__(parent, last):
            return _base_class(parent).pop(parent, last)
        if default is MISSING:
            raise KeyError(key)
        return default

    def update(self, mapping: Patch | None = None, **kwargs: tp.Any) -> None:  # type: ignore[override]
        """Merges a patch: dictionaries into dictionaries; any other value replaces the present one.

        A key ``"=replace="`` with True empties its dictionary first, a value ``"=delete="`` removes its key, and
        ``{"=before=": other}`` or ``"=after="`` in a dictionary move it next to a sibling.
        """
        patch = {**kwargs, **dict(mapping or {})}
        _check_patch(patch)
        _merge_patch(self, patch)

    def __ior__(self, other: tp.Any) -> ConfDict:  # type: ignore[override,misc]
        self.update(other)
        return self

    def copy(self) -> ConfDict:
        """A copy whose dictionaries and lists are new; the values in them are the same objects."""
        return tp.cast(ConfDict, _copy_value(self))

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return _literal, (type(self), dict(self)), vars(self) or None

    def flat(self) -> dict[str, tp.Any]:
        """All values by their dotted names; an empty dictionary contributes nothing."""
        return tp.cast("dict[str, tp.Any]", _flat_value(self))

    def to_yaml(self, filepath: Path | str | None = None) -> str:
        """The YAML text, also written to ``filepath`` if given. A dictionary of one key is joined to its parent.

        >>> print(ConfDict({"optim": {"lr": 0.1}}).to_yaml(), end="")
        optim.lr: 0.1
        """
        import yaml as pyyaml

        text: str = pyyaml.safe_dump(_compact(self), sort_keys=False, allow_unicode=True)
        if filepath is not None:
            Path(filepath).write_text(text, encoding="utf8")
        return text

    def to_uid(self, version: int | None = None) -> str:
        """A file name: a readable part and a digest, which is the same only for equal contents.

        ``version`` is accepted for compatibility and ignored. Raises ValueError for operations not yet applied.

        >>> ConfDict({"lr": 0.1}).to_uid()
        'lr=0.1-b81ad5cf'
        """
        return uid.make_identity("", "", uid.canonical(_without_operations(self))).uid()


# -- dotted names: a key that is there as it stands goes before its parts ---------------------------------------------


def _get_value(node: tp.Any, key: str) -> tp.Any:
    if isinstance(node, dict) and isinstance(key, str):
        head, rest = _split_key(node, key)
        found = dict.__getitem__(node, head)
    else:
        head, _, rest = str(key).partition(".")
        if not isinstance(node, (list, tuple)) or not head.isdecimal() or int(head) >= len(node):
            raise KeyError(key)
        found = node[int(head)]
    return _get_value(found, rest) if rest else found


def _split_key(node: dict[str, tp.Any], key: str) -> tuple[str, str]:
    head, _, rest = (key, "", "") if dict.__contains__(node, key) else key.partition(".")
    return head, rest


def _base_class(node: dict[str, tp.Any]) -> tp.Any:
    """The class whose plain methods keep the node sound: an OrderedDict knows its order besides."""
    return OrderedDict if isinstance(node, OrderedDict) else dict


def _put_value(node: tp.Any, key: str, value: tp.Any) -> tp.Any:
    """``node`` with a value merged in below a dotted name: itself, but for a tuple or what has no keys."""
    if isinstance(node, (list, tuple)):
        return _put_item(node, key, value)
    if not isinstance(node, dict):
        node = ConfDict()
    head, rest = _split_key(node, key)
    old = dict.get(node, head, MISSING)
    if not rest and old is not MISSING and _is_delete(value):
        _base_class(node).pop(node, head)
        return node
    _base_class(node).__setitem__(node, head, _put_value(old, rest, value) if rest else _merged(old, value))
    if not rest and isinstance(value, dict) and not isinstance(value, OrderedDict):
        _move_key(node, head)
    return node


def _put_item(node: tp.Any, key: str, value: tp.Any) -> tp.Any:
    head, _, rest = key.partition(".")
    if not head.isdecimal() or (not rest and _is_delete(value)):
        raise TypeError(f"cannot put {value!r} at {key!r} of {node!r}: lists have indices, and keep their length")
    items = list(node) if isinstance(node, tuple) else node
    items[int(head)] = _put_value(items[int(head)], rest, value) if rest else _merged(MISSING, value)
    return _same_sequence(node, items) if isinstance(node, tuple) else node


def _is_delete(value: tp.Any) -> bool:
    return isinstance(value, str) and value == ConfDictOps.DELETE


def _merged(old: tp.Any, value: tp.Any) -> tp.Any:
    """The new value in place of ``old``; containers are copied, since the caller may change its own later."""
    if not isinstance(value, dict) or isinstance(value, OrderedDict):
        return _map_elements(value, lambda child: _merged(MISSING, child))
    target = old if isinstance(old, dict) else ConfDict()
    _merge_patch(target, value)
    return target


def _merge_patch(target: dict[str, tp.Any], patch: tp.Mapping[str, tp.Any]) -> None:
    items = dict(patch)
    if target and items.pop(ConfDictOps.REPLACE, False):
        target.clear()
    for key, value in items.items():
        _put_value(target, key, value)


def _check_patch(patch: tp.Any) -> None:
    """Refuses a patch before any of it is applied."""
    if isinstance(patch, dict):
        for key, value in patch.items():
            if not isinstance(key, str):
                raise TypeError(f"keys must be str, not {key!r}")
            any(map(ConfDictOps.is_op, key.split(".")))
            if ConfDictOps.is_op(value) and value != ConfDictOps.DELETE:
                raise ValueError(f"{value!r} is no value: write it as a key in a dictionary")
            _check_patch(value)
    elif isinstance(patch, (list, tuple)):
        for item in patch:
            _check_patch(item)


def _move_key(node: dict[str, tp.Any], key: str) -> None:
    """Moves ``key`` as its dictionary asks, once the sibling that it names is there."""
    child = dict.__getitem__(node, key)
    asked = [op for op in (ConfDictOps.BEFORE, ConfDictOps.AFTER) if dict.__contains__(child, op)]
    if not asked:
        return
    sibling = dict.__getitem__(child, asked[0])
    if not isinstance(sibling, str):
        raise TypeError(f"{asked[0]!r} takes the name of a key, not {sibling!r}")
    if len(asked) > 1 or sibling == key:
        raise ValueError(f"{key!r} must be moved before or after one other key")
    if dict.__contains__(node, sibling):
        _base_class(child).pop(child, asked[0])
        order = [name for name in node if name != key]
        order.insert(order.index(sibling) + (asked[0] == ConfDictOps.AFTER), key)
        for name in order:  # each goes to the end in turn
            _base_class(node).__setitem__(node, name, _base_class(node).pop(node, name))


# -- other forms ------------------------------------------------------------------------------------------------------


def _map_elements(value: tp.Any, function: tp.Callable[[tp.Any], tp.Any]) -> tp.Any:
    """A container with a function applied to its elements; any other value unchanged."""
    if isinstance(value, dict):
        pairs = [(key, function(child)) for key, child in value.items()]
        return OrderedDict(pairs) if isinstance(value, OrderedDict) else dict(pairs)
    return _same_sequence(value, list(map(function, value))) if isinstance(value, (list, tuple)) else value


def _same_sequence(value: tp.Any, items: list[tp.Any]) -> tp.Any:
    return type(value)._make(items) if hasattr(value, "_make") else type(value)(items)


def _literal(cls: type[ConfDict], items: tp.Mapping[str, tp.Any]) -> ConfDict:
    """A ConfDict of keys that are not split at dots. Stored pickles name this function: it keeps its name."""
    made = dict.__new__(cls) if cls is ConfDict else cls()
    dict.update(made, items)
    return made


def _copy_value(value: tp.Any) -> tp.Any:
    copied = _map_elements(value, _copy_value)
    return _literal(type(value), copied) if isinstance(value, ConfDict) else copied


def _without_operations(value: tp.Any) -> tp.Any:
    """Plain dictionaries for a uid. Raises ValueError for an operation that has not been applied."""
    waiting = {value} if isinstance(value, str) else set(value) if isinstance(value, dict) else set()
    if not waiting.isdisjoint(_OPS):
        raise ValueError(f"{value!r} has not been applied: a patch has no uid")
    return _map_elements(value, _without_operations)


def _flat_value(value: tp.Any) -> tp.Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    flat = _map_elements(value, _flat_value)
    return dict(pair for key in flat for pair in _joined_keys(key, flat[key])) if isinstance(value, dict) else flat


def _joined_keys(key: str, child: tp.Any) -> list[tuple[str, tp.Any]]:
    return [(f"{key}.{name}", leaf) for name, leaf in child.items()] if isinstance(child, dict) else [(key, child)]


def _compact(value: tp.Any) -> tp.Any:
    """A value that YAML can write; a dictionary of one key is joined to its parent, but for an OrderedDict."""
    if not isinstance(value, dict):
        return list(map(_compact, value)) if isinstance(value, (list, tuple)) else _yaml_leaf(value)
    pairs: list[tuple[str, tp.Any]] = []
    for key, child in value.items():
        squeezed = _compact(child)
        joined = isinstance(squeezed, dict) and len(squeezed) == 1 and not isinstance(child, OrderedDict)
        pairs += _joined_keys(key, squeezed) if joined else [(key, squeezed)]
    return dict(pairs)


def _yaml_leaf(value: tp.Any) -> tp.Any:
    if value is None or type(value) in (bool, int, float, str, bytes, datetime.date, datetime.datetime):
        return value
    if isinstance(value, (set, frozenset)):
        return sorted(map(_compact, value), key=repr)  # sets of text have another order in every process
    if hasattr(value, "tolist"):  # of numpy and torch
        return value.tolist()
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return f"{script.module_in_each_python(value)}.{value.__qualname__}"  # as `pydantic.ImportString` reads it
    try:
        return str(value) if isinstance(value, PurePath) else pydantic_core.to_jsonable_python(value)
    except ValueError as error:
        if type(value) in LEAVES or scalar_rule(type(value)) is not None:
            return str(value)
        raise ConfigError(f"a {class_name(type(value))} cannot be written as yaml: {value!r}") from error


# -- models -----------------------------------------------------------------------------------------------------------


def _export(
    value: tp.Any, by_uid: bool, lean: bool, expect: ExpectedType = ANYTHING, skip: NameTree = NO_NAMES
) -> tp.Any:
    """Records as dictionaries, without ``skip``, and other values as they are.

    ``by_uid``: without what the classes leave out of their uid, too; ``lean``: without what is the default.
    """
    if type(value) in SCALARS:
        return value
    if model_schema.is_record_class(type(value)):
        return _export_record(value, by_uid, lean, expect, skip)
    items = expect.items or ANYTHING
    if isinstance(value, dict):
        pairs = [
            (str(getattr(key, "value", key)), _export(child, by_uid, lean, items, skip.get(key, NO_NAMES)))
            for key, child in value.items()
            if key not in skip or skip[key]
        ]
        return OrderedDict(pairs) if isinstance(value, OrderedDict) else _literal(ConfDict, dict(pairs))
    return _map_elements(value, lambda item: _export(item, by_uid, lean, items))


def _export_record(value: tp.Any, by_uid: bool, lean: bool, expect: ExpectedType, skip: NameTree) -> ConfDict:
    schema = model_schema.record_schema(type(value))
    if by_uid and schema.identity_fields is not None:
        counted = {name: _export(getattr(value, name), by_uid, lean) for name in schema.identity_fields}
        return _literal(ConfDict, counted)
    values, shown = schema.values(value), {}
    left_out = model_schema.merge_trees(skip, schema.excluded_tree(value)) if by_uid else skip
    for name, option, default, below in schema.all_fields(left_out):
        if name in values and (
            not lean or name in expect.keys or _is_shown(values[name], by_uid, option, default, below)
        ):
            shown[name] = _export(values[name], by_uid, lean, option, below)
    extra = _export(schema.extra_values(value), by_uid, lean, ANYTHING, left_out)
    return _literal(ConfDict, {**extra, **{name: shown[name] for name in schema.declared if name in shown}})


def _is_shown(value: tp.Any, by_uid: bool, expect: ExpectedType, default: Default, skip: NameTree) -> bool:
    """Whether a field is not the default, by the rules of identities, or holds a record with a discriminator."""
    if value is default.value and type(value) in SCALARS:
        return False
    walk = Walk(by_uid)
    try:
        form = walk.forms(value, expect, skip)[1]
    except (UnfitError, RecursionError):  # a type without a rule
        return walk.forced > 0 or value is not default.value
    return walk.forced > 0 or walk.default_form(form, expect, default, skip) is MISSING
