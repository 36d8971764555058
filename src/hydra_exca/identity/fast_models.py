"""The fields of ordinary models, fast enough for a launch of thousands of tasks.

What does not depend on the object is computed once per class. Anything unusual is left to ``canonical.Walk``, whose
rules these are: ``tests/unit/identity/test_fast_models.py`` compares the two.
"""

from __future__ import annotations

import functools
import typing as tp

from . import model_schema, pydantic_types, scalars
from .canonical import is_default
from .scalars import LEAVES, SCALARS, Json, UnusualError

if tp.TYPE_CHECKING:
    import pydantic

_Field: tp.TypeAlias = tuple[str, tp.Any, model_schema.Default, model_schema.ExpectedType, type | None]
"""Name, default value, default, expected type, and the only model class that may stand there, if there is one."""


class _ClassPlan(tp.NamedTuple):
    fields: tuple[_Field, ...]
    excluded: tuple[str, ...]
    is_moving: bool  # a function makes a default, perhaps another one each time


def model_fields(
    model: pydantic.BaseModel, leave_out: tuple[str, ...] = ()
) -> tuple[dict[str, Json], dict[str, Json], list[str]]:
    """The fields that differ from the defaults, all fields, and the names that the classes leave out.

    Raises UnusualError for a model that needs the general rules, or breaks them.
    """
    excluded: list[str] = []
    try:
        return *_fields(model, _class_plan(type(model), leave_out), "", excluded), excluded
    except (KeyError, RecursionError, model_schema.UnfitError) as error:  # the walk says what is wrong, and where
        raise UnusualError from error


def model_contents(model: pydantic.BaseModel, leave_out: tuple[str, ...] = ()) -> list[tp.Any]:
    """The objects that the fields of a model are made of. As long as they are the same ones, the fields are the same.

    Raises UnusualError where that cannot be known: for a value that is neither plain data nor a model, and where a
    function makes a default, which may be another each time.
    """
    contents: list[tp.Any] = []
    try:
        _add_model(model, _class_plan(type(model), leave_out), contents)
    except (KeyError, RecursionError, model_schema.UnfitError) as error:
        raise UnusualError from error
    return contents


def _add_model(model: pydantic.BaseModel, plan: _ClassPlan | None, contents: list[tp.Any]) -> None:
    if plan is None or plan.is_moving:
        raise UnusualError
    values = model.__dict__
    for name, _, _, expect, only in plan.fields:
        child = values[name]
        kind: tp.Any = type(child)
        if kind in SCALARS:
            contents.append(child)
        elif kind is only:
            contents.append(kind)
            _add_model(child, _class_plan(kind), contents)
        elif expect.is_plain:
            scalars.append_contents(child, contents)
        else:
            raise UnusualError


def _fields(
    model: pydantic.BaseModel, plan: _ClassPlan | None, prefix: str, excluded: list[str]
) -> tuple[dict[str, Json], dict[str, Json]]:
    if plan is None:
        raise UnusualError
    excluded += _prefixed(prefix, plan.excluded)
    values = model.__dict__
    non_default: dict[str, Json] = {}
    with_defaults: dict[str, Json] = {}
    for name, default_value, default, expect, only in plan.fields:
        child = values[name]
        kind: tp.Any = type(child)
        if kind in SCALARS:
            with_defaults[name] = one = form = LEAVES[kind](child)
            if child is default_value:
                continue
        elif kind is only:
            one, form = _fields(child, _class_plan(kind), f"{prefix}{name}.", excluded)
            with_defaults[name] = form
        elif expect.is_plain:
            with_defaults[name] = one = form = scalars.plain_form(child)
        else:
            raise UnusualError
        if not is_default(form, expect, default):
            non_default[name] = one
    return non_default, with_defaults


@functools.lru_cache(maxsize=4096)
def _class_plan(cls: tp.Hashable, leave_out: tuple[str, ...] = ()) -> _ClassPlan | None:
    """What holds for all objects of a class; None if that depends on the object."""
    facts = model_schema.record_schema(tp.cast(type, cls))
    skip = model_schema.name_tree(leave_out)
    facts.check_names(skip, facts.names)
    static = facts.fixed_exclusions
    counted = None if static is None else facts.counted_fields(None, skip)
    is_simple = facts.is_model and not facts.allows_extra
    if counted is None or static is None or not is_simple or any(field[3] for field in counted):
        return None
    fields = tuple((name, default.value, default, expect, _only_model(expect)) for name, expect, default, _ in counted)
    factories = [default.factory for _, _, default, _ in counted if default.factory is not None]
    is_moving = not all(isinstance(factory, type) for factory in factories)
    return _ClassPlan(fields, tuple(model_schema.leaf_names(static)), is_moving)


@functools.lru_cache(maxsize=4096)
def _prefixed(prefix: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(prefix + name for name in names)


def _only_model(expect: model_schema.ExpectedType) -> type | None:
    sure = len(expect.classes) == 1 and not expect.keys and not expect.tagged
    return expect.classes[0] if sure and pydantic_types.is_model_class(expect.classes[0]) else None
