"""Which claims of this process nobody works on any more, whatever their files say.

A claim is released when its call ends. An interrupt may come before that is done, or the disk may refuse the write;
then calls of this process must not wait for it, and it is released from a thread as soon as that is possible.
"""

from __future__ import annotations

import os
import sys
import threading
import types
import typing as tp

from hydra_exca.errors import CacheError
from hydra_exca.polling import Pause

_PACKAGE = __name__.partition(".")[0] + "."
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
_WALKS = 3  # in one of 100,000, under load, the thread leaves a generator meanwhile
_calls: dict[str, tuple[int, types.FrameType]] = {}
_abandoned: set[tuple[int, str, int | None]] = set()


def begin_call(token: str) -> None:
    """Makes the call into this package that runs now the one that holds the claims of ``token``, until `end_call`.

    They may be those of an earlier call that is over.
    """
    for other in list(_calls):
        _is_on_stack(other)  # forgets those that are not
    frame = sys._getframe(1)  # noqa: SLF001  documented, and public
    while frame.f_back is not None and str(frame.f_back.f_globals.get("__name__")).startswith(_PACKAGE):
        frame = frame.f_back
    _calls[token] = threading.get_ident(), frame
    _abandoned.discard((os.getpid(), token, None))


def end_call(token: str) -> None:
    """The claims of ``token`` are released, or jobs hold them."""
    _calls.pop(token, None)


def abandon_claim(token: str, job: int | None, release: tp.Callable[[], object]) -> None:
    """Releases a claim from a thread, again and again until that succeeds; in this process it is nobody's at once."""
    _abandoned.add((os.getpid(), token, job))
    threading.Thread(target=_release, args=(release,), name="exca-releases-claim", daemon=True).start()


def is_running(token: str) -> bool:
    """Whether a call of this process holds the claims of ``token`` just now."""
    return token in _calls and _is_on_stack(token)


def is_abandoned(token: str, job: int | None = None) -> bool:
    """Whether nobody in this process, which has published it, works on a claim of ``token``."""
    is_running(token)  # one that was interrupted is known from then on
    pid = os.getpid()
    return (pid, token, None) in _abandoned or (pid, token, job) in _abandoned


def _is_on_stack(token: str) -> bool:
    """Whether the call still runs; if not, it has ended without `end_call`, and its claims are nobody's.

    That its frame exists says nothing: tracebacks keep it. A thread that leaves a generator while its frames are walked
    seems to have none below that, so a call is looked for more than once.
    """
    ident, frame = _calls.get(token, (0, None))
    if any(_has_frame(ident, frame) for _ in range(_WALKS)):
        return True
    if _calls.pop(token, None) is not None:
        _abandoned.add((os.getpid(), token, None))
    return False


def _has_frame(ident: int, frame: types.FrameType | None) -> bool:
    current = sys._current_frames().get(ident)  # noqa: SLF001  documented, and public
    while current is not None and current is not frame:
        current = current.f_back
    return current is not None


def _release(release: tp.Callable[[], object]) -> None:
    pause = Pause(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
    while True:
        try:
            release()
            return
        except (OSError, CacheError):
            pause.sleep()
