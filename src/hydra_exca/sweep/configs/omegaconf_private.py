"""All uses of private parts of OmegaConf, each behind a function that says what it is for."""

from __future__ import annotations

import contextlib
import functools
import typing as tp

import omegaconf.base
from omegaconf import DictConfig, ListConfig, Node, OmegaConf, ValueNode
from omegaconf.basecontainer import BaseContainer
from omegaconf.resolvers import oc

from .thread_state import replaced_function

Resolvers: tp.TypeAlias = dict[str, tp.Callable[..., tp.Any]]

PASSING_RESOLVERS = {"oc.create", "oc.decode", "oc.deprecated", "oc.select", "oc.dict.keys", "oc.dict.values"}
"""Resolvers of OmegaConf that only pass on their arguments or parts of the config."""

if hasattr(oc, "coerce"):  # OmegaConf 2.4; before, one of this name is the user's
    PASSING_RESOLVERS.add("oc.coerce")


def resolvers() -> Resolvers:
    """All registered resolvers, as OmegaConf calls them: with root, parent, node, arguments and the arguments' text."""
    return BaseContainer._resolvers  # noqa: SLF001


@contextlib.contextmanager
def wrapped_resolvers(wrap: tp.Callable[[str, tp.Callable[..., tp.Any]], tp.Any]) -> tp.Iterator[None]:
    """In this thread, ``wrap(name, resolver)`` stands for each resolver."""

    def wrapping(lookup: tp.Callable[[str], tp.Any]) -> tp.Callable[[str], tp.Any]:
        def look_up(name: str) -> tp.Any:
            resolver = lookup(name)
            return None if resolver is None else wrap(name, resolver)

        return look_up

    with replaced_function(OmegaConf, "_get_resolver", wrapping):
        yield


@contextlib.contextmanager
def cached_parsing() -> tp.Iterator[None]:
    """In this thread, OmegaConf parses each text once: that takes most of resolving, and what it gives is only read."""
    with replaced_function(omegaconf.base, "parse", functools.lru_cache(maxsize=4096)):
        yield


def node_at(config: DictConfig | ListConfig, key: tp.Any) -> tp.Any:
    """The node at a key, an interpolation as it stands there."""
    return config._get_node(key)  # noqa: SLF001


def unresolved_value(node: Node) -> tp.Any:
    """The value of a node: the text of an interpolation, ``???`` of a missing one."""
    return node._value()  # noqa: SLF001


def set_value(node: ValueNode, value: tp.Any) -> None:
    """Sets a leaf to a value that is known to fit: nothing is checked or converted."""
    node.__dict__["_val"] = value


def set_item(container: tp.Any, key: tp.Any, value: tp.Any) -> None:
    """Sets an item, of a tuple as well: OmegaConf does that only where it resolves one."""
    if isinstance(container, (DictConfig, ListConfig)):
        container[key] = value
    else:
        container._set_item_for_resolution(key, value)  # noqa: SLF001


def child_nodes(node: tp.Any) -> dict[tp.Any, tp.Any] | list[tp.Any] | None:
    """The nodes in a container; None for a leaf, and for a container that is an interpolation, ``???`` or None."""
    content = node.__dict__["_content"] if isinstance(node, (DictConfig, ListConfig)) else None
    return content if isinstance(content, (dict, list)) else None


@contextlib.contextmanager
def separate_resolver_cache(config: DictConfig) -> tp.Iterator[None]:
    """Inside the block, a config has a copy of its resolver cache: results of resolvers are not kept."""
    before = OmegaConf.get_cache(config)
    OmegaConf.set_cache(config, before)
    try:
        yield
    finally:
        config._metadata.resolver_cache = before  # noqa: SLF001  set_cache would make another copy


class DeferredConfig(DictConfig):
    """A config that is made when it is first used. From then on it is a plain DictConfig, by its class, too."""

    def __init__(self, make: tp.Callable[[], DictConfig]) -> None:
        object.__getattribute__(self, "__dict__")["make"] = make

    def __getattribute__(self, name: str) -> tp.Any:
        # Methods such as __len__ are looked up without this one, but those of DictConfig use attributes in turn.
        fields = object.__getattribute__(self, "__dict__")
        made = fields["make"]()
        del fields["make"]  # now that nothing was raised
        object.__setattr__(self, "__class__", DictConfig)
        fields.update(made.__dict__)
        for node in tp.cast("dict[tp.Any, Node]", child_nodes(made)).values():
            node._set_parent(self)  # noqa: SLF001
        return getattr(self, name)
