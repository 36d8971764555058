"""What other code than the present has computed, or computes just now: which tasks, and what is said of them."""

from __future__ import annotations

import dataclasses
import functools
import typing as tp

from hydra_exca.errors import CacheError
from hydra_exca.status import Mode, OnCodeChange, Status
from hydra_exca.store import Claim
from hydra_exca.text import counted

from . import plan
from .lookup import LookupResult
from .plan import Action
from .settings import Settings

_SHOWN_FILES = 5
_SHOWN_TASKS = 20
_CHOICES = (
    "hydra.launcher.on_code_change=rerun computes them anew, another hydra.launcher.version keeps both, "
    "hydra.launcher.on_code_change=ignore says nothing"
)
_RUNNING_CHOICES = (
    "hydra.launcher.mode=force ends what runs and computes it with the present code, another hydra.launcher.version "
    "keeps both, hydra.launcher.on_code_change=ignore says nothing"
)
_KINDS = (
    ("stored result", "stored results"),
    ("stored failure", "stored failures"),
    ("running task", "running tasks"),
)
_RESULT, _FAILURE, _RUNNING = range(3)


Changes = tp.Callable[[str], list[str] | None]


@dataclasses.dataclass(frozen=True)
class CodeCase:
    """One task of other code, as the launch found it: its standing goes on to what becomes of it."""

    standing: LookupResult
    code: str
    kind: int


@dataclasses.dataclass(frozen=True)
class CodeChanges:
    """What of other code a launch would use, or computes anew for that reason; as text, all there is to say of it."""

    cases: tuple[CodeCase, ...]
    settings: Settings
    changes: Changes
    is_rerun: bool

    def __str__(self) -> str:
        if self.is_rerun:
            return f"{self._found()}; {self._rerun()}"
        refused = "; on_code_change=error refuses that" if self.is_refused else ""
        joined = f"; what runs is waited for{', too' if self._stored else ''}" if self._running else ""
        return f"{self._found()}{refused or joined}. {self._choices()}"

    @property
    def is_refused(self) -> bool:
        """Whether the launch is not to use it."""
        return self.settings.on_code_change is OnCodeChange.ERROR

    def but(self, is_told: tp.Callable[[LookupResult], bool]) -> CodeChanges | None:
        """What was not told before; None if that is nothing."""
        left = tuple(case for case in self.cases if not is_told(case.standing))
        return dataclasses.replace(self, cases=left, is_rerun=self.is_rerun and _has_stored(left)) if left else None

    def error(self, name_of: tp.Callable[[LookupResult], str], nothing: str = "Nothing") -> CacheError:
        """The refusal, with the tasks by name. ``nothing`` says what was not run."""
        standings = [case.standing for case in self.cases]
        shown = [f"  {name_of(standing)}: {standing.entry_uid}" for standing in standings[:_SHOWN_TASKS]]
        more = len(standings) - len(shown)
        if more:
            shown.append(f"  and {more} more")
        head = f"{nothing} was run, as on_code_change=error: {self._found()}"
        return CacheError("\n".join([head, *shown, self._choices()]))

    @property
    def _running(self) -> int:
        return sum(case.kind == _RUNNING for case in self.cases)

    @property
    def _stored(self) -> int:
        return len(self.cases) - self._running

    def _found(self) -> str:
        """How many there are, and where the code differs."""
        told = [counted(count, *names) for kind, names in enumerate(_KINDS) if (count := self._count(kind))]
        verb = "comes" if len(self.cases) == 1 else "come"
        codes = dict.fromkeys(case.code for case in self.cases)
        several = f"{len(codes)} other states of the code" if len(codes) > 1 else "other code"
        differing = _differing(map(self.changes, codes))
        return f"{_listed(told)} {verb} from {several} than the present ({differing})"

    def _count(self, kind: int) -> int:
        return sum(case.kind == kind for case in self.cases)

    def _rerun(self) -> str:
        if self._running:
            return "what is stored is computed anew, what runs is waited for"
        return f"{'it is' if len(self.cases) == 1 else 'they are'} computed anew"

    def _choices(self) -> str:
        where = "In another mode than read-only " if self.settings.mode is Mode.READ_ONLY else ""
        return f"{where}{_CHOICES if self._stored else _RUNNING_CHOICES}"


class CodeCheck:
    """The present code, and how that of other digests differs from it; each is looked up once, when that is needed.

    ``running`` gives the digest of the code that the job of a claim runs from.
    """

    def __init__(self, settings: Settings, running: tp.Callable[[Claim], str | None] = lambda claim: None) -> None:
        self._settings = settings
        self._running = running
        self._changes: Changes = functools.cache(settings.code_changes)

    def mode(self, standing: LookupResult) -> Mode:
        """The mode for a task: that of the launch, unless what is stored is to be computed anew."""
        mode, on_change = self._settings.mode, self._settings.on_code_change
        code = None if standing.outcome is None else standing.outcome.code
        if on_change is not OnCodeChange.RERUN or not self._has_changed(code):
            return mode
        return plan.mode_for_other_code(standing.status, mode, on_change)

    def stale(self, standings: tp.Iterable[LookupResult]) -> CodeChanges | None:
        """What comes from other code of all that was looked up; None if nothing does, or is to be said of it."""
        if self._settings.on_code_change is OnCodeChange.IGNORE:
            return None
        cases = tuple(case for standing in standings if (case := self._case(standing)) is not None)
        is_rerun = any(case.standing.action is Action.RUN for case in cases)
        return CodeChanges(cases, self._settings, self._changes, is_rerun) if cases else None

    def unknown(self, standings: tp.Iterable[LookupResult]) -> list[LookupResult]:
        """Those that are used as they are though one has chosen about other code, which cannot be told of them."""
        if self._settings.on_code_change not in (OnCodeChange.ERROR, OnCodeChange.RERUN):
            return []
        used = [standing for standing in standings if standing.outcome and _is_used(standing)]
        return [each for each in used if None in (self._settings.code, each.outcome.code if each.outcome else None)]

    def why_unknown(self, count: int) -> str:
        """What to say of those."""
        results = counted(count, "stored result", "stored results")
        of_it, used = ("it", "it is used as it is") if count == 1 else ("them", "they are used as they are")
        chosen = f"on_code_change={self._settings.on_code_change}"
        if self._settings.code is None:
            why = f"whether other code has computed {of_it}, as no copy of the present code is made"
        else:
            why = f"which code has computed {of_it}"
        return f"{chosen}, but of {results} it cannot be told {why}: {used}"

    def _case(self, standing: LookupResult) -> CodeCase | None:
        """What a task is, if other code has computed it, or does so just now."""
        code, kind = None, _RUNNING
        if standing.action is Action.JOIN:
            code = None if standing.claim is None else self._running(standing.claim)
        elif standing.outcome is not None and _is_concerned(standing, self._settings.mode):
            code, kind = standing.outcome.code, _FAILURE if standing.status is Status.FAILED else _RESULT
        return CodeCase(standing, code, kind) if code is not None and self._has_changed(code) else None

    def _has_changed(self, code: str | None) -> bool:
        """Whether it is other code: another digest may be that of the same files."""
        present = self._settings.code
        return None not in (code, present) and code != present and self._changes(str(code)) != []


def _has_stored(cases: tp.Iterable[CodeCase]) -> bool:
    return any(case.kind != _RUNNING for case in cases)


def _is_used(standing: LookupResult) -> bool:
    return standing.action in (Action.REUSE, Action.RAISE)


def _is_concerned(standing: LookupResult, mode: Mode) -> bool:
    """Whether what is stored is used, or is not since it is to be computed anew, which the launch's mode is not for."""
    return _is_used(standing) or (standing.action is Action.RUN and standing.mode is Mode.FORCE is not mode)


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
