"""Errors as Hydra shows them: one message, no frames of ours, all of them with HYDRA_FULL_ERROR=1."""

from __future__ import annotations

import functools
import typing as tp

from hydra.errors import CompactHydraException

from hydra_exca.errors import ExcaError


def raise_compact(error: ExcaError) -> ExcaError:
    """The same error, which Hydra prints without frames: it derives from its CompactHydraException too."""
    if isinstance(error, CompactHydraException):
        return error
    original: tp.Any = type(error)
    kind: tp.Any = _compact_type(original)
    shown: ExcaError = kind.__new__(kind)
    shown.args = error.args
    vars(shown).update(vars(error))
    return shown.with_traceback(error.__traceback__)


class _Compact(CompactHydraException):
    """Pickles as the error it shows."""

    def __reduce__(self) -> tuple[tp.Any, ...]:
        original: tp.Any = type(self).__mro__[2]
        plain = original.__new__(original)
        plain.args = self.args
        vars(plain).update(vars(self))
        return raise_compact, (plain,)


@functools.cache
def _compact_type(kind: tp.Any) -> type[ExcaError]:
    return tp.cast("type[ExcaError]", type(kind.__name__, (_Compact, kind), {"__module__": kind.__module__}))
