"""``hydra-exca show``: everything recorded of a stored result, for people and as JSON."""

from __future__ import annotations

import collections
import dataclasses
import json
import shlex
import time
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.clusters import process
from hydra_exca.errors import ExcaError
from hydra_exca.status import Status
from hydra_exca.store import Claim, ClaimState, Items

from . import rerun_command
from .entry_finder import FoundEntry
from .records import Json, Records

_SHOWN = 200  # characters of a value
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def read_entry(found: FoundEntry) -> Json:
    """Everything recorded of an entry; what was not recorded is left out."""
    records = Records(found)
    outcome, claim = records.outcome, records.claim
    known = {
        "uid": found.path.name,
        "factory": found.factory,
        "version": found.version,
        "path": str(found.path),
        "status": _status(records),
        "value": None if outcome is None else outcome.value,
        "error": None if outcome is None else outcome.error,
        "log": records.log(),
        "overrides": records.get("overrides"),
        "config": _text(records.config()),
        "output": str(records.entry.output_folder()),
        "code": records.code(),
        "snapshot": _text(records.snapshot()),
        "git": records.get("git"),
        "patch": _text(records.patch()),
        **{name: records.get(name) for name in ("python", "platform", "distributions", "env", "user", "host")},
        "job": _job(records),
        **{name: records.get(name) for name in ("slurm", "gpus", "peak_memory_bytes", "exit")},
        **_times(records),
        "claim": None if claim is None else dataclasses.asdict(claim),
        "launch": records.token,
        "again": records.command(),
        "rerun": _rerun(records),
    }
    return {name: value for name, value in known.items() if value not in (None, {}, [])}


def as_json(known: Json) -> str:
    """The record as JSON."""
    return json.dumps(known, indent=1, default=str)


def as_text(known: Json) -> str:
    """The record for people: a line for each thing, and the commands that run it again."""
    lines = [f"{known['factory']},{known['version']}/{known['uid']}"]
    described = [(name, describe(known)) for name, describe in _LINES.items()]
    lines += [f"  {name:<11} {text}" for name, text in described if text]
    commands = [known[name] for name in ("again", "rerun") if name in known]
    return "\n".join([*lines, *(["to run it again:"] if commands else []), *(f"  {each}" for each in commands)])


# reading


def _status(records: Records) -> str:
    if records.outcome is not None:
        return records.outcome.status.value
    if records.is_damaged:
        return "damaged: its outcome cannot be read; the next launch computes it again"
    items = records.found.path / paths.ITEMS
    if items.is_dir():
        return f"a map with {len(Items(items))} items, computed by the entries in {items / paths.ITEM_JOBS}"
    return Status.NOT_SUBMITTED.value if records.claim is None else _claim_status(records.claim)


def _rerun(records: Records) -> str | None:
    """The command that runs it again, if everything that it needs is there."""
    try:
        rerun_command.describe_recorded(records)
    except (ExcaError, OSError):
        return None
    return f"hydra-exca rerun {shlex.quote(str(records.found.path))}"


def _claim_status(claim: Claim) -> str:
    if claim.state is ClaimState.RELEASED:
        return Status.NOT_SUBMITTED.value
    if claim.state is ClaimState.QUEUED:
        return f"{Status.RUNNING.value}: waiting to start"
    gone = ", but its process is gone" if process.is_alive(claim.owner) is False else ""
    return f"{Status.RUNNING.value}{gone}"


def _job(records: Records) -> str | None:
    """The cluster and the id that it gave the job."""
    who = records.outcome or records.claim
    return None if who is None else " ".join(filter(None, [who.cluster, who.job])) or None


def _times(records: Records) -> Json:
    outcome, claim = records.outcome, records.claim
    if outcome is None:
        began = None if claim is None or claim.state is not ClaimState.RUNNING else claim.time
        return {"started": began}
    both = outcome.started is not None and outcome.ended is not None
    seconds = tp.cast(float, outcome.ended) - tp.cast(float, outcome.started) if both else None
    return {"started": outcome.started, "ended": outcome.ended, "seconds": seconds}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


# text


def _value(known: Json) -> str | None:
    record = known.get("value")
    if not isinstance(record, dict):
        return None
    if "inline" in record:
        return _line(json.dumps(record["inline"], ensure_ascii=False))
    return f"{record.get('format')}, {_size(record.get('size'))}, in {Path(known['path'], str(record.get('file')))}"


def _error(known: Json) -> str | None:
    error = known.get("error")
    if not isinstance(error, dict):
        return None
    kind = "its job was lost" if error.get("kind") == "lost" else error.get("type")
    return _line(f"{kind}: {error.get('message')}")


def _overrides(known: Json) -> str | None:
    overrides = known.get("overrides")
    return shlex.join(map(str, overrides)) if isinstance(overrides, list) else None


def _code(known: Json) -> str | None:
    folder, digest = known.get("snapshot"), known.get("code")
    if folder is None:
        return None if digest is None else f"{digest}, of which no copy is kept"
    return folder if Path(folder).is_dir() else f"{folder}, which is gone"


def _git(known: Json) -> str | None:
    git = known.get("git")
    if not isinstance(git, dict):
        return None
    on = f" on {git['branch']}" if git.get("branch") else ""
    where = git.get("remote") or git.get("root")
    return f"{git.get('commit') or 'no commit yet'}{on}{f' of {where}' if where else ''}{_changes(known, git)}"


def _changes(known: Json, git: Json) -> str:
    if not git.get("dirty"):
        return ""
    if "patch" in known:
        return f", changed by {known['patch']}"
    omitted = git.get("patch_omitted")
    return f", with changes that were not kept{f' ({omitted})' if omitted else ''}"


def _python(known: Json) -> str | None:
    python = known.get("python")
    if not isinstance(python, dict):
        return None
    return " ".join(str(python[name]) for name in ("implementation", "version", "executable") if python.get(name))


def _packages(known: Json) -> str | None:
    packages = known.get("distributions")
    if not isinstance(packages, dict):
        return None
    return f"{len(packages)} installed, listed in {Path(known['path'], paths.PROVENANCE)}"


def _who(known: Json) -> str | None:
    user, host, job = (known.get(name) for name in ("user", "host", "job"))
    by = f"{user}{f' on {host}' if host else ''}" if user else host
    return ", ".join(str(each) for each in (by, job) if each) or None


def _when(known: Json) -> str | None:
    started, seconds = known.get("started"), known.get("seconds")
    if not isinstance(started, (int, float)):
        return None
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started))
    return f"{began}, for {seconds:.3g} s" if isinstance(seconds, (int, float)) else f"since {began}"


def _memory(known: Json) -> str | None:
    peak = known.get("peak_memory_bytes")
    return f"{_size(peak)} at most" if isinstance(peak, int) else None


def _gpus(known: Json) -> str | None:
    gpus = known.get("gpus")
    if not isinstance(gpus, list):
        return None
    return ", ".join(f"{count} x {name}" for name, count in collections.Counter(map(str, gpus)).items())


def _as_text(name: str) -> tp.Callable[[Json], str | None]:
    return lambda known: str(known[name]) if name in known else None


_LINES: dict[str, tp.Callable[[Json], str | None]] = {
    "status": _as_text("status"),
    "value": _value,
    "error": _error,
    "log": _as_text("log"),
    "overrides": _overrides,
    "config": _as_text("config"),
    "output": _as_text("output"),
    "code": _code,
    "git": _git,
    "python": _python,
    "packages": _packages,
    "platform": _as_text("platform"),
    "run by": _who,
    "run at": _when,
    "memory": _memory,
    "GPUs": _gpus,
}


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _size(count: tp.Any) -> str:
    if not isinstance(count, (int, float)):
        return "of unknown size"
    size, unit = float(count), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"
