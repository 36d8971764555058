"""Trees of code for tests: written, listed, copied, compared."""

from __future__ import annotations

import dataclasses
import os
import typing as tp
from collections.abc import Callable
from pathlib import Path

from hydra_exca.code.listing import list_files
from hydra_exca.code.manifest import make_manifest
from hydra_exca.code.rules import Rules
from hydra_exca.code.selection import automatic_sources, select_sources
from hydra_exca.code.snapshot import Snapshot
from hydra_exca.code.writing import take_snapshot

DEFAULT = Rules(("*.py", "*.yaml", "*.yml", "*.toml"), ("__pycache__", ".git"), ignores=True, max_mb=50)
Write = Callable[..., Path]


def write(root: Path, *names: str, text: str = "") -> Path:
    """Writes files below a folder, each with its name or a text in it; gives the first one."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text or f"# {name}\n")
    return root / names[0]


def make(root: Path, files: tp.Mapping[str, str]) -> None:
    """Writes files with these texts."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def listed(root: Path, *copied: str, rules: Rules = DEFAULT, left_out: tuple[str, ...] = ()) -> list[str]:
    """The names of the copies."""
    sources = select_sources(copied or ["."], root, rules).sources
    rules = dataclasses.replace(rules, never_copied=tuple(root / name for name in left_out))
    return list(list_files(sources, rules).files)


def snapshot(root: Path) -> Snapshot:
    """A copy of a project, in a cache beside it."""
    return take_snapshot(select_sources(["."], root), root.parent / "cache")


def digest(root: Path) -> str:
    """That of a project as it is now."""
    return make_manifest(((root, Path()),), root.parent / "cache", Rules()).digest


def copies(root: Path) -> list[str]:
    """The names of all copies of a project that are there."""
    return sorted(path.name for path in (root.parent / "cache/code").glob("[!.]*"))


def content(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that can be read of a tree: text, link, executable or not."""
    found: dict[str, tuple[object, ...]] = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = ("link", os.readlink(path))
        elif path.is_file():
            found[str(path.relative_to(folder))] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


def as_nobody(run: Callable[[], object]) -> str:
    """The message of what it raises in a process that may not do everything, as root may."""
    automatic_sources()  # a python that is root's own can import nothing more there
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresuid(65534, 65534, 65534)
            run()
        except BaseException as error:  # noqa: BLE001
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading) as said:
        return said.read()
