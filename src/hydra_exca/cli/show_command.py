"""``hydra-exca show``: everything recorded of a stored result, for people and as JSON."""

from __future__ import annotations

import collections
import json
import shlex
import time
from pathlib import Path

from hydra_exca import paths
from hydra_exca.catalog import entry_record, entry_rerun
from hydra_exca.catalog.entry_record import Json
from hydra_exca.catalog.found_entry import FoundEntry
from hydra_exca.errors import ExcaError
from hydra_exca.rerun import comparison
from hydra_exca.text import one_line

from . import consoles


def describe_entry(found: FoundEntry) -> Json:
    """Everything recorded of an entry, and the command that runs it again, if everything that it needs is there."""
    known = entry_record.read_entry(found)
    try:
        entry_rerun.read_recorded(found, known)
    except (ExcaError, OSError):
        return known
    return {**known, "rerun": f"hydra-exca rerun {shlex.quote(str(found.path))}"}


def as_json(known: Json) -> str:
    """The record as JSON."""
    return json.dumps(known, indent=1, default=str)


def as_text(known: Json) -> str:
    """The record for people: a line for each thing, and the commands that run it again."""
    lines = [f"{known['factory']},{known['version']}/{known['uid']}"]
    lines += [f"  {name:<11} {text}" for name, text in _describe(known).items() if text]
    commands = [f"  {known[name]}" for name in ("again", "rerun") if name in known]
    return "\n".join([*lines, *(["to run it again:", *commands] if commands else [])])


def _describe(known: Json) -> dict[str, str | None]:
    """A text for each thing, None or "" where nothing was recorded."""
    python, packages = known.get("python", {}), known.get("distributions")
    user_and_host = " on ".join(filter(None, [known.get("user"), known.get("host")]))
    gpus: collections.Counter[str] = collections.Counter(known.get("gpus", []))
    return {
        "status": known["status"],
        "value": _value(known),
        "error": comparison.describe_error(known["error"]) if "error" in known else None,
        "log": known.get("log"),
        "overrides": shlex.join(known.get("overrides", [])),
        "config": known.get("config"),
        "output": known["output"],
        "code": _code(known),
        "git": _git(known),
        "python": " ".join(str(python[name]) for name in ("implementation", "version", "executable") if name in python),
        "packages": packages and f"{len(packages)} installed, listed in {Path(known['path'], paths.PROVENANCE)}",
        "platform": known.get("platform"),
        "run by": ", ".join(filter(None, [user_and_host, known.get("job")])),
        "run at": _when(known),
        "memory": f"{consoles.format_size(known['peak_memory_bytes'])} at most"
        if "peak_memory_bytes" in known
        else None,
        "asked for": _resources(known),
        "retried": "; ".join(f"{_resources(each)}: {each['end']}" for each in known.get("attempts", [])),
        "tracked by": "; ".join(" ".join(run.values()) for run in known.get("trackers", [])),
        "GPUs": ", ".join(f"{count} x {name}" for name, count in gpus.items()),
    }


def _resources(record: Json) -> str:
    return ", ".join(f"{name}={value}" for name, value in record.get("resources", {}).items())


def _value(known: Json) -> str | None:
    record = known.get("value")
    if record is None:
        return None
    if "inline" in record:
        return one_line(json.dumps(record["inline"], ensure_ascii=False))
    return f"{record['format']}, {consoles.format_size(record['size'])}, in {Path(known['path'], record['file'])}"


def _code(record: Json) -> str | None:
    if "snapshot" in record:
        return str(record["snapshot"]) if Path(record["snapshot"]).is_dir() else f"{record['snapshot']}, which is gone"
    return f"{record['code']}, of which no copy was kept" if "code" in record else None


def _git(known: Json) -> str | None:
    git = known.get("git")
    if git is None:
        return None
    branch = f" on {git['branch']}" if git.get("branch") else ""
    where = git.get("remote") or git.get("root")
    commit = f"{git.get('commit') or 'no commit yet'}{branch}{f' of {where}' if where else ''}"
    if not git.get("dirty"):
        return commit
    if "patch" in known:
        return f"{commit}, changed by {known['patch']}"
    omitted = git.get("patch_omitted")
    return f"{commit}, with changes that were not kept{f' ({omitted})' if omitted else ''}"


def _when(known: Json) -> str | None:
    if known.get("started") is None:
        return None
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(known["started"]))
    return f"{began}, for {known['seconds']:.3g} s" if "seconds" in known else f"since {began}"
