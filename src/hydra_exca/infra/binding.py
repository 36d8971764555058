"""Binds an infra to the method that it decorates and to the object that it belongs to.

An infra is written in a class body and decorates a method there. Each object of the class gets an infra of its
own, which takes from the one in the class what it does not set itself, and which knows its owner.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import typing as tp

import pydantic

from hydra_exca.identity.model_schema import cached_per_class

Exclusions: tp.TypeAlias = str | tp.Iterable[str] | tp.Callable[[tp.Any], tp.Iterable[str]]


@dataclasses.dataclass(frozen=True)
class AppliedMethod:
    """A method that an infra was applied to, and what its cache leaves out of the uid."""

    method: tp.Callable[..., tp.Any]
    exclude_from_cache_uid: Exclusions = ()

    def __post_init__(self) -> None:
        given = self.exclude_from_cache_uid
        if isinstance(given, str) and not given.startswith("method:"):
            raise TypeError(
                f"exclude_from_cache_uid={given!r} of {self.name}: write a list of names, a function of the object, "
                'or "method:<name of a method>"'
            )
        if not isinstance(given, str) and not callable(given):
            object.__setattr__(self, "exclude_from_cache_uid", tuple(given))

    @property
    def name(self) -> str:
        return self.method.__qualname__

    def exclusions(self, owner: pydantic.BaseModel) -> tuple[str, ...]:
        """The names that this cache leaves out for an object."""
        given = self.exclude_from_cache_uid
        if isinstance(given, str):
            name = given.removeprefix("method:")
            method = getattr(owner, name, None)
            if method is None:
                raise AttributeError(f"{given!r}, but {type(owner).__qualname__} has no method {name!r}")
            return self._names(method())
        return self._names(given(owner) if callable(given) else given)

    def _names(self, given: tp.Iterable[str]) -> tuple[str, ...]:
        if isinstance(given, str):
            raise TypeError(f"exclude_from_cache_uid of {self.name} gives {given!r}: it must be a list of names")
        return tuple(given)


class Bindable:
    """An infra, as its owner's class uses it."""

    def settings(self) -> dict[str, tp.Any]:
        """The settings that were given, as keyword arguments for another infra."""
        raise NotImplementedError

    def bind_to(self, owner: pydantic.BaseModel, name: str, default: tp.Any) -> None:
        """Makes this the infra of ``owner``; it inherits the settings that only the infra in the class has."""
        raise NotImplementedError


_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def check_signature(method: tp.Callable[..., tp.Any], parameters: int, what: str) -> None:
    """Raises TypeError unless the method takes that many parameters, all by position; ``what`` describes them."""
    taken = inspect.signature(method).parameters.values()
    if len(taken) != parameters or any(parameter.kind not in _BY_POSITION for parameter in taken):
        shown = ", ".join(map(str, taken))
        raise TypeError(f"{method.__qualname__} takes ({shown}), and an infra needs a method of {what}")


def install_infras(owner: type, name: str, infra: Bindable) -> None:
    """Makes the class give each of its objects an infra of its own; called when the class body is complete."""
    if not (isinstance(owner, type) and issubclass(owner, pydantic.BaseModel)):
        raise RuntimeError(f"{type(infra).__name__} {name!r} on {owner.__qualname__}, which is not a pydantic model")
    if "extra" not in owner.model_config:
        owner.model_config["extra"] = "forbid"
    owner._exca_give_infras = pydantic.model_validator(mode="wrap")(_validate_with_infras)  # type: ignore[attr-defined]
    if "__pydantic_decorators__" in vars(owner):
        # pydantic < 2.14 names private attributes only after it has collected the validators
        validators = _WithInfras.__pydantic_decorators__.model_validators
        owner.__pydantic_decorators__.model_validators.update(validators)
    for hook in ("__copy__", "__deepcopy__", "__setstate__"):
        _attach_after(owner, hook)
    if not hasattr(owner.__setattr__, "__exca_checks__"):
        owner.__setattr__ = _binding_setattr(owner.__setattr__)  # type: ignore[method-assign,assignment,unused-ignore]


def _attach_after(owner: type, hook: str) -> None:
    """Copies and what was pickled get infras of their own: the original's would return the original's results."""
    original = getattr(owner, hook)
    if hasattr(original, "__exca_attaches__"):
        return

    @functools.wraps(original)
    def attaching(obj: tp.Any, *args: tp.Any) -> tp.Any:
        copied = original(obj, *args)
        attach_infra(obj if copied is None else copied, shared=True)  # __setstate__ returns nothing
        return copied

    attaching.__exca_attaches__ = True  # type: ignore[attr-defined]
    setattr(owner, hook, attaching)


def _binding_setattr(original: tp.Callable[[tp.Any, str, tp.Any], None]) -> tp.Callable[[tp.Any, str, tp.Any], None]:
    """Binds an infra as soon as it is assigned; one that belongs to another object is refused."""

    @functools.wraps(original)
    def assign(obj: tp.Any, name: str, value: tp.Any) -> None:
        default = class_infras(type(obj)).get(name) if isinstance(value, Bindable) else None
        if default is not None:
            value.bind_to(obj, name, default)
        original(obj, name, value)

    assign.__exca_checks__ = True  # type: ignore[attr-defined]
    return assign


def _validate_with_infras(
    cls: type[pydantic.BaseModel], data: tp.Any, handler: tp.Callable[[tp.Any], tp.Any]
) -> tp.Any:
    """Validates an object whose infras inherit the settings of those in the class.

    Of an infra that is given as an object only the settings are taken: it belongs to one object.
    """
    if isinstance(data, dict):
        defaults = class_infras(cls)
        infras = [key for key, value in data.items() if key in defaults or isinstance(value, Bindable)]
        if infras:
            data = {**data, **{key: _merge_settings(data[key], defaults.get(key)) for key in infras}}
    obj = handler(data)
    attach_infra(obj, shared=obj is not data)  # a new object of an old one's fields, where instances are validated anew
    return obj


class _WithInfras(pydantic.BaseModel):
    _exca_give_infras = pydantic.model_validator(mode="wrap")(_validate_with_infras)


def _merge_settings(given: tp.Any, default: Bindable | None) -> tp.Any:
    settings = given.settings() if isinstance(given, Bindable) else given
    return {**default.settings(), **settings} if default is not None and isinstance(settings, dict) else settings


def attach_infra(obj: pydantic.BaseModel, shared: bool = False) -> None:
    """Binds the infras of a new object to it; they inherit the settings of those in the class.

    ``shared``: an infra that belongs to another object is copied first.
    """
    for name, default in class_infras(type(obj)).items():
        infra = getattr(obj, name, None)
        if infra is None:
            continue
        if shared and infra._owner is not None and infra._owner is not obj:
            infra = copy.deepcopy(infra)
            state = obj.__dict__ if name in obj.__dict__ else obj.__pydantic_private__
            tp.cast("dict[str, tp.Any]", state)[name] = infra
        infra.bind_to(obj, name, default)


@cached_per_class
def class_infras(cls: tp.Any) -> tp.Mapping[str, Bindable]:
    """The infras in a class body, by name, private ones too. Asked for with every object that is made."""
    attributes = {**cls.model_fields, **cls.__private_attributes__}
    return {name: info.default for name, info in attributes.items() if isinstance(info.default, Bindable)}
