"""What git ignores in a folder."""

from __future__ import annotations

import logging
from pathlib import Path

from hydra_exca import repository

log = logging.getLogger("exca.workdir")


def ignored_by_git(folder: str) -> frozenset[str]:
    """What git ignores below a folder, whole folders as one; nothing where it is in no repository, or is ignored."""
    try:
        names = repository.ignored(Path(folder))
    except repository.NoRepositoryError:
        return frozenset()
    except repository.GitError as error:
        log.warning("exca: git does not tell what it ignores in %s, so that is copied, too: %s", folder, error)
        return frozenset()
    return frozenset() if "./" in names else frozenset(f"{folder}/{name.rstrip('/')}" for name in names)
