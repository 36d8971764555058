"""``hydra-exca ls``: what a cache folder holds."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path

import click
from tqdm import tqdm

from hydra_exca import paths
from hydra_exca.catalog import summary
from hydra_exca.catalog.summary import FactorySummary
from hydra_exca.errors import CacheError
from hydra_exca.text import count_noun

from . import consoles

_COLUMNS = ("factory", "version", "results", "status", "size", "newest")


def list_cache(cache: Path, with_sizes: bool, as_json: bool) -> None:
    """Prints the factories of a cache folder, its launches and copies of code."""
    if not cache.is_dir():
        raise CacheError(f"there is no folder {cache} with results")
    factories = summary.summarize_factories(cache, with_sizes)
    launches, snapshots = len(summary.list_launches(cache)), len(summary.list_snapshots(cache))
    if as_json:
        rows = [dataclasses.asdict(factory) for factory in factories]
        known = {"folder": str(cache), "factories": rows, "launches": launches, "snapshots": snapshots}
        click.echo(json.dumps(known, indent=1, default=str))
        return
    counts = f"{count_noun(launches, 'launch', 'launches')}{_size_of(cache / paths.LAUNCHES, with_sizes)}"
    code = f"{count_noun(snapshots, 'copy', 'copies')} of code{_size_of(cache / paths.CODE, with_sizes)}"
    consoles.print_table(f"{cache}: {counts}, {code}", _COLUMNS, [_row(factory) for factory in factories])


def _row(factory: FactorySummary) -> list[str | int | None]:
    statuses = sorted(factory.statuses.items(), key=lambda pair: -pair[1])
    return [
        factory.factory,
        factory.version,
        sum(factory.statuses.values()),
        ", ".join(f"{count} {status}" for status, count in statuses),
        None if factory.size is None else _format_size(factory.size),
        None if factory.newest is None else _age(datetime.datetime.now(datetime.UTC) - factory.newest),
    ]


def _size_of(folder: Path, is_wanted: bool) -> str:
    return f" ({_format_size(summary.folder_size(folder))})" if is_wanted else ""


def _format_size(size: int) -> str:
    return f"{tqdm.format_sizeof(size, divisor=1000)}B"


def _age(age: datetime.timedelta) -> str:
    """How long ago it was.

    >>> _age(datetime.timedelta(seconds=5)), _age(datetime.timedelta(hours=30))
    ('5 s ago', '30 h ago')
    """
    seconds = max(0, int(age.total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"
