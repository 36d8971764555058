"""Values that a job gets in place of interpolations, since they were part of the identity of its task."""

from __future__ import annotations

import re
import typing as tp

from omegaconf import DictConfig, flag_override

from .trees import Path, mapped


def pinned(task_config: DictConfig, pins: tp.Mapping[Path, tp.Any]) -> None:
    """Puts ``pins`` into a job's config, in place, also where its flags forbid that; they stay as they were."""
    for path, value in pins.items():
        holder: tp.Any = task_config
        for key in path[:-1]:
            holder = holder[key]
        with flag_override(holder, ["readonly", "struct", "allow_objects"], [False, False, True]):
            holder[path[-1]] = mapped(value, _escaped)


def _escaped(leaf: tp.Any) -> tp.Any:
    """A string that resolves to ``leaf``: one from outside may look like an interpolation."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", leaf) if isinstance(leaf, str) else leaf
