"""Configs as plain containers: their leaves, paths and classes."""

from __future__ import annotations

import typing as tp

from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from hydra_exca import script

from .omegaconf_private import node_at, unresolved_value
from .thread_state import own_hydra_config

MISSING = "???"
Tree: tp.TypeAlias = dict[tp.Any, tp.Any]
Path: tp.TypeAlias = tuple[tp.Any, ...]
"""Where something is in a config: the keys that lead there; those of lists are numbers."""


def raw(node: tp.Any) -> tp.Any:
    """The content of a config or node in plain containers, with interpolations as text."""
    if OmegaConf.is_config(node):
        return OmegaConf.to_container(node, resolve=False)
    return raw(unresolved_value(node)) if isinstance(node, Node) else node


def raw_task(config: DictConfig) -> Tree:
    """As `raw`, without the hydra node, which is half of a whole config."""
    return {key: raw(node) for key, node in config.items_ex(resolve=False) if key != "hydra"}


def leaves_of(tree: tp.Any, path: Path = ()) -> tp.Iterator[tuple[Path, tp.Any]]:
    """All values that are not containers, with their paths."""
    if isinstance(tree, (dict, list, tuple)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves_of(value, (*path, key))
    else:
        yield path, tree


def with_leaves(tree: tp.Any, changes: tp.Mapping[Path, tp.Any]) -> tp.Any:
    """The tree with other values at some paths; the result shares what does not change."""
    if not changes:
        return tree
    if () in changes:
        return changes[()]
    below: dict[tp.Any, dict[Path, tp.Any]] = {}
    for path, value in changes.items():
        below.setdefault(path[0], {})[path[1:]] = value
    changed = dict(tree) if isinstance(tree, dict) else list(tree)
    for key, deeper in below.items():
        changed[key] = with_leaves(tree[key], deeper)
    return tuple(changed) if isinstance(tree, tuple) else changed


def map_leaves(tree: tp.Any, change: tp.Callable[[tp.Any], tp.Any]) -> tp.Any:
    if type(tree) is dict:
        return {key: map_leaves(value, change) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(map_leaves(value, change) for value in tree)
    return change(tree)


def container_of(config: tp.Any) -> type:
    """The plain container that a config is: dict, list or tuple."""
    if OmegaConf.is_dict(config):
        return dict
    return list if OmegaConf.is_list(config) else tuple


def filled(container: type, children: dict[tp.Any, tp.Any]) -> tp.Any:
    """A dict, list or tuple with these children, in their order."""
    return children if container is dict else container(children.values())


def copy_tree(tree: tp.Any) -> tp.Any:
    return map_leaves(tree, lambda leaf: to_resolved(leaf) if OmegaConf.is_config(leaf) else leaf)


def to_resolved(config: tp.Any) -> tp.Any:
    """A config in plain containers, resolved. What refers to ``???`` is ``???``, which OmegaConf 2.4 refuses."""
    try:
        return OmegaConf.to_container(config, resolve=True)
    except InterpolationToMissingValueError:
        keys = list(config) if OmegaConf.is_dict(config) else range(len(config))
        return filled(container_of(config), {key: _resolved_at(config, key) for key in keys})


def _resolved_at(config: tp.Any, key: tp.Any) -> tp.Any:
    try:
        value = MISSING if OmegaConf.is_missing(config, key) else config[key]
    except InterpolationToMissingValueError:
        return MISSING
    return to_resolved(value) if OmegaConf.is_config(value) else value


def is_interpolation(value: tp.Any) -> bool:
    return isinstance(value, str) and "${" in value


def dotted(path: Path) -> str:
    return ".".join(str(key.name) if hasattr(key, "name") else str(key) for key in path)


def class_of(config: tp.Any) -> str:
    """The name of the class of a structured config, "" for any other."""
    kind = OmegaConf.get_type(config)
    return "" if kind in (None, dict, list, tuple) else f"{script.module_name(kind)}:{kind.__qualname__}"


def without_hydra(config: DictConfig) -> DictConfig:
    """A copy of the config as the job gets it."""
    plain = OmegaConf.masked_copy(
        config, [tp.cast(str, key) for key in config if key != "hydra"]
    )  # numbers are keys, too
    OmegaConf.set_struct(plain, OmegaConf.is_struct(config))
    return plain


def structured_classes(config: DictConfig) -> tp.Iterator[tuple[Path, str]]:
    """The classes of structured configs, by path. They count, because OmegaConf.to_object makes instances of them."""
    with own_hydra_config(config):
        yield from _structured(config, (), (id(config),))


def _structured(config: tp.Any, path: Path, around: tuple[int, ...]) -> tp.Iterator[tuple[Path, str]]:
    """``around`` are the containers that this one is in: an interpolation may lead back to one of them."""
    kind = class_of(config)
    if kind:
        yield path, kind
    keys: tp.Iterable[tp.Any] = list(config) if OmegaConf.is_dict(config) else range(len(config))
    for key in keys:
        child = None if not path and key == "hydra" else _container(config, key)
        if child is not None and id(child) not in around:
            yield from _structured(child, (*path, key), (*around, id(child)))


def _container(config: tp.Any, key: tp.Any) -> tp.Any:
    """The container at a key, or that an interpolation there leads to without a resolver; None for all else."""
    if OmegaConf.is_missing(config, key):
        return None
    if OmegaConf.is_interpolation(config, key) and ":" in str(unresolved_value(node_at(config, key))):
        return None
    try:
        child = config[key]
    except OmegaConfBaseException:  # reported where the value is needed
        return None
    return child if OmegaConf.is_config(child) else None
