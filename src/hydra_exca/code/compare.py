"""The files in which two copies of code differ, whichever way each is laid out."""

from __future__ import annotations

import collections
import dataclasses
import typing as tp

from .rules import PACKAGES

Fingerprints: tp.TypeAlias = tp.Mapping[str, str]
"""By the name of each file in the copy: its SHA-256, with " x" if it can be executed, or "-> target" of a link."""


def differing_files(old: Fingerprints, new: Fingerprints) -> list[str]:
    """The files that are not the same in both.

    A package that only one of them has says nothing: the other launch did not import it. If that has it inside of its
    project, the files that are in both are compared.
    """
    before, after = _Layout.from_fingerprints(old), _Layout.from_fingerprints(new)
    common = [name for name in {*before.packages, *after.packages} if before.has(name) and after.has(name)]
    names = {file for name in common for file in _differing_names(before.packages[name], after.packages[name])}
    for one, other in ((before, after), (after, before)):
        for package in [files for name, files in one.packages.items() if not other.has(name)]:
            names |= {
                there
                for here, there in other.pair_package(package)
                if one.fingerprints[here] != other.fingerprints[there]
            }
    if before.project and after.project:
        names |= _differing_names(before.unpaired, after.unpaired)
    return sorted(names)


@dataclasses.dataclass
class _Layout:
    """A copy in parts: the project, and each package from outside of it, as what is in its files.

    ``unpaired`` is what of the project was not taken for a package.
    """

    fingerprints: Fingerprints
    project: frozenset[str]
    packages: dict[str, dict[str, str]]
    unpaired: dict[str, str]

    @classmethod
    def from_fingerprints(cls, fingerprints: Fingerprints) -> _Layout:
        packages: dict[str, dict[str, str]] = collections.defaultdict(dict)
        unpaired: dict[str, str] = {}
        for name, fingerprint in fingerprints.items():
            top, _, rest = name.partition("/")
            (packages[rest.partition("/")[0]] if top == PACKAGES else unpaired)[name] = fingerprint
        return cls(fingerprints, frozenset(unpaired), dict(packages), unpaired)

    def has(self, package: str) -> bool:
        return package in self.packages

    def pair_package(self, package: tp.Iterable[str]) -> list[tuple[str, str]]:
        """The files of a package, each with the file of the project in its place; both are paired from now on."""
        rests = {name.split("/", 2)[2]: name for name in package}
        prefix = self._prefix(rests)
        if prefix is None:
            return []
        pairs = [(name, prefix + rest) for rest, name in rests.items() if prefix + rest in self.project]
        tops = {prefix + rest.partition("/")[0] for rest in rests}
        for name in [name for name in self.unpaired if name in tops or any(name.startswith(f"{top}/") for top in tops)]:
            del self.unpaired[name]
        return pairs

    def _prefix(self, rests: tp.Iterable[str]) -> str | None:
        """The folder of the project that has most of these files, with a slash; the outermost one of several."""
        by_name: dict[str, list[str]] = collections.defaultdict(list)
        for name in self.project:
            by_name[name.rpartition("/")[2]].append(name)
        counts = collections.Counter(
            name.removesuffix(rest)
            for rest in rests
            for name in by_name[rest.rpartition("/")[2]]
            if f"/{name}".endswith(f"/{rest}")
        )
        return min(counts, key=lambda prefix: (-counts[prefix], prefix.count("/"), prefix), default=None)


def _differing_names(old: Fingerprints, new: Fingerprints) -> set[str]:
    return {name for name in {*old, *new} if old.get(name) != new.get(name)}
