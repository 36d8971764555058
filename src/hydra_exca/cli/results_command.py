"""``hydra-exca results``: many results as a table, or as CSV, JSON, Markdown or parquet."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import io
import json
import math
import typing as tp
from pathlib import Path

import click

from hydra_exca import files
from hydra_exca.catalog.listing import read_records
from hydra_exca.catalog.places import find_tasks
from hydra_exca.catalog.results import Results
from hydra_exca.catalog.tables import cell_text
from hydra_exca.errors import ConfigError

from . import consoles

Rows = list[tuple[tp.Any, ...]]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which results are printed, and how. ``form`` None is a table."""

    form: str | None = None
    sort: str | None = None
    columns: str | None = None
    all_columns: bool = False
    limit: int | None = None
    output: Path | None = None


def find_results(place: str | None, folder: Path | None, condition: str | None) -> Results:
    """The results in a place for which a condition holds."""
    listing = find_tasks(place, folder)
    found = Results(listing.name, read_records(listing.tasks))
    return found if condition is None else found.filter(condition)


def print_results(found: Results, layout: Layout) -> None:
    """Prints results, or writes them to a file."""
    if layout.sort is not None:
        found = found.sort(layout.sort.removeprefix("-"), descending=layout.sort.startswith("-"))
    found = found if layout.limit is None else found[: layout.limit]
    columns = _choose_columns(found, layout)
    rows: Rows = list(zip(*map(found.column, columns), strict=True))
    if layout.form == "parquet":
        _write_parquet(found, columns, layout.output)
    elif layout.form is None and layout.output is None:
        consoles.print_table(str(found), columns, rows)
    else:
        text = _WRITERS[layout.form or "csv"](columns, rows)
        if layout.output is None:
            click.echo(text, nl=False)
        else:
            layout.output.write_text(text, encoding="utf8")


def _choose_columns(found: Results, layout: Layout) -> list[str]:
    if layout.columns is not None:
        return [name.strip() for name in layout.columns.split(",")]
    return found.all_columns if layout.all_columns or layout.form == "json" else found.columns


def _as_csv(columns: tp.Sequence[str], rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_plain(value) for value in row] for row in rows)
    return text.getvalue()


def _as_json(columns: tp.Sequence[str], rows: Rows) -> str:
    records = [{name: _plain(value) for name, value in zip(columns, row, strict=True)} for row in rows]
    return f"{json.dumps(records, indent=1, default=str)}\n"


def _as_markdown(columns: tp.Sequence[str], rows: Rows) -> str:
    cells = [columns, ["---"] * len(columns), *([cell_text(value) for value in row] for row in rows)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in cells)


def _write_parquet(found: Results, columns: list[str], output: Path | None) -> None:
    if output is None:
        raise ConfigError("parquet is not text: name a file with -o")
    files.write_file(output, found.to_pandas(columns=columns).to_parquet(), durable=False)


def _plain(value: tp.Any) -> tp.Any:
    """A value for other programs: nan and infinity are no numbers of JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.isoformat() if isinstance(value, datetime.datetime) else value


_WRITERS: dict[str, tp.Callable[[tp.Sequence[str], Rows], str]] = {
    "csv": _as_csv,
    "json": _as_json,
    "md": _as_markdown,
}
FORMS = [*_WRITERS, "parquet"]
