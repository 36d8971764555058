"""Several processes of one Slurm job: which of them this is, and what they let one another know.

They have the folder of their launch in common, and nothing else that is sure to work between nodes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import typing as tp
from pathlib import Path

from hydra_exca import paths


@dataclasses.dataclass(frozen=True)
class Ranks:
    """This process is number ``rank`` of ``count``. ``start`` tells the starts of a job that is requeued apart."""

    rank: int
    count: int
    folder: Path
    position: int
    start: str

    @classmethod
    def of_this_process(cls, launch: Path, position: int) -> tp.Self:  # type: ignore[name-defined,unused-ignore]
        known = os.environ
        rank, count = int(known.get("SLURM_PROCID", 0)), int(known.get("SLURM_NTASKS", 1))
        return cls(rank, count, launch, position, known.get("SLURM_RESTART_COUNT", "0"))

    @property
    def requeued(self) -> bool:
        return self.start != "0"

    def decide(self) -> bool:
        """Whether this is the rank that says how the task ended: the first one that asks."""
        try:
            os.close(os.open(paths.rank_decision(self.folder, self.position, self.start), os.O_CREAT | os.O_EXCL))
            return True
        except FileExistsError:
            return False

    def tell(self, error: dict[str, tp.Any]) -> None:
        """Lets the first rank know what this one raised."""
        path = paths.rank_error(self.folder, self.position, self.start, self.rank)
        temporary = path.with_name(paths.temporary_name(path.name, "rank"))
        temporary.write_text(json.dumps(error))
        os.replace(temporary, path)

    def told(self) -> dict[str, tp.Any] | None:
        """What another rank has raised, the earliest if there are several."""
        ranks = (paths.rank_error(self.folder, self.position, self.start, rank) for rank in range(1, self.count))
        errors = sorted((path for path in ranks if path.exists()), key=lambda path: path.stat().st_mtime_ns)
        return json.loads(errors[0].read_text()) if errors else None
