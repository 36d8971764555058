"""The records of an entry: of its launch, its job, and its outcome."""

from __future__ import annotations

import dataclasses
import os
import shlex
import typing as tp
from pathlib import Path

from hydra_exca import paths, records
from hydra_exca.clusters import process
from hydra_exca.errors import CorruptEntryError
from hydra_exca.rerun import rerun
from hydra_exca.status import Status
from hydra_exca.store import Claim, ClaimState, Entry, Items, Outcome, launches

from .found_entry import FoundEntry

Json = dict[str, tp.Any]
_NO_SCRIPT = ("", "-", "-c", "-m")  # what was typed or piped to python
_RECORDED = (
    *("overrides", "git", "python", "platform", "distributions", "env", "user", "host"),
    *("slurm", "gpus", "peak_memory_bytes", "exit", "resources", "attempts", "trackers"),
)


def read_entry(found: FoundEntry) -> Json:
    """Everything recorded of an entry. What was not recorded, or is damaged, is left out."""
    entry = Entry(found.path)
    outcome, claim = entry.readable_outcome(), entry.current_claim()
    token = next((source.token for source in (outcome, claim) if source is not None), None) or None
    token = token or _read_job_record(found.path).get("launch")
    folders = [found.path] if token is None else [found.path, paths.launch_folder(found.cache, token)]
    of_launch = launches.read_record(folders[-1])
    recorded = {**of_launch, **_read_job_record(found.path, token)}
    code = (None if outcome is None else outcome.code) or of_launch.get("code")
    known = {
        "uid": found.path.name,
        "factory": found.factory,
        "version": found.version,
        "path": str(found.path),
        "status": _status(entry, outcome, claim),
        "log": log_path(entry, outcome, claim),
        "config": _first_existing([found.path], paths.CONFIG_YAML),
        "output": entry.output_folder(),
        "code": code,
        "snapshot": _snapshot(found, code),
        **{name: recorded.get(name) for name in _RECORDED},
        "patch": _first_existing(folders, paths.PATCH),
        **_ending(outcome, claim),
        "claim": None if claim is None else dataclasses.asdict(claim),
        "launch": token,
        "again": _command(recorded, folders[-1]),
    }
    return {name: value for name, value in known.items() if value not in (None, {}, [], "")}


def _read_job_record(entry: Path, token: str | None = None) -> Json:
    """The record of its job, without what that does not know; empty if it is of another launch than ``token``."""
    try:
        record = records.read_record(entry / paths.PROVENANCE)
    except (OSError, CorruptEntryError):
        return {}
    if token is not None and record.get("launch") not in (None, token):
        return {}
    return {name: value for name, value in record.items() if value is not None}


def _status(entry: Entry, outcome: Outcome | None, claim: Claim | None) -> str:
    if outcome is not None:
        return outcome.status.value
    if (entry.path / paths.OUTCOME).exists():
        return "damaged: its outcome cannot be read; the next launch computes it again"
    items = entry.path / paths.ITEMS
    if items.is_dir():
        return f"a map with {len(Items(items))} items, computed by the entries in {items / paths.ITEM_JOBS}"
    if claim is None or claim.state is ClaimState.RELEASED:
        return Status.NOT_SUBMITTED.value
    if claim.state is ClaimState.QUEUED:
        return "queued"
    gone = ", but its process is gone" if process.is_alive(claim.owner) is False else ""
    return f"{Status.RUNNING.value}{gone}"


def log_path(entry: Entry, outcome: Outcome | None, claim: Claim | None) -> str | None:
    """The path of the last attempt's log."""
    if outcome is not None and outcome.log is not None:
        return entry.log_path(outcome)
    logs = None if claim is None else entry.log_paths(claim)
    return str(logs[0]) if logs is not None and logs[0].exists() else None


def _snapshot(found: FoundEntry, code: str | None) -> str | None:
    """The copy of the code that computed it, which may be gone; None if there was none."""
    link = found.path / paths.CODE
    if link.is_symlink():
        return os.path.normpath(found.path / os.readlink(link))
    return None if code is None else _first_existing([found.cache / paths.CODE], code)


def _ending(outcome: Outcome | None, claim: Claim | None) -> Json:
    """How the task ended, in which job, and when."""
    if outcome is None:
        is_running = claim is not None and claim.state is ClaimState.RUNNING
        return {"job": _job(claim), "started": claim.time if claim is not None and is_running else None}
    started, ended = outcome.started, outcome.ended
    return {
        "value": outcome.value,
        "error": outcome.error,
        "job": _job(outcome),
        "started": started,
        "ended": ended,
        "seconds": None if started is None or ended is None else ended - started,
    }


def _job(source: Outcome | Claim | None) -> str | None:
    """The cluster and the id that it gave the job."""
    return None if source is None else " ".join(filter(None, [source.cluster, source.job]))


def script_of(recorded: tp.Mapping[str, tp.Any]) -> str | None:
    """The name of the script that a launch was started with, None where that is not known."""
    argv = recorded.get("argv")
    return os.path.basename(argv[0]) if argv and argv[0] not in _NO_SCRIPT else None


def _command(recorded: Json, launch: Path) -> str | None:
    """The command line of its launch, for a shell."""
    argv, folder = recorded.get("argv"), recorded.get("working_directory")
    if not argv or not folder or argv[0] in _NO_SCRIPT:
        return None
    program, *arguments = argv
    module = rerun.started_module(launch)
    if Path(program).is_relative_to(folder):
        program = os.path.relpath(program, folder)
    started = [program] if module is None else ["-m", module]
    return f"cd {shlex.quote(folder)} && {shlex.join(['python', *started, *arguments])}"


def _first_existing(folders: tp.Iterable[Path], name: str) -> str | None:
    return next((str(folder / name) for folder in folders if (folder / name).exists()), None)
