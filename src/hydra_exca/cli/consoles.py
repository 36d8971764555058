"""Tables on a terminal, with colors and a pager; elsewhere plain, and as wide as they are."""

from __future__ import annotations

import contextlib
import datetime
import typing as tp

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from hydra_exca.catalog.tables import cell_text

_WIDEST = 10_000  # where nobody looks at a terminal, nothing is cut
_STYLES = {
    "completed": "green",
    "failed": "red",
    "damaged": "red",
    "lost": "magenta",
    "running": "cyan",
    "queued": "yellow",
}


def print_table(
    title: str, columns: tp.Sequence[str], rows: tp.Sequence[tp.Sequence[tp.Any]], *, ends_in_prose: bool = False
) -> None:
    """Prints a table; in a pager if it is longer than the terminal.

    Long values are cut, but those of the last column if the table ``ends_in_prose``.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDEST
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for number, name in enumerate(columns):
        numeric = all(row[number] is None or isinstance(row[number], int | float) for row in rows)
        table.add_column(Text(name), justify="right" if numeric else "left", no_wrap=not ends_in_prose)
    for row in rows:
        texts = [*map(cell_text, row[:-1]), str(row[-1])] if ends_in_prose else map(cell_text, row)
        table.add_row(*(Text(text, style=_STYLES.get(text, "")) for text in texts))
    is_long = console.is_terminal and len(rows) > console.height
    with console.pager(styles=True) if is_long else contextlib.nullcontext():
        console.print(Text(title))
        if rows:
            console.print(table)


def format_size(size: int) -> str:
    """A number of bytes.

    >>> format_size(1_234_000)
    '1.23MB'
    """
    return f"{tqdm.format_sizeof(size, divisor=1000)}B"


def format_age(since: datetime.datetime | None) -> str | None:
    """How long ago it was; None if that is not known.

    >>> format_age(datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=30))
    '30 h ago'
    """
    if since is None:
        return None
    seconds = max(0, int((datetime.datetime.now(datetime.UTC) - since).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def format_counts(counts: tp.Mapping[str, int]) -> str:
    """Counts of tasks by status, the largest first.

    >>> format_counts({"failed": 1, "completed": 20})
    '20 completed, 1 failed'
    """
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items(), key=lambda pair: -pair[1]))
