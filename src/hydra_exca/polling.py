"""Waiting for what nobody announces: how long to pause between two looks."""

from __future__ import annotations

import time

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.25


class Pause:
    """Waits a little, longer each time."""

    def __init__(self) -> None:
        self._seconds = _FIRST_PAUSE_S

    def sleep(self, at_least_s: float = 0.0) -> None:
        time.sleep(max(self._seconds, at_least_s))
        self._seconds = min(_LONGEST_PAUSE_S, 1.5 * self._seconds)
