"""A snapshot: what it costs, that nobody writes into it, and what becomes of one that somebody has written into."""

from __future__ import annotations

import functools
import json
import os
import stat
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from apps import wait_until
from code_trees import as_nobody, content, copies, digest, make, snapshot

from hydra_exca.code import active
from hydra_exca.code.launch_code import CodeOptions, LaunchCode
from hydra_exca.code.manifest import make_manifest
from hydra_exca.code.rules import Rules
from hydra_exca.code.selection import select_sources
from hydra_exca.code.snapshot import Snapshot
from hydra_exca.code.writing import take_snapshot

trees = sys.modules["hydra_exca.code.manifest"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path / "project", {"a.py": "A = 1\n", "lib/b.py": "B = 1\n", "lib/c.py": "C = 1\n", "lib/deep/d.py": "\n"})
    return tmp_path / "project"


def inodes(copy: Snapshot) -> set[int]:
    return {path.lstat().st_ino for path in copy.folder.rglob("*") if not path.is_dir()}


# -- what costs what --------------------------------------------------------------------------------------------------


def test_the_same_tree_twice_is_one_snapshot(root: Path) -> None:
    assert snapshot(root).folder == snapshot(root).folder and len(copies(root)) == 1


def test_a_changed_file_costs_one_file(root: Path) -> None:
    before = snapshot(root)
    (root / "lib/b.py").write_text("B = 2\n")
    assert len(inodes(snapshot(root)) - inodes(before)) == 1


def test_a_touched_file_costs_nothing(root: Path) -> None:
    before = snapshot(root)
    os.utime(root / "lib/b.py")
    assert snapshot(root) == before


def test_a_renamed_file_costs_no_file(root: Path) -> None:
    before = snapshot(root)
    os.rename(root / "lib/b.py", root / "lib/e.py")
    after = snapshot(root)
    assert after.digest != before.digest and inodes(after) == inodes(before)


def test_what_else_is_copied_costs_no_file_twice(root: Path) -> None:
    """As when a run imports one more package."""
    whole = snapshot(root)
    part = take_snapshot(select_sources(["lib"], root), root.parent / "cache")
    assert part.digest != whole.digest and inodes(part) <= inodes(whole)


def test_the_code_before_the_last_change_is_there_still(root: Path) -> None:
    before = snapshot(root)
    for text in ("B = 2\n", "B = 1\n"):
        (root / "lib/b.py").write_text(text)
        after = snapshot(root)
    assert after == before and len(copies(root)) == 2


def test_where_there_are_no_hard_links_files_are_copied(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake: no file system without them is at hand."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refused)
    before = snapshot(root)
    (root / "lib/b.py").write_text("B = 2\n")
    after = snapshot(root)
    assert content(after.folder) == content(root) and not inodes(after) & inodes(before)


def test_unchanged_files_are_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot(root)
    wait_until(lambda: snapshot(root) and _has_noted_all(root), "the clock of the file system to move on")
    read: list[str] = []
    sha256 = trees.sha256
    monkeypatch.setattr(trees, "sha256", lambda data: read.append(data) or sha256(data))
    (root / "lib/b.py").write_text("B = 2\n")
    digest(root)
    assert [data for data in read if data.endswith(b"\n")] == [b"B = 2\n"]


def _has_noted_all(root: Path) -> bool:
    (seen,) = (root.parent / "cache/code/.seen").glob("[!.]*.json")
    return all(len(known) > 1 for known in json.loads(seen.read_text())["files"].values())


def test_an_edit_in_the_same_instant_is_seen(root: Path) -> None:
    """Of the same size and with the same time, as within one tick of a file system's clock."""
    path = root / "lib/b.py"
    for number in range(20):
        path.write_text(f"B = {number % 10}\n")
        assert (snapshot(root).folder / "lib/b.py").read_text() == f"B = {number % 10}\n"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', '{"files": {}}', '{"files": {}, "last": 3}', "paths"])
@pytest.mark.parametrize("folder", [".seen", ".files"])
def test_notes_that_a_crash_left_damaged_change_nothing(root: Path, folder: str, text: str) -> None:
    snapshot(root)
    for path in (root.parent / "cache/code" / folder).glob("*.json"):
        known = json.loads(path.read_text())["files"]
        path.write_text(json.dumps({"files": dict.fromkeys(known, 3)}) if text == "paths" else text)
    (root / "lib/b.py").write_text("B = 2\n")
    assert content(snapshot(root).folder) == content(root)


@pytest.mark.parametrize("kind", [".seen/*", ".files/*", ".contents.*/*", "[0-9a-f]*/**/*.py"])
def test_a_flipped_bit_never_gives_another_code(root: Path, kind: str) -> None:
    """One bit of each byte. A later change to a copy shows in its time, as to any file that git knows."""
    first = snapshot(root)
    wait_until(lambda: snapshot(root) and _has_noted_all(root), "the clock of the file system to move on")
    names = [path for path in sorted((root.parent / "cache/code").glob(kind)) if path.is_file()]
    assert names
    for path in names:
        for position in range(path.stat().st_size):
            data = bytearray(path.read_bytes())
            data[position] ^= 1 << position % 8
            path.chmod(0o644)
            path.write_bytes(data)
            copy = snapshot(root)
            assert copy.digest == first.digest and content(copy.folder) == content(root), f"{path} {position}"
            snapshot(root)
            if not path.exists() or path.read_bytes() == bytes(data):  # what a copy does not use is not mended
                data[position] ^= 1 << position % 8
                path.write_bytes(data)


# -- read-only --------------------------------------------------------------------------------------------------------


def test_nothing_of_a_snapshot_can_be_write(root: Path) -> None:
    copy = snapshot(root).folder
    writable = [path for path in (copy, *copy.rglob("*")) if path.stat().st_mode & 0o222]
    assert writable == []


@pytest.mark.app
@pytest.mark.parametrize("name", ["lib/b.py", "new.py", "lib/new.py"])
def test_who_is_not_root_writes_nothing_into_a_snapshot(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # the one of pytest is closed to others
        os.chmod(folder, 0o777)
        told = as_nobody(functools.partial(_copied_and_written, Path(folder), name))
    assert "Permission denied" in told and f"/{name}" in told


def _copied_and_written(folder: Path, name: str) -> None:
    make(folder, {"project/lib/b.py": ""})
    (snapshot(folder / "project").folder / name).write_text("")


def test_the_cache_itself_can_be_write(root: Path) -> None:
    assert snapshot(root).folder.parent.stat().st_mode & stat.S_IWUSR


def test_a_file_that_can_be_executed_can_be_in_the_copy(root: Path) -> None:
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    copy = snapshot(root).folder
    assert os.access(copy / "run.sh", os.X_OK) and not (copy / "a.py").stat().st_mode & 0o111


@pytest.mark.parametrize(("before", "after"), [(0o755, 0o444), (0o644, 0o555)])
def test_a_copy_in_which_a_file_can_no_longer_be_executed_or_now_can_is_made_anew(
    root: Path, before: int, after: int
) -> None:
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(before)
    (snapshot(root).folder / "run.sh").chmod(after)
    assert content(snapshot(root).folder) == content(root)
    assert os.access(snapshot(root).folder / "run.sh", os.X_OK) is (before == 0o755)


def _write(path: Path, text: str) -> None:
    path.parent.chmod(0o755)
    path.touch()
    path.chmod(0o644)
    path.write_text(text)


@pytest.mark.parametrize(("name", "text"), [("lib/b.py", "B = 9\n"), ("lib/b.py", ""), ("lib/more.py", "")])
def test_a_copy_that_was_changed_is_set_aside_and_made_anew(
    root: Path, name: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = snapshot(root)
    _write(before.folder / name, text)
    after = snapshot(root)
    assert after.folder == before.folder and content(after.folder) == content(root)
    assert "was changed after it was made" in caplog.text
    (aside,) = (root.parent / "cache/code").glob("*.aside-*")
    assert (aside / name).read_text() == text


def test_a_module_too_many_in_a_folder_of_folders_shows(root: Path) -> None:
    (root / "lib/b.py").unlink()
    (root / "lib/c.py").unlink()
    before = snapshot(root)
    _write(before.folder / "lib/more.py", "")
    assert content(snapshot(root).folder) == content(root)


@pytest.mark.parametrize("name", ["lib/b.py", "lib/deep/d.py"])
def test_a_copy_that_lacks_a_file_is_made_anew(root: Path, name: str) -> None:
    copy = snapshot(root).folder
    (copy / name).parent.chmod(0o755)
    (copy / name).unlink()
    assert content(snapshot(root).folder) == content(root)


def test_a_copy_whose_link_leads_elsewhere_is_made_anew(root: Path) -> None:
    os.symlink("a.py", root / "way.py")
    copy = snapshot(root).folder
    copy.chmod(0o755)
    (copy / "way.py").unlink()
    os.symlink("lib/b.py", copy / "way.py")
    assert content(snapshot(root).folder) == content(root)


def test_a_file_that_a_job_has_changed_is_in_no_later_copy(root: Path) -> None:
    """Copies share their files: one that can be written as root would be the same file in the next one."""
    _write(snapshot(root).folder / "lib/c.py", "C = 9\n")
    (root / "lib/b.py").write_text("B = 2\n")
    assert content(snapshot(root).folder) == content(root)


@pytest.mark.parametrize("text", ["C = 9\n", "", "C = 10\n"])
def test_a_stored_file_that_was_written_in_place_is_replaced(root: Path, text: str) -> None:
    """By a job of root, in an old copy that no launch looks at again."""
    before = snapshot(root)
    (root / "lib/b.py").write_text("B = 2\n")
    snapshot(root)
    _write(before.folder / "lib/c.py", text)
    for number in (3, 4):
        (root / "lib/b.py").write_text(f"B = {number}\n")
        after = snapshot(root)
        assert content(after.folder) == content(root)
    assert len(stored_files(root)) == len({path.stat().st_ino for path in stored_files(root)}) == 7


def test_a_stored_file_that_was_only_touched_is_linked_to(root: Path) -> None:
    before = snapshot(root)
    os.utime(before.folder / "lib/c.py")
    (root / "lib/b.py").write_text("B = 2\n")
    assert len(inodes(snapshot(root)) - inodes(before)) == 1


def test_the_same_text_as_a_file_and_as_a_program_is_two_files(root: Path) -> None:
    for name in ("x.py", "y.py"):
        (root / name).write_text("same\n")
    (root / "y.py").chmod(0o755)
    copy = snapshot(root).folder
    assert content(copy) == content(root) and (copy / "x.py").stat().st_ino != (copy / "y.py").stat().st_ino


def stored_files(root: Path) -> list[Path]:
    """The files that the copies of a project are links to."""
    return list((root.parent / "cache/code").glob(".contents.*/*"))


def test_a_folder_that_is_called_as_a_module_is_none_too_many(root: Path) -> None:
    make(root, {"lib/x.py/y.py": ""})
    assert snapshot(root) == snapshot(root) and len(copies(root)) == 1


def test_what_jobs_leave_in_a_copy_does_not_make_it_another(root: Path) -> None:
    """Root can write there: byte code, and outputs where the copy is the working directory."""
    copy = snapshot(root)
    for name in ("lib/__pycache__/b.cpython-311.pyc", "result.txt"):
        (copy.folder / name).parent.mkdir(exist_ok=True)
        (copy.folder / name).write_text("x")
    assert snapshot(root) == copy and len(copies(root)) == 1


# -- times ------------------------------------------------------------------------------------------------------------

DAY = 86_400


def make_older(copy: Snapshot, days: int) -> None:
    """As it is after so many days."""
    for path in copy.folder.rglob("*.py"):
        then = path.stat().st_mtime_ns - days * DAY * 10**9
        os.utime(path, ns=(then, then))


def ages(copy: Snapshot) -> set[int]:
    """The full days since the files were last changed and read."""
    stats = [path.stat() for path in copy.folder.rglob("*.py")]
    return {int((time.time() - seconds) // DAY) for each in stats for seconds in (each.st_mtime, each.st_atime)}


def test_the_files_of_a_copy_are_no_older_than_a_day(root: Path) -> None:
    assert ages(snapshot(root)) == {0}


def test_files_that_are_linked_again_are_new_again(root: Path) -> None:
    before = snapshot(root)
    make_older(before, 3)
    (root / "a.py").write_text("A = 2\n")
    after = snapshot(root)
    assert ages(after) == {0} and len(inodes(after) & inodes(before)) == 3


def test_a_copy_that_is_used_again_after_a_week_is_new_again(root: Path) -> None:
    before = snapshot(root)
    make_older(before, 9)
    assert snapshot(root) == before and ages(before) == {0} and len(copies(root)) == 1


# -- other users ------------------------------------------------------------------------------------------------------

NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root gives files to others")


@as_root
def test_a_copy_of_another_user_is_not_used_and_stays_where_it_is(root: Path) -> None:
    before = snapshot(root).folder
    os.chown(before, NOBODY, NOBODY)
    assert snapshot(root).folder.name == f"{before.name}.0" and before.stat().st_uid == NOBODY


@as_root
def test_a_copy_with_a_file_of_another_user_is_made_anew(root: Path) -> None:
    before = snapshot(root)
    os.chown(before.folder / "lib/b.py", NOBODY, NOBODY)
    assert (snapshot(root).folder / "lib/b.py").stat().st_uid == 0


@as_root
def test_no_file_of_another_user_is_linked_to(root: Path) -> None:
    before = snapshot(root)
    os.chown(before.folder / "lib/b.py", NOBODY, NOBODY)
    (root / "a.py").write_text("A = 2\n")
    assert (snapshot(root).folder / "lib/b.py").stat().st_uid == 0


@as_root
@pytest.mark.parametrize("folder", [".seen", ".files"])
def test_what_another_user_has_noted_is_not_believed(root: Path, folder: str) -> None:
    snapshot(root)
    for path in (root.parent / "cache/code" / folder).glob("*.json"):
        noted = json.loads(path.read_text())["files"]
        path.write_text(json.dumps({"files": {name: noted[sorted(noted)[0]] for name in noted}}))
        os.chown(path, NOBODY, NOBODY)
    (root / "a.py").write_text("A = 2\n")
    assert content(snapshot(root).folder) == content(root)


@pytest.mark.app
@as_root
def test_a_copy_of_root_that_cannot_be_read_is_left_alone() -> None:
    with tempfile.TemporaryDirectory() as folder:  # the one of pytest is closed to others
        os.chmod(folder, 0o777)
        make(Path(folder), {"project/lib/b.py": ""})
        digest = make_manifest(((Path(folder, "project"), Path()),), Path(folder, "cache"), Rules()).digest
        closed = Path(folder, "cache/code", digest)
        closed.mkdir(parents=True)
        for path, mode in ((closed, 0o700), (closed.parent, 0o777), (closed.parent.parent, 0o777)):
            path.chmod(mode)
        as_nobody(functools.partial(snapshot, Path(folder, "project")))
        names = {path.name for path in closed.parent.glob("[!.]*")}
    assert names == {digest, f"{digest}.{NOBODY}"}


# -- the files that copies share, and the copy that a thread is in --------------------------------------------------


def test_a_stored_file_that_was_made_writable_is_read_only_in_the_next_copy(root: Path) -> None:
    os.chmod(snapshot(root).folder / "a.py", 0o644)
    (root / "lib/b.py").write_text("B = 2\n")
    assert (snapshot(root).folder / "a.py").stat().st_mode & 0o222 == 0


def test_files_whose_names_others_can_exchange_are_not_linked_to(root: Path) -> None:
    snapshot(root)
    one, other = (path for path in stored_files(root) if path.read_text() in ("A = 1\n", "B = 1\n"))
    os.chmod(one.parent, 0o775)
    for source, target in ((one, one.with_name("x")), (other, one), (one.with_name("x"), other)):
        os.rename(source, target)
    (root / "lib/c.py").write_text("C = 2\n")
    assert content(snapshot(root).folder) == content(root)


def test_a_launch_of_another_thread_does_not_take_the_copy_that_a_method_is_in(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    first, second = (LaunchCode(CodeOptions((name,), Rules()), root.parent / "cache") for name in ("a.py", "lib"))
    with active.inside(first.snapshot()), ThreadPoolExecutor(1) as other:
        options = second.options
        theirs = other.submit(lambda: LaunchCode(options, root.parent / "cache").snapshot()).result()
        mine = LaunchCode(first.options, root.parent / "cache").snapshot()
    assert theirs.digest == second.digest and mine == first.snapshot()


def test_where_the_working_directory_was_copied_a_method_runs_in_its_copy(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = snapshot(root)
    monkeypatch.chdir(root / "lib")
    with active.inside(copy):
        assert Path.cwd() == copy.folder.resolve() / "lib"
    assert Path.cwd() == root / "lib"


def test_launches_in_jobs_compare_their_code_in_a_cache_of_their_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    options, inner = CodeOptions((".",), Rules()), root.parent / "inner"
    digests = []
    for text in ("B = 1\n", "B = 2\n"):
        (root / "lib/b.py").write_text(text)
        with active.inside(LaunchCode(options, root.parent / "cache").snapshot()):
            launched = LaunchCode(options, inner)
            digests.append(launched.snapshot().digest)
    assert launched.changes(digests[0]) == ["lib/b.py"] and launched.changes(digests[1]) == []
