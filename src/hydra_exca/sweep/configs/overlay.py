"""A config that is shown as that of one job after another: only what differs between them is touched."""

from __future__ import annotations

import dataclasses
import typing as tp

from omegaconf import DictConfig, ValueNode, open_dict, read_write

from .omegaconf_private import child_nodes, set_value, unresolved_value
from .tree import Path


@dataclasses.dataclass(frozen=True)
class JobVariant:
    """In what one job's config differs from another's: some leaves, by path, and what Hydra says of the job.

    ``number`` None is that of the config itself, and so are ``lines`` (``hydra.overrides.task``) and ``dirname``
    (``hydra.job.override_dirname``).
    """

    leaves: tp.Mapping[Path, tp.Any] = dataclasses.field(default_factory=dict)
    number: int | None = None
    lines: tuple[str, ...] | None = None
    dirname: str | None = None


class Slot:
    """A leaf of a config. OmegaConf has no public way to change one without all checks and to put it back."""

    __slots__ = ("_content", "_key", "_node", "_value")

    def __init__(self, content: tp.Any, key: tp.Any, node: ValueNode) -> None:
        self._content, self._key, self._node = content, key, node
        self._value = unresolved_value(node)

    @classmethod
    def at(cls, config: DictConfig, path: Path) -> Slot | None:
        """None where there is no leaf, or only by way of an interpolation."""
        node: tp.Any = config
        content: tp.Any = None
        for key in path:
            content = child_nodes(node)
            node = None if content is None else _item(content, key)
            if node is None:
                return None
        return cls(content, path[-1], node) if isinstance(node, ValueNode) else None

    @property
    def kind(self) -> type:
        return type(self._node)

    @property
    def value(self) -> tp.Any:
        """What stands there now: of an interpolation its text."""
        return unresolved_value(self._content[self._key])

    def set(self, value: tp.Any) -> None:
        """Puts a value there that is known to fit."""
        set_value(self._node, value)

    def reset(self) -> None:
        """Puts back what was there at first, whatever has been put there."""
        self._content[self._key] = self._node
        set_value(self._node, self._value)


def _item(content: dict[tp.Any, tp.Any] | list[tp.Any], key: tp.Any) -> tp.Any:
    if isinstance(content, dict):
        return content.get(key)
    return content[key] if type(key) is int and 0 <= key < len(content) else None


class ConfigOverlay:
    """A config of one's own, which is shown as any job's."""

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self._slots: dict[Path, Slot | None] = {}
        self._shown: tuple[Path, ...] = ()
        self._lines: tp.Any = None

    def show(self, variant: JobVariant, *, with_hydra: bool = True) -> DictConfig:
        """The config as that job's, until the next one is shown."""
        for path in self._shown:
            self._slot(path).reset()
        for path, value in variant.leaves.items():
            self._slot(path).set(value)
        self._shown = tuple(variant.leaves)
        if with_hydra:
            self._show_job(variant)
        return self.config

    def put(self, path: Path, value: tp.Any) -> None:
        """Sets a leaf below ``hydra``, checked by nobody, or made anew."""
        slot = self._slots[path] if path in self._slots else self._slots.setdefault(path, Slot.at(self.config, path))
        if slot is not None:
            slot.set(value)
            return
        del self._slots[path]
        holder = self.config
        for key in path[:-1]:
            holder = holder[key]
        with read_write(holder), open_dict(holder):
            holder[path[-1]] = value

    def _show_job(self, variant: JobVariant) -> None:
        if variant.number is not None:
            self.put(("hydra", "job", "num"), variant.number)
            self.put(("hydra", "job", "id"), str(variant.number))
        if variant.dirname is not None:
            self.put(("hydra", "job", "override_dirname"), variant.dirname)
        if variant.lines is not None:
            self._show_lines(variant.lines)

    def _show_lines(self, lines: tuple[str, ...]) -> None:
        place = ("hydra", "overrides", "task")
        if self._lines is None:
            self._lines = self.config.hydra.overrides.task
        if len(self._lines) == len(lines):
            for index, line in enumerate(lines):
                self.put((*place, index), line)
            return
        for index in range(len(self._lines)):
            self._slots.pop((*place, index), None)
        describe_value(self.config, lines)

    def _slot(self, path: Path) -> Slot:
        if path not in self._slots:
            self._slots[path] = Slot.at(self.config, path)
        slot = self._slots[path]
        assert slot is not None, f"no leaf at {path}"
        return slot


def describe_value(config: DictConfig, lines: tp.Iterable[str]) -> None:
    """Writes the overrides of a job into its config, as Hydra does: one after the other."""
    said: tp.Any = config.hydra.overrides.task
    while len(said):
        said.pop()
    for line in lines:
        said.append(line)
