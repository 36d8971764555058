"""Which files are code: what is copied of a project, and what never is."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from code_trees import DEFAULT, Write, as_nobody, listed
from repositories import git

from hydra_exca import paths
from hydra_exca.code.listing import list_files
from hydra_exca.code.manifest import make_manifest
from hydra_exca.code.rules import Rules
from hydra_exca.code.selection import LoadedFiles
from hydra_exca.errors import ConfigError

# -- names and patterns -----------------------------------------------------------------------------------------------


@pytest.mark.app
def test_code_is_python_yaml_and_toml_unless_said_otherwise(root: Path, write: Write) -> None:
    write("a.py", "conf/b.yaml", "conf/c.yml", "d.toml", "e.txt", "f.pyc", "__pycache__/g.py", ".git/h.py")
    assert listed(root) == ["a.py", "conf/b.yaml", "conf/c.yml", "d.toml"]


def test_relative_names_are_kept_and_absolute_ones_go_by_the_last(root: Path, write: Write) -> None:
    write("lib/deep/a.py", "other/more/b.py")
    assert listed(root, "lib/deep", str(root / "other/more")) == ["lib/deep/a.py", "more/b.py"]


@pytest.mark.parametrize("name", ["../beside", "../beside/", "lib/../../beside"])
def test_what_is_reached_upwards_goes_by_its_last_name(root: Path, write: Write, name: str) -> None:
    write("lib/a.py", "../beside/b.py")
    assert listed(root, name) == ["beside/b.py"]


def test_no_copy_is_outside_of_the_snapshot(root: Path, write: Write) -> None:
    write("lib/a.py", "b.py")
    assert listed(root / "lib", "..") == ["project/b.py", "project/lib/a.py"]


def test_a_name_twice_is_copied_once(root: Path, write: Write) -> None:
    write("lib/a.py")
    assert listed(root, "lib", "lib/", "./lib") == ["lib/a.py"]


def test_a_name_inside_of_another_changes_nothing(root: Path, write: Write) -> None:
    write("lib/a.py", "lib/b.txt")
    assert listed(root, ".", "lib", "lib/b.txt") == ["lib/a.py", "lib/b.txt"]


def test_a_folder_does_not_become_one_with_another_of_its_name(root: Path, write: Write) -> None:
    write("lib/a.py", "../elsewhere/lib/b.py")
    with pytest.raises(ConfigError, match="two of them would be copied to 'lib'"):
        listed(root, ".", str(root.parent / "elsewhere/lib"))


@pytest.mark.parametrize(
    ("includes", "excludes", "expected"),
    [
        (("conf/*.yaml",), (), ["conf/a.yaml", "conf/deep/b.yaml"]),
        (("*.yaml",), ("conf/deep",), ["a.yaml", "conf/a.yaml"]),
        (("*.yaml",), ("deep",), ["a.yaml", "conf/a.yaml"]),
        (("*.yaml",), ("deep/",), ["a.yaml", "conf/a.yaml"]),
        (("*.yaml",), ("conf/a.yaml",), ["a.yaml", "conf/deep/b.yaml"]),
        (("[ab].yaml",), ("a*",), ["conf/deep/b.yaml"]),
        (("*.YAML",), (), []),
    ],
)
def test_patterns_are_of_names_and_with_a_slash_of_paths(
    root: Path, write: Write, includes: tuple[str, ...], excludes: tuple[str, ...], expected: list[str]
) -> None:
    write("a.yaml", "conf/a.yaml", "conf/deep/b.yaml")
    assert listed(root, rules=Rules(includes, excludes)) == expected


def test_paths_in_patterns_count_from_the_folder_that_was_named(root: Path, write: Write) -> None:
    write("lib/conf/a.yaml", "lib/b.yaml")
    assert listed(root, "lib", rules=Rules(("conf/*",))) == ["lib/conf/a.yaml"]


def test_a_file_that_was_named_is_copied_whatever_the_patterns(root: Path, write: Write) -> None:
    write("data/table.csv")
    assert listed(root, "data/table.csv") == ["data/table.csv"]


# -- git --------------------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_what_git_ignores_is_not_code(repository: Path, write: Write) -> None:
    write(".gitignore", text="build/\n/top.py\n*.gen.py\n!keep.gen.py\n")
    write("lib/.gitignore", text="local.py\n")
    write(".git/info/exclude", text="private.py\n")
    write("a.py", "top.py", "lib/top.py", "x.gen.py", "keep.gen.py", "build/b.py", "lib/local.py", "lib/private.py")
    assert listed(repository) == ["a.py", "keep.gen.py", "lib/top.py"]


@pytest.mark.app
def test_an_untracked_file_is_code(repository: Path, write: Write) -> None:
    write("a.py")
    git(repository, "add", "a.py")
    write("new.py")
    assert listed(repository) == ["a.py", "new.py"]


@pytest.mark.app
def test_a_file_that_git_knows_is_code_although_a_pattern_ignores_it(repository: Path, write: Write) -> None:
    write(".gitignore", text="gen/\n*.local.py\n")
    write("gen/kept.py", "a.local.py")
    git(repository, "add", "-f", "gen/kept.py", "a.local.py")
    write("gen/other.py", "b.local.py")
    assert listed(repository) == ["a.local.py", "gen/kept.py"]


@pytest.mark.app
def test_a_tracked_file_that_was_deleted_is_not_missed(repository: Path, write: Write) -> None:
    write("a.py", "gone.py")
    git(repository, "add", ".")
    (repository / "gone.py").unlink()
    assert listed(repository) == ["a.py"]


@pytest.mark.app
@pytest.mark.parametrize("name", ["lib", "lib/deep"])
def test_what_git_ignores_is_known_below_its_root_too(repository: Path, write: Write, name: str) -> None:
    write(".gitignore", text="secret.py\nlib/deep/local.py\n")
    write("lib/deep/a.py", "lib/deep/secret.py", "lib/deep/local.py")
    assert listed(repository, name) == ["lib/deep/a.py"]


@pytest.mark.app
@pytest.mark.parametrize("name", ["gen", "gen/deep", "gen/deep/a.py"])
def test_what_git_ignores_as_a_whole_is_copied_when_it_is_asked_for(repository: Path, write: Write, name: str) -> None:
    write(".gitignore", text="gen/\n")
    write("gen/deep/a.py")
    assert listed(repository, name) == ["gen/deep/a.py"]


@pytest.mark.app
def test_a_repository_in_a_repository_ignores_by_its_own_rules(repository: Path, write: Write) -> None:
    write("nested/.gitignore", text="mine.py\n")
    git(repository / "nested", "init", "-q")
    write("nested/a.py", "nested/mine.py", "mine.py")
    assert listed(repository) == ["mine.py", "nested/a.py"]


@pytest.mark.app
def test_a_submodule_is_code_without_what_it_ignores(root: Path, write: Write, tmp_path: Path) -> None:
    write("../other/.gitignore", text="mine.py\n")
    write("../other/a.py")
    git(tmp_path / "other", "init", "-q")
    git(tmp_path / "other", "add", ".")
    git(tmp_path / "other", "commit", "-q", "-m", "first")
    git(root, "init", "-q")
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "other"), "sub")
    write("sub/mine.py", "b.py")
    assert listed(root) == ["b.py", "sub/a.py"]


@pytest.mark.app
def test_a_source_that_is_reached_through_a_link_has_no_ignored_files(repository: Path, write: Write) -> None:
    write(".gitignore", text="secret.py\n")
    write("lib/a.py", "lib/secret.py")
    os.symlink("lib", repository.parent / "link")
    os.symlink(repository, repository.parent / "way")
    assert listed(repository.parent, "way") == ["way/lib/a.py"]


@pytest.mark.app
def test_a_variable_of_a_git_hook_leads_nowhere_else(
    repository: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(".gitignore", text="secret.py\n")
    write("a.py", "secret.py")
    monkeypatch.setenv("GIT_DIR", str(repository / "nowhere"))
    assert listed(repository) == ["a.py"]


def test_without_a_repository_or_git_all_is_code(root: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write(".gitignore", text="secret.py\n")
    write("a.py", "secret.py")
    monkeypatch.setenv("PATH", "")
    assert listed(root) == ["a.py", "secret.py"]


@pytest.mark.app
def test_a_git_that_does_not_tell_is_a_warning(
    repository: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("a.py")
    write(".git/config", text="[core\n")
    assert listed(repository) == ["a.py"] and "because git does not list them" in caplog.text


@pytest.mark.app
def test_what_git_ignores_can_be_asked_for(repository: Path, write: Write) -> None:
    write(".gitignore", text="gen.py\n")
    write("gen.py")
    assert listed(repository, rules=Rules(("*.py",), ignores=False)) == ["gen.py"]


# -- never ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mark", ["CACHEDIR.TAG", "pyvenv.cfg", "conda-meta/history", ".hydra/hydra.yaml", paths.CODE_MARK]
)
def test_a_cache_an_environment_the_output_of_a_run_or_a_copy_is_never_code(
    root: Path, write: Write, mark: str
) -> None:
    write("a.py", f"lib/x/{mark}", "lib/x/deep/b.py")
    assert listed(root) == ["a.py"]


def test_a_sweep_folder_of_any_name_is_never_code(root: Path, write: Write) -> None:
    write("a.py", "lib/found/0/b.yaml")
    write("lib/found/multirun.yaml", text="hydra:\n  run:\n    dir: x\n")
    assert listed(root) == ["a.py"]


def test_a_file_of_somebody_that_is_called_as_one_of_hydra_is_code(root: Path, write: Write) -> None:
    write("conf/multirun.yaml", text="grid: 3\n")
    write("conf/x/config.yaml", "conf/x/hydra.yaml", "conf/x/overrides.yaml")
    assert len(listed(root)) == 4


@pytest.mark.parametrize("folder", ["", "lib/"])
def test_what_hydra_writes_beside_the_code_is_not_code(root: Path, write: Write, folder: str) -> None:
    """With ``hydra.run.dir=.`` and ``hydra.sweep.dir=.``; below a folder that is copied, the code itself is loaded."""
    write("a.py", f"{folder}.hydra/config.yaml", f"{folder}.hydra/overrides.yaml")
    for name in (".hydra/hydra.yaml", "multirun.yaml"):
        write(f"{folder}{name}", text="hydra:\n  run:\n    dir: .\n")
    assert listed(root) == ["a.py"]


def test_what_is_left_out_can_be_a_file(root: Path, write: Write) -> None:
    write("a.py", "train.yaml", "runs/b.py")
    assert listed(root, left_out=("train.yaml", "runs")) == ["a.py"]


def test_a_cache_that_is_the_folder_of_the_project_is_not_code(root: Path, write: Write) -> None:
    write("a.py", f"{paths.CODE}/0123456789abcdef/a.py", f"{paths.LAUNCHES}/x/b.yaml")
    write(paths.CACHEDIR_TAG, f"train,0/{paths.PROJECT}", f"train,0/{paths.NAMES}/x", "train,0/seed=1/config.yaml")
    assert list(make_manifest(((root, Path()),), root, DEFAULT).files) == ["a.py"]


@pytest.mark.app
@pytest.mark.parametrize("mark", [None, "pyvenv.cfg"])
def test_of_an_ignored_or_written_folder_only_what_is_right_beside_loaded_files_is_code(
    repository: Path, write: Write, mark: str | None
) -> None:
    write(".gitignore", text="env/\n" if mark is None else "none/\n")
    write("a.py", "env/b.py", "env/lib/c.py", "env/src/dep/d.py", "env/src/dep/e.py", "env/src/dep/deep/f.py")
    write(*([] if mark is None else [f"env/{mark}"]), "a.py")
    loaded = LoadedFiles(
        frozenset({f"{repository}/env/src/dep/d.py"}),
        frozenset(f"{repository}/{each}" for each in ("env", "env/src", "env/src/dep")),
        frozenset({f"{repository}/env/src/dep"}),
    )
    found = list_files(((repository, Path()),), DEFAULT, lambda: loaded).files
    assert list(found) == ["a.py", "env/src/dep/d.py", "env/src/dep/e.py"]


@pytest.mark.app
def test_what_is_passed_over_is_told_as_folders_and_modules(repository: Path, write: Write) -> None:
    write(".gitignore", text="gen/\nlocal.py\nlocal.txt\n")
    write("a.py", "gen/deep/b.py", "local.py", "local.txt", "run/.hydra/hydra.yaml", "run/c.py", "__pycache__/a.pyc")
    tree = make_manifest(((repository, Path()),), repository.parent / "cache", DEFAULT)
    assert tree.not_copied == {f"{repository}/{name}" for name in ("gen", "local.py", "run")}


@pytest.mark.app
def test_what_is_passed_over_makes_no_other_code(repository: Path, write: Write) -> None:
    write(".gitignore", text="local.py\n")
    write("a.py")
    look = functools.partial(make_manifest, ((repository, Path()),), repository.parent / "cache", DEFAULT)
    before = look().digest
    write("local.py")
    assert look().digest == before


def test_a_cache_that_is_the_folder_of_the_project_does_not_pass_over_all_of_it(root: Path, write: Write) -> None:
    write("a.py", f"{paths.LAUNCHES}/x/b.py")
    found = make_manifest(((root, Path()),), root, DEFAULT).not_copied
    assert str(root / paths.LAUNCHES) in found and str(root) not in found


# -- size and what cannot be read -------------------------------------------------------------------------------------


def test_too_many_bytes_are_an_error_with_the_largest_files(root: Path, write: Write) -> None:
    write("lib/large.py", text="#" * 2_000_000)
    write("lib/larger.py", text="#" * 3_000_000)
    write("small.py")
    with pytest.raises(ConfigError) as error:
        listed(root, rules=Rules(max_mb=4, key="hydra.launcher.workdir"))
    told = str(error.value)
    assert "3 files of 5.0 MB together are more than 4 MB" in told and "hydra.launcher.workdir.max_mb" in told
    assert told.index("3.0 MB") < told.index("2.0 MB") and str(root / "lib/larger.py") in told


def test_bytes_that_are_not_copied_do_not_count(root: Path, write: Write) -> None:
    write("lib/large.bin", text="#" * 2_000_000)
    write("small.py")
    assert listed(root, rules=Rules(("*.py",), max_mb=1)) == ["small.py"]


def test_what_is_no_file_is_passed_over(root: Path, write: Write) -> None:
    write("a.py")
    os.mkfifo(root / "pipe.py")
    assert listed(root) == ["a.py"]


@pytest.mark.app
@pytest.mark.parametrize("name", ["lib/secret.py", "lib/closed"])
def test_what_cannot_be_read_is_an_error_with_its_name(name: str) -> None:
    """Asked for by somebody who is not root, who can read all."""
    with tempfile.TemporaryDirectory() as folder:  # the one of pytest is closed to others
        os.chmod(folder, 0o755)
        for each in ("lib/secret.py", "lib/closed/a.py"):
            Path(folder, each).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, each).touch()
        path = Path(folder).resolve() / name
        path.chmod(0)
        told = as_nobody(lambda: make_manifest(((Path(folder), Path()),), Path(folder, "cache"), DEFAULT))
        path.chmod(0o700)
    assert f"{path} cannot be read: Permission denied" in told


# -- any names -------------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_names_may_have_any_bytes(root: Path) -> None:
    names = ["with space.py", "new\nline.py", os.fsdecode(b"latin-\xe9.py"), "é.py", "-x.py", "a,b;c.py"]
    for name in names:
        (root / name).write_text("")
    subprocess.run(["git", "init", "-q", root], check=True)
    assert listed(root) == sorted(names)


@pytest.mark.app
def test_ignored_names_may_have_any_bytes(repository: Path) -> None:
    names = ["with space.py", "new\nline.py", os.fsdecode(b"latin-\xe9.py"), "é.py"]
    (repository / "gen").mkdir()
    for name in names:
        (repository / "gen" / name).write_text("")
    (repository / ".gitignore").write_text("gen/*\n!gen/keep.py\n")
    (repository / "gen/keep.py").write_text("")
    assert listed(repository) == ["gen/keep.py"]
