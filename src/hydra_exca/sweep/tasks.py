"""From a sweep's overrides to tasks: compose, validate, identify. All problems are collected before any is told."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import typing as tp
from pathlib import Path

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import filter_overrides
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hydra_exca import uid
from hydra_exca.errors import ConfigError, Problem
from hydra_exca.uid import Identity

from . import loader, resources, schema, worlds
from .identify import Identifier
from .options import SweepOptions

if tp.TYPE_CHECKING:
    from hydra_exca.infra.task import TaskInfra


@dataclasses.dataclass(frozen=True)
class SweepTask:
    """One job of a sweep: its number, its composed config, and what became of it on the way to a task.

    ``pins`` are the values its job gets instead of interpolations that were part of the identity. ``infra`` is that
    of the model's method whose result this is. ``resources`` are those that its config asks for.
    """

    number: int
    overrides: tuple[str, ...]
    config: DictConfig
    sweep_folder: str
    subfolder: str
    pins: dict[worlds.Path, tp.Any]
    identity: Identity
    notices: tuple[str, ...] = ()
    infra: TaskInfra | None = None
    resources: dict[str, tp.Any] = dataclasses.field(default_factory=dict)


class Composer:
    """Composes, validates and identifies the jobs of one batch."""

    def __init__(
        self,
        context: HydraContext,
        config: DictConfig,
        options: SweepOptions,
        function: tp.Any,
        kinds: schema.Schema,
    ) -> None:
        self._context = context
        self._config = config
        self._options = options
        self._schema = kinds
        self._identifier = Identifier(options, function, kinds)

    def tasks(self, job_overrides: tp.Sequence[tp.Sequence[str]], first: int) -> list[SweepTask]:
        """One task a job. Raises ConfigError that lists every problem of every job."""
        tasks, problems = [], []
        for number, overrides in enumerate(job_overrides, first):
            try:
                tasks.append(self._task(number, tuple(overrides)))
            except ConfigError as error:
                shown = tuple(filter_overrides(overrides))
                found = error.problems or (Problem(error.message),)
                problems += [_of_task(problem, shown) for problem in found]
        if tasks:
            problems += self._identifier.problems()
        if problems:
            problems = sorted(dict.fromkeys(problems), key=lambda problem: bool(problem.overrides))
            jobs = len({problem.overrides for problem in problems if problem.overrides or not problem.key})
            told = f"{jobs} of {len(job_overrides)} tasks" if jobs else "The launcher's options"
            raise ConfigError(f"{told} cannot work; nothing was run.", problems)
        return tasks

    def _task(self, number: int, overrides: tuple[str, ...]) -> SweepTask:
        config = self._compose(number, overrides)
        resolved = worlds.resolve(config, node_env=self._options.node_env, allow_missing=self._options.allow_missing)
        problems = list(resolved.problems)
        wanted, unusable = resources.of(self._options.per_task, without_hydra(config))
        if not problems:
            problems = [*self._schema.problems(schema.present(resolved.values), without_hydra(config)), *unusable]
        if problems:
            raise ConfigError("", problems)
        model = self._schema.speaker(schema.present(resolved.values))
        infra = None if model is None else self._schema.infra(model)
        identity = self._identifier.identity(resolved, config, overrides, model)
        notices = (*resolved.notices, *_notices(infra, self._options.folder))
        return SweepTask(number, overrides, config, *_folders(config), resolved.pins, identity, notices, infra, wanted)

    def _compose(self, number: int, overrides: tuple[str, ...]) -> DictConfig:
        try:
            config = loader.compose(self._context, self._config, list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
            raise ConfigError("", [Problem(str(error) or str(cause))]) from error
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        return config


def _of_task(problem: Problem, overrides: tuple[str, ...]) -> Problem:
    """A task's problem, with what it was asked for with; one of the launcher's options is no task's."""
    ours = problem.key.startswith("hydra.launcher.") and problem.key != resources.KEY
    return problem if ours else dataclasses.replace(problem, overrides=overrides)


def _notices(infra: TaskInfra | None, folder: Path) -> tp.Iterator[str]:
    if infra is not None and infra.folder is not None:
        own = Path(infra.folder).expanduser().absolute()
        if own.resolve() != folder.resolve():
            yield (
                f"the infra's folder is {own}, and a sweep keeps results in hydra.launcher.folder, {folder}: "
                "set that too, for each to find what the other has computed"
            )


def describe(task: SweepTask) -> tuple[str, str]:
    """The texts of ``uid.yaml`` and ``config.yaml``: what makes the uid, and the configuration as it was composed.

    Those of a method with an infra are what that infra writes, and can read.
    """
    if task.infra is not None:
        return task.infra.task().describe()
    return yaml.safe_dump(task.identity.fields, sort_keys=False), OmegaConf.to_yaml(without_hydra(task.config))


def split_by_excluded(asked: tp.Sequence[SweepTask], patterns: tp.Sequence[str]) -> list[str]:
    """Notes on keys that differ between tasks only because they are made of a key that was left out."""
    if not patterns:
        return []
    groups: dict[str, list[SweepTask]] = {}
    for task in asked:
        swept = {each for each in task.overrides if not _names_left_out(each, patterns)}
        groups.setdefault(json.dumps(sorted(swept)), []).append(task)
    notes = []
    for members in groups.values():
        flat = [uid.flatten(task.identity.fields) for task in members]
        keys = dict.fromkeys(key for fields in flat for key in fields)
        splitting = [key for key in keys if len({uid.encode(fields.get(key)) for fields in flat}) > 1]
        notes += [f"{key} still tells tasks apart that differ only in {', '.join(patterns)}" for key in splitting]
    return list(dict.fromkeys(notes))


def _names_left_out(override: str, patterns: tp.Sequence[str]) -> bool:
    key = override.partition("=")[0].lstrip("+~")
    return any(fnmatch.fnmatch(key, each) or fnmatch.fnmatch(key, f"{each}.*") for each in patterns)


def _folders(config: DictConfig) -> tuple[str, str]:
    """``hydra.sweep.dir`` and ``subdir``, resolved as run_job would."""
    singleton: tp.Any = HydraConfig.instance()
    before = singleton.cfg
    try:
        singleton.cfg = config  # what set_config would make a copy of
        return str(OmegaConf.select(config, "hydra.sweep.dir")), str(OmegaConf.select(config, "hydra.sweep.subdir"))
    finally:
        singleton.cfg = before


def without_hydra(config: DictConfig) -> DictConfig:
    plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    OmegaConf.set_struct(plain, OmegaConf.is_struct(config))
    return plain
