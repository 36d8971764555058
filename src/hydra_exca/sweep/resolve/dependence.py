"""Which interpolations of a config cannot differ between jobs, told from their texts alone."""

from __future__ import annotations

import re
import typing as tp

from hydra_exca.sweep.configs.tree import Path

_KEYS = re.compile(r"(?<!\\)\$\{(\.*)([A-Za-z_]\w*(?:\.\w+)*)\}")
_CALL = re.compile(r"(?<!\\)\$\{([A-Za-z_][\w.]*):([^${}\\\"'\[\](),]*(?:,[^${}\\\"'\[\]()]*)?)\}")


class Dependence:
    """Says of interpolations what in the config they can read, where a look at the text is enough for that.

    ``leaves`` is the config by path. ``steady`` tells of a resolver and the text of its arguments whether it gives the
    same for all jobs.
    """

    def __init__(self, leaves: tp.Mapping[Path, tp.Any], steady: tp.Callable[[str, str], bool]) -> None:
        self._leaves = {tuple(map(str, path)): value for path, value in leaves.items()}
        is_whole = len(self._leaves) == len(leaves)  # a dict may have both 1 and "1"
        self._is_plain = is_whole and all(isinstance(key, (str, int)) for path in leaves for key in path)
        self._steady = steady

    def is_independent(self, path: Path, changed: tp.Collection[Path]) -> bool:
        """Whether what is at ``path`` resolves to the same, whatever is at the ``changed`` paths."""
        read = self._paths_read(tuple(map(str, path)), set()) if self._is_plain else None
        return read is not None and not any(_overlap(tuple(map(str, each)), one) for each in changed for one in read)

    def _paths_read(self, path: Path, seen: set[Path]) -> set[Path] | None:
        """All paths that are read on the way, or above or below which something is; None if that cannot be told."""
        if path in seen:
            return set()
        seen.add(path)
        text = self._leaves.get(path)
        found = {path}
        for target in self._targets(text, path) if isinstance(text, str) and "${" in text else ():
            if target is None:
                return None
            found.add(target)
            for leaf in [leaf for leaf in self._leaves if _overlap(leaf, target)]:
                below = self._paths_read(leaf, seen)
                if below is None:
                    return None
                found |= below
        return found

    def _targets(self, text: str, path: Path) -> tp.Iterator[Path | None]:
        rest = text
        for match in _KEYS.finditer(text):
            dots, keys = match.groups()
            base = path[: len(path) - len(dots)] if dots else ()
            yield None if len(dots) > len(path) else (*base, *keys.split("."))
            rest = rest.replace(match[0], "", 1)
        for match in _CALL.finditer(text):
            if self._steady(match[1], match[2]):
                rest = rest.replace(match[0], "", 1)
        if "${" in rest or "\\" in text:
            yield None


def _overlap(one: Path, other: Path) -> bool:
    """Whether one is the other, or above or below it."""
    return all(a == b for a, b in zip(one, other, strict=False))
