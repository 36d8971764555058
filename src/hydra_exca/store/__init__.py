"""Entries, claims and items on a file system."""

from .claims import Claim, ClaimState
from .entries import Entry, Outcome, Standing, is_committing
from .folder import CacheFolder, Shelf
from .items import Items, ItemWriter

__all__ = [
    "CacheFolder",
    "Claim",
    "ClaimState",
    "Entry",
    "ItemWriter",
    "Items",
    "Outcome",
    "Shelf",
    "Standing",
    "is_committing",
]
