"""Which files differ between two copies of code, whichever way each is laid out."""

from __future__ import annotations

import collections
import typing as tp

from .rules import PACKAGES

Fingerprints: tp.TypeAlias = tp.Mapping[str, str]
"""By the name of each file in the copy: its SHA-256, with " x" if it can be executed, or "-> target" of a link."""


def differing_files(old: Fingerprints, new: Fingerprints) -> list[str]:
    """The files that are not the same in both copies.

    A package that only one of the copies has is compared with the files in its place in the project of the other. If
    there are none, it does not count: the other launch did not import it.
    """
    common = {_part(name) for name in old} & {_part(name) for name in new}
    before, after = _renamed_as_in(new, old), _renamed_as_in(old, new)
    names = {name for name in {*before, *after} if _part(name) in common} | (before.keys() & after.keys())
    return sorted(name for name in names if before.get(name) != after.get(name))


def _part(name: str) -> str:
    """The part of a copy that a file is in: a package from outside of the project, or "" for the project."""
    return "/".join(name.split("/", 2)[:2]) if name.startswith(f"{PACKAGES}/") else ""


def _renamed_as_in(other: Fingerprints, files: Fingerprints) -> dict[str, str]:
    """The files of a copy; those of a package that the other copy has in its project, by their names there."""
    parts = {_part(name) for name in other} | {""}
    project: dict[str, list[str]] = collections.defaultdict(list)
    for name in other:
        if not _part(name):
            project[name.rpartition("/")[2]].append(name)
    renamed = {}
    for name, fingerprint in files.items():
        if _part(name) not in parts:
            inside = name.split("/", 2)[2]
            places = [place for place in project[name.rpartition("/")[2]] if f"/{place}".endswith(f"/{inside}")]
            name = min(places, key=lambda place: (place.count("/"), place), default=name)
        renamed[name] = fingerprint
    return renamed
