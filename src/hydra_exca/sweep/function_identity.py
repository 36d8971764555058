"""The task function as the identity knows it: its dotted name, and what it carries."""

from __future__ import annotations

import dataclasses
import typing as tp

from hydra_exca.errors import ConfigError
from hydra_exca.identity import carried, cells, uid
from hydra_exca.identity.scalars import Json
from hydra_exca.identity.uid import CARRIED, OF_SCRIPT, Identity

from . import older_rules
from .configs.tree import copy_tree
from .exclusions import Exclusions, with_advice
from .script_identity import ScriptIdentity

_PREFIX = "function."


@dataclasses.dataclass(frozen=True)
class FunctionIdentity:
    """``factory`` is its dotted name, ``carried`` what it carries, in canonical form.

    ``matched`` are the patterns that leave some of that out, ``older`` are name and values by the first rules.
    ``script`` is what the script knows beside the configuration.
    """

    factory: str
    carried: dict[str, Json] = dataclasses.field(default_factory=dict)
    matched: frozenset[str] = frozenset()
    older: tuple[str, dict[str, Json]] | None = None
    script: ScriptIdentity = dataclasses.field(default_factory=ScriptIdentity)

    def counting(self) -> dict[str, Json]:
        """What is part of the identity beside the configuration."""
        parts: dict[str, dict[str, Json]] = {CARRIED: self.carried, OF_SCRIPT: self.script.counting}
        return {key: values for key, values in parts.items() if values}

    def older_identities(self, identity: Identity) -> tp.Iterator[Identity]:
        """The identities that a task had by earlier rules: nothing of the script counted, and less of the function."""
        present = self.factory, self.carried
        if self.script.counting:
            yield self._identity_by(*present, identity)
        if self.older is not None and self.older != present:
            yield self._identity_by(*self.older, identity)

    def _identity_by(self, name: str, values: dict[str, Json], identity: Identity) -> Identity:
        def replaced(fields: dict[str, Json]) -> dict[str, Json]:
            others = {key: value for key, value in fields.items() if key not in (CARRIED, OF_SCRIPT)}
            return {**others, CARRIED: values} if values else others

        return uid.make_identity(
            name + identity.factory.removeprefix(self.factory),
            identity.version,
            replaced(identity.fields),
            replaced(identity.full),
            identity.label,
            identity.excluded,
            identity.redaction,
        )


def read_function_identity(function: tp.Any, patterns: tp.Sequence[str]) -> FunctionIdentity:
    """The identity of ``function``. ``patterns`` leave out what it carries as ``function.<name>``.

    Read it once for a sweep: tasks that run in this process may change what it carries. Raises ConfigError for what has
    no canonical form.
    """
    exclusions = Exclusions(_PREFIX, patterns)
    try:
        values = carried.carried_values(function, exclusions.excludes, copy_tree)
    except ConfigError as error:
        problems = [with_advice(problem, _PREFIX, "The task function carries it") for problem in error.problems]
        raise ConfigError("", problems) from None
    name, anchors = carried.factory_name(function), cells.anchors()
    if anchors is not None:
        values |= anchors.captured(name, [function])
    return FunctionIdentity(name, values, frozenset(exclusions.matched), _older(function))


def _older(function: tp.Any) -> tuple[str, dict[str, Json]] | None:
    try:
        return older_rules.older_name_and_values(function)
    except Exception:  # noqa: BLE001  what the first rules could not read has no older results
        return None
