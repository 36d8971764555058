"""In which files two copies of code differ, whichever way each is laid out."""

from __future__ import annotations

import collections
import dataclasses
import typing as tp

from .rules import PACKAGES

Told: tp.TypeAlias = tp.Mapping[str, str]
"""What is in each file, by its name in the copy."""


def differing_files(old: Told, new: Told) -> list[str]:
    """The files that are not the same in both.

    A package that only one of them has says nothing: the other launch did not import it. If that has it inside of its
    project, the files that are in both are compared.
    """
    before, after = _Layout.of(old), _Layout.of(new)
    found = [name for name in {*before.packages, *after.packages} if before.has(name) and after.has(name)]
    names = {file for name in found for file in _unlike(before.packages[name], after.packages[name])}
    for one, other in ((before, after), (after, before)):
        for package in [each for name, each in one.packages.items() if not other.has(name)]:
            names |= {there for here, there in other.take(package) if one.told[here] != other.told[there]}
    if before.project and after.project:
        names |= _unlike(before.left, after.left)
    return sorted(names)


@dataclasses.dataclass
class _Layout:
    """A copy in parts: the project, and each package from outside of it, as what is in its files.

    ``left`` is what of the project was not taken for a package.
    """

    told: Told
    project: frozenset[str]
    packages: dict[str, dict[str, str]]
    left: dict[str, str]

    @classmethod
    def of(cls, told: Told) -> _Layout:
        packages: dict[str, dict[str, str]] = collections.defaultdict(dict)
        left: dict[str, str] = {}
        for name, each in told.items():
            top, _, rest = name.partition("/")
            (packages[rest.partition("/")[0]] if top == PACKAGES else left)[name] = each
        return cls(told, frozenset(left), dict(packages), left)

    def has(self, package: str) -> bool:
        return package in self.packages

    def take(self, package: tp.Iterable[str]) -> list[tuple[str, str]]:
        """The files of a package with those of the project that are the same by their paths; these are left no more."""
        rests = {name.split("/", 2)[2]: name for name in package}
        prefix = self._prefix(rests)
        if prefix is None:
            return []
        pairs = [(name, prefix + rest) for rest, name in rests.items() if prefix + rest in self.project]
        tops = {prefix + rest.partition("/")[0] for rest in rests}
        for name in [each for each in self.left if each in tops or any(each.startswith(f"{top}/") for top in tops)]:
            del self.left[name]
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


def _unlike(old: Told, new: Told) -> set[str]:
    return {name for name in {*old, *new} if old.get(name) != new.get(name)}
