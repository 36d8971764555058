"""Snapshots of code: what jobs import, as it was when they were launched.

selection = select_sources(["auto"], started_from, rules)          # what is to be copied
manifest = make_manifest(selection.sources, cache, rules)          # as it is now, and its digest
snapshot = take_snapshot(selection, cache, rules, known=manifest)  # <cache>/code/<digest>
import_from_copy(snapshot)                                         # in a job: import from there
"""

from __future__ import annotations

import importlib
import typing as tp

from .listing import list_files
from .manifest import Manifest, changed_files, make_manifest, read_manifest
from .rules import AUTO, Rules
from .selection import LoadedFiles, Selection, automatic_sources, loaded_files, script_sources, select_sources
from .snapshot import Snapshot, Sources
from .writing import check_place, take_snapshot

if tp.TYPE_CHECKING:
    from .importer import forget_originals, import_from_copy
    from .listing import check_committed

__all__ = [
    "AUTO",
    "LoadedFiles",
    "Manifest",
    "Rules",
    "Selection",
    "Snapshot",
    "Sources",
    "automatic_sources",
    "changed_files",
    "check_committed",
    "check_place",
    "forget_originals",
    "import_from_copy",
    "list_files",
    "loaded_files",
    "make_manifest",
    "read_manifest",
    "script_sources",
    "select_sources",
    "take_snapshot",
]


# a launch that finds everything needs none of these
_LAZY = {"check_committed": ".listing", "forget_originals": ".importer", "import_from_copy": ".importer"}


def __getattr__(name: str) -> tp.Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
