"""Errors as Hydra shows them: one message without a traceback, or all of it with HYDRA_FULL_ERROR=1."""

from __future__ import annotations

import functools
import os
import typing as tp

from hydra.errors import CompactHydraException

from hydra_exca.errors import ExcaError


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


class _Compact(CompactHydraException):
    """Pickles as the error it shows: its own class is made in each process."""

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return as_compact_error, (_copy_as(self, type(self).__mro__[2]),)


def _copy_as(error: tp.Any, kind: tp.Any) -> tp.Any:
    """A copy of an error as one of another class, without its ``__init__``, which takes other arguments."""
    copied = kind.__new__(kind)
    copied.args = error.args
    vars(copied).update(vars(error))
    return copied


@functools.cache
def _compact_type(kind: tp.Any) -> type:
    return type(kind.__name__, (_Compact, kind), {"__module__": kind.__module__})
