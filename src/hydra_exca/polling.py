"""Pauses between two polls."""

from __future__ import annotations

import time

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.25


class Pause:
    """A pause that grows with each call, from 5 ms to 0.25 s."""

    def __init__(self) -> None:
        self._seconds = _FIRST_PAUSE_S

    def sleep(self, at_least_s: float = 0.0) -> None:
        time.sleep(max(self._seconds, at_least_s))
        self._seconds = min(_LONGEST_PAUSE_S, 1.5 * self._seconds)
