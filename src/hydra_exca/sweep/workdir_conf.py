"""The schema of ``hydra.launcher.workdir`` and ``hydra.callbacks.exca.workdir``.

In a module of its own: composing imports it for the schema of the launcher, and needs nothing else of this package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class WorkdirConf:
    """The code that jobs import. The callback's file, conf/hydra/callbacks/exca.yaml, has the same defaults."""

    # the code to copy for the jobs: auto (the script's project, and what else it imports from outside of
    # site-packages) or a list of folders, files and packages; null: jobs import the code from where it is
    copied: Any = "auto"
    # patterns of the files to copy from folders, and of files and folders not to copy
    includes: list[str] = field(default_factory=lambda: ["*.py", "*.yaml", "*.yml", "*.toml"])
    excludes: list[str] = field(default_factory=lambda: ["__pycache__", ".git"])
    # copy files that git ignores, too
    git_ignored: bool = False
    # a folder for the copy, instead of the cache
    folder: str | None = None
    # refuse to launch if there are uncommitted changes
    log_commit: bool = False
    # the largest size of the copy, and of the uncommitted changes, in million bytes
    max_mb: float = 50.0
    # make the copy the working directory of the jobs, too
    chdir: bool = False
