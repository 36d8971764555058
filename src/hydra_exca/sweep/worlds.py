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

Path: tp.TypeAlias = tuple[tp.Any, ...]
Shape: tp.TypeAlias = tp.Any
"""A Finding, or dicts and lists of Findings where an interpolation leads to a container."""

DEEPEST = 60


@dataclasses.dataclass(frozen=True)
class Resolved:
    """One job's config, resolved. All its trees have the structure of the config without ``hydra``.

    ``values`` is what the job would see now. In ``identity`` run-dependent leaves are ``RunDependent`` and those
    that reach the environment or custom resolvers ``Pinned``. ``pins`` maps paths to what the job must get in place
    of an interpolation. ``sentinels`` are the values in two constant worlds, None if nothing depends on the run.
    """

    values: Tree
    identity: Tree
    pins: dict[Path, tp.Any]
    sentinels: tuple[Tree, Tree] | None
    problems: tuple[Problem, ...]
    notices: tuple[str, ...]


def resolve(config: DictConfig, *, node_env: tp.Sequence[str] = (), allow_missing: tp.Sequence[str] = ()) -> Resolved:
    """One job's composed config with all resolved, and what in it belongs to the run; changes nothing.

    ``node_env`` names further environment variables that belong to the run, ``allow_missing`` the dotted keys that
    may stay ``???``; both take globs.
    """
    plain = unresolved(config, without="hydra")
    leaves = dict(_leaves(plain))
    unset = [_dotted(path) for path, value in leaves.items() if isinstance(value, str) and value == MISSING]
    problems = [Problem(_UNSET, key) for key in unset if not _allowed(key, allow_missing)]
    if not any(map(_is_interpolation, leaves.values())):
        return Resolved(plain, copied(plain), {}, None, tuple(problems), ())
    with Stage(config, node_env) as stage:
        shapes = _examined(stage, stage.task, leaves, allow_missing)
    found = list(_findings(shapes))
    problems += [Problem(finding.problem, _dotted(finding.path)) for finding in found if finding.problem]
    run = any(isinstance(finding.identity, RunDependent) for finding in found)
    real, first, second = (_filled(plain, shapes, lambda f, i=i: f.values[i]) for i in range(3))  # type: ignore[misc]
    return Resolved(
        values=real,
        identity=_filled(plain, shapes, lambda finding: finding.identity),
        pins={path: value for top, shape in shapes.items() for path, value in _pins(top, shape).items()},
        sentinels=(first, second) if run else None,
        problems=tuple(problems),
        notices=tuple(notice for top, shape in shapes.items() for notice in _notices(top, shape)),
    )


def env_set(config: DictConfig, *, node_env: tp.Sequence[str] = ()) -> dict[str, tp.Any]:
    """``hydra.job.env_set`` with each value as ``Pinned`` or ``RunDependent``, so that none is stored.

    Raises ConfigError if one does not resolve or changes each time.
    """
    plain = {"env_set": unresolved(config.hydra.job)["env_set"]}
    leaves = dict(_leaves(plain))
    shapes: dict[Path, Shape] = {}
    if any(map(_is_interpolation, leaves.values())):
        with Stage(config, node_env) as stage:
            shapes = _examined(stage, stage.full.hydra.job, leaves, ())
    problems = [Problem(f.problem, f"hydra.job.{_dotted(f.path)}") for f in _findings(shapes) if f.problem]
    if problems:
        raise ConfigError("hydra.job.env_set does not resolve; nothing was run", problems)
    values = _filled(plain, shapes, lambda finding: finding.identity)["env_set"] or {}
    known = (RunDependent, Pinned)
    return {
        str(key): value if isinstance(value, known) else Pinned(f"${{hydra:job.env_set.{key}}}", value)
        for key, value in values.items()
    }


def pinned_env_set(config: DictConfig, *, node_env: tp.Sequence[str] = ()) -> dict[str, str]:
    """The values of ``hydra.job.env_set`` that are in the identity, for the job to have them."""
    if not config.hydra.job.env_set:
        return {}
    values = env_set(config, node_env=node_env)
    return {key: str(value.value) for key, value in values.items() if isinstance(value, Pinned)}


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


def _examined(stage: Stage, root: DictConfig, leaves: Tree, allow_missing: tp.Sequence[str]) -> dict[Path, Shape]:
    """What is found out about each interpolation among ``leaves``, by path."""
    holders = {path: functools.reduce(lambda node, key: node[key], path[:-1], tp.cast(tp.Any, root)) for path in leaves}
    stage.own = set(map(id, holders.values()))
    texts = {path: value for path, value in leaves.items() if _is_interpolation(value)}
    # Without a colon no resolver is called: nothing to play, and one look is enough.
    if any(":" in text for text in texts.values()):
        stage.play(stage.real)
    views = {path: [_grown(stage, holders[path], path[-1])] for path in texts}

    def look_again(paths: tp.Collection[Path], *worlds: World) -> None:
        for world in worlds if paths else ():
            stage.play(world)
            for path in paths:
                views[path].append(_grown(stage, holders[path], path[-1]))

    look_again([path for path in texts if _calls(views[path])], FIRST, SECOND)
    # Only the user's resolvers can change by themselves. Backwards, so that no clock or counter keeps in step.
    doubted = [path for path in texts if any(call.custom for call in _calls(views[path]))]
    look_again(doubted, SECOND, FIRST, stage.real)
    judge = Judge(stage, allow_missing)
    return {path: judge.shape(seen, path, texts[path]) for path, seen in views.items()}


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
            value = self.stage.masked(seen.values[0])
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


def _leaves(tree: tp.Any, path: Path = ()) -> tp.Iterator[tuple[Path, tp.Any]]:
    if isinstance(tree, (dict, list)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _leaves(value, (*path, key))
    else:
        yield path, tree


def _findings(shape: Shape) -> tp.Iterator[Finding]:
    return (leaf for _, leaf in _leaves(shape))


def _filled(plain: Tree, shapes: dict[Path, Shape], pick: tp.Callable[[Finding], tp.Any]) -> Tree:
    filled = copied(plain)
    for path, shape in shapes.items():
        holder = functools.reduce(lambda node, key: node[key], path[:-1], filled)
        holder[path[-1]] = copied(mapped(shape, pick))
    return tp.cast(Tree, filled)


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
