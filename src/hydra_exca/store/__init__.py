"""Entries and claims on a file system."""

from .claims import Claim, ClaimState
from .entries import Entry, Outcome, Standing
from .folder import CacheFolder, Shelf

__all__ = ["CacheFolder", "Claim", "ClaimState", "Entry", "Outcome", "Shelf", "Standing"]
