"""Observations: the values behind each interpolation and the resolvers called for them, one tree per world."""

from __future__ import annotations

import dataclasses
import typing as tp

from omegaconf import OmegaConf

from hydra_exca.sweep.configs.tree import Path, class_of, container_of, filled

from .tracer import Calls, ResolveFailure, ResolverCall, Tracer

MAX_DEPTH = 60


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A value in one world. ``is_config_node``: it is a node of the job's own config, where it can be pinned.

    ``kinds`` are the classes of the structured configs that the value is made of, by their paths in it.
    """

    value: tp.Any
    calls: Calls
    is_config_node: bool = True
    kinds: tuple[tuple[Path, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Branch:
    """A container that an interpolation leads to, in one world: a dict, a list or a tuple."""

    children: dict[tp.Any, Leaf | Branch]
    container: type
    calls: Calls
    kind: str = ""


def resolve_tree(
    tracer: Tracer, holder: tp.Any, key: tp.Any, reached: Calls = frozenset(), above: Path = ()
) -> Leaf | Branch:
    """The tree of values at a key; a container that an external resolver has made or chosen is one leaf."""
    value, calls = tracer.read_value(holder, key)
    calls |= reached
    if not OmegaConf.is_config(value):
        return Leaf(value, calls, id(holder) in tracer.task_nodes)
    if id(value) in above or len(above) > MAX_DEPTH:
        return Leaf(ResolveFailure("leads back to itself"), calls)
    above = (*above, id(value))
    keys = list(value.keys()) if OmegaConf.is_dict(value) else list(range(len(value)))
    children = {key: resolve_tree(tracer, value, key, _below(calls, key), above) for key in keys}
    branch = Branch(children, container_of(value), calls, class_of(value))
    return flatten(branch) if any(call.is_external for call in calls) else branch


def _below(calls: Calls, key: tp.Any) -> Calls:
    return frozenset(ResolverCall("hydra", f"{call.key}.{key}") if call.name == "hydra" else call for call in calls)


def flatten(view: Leaf | Branch) -> Leaf:
    if isinstance(view, Leaf):
        return view
    parts = {key: flatten(child) for key, child in view.children.items()}
    failed = [part.value for part in parts.values() if isinstance(part.value, ResolveFailure)]
    value = filled(view.container, {key: part.value for key, part in parts.items()})
    calls = view.calls | collect_calls(parts.values())
    kinds = [((key, *path), kind) for key, part in parts.items() for path, kind in part.kinds]
    kinds += [((), view.kind)] if view.kind else []
    return Leaf(failed[0] if failed else value, calls, kinds=tuple(kinds))


def collect_calls(views: tp.Iterable[Leaf | Branch]) -> Calls:
    return frozenset(call for view in views for call in flatten(view).calls)


Views: tp.TypeAlias = dict[Path, list[Leaf | Branch]]
"""The views of each path, one for each world in which it was observed."""
