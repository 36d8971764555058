"""What the views of an interpolation in several worlds say: it belongs to the run, is pinned, is constant, or wrong."""

from __future__ import annotations

import dataclasses
import functools
import os
import typing as tp

from hydra_exca.errors import ConfigError, Problem
from hydra_exca.uid import Pinned, RunDependent, canonical, digest, encode

from .stage import Calls, Failure, Stage
from .trees import MISSING, Path, allowed, copied, dotted, leaves_of, mapped
from .variants import Variant
from .views import Branch, Leaf, calls_of, whole

Shape: tp.TypeAlias = tp.Any
"""A Finding, or dicts and lists of Findings where an interpolation leads to a container."""


class Seen:
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
        leaves = [whole(view) for view in views]
        values = [leaf.value for leaf in leaves]
        seen = Evidence(values * 3 if len(values) == 1 else values, calls_of(leaves))
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
        if failure.missing and any(allowed(key, self.allow_missing) for key in (dotted(path), failure.missing)):
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
            yield f"{dotted(finding.path)}: {finding.text} counts: the position in the sweep is part of the task"
    if not isinstance(shape, Finding) and _loose(found) and not _pins(top, shape):
        yield f"{dotted(top)}: refers to values of the run and of the environment at once; its job reads both anew"


def _findings(shape: Shape) -> tp.Iterator[Finding]:
    return (leaf for _, leaf in leaves_of(shape))
