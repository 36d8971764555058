"""Stored results and running tasks whose code differs from the current code, and what is said of them."""

from __future__ import annotations

import dataclasses
import functools
import typing as tp

from hydra_exca.errors import CacheError
from hydra_exca.status import Mode, OnCodeChange, Status
from hydra_exca.store import Claim
from hydra_exca.text import count_noun

from . import actions
from .actions import Action
from .lookup import LookupResult
from .settings import Settings

_SHOWN_FILES = 5
_SHOWN_TASKS = 20
_KINDS = (
    ("stored result", "stored results"),
    ("stored failure", "stored failures"),
    ("running task", "running tasks"),
)
_RESULT, _FAILURE, _RUNNING = range(3)


@dataclasses.dataclass(frozen=True)
class CodeCase:
    """One task that was computed, or is being computed, with different code; ``code`` is the digest of that.

    ``files`` are the changed ones that count for it, None if these are not known.
    """

    result: LookupResult
    code: str
    kind: int
    files: tp.Sequence[str] | None

    @property
    def is_rerun(self) -> bool:
        """Whether it is computed again, because its code differs."""
        return self.result.action is Action.RUN


@dataclasses.dataclass(frozen=True)
class CodeChanges:
    """The tasks with different code that a launch would use, or recomputes for that reason.

    As text, it is the message about them.
    """

    cases: tuple[CodeCase, ...]
    settings: Settings

    def __str__(self) -> str:
        if self.is_rerun:
            return f"{self._headline()}; {self._what_is_rerun()}"
        effects = []
        if self.is_refused:
            effects = ["on_code_change=error refuses that"]
        elif self._rerun:
            effects = ["the failure is run again" if self._rerun == 1 else "the failures are run again"]
        if self._running and not self.is_refused:
            effects.append("running tasks are joined")
        return f"{'; '.join([self._headline(), *effects])}. {self._choices()}"

    @property
    def is_rerun(self) -> bool:
        """Whether all that is stored of it is computed again."""
        return self._rerun > 0 and self._rerun == self._stored

    @property
    def is_refused(self) -> bool:
        """Whether the launch must not use it."""
        return self.settings.on_code_change is OnCodeChange.ERROR

    def without(self, is_known: tp.Callable[[LookupResult], bool]) -> CodeChanges | None:
        """The cases that are not known yet; None if there are none."""
        left = tuple(case for case in self.cases if not is_known(case.result))
        return dataclasses.replace(self, cases=left) if left else None

    def error(self, name_of: tp.Callable[[LookupResult], str], nothing: str = "Nothing") -> CacheError:
        """The refusal, with the tasks by name. ``nothing`` says what was not run."""
        results = [case.result for case in self.cases]
        shown = [f"  {name_of(result)}: {result.uid}" for result in results[:_SHOWN_TASKS]]
        more = len(results) - len(shown)
        if more:
            shown.append(f"  and {more} more")
        head = f"{nothing} was run, because of on_code_change=error: {self._headline()}"
        return CacheError("\n".join([head, *shown, self._choices()]))

    @property
    def _running(self) -> int:
        return sum(case.kind == _RUNNING for case in self.cases)

    @property
    def _stored(self) -> int:
        return len(self.cases) - self._running

    @property
    def _rerun(self) -> int:
        return sum(case.is_rerun for case in self.cases)

    def _headline(self) -> str:
        """The number of tasks of each kind, and the files that differ."""
        counts = [sum(case.kind == kind for case in self.cases) for kind in range(len(_KINDS))]
        kinds = [count_noun(count, *_KINDS[kind]) for kind, count in enumerate(counts) if count]
        is_one = len(self.cases) == 1
        if self._running:
            verb = "were or are being" if self._stored else "is being" if is_one else "are being"
        else:
            verb = "was" if is_one else "were"
        codes = dict.fromkeys(case.code for case in self.cases)
        states = f"{len(codes)} states of it; " if len(codes) > 1 else ""
        files = changed_text(case.files for case in self.cases)
        return f"{_listed(kinds)} {verb} computed with different code ({states}{files})"

    def _what_is_rerun(self) -> str:
        if self._running:
            return "what is stored is recomputed, what runs is joined"
        has_failures = all(case.kind == _FAILURE for case in self.cases)
        return f"{'it is' if len(self.cases) == 1 else 'they are'} {'run again' if has_failures else 'recomputed'}"

    def _choices(self) -> str:
        where = "In another mode than read-only " if self.settings.mode is Mode.READ_ONLY else ""
        key = self.settings.option_prefix
        if self._stored:
            what = "the results" if self._rerun else "them"
            first = f"{key}on_code_change=rerun recomputes {what}"
        else:
            first = f"{key}mode=force cancels what runs and computes it with the current code"
        return f"{where}{first}, another {key}version keeps both, {key}on_code_change=ignore silences this warning"


class CodeCheck:
    """The current code, and how that of other digests differs from it; each is compared once, when that is needed.

    ``running_code`` gives the digest of the code that the job of a claim runs from.
    """

    def __init__(self, settings: Settings, running_code: tp.Callable[[Claim], str | None] = lambda claim: None) -> None:
        self._settings = settings
        self._running_code = running_code
        self._changed_files = functools.cache(self._find_changed_files)

    def choose_mode(self, result: LookupResult) -> Mode:
        """The mode for a task: that of the launch, unless what is stored is to be recomputed."""
        mode, on_change = self._settings.mode, self._settings.on_code_change
        other = actions.mode_for_other_code(result.status, mode, on_change)
        outcome = result.outcome
        if other is mode or outcome is None or not self._has_changed(outcome.code, outcome.used):
            return mode
        return other

    def find_changes(self, results: tp.Iterable[LookupResult]) -> CodeChanges | None:
        """The tasks with different code; None if there are none, or if nothing is to be said of them."""
        if self._settings.on_code_change is OnCodeChange.IGNORE:
            return None
        cases = tuple(case for result in results if (case := self._case(result)) is not None)
        return CodeChanges(cases, self._settings) if cases else None

    def find_unknown(self, results: tp.Iterable[LookupResult]) -> list[LookupResult]:
        """The results that are used though it is not known which code computed them, where that was asked for."""
        if self._settings.on_code_change not in (OnCodeChange.ERROR, OnCodeChange.RERUN):
            return []
        is_unknown = self._settings.code is None
        return [r for r in results if r.outcome and r.action.uses_stored and (is_unknown or r.outcome.code is None)]

    def explain_unknown(self, count: int) -> str:
        """The warning about those."""
        results = count_noun(count, "stored result", "stored results")
        it_is = "it is" if count == 1 else "they are"
        if self._settings.code is None:
            why = "cannot be checked, as no copy of the current code is made"
        else:
            why = f"{'does' if count == 1 else 'do'} not say which code computed {'it' if count == 1 else 'them'}"
        return f"on_code_change={self._settings.on_code_change}: {results} {why}; {it_is} used nevertheless"

    def _case(self, result: LookupResult) -> CodeCase | None:
        """The case that a task is, if different code has computed it or does so just now."""
        code, used, kind = None, None, _RUNNING
        if result.action is Action.JOIN:
            code = None if result.claim is None else self._running_code(result.claim)
        elif result.outcome is not None and _is_concerned(result, self._settings.mode):
            kind = _FAILURE if result.outcome.status is Status.FAILED else _RESULT
            code, used = result.outcome.code, result.outcome.used
        if code is None or not self._has_changed(code, used):
            return None
        return CodeCase(result, code, kind, self._changed_files(code, used))

    def _has_changed(self, code: str | None, used: str | None) -> bool:
        """Whether it is different code: another digest may be that of the same files, or of others that do not count.

        ``used`` is the digest of what the task used.
        """
        current = self._settings.code
        return None not in (code, current) and code != current and self._changed_files(str(code), used) != []

    def _find_changed_files(self, code: str, used: str | None) -> tp.Sequence[str] | None:
        settings = self._settings
        if used is None or settings.used_changes is None:
            return settings.code_changes(code)
        return settings.used_changes(code, used)


def _is_concerned(result: LookupResult, mode: Mode) -> bool:
    """Whether a stored outcome is used, or is recomputed for its code alone."""
    return result.action.uses_stored or (result.action is Action.RUN and result.mode is not mode)


def changed_text(changes: tp.Iterable[tp.Sequence[str] | None]) -> str:
    """The changed files of several states of the code together.

    >>> changed_text([["a.py"], ["b.py"]]), changed_text([["a.py"], None]), changed_text([None])
    ('changed: a.py and b.py', 'changed: a.py, and perhaps others', 'the changed files are not known')
    """
    by_code = list(changes)
    names = sorted({name for files in by_code for name in files or ()})
    if not names:
        return "the changed files are not known"
    return f"changed: {_listed(names)}{'' if all(by_code) else ', and perhaps others'}"


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
