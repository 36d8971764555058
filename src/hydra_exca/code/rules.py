"""The rules that decide which files of a project are code."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.errors import ConfigError, Problem
from hydra_exca.globs import compile_globs

AUTO = "auto"
PACKAGES = ".packages"  # in a copy: what is from outside of the script's project, a folder for each name
OWN = ("hydra_exca", "hydra_plugins", "__main__", "__mp_main__")  # what makes the copies is not copied itself
ROOT_MARKERS = (".project-root", ".git", "pyproject.toml", "setup.cfg")  # by which programs find their project's root
_TAGS = {paths.CACHEDIR_TAG, "pyvenv.cfg", "conda-meta", paths.CODE_MARK}  # of caches, environments, copies of code
_RESULTS = {paths.PROJECT, paths.NAMES}  # together: of a cache folder that is the project's, which has its tag
_OUTPUT_SUBDIR = {"config.yaml", "hydra.yaml", "overrides.yaml"}
_MULTIRUN = "multirun.yaml"
_MARKS = (*_TAGS, *_RESULTS, *_OUTPUT_SUBDIR, _MULTIRUN, ".hydra")
_OF_HYDRA = b"hydra:\n  run:\n"  # the beginning of the yaml files in which Hydra describes a run


@dataclasses.dataclass(frozen=True)
class Rules:
    """Patterns of the files to copy from a folder. Without ``includes`` it is all; ``excludes`` apply to folders, too.

    A pattern matches names; one with a slash matches paths below the folder. With ``ignores``, files that git ignores
    are skipped. A file that was named itself is copied in any case. ``never_copied`` are files and folders that
    programs write. The copy may have ``max_mb`` million bytes. ``key`` is the option that messages name.
    """

    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ("__pycache__", ".git", "*.pyc")
    ignores: bool = False
    max_mb: float | None = None
    key: str = "hydra.launcher.workdir"
    never_copied: tuple[Path, ...] = ()

    def includes_file(self, path: str) -> bool:
        """Whether ``includes`` match a file; ``path`` is relative to the folder."""
        return not self.includes or _matches(path, self.includes)

    def excludes_path(self, path: str) -> bool:
        """Whether ``excludes`` match a file or folder; ``path`` is relative to the folder that is copied."""
        return _matches(path, (*self.excludes, paths.CODE_MARK))

    def error(self, message: str, option: str = "copied") -> ConfigError:
        """The error for code that cannot be copied."""
        return self.errors([message], option)

    def errors(self, messages: list[str], option: str = "copied") -> ConfigError:
        """The error for code that cannot be copied for several reasons."""
        problems = [Problem(message, f"{self.key}.{option}") for message in messages]
        return ConfigError("The code cannot be copied; nothing was run.", problems)


def is_written(folder: str, names: tp.Collection[str] | None = None) -> bool:
    """Whether programs have written a folder: a cache, an environment, a copy of code, or the output of a Hydra run.

    ``names`` are the names in the folder, if they are known.
    """
    if names is None:
        names = [name for name in _MARKS if os.path.lexists(f"{folder}/{name}")]
    is_cache = not _TAGS.isdisjoint(names) or _RESULTS.issubset(names)
    return is_cache or _is_hydra_output(folder, names)


def _is_hydra_output(folder: str, names: tp.Collection[str]) -> bool:
    if ".hydra" in names and os.path.exists(f"{folder}/.hydra/hydra.yaml"):
        return True
    if _MULTIRUN in names and is_written_file(f"{folder}/{_MULTIRUN}"):
        return True
    return _OUTPUT_SUBDIR.issubset(names) and _is_of_hydra(f"{folder}/hydra.yaml")


def is_written_file(path: str) -> bool:
    """Whether Hydra has written a file into a sweep folder, which can be the folder of the code."""
    return path.endswith(f"/{_MULTIRUN}") and _is_of_hydra(path)


def _is_of_hydra(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(_OF_HYDRA)) == _OF_HYDRA
    except OSError:
        return False


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    of_names, of_paths = _compile_rules(patterns)
    return (of_names.match(path, path.rfind("/") + 1) or of_paths.match(path)) is not None


@functools.lru_cache
def _compile_rules(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The patterns of names, and those of paths: these have a slash other than at the end."""
    plain = [pattern.rstrip("/") for pattern in patterns]
    of_names = tuple(pattern for pattern in plain if "/" not in pattern)
    return compile_globs(of_names), compile_globs(tuple(pattern for pattern in plain if "/" in pattern))
