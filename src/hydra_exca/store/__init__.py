"""Entries, claims and items on a file system."""

from .cache_folder import CacheFolder, FactoryFolder
from .claims import Claim, ClaimState, describe_owner
from .entry import Entry, Outcome, check_error, check_identity, is_committing
from .items.reader import Items, ItemWriter

__all__ = [
    "CacheFolder",
    "Claim",
    "ClaimState",
    "Entry",
    "FactoryFolder",
    "ItemWriter",
    "Items",
    "Outcome",
    "check_error",
    "check_identity",
    "describe_owner",
    "is_committing",
]
