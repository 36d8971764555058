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
    """A composed config that gives copies of itself.

    It is kept pickled: as objects, a config takes a hundred times the memory.
    """

    def __init__(self, config: DictConfig) -> None:
        self._pickled = PickledCopy(config)
        self.name = os.urandom(8).hex()

    def copy(self) -> DictConfig:
        """A copy of the config, which the caller may change."""
        return tp.cast(DictConfig, self._pickled.copy())

    @functools.cached_property
    def placeholder(self) -> Template:
        """A template with only its name, for what is sent apart from the template itself."""
        return _TemplatePlaceholder(self.name)

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return Template, (self.copy(),)


class _TemplatePlaceholder(Template):
    """Stands for a template that is elsewhere, by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return _TemplatePlaceholder, (self.name,)


@dataclasses.dataclass(frozen=True)
class Composition:
    """How one job's config is made: a template, and the ``values`` that are set in a copy of it, in their order.

    ``leaves`` are these values by path; None if that is not possible, because an override sets a container or an
    interpolation. ``cache`` is the resolver cache of the sweep, None if it equals that of the template.
    """

    template: Template
    values: tuple[tuple[str, tp.Any], ...] = ()
    lines: tuple[str, ...] | None = None
    dirname: str | None = None
    leaves: tp.Mapping[Path, tp.Any] | None = dataclasses.field(default_factory=dict)
    cache: tp.Any = None

    def variant(self, number: int) -> JobVariant:
        """The difference between the job's config and the template, which must have the same leaves."""
        assert self.leaves is not None, "the job has other leaves than its template"
        return JobVariant(self.leaves, number, self.lines, self.dirname)

    def without_template(self) -> Composition:
        """The same without its template, which is sent by itself. `with_template_from` restores it."""
        return dataclasses.replace(self, template=self.template.placeholder)

    def with_template_from(self, templates: tp.Mapping[str, Template]) -> Composition:
        """The same with its template."""
        if type(self.template) is not _TemplatePlaceholder:
            return self
        return dataclasses.replace(self, template=templates[self.template.name])

    def config(self, number: int | None = None) -> DictConfig:
        """The job's config, which the caller may change; ``number`` is that of the job in the sweep."""
        config = self.template.copy()
        for key, value in self.values:
            OmegaConf.update(config, key, value, merge=True)
        if self.lines is not None:
            set_task_overrides(config, self.lines)
        if self.dirname is not None:
            config.hydra.job.override_dirname = self.dirname
        if self.cache is not None:
            OmegaConf.set_cache(config, copy.deepcopy(self.cache))
        if number is not None:
            set_job_number(config, number)
        return config


def set_job_number(config: DictConfig, number: int) -> None:
    """Records in a config which job of the sweep it belongs to."""
    with open_dict(config):
        config.hydra.job.id = str(number)
        config.hydra.job.num = number
