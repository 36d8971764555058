"""``hydra-exca rerun``: computes a task again in a process of its own, and compares."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import types
import typing as tp
from pathlib import Path

import click

from hydra_exca import files, paths
from hydra_exca.clusters.process import exit_reason
from hydra_exca.errors import CacheError
from hydra_exca.rerun import comparison, rerun

from .entry_finder import FoundEntry
from .records import Records

SAME, OTHER = 0, 1
_GRACE_S = 5.0  # between asking a process to end, and ending it
_TERMINAL_S = 1.0  # for a process that the terminal has interrupted, too
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def rerun_entry(found: FoundEntry, into: Path | None) -> int:
    """Computes an entry again and says whether the value is the stored one; returns the exit status.

    Raises CacheError if it could not be run.
    """
    records = Records(found)
    known = describe_recorded(records)
    python = _choose_python(records)
    if known.payload.copy is None:
        click.echo(f"exca: {_no_copy(records)}", err=True)
    folder = _make_output_folder(found, into)
    with tempfile.TemporaryFile() as file:
        given = (found.path, found.cache, folder, file.fileno())
        command = [python, "-u", "-P", "-m", rerun.__name__, *map(str, given)]
        with subprocess.Popen(command, env=_child_environment(), pass_fds=[file.fileno()]) as child:
            code = _wait(child)
        file.seek(0)
        report = file.read()
    if not any(folder.iterdir()):
        raise CacheError(f"{found.name} could not be run again: {python} ended before it began: {exit_reason(code)}")
    return _report_comparison(json.loads(report)) if report else _report_death(code, folder, records)


def _report_comparison(found: dict[str, tp.Any]) -> int:
    click.echo(f"{found['message']}\noutputs: {found['output']}")
    return SAME if found["same"] else OTHER


def _report_death(code: int, folder: Path, records: Records) -> int:
    failure = comparison.stored_failure(records.entry)
    stored = "" if failure is None else f"; stored: {failure}"
    click.echo(f"its process ended before there was a value: {exit_reason(code)}{stored}\noutputs: {folder}")
    return OTHER


# what is needed


def describe_recorded(records: Records) -> rerun.Recorded:
    """Everything needed to run an entry again. Raises CacheError if that is missing, with what to do instead."""
    if (records.found.path / paths.ITEMS).is_dir():
        jobs = records.found.path / paths.ITEMS / paths.ITEM_JOBS
        raise CacheError(f"{records.found.name} is a map of many items: name one of its jobs, in {jobs}")
    try:
        return rerun.read_recorded(records.found.path, records.found.cache)
    except rerun.CodeGoneError as error:
        raise CacheError(f"{records.found.name}: {error}. {_suggest_checkout(records)}") from error
    except CacheError as error:
        command = records.command()
        raise CacheError(f"{error}{f'. Its launch was: {command}' if command else ''}") from error


def _suggest_checkout(records: Records) -> str:
    """Advice for a rerun without the copy of the code."""
    git, patch = records.part("git"), records.patch()
    if not git.get("commit"):
        return "No git commit was recorded either"
    changed = f", apply {patch}" if git.get("dirty") and patch is not None else ""
    where = git.get("remote") or git.get("root")
    return f"Check out commit {git['commit']} of {where}{changed}, and run: {records.command() or 'the same command'}"


def _no_copy(records: Records) -> str:
    git = records.part("git")
    commit = git.get("commit")
    was = f"; it was that of commit {commit}{', with changes' if git.get('dirty') else ''}" if commit else ""
    return f"no copy of its code was kept: this runs the current code, which may have changed since{was}"


def _choose_python(records: Records) -> str:
    """The python that has computed it, if it is there and nobody else has written down which one that was."""
    python = records.part("python")
    recorded = python.get("executable")
    if not isinstance(recorded, str) or python.get("prefix") == sys.prefix:
        return sys.executable
    try:
        files.read_trusted(records.found.path / paths.PROVENANCE, ())
        if os.access(recorded, os.X_OK):
            return recorded
    except (OSError, CacheError):
        pass
    click.echo(f"exca: it was computed by {recorded}, and runs again with {sys.executable}", err=True)
    return sys.executable


def _make_output_folder(found: FoundEntry, into: Path | None) -> Path:
    """The folder for what the task writes."""
    if into is None:
        return Path(tempfile.mkdtemp(prefix="exca-rerun-"))
    folder = into.expanduser().absolute()
    if folder.resolve().is_relative_to(found.cache.resolve()):
        raise CacheError(f"--into {into} is in the cache {found.cache}: name a folder outside it")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CacheError(f"--into {into} is not empty: name a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# its process


class _TerminatedError(Exception):
    """Somebody wants this process to end."""


def _child_environment() -> dict[str, str]:
    """Python writes no compiled modules beside those that it imports: they may be in the cache."""
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


def _wait(child: subprocess.Popen[bytes]) -> int:
    """The exit code of a process that ends with this one."""

    def raise_(number: int, frame: types.FrameType | None) -> tp.NoReturn:
        raise _TerminatedError

    before = {number: signal.signal(number, raise_) for number in _ENDING}
    try:
        return child.wait()
    except (KeyboardInterrupt, _TerminatedError) as why:
        number = signal.SIGINT if isinstance(why, KeyboardInterrupt) else signal.SIGTERM
        _stop(child, number)
        raise SystemExit(128 + number) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if number is signal.SIGINT and _has_ended(child, _TERMINAL_S):
        return
    for each in (number, signal.SIGTERM, signal.SIGKILL):
        child.send_signal(each)
        if _has_ended(child, _GRACE_S):
            return


def _has_ended(child: subprocess.Popen[bytes], patience: float) -> bool:
    try:
        child.wait(patience)
    except subprocess.TimeoutExpired:
        return False
    return True
