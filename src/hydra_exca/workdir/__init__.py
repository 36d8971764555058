"""Snapshots of code: what jobs import, as it was when they were launched.

wanted = find(["auto"], started_from, rules)      # what is to be copied
tree = look(wanted.sources, cache, rules)         # as it is now, and its digest
copy = snapshot(wanted, cache, rules, known=tree) # <cache>/code/<digest>
prefer(copy)                                      # in a job: import from there
"""

from .commits import committed
from .imports import forget_originals, prefer
from .listing import Sources, listing
from .rules import AUTO, Rules
from .snapshot import Snapshot, check_place, snapshot
from .sources import Wanted, automatic, find, loaded, script
from .tree import Tree, changed, look, manifest

__all__ = [
    "AUTO",
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
