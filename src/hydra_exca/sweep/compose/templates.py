"""Templates: many jobs from few compositions, one for each choice of groups; other keys are set in copies of these.

The result equals in everything what Hydra composes for the job; if that is not certain, Hydra composes the job.
``docs/design/composing.md`` has the rules and their reasons.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
import re
import typing as tp

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import AnyNode, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_exca.sweep.configs.overlay import LeafSlot, path_of_key
from hydra_exca.sweep.configs.resolvers import OWN, recorded_calls
from hydra_exca.sweep.configs.tree import Path, raw

from . import hydra_private
from .composition import Composition, Template

log = logging.getLogger("exca.sweep")
_PLAIN_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_REFUSALS = (HydraException, OmegaConfBaseException)


class _FallbackError(Exception):
    """Why Hydra has to compose a job by itself."""


class Templates:
    """The templates of one sweep: all that is composed under one master config."""

    def __init__(self, loader: ConfigLoader, reader: hydra_private.CachingReader, master: DictConfig) -> None:
        self._loader = loader
        self._reader = reader
        self._master = master
        self._is_group = hydra_private.config_groups(loader, master)
        self._choices: dict[tuple[str, ...], _Choice] = {}

    def compose(self, lines: tuple[str, ...]) -> Composition | None:
        """The composition of a job, None if it might differ from what Hydra composes."""
        try:
            return self._compose(lines)
        except _FallbackError as reason:
            log.debug("Hydra composes the job %s by itself: %s", " ".join(lines), reason)
            return None

    def release_memory(self) -> None:
        """Drops the working copies of the templates; they are made again when needed."""
        for choice in self._choices.values():
            choice.release_memory()

    def _compose(self, lines: tuple[str, ...]) -> Composition:
        overrides = _parse(lines)
        group_choices: list[Override] = []
        values: list[Override] = []
        for override in overrides:
            if not _is_of_the_task(override):
                raise _FallbackError(f"{override.input_line} is a sweep, or Hydra's own")
            is_choice = self._is_group(override.key_or_group)
            if isinstance(override.value(), dict) if is_choice else not _is_plain(override):
                raise _FallbackError(f"{override.input_line} does more than to set a key, or to choose from a group")
            (group_choices if is_choice else values).append(override)
        choice = self._choice(tuple(str(override.input_line) for override in group_choices))
        if not choice.is_certain:
            raise _FallbackError("the choice of groups, or settings of hydra.job, depend on more than the overrides")
        return choice.with_values(values, overrides)

    def _choice(self, lines: tuple[str, ...]) -> _Choice:
        choice = self._choices.get(lines)
        if choice is None or not choice.is_current():
            choice = self._choices[lines] = self._make_choice(lines)
        return choice

    def _make_choice(self, lines: tuple[str, ...]) -> _Choice:
        try:
            with recorded_calls() as called:
                config = self._reader.compose(self._master, lines)
            if called - OWN:  # by merging, which only looks whether it gives a container, or to choose groups
                with recorded_calls() as called:
                    hydra_private.choose_groups(self._loader, self._master, lines)
        except _REFUSALS as error:  # all overrides of the job together may be fine, or give a better message
            raise _FallbackError(error) from error
        return _Choice(config, self._master, is_steady=not called - OWN)


def _parse(lines: tuple[str, ...]) -> list[Override]:
    try:
        return [hydra_private.parse_overrides(line) for line in lines]
    except HydraException as error:
        raise _FallbackError(error) from error


def _is_of_the_task(override: Override) -> bool:
    return re.split(r"[./@]", override.key_or_group.lstrip("+~"))[0] != "hydra" and not override.is_sweep_override()


def _is_plain(override: Override) -> bool:
    """Whether it gives an existing key another value."""
    is_change = override.type is OverrideType.CHANGE and override.package is None
    return is_change and _PLAIN_KEY.fullmatch(override.key_or_group) is not None


class _Choice:
    """The template for one choice of groups, and its keys as far as jobs have set them."""

    def __init__(self, config: DictConfig, master: DictConfig, is_steady: bool) -> None:
        """``is_steady``: the same choice of groups gives the same config, as long as the environment is the same."""
        self.template = Template(config)
        self._master = master
        hydra = config.hydra
        self._dirname = raw(hydra.job.config.override_dirname)
        self._folder, self._environ = os.getcwd(), dict(_environ())
        self._cache = copy.deepcopy(OmegaConf.get_cache(config))
        # Hydra resolves these while it composes, with the values of the job.
        resolved_early = str([self._dirname, raw(hydra.job.env_copy), raw(hydra.job).get("name")])
        self.is_certain = "${" not in resolved_early and is_steady
        self._slots: dict[str, tuple[Path, LeafSlot] | None] = {}
        self._accepted_types: set[tuple[str, type]] = set()

    def is_current(self) -> bool:
        """Whether Hydra would compose the same now: in the same environment and working directory."""
        return self._environ == _environ() and self._folder == os.getcwd()

    def release_memory(self) -> None:
        self.__dict__.pop("_working", None)
        self._slots.clear()

    def with_values(self, plain: tp.Sequence[Override], overrides: tp.Sequence[Override]) -> Composition:
        """Raises _FallbackError where a value does not fit."""
        values = tuple((override.key_or_group, override.value()) for override in plain)
        leaves = self._leaves(values)
        lines = tuple(str(override.input_line) for override in overrides)
        dirname = hydra_private.override_dirname(overrides, self._dirname)
        cache = OmegaConf.get_cache(self._master)
        changed = None if cache == self._cache else copy.deepcopy(cache)
        composition = Composition(self.template, values, lines, dirname, leaves, changed)
        if leaves is None:
            self._check(composition)
        return composition

    def _check(self, composition: Composition) -> None:
        try:
            composition.config()
        except OmegaConfBaseException as error:
            raise _FallbackError(error) from error

    def _leaves(self, values: tp.Iterable[tuple[str, tp.Any]]) -> dict[Path, tp.Any] | None:
        """The values by path, as they are in a config; None unless all are leaves and replace leaves."""
        leaves = {}
        for key, value in values:
            place = self._place(key)
            if place is None or not _is_leaf(value):
                return None
            path, slot = place
            leaves[path] = self._converted(key, slot, value)
        return leaves

    def _converted(self, key: str, slot: LeafSlot, value: tp.Any) -> tp.Any:
        if (key, type(value)) in self._accepted_types:
            return value
        try:
            OmegaConf.update(self._working, key, value, merge=True)
            if slot.node_type is AnyNode:  # which takes any value of a type, as it is
                self._accepted_types.add((key, type(value)))
            return slot.value
        except OmegaConfBaseException as error:
            raise _FallbackError(error) from error
        finally:
            slot.reset()

    def _place(self, key: str) -> tuple[Path, LeafSlot] | None:
        if key not in self._slots:
            path = path_of_key(self._working, key)
            slot = LeafSlot.at(self._working, path)
            self._slots[key] = None if slot is None else (path, slot)
        return self._slots[key]

    @functools.cached_property
    def _working(self) -> DictConfig:
        return self.template.copy()


def _environ() -> tp.Any:
    """The environment in a form that compares in a microsecond: decoding it would take most of composing a job."""
    return getattr(os.environ, "_data", os.environ)


def _is_leaf(value: tp.Any) -> bool:
    return value is None or (isinstance(value, (bool, int, float, str)) and "${" not in str(value))
