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
from hydra_exca.sweep.configs.overlay import JobVariant
from hydra_exca.sweep.configs.tree import (
    MISSING,
    Path,
    Tree,
    dotted,
    is_interpolation,
    leaves_of,
    unresolved,
    with_leaves,
)

from .classify import Classification, Classifier, may_be_of_the_run
from .dependence import Dependence
from .observations import Branch, Leaf, Views, calls_of, resolve_tree
from .tracer import Tracer
from .world import FIRST, SECOND, World, is_assumed, is_steady, world_of_project

_OF_THE_CONFIG = re.compile(r"\$\{(?!oc\.env:)")
_UNSET = "has no value (???): set it, or name it in hydra.launcher.allow_missing if the script fills it in"


class Resolved:
    """One job's config, resolved. All its trees have the structure of the config without ``hydra``.

    ``values`` is what the job would see now. In ``identity`` run-dependent leaves are ``RunDependent`` and those
    that reach the environment or custom resolvers ``Pinned``. ``pins`` maps paths to what the job must get in place
    of an interpolation. ``sentinels`` are the values in the constant worlds, None if nothing depends on the run.
    The trees share what is alike, also with those of other jobs: they are only to be read.
    """

    def __init__(self, plain: Tree, seen: dict[Path, Classification], unset: tp.Iterable[str]) -> None:
        self._plain = plain
        self._seen = seen
        self.unset = tuple(Problem(_UNSET, key) for key in unset)
        self.unsteady = tuple(problem for each in seen.values() for problem in each.problems)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All that is wrong; what is ``unsteady`` does not resolve or changes each time."""
        return (*self.unset, *self.unsteady)

    @functools.cached_property
    def values(self) -> Tree:
        return self._in_world(0)

    @functools.cached_property
    def identity(self) -> Tree:
        return self._filled(lambda seen: seen.identity)

    @functools.cached_property
    def sentinels(self) -> tuple[Tree, Tree, Tree] | None:
        if not any(each.is_of_the_run for each in self._seen.values()):
            return None
        return self._in_world(1), self._in_world(2), self._in_world(3)

    @property
    def pins(self) -> dict[Path, tp.Any]:
        return {path: value for each in self._seen.values() for path, value in each.pins.items()}

    @property
    def notices(self) -> tuple[str, ...]:
        return tuple(notice for each in self._seen.values() for notice in each.notices)

    @property
    def again(self) -> Tree:
        """The values that the job would see now, but those that are ``unsteady`` as they were at another look."""
        return self._filled(lambda seen: seen.values[1 if seen.problems else 0])

    def _in_world(self, number: int) -> Tree:
        return self._filled(lambda seen: seen.values[number])

    def _filled(self, pick: tp.Callable[[Classification], tp.Any]) -> Tree:
        return tp.cast(Tree, with_leaves(self._plain, {path: pick(each) for path, each in self._seen.items()}))


def resolve(config: DictConfig, *, node_env: tp.Sequence[str] = (), allow_missing: tp.Sequence[str] = ()) -> Resolved:
    """One job's composed config with all resolved, and what in it belongs to the run; changes nothing.

    ``node_env`` names further environment variables that belong to the run, ``allow_missing`` the dotted keys that
    may stay ``???``; both take globs.
    """
    return resolve_all(config, [JobVariant()], node_env=node_env, allow_missing=allow_missing)[0]


def resolve_all(
    config: DictConfig,
    variants: tp.Sequence[JobVariant],
    *,
    node_env: tp.Sequence[str] = (),
    allow_missing: tp.Sequence[str] = (),
    environment: tp.Mapping[str, str] | None = None,
) -> list[Resolved]:
    """As `resolve`, for many jobs that differ in some leaves, none of which becomes an interpolation.

    All jobs are looked at in one world before the next is played, and what they have in common once. Not for a config
    that `may_call_users`: their resolvers are to see one job at a time. ``environment`` is that of `env_set`: Hydra has
    set it when the function reads its config.
    """
    plain = unresolved(config, without="hydra")
    leaves = dict(leaves_of(plain))
    texts = {path: text for path, text in leaves.items() if is_interpolation(text)}
    found: list[dict[Path, Classification]] = [{} for _ in variants]
    if texts:
        with Tracer(config, node_env, environment) as stage:
            found = _Examination(stage, stage.task, leaves, allow_missing).of(variants)
    unset = {dotted(path) for path, value in leaves.items() if isinstance(value, str) and value == MISSING}
    unset = {key for key in unset if not matches_key(key, allow_missing)}
    return [
        Resolved(with_leaves(plain, variant.leaves), seen, _unset(unset, variant.leaves, allow_missing))
        for variant, seen in zip(variants, found, strict=True)
    ]


def _unset(unset: set[str], changed: tp.Mapping[Path, tp.Any], allow_missing: tp.Sequence[str]) -> list[str]:
    """The keys that have no value in one job."""
    if not changed:
        return list(unset)
    given = {dotted(path): value for path, value in changed.items()}
    taken = [key for key, value in given.items() if isinstance(value, str) and value == MISSING]
    return [*(key for key in unset if key not in given), *(key for key in taken if not matches_key(key, allow_missing))]


def env_set(config: DictConfig, *, node_env: tp.Sequence[str] = ()) -> dict[str, tp.Any]:
    """``hydra.job.env_set`` with each value as ``Pinned`` or ``RunDependent``, so that none is stored.

    Raises ConfigError if one does not resolve or changes each time.
    """
    plain = {"env_set": unresolved(config.hydra.job)["env_set"]}
    leaves = dict(leaves_of(plain))
    seen: dict[Path, Classification] = {}
    if any(map(is_interpolation, leaves.values())):
        with Tracer(config, node_env) as stage:
            seen = _Examination(stage, stage.full.hydra.job, leaves, ()).of([JobVariant()])[0]
    problems = [Problem(each.message, f"hydra.job.{each.key}") for one in seen.values() for each in one.problems]
    if problems:
        raise ConfigError("hydra.job.env_set does not resolve; nothing was run", problems)
    values = Resolved(plain, seen, ()).identity["env_set"] or {}
    known = (RunDependent, Pinned)
    return {
        str(key): value if isinstance(value, known) else Pinned(f"${{hydra:job.env_set.{key}}}", value)
        for key, value in values.items()
    }


def has_own_env_set(config: DictConfig) -> bool:
    """Whether ``hydra.job.env_set`` may differ between jobs: something but the environment is referred to."""
    values = (unresolved(config.hydra.job)["env_set"] or {}).values()
    return any(isinstance(value, str) and _OF_THE_CONFIG.search(value) for value in values)


def environment(env_set: tp.Mapping[str, tp.Any]) -> dict[str, str]:
    """The values of an `env_set` that are in the identity, for the job to have them."""
    return {key: str(value.value) for key, value in env_set.items() if isinstance(value, Pinned)}


class _Examination:
    """Finds out about each interpolation among ``leaves`` of ``root``, in the configs of many jobs."""

    def __init__(self, stage: Tracer, root: DictConfig, leaves: Tree, allow_missing: tp.Sequence[str]) -> None:
        self._stage = stage
        self._here = world_of_project(stage.folder)
        self._allow_missing = allow_missing
        self._holders = {
            path: functools.reduce(lambda node, key: node[key], path[:-1], tp.cast(tp.Any, root)) for path in leaves
        }
        stage.own = set(map(id, self._holders.values()))
        self._texts = {path: value for path, value in leaves.items() if is_interpolation(value)}
        self._leaves = leaves

    def of(self, variants: tp.Sequence[JobVariant]) -> list[dict[Path, Classification]]:
        """What is found out, by path, one item a job. What is the same for all is looked at once."""
        common, assumed = (self._same(variants, steady) for steady in (is_steady, is_assumed))
        views: list[Views] = [
            {path: [] for path in self._texts if path not in variant.leaves and (index == 0 or path not in common)}
            for index, variant in enumerate(variants)
        ]
        self._look(variants, views, assumed)
        seen = [self._judged(*each) for each in zip(variants, views, strict=True)]
        shared = {path: seen[0][path] for path in common}
        found = [{**shared, **own} for own in seen]
        return [{path: each[path] for path in self._texts if path in each} for each in found]

    def _same(self, variants: tp.Sequence[JobVariant], steady: tp.Callable[[str, str], bool]) -> set[Path]:
        """The paths at which all of several jobs see the same, as far as resolvers give them the same."""
        if len(variants) == 1:
            return set()
        changed = {path for variant in variants for path in variant.leaves}
        dependence = Dependence(self._leaves, steady)
        return {path for path in self._texts if dependence.is_apart(path, changed)}

    def _look(self, variants: tp.Sequence[JobVariant], views: tp.Sequence[Views], assumed: tp.Collection[Path]) -> None:
        """``assumed`` are the paths at which all jobs see the same in a world whose values are assumed."""
        # Without a colon no resolver is called: nothing to play, and one look is enough.
        if any(":" in text for text in self._texts.values()):
            self._stage.play(self._stage.real)
        self._look_at(variants, views, lambda path, seen: True)
        for world in (FIRST, SECOND):
            self._look_at(variants, views, lambda path, seen: calls_of(seen[:1]), world, assumed)
        # Only the user's resolvers can change by themselves. Backwards, so that no clock or counter keeps in step.
        for world in (SECOND, FIRST, self._stage.real):
            self._look_at(variants, views, lambda path, seen: any(call.custom for call in calls_of(seen[:3])), world)
        self._look_at(variants, views, lambda path, seen: may_be_of_the_run(calls_of(seen[:3])), self._here, assumed)

    def _look_at(
        self,
        variants: tp.Sequence[JobVariant],
        views: tp.Sequence[Views],
        wanted: tp.Callable[[Path, list[Leaf | Branch]], tp.Any],
        world: World | None = None,
        same: tp.Collection[Path] = (),
    ) -> None:
        """Adds a view of each wanted path in a world, or else in the one that is played; ``same`` are those of all."""
        paths = [[path for path, seen in each.items() if wanted(path, seen)] for each in views]
        if world is not None and any(paths):
            self._stage.play(world)
        known: dict[Path, Leaf | Branch] = {}
        for variant, seen, asked in zip(variants, views, paths, strict=True):
            if not known.keys() >= set(asked):
                self._stage.show(variant)
            for path in asked:
                view = known.get(path) or resolve_tree(self._stage, self._holders[path], path[-1])
                seen[path].append(view)
                if path in same:
                    known[path] = view

    def _judged(self, variant: JobVariant, views: Views) -> dict[Path, Classification]:
        judge = Classifier(self._stage, self._allow_missing, variant)
        return {path: Classification(path, judge.shape(seen, path, self._texts[path])) for path, seen in views.items()}
