"""Clones of objects: what is not changed keeps its class and its value, whatever validation would make of it."""

from __future__ import annotations

import contextlib
import copy
import typing as tp

import pydantic

from hydra_exca.confdict import ConfDict
from hydra_exca.identity import model_schema
from hydra_exca.identity.model_schema import MISSING

from .binding import Bindable, attach_infra, class_infras

_Tree: tp.TypeAlias = tp.Any  # a part of a ConfDict


def clone(model: pydantic.BaseModel, patch: tp.Mapping[str, tp.Any]) -> tp.Any:
    """A copy of a model with the changes of a ConfDict's patch.

    Raises pydantic.ValidationError if they do not fit its class.
    """
    if not patch:
        return _copied(model)
    names = ConfDict(patch)
    old = ConfDict.from_model(model, exclude_defaults=True)
    _open(model, old, names)
    new = old.copy()
    new.update(patch)
    fields = {**_infras(model), **_changed_fields(model, old, _plain(new), names)}
    return _with_private_infras(type(model).model_validate(_as_input(type(model), fields)), model)


# -- what is changed --------------------------------------------------------------------------------------------------


def _open(value: tp.Any, tree: _Tree, patch: _Tree) -> None:
    """Adds what a patch goes into, and is not there as it is the default; of infras the settings that were given."""
    for name, below in patch.items():
        child = _child(value, name)
        if not isinstance(below, dict) or not isinstance(tree, dict):
            continue
        if isinstance(child, Bindable):
            dict.__setitem__(tree, name, child.settings())
        elif isinstance(child, dict) or model_schema.is_record(type(child)):
            if not dict.__contains__(tree, name):
                exported = ConfDict.from_model(_Holder(value=child), exclude_defaults=True)
                dict.__setitem__(tree, name, exported["value"])
            _open(child, dict.__getitem__(tree, name), below)


class _Holder(pydantic.BaseModel):
    """Any value as a part of a model, which ConfDict exports."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    value: tp.Any


def _child(value: tp.Any, name: str) -> tp.Any:
    if model_schema.is_record(type(value)):
        return _values(value).get(name, MISSING)
    return value.get(name, MISSING) if isinstance(value, dict) else MISSING


def _changed(value: tp.Any, old: _Tree, new: _Tree, patch: _Tree) -> tp.Any:
    """What validation is given for a value: of unchanged parts, copies."""
    if _is_same(old, new):
        return _copied(value)
    patch = patch if isinstance(patch, dict) else {}
    if isinstance(old, dict) and isinstance(new, dict) and not patch.get(ConfDict.OVERRIDE):
        return _changed_dict(value, old, new, patch)
    if isinstance(value, (list, tuple)) and isinstance(new, (list, tuple)) and len(value) == len(new) == len(old):
        parts = zip(value, old, new, map(str, range(len(new))), strict=True)
        return [_changed(child, before, after, patch.get(index)) for child, before, after, index in parts]
    return new


def _changed_dict(value: tp.Any, old: _Tree, new: _Tree, patch: _Tree) -> tp.Any:
    """The same for a record or a dictionary, of which both trees have the parts."""
    if model_schema.is_record(type(value)) and not isinstance(value, Bindable):
        return _changed_record(value, old, new, patch)
    if not isinstance(value, dict):
        return new
    items = {_exported_key(key): (key, child) for key, child in value.items()}
    return type(new)(_changed_item(items.get(name), old, new, patch, name) for name in new)


def _changed_item(item: tuple[tp.Any, tp.Any] | None, old: _Tree, new: _Tree, patch: _Tree, name: str) -> tp.Any:
    """Key and value of one item of a dictionary."""
    after = dict.__getitem__(new, name)
    if item is None or not dict.__contains__(old, name):
        return name if item is None else item[0], after
    return item[0], _changed(item[1], dict.__getitem__(old, name), after, patch.get(name))


def _plain(tree: _Tree) -> _Tree:
    """The dictionaries that merging has made as those of a new object: a field of any type keeps the class."""
    if type(tree) is ConfDict:
        return {name: _plain(child) for name, child in tree.items()}
    return list(map(_plain, tree)) if type(tree) is list else tree


def _exported_key(key: tp.Any) -> str:
    return str(getattr(key, "value", key))  # as ConfDict.from_model has it


def _changed_record(value: tp.Any, old: _Tree, new: _Tree, patch: _Tree) -> tp.Any:
    """A changed part: of its own class if that takes the changes, or else whatever class its field makes of them."""
    schema, fields = model_schema.record_schema(type(value)), _changed_fields(value, old, new, patch)
    if schema.allows_extra or schema.names.issuperset(new):
        with contextlib.suppress(pydantic.ValidationError):
            data = _as_input(type(value), {**_infras(value), **fields})
            return _with_private_infras(pydantic.TypeAdapter(type(value)).validate_python(data), value)
    return _as_input(type(value), fields)


def _changed_fields(value: tp.Any, old: _Tree, new: _Tree, patch: _Tree) -> dict[str, tp.Any]:
    values, fields = {**_extra(value), **_values(value)}, {}
    for name in new:
        after = dict.__getitem__(new, name)
        is_there = name in values and dict.__contains__(old, name)
        fields[name] = (
            _changed(values[name], dict.__getitem__(old, name), after, patch.get(name)) if is_there else after
        )
    return fields


def _infras(record: tp.Any) -> dict[str, tp.Any]:
    """Copies of the infras: a setting may be the default, and yet not that of the infra in the class."""
    return {name: _copied(value) for name, value in _values(record).items() if isinstance(value, Bindable)}


def _is_same(old: _Tree, new: _Tree) -> bool:
    """Whether a part of a tree is what it was: a patch copies containers, and leaves all else as it is."""
    if isinstance(old, dict) and isinstance(new, dict):
        return list(old) == list(new) and all(_is_same(dict.__getitem__(old, k), dict.__getitem__(new, k)) for k in old)
    if isinstance(old, (list, tuple)) and type(old) is type(new) and len(old) == len(new):
        return all(map(_is_same, old, new))
    return old is new


# -- what is not ------------------------------------------------------------------------------------------------------


def _copied(value: tp.Any) -> tp.Any:
    """A copy of models, dataclasses and containers; all else is the same object."""
    if isinstance(value, Bindable):
        return copy.deepcopy(value)
    if isinstance(value, pydantic.BaseModel):
        return _copied_model(value)
    if model_schema.is_record(type(value)):
        copied = copy.copy(value)
        for name, child in _values(value).items():
            object.__setattr__(copied, name, _copied(child))
        return copied
    if isinstance(value, dict):
        copied = copy.copy(value)
        for key, child in value.items():
            dict.__setitem__(copied, key, _copied(child))
        return copied
    if isinstance(value, (list, tuple)):
        items = list(map(_copied, value))
        return type(value)._make(items) if hasattr(value, "_make") else type(value)(items)
    return copy.copy(value) if isinstance(value, set) else value


def _copied_model(model: pydantic.BaseModel) -> pydantic.BaseModel:
    """Made by validation, as any object of its class; then it gets the values of the original.

    Validation may change values that have been validated already, or refuse them.
    """
    cls, given = type(model), model.__pydantic_fields_set__
    values = {name: _copied(value) for name, value in _values(model).items()}
    extra = {name: _copied(value) for name, value in _extra(model).items()}
    defaults = {name: default.value for name, _, default in model_schema.record_schema(cls).fields}
    shown = {name: value for name, value in values.items() if name in given or value is not defaults.get(name, MISSING)}
    try:
        copied = cls.model_validate(_as_input(cls, {**extra, **shown}))
    except Exception:  # noqa: BLE001  validators are the user's
        copied = cls.model_construct(**values)
        attach_infra(copied)
    for name, value in values.items():
        if not isinstance(value, Bindable):  # it has one that belongs to it
            vars(copied)[name] = value
    object.__setattr__(copied, "__pydantic_fields_set__", set(given))
    if model.__pydantic_extra__ is not None:
        object.__setattr__(copied, "__pydantic_extra__", extra)
    return tp.cast(pydantic.BaseModel, _with_private_infras(copied, model))


def _with_private_infras(copied: tp.Any, original: tp.Any) -> tp.Any:
    """Gives the infras in private attributes of a clone the settings of the original's, as no validation does."""
    if isinstance(original, pydantic.BaseModel):
        for name in class_infras(type(original)).keys() & type(original).__private_attributes__.keys():
            setattr(copied, name, copy.deepcopy(getattr(original, name)))
    return copied


def _values(record: tp.Any) -> dict[str, tp.Any]:
    schema = model_schema.record_schema(type(record))
    values = schema.values(record)  # where cached properties may be, too
    return {name: values[name] for name in schema.declared if name in values}


def _extra(record: tp.Any) -> dict[str, tp.Any]:
    return model_schema.record_schema(type(record)).extra_values(record)


def _as_input(cls: type, fields: dict[str, tp.Any]) -> tp.Any:
    """The values of fields as validation expects them: under their aliases, where only these are known to it."""
    if issubclass(cls, pydantic.RootModel):
        return fields.get("root", {})
    infos = getattr(cls, "model_fields", None) or getattr(cls, "__pydantic_fields__", {})
    config = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None) or {}
    if config.get("populate_by_name") or config.get("validate_by_name"):
        return fields
    data: dict[tp.Any, tp.Any] = {}
    for name, value in fields.items():
        *parents, last = _input_path(infos[name], name) if name in infos else [name]
        node = data
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return data


def _input_path(info: pydantic.fields.FieldInfo, name: str) -> tp.Sequence[tp.Any]:
    """The keys, one in the other, under which validation finds a field."""
    alias = info.validation_alias
    if isinstance(alias, pydantic.AliasChoices):
        alias = alias.choices[0]
    return alias.path if isinstance(alias, pydantic.AliasPath) else [alias or name]
