"""Dotted names of what is in a nested mapping."""

from __future__ import annotations

import collections.abc
import typing as tp

from hydra_exca.errors import ConfigError, Problem
from hydra_exca.globs import matches_glob

from . import model_schema
from .scalars import SCALARS


def flatten(mapping: tp.Mapping[str, tp.Any]) -> dict[str, tp.Any]:
    """The leaves of a nested mapping by dotted name; lists, empty mappings and tagged values are leaves.

    >>> flatten({"optim": {"lr": 0.1, "betas": [0.9, 0.99]}})
    {'optim.lr': 0.1, 'optim.betas': [0.9, 0.99]}
    """
    return dict(_flat_items(mapping, ""))


def _flat_items(mapping: tp.Mapping[str, tp.Any], prefix: str) -> list[tuple[str, tp.Any]]:
    items: list[tuple[str, tp.Any]] = []
    for key, child in mapping.items():
        path = prefix + (key if type(key) is str and key[:1] != "~" else unescape_key(key))
        if type(child) not in SCALARS and _has_names(child):
            items += _flat_items(child, f"{path}.")
        else:
            items.append((path, child))
    return items


def exclude(fields: tp.Mapping[str, tp.Any], patterns: tp.Sequence[str], *, where: str) -> dict[str, tp.Any]:
    """A copy of ``fields`` without some dotted names; patterns are as in `globs`, so ``*`` stands for dots too.

    ``optim`` takes away the subtree, ``optim.lr`` the leaf. ``where`` says in errors who asked: a pattern that
    matches nothing is a ConfigError.
    """
    if isinstance(patterns, str):
        raise ConfigError(f"{where} is the string {patterns!r}: write a list, [{patterns!r}]")
    paths = [path for path, _ in _named_nodes(fields)]
    unmatched = [pattern for pattern in patterns if not any(matches_glob(path, [pattern]) for path in paths)]
    if unmatched:
        problems = [
            Problem(f"matches nothing{model_schema.name_hint(pattern, paths)}", pattern) for pattern in unmatched
        ]
        raise ConfigError(f"{where} names keys that are not in the configuration", problems)
    return _without(fields, patterns, "")


def _without(node: tp.Mapping[str, tp.Any], patterns: tp.Sequence[str], prefix: str) -> dict[str, tp.Any]:
    result = {}
    for key, child in node.items():
        path = prefix + unescape_key(key)
        if not matches_glob(path, patterns):
            result[key] = _without(child, patterns, f"{path}.") if _has_names(child) else child
    return result


def _named_nodes(mapping: tp.Mapping[str, tp.Any], prefix: str = "") -> tp.Iterator[tuple[str, tp.Any]]:
    """All subtrees and leaves with their dotted names."""
    for key, child in mapping.items():
        path = prefix + unescape_key(key)
        yield path, child
        if _has_names(child):
            yield from _named_nodes(child, f"{path}.")


def _has_names(node: tp.Any) -> bool:
    is_mapping = type(node) is dict or (type(node) is not list and isinstance(node, collections.abc.Mapping))
    return is_mapping and bool(node) and not is_tagged(node)


def is_tagged(node: tp.Mapping[tp.Any, tp.Any]) -> bool:
    """Whether this is the canonical form of a type that JSON lacks, and not of a record that names its class."""
    for key in node:  # noqa: SIM110  a generator takes three times as long, and nearly all keys are plain
        if (type(key) is not str or key[:1] == "~") and _is_tag(key):
            return True
    return False


def _is_tag(key: tp.Any) -> bool:
    return isinstance(key, str) and key[:1] == "~" and key[:2] != "~~" and key not in ("~class", "~extra")


def unescape_key(key: tp.Any) -> str:
    text = str(key)
    return text[1:] if text[:2] == "~~" and isinstance(key, str) else text
