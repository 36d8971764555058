"""What git says of a folder, with a git that works, refuses, hangs or is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from repositories import git, in_its_place

from hydra_exca.code import git as git_state

pytestmark = pytest.mark.app


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository on the branch ``main`` with one commit of a text, a binary file, and a folder."""
    root = tmp_path / "root"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    (root / "train.py").write_text("seed = 1\n")
    (root / "data.bin").write_bytes(bytes(range(256)))
    (root / "pkg").mkdir()
    (root / "pkg/lib.py").write_text("lr = 0.1\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


# -- where a folder is -------------------------------------------------------------------------------------------------


def test_a_folder_is_found_in_its_repository(root: Path) -> None:
    found = git_state.find_repository(root / "pkg")
    assert found == git_state.Repository(root, "pkg/", None)
    assert (found.read_commit(), found.read_branch()) == (git(root, "rev-parse", "HEAD"), "main")


def test_a_folder_outside_is_in_none_and_that_needs_no_reason(tmp_path: Path) -> None:
    assert git_state.find_repository(tmp_path) is None


def test_a_repository_without_a_commit_has_a_branch(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "new")
    found = git_state.find_repository(tmp_path)
    assert found is not None and (found.read_commit(), found.read_branch()) == (None, "new")


def test_a_detached_head_is_on_no_branch(root: Path) -> None:
    git(root, "checkout", "-q", "--detach")
    found = git_state.find_repository(root)
    assert found is not None and (found.read_commit(), found.read_branch()) == (git(root, "rev-parse", "HEAD"), None)


@pytest.mark.parametrize(
    "url",
    ["https://me:secret@host.org/team/code.git", "https://me:sec@ret@host.org/team/code", "git@host.org:team/code"],
)
def test_a_remote_is_told_without_the_password(root: Path, url: str) -> None:
    git(root, "remote", "add", "origin", url)
    found = git_state.find_repository(root)
    assert found is not None and found.remote == "host.org/team/code"


def test_a_hook_that_launches_does_not_lead_git_to_another_repository(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    found = git_state.find_repository(root)
    assert found is not None and found.root == root


def test_without_git_nothing_is_known_and_that_is_the_reason(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(git_state.GitError, match="^git cannot be started"):
        git_state.find_repository(root)


def test_a_git_that_hangs_is_given_up(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_its_place(tmp_path / "bin", "exec sleep 600", monkeypatch)
    monkeypatch.setattr(git_state, "TIMEOUT_S", 0.2)
    with pytest.raises(git_state.GitError, match=r"^git rev-parse took longer than 0\.2 s$"):
        git_state.find_repository(root)


def test_a_repository_of_somebody_else_is_unknown_with_gits_reason(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(git_state.GitError, match="dubious ownership"):
        git_state.find_repository(root)


# -- what differs from the commit --------------------------------------------------------------------------------------


def test_nothing_differs_after_a_commit(root: Path) -> None:
    assert (git_state.uncommitted_changes(root), git_state.make_patch(root)) == ([], b"")


def test_changes_are_what_is_modified_staged_removed_renamed_or_new(root: Path) -> None:
    (root / "train.py").write_text("seed = 2\n")
    git(root, "mv", "pkg/lib.py", "pkg/moved.py")
    (root / "data.bin").unlink()
    (root / "staged.py").write_text("")
    git(root, "add", "staged.py")
    (root / "pkg/new.py").write_text("")
    names = ["data.bin", "pkg/lib.py", "pkg/moved.py", "pkg/new.py", "staged.py", "train.py"]
    assert git_state.uncommitted_changes(root) == names


def test_what_git_ignores_is_no_change(root: Path) -> None:
    (root / ".gitignore").write_text("/.gitignore\n*.log\n")
    (root / "run.log").write_text("")
    assert git_state.uncommitted_changes(root) == []


@pytest.mark.parametrize("name", ["with space.py", "größe.py", "line\nbreak.py", '"quoted".py'])
def test_every_file_name_is_told_as_it_is(root: Path, name: str) -> None:
    (root / name).write_text("")
    assert git_state.uncommitted_changes(root) == [name]


def test_of_a_folder_that_is_left_out_only_what_git_knows_counts(root: Path) -> None:
    (root / "pkg/lib.py").write_text("lr = 0.2\n")
    (root / "pkg/output.txt").write_text("")
    (root / "pkg2").mkdir()
    (root / "pkg2/output.txt").write_text("")
    assert git_state.uncommitted_changes(root, [root / "pkg", root, root.parent]) == ["pkg/lib.py", "pkg2/output.txt"]


def test_where_git_is_not_to_look_for_new_files_they_are_none(root: Path) -> None:
    git(root, "config", "status.showUntrackedFiles", "no")
    (root / "new.py").write_text("")
    assert git_state.uncommitted_changes(root) == []


def test_what_git_knows_is_what_was_added(root: Path) -> None:
    (root / "new.py").write_text("")
    (root / "added.py").write_text("")
    git(root, "add", "added.py")
    assert git_state.tracked_files(root) == {"train.py", "data.bin", "pkg/lib.py", "added.py"}


def test_where_git_does_not_say_what_differs_its_reason_is_raised(tmp_path: Path) -> None:
    with pytest.raises(git_state.GitError, match="not a git repository"):
        git_state.uncommitted_changes(tmp_path)


def test_looking_writes_nothing_into_the_repository(root: Path) -> None:
    os.utime(root / "train.py")  # git would refresh its index
    before = (root / ".git/index").stat().st_mtime_ns
    git_state.uncommitted_changes(root)
    git_state.make_patch(root)
    assert (root / ".git/index").stat().st_mtime_ns == before


# -- the patch ---------------------------------------------------------------------------------------------------------


def change_everything(root: Path) -> None:
    """Text, bytes, a mode, a file less and a file more that git knows."""
    (root / "train.py").write_text("seed = 2  # without an end of line")
    (root / "train.py").chmod(0o755)
    (root / "data.bin").write_bytes(bytes(range(255, -1, -1)) * 3)
    (root / "pkg/lib.py").unlink()
    (root / "added.py").write_text("added = True\n")
    git(root, "add", "-N", "added.py")


def files(root: Path) -> dict[str, tuple[bytes, int]]:
    found = (path for path in root.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mode & 0o111) for path in found}


def test_a_patch_makes_the_changed_tree_of_the_commit(root: Path, tmp_path: Path) -> None:
    change_everything(root)
    (tmp_path / "patch").write_bytes(git_state.make_patch(root))
    git(tmp_path, "clone", "-q", str(root), "again")
    git(tmp_path / "again", "apply", str(tmp_path / "patch"))
    assert files(tmp_path / "again") == files(root)


def test_a_users_settings_do_not_change_the_patch(root: Path) -> None:
    change_everything(root)
    before = git_state.make_patch(root)
    settings = {"color.ui": "always", "diff.noprefix": "true", "diff.external": "false", "diff.mnemonicPrefix": "true"}
    for name, value in {**settings, "diff.relative": "true", "diff.renames": "copies"}.items():
        git(root, "config", name, value)
    assert git_state.make_patch(root) == before


def test_no_program_of_the_repositorys_choice_is_started(root: Path, tmp_path: Path) -> None:
    (root / ".gitattributes").write_text("*.py diff=mine\n")
    (root / "train.py").write_text("seed = 2\n")
    for name in ("diff.mine.command", "diff.mine.textconv", "core.fsmonitor"):
        git(root, "config", name, f"touch {tmp_path}/started; false")
    git_state.uncommitted_changes(root)
    git_state.make_patch(root)
    assert not (tmp_path / "started").exists()


def test_a_patch_over_the_limit_is_refused_with_its_size(root: Path) -> None:
    (root / "train.py").write_text("".join(f"seed = {n}\n" for n in range(200_000)))
    with pytest.raises(git_state.GitError, match=r"it has 2\.\d MB, and the limit is 1 MB"):
        git_state.make_patch(root, 1_000_000)


def test_without_a_commit_there_is_no_patch(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    with pytest.raises(git_state.GitError, match="HEAD"):
        git_state.make_patch(tmp_path)
