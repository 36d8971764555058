"""Recognizes pydantic models without importing pydantic: if nobody has imported it, there are none."""

from __future__ import annotations

import sys
import typing as tp

if tp.TYPE_CHECKING:
    import pydantic


def is_model_class(cls: tp.Any) -> tp.TypeGuard[type[pydantic.BaseModel]]:
    """Whether this is a class of pydantic models."""
    return isinstance(cls, type) and issubclass(cls, loaded_pydantic("main", "BaseModel"))


def is_model(value: tp.Any) -> tp.TypeGuard[pydantic.BaseModel]:
    """Whether this is a pydantic model."""
    return isinstance(value, loaded_pydantic("main", "BaseModel"))


def loaded_pydantic(module: str, *names: str) -> tuple[type, ...]:
    """Those classes of a module of pydantic that exist in this process: there is no object of any other."""
    home = sys.modules.get(f"pydantic.{module}")
    return tuple(filter(None, (getattr(home, name, None) for name in names)))
