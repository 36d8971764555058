"""Stored outcomes that other code than the present has computed: which they are, and what is said of them."""

from __future__ import annotations

import dataclasses
import functools
import typing as tp

from . import plan
from .errors import CacheError
from .plan import Action
from .settings import Settings
from .status import Mode, OnCodeChange, Status
from .store import Outcome
from .survey import Standing, counted

_SHOWN_FILES = 5
_SHOWN_TASKS = 20
_CHOICES = (
    "hydra.launcher.on_code_change=rerun computes them anew, another hydra.launcher.version keeps both, "
    "hydra.launcher.on_code_change=ignore says nothing"
)


Changes = tp.Callable[[str], list[str] | None]


@dataclasses.dataclass(frozen=True)
class Stale:
    """What of other code a launch would use, or computes anew for that reason; as text, all there is to say of it.

    It is as the launch found it: the standings go on to what becomes of them.
    """

    standings: tuple[Standing, ...]
    settings: Settings
    changes: Changes
    codes: tuple[str, ...]
    failures: int
    is_rerun: bool

    def __str__(self) -> str:
        if self.is_rerun:
            return f"{self._found()}; {'it is' if len(self.standings) == 1 else 'they are'} computed anew"
        refused = "; on_code_change=error refuses that" if self.is_refused else ""
        return f"{self._found()}{refused}. {self._choices()}"

    @property
    def is_refused(self) -> bool:
        """Whether the launch is not to use it."""
        return self.settings.on_code_change is OnCodeChange.ERROR

    def error(self, name_of: tp.Callable[[Standing], str]) -> CacheError:
        """The refusal, with the tasks by name."""
        shown = [f"  {name_of(standing)}: {standing.entry_uid}" for standing in self.standings[:_SHOWN_TASKS]]
        more = len(self.standings) - len(shown)
        if more:
            shown.append(f"  and {more} more")
        head = f"Nothing was run, as on_code_change=error: {self._found()}"
        return CacheError("\n".join([head, *shown, self._choices()]))

    def _found(self) -> str:
        """How many there are, and where the code differs."""
        results = len(self.standings) - self.failures
        counts = [(results, "stored result", "stored results"), (self.failures, "stored failure", "stored failures")]
        told = " and ".join(counted(*count) for count in counts if count[0])
        verb = "comes" if len(self.standings) == 1 else "come"
        several = f"{len(self.codes)} other states of the code" if len(self.codes) > 1 else "other code"
        return f"{told} {verb} from {several} than the present ({_differing(map(self.changes, self.codes))})"

    def _choices(self) -> str:
        where = "In another mode than read-only " if self.settings.mode is Mode.READ_ONLY else ""
        return f"{where}{_CHOICES}"


class Code:
    """The present code, and how that of other digests differs from it; each is looked up once, when that is needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._changes: Changes = functools.cache(settings.code_changes)

    def mode(self, standing: Standing) -> Mode:
        """The mode for a task: that of the launch, unless what is stored is to be computed anew."""
        mode, on_change = self._settings.mode, self._settings.on_code_change
        if on_change is not OnCodeChange.RERUN or not self._has_changed(standing.outcome):
            return mode
        return plan.mode_for_other_code(standing.status, mode, on_change)

    def stale(self, standings: tp.Iterable[Standing]) -> Stale | None:
        """What comes from other code of all that was looked up; None if nothing does, or is to be said of it."""
        if self._settings.on_code_change is OnCodeChange.IGNORE:
            return None
        concerned = [s for s in standings if _is_concerned(s, self._settings.mode) and self._has_changed(s.outcome)]
        return _stale(concerned, self._settings, self._changes) if concerned else None

    def _has_changed(self, outcome: Outcome | None) -> bool:
        """Whether an outcome comes from other code: another digest may be that of the same files."""
        code, present = None if outcome is None else outcome.code, self._settings.code
        return None not in (code, present) and code != present and self._changes(str(code)) != []


def _stale(concerned: tp.Sequence[Standing], settings: Settings, changes: Changes) -> Stale:
    return Stale(
        tuple(concerned),
        settings,
        changes,
        codes=tuple(dict.fromkeys(str(standing.outcome.code) for standing in concerned if standing.outcome)),
        failures=sum(standing.status is Status.FAILED for standing in concerned),
        is_rerun=any(standing.action is Action.RUN for standing in concerned),
    )


def _is_concerned(standing: Standing, mode: Mode) -> bool:
    """Whether what is stored is used, or is not since it is to be computed anew, which the launch's mode is not for."""
    used = standing.action in (Action.REUSE, Action.RAISE)
    return used or (standing.action is Action.RUN and standing.mode is Mode.FORCE is not mode)


def _differing(changes: tp.Iterable[tp.Sequence[str] | None]) -> str:
    """Which files differ, of all the codes together.

    >>> _differing([["a.py"], ["b.py"]]), _differing([["a.py"], None]), _differing([None])
    ('a.py and b.py differ', 'a.py differs, and maybe others', 'in which files is not known')
    """
    known = list(changes)
    names = sorted({name for change in known for name in change or ()})
    if not names:
        return "in which files is not known"
    more = "" if all(known) else ", and maybe others"
    return f"{_listed(names)} {'differs' if len(names) == 1 else 'differ'}{more}"


def _listed(names: tp.Sequence[str]) -> str:
    """A few names, and how many more there are.

    >>> _listed(["a"]), _listed("abc"), _listed("abcdefgh")
    ('a', 'a, b and c', 'a, b, c, d, e and 3 more')
    """
    if len(names) == 1:
        return names[0]
    shown = list(names[:_SHOWN_FILES])
    last = f"{len(names) - len(shown)} more" if len(names) > len(shown) else shown.pop()
    return f"{', '.join(shown)} and {last}"
