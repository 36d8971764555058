"""Names that ``hydra.launcher.exclude_from_uid`` leaves out below a prefix: ``function.<name>``, ``script.<name>``."""

from __future__ import annotations

import typing as tp

from hydra_exca.errors import Problem
from hydra_exca.globs import matches_key


class Exclusions:
    """Tells which names are left out, and keeps in ``matched`` the patterns that leave any of them out."""

    def __init__(self, prefix: str, patterns: tp.Iterable[str]) -> None:
        self._prefix = prefix
        self._patterns = [pattern for pattern in patterns if pattern.startswith(prefix)]
        self.matched: set[str] = set()

    def excludes(self, name: str) -> bool:
        fitting = [pattern for pattern in self._patterns if matches_key(self._prefix + name, [pattern])]
        self.matched.update(fitting)
        return bool(fitting)


def with_advice(problem: Problem, prefix: str, reason: str) -> Problem:
    """The problem of a name below ``prefix``, with the ``reason`` why it counts, and the option that leaves it out."""
    name = prefix + problem.key
    message = (
        f"{problem.message}. {reason}, so it may change the result. If it does not, leave it out: "
        f"hydra.launcher.exclude_from_uid=[{name}]"
    )
    return Problem(message, name)
