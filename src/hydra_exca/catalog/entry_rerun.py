"""Computes the task of an entry again in a process of its own, and compares."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.clusters.process import end_processes, exit_reason
from hydra_exca.errors import CacheError
from hydra_exca.records import parse as parse_record
from hydra_exca.rerun import comparison, rerun
from hydra_exca.rerun.comparison import Comparison
from hydra_exca.store import Entry

from . import entry_record
from .entry_record import Json
from .found_entry import FoundEntry

_GRACE_S = 1.0  # for a process to end by itself


def rerun_entry(found: FoundEntry, into: Path | None, notify: tp.Callable[[str], object]) -> Comparison:
    """Computes an entry again, in a process of its own, and compares. ``notify`` gets a line for each difference.

    What the task writes goes to ``into``, a new or empty folder; by default a temporary one. Raises CacheError if it
    could not be run.
    """
    known = entry_record.read_entry(found)
    recorded = read_recorded(found, known)
    python = _choose_python(found, known.get("python", {}), notify)
    if recorded.payload.copy is None:
        notify(_no_copy(known.get("git", {})))
    folder = _make_output_folder(found, into)
    with tempfile.TemporaryFile() as file:
        arguments = (found.path, found.cache, folder, file.fileno())
        code = _run([python, "-u", "-P", "-m", rerun.__name__, *map(str, arguments)], file.fileno())
        file.seek(0)
        report = file.read()
    if not any(folder.iterdir()):
        raise CacheError(f"{found.name} could not be run again: {python} ended before it began: {exit_reason(code)}")
    if not report:
        failure = comparison.stored_failure(Entry(found.path))
        stored = "" if failure is None else f"; stored: {failure}"
        message = f"its process ended before there was a value: {exit_reason(code)}{stored}"
        return Comparison(False, message, str(folder))
    return Comparison(**json.loads(report))


# what is needed


def read_recorded(found: FoundEntry, known: Json) -> rerun.Recorded:
    """Everything needed to run an entry again. Raises CacheError if that is missing, with what to do instead."""
    if (found.path / paths.ITEMS).is_dir():
        jobs = found.path / paths.ITEMS / paths.ITEM_JOBS
        raise CacheError(f"{found.name} is a map of many items: name one of its jobs, in {jobs}")
    try:
        return rerun.read_recorded(found.path, found.cache)
    except rerun.CodeGoneError as error:
        raise CacheError(f"{found.name}: {error}. {_suggest_checkout(known)}") from error
    except CacheError as error:
        launched = f". Its launch was: {known['again']}" if "again" in known else ""
        raise CacheError(f"{error}{launched}") from error


def _suggest_checkout(known: Json) -> str:
    """Advice for a rerun without the copy of the code."""
    git = known.get("git", {})
    if not git.get("commit"):
        return "No git commit was recorded either"
    changes = f", apply {known['patch']}" if git.get("dirty") and "patch" in known else ""
    where = git.get("remote") or git.get("root")
    command = known.get("again", "the same command")
    return f"Check out commit {git['commit']} of {where}{changes}, and run: {command}"


def _no_copy(git: Json) -> str:
    commit = git.get("commit")
    was = f"; it was that of commit {commit}{', with changes' if git.get('dirty') else ''}" if commit else ""
    return f"no copy of its code was kept: this runs the current code, which may have changed since{was}"


def _choose_python(found: FoundEntry, recorded: Json, notify: tp.Callable[[str], object]) -> str:
    """The python that has computed it, if it is there and nobody else can have written down which one that was."""
    executable = recorded.get("executable")
    if not isinstance(executable, str) or recorded.get("prefix") == sys.prefix:
        return sys.executable
    path = found.path / paths.PROVENANCE
    try:
        trusted = parse_record(path, files.read_trusted(path, ())).get("python")
        if trusted == recorded and os.access(executable, os.X_OK):
            return executable
    except (OSError, CacheError):
        pass
    notify(f"it was computed by {executable}, and runs again with {sys.executable}")
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


def _run(command: list[str], descriptor: int) -> int:
    """Runs a command that writes to a file open under ``descriptor``; returns its exit code. It ends with this process.

    Python writes no compiled modules beside those that it imports: they may be in the cache.
    """
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(command, env=environment, pass_fds=[descriptor]) as child:
        try:
            return child.wait()
        except (SystemExit, KeyboardInterrupt):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE_S)  # a Ctrl-C in a terminal has interrupted it, too
            end_processes(child.pid)
            raise
