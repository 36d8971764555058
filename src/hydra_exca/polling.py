"""Pauses between two polls."""

from __future__ import annotations

import time

LONGEST_PAUSE_S = 0.25


class Pause:
    """A pause that grows by half with each call, from 5 ms to 0.25 s if not given otherwise."""

    def __init__(self, first_s: float = 0.005, longest_s: float = LONGEST_PAUSE_S) -> None:
        self._seconds = first_s
        self._longest_s = longest_s

    def sleep(self, at_least_s: float = 0.0) -> None:
        time.sleep(max(self._seconds, at_least_s))
        self._seconds = min(self._longest_s, 1.5 * self._seconds)
