"""How far a launch is."""

from __future__ import annotations

import typing as tp
from collections import Counter


class Progress(tp.NamedTuple):
    """The numbers of tasks that a launch waits for, of those that have ended, and of those that it reuses.

    ``joined`` ones are computed by other launches. ``reasons`` counts the tasks that are queued by the reason that the
    cluster gives.
    """

    total: int
    ended: int
    running: int
    queued: int
    joined: int
    reused: int
    reasons: Counter[str]
