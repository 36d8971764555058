"""Snapshots of code: what jobs import, as it was when they were launched.

wanted = find(["auto"], started_from, rules)      # what is to be copied
tree = look(wanted.sources, cache, rules)         # as it is now, and its digest
copy = snapshot(wanted, cache, rules, known=tree) # <cache>/code/<digest>
prefer(copy)                                      # in a job: import from there
"""

from __future__ import annotations

import importlib
import typing as tp

from .listing import Sources, listing
from .rules import AUTO, Rules
from .snapshot import Snapshot, check_place, snapshot
from .sources import Loaded, Wanted, automatic, find, loaded, script
from .tree import Tree, changed, look, manifest

if tp.TYPE_CHECKING:
    from .commits import committed
    from .imports import forget_originals, prefer

__all__ = [
    "AUTO",
    "Loaded",
    "Rules",
    "Snapshot",
    "Sources",
    "Tree",
    "Wanted",
    "automatic",
    "changed",
    "check_place",
    "committed",
    "find",
    "forget_originals",
    "listing",
    "loaded",
    "look",
    "manifest",
    "prefer",
    "script",
    "snapshot",
]


# a launch that finds everything needs none of these
_LAZY = {"committed": ".commits", "forget_originals": ".imports", "prefer": ".imports"}


def __getattr__(name: str) -> tp.Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
