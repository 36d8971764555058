"""From a sweep's overrides to tasks: compose, validate, identify. The problems of all jobs are raised together."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import typing as tp
from collections import defaultdict
from pathlib import Path

from hydra.core.utils import filter_overrides
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hydra_exca.errors import ConfigError, Problem
from hydra_exca.globs import matches_key
from hydra_exca.identity import names, uid
from hydra_exca.identity.redaction import Redaction
from hydra_exca.identity.uid import Identity
from hydra_exca.status import OnUnresolved

from . import options as options_module
from . import schema
from .compose import loader
from .compose.composition import Composition, Template
from .configs import yaml_text
from .configs.overlay import JobVariant
from .configs.resolvers import may_call_custom_resolvers
from .function_identity import FunctionIdentity
from .identity import Identifier
from .job.program import HydraJob
from .options import SweepOptions
from .resolve import resolve
from .resolve.classify import Tolerance
from .resolve.shared_facts import JobFacts, SharedFacts
from .resolve.sizes import JobSizes

if tp.TYPE_CHECKING:
    from hydra_exca.infra.task import TaskInfra


@dataclasses.dataclass(frozen=True, slots=True)
class SweepTask:
    """One job of a sweep, and the task that it is.

    ``infra`` is that of the model's method whose result this is. ``resources`` are those that its config asks for, and
    ``reads`` has those that a retry might change and that its identity depends on, each with the key that reads it.
    ``shown`` are the overrides for people and records: without those that Hydra has added, and without secrets.
    """

    job: HydraJob
    overrides: tuple[str, ...]
    shown: tuple[str, ...]
    identity: Identity
    notices: tuple[str, ...]
    infra: TaskInfra | None
    resources: dict[str, tp.Any]
    reads: dict[str, str]

    def config(self) -> DictConfig:
        """The composed config, made anew each time."""
        return self.job.composition.config(self.job.number)


@dataclasses.dataclass(frozen=True, slots=True)
class _ComposedJob:
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
        cluster: str,
    ) -> None:
        """``cluster`` is the name of the one that runs the tasks: on Slurm, its options decide the sizes of jobs."""
        self._context = context
        self._config = config
        self._options = options
        self._schema = kinds
        self._identifier = Identifier(options, function, kinds)
        self._problems: list[Problem] = []
        # a model reads all leaves, a function perhaps not the one that is wrong
        warns = options.on_unresolved is OnUnresolved.WARN and not kinds.kinds
        self._tolerance = Tolerance(options.allow_missing, absent=not kinds.kinds, any_failure=warns)
        self._resolved_alone: dict[Template, bool] = {}
        self._sizes = JobSizes(options.jobs if cluster == "slurm" else None)
        self._expected_sizes = self._sizes.expected(options.per_task)

    @property
    def redaction(self) -> Redaction:
        return self._identifier.redaction

    def tasks(self, job_overrides: tp.Sequence[tp.Sequence[str]], first: int) -> list[SweepTask]:
        """One task for each job. Raises ConfigError that lists every problem of every job."""
        groups: dict[int, list[_ComposedJob]] = defaultdict(list)
        for number, overrides in enumerate(job_overrides, first):
            with self._collecting_problems(overrides):
                job = _ComposedJob(number, tuple(overrides), self._compose(list(overrides)))
                groups[self._group_of(job)].append(job)
        tasks = [task for group, jobs in groups.items() for task in self._group_tasks(group, jobs)]
        problems = [*self._problems, *(self._identifier.problems() if tasks else ())]
        if problems:
            raise _invalid_tasks(problems, len(job_overrides))
        return sorted(tasks, key=lambda task: task.job.number)

    @contextlib.contextmanager
    def _collecting_problems(self, overrides: tp.Sequence[str]) -> tp.Iterator[None]:
        try:
            yield
        except ConfigError as error:
            shown = tuple(self.redaction.redact_arguments(filter_overrides(overrides)))
            self._problems += [_of_task(problem, shown) for problem in error.problems or (Problem(error.message),)]

    def _group_of(self, job: _ComposedJob) -> int:
        """The group of jobs that are resolved together: those of a template.

        Alone are jobs with other leaves than those of the template, and those that must be resolved one at a time.
        """
        template = job.composition.template
        if template not in self._resolved_alone:
            config = template.copy()
            self._resolved_alone[template] = may_call_custom_resolvers(config) or resolve.may_vary_env_set(config)
        is_alone = job.composition.leaves is None or self._resolved_alone[template]
        return -1 - job.number if is_alone else id(template)

    def _group_tasks(self, group: int, jobs: tp.Sequence[_ComposedJob]) -> tp.Iterator[SweepTask]:
        """The tasks of jobs whose configs have the same leaves."""
        first = jobs[0]
        if group < 0:
            config, variants = first.composition.config(first.number), [JobVariant()]
        else:
            config = first.composition.template.copy()
            variants = [job.composition.variant(job.number) for job in jobs]
        env_set = self._env_set(config)
        resolved_jobs = resolve.resolve_all(
            config,
            variants,
            node_env=(*self._options.node_env, *resolve.run_variables(env_set)),
            tolerance=self._tolerance,
            environment=resolve.pinned_environment(env_set),
            sizes=self._expected_sizes,
        )
        common = SharedFacts(config, self._options.node_env, self._expected_sizes)
        folders_of_jobs = common.resolve_folders(variants)
        for job, variant, resolved, folders in zip(jobs, variants, resolved_jobs, folders_of_jobs, strict=True):
            with self._collecting_problems(job.overrides):
                yield self._task(job, resolved, folders, common.facts_of(variant))

    def _env_set(self, config: DictConfig) -> dict[str, tp.Any]:
        """What Hydra adds to the environment of these jobs; empty if that is an error, which each job reports."""
        try:
            return resolve.resolve_env_set(config, node_env=self._options.node_env, sizes=self._expected_sizes)
        except ConfigError:
            return {}

    def _task(
        self, job: _ComposedJob, resolved: resolve.Resolved, folders: tuple[str, str] | Problem, facts: JobFacts
    ) -> SweepTask:
        make_model = functools.partial(self._schema.identifying_model, lambda: resolved.values)
        problems = [*resolved.missing, *self._identifier.counting(resolved.failing, make_model)]
        resources, unusable = options_module.resources_of_task(self._options.per_task, facts.config)
        if not problems:
            problems = [*self._schema.problems(resolved.values, facts.config), *unusable]
        if isinstance(folders, Problem):
            raise ConfigError("", [*problems, folders])
        if problems:
            raise ConfigError("", problems)
        model = make_model()
        infra = None if model is None else self._schema.infra(model)
        environment = resolve.pinned_environment(facts.env_set)
        sizes = self._sizes.of_task(resources, environment)
        identity = self._identifier.identity(resolved, facts, job.overrides, model, sizes)
        tolerated = self._identifier.counting(resolved.tolerated, make_model)
        notices = (
            *resolved.notices,
            *(f"{problem}. The task runs, and this text counts for its uid" for problem in tolerated),
            *sizes.notices(self._identifier.counted_sizes(resolved, facts.env_set, identity.excluded)),
            *_folder_notices(infra, self._options.folder),
        )
        redaction = identity.redaction
        hiding = redaction if redaction.finds_secrets(resolved.values) else None
        shown = tuple(redaction.redact_arguments(filter_overrides(job.overrides)))
        hydra_job = HydraJob(job.composition, job.number, resolved.pins, *folders, environment, hiding)
        reads = {
            name: key
            for name in self._options.retries.resources
            if (key := self._identifier.key_reading(name, resolved, facts, sizes, identity.excluded)) is not None
        }
        return SweepTask(hydra_job, job.overrides, shown, identity, notices, infra, resources, reads)

    def _compose(self, overrides: list[str]) -> Composition:
        try:
            return loader.sweep_loader(self._context).take_composition(self._config, overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError("", [Problem(str(error) or str(error.__cause__))]) from error


def _invalid_tasks(problems: tp.Sequence[Problem], count: int) -> ConfigError:
    """The error for tasks with problems, of ``count`` tasks; problems of all tasks come first."""
    problems = sorted(dict.fromkeys(problems), key=lambda problem: bool(problem.overrides))
    invalid = len({problem.overrides for problem in problems if problem.overrides or not problem.key})
    if not invalid:
        return ConfigError(options_module.INVALID_OPTIONS, problems)
    have = "has" if invalid == 1 else "have"
    return ConfigError(f"{invalid} of {count} tasks {have} an invalid configuration; nothing was submitted.", problems)


def _of_task(problem: Problem, overrides: tuple[str, ...]) -> Problem:
    """The problem as one of the task with these overrides, unless it is one of the launcher's options."""
    is_ours = problem.key.startswith("hydra.launcher.") and problem.key != options_module.PER_TASK_KEY
    return problem if is_ours else dataclasses.replace(problem, overrides=overrides)


def _folder_notices(infra: TaskInfra | None, folder: Path) -> tp.Iterator[str]:
    if infra is not None and infra.folder is not None:
        own = Path(infra.folder).expanduser().absolute()
        if own.resolve() != folder.resolve():
            yield (
                f"the infra's folder is {own}, and a sweep keeps results in hydra.launcher.folder, {folder}: "
                "set both to the same folder, for each to find what the other has computed"
            )


def describe_task(task: SweepTask) -> tuple[str, str]:
    """The texts of ``config.yaml``: what makes the uid, and the configuration as it was composed.

    Those of a method with an infra are what that infra writes, and can read.
    """
    if task.infra is not None:
        return task.infra.task().describe()
    identity = task.identity
    config = yaml_text.composition_yaml(task.job.composition, identity.redaction.redact_tree)
    return yaml_text.fields_yaml(identity.shown_fields), config


def split_by_excluded(batch: tp.Sequence[SweepTask], patterns: tp.Sequence[str]) -> list[str]:
    """Notes on keys that still tell tasks apart because their values are made of an excluded key."""
    if not patterns:
        return []
    groups: dict[frozenset[str], list[dict[str, tp.Any]]] = defaultdict(list)
    for task in batch:
        counting = frozenset(line for line in task.overrides if not _is_left_out(line, patterns))
        groups[counting].append(names.flatten(task.identity.fields))
    keys = dict.fromkeys(key for group in groups.values() for key in _differing_keys(group))
    return [f"{key} still tells tasks apart that differ only in {', '.join(patterns)}" for key in keys]


def _differing_keys(group: tp.Sequence[dict[str, tp.Any]]) -> list[str]:
    keys = dict.fromkeys(key for fields in group for key in fields)
    return [key for key in keys if len({uid.encode(fields.get(key)) for fields in group}) > 1]


def _is_left_out(override: str, patterns: tp.Sequence[str]) -> bool:
    return matches_key(override.partition("=")[0].lstrip("+~"), patterns)
