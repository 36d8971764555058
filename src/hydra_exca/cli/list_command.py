"""``hydra-exca ls``: what a cache folder holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from hydra_exca import paths
from hydra_exca.catalog import summary
from hydra_exca.catalog.listing import list_launches
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
    launches, snapshots = len(list_launches(cache)), len(summary.list_snapshots(cache))
    if as_json:
        rows = [dataclasses.asdict(factory) for factory in factories]
        known = {"folder": str(cache), "factories": rows, "launches": launches, "snapshots": snapshots}
        click.echo(json.dumps(known, indent=1, default=str))
        return
    counts = f"{count_noun(launches, 'launch', 'launches')}{_size_of(cache / paths.LAUNCHES, with_sizes)}"
    code = f"{count_noun(snapshots, 'copy', 'copies')} of code{_size_of(cache / paths.CODE, with_sizes)}"
    consoles.print_table(f"{cache}: {counts}, {code}", _COLUMNS, [_row(factory) for factory in factories])


def _row(factory: FactorySummary) -> list[str | int | None]:
    return [
        factory.factory,
        factory.version,
        sum(factory.statuses.values()),
        consoles.format_counts(factory.statuses),
        None if factory.size is None else consoles.format_size(factory.size),
        consoles.format_age(factory.newest),
    ]


def _size_of(folder: Path, is_wanted: bool) -> str:
    return f" ({consoles.format_size(summary.folder_size(folder))})" if is_wanted else ""
