"""Which files differ between two copies of code, whichever way each is laid out."""

from __future__ import annotations

import collections
import typing as tp

from .rules import PACKAGES

Fingerprints: tp.TypeAlias = tp.Mapping[str, str]
"""By the name of each file in the copy: its SHA-256, with " x" if it can be executed, or "-> target" of a link."""


def differing_files(old: Fingerprints, new: Fingerprints) -> list[str]:
    """The files that are not the same in both copies.

    A package that only one of the copies has is compared with the files in its place in the project of the other: those
    that both have. If there are none, it does not count: the other launch did not import it.
    """
    return CopyComparison(old, new).differing


class CopyComparison:
    """Two copies of code: which files are ``differing``, and the files of each ``before`` and ``after``.

    A file that is in a package of one copy, and in the project of the other, has the name in the project.
    """

    def __init__(self, old: Fingerprints, new: Fingerprints) -> None:
        common = {_part(name) for name in old} & {_part(name) for name in new}
        self.old_names, new_names = _names_as_in(new, old), _names_as_in(old, new)
        self.before = before = {self.old_names.get(name, name): fingerprint for name, fingerprint in old.items()}
        self.after = after = {new_names.get(name, name): fingerprint for name, fingerprint in new.items()}
        lacking = _outside_packages(before.keys() - after.keys(), new_names)
        added = _outside_packages(after.keys() - before.keys(), self.old_names)
        changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
        self.differing = sorted(changed | {name for name in lacking | added if _part(name) in common})


def _part(name: str) -> str:
    """The part of a copy that a file is in: a package from outside of the project, or "" for the project."""
    return "/".join(name.split("/", 2)[:2]) if name.startswith(f"{PACKAGES}/") else ""


def _names_as_in(other: Fingerprints, files: Fingerprints) -> dict[str, str]:
    """The names in the project of the other copy for the files of packages that only this one has."""
    parts = {_part(name) for name in other} | {""}
    project: dict[str, list[str]] = collections.defaultdict(list)
    for name in other:
        if not _part(name):
            project[name.rpartition("/")[2]].append(name)
    renamed = {}
    for name in files:
        if _part(name) not in parts:
            inside = _inside(name)
            places = [place for place in project[name.rpartition("/")[2]] if f"/{place}".endswith(f"/{inside}")]
            if places:
                renamed[name] = min(places, key=lambda place: (place.count("/"), place))
    return renamed


def _inside(name: str) -> str:
    """The name of a file of a package below the folder that the package was found in."""
    return name.split("/", 2)[2]


def _outside_packages(names: tp.Collection[str], places: tp.Mapping[str, str]) -> set[str]:
    """The names that are in none of the packages whose files have these places in the project."""
    insides = ((_inside(name), place) for name, place in places.items())
    packages = {place.removesuffix(inside) + inside.partition("/")[0] for inside, place in insides}
    return {name for name in names if not any(f"{name}/".startswith(f"{package}/") for package in packages)}


# -- the name of all code of a result ----------------------------------------------------------------------------------

CELLS = "cells-"


def join_digests(files: str | None, cells: str | None) -> str | None:
    """The name of a result's code: the digest of the copy of the files, that of the cells, or both with a ``+``."""
    return "+".join(filter(None, [files, cells])) or None


def split_digests(code: str) -> tuple[str | None, str | None]:
    """The inverse of `join_digests`.

    >>> split_digests("1f+cells-2e"), split_digests("cells-2e"), split_digests("1f")
    (('1f', 'cells-2e'), (None, 'cells-2e'), ('1f', None))
    """
    files, _, last = code.rpartition("+")
    return (files or None, last) if last.startswith(CELLS) else (code, None)
