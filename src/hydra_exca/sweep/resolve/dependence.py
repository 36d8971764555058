"""Which interpolations of a config cannot differ between jobs, by their texts alone."""

from __future__ import annotations

import re
import typing as tp

from hydra_exca.sweep.configs.tree import Path

_KEYS = re.compile(r"(?<!\\)\$\{(\.*)([A-Za-z_]\w*(?:\.\w+)*)\}")
_CALL = re.compile(r"(?<!\\)\$\{([A-Za-z_][\w.]*):([^${}\\\"'\[\](),]*(?:,[^${}\\\"'\[\]()]*)?)\}")


class Dependence:
    """Finds what interpolations can read in a config, if their texts show it.

    ``leaves`` is the config by path. ``is_shared`` says of a resolver and the text of its arguments whether it gives
    all jobs the same.
    """

    def __init__(self, leaves: tp.Mapping[Path, tp.Any], is_shared: tp.Callable[[str, str], bool]) -> None:
        self._leaves = {tuple(map(str, path)): value for path, value in leaves.items()}
        is_unambiguous = len(self._leaves) == len(leaves)  # a dict may have both 1 and "1"
        self._is_plain = is_unambiguous and all(isinstance(key, (str, int)) for path in leaves for key in path)
        self._is_shared = is_shared

    def is_independent(self, path: Path, changed: tp.Collection[Path]) -> bool:
        """Whether ``path`` resolves to the same, whatever is at the ``changed`` paths."""
        read: set[Path] = set()
        if not self._is_plain or not self._collect_paths_read(tuple(map(str, path)), read):
            return False
        return not any(_overlap(tuple(map(str, one)), other) for one in changed for other in read)

    def _collect_paths_read(self, path: Path, read: set[Path]) -> bool:
        """Adds all paths from which resolving ``path`` may read; False if the texts do not show them all."""
        if path in read:
            return True
        read.add(path)
        text = self._leaves.get(path)
        for target in self._targets(text, path) if isinstance(text, str) and "${" in text else ():
            if target is None:
                return False
            leaves = [leaf for leaf in self._leaves if _overlap(leaf, target)]
            if not all(self._collect_paths_read(leaf, read) for leaf in leaves):
                return False
            read.add(target)
        return True

    def _targets(self, text: str, path: Path) -> tp.Iterator[Path | None]:
        """The paths that a text refers to, and None if it refers to anything else."""
        rest = text
        for match in _KEYS.finditer(text):
            dots, keys = match.groups()
            base = path[: len(path) - len(dots)] if dots else ()
            yield None if len(dots) > len(path) else (*base, *keys.split("."))
            rest = rest.replace(match[0], "", 1)
        for match in _CALL.finditer(text):
            if self._is_shared(match[1], match[2]):
                rest = rest.replace(match[0], "", 1)
        if "${" in rest or "\\" in text:
            yield None


def _overlap(one: Path, other: Path) -> bool:
    """Whether one is the other, or above or below it."""
    return all(a == b for a, b in zip(one, other, strict=False))
