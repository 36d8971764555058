"""Small tables: as text for terminals, and as HTML for notebooks."""

from __future__ import annotations

import datetime
import html
import shutil
import typing as tp

from hydra_exca.text import one_line

from .column_names import MISSING

MOST_ROWS = 30
_WIDEST = 40
_GAP = "  "
Rows = tp.Sequence[tp.Sequence[tp.Any]]


def as_text(title: str, columns: tp.Sequence[str], rows: Rows) -> str:
    """The title and the table; the columns that the terminal has room for."""
    texts = [[str(number), *map(cell_text, row)] for number, row in enumerate(rows)]
    widths = [max(map(len, column)) for column in zip(["", *columns], *texts, strict=True)]
    room, fitting = shutil.get_terminal_size((120, 0)).columns, 1
    while fitting < len(widths) and sum(widths[: fitting + 1]) + len(_GAP) * fitting <= room:
        fitting += 1
    numeric = [_is_numeric(column) for column in zip(*rows, strict=True)] if rows else [False] * len(columns)
    lines = [_line(row, widths[:fitting], [True, *numeric]) for row in (["", *columns], *texts)] if rows else []
    hidden = columns[fitting - 1 :]
    more = [f"more columns: {', '.join(hidden)}"] if hidden and rows else []
    return "\n".join([title, *lines, *more])


def as_html(title: str, columns: tp.Sequence[str], rows: Rows) -> str:
    """The title and the whole table. All text is escaped."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *columns))
    body = "".join(
        f"<tr><th>{number}</th>{''.join(f'<td>{html.escape(cell_text(value))}</td>' for value in row)}</tr>"
        for number, row in enumerate(rows)
    )
    return f"<p>{html.escape(title)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def cell_text(value: tp.Any) -> str:
    """A value as a cell shows it.

    >>> cell_text(0.123456789), cell_text(None), cell_text(3)
    ('0.1235', '', '3')
    """
    if value is MISSING or value is None:
        return ""
    if isinstance(value, float):
        return format(value, ".4g")
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ", "seconds")[:19]
    if isinstance(value, list):
        value = " ".join(map(str, value)) if all(isinstance(part, str) for part in value) else value
    return one_line(str(value), _WIDEST)


def _line(cells: tp.Sequence[str], widths: tp.Sequence[int], right: tp.Sequence[bool]) -> str:
    fitted = zip(cells, widths, right, strict=False)
    return _GAP.join(cell.rjust(width) if is_right else cell.ljust(width) for cell, width, is_right in fitted).rstrip()


def _is_numeric(column: tp.Iterable[tp.Any]) -> bool:
    return all(value is MISSING or value is None or isinstance(value, int | float) for value in column)
