"""Configs in plain containers: walking, changing, and naming what is in them."""

from __future__ import annotations

import fnmatch
import typing as tp

from omegaconf import Node, OmegaConf

MISSING = "???"
Tree: tp.TypeAlias = dict[tp.Any, tp.Any]
Path: tp.TypeAlias = tuple[tp.Any, ...]
"""Where something is in a config: the keys that lead there; those of lists are numbers."""


def unresolved(config: tp.Any, *, without: str = "") -> Tree:
    """Plain containers with interpolations as text. Half of a whole config is its hydra node: better without."""

    def raw(node: tp.Any) -> tp.Any:
        if OmegaConf.is_config(node):
            return OmegaConf.to_container(node)
        return raw(node._value()) if isinstance(node, Node) else node  # noqa: SLF001

    return {key: raw(node) for key, node in config.items_ex(resolve=False) if key != without}


def raw(config: tp.Any) -> tp.Any:
    """What a config holds, in plain containers, interpolations as text."""
    return OmegaConf.to_container(config, resolve=False)


def leaves_of(tree: tp.Any, path: Path = ()) -> tp.Iterator[tuple[Path, tp.Any]]:
    """What is not a container, by path."""
    if isinstance(tree, (dict, list)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves_of(value, (*path, key))
    else:
        yield path, tree


def with_leaves(tree: tp.Any, changes: tp.Mapping[Path, tp.Any]) -> tp.Any:
    """The tree with other values at some paths; what does not change is shared."""
    if not changes:
        return tree
    if () in changes:
        return changes[()]
    below: dict[tp.Any, dict[Path, tp.Any]] = {}
    for path, value in changes.items():
        below.setdefault(path[0], {})[path[1:]] = value
    changed = tree.copy()
    for key, deeper in below.items():
        changed[key] = with_leaves(tree[key], deeper)
    return changed


def mapped(tree: tp.Any, change: tp.Callable[[tp.Any], tp.Any]) -> tp.Any:
    if type(tree) is dict:
        return {key: mapped(value, change) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(mapped(value, change) for value in tree)
    return change(tree)


def copied(tree: tp.Any) -> tp.Any:
    return mapped(tree, lambda leaf: OmegaConf.to_container(leaf, resolve=True) if OmegaConf.is_config(leaf) else leaf)


def is_interpolation(value: tp.Any) -> bool:
    return isinstance(value, str) and "${" in value


def allowed(key: str, patterns: tp.Sequence[str]) -> bool:
    """Whether a pattern names a key or something above it."""
    return named(key, (*patterns, *(f"{pattern}.*" for pattern in patterns)))


def named(name: str, patterns: tp.Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def dotted(path: Path) -> str:
    return ".".join(str(key.name) if hasattr(key, "name") else str(key) for key in path)
