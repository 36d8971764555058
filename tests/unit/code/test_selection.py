"""Snapshots: a copy of code that jobs import from, as it was when they were launched."""

from __future__ import annotations

import os
import sys
import typing as tp
from pathlib import Path

import pytest

from hydra_exca import paths, script
from hydra_exca.code.rules import Rules
from hydra_exca.code.selection import is_copied, select_sources
from hydra_exca.code.snapshot import Snapshot
from hydra_exca.code.writing import take_snapshot
from hydra_exca.errors import ConfigError
from hydra_exca.job.payload import Payload

making = sys.modules["hydra_exca.code.writing"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a package, a script and what is not to be copied."""
    files = {
        "src/pkg/__init__.py": "",
        "src/pkg/model.py": "LR = 1\n",
        "src/pkg/data.txt": "data",
        "src/pkg/__pycache__/model.cpython-311.pyc": "byte code",
        "src/.git/HEAD": "ref",
        "src/cache/CACHEDIR.TAG": paths.CACHEDIR_TAG_TEXT,
        "src/cache/result": "big",
        "train.py": "import pkg.model\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def snapshot(project: Path, *copied: str) -> Snapshot:
    return take_snapshot(select_sources(copied, project), project / "exca")


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_is_copied_without_caches_git_and_byte_code(project: Path) -> None:
    found = snapshot(project, "src")
    assert listing(found.folder) == ["src/pkg/__init__.py", "src/pkg/data.txt", "src/pkg/model.py"]


def test_changed_code_is_another_copy(project: Path) -> None:
    before = snapshot(project, "src")
    (project / "src/pkg/model.py").write_text("LR = 2\n")
    after = snapshot(project, "src")
    assert [(s.folder / "src/pkg/model.py").read_text() for s in (before, after)] == ["LR = 1\n", "LR = 2\n"]


def test_renamed_code_is_another_copy(project: Path) -> None:
    before = snapshot(project, "src")
    os.rename(project / "src/pkg/model.py", project / "src/pkg/models.py")
    assert snapshot(project, "src").digest != before.digest


def test_the_cache_folder_inside_of_what_is_copied_is_left_out(project: Path) -> None:
    (project / "exca").mkdir()
    (project / "exca/entry").write_text("a result")
    assert [name for name in listing(snapshot(project, ".").folder) if name.startswith("exca")] == []


def test_a_single_file_is_copied(project: Path) -> None:
    assert listing(snapshot(project, "train.py").folder) == ["train.py"]


def test_a_package_is_copied_by_its_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(project / "src")
    assert listing(snapshot(project, "pkg").folder) == ["pkg/__init__.py", "pkg/data.txt", "pkg/model.py"]


@pytest.mark.parametrize("name", ["nothing_such", "not a name", ".relative", "sys"])
def test_what_cannot_be_copied_is_an_error_that_names_it(project: Path, name: str) -> None:
    """``sys`` is importable and has no file."""
    with pytest.raises(ConfigError, match=name):
        snapshot(project, name)


def test_two_folders_of_the_same_name_do_not_become_one(project: Path) -> None:
    for name in ("one", "two"):
        (project / name / "lib").mkdir(parents=True)
        (project / name / "lib/which.py").write_text(name)
    folders = [project / name / "lib" for name in ("one", "two")]
    try:
        found = snapshot(project, *map(str, folders))
    except ConfigError:
        return  # refusing is as good
    assert [found.copy_of(folder / "which.py").read_text() for folder in folders] == ["one", "two"]


def test_a_copy_holds_what_its_digest_says_also_when_a_file_is_edited_meanwhile(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever launches the old code again would be given the copy with the edit."""
    fill = making._write_copy

    def edited_before(*arguments: tp.Any, **options: tp.Any) -> None:
        (project / "src/pkg/model.py").write_text("LR = 2\n")
        fill(*arguments, **options)

    monkeypatch.setattr(making, "_write_copy", edited_before)
    edited = snapshot(project, "src")
    monkeypatch.undo()
    (project / "src/pkg/model.py").write_text("LR = 1\n")
    again = snapshot(project, "src")
    assert (again.folder / "src/pkg/model.py").read_text() == "LR = 1\n" or again.digest != edited.digest


def test_the_jobs_search_the_copy_first_and_what_led_into_the_sources_next(project: Path) -> None:
    found = snapshot(project, "src")
    payload = Payload("local", b"", (str(project / "src"), "/usr/lib"), (), str(project), None, False)
    assert payload.importing_from(found).search_path == (str(found.folder / "src"), str(found.folder), "/usr/lib")


def test_a_script_that_was_copied_is_loaded_from_the_copy(project: Path) -> None:
    found = snapshot(project, "train.py")
    started = script.Script(str(project / "train.py"))
    payload = Payload("local", b"", (), (), str(project), started, False)
    assert payload.importing_from(found).script == script.Script(str(found.folder / "train.py"))


def test_what_was_not_copied_stays_where_it_is(project: Path) -> None:
    assert snapshot(project, "src").copy_of(Path(sys.prefix)) == Path(sys.prefix)


def test_a_path_through_a_link_leads_into_the_copy(project: Path) -> None:
    os.symlink(project / "src", project / "link")
    found = snapshot(project, "src")
    assert found.copy_of(project / "link/pkg") == found.folder / "src/pkg"


def test_a_file_that_was_named_beside_the_folder_around_it_leads_into_the_copy(project: Path) -> None:
    rules = Rules(("*.py",))
    wanted = select_sources([".", str(project / "src/pkg/data.txt")], project, rules)
    found = take_snapshot(wanted, project / "exca", rules)
    assert found.copy_of(project / "src/pkg/data.txt") == found.folder / "data.txt"


def test_a_data_file_is_not_taken_for_a_module_of_a_folder_with_its_stem(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``data.csv`` could be the module ``csv`` of a package ``data``."""
    (project / "data").mkdir()
    (project / "data/load.py").write_text("")
    (project / "data.csv").write_text("")
    monkeypatch.syspath_prepend(project)
    copy = snapshot(project, "data")
    assert not is_copied("data.csv", project, copy)
    (project / "data.csv").unlink()
    assert not is_copied("data.csv", project, copy)
    assert is_copied("data", project, copy) and is_copied("data.load", project, copy)


def test_a_file_that_was_copied_and_deleted_since_is_in_the_copy(project: Path) -> None:
    copy = snapshot(project, "train.py")
    (project / "train.py").unlink()
    assert is_copied("train.py", project, copy)


@pytest.mark.parametrize("name", ["pkg.no_such_module", "table.csv"])
def test_a_dotted_name_that_leads_to_no_module_is_an_error(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.syspath_prepend(project / "src")
    (project / "src/table").mkdir()
    with pytest.raises(ConfigError, match=name):
        snapshot(project, name)
