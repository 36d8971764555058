"""Messages: formatting of paths and counts, and what is said once."""

from __future__ import annotations

import functools
import logging
from collections.abc import Hashable, Sequence
from pathlib import Path


def relative_path(path: Path) -> str:
    """A path relative to the working directory, if it is below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def choices(names: Sequence[str]) -> str:
    """The valid names as a sentence has them.

    >>> choices(["local"]), choices(["cached", "retry", "force"])
    ('local', 'cached, retry or force')
    """
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def one_line(text: str, characters: int = 200) -> str:
    """A text in one line, cut where it is longer.

    >>> one_line("a\\n  b"), one_line("a long text", characters=6)
    ('a b', 'a long...')
    """
    line = " ".join(text.split())
    return line if len(line) <= characters else f"{line[:characters]}..."


def with_message(kind: str, message: str) -> str:
    """An error by its kind and message, if it has one.

    >>> with_message("ValueError", "no luck"), with_message("AssertionError", "")
    ('ValueError: no luck', 'AssertionError')
    """
    return f"{kind}: {message}" if message else kind


def count_noun(count: int, one: str, many: str) -> str:
    """A number with its noun.

    >>> count_noun(1, "task is", "tasks are"), count_noun(2, "task is", "tasks are")
    ('1 task is', '2 tasks are')
    """
    return f"{count} {one if count == 1 else many}"


def name_some(names: Sequence[str], most: int = 5) -> str:
    """The first names of many, and how many more there are.

    >>> name_some(["a", "b"]), name_some(["a", "b", "c"], most=1)
    ('a, b', 'a and 2 more')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


@functools.cache
def log_once(log: logging.Logger, level: int, message: str, *args: Hashable) -> None:
    """Logs a message, unless this process has given the very same one before."""
    log.log(level, message, *args, stacklevel=2)
