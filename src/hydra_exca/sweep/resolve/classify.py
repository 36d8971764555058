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
from hydra_exca.sweep.configs.resolvers import LISTED_ENVIRON, READ_SIZE, RUN_VARIABLE
from hydra_exca.sweep.configs.tree import MISSING, Path, copy_tree, dotted, filled, leaves_of, map_leaves

from .observations import Branch, Leaf, collect_calls, flatten
from .sizes import ANY_SIZE
from .tracer import Calls, ResolveFailure, Tracer
from .world import depends_on_folder, without_folder

FindingTree: tp.TypeAlias = tp.Any
"""A Finding, or dicts, lists and tuples of Findings where an interpolation leads to a container."""


class Classification:
    """The result for one interpolation. Jobs that see the same share it: treat it as read-only."""

    def __init__(self, path: Path, tree: FindingTree) -> None:
        self._path = path
        self._tree = tree
        self._findings = list(_findings(tree))

    @functools.cached_property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(Problem(finding.problem, dotted(finding.path)) for finding in self._findings if finding.problem)

    @functools.cached_property
    def tolerated(self) -> tuple[Problem, ...]:
        return tuple(
            Problem(finding.tolerated, dotted(finding.path)) for finding in self._findings if finding.tolerated
        )

    @functools.cached_property
    def depends_on_run(self) -> bool:
        return any(isinstance(finding.identity, RunDependent) for finding in self._findings)

    def reads(self, hydra_key: str) -> bool:
        """Whether it reads that key of Hydra's own configuration, or all that is around it."""
        calls = (call for finding in self._findings for call in finding.calls if call.name == "hydra")
        return any(call.is_below(hydra_key) or f"{hydra_key}.".startswith(f"{call.key}.") for call in calls)

    @functools.cached_property
    def sizes(self) -> dict[Path, RunDependent]:
        """The leaves that take the size of their job."""
        dependent = {each.path: each.identity for each in self._findings if isinstance(each.identity, RunDependent)}
        return {path: leaf for path, leaf in dependent.items() if leaf.sizes}

    @functools.cached_property
    def identity(self) -> tp.Any:
        return copy_tree(map_leaves(self._tree, lambda finding: finding.identity))

    @functools.cached_property
    def values(self) -> tuple[tp.Any, ...]:
        """In the real, the first and the second world, and in `project_world`."""
        return tuple(map(self._values_in_world, range(4)))

    def _values_in_world(self, number: int) -> tp.Any:
        return copy_tree(map_leaves(self._tree, lambda finding: finding.values[number]))

    @functools.cached_property
    def pins(self) -> dict[Path, tp.Any]:
        """What the job gets in place of the interpolation, or of the container that it stands in."""
        if isinstance(self._tree, Finding):
            return {self._path: self._tree.values[0]} if isinstance(self._tree.identity, Pinned) else {}
        return {self._path: self.values[0]} if self._must_pin_container and not self.depends_on_run else {}

    @functools.cached_property
    def notices(self) -> tuple[str, ...]:
        notices = [
            f"{dotted(finding.path)}: {finding.text} counts: the position in the sweep is part of the task"
            for finding in self._findings
            if not finding.problem and any(call.is_below("job.num") for call in finding.calls)
        ]
        if self._must_pin_container and self.depends_on_run:
            key = dotted(self._path)
            notices.append(
                f"{key}: refers to values of the run and of the environment at once; its job reads both anew"
            )
        return tuple(notices)

    @property
    def _must_pin_container(self) -> bool:
        """Whether a pinned leaf is not a node of the job's config, so that only its container can be pinned."""
        return not isinstance(self._tree, Finding) and any(
            isinstance(finding.identity, Pinned) and not finding.is_config_node for finding in self._findings
        )


@dataclasses.dataclass(frozen=True)
class Observations:
    """The values of one leaf in the real, the first and the second world.

    If custom resolvers are involved, ``values`` has the same values once more, in reverse order.

    ``in_project`` is the value in `project_world`, that of the first world if it was not observed there; ``kinds`` are
    the classes of the structured configs that it is made of, in each constant world. ``sizes`` are the variables from
    which it takes the size of the job.
    """

    values: tp.Sequence[tp.Any]
    in_project: tp.Any
    calls: Calls
    kinds: tp.Any = ()
    sizes: tuple[str, ...] = ()

    @classmethod
    def from_leaves(cls, leaves: tp.Sequence[Leaf], is_size: tp.Callable[[str], bool]) -> Observations:
        """``leaves`` are all observations, in their order; one alone stands for all worlds."""
        leaves, in_other_size = (leaves[:-1], leaves[-1]) if len(leaves) % 3 == 2 else (leaves, None)
        values, calls = [leaf.value for leaf in leaves], collect_calls(leaves)
        # What a resolver reads at its first calls, it may read by importing a module.
        reads = {call.key for call in collect_calls(leaves[3:]) if call.name == READ_SIZE}
        reads |= {call.key for call in calls if call.name == RUN_VARIABLE and is_size(call.key)}
        if in_other_size is not None and not _are_same(in_other_size.value, values[2]):
            reads.add(ANY_SIZE)
        sizes = (ANY_SIZE,) if ANY_SIZE in reads else tuple(sorted(reads))
        calls = frozenset(call for call in calls if call.name not in (READ_SIZE, LISTED_ENVIRON))
        if len(values) == 1:
            return cls(values * 3, values[0], calls, (), sizes)
        has_project = len(values) % 3 == 1
        kinds = [leaf.kinds for leaf in (*leaves[1:3], leaves[-1])]
        in_project = values.pop() if has_project else values[1]
        return cls(values, in_project, calls, kinds, sizes)

    @property
    def category(self) -> tp.Literal["fails", "changes", "run", "pinned", "constant"]:
        if all(isinstance(value, ResolveFailure) for value in self.values):
            return "fails"
        reaches_run = bool(self.sizes) or any(call.belongs_to_run for call in self.calls)
        customs = sum(call.is_custom for call in self.calls)
        if not self.is_deterministic:
            # With one custom resolver we know which one changes; with two, leaving the leaf out could hide the other.
            return "run" if reaches_run and customs < 2 else "changes"
        if self.differs_between_worlds or (reaches_run and customs) or self.sizes:
            return "run"
        return "pinned" if reaches_run or any(call.is_external for call in self.calls) else "constant"

    @property
    def is_deterministic(self) -> bool:
        return all(map(_are_same, self.values, reversed(self.values[3:])))

    @property
    def differs_between_worlds(self) -> bool:
        return not all(_are_same(self.values[0], value) for value in self.values[1:3])

    @property
    def world_values(self) -> tuple[tp.Any, ...]:
        """The values in the four worlds; where a world has none, the value in another."""
        real, first, second = self.values[:3]
        preferences = (
            (real, first, second),
            (first, real, second),
            (second, real, first),
            (self.in_project, first, second, real),
        )
        return tuple(
            next((value for value in values if not isinstance(value, ResolveFailure)), values[0])
            for values in preferences
        )


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result for one leaf. ``values`` are those in the real, first and second world, and in `project_world`."""

    path: Path
    text: str
    calls: Calls
    is_config_node: bool
    values: tuple[tp.Any, ...]
    identity: tp.Any
    problem: str = ""
    tolerated: str = ""


class Tolerance(tp.NamedTuple):
    """Which leaves may have no value.

    Keys in ``missing`` may stay ``???``. With ``absent``, a leaf may refer to a key or resolver that does not exist,
    and with ``any_failure`` it may fail for any reason. Such leaves count by their text.
    """

    missing: tp.Sequence[str] = ()
    absent: bool = False
    any_failure: bool = False


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Classifies the views of the interpolations of one job."""

    tracer: Tracer
    tolerance: Tolerance
    variant: JobVariant

    def classify(self, views: tp.Sequence[Leaf | Branch], path: Path, text: str) -> FindingTree:
        """Leaf by leaf where the views have the same keys, else as one leaf."""
        branches = [view for view in views if isinstance(view, Branch)]
        if len(branches) < len(views) or len({(view.container, *view.children) for view in branches}) > 1:
            return self._classify_leaf(views, path, text)
        tree = {
            key: self.classify([view.children[key] for view in branches], (*path, key), f"{text}.{key}")
            for key in branches[0].children
        }
        return filled(branches[0].container, tree)

    def _classify_leaf(self, views: tp.Sequence[Leaf | Branch], path: Path, text: str) -> Finding:
        leaves = [flatten(view) for view in views]
        observed = Observations.from_leaves(leaves, self.tracer.is_size)
        is_config_node = all(leaf.is_config_node for leaf in leaves)
        values, identity, problem, tolerated = observed.world_values, observed.values[0], "", ""
        match observed.category:
            case "fails":
                values, identity, problem, tolerated = self._classify_failure(observed, path, text)
            case "changes":
                identity, problem = RunDependent(text), _NOT_DETERMINISTIC.format(text)
            case "pinned":
                kinds = f" {leaves[0].kinds}" if leaves[0].kinds else ""
                identity = Pinned(text + kinds, observed.values[0])
            case "run":
                identity, problem = self._classify_run_dependent(observed, text)
        return Finding(path, text, observed.calls, is_config_node, values, identity, problem, tolerated)

    def _classify_failure(
        self, observed: Observations, path: Path, text: str
    ) -> tuple[tuple[tp.Any, ...], tp.Any, str, str]:
        """The values, the identity, the problem, and one that is tolerated."""
        failure: ResolveFailure = observed.values[0]
        keys = (dotted(path), failure.missing)
        if failure.missing and any(matches_key(key, self.tolerance.missing) for key in keys):
            return (MISSING,) * 4, text, "", ""
        message = _failure_message(text, failure, observed.calls)
        is_absent = all(isinstance(value, ResolveFailure) and value.is_absent for value in observed.values)
        if self.tolerance.any_failure or (self.tolerance.absent and is_absent):
            return (text,) * 4, text, "", message
        return (text,) * 4, RunDependent(text), message, ""

    def _classify_run_dependent(self, observed: Observations, text: str) -> tuple[RunDependent, str]:
        """The identity, and the problem: a value that has no canonical form."""
        try:
            return RunDependent(text + self._digest_of_rest(observed), observed.sizes), ""
        except ConfigError as error:
            return RunDependent(text), f"{text} {error.problems[0].message}"

    def _digest_of_rest(self, observed: Observations) -> str:
        """What a run-dependent leaf takes from neither the run nor the config, as a digest behind its text."""
        if all(call.belongs_to_run for call in observed.calls):
            return ""
        variables = {call.key: os.environ.get(call.key) for call in observed.calls if call.name == "oc.env"}
        return f" [{digest([variables, self._constants(observed), str(observed.kinds)])[:16]}]"

    def _constants(self, observed: Observations) -> list[Json]:
        """The values in the constant worlds; if none has one, the real value without the paths of the run."""
        if not observed.is_deterministic:
            return []
        values = [*observed.values[1:3], observed.in_project]
        if all(isinstance(value, ResolveFailure) for value in values):
            return [canonical(self.tracer.mask_run_paths(observed.values[0], self.variant))]
        folder = self.tracer.folder
        forms = [None if isinstance(value, ResolveFailure) else [canonical(value)] for value in values]
        counted = forms if depends_on_folder(forms[0], forms[2], folder) else forms[:2]
        return [without_folder(form, folder) for form in counted]


def may_depend_on_run(calls: Calls) -> bool:
    """Whether a leaf may be run-dependent. Then it may take more from its surroundings than the other worlds show."""
    return any(call.belongs_to_run or call.is_custom for call in calls)


def _are_same(one: tp.Any, other: tp.Any) -> bool:
    if isinstance(one, ResolveFailure) or isinstance(other, ResolveFailure):
        return type(one) is type(other)
    try:
        return encode(canonical(one)) == encode(canonical(other))
    except ConfigError:
        # It has no identity either. That is reported where the identity is computed, if the leaf counts at all.
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
    elif any(call.is_external for call in calls):
        hint = (
            "; if only its job can tell, exclude it (hydra.launcher.exclude_from_uid) or name the variable in "
            "hydra.launcher.node_env"
        )
    return f"{text} does not resolve: {failure.error}{hint}"


def _findings(tree: FindingTree) -> tp.Iterator[Finding]:
    return (leaf for _, leaf in leaves_of(tree))
