"""The limits that the site and the user set on jobs in the queue and in one array."""

from __future__ import annotations

import os

from hydra_exca import files
from hydra_exca.clusters.base import Options

from . import commands, sbatch
from .run import read_output

_DEFAULT_MAX_ARRAY_SIZE = 1001  # Slurm's
_FEW = 4  # jobs are submitted once this fraction of a limit is free: not one by one


class Limits:
    """How many jobs one array and the queue may hold. ``learned_limit`` is the largest number that sbatch accepted."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.learned_limit: int | None = None
        chosen = sbatch.chosen_clusters(options)
        self._cluster = chosen[0] if len(chosen) == 1 else None
        configuration = read_output(commands.on_cluster(commands.configuration_command(), self._cluster))
        self._configuration = commands.read_configuration(configuration or "")
        largest = self._configuration.get("MaxArraySize", "")
        self.array_size = max(1, int(largest)) if largest.isdecimal() else _DEFAULT_MAX_ARRAY_SIZE
        self._site = self._site_limit()

    @property
    def needs_own_count(self) -> bool:
        """Whether a limit applies to the jobs of this launch alone."""
        return self._options.max_queued is not None or self.learned_limit is not None

    def free_slots(self, own_jobs: int, wanted: int) -> int:
        """How many more jobs may be submitted beside ``own_jobs`` of this launch; none rather than a few."""
        own = [limit for limit in (self._options.max_queued, self.learned_limit) if limit is not None]
        room = min([wanted, *(limit - own_jobs for limit in own)])
        if self._site is not None:
            own.append(self._site)
            room = min(room, self._site - self._queued(own_jobs))
        few = max(1, min(own, default=0) // _FEW)
        return room if room >= min(few, wanted) else 0

    def list_queued(self) -> list[str] | None:
        """The ids of all jobs of the user in the queue, None if Slurm does not answer."""
        listed = read_output(commands.on_cluster(commands.count_command(str(os.getuid())), self._cluster))
        return None if listed is None else listed.split()

    def _queued(self, own_jobs: int) -> int:
        listed = self.list_queued()
        return own_jobs if listed is None else len(listed)

    def _site_limit(self) -> int | None:
        """The limit of the association or the quality of service, None if none is enforced or can be read."""
        if "limits" not in self._configuration.get("AccountingStorageEnforce", ""):
            return None
        cluster = self._configuration.get("ClusterName", "")
        user = files.user_name(os.getuid())  # the accounting knows users by their names alone
        associations, qualities = (read_output(command) or "" for command in commands.limits_commands(user))
        return commands.read_limit(associations, qualities, cluster, sbatch.accounting_options(self._options))
