"""Which leaves of a composed config belong to one run and not to the task, found by resolving it in several worlds.

A leaf that differs between worlds which differ in nothing but run-dependent values (time, output directory, working
directory, job id, variables of the scheduler) depends on them, however it reaches them. The rules and their reasons
are in ``docs/design/worlds.md``.
"""

from __future__ import annotations

import functools
import re
import typing as tp

from omegaconf import DictConfig

from hydra_exca.errors import ConfigError, Problem
from hydra_exca.globs import matches_key
from hydra_exca.identity.uid import Pinned, RunDependent
from hydra_exca.sweep.configs.omegaconf_private import resolvers
from hydra_exca.sweep.configs.overlay import JobVariant
from hydra_exca.sweep.configs.resolvers import LISTED_ENVIRON
from hydra_exca.sweep.configs.tree import (
    MISSING,
    Path,
    Tree,
    dotted,
    is_interpolation,
    leaves_of,
    raw,
    raw_task,
    with_leaves,
)

from .classify import Classification, Classifier, Tolerance, may_depend_on_run
from .dependence import Dependence
from .observations import Branch, Leaf, Views, collect_calls, resolve_tree
from .tracer import Calls, Tracer
from .world import FIRST, OTHER_SIZE, SECOND, World, is_same_for_all_jobs, is_same_where_assumed, project_world

_OTHER_THAN_ENV = re.compile(r"\$\{(?!oc\.env:)")
_UNSET = "has no value (???): set it, or name it in hydra.launcher.allow_missing if the script fills it in"
_NONE = Tolerance()

Classifications: tp.TypeAlias = dict[Path, Classification]


class Resolved:
    """One job's config, resolved. All its trees have the structure of the config without ``hydra``.

    ``values`` is what the job would see now. In ``identity`` run-dependent leaves are ``RunDependent`` and those
    that reach the environment or custom resolvers ``Pinned``. ``pins`` maps paths to what the job must get in place
    of an interpolation. ``assumed_values`` are the values in the constant worlds, None if nothing depends on the run.
    The trees share equal parts, also with those of other jobs: do not change them.
    """

    def __init__(self, plain: Tree, classifications: Classifications, unset: tp.Iterable[str]) -> None:
        self._plain = plain
        self._classifications = classifications
        self.missing = tuple(Problem(_UNSET, key) for key in unset)
        self.failing = tuple(problem for result in classifications.values() for problem in result.problems)
        self.tolerated = tuple(problem for result in classifications.values() for problem in result.tolerated)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All problems; what is ``failing`` does not resolve or is not deterministic. ``tolerated`` is no problem."""
        return (*self.missing, *self.failing)

    @functools.cached_property
    def values(self) -> Tree:
        return self._values_in_world(0)

    @functools.cached_property
    def identity(self) -> Tree:
        return self._fill_leaves(lambda result: result.identity)

    @functools.cached_property
    def assumed_values(self) -> tuple[Tree, Tree, Tree] | None:
        if not any(result.depends_on_run for result in self._classifications.values()):
            return None
        return self._values_in_world(1), self._values_in_world(2), self._values_in_world(3)

    @property
    def pins(self) -> dict[Path, tp.Any]:
        return {path: value for result in self._classifications.values() for path, value in result.pins.items()}

    @property
    def sizes(self) -> dict[Path, RunDependent]:
        """The leaves that take a size of the job; `JobSizes` knows what counts for them."""
        return {path: leaf for result in self._classifications.values() for path, leaf in result.sizes.items()}

    def reading(self, hydra_key: str) -> list[str]:
        """The keys of the leaves that read a key of Hydra's own configuration."""
        return [dotted(path) for path, result in self._classifications.items() if result.reads(hydra_key)]

    @property
    def notices(self) -> tuple[str, ...]:
        return tuple(notice for result in self._classifications.values() for notice in result.notices)

    @property
    def values_again(self) -> Tree:
        """The values that the job would see now.

        A leaf that fails or is not deterministic has its value from the first assumed world instead.
        """
        return self._fill_leaves(lambda result: result.values[1 if result.problems else 0])

    def _values_in_world(self, number: int) -> Tree:
        return self._fill_leaves(lambda result: result.values[number])

    def _fill_leaves(self, pick: tp.Callable[[Classification], tp.Any]) -> Tree:
        leaves = {path: pick(result) for path, result in self._classifications.items()}
        return tp.cast(Tree, with_leaves(self._plain, leaves))


def resolve_all(
    config: DictConfig,
    variants: tp.Sequence[JobVariant],
    *,
    node_env: tp.Sequence[str] = (),
    tolerance: Tolerance = _NONE,
    environment: tp.Mapping[str, str] | None = None,
    sizes: tp.Mapping[str, str] | None = None,
) -> list[Resolved]:
    """The resolved configs of jobs that differ from ``config`` in some leaves, none of which becomes an interpolation.

    ``node_env`` names further environment variables that belong to the run, as globs. ``environment`` is that of
    `resolve_env_set`: Hydra has set it by the time that the function reads its config. ``sizes`` are the
    `JobSizes.expected` ones. ``config`` does not change.

    All jobs are observed in one world before the next is set, and what they share is resolved once. If the config
    `may_call_custom_resolvers`, give one job at a time: such a resolver may count its calls, or change its config.
    """
    plain = raw_task(config)
    leaves = dict(leaves_of(plain))
    results: list[Classifications] = [{} for _ in variants]
    if any(map(is_interpolation, leaves.values())):

        def classify() -> list[Classifications]:
            with Tracer(config, node_env, environment, sizes) as tracer:
                return _VariantClassifier(tracer, tracer.task.config, leaves, tolerance).classify(variants)

        before = dict(resolvers())
        results = classify()
        if resolvers() != before:  # a resolver has registered others, which the jobs that follow will find there
            results = classify()
    unset = [dotted(path) for path, value in leaves.items() if isinstance(value, str) and value == MISSING]
    unset = [key for key in unset if not matches_key(key, tolerance.missing)]
    return [
        Resolved(with_leaves(plain, variant.leaves), result, _missing_keys(unset, variant.leaves, tolerance.missing))
        for variant, result in zip(variants, results, strict=True)
    ]


def _missing_keys(
    unset: tp.Sequence[str], changed: tp.Mapping[Path, tp.Any], allow_missing: tp.Sequence[str]
) -> tp.Sequence[str]:
    """The keys of one job that have no value. ``unset`` are those of the config whose variant the job is."""
    if not changed:
        return unset
    given = {dotted(path): value for path, value in changed.items()}
    taken = [key for key, value in given.items() if isinstance(value, str) and value == MISSING]
    return [*(key for key in unset if key not in given), *(key for key in taken if not matches_key(key, allow_missing))]


def resolve_env_set(
    config: DictConfig, *, node_env: tp.Sequence[str] = (), sizes: tp.Mapping[str, str] | None = None
) -> dict[str, tp.Any]:
    """``hydra.job.env_set`` with each value as ``Pinned`` or ``RunDependent``, so that none is stored.

    Raises ConfigError if one does not resolve or changes each time.
    """
    plain = {"env_set": raw(config.hydra.job)["env_set"]}
    leaves = dict(leaves_of(plain))
    result: Classifications = {}
    if any(map(is_interpolation, leaves.values())):
        with Tracer(config, node_env, sizes=sizes) as tracer:
            root = tracer.full.config.hydra.job
            result = _VariantClassifier(tracer, root, leaves, _NONE, is_task=False).classify([JobVariant()])[0]
    resolved = Resolved(plain, result, ())
    if resolved.failing:
        problems = [Problem(problem.message, f"hydra.job.{problem.key}") for problem in resolved.failing]
        raise ConfigError("hydra.job.env_set does not resolve; nothing was run", problems)
    return {
        str(key): value if isinstance(value, (RunDependent, Pinned)) else Pinned(f"${{hydra:job.env_set.{key}}}", value)
        for key, value in (resolved.identity["env_set"] or {}).items()
    }


def may_vary_env_set(config: DictConfig) -> bool:
    """Whether ``hydra.job.env_set`` may differ between jobs: it refers to something other than the environment."""
    values = (raw(config.hydra.job)["env_set"] or {}).values()
    return any(isinstance(value, str) and _OTHER_THAN_ENV.search(value) for value in values)


def run_variables(env_set: tp.Mapping[str, tp.Any]) -> tuple[str, ...]:
    """The variables of an `env_set` that each run sets anew."""
    return tuple(key for key, value in env_set.items() if isinstance(value, RunDependent))


def pinned_environment(env_set: tp.Mapping[str, tp.Any]) -> dict[str, str]:
    """The values of an `env_set` that are in the identity, so that the job gets them."""
    return {key: str(value.value) for key, value in env_set.items() if isinstance(value, Pinned)}


class _VariantClassifier:
    """Classifies each interpolation among ``leaves`` of ``root``, in the configs of many jobs."""

    def __init__(
        self,
        tracer: Tracer,
        root: DictConfig,
        leaves: Tree,
        tolerance: Tolerance,
        *,
        is_task: bool = True,
    ) -> None:
        """A ``root`` that is not a task's config but a part of ``hydra`` can name what belongs to the run without a
        resolver (``${hydra.runtime.output_dir}``)."""
        self._tracer = tracer
        self._is_task = is_task
        self._tolerance = tolerance
        self._holders = {
            path: functools.reduce(lambda node, key: node[key], path[:-1], tp.cast(tp.Any, root)) for path in leaves
        }
        tracer.task_nodes = set(map(id, self._holders.values()))
        self._texts = {path: value for path, value in leaves.items() if is_interpolation(value)}
        self._leaves = leaves

    def classify(self, variants: tp.Sequence[JobVariant]) -> list[Classifications]:
        """The classifications of each job, by path. What is the same for all jobs is observed once."""
        common = self._shared_paths(variants, is_same_for_all_jobs)
        shared_where_assumed = self._shared_paths(variants, is_same_where_assumed)
        views: list[Views] = [
            {path: [] for path in self._texts if path not in variant.leaves and (index == 0 or path not in common)}
            for index, variant in enumerate(variants)
        ]
        self._observe(variants, views, shared_where_assumed)
        own = [self._classify(*job) for job in zip(variants, views, strict=True)]
        results = [{**{path: own[0][path] for path in common}, **result} for result in own]
        return [{path: result[path] for path in self._texts if path in result} for result in results]

    def _shared_paths(self, variants: tp.Sequence[JobVariant], is_shared: tp.Callable[[str, str], bool]) -> set[Path]:
        """The paths at which all of several jobs see the same, as far as resolvers give them the same."""
        if len(variants) == 1:
            return set()
        changed = {path for variant in variants for path in variant.leaves}
        dependence = Dependence(self._leaves, is_shared)
        return {path for path in self._texts if dependence.is_independent(path, changed)}

    def _observe(
        self, variants: tp.Sequence[JobVariant], views: tp.Sequence[Views], shared: tp.Collection[Path]
    ) -> None:
        """``shared`` are the paths at which all jobs see the same in a world whose values are assumed."""
        # Without a colon no resolver is called, so no world needs to be set and one pass is enough.
        if not self._is_task or any(":" in text for text in self._texts.values()):
            self._tracer.set_world(self._tracer.real)
        self._observe_in(None, variants, views, lambda calls: True)
        for world in (FIRST, SECOND):
            self._observe_in(world, variants, views, lambda calls: calls or not self._is_task, shared)
        # Only the user's resolvers can change by themselves. In reverse order, so that a clock or a counter cannot give
        # the same values by coincidence.
        for world in (SECOND, FIRST, self._tracer.real):
            self._observe_in(world, variants, views, lambda calls: any(call.is_custom for call in calls))
        self._observe_in(project_world(self._tracer.folder), variants, views, may_depend_on_run, shared)
        self._observe_in(OTHER_SIZE, variants, views, _lists_environment, shared)

    def _observe_in(
        self,
        world: World | None,
        variants: tp.Sequence[JobVariant],
        views: tp.Sequence[Views],
        is_wanted: tp.Callable[[Calls], tp.Any],
        shared: tp.Collection[Path] = (),
    ) -> None:
        """Adds a view in a world, None for the current one, of each path whose calls so far ask for it."""
        wanted = [[path for path, seen in job.items() if is_wanted(collect_calls(seen))] for job in views]
        if world is not None and any(wanted):
            self._tracer.set_world(world)
        shared_views: dict[Path, Leaf | Branch] = {}
        for variant, job, paths in zip(variants, views, wanted, strict=True):
            if not shared_views.keys() >= set(paths):
                self._tracer.show_job(variant)
            for path in paths:
                view = shared_views.get(path) or resolve_tree(self._tracer, self._holders[path], path[-1])
                job[path].append(view)
                if path in shared:
                    shared_views[path] = view

    def _classify(self, variant: JobVariant, views: Views) -> Classifications:
        classifier = Classifier(self._tracer, self._tolerance, variant)
        return {
            path: Classification(path, classifier.classify(seen, path, self._texts[path]))
            for path, seen in views.items()
        }


def _lists_environment(calls: Calls) -> bool:
    return any(call.name == LISTED_ENVIRON for call in calls)
