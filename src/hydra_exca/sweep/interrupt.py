"""Ctrl-C while a launch waits: the jobs go on or end, and the user is told which, and how to come back."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import typing as tp

from hydra_exca.engine import Launch
from hydra_exca.survey import counted

log = logging.getLogger("exca.sweep")
_AGAIN_S = 2.0  # how long a second Ctrl-C is waited for


@contextlib.contextmanager
def told(launch: Launch) -> tp.Iterator[None]:
    """Says what goes on without this process; a second Ctrl-C within two seconds asks whether it is to be cancelled."""
    try:
        yield
    except KeyboardInterrupt:
        going_on = launch.open_jobs() if launch.is_detached else []
        if going_on:
            log.warning(
                "exca: detached; the jobs go on: %s\n"
                "exca: the same command comes back to them. Ctrl-C again within %g s to cancel them",
                "; ".join(going_on),
                _AGAIN_S,
            )
            _ask_whether_to_cancel(launch)
        raise


def _ask_whether_to_cancel(launch: Launch) -> None:
    try:
        time.sleep(_AGAIN_S)
    except KeyboardInterrupt:
        print("\nCancel the jobs of this launch? [y/N] ", end="", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            if sys.stdin.readline().strip().lower() in ("y", "yes"):
                log.warning("exca: %s cancelled", counted(launch.cancel_all(), "task is", "tasks are"))
