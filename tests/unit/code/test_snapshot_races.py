"""Snapshots while others write: launches at once, files that are edited meanwhile, disks that are full."""

from __future__ import annotations

import multiprocessing
import os
import sys
import typing as tp
from pathlib import Path

import pytest
from code_trees import content, copies, digest, make, snapshot

from hydra_exca.errors import ConfigError

copying = sys.modules["hydra_exca.code.writing"]
trees = sys.modules["hydra_exca.code.manifest"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path / "project", {"a.py": "A = 1\n", "lib/b.py": "B = 1\n", "lib/c.py": "C = 1\n", "lib/deep/d.py": "\n"})
    return tmp_path / "project"


def many_at_once(root: Path, count: int = 4) -> list[int | None]:
    """How so many processes end that copy at the same time."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(count)

    def copy() -> None:
        barrier.wait(60)
        snapshot(root)

    children = [context.Process(target=copy) for _ in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    return [child.exitcode for child in children]


@pytest.mark.app
def test_two_launches_at_once_make_one_snapshot(root: Path) -> None:
    make(root, {f"many/{number}.py": "" for number in range(100)})
    assert many_at_once(root) == [0] * 4
    assert len(copies(root)) == 1 and content(snapshot(root).folder) == content(root)
    assert [path.name for path in (root.parent / "cache/code").glob(".*.tmp")] == []


@pytest.mark.app
def test_two_launches_at_once_mend_one_snapshot(root: Path) -> None:
    copy = snapshot(root).folder
    (copy / "lib/b.py").chmod(0o644)
    (copy / "lib/b.py").write_text("B = 9\n")
    assert many_at_once(root) == [0] * 4 and content(copy) == content(root)


@pytest.mark.parametrize("what", ["edit", "delete", "add"])
def test_what_happens_to_files_while_they_are_copied_is_in_the_copy_or_not(
    root: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never half of it: the copy is that of its digest."""
    fill = copying._write_copy

    def meanwhile(*arguments: tp.Any, **options: tp.Any) -> None:
        monkeypatch.setattr(copying, "_write_copy", fill)
        if what == "delete":
            (root / "lib/c.py").unlink()
        else:
            (root / ("lib/c.py" if what == "edit" else "lib/new.py")).write_text("C = 2\n")
        fill(*arguments, **options)

    monkeypatch.setattr(copying, "_write_copy", meanwhile)
    copy = snapshot(root)
    assert digest(copy.folder) == copy.digest


def test_a_file_that_is_edited_before_it_is_read_spoils_no_copy_of_the_edited_code(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("C = 10\n", "C = 1\n"):
        (root / "lib/c.py").write_text(text)
        snapshot(root)
    walked = trees.list_files

    def edited(*arguments: tp.Any) -> object:
        monkeypatch.setattr(trees, "list_files", walked)
        found = walked(*arguments)
        (root / "lib/c.py").write_text("C = 10\n")
        return found

    monkeypatch.setattr(trees, "list_files", edited)
    assert (snapshot(root).folder / "lib/c.py").read_text() == "C = 10\n"
    assert list((root.parent / "cache/code").glob("*.aside-*")) == []


def test_a_file_that_a_program_writes_again_and_again_is_copied_as_it_was_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = iter(range(1000))

    def after_an_edit(function: tp.Callable[..., tp.Any]) -> tp.Callable[..., tp.Any]:
        def edited(*arguments: tp.Any) -> object:
            (root / "lib/c.py").write_text(f"C = {next(edits)}\n")
            return function(*arguments)

        return edited

    monkeypatch.setattr(trees, "_read_file", after_an_edit(trees._read_file))
    monkeypatch.setattr(copying, "_write_copy", after_an_edit(copying._write_copy))
    copy = snapshot(root)
    assert digest(copy.folder) == copy.digest


def test_files_that_are_edited_again_and_again_are_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "_RECENT_NS", 0)
    fill, edits = copying._write_copy, iter(range(1000))

    def meanwhile(*arguments: tp.Any, **options: tp.Any) -> None:
        (root / "lib/c.py").write_text(f"C = {next(edits)}\n")
        fill(*arguments, **options)

    monkeypatch.setattr(copying, "_write_copy", meanwhile)
    with pytest.raises(ConfigError, match="files change while they are copied"):
        snapshot(root)
    assert os.listdir(root.parent / "cache/code") == [] or copies(root) == []


def test_a_copy_that_cannot_be_finished_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, told by a fake."""

    def full(*_: object, **__: object) -> tp.NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copying, "_write", full)
    with pytest.raises(ConfigError, match="cannot be copied to .*: No space left on device"):
        snapshot(root)
    assert list((root.parent / "cache/code").iterdir()) == []


def test_a_cache_that_cannot_be_written_can_be_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code is known without a note of it; told by a fake, since root writes everywhere."""
    before = snapshot(root).digest

    def refused(*_: object) -> tp.NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    assert digest(root) == before
