"""Where code comes from: the git repository around a folder, asked without changing anything in it."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Git:
    """The repository around a folder: ``commit`` and ``remote`` are None where there is none yet."""

    root: Path
    path: str
    commit: str | None
    remote: str | None


def git(folder: Path) -> Git | None:
    """The repository around ``folder``, None if it is in none or git is not installed."""
    root = _ask(folder, "rev-parse", "--show-toplevel")
    if root is None:
        return None
    remote = _ask(folder, "config", "--get", "remote.origin.url")
    return Git(
        root=Path(root),
        path=_ask(folder, "rev-parse", "--show-prefix") or "",
        commit=_ask(folder, "rev-parse", "--verify", "-q", "HEAD"),
        remote=None if remote is None else plain_remote(remote),
    )


def plain_remote(url: str) -> str:
    """One spelling for the ways to reach the same repository, without anybody's password.

    >>> plain_remote("https://me:secret@host.org/team/code.git"), plain_remote("git@host.org:team/code")
    ('host.org/team/code', 'host.org/team/code')
    """
    url = re.sub(r"^[a-z+]+://", "", url.strip())
    url = re.sub(r"^[^@/]*@", "", url)
    url = re.sub(r"^([\w.\-]+):(?!\d+/)", r"\1/", url)
    return url.removesuffix("/").removesuffix(".git")


def _ask(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
