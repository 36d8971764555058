"""Leaves that take a size of the Slurm job: they stay of the run, and what decides the size counts, too."""

from __future__ import annotations

import dataclasses
import os
import typing as tp

from hydra_exca.clusters import Options
from hydra_exca.clusters.slurm import variables
from hydra_exca.identity.uid import RunDependent
from hydra_exca.sweep.configs.tree import map_leaves

ANY_SIZE = "SLURM_*"
"""What a leaf reaches that depends on some size, by a resolver that reads the whole environment."""


@dataclasses.dataclass(frozen=True)
class JobSizes:
    """What decides the sizes of the jobs: their ``options`` on Slurm, elsewhere (None) the environment of this process.

    ``environment`` is what the jobs have beside it.
    """

    options: Options | None = None
    environment: tp.Mapping[str, str] = dataclasses.field(default_factory=dict)

    def expected(self, per_task: tp.Collection[str] = ()) -> dict[str, str] | None:
        """The sizes that jobs on Slurm will find, as far as they are known; None elsewhere.

        ``per_task`` are the options that each task may have of its own: then none is known for all of them.
        """
        if self.options is None:
            return None
        return {} if variables.RESOURCES.intersection(per_task) else variables.known_sizes(self.options)

    def of_task(self, resources: tp.Mapping[str, tp.Any], environment: tp.Mapping[str, str]) -> JobSizes:
        """Those of the job of one task, which asks for ``resources`` of its own."""
        return JobSizes(None if self.options is None else self.options.with_resources(resources), environment)

    def notices(self, leaves: tp.Mapping[str, RunDependent]) -> tp.Iterator[str]:
        """What to say about leaves that count by the size of their job, by key."""
        if not leaves:
            return
        names = sorted({name for leaf in leaves.values() for name in leaf.sizes})
        how = "its value in this process" if self.options is None else "the launcher's options that decide it"
        yield (
            f"{', '.join(leaves)}: the size of the Slurm job ({', '.join(names)}) counts by {how}, and each job reads "
            f"its own. To leave it out of the identity: hydra.launcher.node_env=[{','.join(names)}]"
        )

    def count_all(self, tree: tp.Any) -> tp.Any:
        """A tree in which each leaf that takes a size has got what decides it."""
        return map_leaves(tree, self.count)

    def count(self, leaf: tp.Any) -> tp.Any:
        """A leaf with what decides its size, if it takes one."""
        if not isinstance(leaf, RunDependent) or not leaf.sizes:
            return leaf
        return RunDependent(f"{leaf.text} [{'; '.join(map(self._describe, leaf.sizes))}]")

    def _describe(self, name: str) -> str:
        if self.options is not None:
            every = name == ANY_SIZE
            return variables.describe_sizes(self.options) if every else variables.describe_size(name, self.options)
        here = {**os.environ, **self.environment}
        if name == ANY_SIZE:
            return ", ".join(f"{each}={here[each]}" for each in sorted(here) if variables.is_size(each))
        return f"{name}={here[name]}" if name in here else f"{name} is not set"
