"""The lines of a traceback that are the user's own."""

from __future__ import annotations

import re
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.text import relative_path

_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+), in (?P<name>.+)\n(?:    (?P<code>\S.*)\n)?', re.M)
_LIBRARY = re.compile(r"/(site|dist)-packages/|/lib/python3[^/]*/|^<")
_GROUP = "Exception Group Traceback"
_MARGIN = re.compile(r"^ *[|+] ", re.M)
_COPY = re.compile(rf"^.*/{paths.CODE}/[0-9a-f]{{16}}/")


class Frame(tp.NamedTuple):
    """One line of a traceback."""

    file: str
    line: str
    name: str
    code: str | None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}, in {self.name}" + (f": {self.code}" if self.code else "")


def own_frames(traceback: str) -> list[Frame]:
    """The frames of the user's own code in a traceback as text, of its last error; if it has none, all frames.

    Files in a copy of the code are named as in the project.
    """
    frames = [Frame(**match.groupdict()) for match in _FRAME.finditer(_last_error(traceback))]
    own = [frame for frame in frames if not _LIBRARY.search(frame.file)] or frames
    return [frame._replace(file=_COPY.sub("", relative_path(Path(frame.file)))) for frame in own]


def _last_error(traceback: str) -> str:
    """The part of a traceback that is about its last error; of a group of errors, that of the last in it."""
    if _GROUP in traceback:
        traceback = _MARGIN.sub("", traceback)
    return traceback.rpartition("Traceback (most recent call last):\n")[2]
