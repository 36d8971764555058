"""Compositions: a job's config as a shared template and the overrides that are applied to a copy of it."""

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
    def placeholder(self) -> Template:
        """What stands for it where it is to be found by its name."""
        return _TemplatePlaceholder(self.name)

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return Template, (self.copy(),)


class _TemplatePlaceholder(Template):
    """What stands for a template that is elsewhere."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return _TemplatePlaceholder, (self.name,)


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

    def without_template(self) -> Composition:
        """The same without its template, which is sent by itself; unusable until `with_template_from` restores it."""
        return dataclasses.replace(self, template=self.template.placeholder)

    def with_template_from(self, templates: tp.Mapping[str, Template]) -> Composition:
        """The same with its template."""
        if type(self.template) is not _TemplatePlaceholder:
            return self
        return dataclasses.replace(self, template=templates[self.template.name])

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
            set_job_number(config, number)
        return config


def set_job_number(config: DictConfig, number: int) -> None:
    """Says which job of the sweep a config is that of."""
    with open_dict(config):
        config.hydra.job.id = str(number)
        config.hydra.job.num = number
