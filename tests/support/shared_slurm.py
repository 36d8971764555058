"""Who uses the Slurm that all tests of this machine share: the last run of the tests stops it, if a run has started it.

Each process that uses it holds a record lock, which ends with the process, however that ends, and stays with none of
the processes that it starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

RUN = Path("/run/exca-slurm")


@contextlib.contextmanager
def in_use(folder: Path = RUN) -> Iterator[None]:
    """Keeps the test runs of others from stopping it. Waits while another stops it."""
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:
            folder.mkdir(exist_ok=True)
            (folder / "users").touch()
        with contextlib.suppress(FileNotFoundError):  # it does not run, and only root can start it
            file = stack.enter_context((folder / "users").open("rb"))
            fcntl.lockf(file, fcntl.LOCK_SH)
        yield


def mark_as_started(folder: Path = RUN) -> None:
    """Says that the tests have started it, not a user; `tests/slurm/stop` removes the mark."""
    (folder / "started-by-tests").touch()


def stop_if_unused(stop: Callable[[], None], folder: Path = RUN) -> None:
    """Stops it if the tests have started it and no process uses it any more. The caller must not use it."""
    nobody_elses = contextlib.suppress(FileNotFoundError, PermissionError, BlockingIOError)
    with nobody_elses, (folder / "users").open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (folder / "started-by-tests").exists():
            stop()
