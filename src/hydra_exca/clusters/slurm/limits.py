"""How many jobs the site and the user want in the queue, and in one array."""

from __future__ import annotations

import os
import pwd

from hydra_exca.clusters.base import Options

from . import commands, sbatch

_DEFAULT_MAX_ARRAY_SIZE = 1001  # Slurm's
_FEW = 4  # room is used from this part of a limit on


class Limits:
    """How many jobs one array may hold, and the queue. ``learned_limit`` is what sbatch did not refuse."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.learned_limit: int | None = None
        configuration = sbatch.run_command(commands.configuration_command())
        answered = configuration is not None and configuration.returncode == 0
        self._configuration = commands.read_configuration(configuration.stdout) if configuration and answered else {}
        largest = self._configuration.get("MaxArraySize", "")
        self.array_size = max(1, int(largest)) if largest.isdecimal() else _DEFAULT_MAX_ARRAY_SIZE
        self._site = self._site_limit()

    @property
    def needs_own_count(self) -> bool:
        """Whether it matters how many jobs of this launch are in the queue."""
        return self._options.max_queued is not None or self.learned_limit is not None

    def free_slots(self, mine: int, wanted: int) -> int:
        """For how many more jobs there is room beside ``mine`` of this launch; for none rather than for a few."""
        own = [limit for limit in (self._options.max_queued, self.learned_limit) if limit is not None]
        room = min([wanted, *(limit - mine for limit in own)])
        if self._site is not None:
            own.append(self._site)
            room = min(room, self._site - self._queued(mine))
        few = max(1, min(own, default=0) // _FEW)
        return room if room >= min(few, wanted) else 0

    def _queued(self, mine: int) -> int:
        done = sbatch.run_command(commands.count_command(str(os.getuid())))
        return mine if done is None or done.returncode != 0 else len(done.stdout.split())

    def _site_limit(self) -> int | None:
        """The association's or the quality's limit, None where none is enforced or none can be read."""
        if "limits" not in self._configuration.get("AccountingStorageEnforce", ""):
            return None
        answers = [sbatch.run_command(command) for command in commands.limits_commands(_user_name())]
        told = [answer.stdout if answer is not None and answer.returncode == 0 else "" for answer in answers]
        return commands.read_limit(
            told[0], told[1], self._configuration.get("ClusterName", ""), sbatch.accounting_options(self._options)
        )


def _user_name() -> str:
    """The accounting knows users by their names alone."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
