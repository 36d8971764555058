"""Links in what is copied: kept inside, refused where they lead out to code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from code_trees import DEFAULT, Write, listed

from hydra_exca.code.listing import list_files
from hydra_exca.code.rules import Rules
from hydra_exca.code.selection import select_sources
from hydra_exca.errors import ConfigError


def links(root: Path, *copied: str) -> dict[str, str]:
    """The links among the copies, and where they lead."""
    sources = select_sources(copied or ["."], root, DEFAULT).sources
    found = list_files(sources, DEFAULT).files
    return {name: file.link for name, file in found.items() if file.link is not None}


@pytest.mark.parametrize("absolute", [False, True])
def test_a_link_inside_is_kept_relative(root: Path, write: Write, absolute: bool) -> None:
    write("lib/a.py", "other/b.py")
    start = f"{root}/" if absolute else "../"
    os.symlink(f"{start}lib/a.py", root / "other/file.py")
    os.symlink(f"{start}lib", root / "other/folder")
    assert links(root) == {"other/file.py": "../lib/a.py", "other/folder": "../lib"}


def test_a_link_from_one_source_to_another_is_kept(root: Path, write: Write) -> None:
    write("lib/a.py", "../beside/b.py")
    os.symlink(root.parent / "beside", root / "lib/way")
    assert links(root, "lib", str(root.parent / "beside")) == {"lib/way": "../beside"}


def test_a_link_that_was_named_is_a_copy_of_what_it_leads_to(root: Path, write: Write) -> None:
    write("../beside/b.py", "a.py")
    os.symlink(root.parent / "beside", root / "way")
    assert listed(root, ".", "way") == ["a.py", "way/b.py"] and links(root, ".", "way") == {}


def test_a_link_to_a_file_that_is_no_code_is_a_copy_of_it(root: Path, write: Write) -> None:
    write("a.txt")
    os.symlink("a.txt", root / "a.py")
    assert listed(root) == ["a.py"] and links(root) == {}


def test_a_link_to_a_folder_without_code_is_passed_over(root: Path, write: Write) -> None:
    write("a.py", "data/table.csv")
    os.symlink("data", root / "way")
    assert listed(root) == ["a.py"]


def test_links_in_a_circle_end(root: Path, write: Write) -> None:
    write("lib/a.py")
    os.symlink("..", root / "lib/up")
    os.symlink("one", root / "two")
    os.symlink("two", root / "one")
    assert links(root) == {"lib/up": ".."} and listed(root) == ["lib/a.py", "lib/up"]


def test_a_link_that_leads_nowhere_is_passed_over(root: Path, write: Write) -> None:
    write("a.py")
    os.symlink("nothing.py", root / "b.py")
    assert listed(root) == ["a.py"]


@pytest.mark.parametrize("target", ["beside/b.py", "beside"])
def test_a_link_out_of_what_is_copied_is_refused_by_its_name(root: Path, write: Write, target: str) -> None:
    write("../beside/b.py", "lib/a.py")
    os.symlink(root.parent / target, root / "lib/way.py")
    with pytest.raises(ConfigError, match=f"the link {root}/lib/way.py leads to {root.parent}/{target}, which is not"):
        listed(root)


def test_all_links_out_are_told_at_once(root: Path, write: Write) -> None:
    write("../beside/b.py")
    for number in range(3):
        os.symlink(root.parent / "beside", root / f"way{number}")
    with pytest.raises(ConfigError) as error:
        listed(root)
    assert all(f"way{number}" in str(error.value) for number in range(3))


@pytest.mark.parametrize("pattern", ["way", "lib/way"])
def test_a_link_out_can_be_excluded(root: Path, write: Write, pattern: str) -> None:
    write("../beside/b.py", "lib/a.py")
    os.symlink(root.parent / "beside", root / "lib/way")
    assert listed(root, rules=Rules(("*.py",), (pattern,))) == ["lib/a.py"]


@pytest.mark.parametrize("inside", ["table.csv", "CACHEDIR.TAG", "pyvenv.cfg"])
def test_a_link_out_to_data_a_cache_or_an_environment_is_passed_over(root: Path, write: Write, inside: str) -> None:
    write("a.py", f"../data/{inside}", "../data/deep/x.csv")
    os.symlink(root.parent / "data", root / "data")
    assert listed(root) == ["a.py"]


@pytest.mark.parametrize("inside", ["0/.hydra/hydra.yaml", "deep/CACHEDIR.TAG"])
def test_a_link_out_to_where_runs_are_written_is_passed_over(root: Path, write: Write, inside: str) -> None:
    write("a.py", f"../scratch/{inside}", f"../scratch/{Path(inside).parts[0]}/found.yaml")
    write("../scratch/1/multirun.yaml", text="hydra:\n  run:\n    dir: x\n")
    os.symlink(root.parent / "scratch", root / "runs")
    assert listed(root) == ["a.py"]


def test_a_link_out_to_code_beside_runs_is_refused(root: Path, write: Write) -> None:
    write("../scratch/0/.hydra/hydra.yaml", "../scratch/lib/b.py")
    os.symlink(root.parent / "scratch", root / "runs")
    with pytest.raises(ConfigError, match="the link .*runs leads to"):
        listed(root)


def test_a_link_into_what_is_left_out_is_passed_over(root: Path, write: Write) -> None:
    """As those from a sweep's folder to the outputs in the cache."""
    write("a.py", "exca/b.py")
    os.symlink("exca", root / "last")
    assert listed(root, left_out=("exca",)) == ["a.py"]


@pytest.mark.app
def test_a_link_whose_target_git_ignores_is_a_copy_of_the_file(repository: Path, write: Write) -> None:
    write(".gitignore", text="real.py\n")
    write("real.py")
    os.symlink("real.py", repository / "a.py")
    assert listed(repository) == ["a.py"]
