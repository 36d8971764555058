"""``hydra-exca rerun``: computes a task again, and prints how the two values compare."""

from __future__ import annotations

import contextlib
import signal
import types
import typing as tp
from pathlib import Path

import click

from hydra_exca.catalog import entry_rerun
from hydra_exca.catalog.found_entry import FoundEntry

SAME, OTHER = 0, 1


def rerun_entry(found: FoundEntry, into: Path | None) -> int:
    """Computes an entry again and says whether the value is the stored one; returns the exit status.

    Raises CacheError if it could not be run.
    """
    with _exit_on_signals():
        compared = entry_rerun.rerun_entry(found, into, lambda notice: click.echo(f"exca: {notice}", err=True))
    click.echo(f"{compared.message}\noutputs: {compared.output}")
    return SAME if compared.same else OTHER


@contextlib.contextmanager
def _exit_on_signals() -> tp.Iterator[None]:
    """Signals raise SystemExit, so that the process of the task ends with this one."""

    def stop(number: int, frame: types.FrameType | None) -> tp.NoReturn:
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    yield
