"""``hydra-exca rerun``: a process of its own that computes a task again, and what is said of it."""

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

from hydra_exca import paths
from hydra_exca.errors import CacheError
from hydra_exca.rerun import comparison, rerun
from hydra_exca.store import files

from .find import FoundEntry
from .records import Records

SAME, OTHER = 0, 1
_GRACE_S = 5.0  # between asking a process to end, and ending it
_TERMINAL_S = 1.0  # for a process that the terminal has interrupted, too
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def rerun_entry(found: FoundEntry, into: Path | None) -> int:
    """Computes an entry again, and says whether it comes out as what is stored. The status that says so, too.

    Raises CacheError if it could not be run.
    """
    records = Records(found)
    known = describe_recorded(records)
    python = _python(records)
    if known.payload.copy is None:
        click.echo(f"exca: {_uncopied(records)}", err=True)
    folder = _scratch(found, into)
    with tempfile.TemporaryFile() as file:
        given = (found.path, found.cache, folder, file.fileno())
        command = [python, "-u", "-P", "-m", rerun.__name__, *map(str, given)]
        with subprocess.Popen(command, env=_environment(), pass_fds=[file.fileno()]) as child:
            code = _wait(child)
        file.seek(0)
        told = file.read()
    if not any(folder.iterdir()):
        raise CacheError(f"{found.name} could not be run again: {python} ended {_ending(code)} before it began")
    return _say(json.loads(told)) if told else _say_ended(code, folder, records)


def _say(found: dict[str, tp.Any]) -> int:
    click.echo(f"{found['message']}\noutputs: {found['output']}")
    return SAME if found["same"] else OTHER


def _say_ended(code: int, folder: Path, records: Records) -> int:
    failure = comparison.stored_failure(records.entry)
    stored = "" if failure is None else f"; stored: {failure}"
    click.echo(f"its process ended {_ending(code)} before there was a value{stored}\noutputs: {folder}")
    return OTHER


# what is needed


def describe_recorded(records: Records) -> rerun.Recorded:
    """What is needed to run an entry again; raises CacheError where it cannot be, with what can be done instead."""
    if (records.found.path / paths.ITEMS).is_dir():
        jobs = records.found.path / paths.ITEMS / paths.ITEM_JOBS
        raise CacheError(f"{records.found.name} is a map of many items: name one of its jobs, in {jobs}")
    try:
        return rerun.read_recorded(records.found.path, records.found.cache)
    except rerun.CodeGoneError as error:
        raise CacheError(f"{records.found.name}: {error}. {_other_ways(records)}") from error
    except CacheError as error:
        command = records.command()
        raise CacheError(f"{error}{f'. Its launch was: {command}' if command else ''}") from error


def _other_ways(records: Records) -> str:
    """What can be done without the copy of the code."""
    git, patch = records.part("git"), records.patch()
    if not git.get("commit"):
        return "No git commit was recorded either"
    changed = f", apply {patch}" if git.get("dirty") and patch is not None else ""
    where = git.get("remote") or git.get("root")
    return f"Check out commit {git['commit']} of {where}{changed}, and run: {records.command() or 'the same command'}"


def _uncopied(records: Records) -> str:
    git = records.part("git")
    commit = git.get("commit")
    was = f"; it was that of commit {commit}{', with changes' if git.get('dirty') else ''}" if commit else ""
    return f"no copy of its code was kept: this runs the code as it is now, which may have changed since{was}"


def _python(records: Records) -> str:
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
    click.echo(f"exca: it was computed by {recorded}, and is run again by {sys.executable}", err=True)
    return sys.executable


def _scratch(found: FoundEntry, into: Path | None) -> Path:
    """The folder for what the task writes."""
    if into is None:
        return Path(tempfile.mkdtemp(prefix="exca-rerun-"))
    folder = into.expanduser().absolute()
    if folder.resolve().is_relative_to(found.cache.resolve()):
        raise CacheError(f"--into {into} is in the cache {found.cache}: name a folder outside of it")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CacheError(f"--into {into} is there and not empty: name a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# its process


class _EndedError(Exception):
    """Somebody wants this process to end."""


def _environment() -> dict[str, str]:
    """Python writes no compiled modules beside those that it imports: they may be in the cache."""
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


def _wait(child: subprocess.Popen[bytes]) -> int:
    """The exit code of a process that ends with this one."""

    def raise_(number: int, frame: types.FrameType | None) -> tp.NoReturn:
        raise _EndedError

    before = {number: signal.signal(number, raise_) for number in _ENDING}
    try:
        return child.wait()
    except (KeyboardInterrupt, _EndedError) as why:
        number = signal.SIGINT if isinstance(why, KeyboardInterrupt) else signal.SIGTERM
        _end(child, number)
        raise SystemExit(128 + number) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if number is signal.SIGINT and _is_over(child, _TERMINAL_S):
        return
    for each in (number, signal.SIGTERM, signal.SIGKILL):
        child.send_signal(each)
        if _is_over(child, _GRACE_S):
            return


def _is_over(child: subprocess.Popen[bytes], patience: float) -> bool:
    try:
        child.wait(patience)
    except subprocess.TimeoutExpired:
        return False
    return True


def _ending(code: int) -> str:
    if code >= 0:
        return f"with status {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
