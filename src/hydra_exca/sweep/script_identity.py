"""What the script knows beside the configuration, as part of the identity, and as jobs get it."""

from __future__ import annotations

import dataclasses
import os
import sys
import typing as tp

from hydra_exca import script
from hydra_exca.code.selection import script_file
from hydra_exca.errors import ConfigError, Problem
from hydra_exca.identity import carried, script_state
from hydra_exca.identity.redaction import Redaction
from hydra_exca.identity.scalars import Json
from hydra_exca.identity.script_state import Change
from hydra_exca.store import pickles

from .configs.tree import copy_tree
from .exclusions import Exclusions, with_advice
from .job.script_changes import JobChange

_PREFIX = "script."
_REASON = "The script sets it below its guard and the task function reads it"
_ARGUMENTS = "sys.argv"
_DELETED = {"~deleted": True}


@dataclasses.dataclass(frozen=True)
class ScriptIdentity:
    """``counting`` are canonical forms by name, ``changes`` what jobs get, and ``excluded`` names that do not count.

    ``matched`` are the patterns that leave some of them out.
    """

    counting: dict[str, Json] = dataclasses.field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    excluded: frozenset[str] = frozenset()
    matched: frozenset[str] = frozenset()

    def shown(self, redaction: Redaction) -> str:
        """What counts, by name; the arguments as they were given, but for secrets."""
        arguments = redaction.redact_arguments(tp.cast("list[str]", self.counting.get(_ARGUMENTS, [])))
        names = [name for name in self.counting if name != _ARGUMENTS]
        return ", ".join([*names, *([f"{_ARGUMENTS} ({' '.join(arguments)})"] if arguments else [])])

    def changes_for_jobs(self) -> list[JobChange]:
        """What jobs change after they have loaded the script.

        Without what is excluded and cannot be pickled. Raises ConfigError that names what else cannot.
        """
        problems: list[Problem] = []
        changes: list[JobChange] = []
        for change in self.changes:
            try:
                pickles.pickle_value(change.value, "it", into_main=True)
            except ConfigError as error:
                if change.name not in self.excluded:
                    problems.append(with_advice(Problem(error.message, change.name), _PREFIX, _REASON))
            else:
                changes.append((*change.place, change.value, change.is_deleted))
        if problems:
            raise ConfigError("Jobs cannot get what the script has set below its guard; nothing was run.", problems)
        return changes


def read_script_identity(function: tp.Any, overrides: tp.Collection[str], patterns: tp.Sequence[str]) -> ScriptIdentity:
    """What counts now for tasks of ``function``, without what ``patterns`` leave out as ``script.<name>``.

    ``overrides`` are those that Hydra was given. Raises ConfigError for what has no canonical form.
    """
    exclusions = Exclusions(_PREFIX, patterns)
    changes = script_state.read_changes(function, copy_tree)
    excluded = frozenset(filter(exclusions.excludes, [_ARGUMENTS, *(each.name for each in changes)]))
    try:
        values = {each.name: each.value for each in changes if each.has_value() and not each.is_deleted}
        counting = carried.value_forms(values, exclusions.excludes, copy_tree)
    except ConfigError as error:
        problems = [with_advice(problem, _PREFIX, _REASON) for problem in error.problems]
        raise ConfigError("What the script sets below its guard has no identity; nothing was run.", problems) from None
    counting |= {each.name: _DELETED for each in changes if each.is_deleted and each.name not in excluded}
    arguments = unseen_arguments(overrides)
    if arguments and _ARGUMENTS not in excluded:
        counting[_ARGUMENTS] = list(arguments)
    return ScriptIdentity(counting, tuple(changes), excluded, frozenset(exclusions.matched))


def unseen_arguments(overrides: tp.Collection[str]) -> list[str]:
    """The arguments of this program that Hydra was not given: the script has read them itself."""
    original, left = script.original_arguments(), sys.argv[1:]
    if original is None:
        return []
    typed = [each for each in overrides if not each.startswith(("hydra.mode=", "~"))]  # some that Hydra and we add
    is_hydras = not typed or any(each in left for each in typed)
    main_file = getattr(sys.modules["__main__"], "__file__", None) or "-c"
    is_its_own = os.path.basename(main_file) == os.path.basename(sys.argv[0])
    if script_file() is None and not (is_hydras and is_its_own):  # a test runner's, say
        return []
    if not is_hydras:  # it was called with other overrides, not with a command line
        return original
    unseen = []
    for argument in original:
        if argument in left:
            left.remove(argument)
        else:
            unseen.append(argument)
    return unseen
