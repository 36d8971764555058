"""What goes into a report: the records of many tasks as plain JSON, within a budget."""

from __future__ import annotations

import collections
import datetime
import math
import os
import re
import shlex
import time
import typing as tp
from pathlib import Path

from hydra_exca import files
from hydra_exca.catalog import entry_record
from hydra_exca.catalog.column_names import MISSING
from hydra_exca.catalog.record import Record
from hydra_exca.catalog.results import Results
from hydra_exca.errors import CorruptEntryError
from hydra_exca.launch.user_frames import own_frames

from . import outputs

Json = dict[str, tp.Any]
_MOST_CELLS = 150_000
_MOST_CONFIG_CELLS = 100_000
_MOST_TEXT = 2_000
_NUMBER = re.compile(r"\d+")
_LOG_BYTES = 3_000
_PROVENANCE = ("launch", "user", "git", "code", "snapshot", "python", "platform", "resources", "trackers", "again")
_PATHS = ("path", "output", "log", "config")


def collect(results: Results) -> Json:
    """The data of a page about these results, without the pictures and curves of their outputs."""
    known = [_read_known(record) for record in results]
    places = results.shown_places
    most = max(10, _MOST_CELLS // max(1, len(results)))
    readers = dict(list(places.items())[:most])
    cells = [[_plain(record.cell(place)) for place in readers] for record in results]
    configs, common = _configs(results)
    provenance, numbers = _intern(
        [{name: _plain(each[name]) for name in _PROVENANCE if name in each} for each in known]
    )
    left_out = len(places) - len(readers)
    return {
        "title": results.name,
        "made": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        "now": time.time() * 1000,
        "where": next((str(record.cache) for record in results), ""),
        "command": next((each["again"] for each in known if "again" in each), ""),
        "counts": dict(collections.Counter(record.status for record in results).most_common()),
        "notes": [f"{left_out} more columns are left out."] if left_out > 0 else [],
        "columns": [
            {"name": name, "space": place.space, "numeric": _is_numeric([row[index] for row in cells])}
            for index, (place, name) in enumerate(readers.items())
        ],
        "rows": cells,
        "common": common,
        "provenance": provenance,
        "records": [
            {**_describe(record, each), "config": config, "provenance": number}
            for record, each, config, number in zip(results, known, configs, numbers, strict=True)
        ],
        "failures": _group_failures(results),
        "pictures": [],
        "curves": [],
        "curveNames": [],
    }


def add_outputs(data: Json, results: Results, budget: int) -> None:
    """Adds curves and pictures that tasks have written, up to ``budget`` bytes, and notes what is left out."""
    folders = [record.output for record in results]
    curves, pictures = outputs.read_outputs(folders, budget)
    data["curves"], data["pictures"] = curves.items, pictures.items
    data["curveNames"] = list(dict.fromkeys(curve["name"] for curve in curves.items))
    for name, found in (("curves", curves), ("pictures", pictures)):
        if found.left_out:
            data["notes"].append(f"{found.left_out} {name} are left out, to keep this file small.")


def _read_known(record: Record) -> Json:
    try:
        return {} if record.path is None else entry_record.read_entry(record.entry())
    except (CorruptEntryError, OSError):
        return {}


def _describe(record: Record, known: Json) -> Json:
    """What the page says of one task beside its columns."""
    started, ended = record.started, record.ended
    about = {"uid": record.uid, "factory": record.factory, "version": record.version, "job": known.get("job")}
    paths = {name: str(known[name]) for name in _PATHS if known.get(name)}
    return {
        "uid": record.uid,
        "status": record.status,
        "overrides": shlex.join(map(str, record.overrides if not known else known.get("overrides", []))),
        "error": _shorten(record.error),
        "traceback": None if record.traceback is None else record.traceback[-_MOST_TEXT:],
        "host": record.host,
        "started": None if started is None else started.timestamp() * 1000,
        "ended": None if ended is None else ended.timestamp() * 1000,
        "rerun": None if record.path is None else f"hydra-exca rerun {shlex.quote(str(record.path))}",
        "about": {name: value for name, value in {**about, **paths}.items() if value is not None},
    }


def _configs(results: Results) -> tuple[list[Json], Json]:
    """The configuration of each record without what all have in common, and that."""
    configs = [{str(key): _plain(leaf) for key, leaf in record.config.flat().items()} for record in results]
    first = configs[0] if configs else {}
    common = {key: leaf for key, leaf in first.items() if all(config.get(key, MISSING) == leaf for config in configs)}
    most = max(10, _MOST_CONFIG_CELLS // max(1, len(configs)))
    own = [[(key, leaf) for key, leaf in config.items() if key not in common] for config in configs]
    return [dict(pairs[:most]) for pairs in own], common


def _intern(values: tp.Sequence[Json]) -> tuple[list[Json], list[int]]:
    """Each value once, and which one each record has."""
    numbers: dict[str, int] = {}
    unique: list[Json] = []
    for value in values:
        if repr(value) not in numbers:
            numbers[repr(value)] = len(unique)
            unique.append(value)
    return unique, [numbers[repr(value)] for value in values]


def _group_failures(results: Results) -> list[Json]:
    """The failures, each kind once: by the error, and the place in the user's code."""
    groups: dict[tuple[str, str], list[int]] = {}
    for row, record in enumerate(results):
        if record.error is not None or record.status in ("failed", "lost"):
            error = record.error or str(record.status)
            frames = own_frames(record.traceback or "")
            key = (error.partition(":")[0], str(frames[-1])) if frames else (_NUMBER.sub("", error), "")
            groups.setdefault(key, []).append(row)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [
        {
            "error": _shorten(results[rows[0]].error) or results[rows[0]].status,
            "place": place,
            "rows": rows,
            "log": _log_end(results[rows[0]].log) if number < 100 else None,
        }
        for number, ((_, place), rows) in enumerate(ordered)
    ]


def _log_end(log: Path | None) -> str | None:
    try:
        return None if log is None else files.read_end(os.path.realpath(log), _LOG_BYTES)
    except (CorruptEntryError, OSError):
        return None


def _is_numeric(cells: tp.Sequence[tp.Any]) -> bool:
    """Whether a column is one of numbers: others in it are those that JSON cannot write, or missing."""
    there = [cell for cell in cells if cell is not None]
    kinds = [type(cell) in (int, float) or cell in ("nan", "inf", "-inf") for cell in there]
    return all(kinds) and any(type(cell) in (int, float) for cell in there)


def _plain(value: tp.Any) -> tp.Any:
    """A value as JSON has it: no nan, no types of ours, no text without end."""
    if value is MISSING or value is None or isinstance(value, bool):
        return None if value is MISSING else value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return _shorten(str(value)) if len(str(value)) > _MOST_TEXT else [_plain(each) for each in value]
    return _shorten(value.isoformat(" ", "seconds") if isinstance(value, datetime.datetime) else str(value))


def _shorten(text: str | None) -> str | None:
    return text if text is None or len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]} ..."
