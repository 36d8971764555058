"""What makes a job's config: a composed config, and what is put into a copy of it."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import typing as tp

from omegaconf import DictConfig, OmegaConf, open_dict

from hydra_exca.sweep.configs.overlay import JobVariant, set_task_overrides
from hydra_exca.sweep.configs.pickled_copy import PickledCopy
from hydra_exca.sweep.configs.tree import Path


class Template:
    """A composed config, of which there are copies to be had.

    It is kept pickled: as objects a config takes a hundred times the memory.
    """

    def __init__(self, config: DictConfig) -> None:
        self._frozen = PickledCopy(config)
        self.name = os.urandom(8).hex()

    def copy(self) -> DictConfig:
        """The config, as its taker's own."""
        return tp.cast(DictConfig, self._frozen.copy())

    @functools.cached_property
    def absent(self) -> Template:
        """What stands for it where it is to be found by its name."""
        return _Absent(self.name)

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return Template, (self.copy(),)


class _Absent(Template):
    """What stands for a template that is elsewhere."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return _Absent, (self.name,)


@dataclasses.dataclass(frozen=True)
class Composition:
    """What makes one job's config: a template, and the overrides that are put into a copy of it, in turn.

    ``leaves`` says the same by path, None where that cannot be: an override puts a container somewhere, or an
    interpolation. ``cache`` is what resolvers have given the sweep, None where that is what the template has.
    """

    template: Template
    values: tuple[tuple[str, tp.Any], ...] = ()
    lines: tuple[str, ...] | None = None
    dirname: str | None = None
    leaves: tp.Mapping[Path, tp.Any] | None = dataclasses.field(default_factory=dict)
    cache: tp.Any = None

    def variant(self, number: int) -> JobVariant:
        """In what the job's config differs from the template, if it has the same leaves."""
        assert self.leaves is not None, "it has others"
        return JobVariant(self.leaves, number, self.lines, self.dirname)

    def by_name(self) -> Composition:
        """The same without its template, which travels by itself; of no use until it is found `among` others."""
        return dataclasses.replace(self, template=self.template.absent)

    def among(self, templates: tp.Mapping[str, Template]) -> Composition:
        """The same with its template."""
        template = self.template
        return dataclasses.replace(self, template=templates[template.name]) if type(template) is _Absent else self

    def config(self, number: int | None = None) -> DictConfig:
        """The job's config, as its taker's own; with a ``number`` Hydra knows the job by that."""
        config = self.template.copy()
        for key, value in self.values:
            OmegaConf.update(config, key, value, merge=True)
        if self.lines is not None:
            set_task_overrides(config, self.lines)
            config.hydra.job.override_dirname = self.dirname
        if self.cache is not None:
            OmegaConf.set_cache(config, copy.deepcopy(self.cache))
        if number is not None:
            numbered(config, number)
        return config


def numbered(config: DictConfig, number: int) -> None:
    """Says which job of the sweep a config is that of."""
    with open_dict(config):
        config.hydra.job.id = str(number)
        config.hydra.job.num = number
