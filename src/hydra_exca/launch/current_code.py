"""The code that a launch would run now: that of files, and that of cells."""

from __future__ import annotations

import dataclasses
import functools
import typing as tp
from pathlib import Path

from hydra_exca.code.compare import join_digests
from hydra_exca.code.launch_code import LaunchCode
from hydra_exca.store import Outcome

from .cell_code import CellCode


@dataclasses.dataclass(frozen=True, eq=False)
class CurrentCode:
    """The files that jobs would import from a copy, and the cells that tasks reach, as far as there are any."""

    cache: Path
    files: LaunchCode | None
    cells: CellCode | None

    @functools.cached_property
    def digest(self) -> str | None:
        files = None if self.files is None else self.files.digest
        return join_digests(files, None if self.cells is None else self.cells.digest)

    def changes(self, code: str, used: str | None = None) -> list[str] | None:
        """The files and cells that differ from those of another digest, and count for a task that ``used`` this."""
        if self.cells is not None:
            return self.cells.changes(self.cache, code, lambda files: self._changed_files(files, used))
        return self._changed_files(code, used)

    def _changed_files(self, code: str, used: str | None) -> list[str] | None:
        """The files that differ; none where this code has no files."""
        return [] if self.files is None else self.files.changes(code, used)

    def is_that_of(self, outcome: Outcome, is_strict: bool) -> bool:
        """Whether an outcome comes from this code, or from code that differs only in files that do not count.

        That is assumed of an outcome whose code is not known, unless ``is_strict``.
        """
        if outcome.code == self.digest:
            return True
        if outcome.code is None or self.digest is None:
            return not is_strict
        return self._changes(outcome.code, outcome.used) == []

    @functools.cached_property
    def _changes(self) -> tp.Callable[[str, str | None], list[str] | None]:
        return functools.cache(self.changes)
