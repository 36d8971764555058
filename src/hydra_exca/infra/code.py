"""The copy of code that an infra's method runs in."""

from __future__ import annotations

from pathlib import Path

import pydantic

from hydra_exca.code import Code, CodeOptions
from hydra_exca.payload import located
from hydra_exca.workdir import Rules

_KEY = "infra.workdir"


class WorkDir(pydantic.BaseModel):
    """A copy of code, made when jobs are submitted, that the method runs in: it is their working directory.

    ``copied`` names files, folders and importable packages, installed in editable mode or not. Of folders it takes the
    files that match ``includes`` (none: all), and passes over the files and folders that match ``excludes``. The copy
    goes into the cache, where it is read-only, or to ``folder``. With ``log_commit`` all of it must be committed to
    git. It may have ``max_mb`` million bytes. Without ``chdir`` the working directory stays what it is.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    copied: tuple[Path | str, ...] = pydantic.Field(min_length=1)
    folder: Path | str | None = None
    log_commit: bool = False
    includes: tuple[str, ...] = ("*.py",)
    excludes: tuple[str, ...] = ("__pycache__", ".git")
    max_mb: float | None = pydantic.Field(None, gt=0)
    chdir: bool = True


def of(settings: WorkDir, cache: Path) -> Code:
    """The code that is copied for a launch; ``cache`` is the folder of its results."""
    options = CodeOptions(
        copied=tuple(map(str, settings.copied)),
        rules=Rules(settings.includes, settings.excludes, max_mb=settings.max_mb, key=_KEY),
        folder=None if settings.folder is None else located(settings.folder),
        log_commit=settings.log_commit,
        chdir=settings.chdir,
    )
    return Code(options, cache)
