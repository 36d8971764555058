"""Root markers in a copy of code: the files by which programs find the root of their project, as rootutils does."""

from __future__ import annotations

import contextlib
import os
import typing as tp
from pathlib import Path

from .listing import folders_around
from .rules import PACKAGES, ROOT_MARKERS
from .snapshot import Sources


class RootMarkers(tp.NamedTuple):
    """The markers, by the names of their copies: the content of a file, None for an empty folder.

    ``roots`` are the folders around the sources that a folder of the copy stands for.
    """

    contents: dict[str, bytes | None]
    roots: Sources


def find_root_markers(sources: Sources, names: tp.Collection[str]) -> RootMarkers:
    """The markers in all folders of a copy that has files with these ``names``, unless they are among them.

    ``.git`` is an empty folder, which git itself passes over.
    """
    resolved = [(source.resolve(), copy) for source, copy in sources]
    roots: dict[Path, Path] = {}
    for source, copy in resolved:
        for folder, stand_in in _folders_above(source, copy):
            roots.setdefault(stand_in, folder)
    above = [(folder, place) for place, folder in roots.items()]
    originals = sorted((*resolved, *above), key=lambda pair: -len(pair[1].parts))
    contents: dict[str, bytes | None] = {}
    for place in sorted(folders_around(names)):
        original = _original_folder(Path(place), originals)
        found = {} if original is None else _markers_in(original)
        contents |= {os.path.join(place, name): content for name, content in found.items()}
    return RootMarkers(
        {name: content for name, content in contents.items() if name not in names},
        tuple(above),
    )


def _folders_above(source: Path, copy: Path) -> tp.Iterator[tuple[Path, Path]]:
    """The folders around a source, with the folders of the copy that stand for them.

    A package from outside of the project has one: the root of its own project.
    """
    if copy.parts[:1] == (PACKAGES,):
        root = next((folder for folder in source.parents if _markers_in(folder)), None)
        if root is not None:
            yield root, Path(*copy.parts[:2])
        return
    for folder, place in zip(source.parents, copy.parents, strict=False):
        if source.relative_to(folder) != copy.relative_to(place):
            return
        yield folder, place


def _original_folder(place: Path, originals: tp.Iterable[tuple[Path, Path]]) -> Path | None:
    return next((source / place.relative_to(copy) for source, copy in originals if place.is_relative_to(copy)), None)


def _markers_in(folder: Path) -> dict[str, bytes | None]:
    markers: dict[str, bytes | None] = {}
    for name in ROOT_MARKERS:
        path = f"{folder}/{name}"
        with contextlib.suppress(OSError):
            if name == ".git" and os.path.exists(path):
                markers[name] = None
            elif os.path.isfile(path):
                markers[name] = Path(path).read_bytes()
    return markers
