"""Whether the code that is copied is what is committed to git."""

from __future__ import annotations

import os
import typing as tp
from pathlib import Path

from hydra_exca import repository
from hydra_exca.errors import ConfigError, Problem

from .listing import Sources, listing
from .rules import Rules

_SHOWN = 20


def committed(sources: Sources, left_out: tp.Collection[Path], rules: Rules) -> dict[Path, str]:
    """The commit of each repository that the sources are in.

    All that is copied, and all else that git knows of these repositories, must be committed: ConfigError lists what
    is not.
    """
    files: dict[Path, set[str]] = {}
    commits: dict[Path, str] = {}
    for source, copy in sources:
        around = repository.of(source if source.is_dir() else source.parent)
        if around is None or around.commit is None:
            raise _uncommitted([f"{source} is in no git repository, or in one without a commit"], rules)
        commits[around.root] = around.commit
        found = listing(((source, copy),), left_out, rules).values()
        files.setdefault(around.root, set()).update(_resolved(file.path) for file in found)
    changes = [f"{root / name}" for root in commits for name in _changed(root, files[root], rules)]
    if changes:
        raise _uncommitted(changes, rules)
    return commits


def _resolved(path: str) -> str:
    """The place of a file; of a link its own, since git knows it by that."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _changed(root: Path, files: set[str], rules: Rules) -> list[str]:
    """What differs from the commit, and what of the files is in none."""
    try:
        known = repository.known(root)
        changes = repository.changes(root, untracked=False)
    except repository.GitError as error:
        raise _uncommitted([f"git says of {root}: {error}"], rules) from error
    home = root.resolve()
    return sorted({*changes, *({os.path.relpath(file, home) for file in files} - known)})


def _uncommitted(changes: tp.Sequence[str], rules: Rules) -> ConfigError:
    shown = [Problem(change, f"{rules.key}.log_commit") for change in changes[:_SHOWN]]
    more = len(changes) - len(shown)
    if more:
        shown.append(Problem(f"and {more} more", f"{rules.key}.log_commit"))
    return ConfigError("The code is not what is committed to git; commit it first. Nothing was run.", shown)
