"""Values that a job gets in place of interpolations, since they were part of the identity of its task."""

from __future__ import annotations

import enum
import pathlib
import re
import typing as tp

from omegaconf import AnyNode, DictConfig, OmegaConf, flag_override

from hydra_exca.sweep.configs.omegaconf_private import set_item
from hydra_exca.sweep.configs.tree import MISSING, Path, copy_tree, map_leaves


def put_pins(task_config: DictConfig, pins: tp.Mapping[Path, tp.Any]) -> None:
    """Puts ``pins`` into a job's config, in place, also where its flags forbid that; the flags stay as they were.

    A value that is no scalar (the config of a class, a dict that is no config, a tuple) has the type that the
    interpolation gives here, as long as that is the pinned value.
    """
    for path, value in pins.items():
        holder: tp.Any = task_config
        for key in path[:-1]:
            holder = holder[key]
        nodes = [] if _is_scalar(value) else _equal_nodes(holder, path[-1], value)
        if nodes and isinstance(value, str):
            continue  # a config would take it for something else, or make it a text of no class
        with flag_override(holder, ["readonly", "struct", "allow_objects"], [False, False, True]):
            _put_first_valid(holder, path[-1], [*nodes, map_leaves(value, _escape)])


def _is_scalar(value: tp.Any) -> bool:
    """Whether a config holds it as it is."""
    if isinstance(value, (enum.Enum, pathlib.PurePath)):
        return True
    return type(value) in (int, float, bool, bytes, type(None)) or (type(value) is str and value != MISSING)


def _put_first_valid(holder: tp.Any, key: tp.Any, candidates: list[tp.Any]) -> None:
    """The first candidate that the field takes. Where it takes neither, what is there stays: it is equal."""
    for number, candidate in enumerate(candidates, 1):
        try:
            set_item(holder, key, candidate)
        except Exception:  # AssertionError, too, and what a dataclass of the user raises
            if number == len(candidates) == 1:
                raise
        else:
            return


def _equal_nodes(holder: tp.Any, key: tp.Any, value: tp.Any) -> list[tp.Any]:
    """What the interpolation gives here, as a node, if it equals the pinned value; else nothing."""
    from hydra_exca.identity.canonical import canonical, encode  # most jobs have no such value, and start without it

    try:
        current = holder[key]
        is_equal = encode(canonical(copy_tree(current))) == encode(canonical(value))
    except Exception:  # noqa: BLE001 - the user's resolvers; what does not resolve here is pinned
        return []
    if not is_equal:
        return []
    return [current if OmegaConf.is_config(current) else AnyNode(current, flags={"allow_objects": True})]


def _escape(leaf: tp.Any) -> tp.Any:
    """A string that resolves to ``leaf``: one from outside may look like an interpolation."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", leaf) if type(leaf) is str else leaf
