"""What the views of an interpolation in several worlds say: it belongs to the run, is pinned, is constant, or wrong."""

from __future__ import annotations

import dataclasses
import functools
import os
import typing as tp

from hydra_exca.errors import ConfigError, Problem
from hydra_exca.globs import matches_key
from hydra_exca.identity.scalars import Json
from hydra_exca.identity.uid import Pinned, RunDependent, canonical, digest, encode
from hydra_exca.sweep.configs.overlay import JobVariant
from hydra_exca.sweep.configs.tree import MISSING, Path, copy_tree, dotted, leaves_of, map_leaves

from .observations import Branch, Leaf, calls_of, flatten
from .tracer import Calls, ResolveFailure, Tracer
from .world import says_more, without_folder

Shape: tp.TypeAlias = tp.Any
"""A Finding, or dicts and lists of Findings where an interpolation leads to a container."""


class Classification:
    """What the looks at one interpolation have shown. Jobs for which it is the same share it: it is only to be read."""

    def __init__(self, path: Path, shape: Shape) -> None:
        self._path = path
        self._shape = shape
        self._findings = list(_findings(shape))

    @functools.cached_property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(Problem(each.problem, dotted(each.path)) for each in self._findings if each.problem)

    @functools.cached_property
    def is_of_the_run(self) -> bool:
        return any(isinstance(each.identity, RunDependent) for each in self._findings)

    @functools.cached_property
    def identity(self) -> tp.Any:
        return copy_tree(map_leaves(self._shape, lambda finding: finding.identity))

    @functools.cached_property
    def values(self) -> tuple[tp.Any, ...]:
        """In the real, the first and the second world, and in `world_of_project`."""
        return tuple(map(self._in_world, range(4)))

    def _in_world(self, world: int) -> tp.Any:
        return copy_tree(map_leaves(self._shape, lambda finding: finding.values[world]))

    @functools.cached_property
    def pins(self) -> dict[Path, tp.Any]:
        return _pins(self._path, self._shape)

    @functools.cached_property
    def notices(self) -> tuple[str, ...]:
        return tuple(_notices(self._path, self._shape))


@dataclasses.dataclass(frozen=True)
class Observations:
    """The values of one leaf in the real, the first and the second world, and again backwards where that was asked.

    ``here`` is the value in the world of that name, that of the first world where that was not asked; ``kinds`` are the
    classes of what it is made of in the constant worlds.
    """

    values: tp.Sequence[tp.Any]
    here: tp.Any
    calls: Calls
    kinds: tp.Any = ()

    @classmethod
    def of(cls, leaves: tp.Sequence[Leaf]) -> Observations:
        """``leaves`` as they were looked at: once, where all worlds are the same, or in all of them."""
        values, calls = [leaf.value for leaf in leaves], calls_of(leaves)
        if len(values) == 1:
            return cls(values * 3, values[0], calls)
        has_here = len(values) % 3 == 1
        kinds = [leaf.kinds for leaf in (*leaves[1:3], leaves[-1])]
        return cls(values[: len(values) - has_here], values[-1] if has_here else values[1], calls, kinds)

    @property
    def verdict(self) -> tp.Literal["fails", "changes", "run", "pinned", "constant"]:
        if all(isinstance(value, ResolveFailure) for value in self.values):
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

    @property
    def kept(self) -> tuple[tp.Any, ...]:
        """The values in the four worlds; that of another where one has none."""
        real, first, second = self.values[:3]
        orders = ((real, first, second), (first, real, second), (second, real, first), (self.here, first, second, real))
        return tuple(
            next((each for each in order if not isinstance(each, ResolveFailure)), order[0]) for order in orders
        )


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is known of one leaf.

    ``values`` are those in the real, the first and the second world, and in `world_of_project`.
    """

    path: Path
    text: str
    calls: Calls
    backed: bool
    values: tuple[tp.Any, ...]
    identity: tp.Any
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Says what the views of a leaf in the worlds mean."""

    stage: Tracer
    allow_missing: tp.Sequence[str]
    variant: JobVariant

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
        leaves = [flatten(view) for view in views]
        seen = Observations.of(leaves)
        make = functools.partial(Finding, path, text, seen.calls, all(leaf.backed for leaf in leaves))
        kept, real, verdict = seen.kept, seen.values[0], seen.verdict
        if verdict == "fails":
            return self._failed(make, real, path, text, seen.calls)
        if verdict == "changes":
            return make(kept, RunDependent(text), _CHANGES.format(text))
        if verdict == "pinned":
            classes = f" {leaves[0].kinds}" if leaves[0].kinds else ""
            return make(kept, Pinned(text + classes, real))
        if verdict == "constant":
            return make(kept, real)
        try:
            return make(kept, RunDependent(text + self._contribution(seen)))
        except ConfigError as error:
            return make(kept, RunDependent(text), f"{text} {error.problems[0].message}")

    def _failed(
        self, make: tp.Callable[..., Finding], failure: ResolveFailure, path: Path, text: str, calls: Calls
    ) -> Finding:
        if failure.missing and any(matches_key(key, self.allow_missing) for key in (dotted(path), failure.missing)):
            return make((MISSING,) * 4, text)
        return make((text,) * 4, RunDependent(text), _why(text, failure, calls))

    def _contribution(self, seen: Observations) -> str:
        """What a run-dependent leaf takes from neither the run nor the config, as a digest behind its text."""
        if all(call.run for call in seen.calls):
            return ""
        variables = {call.key: os.environ.get(call.key) for call in seen.calls if call.name == "oc.env"}
        return f" [{digest([variables, self._constants(seen), str(seen.kinds)])[:16]}]"

    def _constants(self, seen: Observations) -> list[Json]:
        """The values in the constant worlds, or that of the run without its paths where none of them has one."""
        if not seen.steady:
            return []
        values = [*seen.values[1:3], seen.here]
        if all(isinstance(value, ResolveFailure) for value in values):
            return [canonical(self.stage.masked(seen.values[0], self.variant))]
        folder = self.stage.folder
        forms = [None if isinstance(value, ResolveFailure) else [canonical(value)] for value in values]
        counted = forms if says_more(forms[0], forms[2], folder) else forms[:2]
        return [without_folder(form, folder) for form in counted]


def may_be_of_the_run(calls: Calls) -> bool:
    """Whether a leaf may belong to the run: where it does, it may take more than is seen in the other worlds."""
    return any(call.run or call.custom for call in calls)


def _same(one: tp.Any, other: tp.Any) -> bool:
    if isinstance(one, ResolveFailure) or isinstance(other, ResolveFailure):
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


def _why(text: str, failure: ResolveFailure, calls: Calls) -> str:
    if failure.missing:
        return f"{text} refers to {failure.missing}, which has no value (???)"
    hint = ""
    if "Interpolation key 'hydra" in failure.error:
        hint = "; jobs see the config without its hydra node: write ${hydra:...} instead of ${hydra....}"
    elif any(call.foreign for call in calls):
        hint = "; if only its job can tell, exclude it (hydra.launcher.exclude_from_uid)"
    return f"{text} does not resolve: {failure.error}{hint}"


def _pins(top: Path, shape: Shape) -> dict[Path, tp.Any]:
    found = list(_findings(shape))
    if isinstance(shape, Finding):
        return {top: shape.values[0]} if isinstance(shape.identity, Pinned) else {}
    if not _loose(found) or any(isinstance(finding.identity, RunDependent) for finding in found):
        return {}
    return {top: map_leaves(shape, lambda finding: finding.values[0])}


def _loose(found: tp.Iterable[Finding]) -> bool:
    """Whether a pinned leaf is in no place of the job's config where it can be pinned by itself."""
    return any(isinstance(finding.identity, Pinned) and not finding.backed for finding in found)


def _notices(top: Path, shape: Shape) -> tp.Iterator[str]:
    found = list(_findings(shape))
    for finding in found:
        if not finding.problem and any(call.within("job.num") for call in finding.calls):
            yield f"{dotted(finding.path)}: {finding.text} counts: the position in the sweep is part of the task"
    if not isinstance(shape, Finding) and _loose(found) and not _pins(top, shape):
        yield f"{dotted(top)}: refers to values of the run and of the environment at once; its job reads both anew"


def _findings(shape: Shape) -> tp.Iterator[Finding]:
    return (leaf for _, leaf in leaves_of(shape))
