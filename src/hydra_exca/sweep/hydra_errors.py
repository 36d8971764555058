"""Errors as Hydra shows them: one message without a traceback, or all of it with HYDRA_FULL_ERROR=1."""

from __future__ import annotations

import functools
import operator
import os
import sys
import typing as tp

from hydra.errors import CompactHydraException

from hydra_exca.errors import ExcaError, TaskFailedError
from hydra_exca.job.error_report import is_made_by_python, text_of

from .compose import hydra_private


def as_compact_error(error: ExcaError) -> ExcaError:
    """The same error, of its class and of Hydra's CompactHydraException, which Hydra prints without a traceback."""
    if isinstance(error, CompactHydraException):
        return error
    kind: tp.Any = type(error)
    compact: ExcaError = _copy_as(error, _compact_type(kind))
    return compact.with_traceback(error.__traceback__)


def shown_cause(error: BaseException) -> BaseException | None:
    """The cause to raise a compact error from: Hydra prints it with HYDRA_FULL_ERROR=1."""
    return error if os.environ.get("HYDRA_FULL_ERROR") == "1" else None


def task_exception(failed: TaskFailedError, content: dict[str, tp.Any] | None) -> Exception:
    """What a task raised, as Hydra's own launchers give it, from what is stored of it; ``failed`` is its cause.

    It is ``failed`` itself, compact, if that cannot be made: not all of it was stored, or this program has not imported
    its class, and so cannot ask for it. Likewise where Hydra would show its own frames, and not those of the task.
    """
    shown_by_hydra = hydra_private.is_under_main() and not hydra_private.SHOWS_REMOTE_TRACEBACKS
    original = None if shown_by_hydra or content is None else _remake(content)
    if original is None or text_of(original) != failed.text:
        return as_compact_error(failed)
    original.__cause__ = failed
    return original


def _remake(content: dict[str, tp.Any]) -> Exception | None:
    """Without the ``__init__`` of its class, whose arguments may be others than those of the error."""
    try:
        kind = operator.attrgetter(content["class"])(sys.modules[content["module"]])
        if not issubclass(kind, Exception) or not is_made_by_python(kind):
            return None
        error: Exception = kind.__new__(kind, *content["args"])
        error.__setstate__(content["state"])
    except (KeyError, AttributeError, TypeError, ValueError):
        return None
    return error


class _Compact(CompactHydraException):
    """Pickles as the error it shows: its own class is made in each process."""

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return as_compact_error, (_copy_as(self, type(self).__bases__[1]),)


def _copy_as(error: tp.Any, kind: tp.Any) -> tp.Any:
    """A copy of an error as one of another class, without its ``__init__``, which takes other arguments."""
    copied = kind.__new__(kind)
    copied.args = error.args
    vars(copied).update(vars(error))
    if isinstance(error, OSError):  # which keeps these elsewhere
        copied.errno, copied.strerror, copied.filename = error.errno, error.strerror, error.filename
    return copied


@functools.cache
def _compact_type(kind: tp.Any) -> type:
    return type(kind.__name__, (_Compact, kind), {"__module__": kind.__module__})
