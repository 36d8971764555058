"""Worlds: assumed values of all that belongs to a run."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import re
import typing as tp
from pathlib import Path

from hydra_exca.identity.canonical import encode
from hydra_exca.identity.scalars import Json


@dataclasses.dataclass(frozen=True)
class World:
    """Assumed values of all that belongs to a run. The real world has no ``root``, and nothing is assumed in it.

    ``variable`` is the value that oc.env gives for each variable of the run, None if they are not set; ``environ`` is
    the value that custom resolvers find in os.environ, ``size`` that of sizes of the job there if it is another.
    """

    now: dt.datetime
    root: str = ""
    cwd: str = ""
    job_id: str = ""
    variable: str | None = None
    environ: str = ""
    size: str = ""

    @property
    def size_variable(self) -> str:
        """What oc.env gives for a size of the job: like ``variable``, but no job has size 0."""
        return str(int(self.variable or 0) + 1)


# The times share no field of strftime. Below /dev/null no resolver finds or creates anything. The digits are those
# that index short lists and that scripts have special cases for: oc.env gives these, while a resolver that reads
# os.environ by itself finds the run's variables unset in one world and set in the other.
_FIRST, _SECOND = "/dev/null/first", "/dev/null/another/second.world"


FIRST = World(dt.datetime(2001, 2, 3, 4, 5, 6, 70809), _FIRST, f"{_FIRST}/cwd", "0", "0")


SECOND = World(dt.datetime(1987, 11, 24, 19, 48, 57, 654321), _SECOND, f"{_SECOND}/cwd", "1", "1", "2")


OTHER_SIZE = dataclasses.replace(SECOND, size="3")
"""For resolvers that read the whole environment: it shows whether they use a size."""


def project_world(folder: str) -> World:
    """Constant like `FIRST`, but in the real working directory, whose files a resolver may find.

    The variables of the run are not set, so that the defaults which replace them count.
    """
    return dataclasses.replace(FIRST, cwd=folder, variable=None)


def without_folder(form: Json, folder: str) -> Json:
    """A canonical form in which paths below a folder do not show where it is."""
    return _replace_texts(form, {str(each): "<run>" for each in _folder_paths(folder)})


def depends_on_folder(first: Json, here: Json, folder: str) -> bool:
    """Whether the canonical form ``here``, in the `project_world` of ``folder``, differs from ``first``, in `FIRST`.

    They are equal if both are made in the same way of the names of the working directory and of the folders around it.
    """
    return encode(_relative_to_folder(first, FIRST.cwd)) != encode(_relative_to_folder(here, folder))


def _relative_to_folder(form: Json, folder: str) -> Json:
    names: dict[str, str] = {}
    for place in _folder_paths(folder):
        names |= {str(each): f"<run{'/..' * level}>" for level, each in enumerate([place, *place.parents][:-1])}
    return _replace_texts(form, names, {place.name: "<name>" for place in _folder_paths(folder)})


def _folder_paths(folder: str) -> set[Path]:
    return {Path(os.path.abspath(folder)), Path(os.path.realpath(folder))} - {Path("/")}


def _replace_texts(form: Json, parts: tp.Mapping[str, str], wholes: tp.Mapping[str, str] | None = None) -> Json:
    """A form in which ``parts`` of texts, and texts that are ``wholes``, are replaced; keys, too."""
    pattern = re.compile("|".join(map(re.escape, sorted(parts, key=len, reverse=True))) or r"(?!)")

    def masked(node: Json) -> Json:
        if isinstance(node, dict):
            return {masked(key): masked(child) for key, child in node.items()}
        if isinstance(node, list):
            return list(map(masked, node))
        if not isinstance(node, str):
            return node
        return (wholes or {}).get(node) or pattern.sub(lambda hit: parts[hit[0]], node)

    return masked(form)


def is_same_for_all_jobs(resolver: str, arguments: str) -> bool:
    """Whether a resolver gives all jobs of a launch the same, in whichever world."""
    return resolver in ("now", "oc.env") or (resolver == "hydra" and arguments == "runtime.cwd")


def is_same_where_assumed(resolver: str, arguments: str) -> bool:
    """Whether it gives them the same where all that belongs to a run is assumed."""
    return is_same_for_all_jobs(resolver, arguments) or (
        resolver == "hydra" and arguments in ("runtime.output_dir", "job.id")
    )
