"""Values that a job gets in place of interpolations, since they were part of the identity of its task."""

from __future__ import annotations

import contextlib
import enum
import pathlib
import re
import typing as tp

from omegaconf import AnyNode, DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from .trees import MISSING, Path, copied, mapped

_AS_THEY_ARE = (str, int, float, bytes, enum.Enum, pathlib.Path, type(None))  # what configs hold


def pinned(task_config: DictConfig, pins: tp.Mapping[Path, tp.Any]) -> None:
    """Puts ``pins`` into a job's config, in place, also where its flags forbid that; they stay as they were.

    What is no single value (the config of a class, a dict that is no config, a tuple) is of the type that the
    interpolation gives here, as long as that is the pinned value.
    """
    for path, value in pins.items():
        holder: tp.Any = task_config
        for key in path[:-1]:
            holder = holder[key]
        is_missing = isinstance(value, str) and value == MISSING  # what stands for that would not be a text
        found = None if isinstance(value, _AS_THEY_ARE) and not is_missing else _found(holder, path[-1], value)
        with flag_override(holder, ["readonly", "struct", "allow_objects"], [False, False, True]):
            if found is None:
                holder[path[-1]] = mapped(value, _escaped)
            elif not is_missing:
                with contextlib.suppress(OmegaConfBaseException):  # of a field that takes no such object
                    holder[path[-1]] = found


def _found(holder: tp.Any, key: tp.Any, value: tp.Any) -> tp.Any:
    """What is at a key, as a node, if it is this value."""
    from hydra_exca.canonical import canonical, encode  # most jobs have no such value, and start without it

    try:
        found = holder[key]
        is_same = encode(canonical(copied(found))) == encode(canonical(value))
    except Exception:  # noqa: BLE001 - the user's resolvers; what does not resolve here is pinned
        return None
    if not is_same:
        return None
    return found if OmegaConf.is_config(found) else AnyNode(found, flags={"allow_objects": True})


def _escaped(leaf: tp.Any) -> tp.Any:
    """A string that resolves to ``leaf``: one from outside may look like an interpolation."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", leaf) if isinstance(leaf, str) else leaf
