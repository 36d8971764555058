"""What the wheel ships: every file of the three roots, once, and nothing else."""

from __future__ import annotations

import collections
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from repositories import copy_of_project

pytestmark = pytest.mark.app
ROOTS = {"src/hydra_exca": "hydra_exca", "conf": "hydra_exca/conf", "hydra_plugins": "hydra_plugins"}


def files_of(tree: Path) -> set[str]:
    """Where each file of the roots is installed; the links in src are other names of roots."""
    return {
        f"{installed}/{path.relative_to(tree / root).as_posix()}"
        for root, installed in ROOTS.items()
        for path in (tree / root).rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_the_wheel_has_each_file_of_the_sources_once(tmp_path: Path) -> None:
    tree = copy_of_project(tmp_path / "tree")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(tree)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    shipped = collections.Counter(name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name)
    assert shipped == collections.Counter(files_of(tree))
