"""Root markers are in every copy, and environment variables never lead into one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from code_trees import DEFAULT, copies, make
from repositories import git

from hydra_exca.code import active
from hydra_exca.code.compare import differing_files
from hydra_exca.code.manifest import read_manifest
from hydra_exca.code.rules import Rules
from hydra_exca.code.selection import Selection, select_sources
from hydra_exca.code.snapshot import Snapshot
from hydra_exca.code.writing import take_snapshot

pytestmark = pytest.mark.app  # git, and programs that tasks start

MARKED = {
    ".project-root": "# do not delete\n",
    "pyproject.toml": "[project]\n",
    ".git/HEAD": "ref: refs/heads/main\n",
    "src/train.py": "",
    "lib/pyproject.toml": "",
    "lib/one.py": "",
    "docs/pyproject.toml": "",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make(tmp_path / "project", MARKED)
    return tmp_path / "project"


def copy_of(project: Path, *copied: str, rules: Rules = DEFAULT) -> Snapshot:
    return take_snapshot(select_sources(copied or ["."], project, rules), project.parent / "cache", rules)


def names(copy: Snapshot) -> list[str]:
    return sorted(str(path.relative_to(copy.folder)) for path in copy.folder.rglob("*") if not path.name.endswith("py"))


@pytest.mark.parametrize("rules", [DEFAULT, Rules(("*.py",), (".git", "pyproject.toml"))], ids=["default", "excluded"])
def test_markers_are_in_each_folder_with_code_whatever_the_patterns_say(project: Path, rules: Rules) -> None:
    rules = Rules(rules.includes, (*rules.excludes, "docs"))
    found = copy_of(project, rules=rules)
    assert names(found) == [".git", ".project-root", "lib", "lib/pyproject.toml", "pyproject.toml", "src"]
    assert (found.folder / ".project-root").read_text() == "# do not delete\n"
    assert list((found.folder / ".git").iterdir()) == []


@pytest.mark.parametrize("copied", ["src", "src/train.py"])
def test_the_root_of_named_code_is_marked_too(project: Path, copied: str) -> None:
    found = copy_of(project, copied)
    assert names(found) == [".git", ".project-root", "pyproject.toml", "src"]
    assert found.with_originals(str(found.folder)) == str(project)


@pytest.mark.app
def test_git_passes_over_the_marker(project: Path) -> None:
    shutil.rmtree(project / ".git")
    git(project, "init", "-q")
    found = copy_of(project)
    git(project.parent, "init", "-q")
    assert git(found.folder, "rev-parse", "--show-toplevel") == str(project.parent)


def test_a_marker_is_no_changed_code(project: Path) -> None:
    rules = Rules(("*.py",), ("__pycache__", ".git"))
    before = copy_of(project, rules=rules)
    (project / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    os.remove(project / ".project-root")
    after = copy_of(project, rules=rules)
    assert after.digest != before.digest and names(after) != names(before)
    manifests = [read_manifest(project.parent / "cache", each.digest) for each in (before, after)]
    assert differing_files(*(each or {} for each in manifests)) == []


@pytest.mark.parametrize("marker", [".project-root", ".git"])
def test_a_copy_that_has_lost_a_marker_is_made_anew(project: Path, marker: str) -> None:
    copy = copy_of(project).folder
    copy.chmod(0o700)
    if (copy / marker).is_dir():
        (copy / marker).rmdir()
    else:
        (copy / marker).unlink()
    assert copy_of(project).folder == copy and (copy / marker).exists()
    assert len(copies(project)) == 2  # the other one was moved aside: jobs may run from it


def test_a_package_from_elsewhere_has_the_root_of_its_own_project(project: Path, tmp_path: Path) -> None:
    make(tmp_path / "other", {"src/pkg/__init__.py": "", ".project-root": ""})
    package = Path(".packages/pkg")
    sources = ((project, Path()), (tmp_path / "other/src/pkg", package / "pkg"))
    copy = take_snapshot(Selection(sources, (package,)), tmp_path / "cache")
    assert (copy.folder / package / ".project-root").exists()
    assert copy.with_originals(str(copy.folder / package)) == str(tmp_path / "other")
    assert copy.with_originals(str(copy.folder / package / "pkg/x")) == str(tmp_path / "other/src/pkg/x")
    assert copy.with_originals(str(copy.folder / "data")) == str(project / "data")


# variables


@pytest.fixture
def copy(project: Path, monkeypatch: pytest.MonkeyPatch) -> Snapshot:
    """A copy from which this process runs."""
    monkeypatch.setattr(active, "import_from_copy", lambda copy: None)
    made = copy_of(project)
    monkeypatch.setattr(active._process, "code", None)
    active.run_from(made)
    for name in ("ROOT", "PYTHONPATH"):
        monkeypatch.setenv(name, "")
    return made


@pytest.mark.parametrize(
    "text", ["{}", "{}/", "{}/data", "file://{}/mlruns", "{}/a:{}/b", "sqlite:///{}/x.db", "--root='{}'", "in {}, say"]
)
def test_a_variable_whose_value_lies_in_the_copy_means_the_original_place(
    project: Path, copy: Snapshot, text: str
) -> None:
    os.environ["ROOT"] = text.format(copy.folder, copy.folder)
    assert os.environ["ROOT"] == os.getenv("ROOT") == text.format(project, project)


@pytest.mark.parametrize("text", ["{}2", "{}-old/data", "{}.old", "/elsewhere", "a \\1 text", ""])
def test_any_other_value_stays(copy: Snapshot, text: str) -> None:
    os.environ["ROOT"] = text.format(copy.folder)
    assert os.environ["ROOT"] == text.format(copy.folder)


@pytest.mark.app
def test_programs_see_the_original_place_too(project: Path, copy: Snapshot) -> None:
    os.environ.update(ROOT=f"{copy.folder}/data")
    assert subprocess.check_output("echo $ROOT", shell=True, text=True) == f"{project}/data\n"


def test_the_search_path_of_programs_stays_in_the_copy(copy: Snapshot) -> None:
    os.environ["PYTHONPATH"] = str(copy.folder)
    assert os.environ["PYTHONPATH"] == str(copy.folder)


def test_a_place_is_spelled_as_it_was_before(project: Path, copy: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder may be a link."""
    link = project.parent / "link"
    link.symlink_to(project)
    monkeypatch.setenv("ROOT", str(link))
    os.environ["ROOT"] = str(copy.folder)
    assert os.environ["ROOT"] == str(link)


@pytest.mark.parametrize("before", [None, ""])
def test_a_variable_without_a_value_gets_the_place_that_is_the_working_directory(
    project: Path, copy: Snapshot, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.chdir(project)
    os.environ.pop("ROOT", None)
    os.environ.update({} if before is None else {"ROOT": before})
    os.environ["ROOT"] = str(copy.folder)
    assert os.environ["ROOT"] == str(project)


def test_a_copy_below_a_link_is_recognized_however_it_is_spelled(project: Path, copy: Snapshot) -> None:
    link = project.parent / "link"
    link.symlink_to(copy.folder.parent)
    moved = Snapshot(link / copy.folder.name, copy.digest, copy.sources)
    for folder in (moved.folder, copy.folder, project / "../link" / copy.folder.name):
        spelled = Snapshot(folder, copy.digest, copy.sources)
        assert spelled.with_originals(os.path.abspath(folder / "data")) == str(project / "data")


def test_a_process_that_runs_from_no_copy_sets_what_it_is_told(copy: Snapshot) -> None:
    active.run_from(None)
    os.environ["ROOT"] = str(copy.folder)
    assert os.environ["ROOT"] == str(copy.folder)
