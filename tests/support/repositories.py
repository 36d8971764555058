"""Git repositories for tests, and a git that is not what it should be."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from places import ROOT

_AUTHOR = ("-c", "user.name=me", "-c", "user.email=me@host.org")


def git(folder: Path, *arguments: str) -> str:
    """What git prints of a folder."""
    command = ["git", "-C", str(folder), *_AUTHOR, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def in_its_place(path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program of the name git, before the real one."""
    path.mkdir()
    (path / "git").write_text(f"#!/bin/sh\n{script}\n")
    (path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{path}{os.pathsep}{os.environ['PATH']}")


def copy_of_project(place: Path, folder: str = "") -> Path:
    """Copies the project, or a folder of it: its own files, and nothing that a run or a build has left."""
    listed = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, git(ROOT / folder, *listed).split("\0")):
        source, target = ROOT / folder / name, place / name
        if source.is_symlink() or source.exists():  # what was deleted is listed until that is committed
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return place
