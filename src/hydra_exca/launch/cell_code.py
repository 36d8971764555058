"""The code of cells that the tasks of a launch reach: a part of the code that their results are computed with."""

from __future__ import annotations

import dataclasses
import functools
import typing as tp
from pathlib import Path

from hydra_exca.code.compare import CELLS, differing_files, split_digests
from hydra_exca.code.manifest import read_manifest, store_fingerprints
from hydra_exca.identity import canonical, cells

_DIGITS = 16
ChangedFiles = tp.Callable[[str], list[str] | None]


@dataclasses.dataclass(frozen=True)
class CellCode:
    """What cells define, with a digest of each definition by what it is called in messages."""

    fingerprints: dict[str, str]

    @functools.cached_property
    def digest(self) -> str:
        return f"{CELLS}{canonical.digest(dict(self.fingerprints))[:_DIGITS]}"

    def store(self, cache: Path) -> None:
        """Stores the digests of the definitions: later launches compare theirs with them."""
        store_fingerprints(cache, self.digest, self.fingerprints, ())

    def changes(self, cache: Path, code: str, of_files: ChangedFiles = lambda digest: None) -> list[str] | None:
        """The definitions and files that differ from another code, None if they are not known.

        ``of_files`` tells which differ from a copy of files. What only one of both has does not count.
        """
        files, typed = split_digests(code)
        before = {} if typed is None else read_manifest(cache, typed)
        differing = [] if files is None else of_files(files)
        changed = [*(differing_files(before, self.fingerprints) if before else []), *(differing or [])]
        return None if not changed and None in (before, differing) else changed


def reached_cells(roots: tp.Iterable[tp.Any]) -> CellCode | None:
    """The cells that these functions and objects reach, None if there are none."""
    found = cells.reached_code(roots)
    return CellCode({f"{name} in a cell": digest for name, digest in found.items()}) if found else None
