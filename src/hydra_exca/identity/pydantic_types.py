"""Recognizes pydantic models without importing pydantic: if nobody has imported it, there are none."""

from __future__ import annotations

import inspect
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


def metadata_of(info: pydantic.fields.FieldInfo) -> list[tp.Any]:
    """What a field's type is annotated with."""
    import pydantic  # whoever has a field has imported it

    told_apart = [] if info.discriminator is None else [pydantic.Field(discriminator=info.discriminator)]
    return [*info.metadata, *told_apart]


def validator_of(annotation: tp.Any, config: tp.Any) -> tp.Callable[[tp.Any], tp.Any] | None:
    """What validates a value of a type, with the config of a model; None if pydantic cannot or is not imported."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None:
        return None
    takes_config = not (inspect.isclass(annotation) and hasattr(annotation, "__pydantic_config__"))
    for chosen in (config, None) if config and takes_config else (None,):
        try:
            return tp.cast(
                "tp.Callable[[tp.Any], tp.Any]", pydantic.TypeAdapter(annotation, config=chosen).validate_python
            )
        except Exception:  # noqa: BLE001 - a class that has a config of its own, or a type without a schema
            continue
    return None
