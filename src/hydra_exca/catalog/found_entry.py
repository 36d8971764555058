"""An entry that a user has named, with the cache that it is in."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class FoundEntry:
    """An entry, and the cache folder that it is in."""

    path: Path
    cache: Path

    @property
    def name(self) -> str:
        """The name to type: ``factory,version/uid``."""
        return str(self.path.relative_to(self.cache))

    @property
    def factory(self) -> str:
        return self.name.partition("/")[0].rpartition(",")[0]

    @property
    def version(self) -> str:
        return self.name.partition("/")[0].rpartition(",")[2]
