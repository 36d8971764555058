"""Classifies interpolations by their values in several worlds: run-dependent, pinned, constant, or a problem."""

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

from .observations import Branch, Leaf, collect_calls, flatten
from .tracer import Calls, ResolveFailure, Tracer
from .world import depends_on_folder, without_folder

Shape: tp.TypeAlias = tp.Any
"""A Finding, or dicts and lists of Findings where an interpolation leads to a container."""


class Classification:
    """The result for one interpolation. Jobs that see the same share it: treat it as read-only."""

    def __init__(self, path: Path, shape: Shape) -> None:
        self._path = path
        self._shape = shape
        self._findings = list(_findings(shape))

    @functools.cached_property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(Problem(each.problem, dotted(each.path)) for each in self._findings if each.problem)

    @functools.cached_property
    def depends_on_run(self) -> bool:
        return any(isinstance(each.identity, RunDependent) for each in self._findings)

    @functools.cached_property
    def identity(self) -> tp.Any:
        return copy_tree(map_leaves(self._shape, lambda finding: finding.identity))

    @functools.cached_property
    def values(self) -> tuple[tp.Any, ...]:
        """In the real, the first and the second world, and in `project_world`."""
        return tuple(map(self._values_in_world, range(4)))

    def _values_in_world(self, world: int) -> tp.Any:
        return copy_tree(map_leaves(self._shape, lambda finding: finding.values[world]))

    @functools.cached_property
    def pins(self) -> dict[Path, tp.Any]:
        return _pins(self._path, self._shape)

    @functools.cached_property
    def notices(self) -> tuple[str, ...]:
        return tuple(_notices(self._path, self._shape))


@dataclasses.dataclass(frozen=True)
class Observations:
    """The values of one leaf in the real, the first and the second world.

    If the user's resolvers are involved, the same values once more, in reverse order.

    ``here`` is the value in the world of that name, that of the first world where that was not asked; ``kinds`` are the
    classes of what it is made of in the constant worlds.
    """

    values: tp.Sequence[tp.Any]
    here: tp.Any
    calls: Calls
    kinds: tp.Any = ()

    @classmethod
    def from_leaves(cls, leaves: tp.Sequence[Leaf]) -> Observations:
        """``leaves`` as they were looked at: once, where all worlds are the same, or in all of them."""
        values, calls = [leaf.value for leaf in leaves], collect_calls(leaves)
        if len(values) == 1:
            return cls(values * 3, values[0], calls)
        has_here = len(values) % 3 == 1
        kinds = [leaf.kinds for leaf in (*leaves[1:3], leaves[-1])]
        return cls(values[: len(values) - has_here], values[-1] if has_here else values[1], calls, kinds)

    @property
    def category(self) -> tp.Literal["fails", "changes", "run", "pinned", "constant"]:
        if all(isinstance(value, ResolveFailure) for value in self.values):
            return "fails"
        reached = any(call.run for call in self.calls)
        customs = sum(call.custom for call in self.calls)
        if not self.is_deterministic:
            # With one custom resolver we know which one changes; with two, leaving the leaf out could hide the other.
            return "run" if reached and customs < 2 else "changes"
        if self.differs_between_worlds or (reached and customs):
            return "run"
        return "pinned" if reached or any(call.foreign for call in self.calls) else "constant"

    @property
    def is_deterministic(self) -> bool:
        return all(map(_are_same, self.values, reversed(self.values[3:])))

    @property
    def differs_between_worlds(self) -> bool:
        return not all(_are_same(self.values[0], value) for value in self.values[1:3])

    @property
    def world_values(self) -> tuple[tp.Any, ...]:
        """The values in the four worlds; that of another where one has none."""
        real, first, second = self.values[:3]
        orders = ((real, first, second), (first, real, second), (second, real, first), (self.here, first, second, real))
        return tuple(
            next((each for each in order if not isinstance(each, ResolveFailure)), order[0]) for order in orders
        )


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is known of one leaf.

    ``values`` are those in the real, the first and the second world, and in `project_world`.
    """

    path: Path
    text: str
    calls: Calls
    is_config_node: bool
    values: tuple[tp.Any, ...]
    identity: tp.Any
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Classifies the views of one interpolation."""

    tracer: Tracer
    allow_missing: tp.Sequence[str]
    variant: JobVariant

    def classify(self, views: tp.Sequence[Leaf | Branch], path: Path, text: str) -> Shape:
        """Leaf by leaf where the views have the same keys, else as one leaf."""
        branches = [view for view in views if isinstance(view, Branch)]
        if len(branches) < len(views) or len({(view.is_list, *view.children) for view in branches}) > 1:
            return self.classify_leaf(views, path, text)
        shape = {
            key: self.classify([view.children[key] for view in branches], (*path, key), f"{text}.{key}")
            for key in branches[0].children
        }
        return list(shape.values()) if branches[0].is_list else shape

    def classify_leaf(self, views: tp.Sequence[Leaf | Branch], path: Path, text: str) -> Finding:
        leaves = [flatten(view) for view in views]
        seen = Observations.from_leaves(leaves)
        make = functools.partial(Finding, path, text, seen.calls, all(leaf.is_config_node for leaf in leaves))
        kept, real, category = seen.world_values, seen.values[0], seen.category
        if category == "fails":
            return self._classify_failure(make, real, path, text, seen.calls)
        if category == "changes":
            return make(kept, RunDependent(text), _NOT_DETERMINISTIC.format(text))
        if category == "pinned":
            classes = f" {leaves[0].kinds}" if leaves[0].kinds else ""
            return make(kept, Pinned(text + classes, real))
        if category == "constant":
            return make(kept, real)
        try:
            return make(kept, RunDependent(text + self._contribution(seen)))
        except ConfigError as error:
            return make(kept, RunDependent(text), f"{text} {error.problems[0].message}")

    def _classify_failure(
        self, make: tp.Callable[..., Finding], failure: ResolveFailure, path: Path, text: str, calls: Calls
    ) -> Finding:
        if failure.missing and any(matches_key(key, self.allow_missing) for key in (dotted(path), failure.missing)):
            return make((MISSING,) * 4, text)
        return make((text,) * 4, RunDependent(text), _failure_message(text, failure, calls))

    def _contribution(self, seen: Observations) -> str:
        """What a run-dependent leaf takes from neither the run nor the config, as a digest behind its text."""
        if all(call.run for call in seen.calls):
            return ""
        variables = {call.key: os.environ.get(call.key) for call in seen.calls if call.name == "oc.env"}
        return f" [{digest([variables, self._constants(seen), str(seen.kinds)])[:16]}]"

    def _constants(self, seen: Observations) -> list[Json]:
        """The values in the constant worlds, or that of the run without its paths where none of them has one."""
        if not seen.is_deterministic:
            return []
        values = [*seen.values[1:3], seen.here]
        if all(isinstance(value, ResolveFailure) for value in values):
            return [canonical(self.tracer.masked(seen.values[0], self.variant))]
        folder = self.tracer.folder
        forms = [None if isinstance(value, ResolveFailure) else [canonical(value)] for value in values]
        counted = forms if depends_on_folder(forms[0], forms[2], folder) else forms[:2]
        return [without_folder(form, folder) for form in counted]


def may_depend_on_run(calls: Calls) -> bool:
    """Whether a leaf may belong to the run: where it does, it may take more than is seen in the other worlds."""
    return any(call.run or call.custom for call in calls)


def _are_same(one: tp.Any, other: tp.Any) -> bool:
    if isinstance(one, ResolveFailure) or isinstance(other, ResolveFailure):
        return type(one) is type(other)
    try:
        return encode(canonical(one)) == encode(canonical(other))
    except ConfigError:
        # It has no identity either, which is said where that is computed, if the leaf counts at all.
        return type(one) is type(other)


_NOT_DETERMINISTIC = (
    "{} is not deterministic: it resolves to a different value each time; "
    "exclude it (hydra.launcher.exclude_from_uid) or give it a fixed value"
)


def _failure_message(text: str, failure: ResolveFailure, calls: Calls) -> str:
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
    if not _must_pin_container(found) or any(isinstance(finding.identity, RunDependent) for finding in found):
        return {}
    return {top: map_leaves(shape, lambda finding: finding.values[0])}


def _must_pin_container(found: tp.Iterable[Finding]) -> bool:
    """Whether a pinned leaf is not a node of the job's config, so that only its container can be pinned."""
    return any(isinstance(finding.identity, Pinned) and not finding.is_config_node for finding in found)


def _notices(top: Path, shape: Shape) -> tp.Iterator[str]:
    found = list(_findings(shape))
    for finding in found:
        if not finding.problem and any(call.within("job.num") for call in finding.calls):
            yield f"{dotted(finding.path)}: {finding.text} counts: the position in the sweep is part of the task"
    if not isinstance(shape, Finding) and _must_pin_container(found) and not _pins(top, shape):
        yield f"{dotted(top)}: refers to values of the run and of the environment at once; its job reads both anew"


def _findings(shape: Shape) -> tp.Iterator[Finding]:
    return (leaf for _, leaf in leaves_of(shape))
