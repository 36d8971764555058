"""The digest of a tree: the same for what reads the same, another for anything else; the copy reads as the source."""

from __future__ import annotations

import contextlib
import os
import tempfile
import typing as tp
from pathlib import Path

import pytest
from code_trees import content, digest, make, snapshot
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import examples

from hydra_exca.code.compare import differing_files
from hydra_exca.code.manifest import read_manifest

stable = examples(60)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path / "project", {"a.py": "A = 1\n", "lib/b.py": "B = 1\n", "lib/c.py": "C = 1\n", "lib/deep/d.py": "\n"})
    return tmp_path / "project"


NAMES = st.sampled_from(["a.py", "lib/a.py", "lib/b c.py", "lib/x\ny.py", os.fsdecode(b"\xff.py"), "é/ü.py"])
TEXTS = st.sampled_from(["", "x = 1\n", "x = 2\n", "a.py", "\0"])
KINDS = st.sampled_from(["file", "program", "link"])
TREES = st.dictionaries(NAMES, st.tuples(KINDS, TEXTS), min_size=1)
Tree = dict[str, tuple[str, str]]


def build(root: Path, tree: Tree) -> Path:
    """A tree; its links lead to a file that is always there."""
    make(root, {"target.py": "", "other.py": ""})
    for name, (kind, text) in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "link":
            target = root / ("other.py" if text == "x = 2\n" else "target.py")
            os.symlink(os.path.relpath(target, path.parent), path)
        else:
            path.write_text(text)
            path.chmod(0o755 if kind == "program" else 0o644)
    return root


def open_again(copy: Path) -> None:
    """So that who is not root can remove it."""
    for path in (copy, *copy.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


@contextlib.contextmanager
def two_folders() -> tp.Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder, "one/project"), Path(folder, "two/project")


@stable
@given(TREES, st.randoms(use_true_random=False), st.integers(0, 2**31))
def test_equal_trees_have_equal_digests_in_whatever_order_and_whenever_they_were_written(
    tree: Tree, rng: tp.Any, seconds: int
) -> None:
    names = list(tree)
    rng.shuffle(names)
    with two_folders() as (one, two):
        build(one, tree)
        build(two, {name: tree[name] for name in names})
        os.utime(two / "target.py", (seconds, seconds))
        assert digest(one) == digest(two)


@stable
@given(TREES, TREES)
def test_trees_have_equal_digests_only_if_they_read_the_same(one: Tree, two: Tree) -> None:
    with two_folders() as (first, second):
        same = content(build(first, one)) == content(build(second, two))
        assert (digest(first) == digest(second)) is same


@stable
@given(TREES, NAMES, st.tuples(KINDS, TEXTS))
def test_any_change_changes_the_digest(tree: Tree, name: str, other: tuple[str, str]) -> None:
    with two_folders() as (one, two):
        same = content(build(one, tree)) == content(build(two, {**tree, name: other}))
        assert (digest(one) == digest(two)) is same


@stable
@given(TREES)
def test_a_copy_reads_as_the_source_does(tree: Tree) -> None:
    with two_folders() as (root, _):
        build(root, tree)
        copy = snapshot(root)
        assert content(copy.folder) == content(root)
        open_again(copy.folder)


@stable
@given(TREES)
def test_what_is_in_a_snapshot_is_written_down_for_any_names(tree: Tree) -> None:
    with two_folders() as (root, _):
        build(root, tree)
        copy = snapshot(root)
        known = read_manifest(root.parent / "cache", copy.digest)
        assert known is not None and set(known) == set(content(root))
        assert differing_files(known, {**known, "new.py": "x"}) == ["new.py"]
        open_again(copy.folder)


def test_a_link_is_not_the_file_that_it_leads_to(root: Path) -> None:
    (root / "way.py").write_text((root / "a.py").read_text())
    before = digest(root)
    (root / "way.py").unlink()
    os.symlink("a.py", root / "way.py")
    assert digest(root) != before


def test_what_a_link_is_called_and_leads_to_are_told_apart(root: Path) -> None:
    names = ("x", "y\nb", "x\ny", "b")
    make(root, dict.fromkeys(names, ""))
    os.symlink("x\ny", root / "a")
    before = digest(root)
    (root / "a").unlink()
    os.symlink("x", root / "a")
    assert digest(root) != before


def test_a_project_that_was_moved_is_the_same_code(root: Path) -> None:
    before = digest(root)
    os.rename(root, root.parent / "moved")
    assert digest(root.parent / "moved") == before


# -- which files differ -----------------------------------------------------------------------------------------------

AS_PROJECT = {"src/app/__init__.py": "0", "src/app/train.py": "1", "setup.py": "2"}
AS_PACKAGE = {".packages/app/app/__init__.py": "0", ".packages/app/app/train.py": "1"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (AS_PROJECT, AS_PACKAGE, []),
        (AS_PACKAGE, AS_PROJECT, []),
        (AS_PROJECT, {**AS_PACKAGE, ".packages/app/app/train.py": "9"}, ["src/app/train.py"]),
        (AS_PACKAGE, {**AS_PROJECT, "src/app/train.py": "9"}, ["src/app/train.py"]),
        (AS_PROJECT, {**AS_PROJECT, ".packages/dbg/dbg.py": "9"}, []),
        (AS_PACKAGE, {**AS_PACKAGE, ".packages/app/app/more.py": "9"}, [".packages/app/app/more.py"]),
        (AS_PROJECT, {**AS_PROJECT, "src/app/more.py": "9"}, ["src/app/more.py"]),
        (AS_PACKAGE, {**AS_PROJECT, "src/app/more.py": "9", "src/other.py": "9", "setup.py": "2"}, []),
        (
            {".packages/lib/lib/b.py": "0", "src/lib/a.py": "1"},
            {"lib/b.py": "0", "lib/__init__.py": "2", "src/lib/a.py": "1"},
            [],
        ),
        ({**AS_PACKAGE, "run.py": "3"}, {**AS_PROJECT, "run.py": "4"}, ["run.py", "setup.py"]),
    ],
)
def test_the_same_code_laid_out_in_another_way_does_not_differ(
    old: dict[str, str], new: dict[str, str], expected: list[str]
) -> None:
    assert differing_files(old, new) == expected
