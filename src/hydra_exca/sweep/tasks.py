"""From a sweep's overrides to tasks: compose, validate, identify. All problems are collected before any is told."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import typing as tp
from pathlib import Path

from hydra.core.utils import filter_overrides
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hydra_exca.errors import ConfigError, Problem
from hydra_exca.globs import matches_key
from hydra_exca.identity import names, uid
from hydra_exca.identity.uid import Identity

from . import options as options_module
from . import schema
from .compose import loader
from .compose.composition import Composition, Template
from .configs import yaml_text
from .configs.overlay import JobVariant
from .configs.resolvers import may_call_custom_resolvers
from .configs.tree import Path as Place
from .function_identity import FunctionIdentity
from .identity import Identifier
from .options import SweepOptions
from .resolve import resolve
from .resolve.shared_facts import JobFacts, SharedFacts

if tp.TYPE_CHECKING:
    from hydra_exca.infra.task import TaskInfra


@dataclasses.dataclass(frozen=True, slots=True)
class SweepTask:
    """One job of a sweep: its number, what makes its config, and what became of it on the way to a task.

    ``pins`` are the values its job gets instead of interpolations that were part of the identity, ``environment``
    those of ``hydra.job.env_set``. ``infra`` is that of the model's method whose result this is. ``resources`` are
    those that its config asks for.
    """

    number: int
    overrides: tuple[str, ...]
    composition: Composition
    sweep_folder: str
    subfolder: str
    pins: dict[Place, tp.Any]
    environment: dict[str, str]
    identity: Identity
    notices: tuple[str, ...] = ()
    infra: TaskInfra | None = None
    resources: dict[str, tp.Any] = dataclasses.field(default_factory=dict)

    def config(self) -> DictConfig:
        """The composed config, made anew each time."""
        return self.composition.config(self.number)


@dataclasses.dataclass(frozen=True, slots=True)
class _ComposedJob:
    """One job as it was asked for, and what makes its config."""

    number: int
    overrides: tuple[str, ...]
    composition: Composition


class Composer:
    """Composes, validates and identifies the jobs of one batch."""

    def __init__(
        self,
        context: HydraContext,
        config: DictConfig,
        options: SweepOptions,
        function: FunctionIdentity,
        kinds: schema.Schema,
    ) -> None:
        self._context = context
        self._config = config
        self._options = options
        self._schema = kinds
        self._identifier = Identifier(options, function, kinds)
        self._problems: list[Problem] = []
        self._needs_own_look: dict[Template, bool] = {}

    def tasks(self, job_overrides: tp.Sequence[tp.Sequence[str]], first: int) -> list[SweepTask]:
        """One task a job. Raises ConfigError that lists every problem of every job."""
        groups: dict[int, list[_ComposedJob]] = {}
        for number, overrides in enumerate(job_overrides, first):
            with self._collecting_problems(overrides):
                job = _ComposedJob(number, tuple(overrides), self._compose(list(overrides)))
                groups.setdefault(self._group(job), []).append(job)
        tasks = [task for group, jobs in groups.items() for task in self._group_tasks(group, jobs)]
        problems = [*self._problems, *(self._identifier.problems() if tasks else ())]
        if problems:
            problems = sorted(dict.fromkeys(problems), key=lambda problem: bool(problem.overrides))
            jobs = len({problem.overrides for problem in problems if problem.overrides or not problem.key})
            if not jobs:
                raise ConfigError("The launcher's options are invalid; nothing was submitted.", problems)
            have = "has" if jobs == 1 else "have"
            message = f"{jobs} of {len(job_overrides)} tasks {have} an invalid configuration; nothing was submitted."
            raise ConfigError(message, problems)
        return sorted(tasks, key=lambda task: task.number)

    @contextlib.contextmanager
    def _collecting_problems(self, overrides: tp.Sequence[str]) -> tp.Iterator[None]:
        try:
            yield
        except ConfigError as error:
            shown = tuple(filter_overrides(overrides))
            found = error.problems or (Problem(error.message),)
            self._problems += [_of_task(problem, shown) for problem in found]

    def _group(self, job: _ComposedJob) -> int:
        """Jobs that are looked at together: those of a template, unless they have other leaves, or need a look each."""
        template = job.composition.template
        if template not in self._needs_own_look:
            config = template.copy()
            self._needs_own_look[template] = may_call_custom_resolvers(config) or resolve.may_vary_env_set(config)
        is_alone = job.composition.leaves is None or self._needs_own_look[template]
        return -1 - job.number if is_alone else id(template)

    def _group_tasks(self, group: int, jobs: tp.Sequence[_ComposedJob]) -> tp.Iterator[SweepTask]:
        """The tasks of jobs whose configs have the same leaves."""
        first = jobs[0]
        if group < 0:
            config, variants = first.composition.config(first.number), [JobVariant()]
        else:
            config = first.composition.template.copy()
            variants = [job.composition.variant(job.number) for job in jobs]
        chosen = self._options
        found = resolve.resolve_all(
            config,
            variants,
            node_env=chosen.node_env,
            allow_missing=chosen.allow_missing,
            environment=self._environment(config),
        )
        common = SharedFacts(config, chosen.node_env)
        for job, variant, resolved, folders in zip(
            jobs, variants, found, common.resolve_folders(variants), strict=True
        ):
            with self._collecting_problems(job.overrides):
                yield self._task(job, resolved, folders, common.facts_of(variant))

    def _environment(self, config: DictConfig) -> dict[str, str]:
        """What Hydra adds to the environment of these jobs; nothing if that is an error, which each of them tells."""
        try:
            return resolve.pinned_environment(resolve.resolve_env_set(config, node_env=self._options.node_env))
        except ConfigError:
            return {}

    def _task(
        self, job: _ComposedJob, resolved: resolve.Resolved, folders: tuple[str, str] | Problem, facts: JobFacts
    ) -> SweepTask:
        speaker = functools.partial(self._schema.speaker, lambda: schema.without_missing(resolved.values))
        problems = [*resolved.missing, *self._identifier.counting(resolved.failing, speaker)]
        wanted, unusable = options_module.resources_of_task(self._options.per_task, facts.config)
        if not problems:
            if self._schema.kinds:
                problems = self._schema.problems(schema.without_missing(resolved.values), facts.config)
            problems += unusable
        if isinstance(folders, Problem):
            raise ConfigError("", [*problems, folders])
        if problems:
            raise ConfigError("", problems)
        model = speaker()
        infra = None if model is None else self._schema.infra(model)
        identity = self._identifier.identity(resolved, facts, job.overrides, model)
        notices = (*resolved.notices, *_notices(infra, self._options.folder))
        environment = resolve.pinned_environment(facts.env_set)
        return SweepTask(
            job.number,
            job.overrides,
            job.composition,
            *folders,
            resolved.pins,
            environment,
            identity,
            notices,
            infra,
            wanted,
        )

    def _compose(self, overrides: list[str]) -> Composition:
        try:
            return loader.sweep_loader(self._context).take_composition(self._config, overrides)
        except (HydraException, OmegaConfBaseException) as error:
            cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
            raise ConfigError("", [Problem(str(error) or str(cause))]) from error


def _of_task(problem: Problem, overrides: tuple[str, ...]) -> Problem:
    """A task's problem, with what it was asked for with; one of the launcher's options is no task's."""
    ours = problem.key.startswith("hydra.launcher.") and problem.key != options_module.PER_TASK_KEY
    return problem if ours else dataclasses.replace(problem, overrides=overrides)


def _notices(infra: TaskInfra | None, folder: Path) -> tp.Iterator[str]:
    if infra is not None and infra.folder is not None:
        own = Path(infra.folder).expanduser().absolute()
        if own.resolve() != folder.resolve():
            yield (
                f"the infra's folder is {own}, and a sweep keeps results in hydra.launcher.folder, {folder}: "
                "set that too, for each to find what the other has computed"
            )


def describe_tasks(task: SweepTask) -> tuple[str, str]:
    """The texts of ``uid.yaml`` and ``config.yaml``: what makes the uid, and the configuration as it was composed.

    Those of a method with an infra are what that infra writes, and can read.
    """
    if task.infra is not None:
        return task.infra.task().describe()
    return yaml_text.fields_yaml(task.identity.fields), yaml_text.composition_yaml(task.composition)


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
        flat = [names.flatten(task.identity.fields) for task in members]
        keys = dict.fromkeys(key for fields in flat for key in fields)
        splitting = [key for key in keys if len({uid.encode(fields.get(key)) for fields in flat}) > 1]
        notes += [f"{key} still tells tasks apart that differ only in {', '.join(patterns)}" for key in splitting]
    return list(dict.fromkeys(notes))


def _names_left_out(override: str, patterns: tp.Sequence[str]) -> bool:
    key = override.partition("=")[0].lstrip("+~")
    return matches_key(key, patterns)
