"""One config that takes the values of one job after another: only leaves that differ between jobs are set."""

from __future__ import annotations

import dataclasses
import functools
import typing as tp

from omegaconf import DictConfig, ValueNode

from .omegaconf_private import child_nodes, set_value, unresolved_value
from .tree import Path


@dataclasses.dataclass(frozen=True)
class JobVariant:
    """The difference of one job's config: some leaves, by path, and what Hydra records of the job.

    ``number`` None is that of the config itself, and so are ``lines`` (``hydra.overrides.task``) and ``dirname``
    (``hydra.job.override_dirname``).
    """

    leaves: tp.Mapping[Path, tp.Any] = dataclasses.field(default_factory=dict)
    number: int | None = None
    lines: tuple[str, ...] | None = None
    dirname: str | None = None


class LeafSlot:
    """A leaf of a config. OmegaConf has no public way to change one without all checks and to put it back."""

    __slots__ = ("_content", "_key", "_node", "_value")

    def __init__(self, content: tp.Any, key: tp.Any, node: ValueNode) -> None:
        self._content, self._key, self._node = content, key, node
        self._value = unresolved_value(node)

    @classmethod
    def at(cls, config: DictConfig, path: Path) -> LeafSlot | None:
        """The leaf at a path; None where there is none, or only through an interpolation."""
        node: tp.Any = config
        content: tp.Any = None
        for key in path:
            content = child_nodes(node)
            node = None if content is None else _item(content, key)
            if node is None:
                return None
        return cls(content, path[-1], node) if isinstance(node, ValueNode) else None

    @property
    def node_type(self) -> type:
        return type(self._node)

    @property
    def value(self) -> tp.Any:
        """The current value: the text of an interpolation."""
        return unresolved_value(self._content[self._key])

    def set(self, value: tp.Any) -> None:
        """Sets a value that is known to fit."""
        set_value(self._node, value)

    def reset(self) -> None:
        """Restores the original value."""
        self._content[self._key] = self._node
        set_value(self._node, self._value)


def path_of_key(config: DictConfig, dotted_key: str) -> Path:
    """A dotted key as a path: items of lists are numbers. Below an interpolation or a leaf, all parts are texts."""
    path: Path = ()
    node: tp.Any = config
    for part in dotted_key.split("."):
        content = child_nodes(node)
        path = (*path, int(part) if isinstance(content, list) and part.isdigit() else part)
        node = None if content is None else _item(content, path[-1])
    return path


def _item(content: dict[tp.Any, tp.Any] | list[tp.Any], key: tp.Any) -> tp.Any:
    if isinstance(content, dict):
        return content.get(key)
    return content[key] if type(key) is int and 0 <= key < len(content) else None


class ConfigOverlay:
    """A config of its own that takes the values of one job after another."""

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self._slots: dict[Path, LeafSlot] = {}
        self._changed: list[LeafSlot] = []

    def show_job(self, variant: JobVariant, *, with_hydra: bool = True) -> DictConfig:
        """The config with the values of that job, until the next one is shown."""
        for slot in self._changed:
            slot.reset()
        self._changed.clear()
        for path, value in variant.leaves.items():
            self.set_leaf(path, value)
        if with_hydra:
            self._set_job_keys(variant)
        return self.config

    def set_leaf(self, path: Path, value: tp.Any) -> None:
        """Sets a leaf to a value that is known to fit, until the next job is shown."""
        slot = self._slots.get(path) or LeafSlot.at(self.config, path)
        assert slot is not None, f"no leaf at {path}"
        self._slots[path] = slot
        self._changed.append(slot)
        slot.set(value)

    def _set_job_keys(self, variant: JobVariant) -> None:
        if variant.number is not None:
            self.set_leaf(("hydra", "job", "num"), variant.number)
            self.set_leaf(("hydra", "job", "id"), str(variant.number))
        if variant.dirname is not None:
            self.set_leaf(("hydra", "job", "override_dirname"), variant.dirname)
        if variant.lines is not None:
            self._set_override_lines(variant.lines)

    def _set_override_lines(self, lines: tuple[str, ...]) -> None:
        if len(self._override_lines) == len(lines):
            for index, line in enumerate(lines):
                self.set_leaf((*_OVERRIDE_LINES, index), line)
            return
        for index in range(len(self._override_lines)):
            self._slots.pop((*_OVERRIDE_LINES, index), None)
        set_task_overrides(self.config, lines)

    @functools.cached_property
    def _override_lines(self) -> tp.Any:
        return self.config.hydra.overrides.task


_OVERRIDE_LINES = ("hydra", "overrides", "task")


def set_task_overrides(config: DictConfig, lines: tp.Iterable[str]) -> None:
    """Writes the overrides of a job into its config, as Hydra does: one after the other."""
    overrides: tp.Any = config.hydra.overrides.task
    while len(overrides):
        overrides.pop()
    for line in lines:
        overrides.append(line)
