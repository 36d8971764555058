"""Runs a task again in this process, from the records of its launch; nothing that is stored is touched.

Also ``python -m hydra_exca.rerun.rerun <entry> <cache> <into> <descriptor>``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import sys
import typing as tp
from pathlib import Path

from hydra_exca import clusters, paths
from hydra_exca.errors import CacheError
from hydra_exca.job import payload as payloads
from hydra_exca.job.attempt import Attempt, attempt_task
from hydra_exca.job.error_report import describe_error
from hydra_exca.job.payload import Part, Payload
from hydra_exca.store import Claim, ClaimState, Entry, launches

from .comparison import Comparison, compare_outcomes

_INTERRUPTED = 130  # as shells spell it
_PACKAGE = ".__main__"  # what a package that is a program is called in
_UNREADABLE = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError, ValueError)


class CodeGoneError(CacheError):
    """The copy of the code that computed an entry no longer exists."""


@dataclasses.dataclass(frozen=True)
class Recorded:
    """The record of one task: the payload that all jobs of its launch share, and the task's own part."""

    payload: Payload
    part: Part


def read_recorded(entry: Path, cache: Path) -> Recorded:
    """Everything needed to compute an entry of a cache again.

    Raises CacheError where that was not kept, is gone, or was written by somebody else.
    """
    launch = paths.launch_folder(cache, _token(Entry(entry)))
    position = _position(launch, entry, cache)
    try:
        payload = payloads.read_payload(launch)
        part = payloads.read_part(launch, payload, position)
    except FileNotFoundError as error:
        raise CacheError(f"{entry.name} cannot be run again: its launch has not kept {error.filename}") from error
    except PermissionError as error:
        raise CacheError(f"{error.filename} cannot be read: {error.strerror}") from error
    except _UNREADABLE as error:
        problem = f"{type(error).__name__}: {error}"
        raise CacheError(f"{launch / paths.PAYLOAD} cannot be read: {problem}; was another version here?") from error
    if Path(part.entry).name != entry.name:
        raise CacheError(f"{launch / paths.LAUNCH_RECORD} is damaged: what it says of {entry.name} is of {part.entry}")
    payload = _with_code_of(payload, cache)
    if not Path(payload.working_directory).is_dir():
        raise CacheError(
            f"{entry.name} cannot be run again: it was started in {payload.working_directory}, which is gone"
        )
    return Recorded(payload, part)


def started_module(launch: Path) -> str | None:
    """The module that a launch was started as, by ``python -m``; None if it was a script, or that is not recorded."""
    try:
        payload = payloads.read_payload(launch)
    except (OSError, CacheError, *_UNREADABLE):
        return None
    name = payload.main_name or ""
    if name.endswith(_PACKAGE):
        return name.removesuffix(_PACKAGE)
    return None if payload.script is None else payload.script.module


def rerun_task(entry: Path, cache: Path, into: Path) -> Comparison:
    """Computes an entry once more, below the folder ``into``, and compares."""
    recorded = read_recorded(entry, cache)
    scratch = Entry(into / entry.relative_to(cache))
    token = paths.launch_folder(cache, _token(Entry(entry))).name
    scratch.create()
    owner = clusters.describe_process()
    scratch.publish_claim(Claim(1, ClaimState.QUEUED, token, "local", None, 0, owner))
    attempt_task(scratch, recorded.part.identity, token, _make_compute(recorded, into), copy=recorded.payload.copy)
    return compare_outcomes(Entry(entry), scratch)


def _make_compute(recorded: Recorded, into: Path) -> tp.Callable[[Attempt], tp.Any]:
    """A function that computes the task as its job did, but writes below ``into``."""

    def compute(attempt: Attempt) -> tp.Any:
        try:
            program = recorded.payload.load_program()
            argument = pickle.loads(recorded.part.argument)
            elsewhere = getattr(program, "elsewhere", None)
            return program(argument if elsewhere is None else elsewhere(argument, into), attempt)
        except Exception as error:  # the comparison names it in one line
            print(describe_error(error)["traceback"], file=sys.stderr, flush=True)
            raise

    return compute


# the records


def _token(entry: Entry) -> str:
    """The token of the launch that computed the entry or is computing it."""
    source = entry.readable_outcome() or entry.current_claim()
    token = None if source is None else source.token
    if not token:
        raise CacheError(f"{entry.uid} cannot be run again: it does not record which launch computed it")
    return token


def _position(launch: Path, entry: Path, cache: Path) -> int:
    """The number of a task in its launch; raises CacheError if the launch's record does not have it."""
    record = launch / paths.LAUNCH_RECORD
    if not os.path.exists(record):
        raise CacheError(f"{entry.name} cannot be run again: the record of its launch, {launch}, is gone")
    entries, name = launches.read_record(launch).get("entries"), str(entry.relative_to(cache))
    if not isinstance(entries, list) or name not in entries:
        raise CacheError(f"{entry.name} cannot be run again: {record} does not list it")
    return entries.index(name)


def _with_code_of(payload: Payload, cache: Path) -> Payload:
    """The same with the copy of its code that is in the cache now, which may have been moved."""
    copy = payload.copy
    if copy is None:
        return payload
    here = cache / paths.CODE / copy.folder.name
    places = [here, copy.folder] if copy.folder.parent.name == paths.CODE else [copy.folder]
    found = next(filter(Path.is_dir, places), None)
    if found is None:
        raise CodeGoneError(f"the copy of the code that computed it is gone: there is no {places[0]}")
    return _moved(payload, str(copy.folder), str(found))


def _moved(payload: Payload, old: str, new: str) -> Payload:
    def moved(path: str) -> str:
        return new + path[len(old) :] if path == old or path.startswith(old + os.sep) else path

    script = payload.script
    return dataclasses.replace(
        payload,
        search_path=tuple(map(moved, payload.search_path)),
        working_directory=moved(payload.working_directory),
        script=None if script is None else dataclasses.replace(script, path=moved(script.path)),
        copy=None if payload.copy is None else dataclasses.replace(payload.copy, folder=Path(new), seal=None),
    )


def rerun_and_report(entry: str, cache: str, into: str, descriptor: str) -> None:
    """Runs a task again, and writes the comparison to a file that is open under ``descriptor``."""
    os.set_inheritable(int(descriptor), False)
    found = rerun_task(Path(entry), Path(cache), Path(into))
    os.write(int(descriptor), json.dumps(dataclasses.asdict(found)).encode())


if __name__ == "__main__":
    from hydra_exca.rerun.rerun import rerun_and_report as report  # not this module's own copy, which is __main__

    try:
        report(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
