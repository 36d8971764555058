"""Which leaves of a composed config belong to one run and not to the task, found by resolving it in several worlds.

A leaf that differs between worlds which differ in nothing but run-dependent values (time, output directory, working
directory, job id, variables of the scheduler) depends on them, however it reaches them. The rules and their reasons
are in ``docs/design/worlds.md``.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import typing as tp

from omegaconf import DictConfig, OmegaConf, flag_override

from hydra_exca.errors import ConfigError, Problem
from hydra_exca.uid import Pinned, RunDependent, canonical, digest, encode

from .dependence import Dependence
from .stage import (
    FIRST,
    MISSING,
    SECOND,
    Call,
    Calls,
    Failure,
    Stage,
    Tree,
    World,
    copied,
    mapped,
    named,
    unresolved,
)
from .variants import Path, Variant, leaves_of, with_leaves

Shape: tp.TypeAlias = tp.Any
"""A Finding, or dicts and lists of Findings where an interpolation leads to a container."""

DEEPEST = 60


class Resolved:
    """One job's config, resolved. All its trees have the structure of the config without ``hydra``.

    ``values`` is what the job would see now. In ``identity`` run-dependent leaves are ``RunDependent`` and those
    that reach the environment or custom resolvers ``Pinned``. ``pins`` maps paths to what the job must get in place
    of an interpolation. ``sentinels`` are the values in two constant worlds, None if nothing depends on the run.
    The trees share what is alike, also with those of other jobs: they are only to be read.
    """

    def __init__(self, plain: Tree, seen: dict[Path, Seen], unset: tp.Iterable[str]) -> None:
        self._plain = plain
        self._seen = seen
        self.problems = (
            *(Problem(_UNSET, key) for key in unset),
            *(problem for each in seen.values() for problem in each.problems),
        )

    @functools.cached_property
    def values(self) -> Tree:
        return self._filled(lambda seen: seen.values[0])

    @functools.cached_property
    def identity(self) -> Tree:
        return self._filled(lambda seen: seen.identity)

    @functools.cached_property
    def sentinels(self) -> tuple[Tree, Tree] | None:
        if not any(each.is_of_the_run for each in self._seen.values()):
            return None
        return self._filled(lambda seen: seen.values[1]), self._filled(lambda seen: seen.values[2])

    @property
    def pins(self) -> dict[Path, tp.Any]:
        return {path: value for each in self._seen.values() for path, value in each.pins.items()}

    @property
    def notices(self) -> tuple[str, ...]:
        return tuple(notice for each in self._seen.values() for notice in each.notices)

    def _filled(self, pick: tp.Callable[[Seen], tp.Any]) -> Tree:
        return tp.cast(Tree, with_leaves(self._plain, {path: pick(each) for path, each in self._seen.items()}))


class Seen:
    """What the looks at one interpolation have shown. Jobs for which it is the same share it: it is only to be read."""

    def __init__(self, path: Path, shape: Shape) -> None:
        self._path = path
        self._shape = shape
        self._findings = list(_findings(shape))

    @functools.cached_property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(Problem(each.problem, _dotted(each.path)) for each in self._findings if each.problem)

    @functools.cached_property
    def is_of_the_run(self) -> bool:
        return any(isinstance(each.identity, RunDependent) for each in self._findings)

    @functools.cached_property
    def identity(self) -> tp.Any:
        return copied(mapped(self._shape, lambda finding: finding.identity))

    @functools.cached_property
    def values(self) -> tuple[tp.Any, ...]:
        """In the real, the first and the second world."""
        return self._in_world(0), self._in_world(1), self._in_world(2)

    def _in_world(self, world: int) -> tp.Any:
        return copied(mapped(self._shape, lambda finding: finding.values[world]))

    @functools.cached_property
    def pins(self) -> dict[Path, tp.Any]:
        return _pins(self._path, self._shape)

    @functools.cached_property
    def notices(self) -> tuple[str, ...]:
        return tuple(_notices(self._path, self._shape))


def resolve(config: DictConfig, *, node_env: tp.Sequence[str] = (), allow_missing: tp.Sequence[str] = ()) -> Resolved:
    """One job's composed config with all resolved, and what in it belongs to the run; changes nothing.

    ``node_env`` names further environment variables that belong to the run, ``allow_missing`` the dotted keys that
    may stay ``???``; both take globs.
    """
    return resolve_all(config, [Variant()], node_env=node_env, allow_missing=allow_missing)[0]


def resolve_all(
    config: DictConfig,
    variants: tp.Sequence[Variant],
    *,
    node_env: tp.Sequence[str] = (),
    allow_missing: tp.Sequence[str] = (),
) -> list[Resolved]:
    """As `resolve`, for many jobs that differ in some leaves, none of which becomes an interpolation.

    All jobs are looked at in one world before the next is played, and what they have in common once.
    """
    plain = unresolved(config, without="hydra")
    leaves = dict(leaves_of(plain))
    texts = {path: text for path, text in leaves.items() if _is_interpolation(text)}
    found: list[dict[Path, Seen]] = [{} for _ in variants]
    if texts:
        with Stage(config, node_env) as stage:
            found = _Examination(stage, stage.task, leaves, allow_missing).of(variants)
    unset = {_dotted(path) for path, value in leaves.items() if isinstance(value, str) and value == MISSING}
    unset = {key for key in unset if not _allowed(key, allow_missing)}
    return [
        Resolved(with_leaves(plain, variant.leaves), seen, _unset(unset, variant.leaves, allow_missing))
        for variant, seen in zip(variants, found, strict=True)
    ]


def _unset(unset: set[str], changed: tp.Mapping[Path, tp.Any], allow_missing: tp.Sequence[str]) -> list[str]:
    """The keys that have no value in one job."""
    if not changed:
        return list(unset)
    given = {_dotted(path): value for path, value in changed.items()}
    taken = [key for key, value in given.items() if isinstance(value, str) and value == MISSING]
    return [*(key for key in unset if key not in given), *(key for key in taken if not _allowed(key, allow_missing))]


def env_set(config: DictConfig, *, node_env: tp.Sequence[str] = ()) -> dict[str, tp.Any]:
    """``hydra.job.env_set`` with each value as ``Pinned`` or ``RunDependent``, so that none is stored.

    Raises ConfigError if one does not resolve or changes each time.
    """
    plain = {"env_set": unresolved(config.hydra.job)["env_set"]}
    leaves = dict(leaves_of(plain))
    seen: dict[Path, Seen] = {}
    if any(map(_is_interpolation, leaves.values())):
        with Stage(config, node_env) as stage:
            seen = _Examination(stage, stage.full.hydra.job, leaves, ()).of([Variant()])[0]
    problems = [Problem(each.message, f"hydra.job.{each.key}") for one in seen.values() for each in one.problems]
    if problems:
        raise ConfigError("hydra.job.env_set does not resolve; nothing was run", problems)
    values = Resolved(plain, seen, ()).identity["env_set"] or {}
    known = (RunDependent, Pinned)
    return {
        str(key): value if isinstance(value, known) else Pinned(f"${{hydra:job.env_set.{key}}}", value)
        for key, value in values.items()
    }


def environment(env_set: tp.Mapping[str, tp.Any]) -> dict[str, str]:
    """The values of an `env_set` that are in the identity, for the job to have them."""
    return {key: str(value.value) for key, value in env_set.items() if isinstance(value, Pinned)}


def pinned(task_config: DictConfig, pins: tp.Mapping[Path, tp.Any]) -> None:
    """Puts ``pins`` into a job's config, in place, also where its flags forbid that; they stay as they were."""
    for path, value in pins.items():
        holder: tp.Any = task_config
        for key in path[:-1]:
            holder = holder[key]
        with flag_override(holder, ["readonly", "struct", "allow_objects"], [False, False, True]):
            holder[path[-1]] = mapped(value, _escaped)


# -- looking: each interpolation as a tree, once per world ------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A value in one world. ``backed``: it also stands in the job's config by itself, where it is pinned if need be."""

    value: tp.Any
    calls: Calls
    backed: bool = True


@dataclasses.dataclass(frozen=True)
class Branch:
    """A container that an interpolation leads to, in one world."""

    children: dict[tp.Any, Leaf | Branch]
    is_list: bool
    calls: Calls


class _Examination:
    """Finds out about each interpolation among ``leaves`` of ``root``, in the configs of many jobs."""

    def __init__(self, stage: Stage, root: DictConfig, leaves: Tree, allow_missing: tp.Sequence[str]) -> None:
        self._stage = stage
        self._allow_missing = allow_missing
        self._holders = {
            path: functools.reduce(lambda node, key: node[key], path[:-1], tp.cast(tp.Any, root)) for path in leaves
        }
        stage.own = set(map(id, self._holders.values()))
        self._texts = {path: value for path, value in leaves.items() if _is_interpolation(value)}
        self._dependence = Dependence(leaves, lambda name, arguments: name in ("now", "oc.env"))

    def of(self, variants: tp.Sequence[Variant]) -> list[dict[Path, Seen]]:
        """What is found out, by path, one item a job. What is the same for all is looked at once."""
        changed = {path for variant in variants for path in variant.leaves}
        common = {path for path in self._texts if len(variants) > 1 and self._dependence.is_apart(path, changed)}
        views: list[Views] = [
            {path: [] for path in self._texts if path not in variant.leaves and (index == 0 or path not in common)}
            for index, variant in enumerate(variants)
        ]
        self._look(variants, views)
        seen = [self._judged(*each) for each in zip(variants, views, strict=True)]
        shared = {path: seen[0][path] for path in common}
        return [{**shared, **own} for own in seen]

    def _look(self, variants: tp.Sequence[Variant], views: tp.Sequence[Views]) -> None:
        # Without a colon no resolver is called: nothing to play, and one look is enough.
        if any(":" in text for text in self._texts.values()):
            self._stage.play(self._stage.real)
        self._look_at(variants, views, lambda path, seen: True)
        for world in (FIRST, SECOND):
            self._look_at(variants, views, lambda path, seen: _calls(seen[:1]), world)
        # Only the user's resolvers can change by themselves. Backwards, so that no clock or counter keeps in step.
        for world in (SECOND, FIRST, self._stage.real):
            self._look_at(variants, views, lambda path, seen: any(call.custom for call in _calls(seen[:3])), world)

    def _look_at(
        self,
        variants: tp.Sequence[Variant],
        views: tp.Sequence[Views],
        wanted: tp.Callable[[Path, list[Leaf | Branch]], tp.Any],
        world: World | None = None,
    ) -> None:
        """Adds a view of each wanted path in a world, or else in the one that is played."""
        paths = [[path for path, seen in each.items() if wanted(path, seen)] for each in views]
        if world is not None and any(paths):
            self._stage.play(world)
        for variant, seen, here in zip(variants, views, paths, strict=True):
            if here:
                self._stage.show(variant)
            for path in here:
                seen[path].append(_grown(self._stage, self._holders[path], path[-1]))

    def _judged(self, variant: Variant, views: Views) -> dict[Path, Seen]:
        judge = Judge(self._stage, self._allow_missing, variant)
        return {path: Seen(path, judge.shape(seen, path, self._texts[path])) for path, seen in views.items()}


def _grown(stage: Stage, holder: tp.Any, key: tp.Any, reached: Calls = frozenset(), above: Path = ()) -> Leaf | Branch:
    """What is at a key, with whatever it leads to; a container that a foreign call has made or chosen is one leaf."""
    value, calls = stage.read(holder, key)
    calls |= reached
    if not OmegaConf.is_config(value):
        return Leaf(value, calls, id(holder) in stage.own)
    if id(value) in above or len(above) > DEEPEST:
        return Leaf(Failure("leads back to itself"), calls)
    above = (*above, id(value))
    keys = list(value.keys()) if OmegaConf.is_dict(value) else list(range(len(value)))
    children = {key: _grown(stage, value, key, _below(calls, key), above) for key in keys}
    branch = Branch(children, OmegaConf.is_list(value), calls)
    return _whole(branch) if any(call.foreign for call in calls) else branch


def _below(calls: Calls, key: tp.Any) -> Calls:
    return frozenset(Call("hydra", f"{call.key}.{key}") if call.name == "hydra" else call for call in calls)


def _whole(view: Leaf | Branch) -> Leaf:
    if isinstance(view, Leaf):
        return view
    parts = {key: _whole(child) for key, child in view.children.items()}
    failed = [part.value for part in parts.values() if isinstance(part.value, Failure)]
    value = {key: part.value for key, part in parts.items()}
    calls = view.calls | _calls(parts.values())
    return Leaf(failed[0] if failed else list(value.values()) if view.is_list else value, calls)


def _calls(views: tp.Iterable[Leaf | Branch]) -> Calls:
    return frozenset(call for view in views for call in _whole(view).calls)


Views: tp.TypeAlias = dict[Path, list[Leaf | Branch]]
"""What is at each path, seen in one world after another."""


# -- judging: what the views of a leaf say ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The values of one leaf in the real, the first and the second world, and again backwards where that was asked."""

    values: tp.Sequence[tp.Any]
    calls: Calls

    @property
    def verdict(self) -> tp.Literal["fails", "changes", "run", "pinned", "constant"]:
        if all(isinstance(value, Failure) for value in self.values):
            return "fails"
        reached = any(call.run for call in self.calls)
        customs = sum(call.custom for call in self.calls)
        if not self.steady:
            # With one custom resolver that is the one that changes; beside a second one more would be lost.
            return "run" if reached and customs < 2 else "changes"
        if self.moved or (reached and customs):
            return "run"
        return "pinned" if reached or any(call.foreign for call in self.calls) else "constant"

    @property
    def steady(self) -> bool:
        return all(map(_same, self.values, reversed(self.values[3:])))

    @property
    def moved(self) -> bool:
        return not all(_same(self.values[0], value) for value in self.values[1:3])

    def first_of(self, *worlds: int) -> tp.Any:
        values = [self.values[world] for world in worlds]
        return next((value for value in values if not isinstance(value, Failure)), values[0])


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is known of one leaf; ``values`` are those in the real, the first and the second world."""

    path: Path
    text: str
    calls: Calls
    backed: bool
    values: tuple[tp.Any, tp.Any, tp.Any]
    identity: tp.Any
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Judge:
    """Says what the views of a leaf in the worlds mean."""

    stage: Stage
    allow_missing: tp.Sequence[str]
    variant: Variant

    def shape(self, views: tp.Sequence[Leaf | Branch], path: Path, text: str) -> Shape:
        """Leaf by leaf where the views have the same keys, else as one leaf."""
        branches = [view for view in views if isinstance(view, Branch)]
        if len(branches) < len(views) or len({(view.is_list, *view.children) for view in branches}) > 1:
            return self.finding(views, path, text)
        shape = {
            key: self.shape([view.children[key] for view in branches], (*path, key), f"{text}.{key}")
            for key in branches[0].children
        }
        return list(shape.values()) if branches[0].is_list else shape

    def finding(self, views: tp.Sequence[Leaf | Branch], path: Path, text: str) -> Finding:
        leaves = [_whole(view) for view in views]
        values = [leaf.value for leaf in leaves]
        seen = Evidence(values * 3 if len(values) == 1 else values, _calls(leaves))
        make = functools.partial(Finding, path, text, seen.calls, all(leaf.backed for leaf in leaves))
        kept = (seen.first_of(0, 1, 2), seen.first_of(1, 0, 2), seen.first_of(2, 0, 1))
        verdict = seen.verdict
        if verdict == "fails":
            return self._failed(make, values[0], path, text)
        if verdict == "changes":
            return make(kept, RunDependent(text), _CHANGES.format(text))
        if verdict == "pinned":
            return make(kept, Pinned(text, values[0]))
        if verdict == "constant":
            return make(kept, values[0])
        try:
            return make(kept, RunDependent(text + self._contribution(seen)))
        except ConfigError as error:
            return make(kept, RunDependent(text), f"{text} {error.problems[0].message}")

    def _failed(self, make: tp.Callable[..., Finding], failure: Failure, path: Path, text: str) -> Finding:
        if failure.missing and any(_allowed(key, self.allow_missing) for key in (_dotted(path), failure.missing)):
            return make((MISSING, MISSING, MISSING), text)
        return make((text, text, text), RunDependent(text), _why(text, failure))

    def _contribution(self, seen: Evidence) -> str:
        """What a run-dependent leaf takes from neither the run nor the config, as a digest behind its text."""
        if all(call.run for call in seen.calls):
            return ""
        value = seen.first_of(1, 2)
        if not seen.steady:
            value = {call.key: os.environ.get(call.key) for call in seen.calls if call.name == "oc.env"}
        elif isinstance(value, Failure):
            value = self.stage.masked(seen.values[0], self.variant)
        return f" [{digest(canonical(value))[:16]}]"


def _same(one: tp.Any, other: tp.Any) -> bool:
    if isinstance(one, Failure) or isinstance(other, Failure):
        return type(one) is type(other)
    try:
        return encode(canonical(one)) == encode(canonical(other))
    except ConfigError:
        # It has no identity either, which is said where that is computed, if the leaf counts at all.
        return type(one) is type(other)


_CHANGES = (
    "{} changes each time it is resolved and depends on nothing that is known to belong to the run: "
    "exclude it (hydra.launcher.exclude_from_uid) or give it a fixed value"
)
_UNSET = "has no value (???): set it, or name it in hydra.launcher.allow_missing if the script fills it in"


def _why(text: str, failure: Failure) -> str:
    if failure.missing:
        return f"{text} refers to {failure.missing}, which has no value (???)"
    hint = ""
    if "Interpolation key 'hydra" in failure.error:
        hint = "; jobs see the config without its hydra node: write ${hydra:...} instead of ${hydra....}"
    return f"{text} does not resolve: {failure.error}{hint}"


def _pins(top: Path, shape: Shape) -> dict[Path, tp.Any]:
    found = list(_findings(shape))
    if isinstance(shape, Finding):
        return {top: shape.values[0]} if isinstance(shape.identity, Pinned) else {}
    if not _loose(found) or any(isinstance(finding.identity, RunDependent) for finding in found):
        return {}
    return {top: mapped(shape, lambda finding: finding.values[0])}


def _loose(found: tp.Iterable[Finding]) -> bool:
    """Whether a pinned leaf is in no place of the job's config where it can be pinned by itself."""
    return any(isinstance(finding.identity, Pinned) and not finding.backed for finding in found)


def _notices(top: Path, shape: Shape) -> tp.Iterator[str]:
    found = list(_findings(shape))
    for finding in found:
        if not finding.problem and any(call.within("job.num") for call in finding.calls):
            yield f"{_dotted(finding.path)}: {finding.text} counts: the position in the sweep is part of the task"
    if not isinstance(shape, Finding) and _loose(found) and not _pins(top, shape):
        yield f"{_dotted(top)}: refers to values of the run and of the environment at once; its job reads both anew"


# -- trees and names --------------------------------------------------------------------------------------------------


def _findings(shape: Shape) -> tp.Iterator[Finding]:
    return (leaf for _, leaf in leaves_of(shape))


def _is_interpolation(value: tp.Any) -> bool:
    return isinstance(value, str) and "${" in value


def _allowed(key: str, patterns: tp.Sequence[str]) -> bool:
    """Whether a pattern names a key or something above it."""
    return named(key, (*patterns, *(f"{pattern}.*" for pattern in patterns)))


def _escaped(leaf: tp.Any) -> tp.Any:
    """A string that resolves to ``leaf``: one from outside may look like an interpolation."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", leaf) if isinstance(leaf, str) else leaf


def _dotted(path: Path) -> str:
    return ".".join(str(key.name) if hasattr(key, "name") else str(key) for key in path)
