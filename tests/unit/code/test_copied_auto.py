"""copied=auto: what a run imports from outside of site-packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from repositories import git

pytestmark = pytest.mark.app

PACKAGES = ".packages"
SCRIPT = """\
import json, sys
from pathlib import Path
from hydra_exca.code.rules import Rules
from hydra_exca.code.manifest import make_manifest
from hydra_exca.code.selection import select_sources
from hydra_exca.code.writing import take_snapshot

rules = Rules(("*.py", "*.yaml"), ("__pycache__", ".git"), ignores=True)
{imports}
if __name__ == "__main__":
    wanted = select_sources({copied!r}, Path.cwd(), rules, names={names!r})
    tree = make_manifest(wanted.sources, Path({cache!r}), rules)
    copy = take_snapshot(wanted, Path({cache!r}), rules, known=tree)
    print(json.dumps(dict(files=list(tree.files), digest=tree.digest, roots=copy.import_roots())))
"""
FINDER = """
import importlib.util, sys

class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "pkg":
            return importlib.util.spec_from_file_location(name, {init!r}, submodule_search_locations=[{folder!r}])

sys.meta_path.append(Finder)
"""


class Project:
    """A folder with a script that tells what is copied of it, in a folder with other projects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.folder.mkdir()
        self.around = folder
        self.python = sys.executable
        self.search_path: list[Path] = []
        self.home = folder / "nobody"

    def write(self, name: str, text: str = "") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def installed(self, name: str, text: str) -> None:
        """Writes into site-packages of an environment of the project's own, which has all of this one too."""
        if self.python == sys.executable:
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.folder / ".venv"], check=True)
            self.python = str(self.folder / ".venv/bin/python")
            here = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
            self.installed("a.pth", "".join(f"import site; site.addsitedir({path!r})\n" for path in here))
        (packages,) = (self.folder / ".venv/lib").glob("*/site-packages")
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text(text)

    def run(
        self,
        imports: str = "",
        *,
        script: str = "train.py",
        how: tuple[str, ...] = (),
        folder: str = ".",
        names: tuple[str, ...] = (),
        copied: tuple[str, ...] = ("auto",),
    ) -> list[str]:
        """The names of the copies, without the script and what the tests import."""
        self.told = self.tell(imports, script=script, how=how, folder=folder, names=names, copied=copied)
        return [name for name in self.told["files"] if Path(name).name != Path(script).name]

    def tell(
        self, imports: str, *, script: str, how: tuple[str, ...], folder: str, names: tuple[str, ...], copied: object
    ) -> dict[str, list[str]]:
        cache = str(self.around / "cache")
        self.write(script, SCRIPT.format(imports=imports, names=names, copied=copied, cache=cache))
        inherited = os.environ.get("PYTHONPATH")
        search_path = os.pathsep.join([*map(str, self.search_path), *filter(None, [inherited])])
        done = subprocess.run(
            [self.python, *(how or (os.path.relpath(self.folder / script, self.folder / folder),))],
            cwd=self.folder / folder,
            env={**os.environ, "PYTHONPATH": search_path, "HOME": str(self.home)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        told: dict[str, list[str]] = json.loads(done.stdout)
        return told


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# -- the project of the script ----------------------------------------------------------------------------------------


def test_the_project_is_the_repository_around_the_script(project: Project) -> None:
    git(project.folder, "init", "-q")
    project.write("conf/config.yaml")
    project.write("lib/model.py")
    assert project.run(script="scripts/deep/train.py") == ["conf/config.yaml", "lib/model.py"]


@pytest.mark.parametrize("folder", [".", "lib", ".."])
def test_the_project_is_the_same_from_wherever_it_is_started(project: Project, folder: str) -> None:
    git(project.folder, "init", "-q")
    project.write("lib/model.py")
    assert project.run(script="scripts/train.py", folder=folder) == ["lib/model.py"]


def test_without_a_repository_the_project_is_the_folder_of_the_script(project: Project) -> None:
    project.write("model.py")
    project.write("scripts/own.py")
    assert project.run(script="scripts/train.py") == ["own.py"]


def test_of_a_script_that_is_started_as_a_module_the_project_is_around_its_package(project: Project) -> None:
    project.write("pkg/__init__.py")
    project.write("beside.py")
    found = project.run(script="pkg/deep/train.py", how=("-m", "pkg.deep.train"))
    assert found == ["beside.py", "pkg/__init__.py"]


def test_a_repository_in_a_repository_is_the_project(project: Project) -> None:
    git(project.folder, "init", "-q")
    project.write("outer.py")
    project.write("inner/own.py")
    git(project.folder / "inner", "init", "-q")
    assert project.run(script="inner/train.py") == ["own.py"]


def test_a_home_folder_is_no_project(project: Project) -> None:
    project.home = project.folder
    project.write("private.py")
    project.write("helper.py")
    assert project.run("import helper") == [f"{PACKAGES}/helper/helper.py"]


def test_a_home_folder_with_a_repository_is_no_project(project: Project) -> None:
    project.home = project.folder
    git(project.folder, "init", "-q")
    project.write("private.py")
    project.write("scripts/own.py")
    assert project.run(script="scripts/train.py") == ["own.py"]


def test_what_git_ignores_is_copied_if_the_run_has_imported_it(project: Project) -> None:
    git(project.folder, "init", "-q")
    project.write(".gitignore", "gen/\nbuild/\n_version.py\nother.py\n")
    for name in ("gen/used.py", "gen/imported_later.py", "build/x.py", "_version.py", "other.py"):
        project.write(name)
    assert project.run("import gen.used, _version") == ["_version.py", "gen/imported_later.py", "gen/used.py"]


# -- what is imported from elsewhere ----------------------------------------------------------------------------------


def test_an_imported_package_in_editable_mode_is_copied(project: Project) -> None:
    project.write("../other/src/pkg/__init__.py")
    project.write("../other/src/pkg/deep/model.py")
    project.write("../other/src/unused/model.py")
    project.installed("pkg.pth", f"{project.around / 'other/src'}\n")
    found = project.run("import pkg")
    assert found == [f"{PACKAGES}/pkg/pkg/__init__.py", f"{PACKAGES}/pkg/pkg/deep/model.py"]


def test_so_is_one_with_an_import_hook(project: Project) -> None:
    init = project.write("../other/code/__init__.py")
    project.installed("_finder.py", FINDER.format(init=str(init.resolve()), folder=str(init.resolve().parent)))
    project.installed("pkg.pth", "import _finder\n")
    assert project.run("import pkg") == [f"{PACKAGES}/pkg/pkg/__init__.py"]


def test_an_editable_package_that_is_not_imported_is_not_copied(project: Project) -> None:
    project.write("../other/src/pkg/__init__.py")
    project.installed("pkg.pth", f"{project.around / 'other/src'}\n")
    assert project.run() == []


def test_installed_packages_are_not_copied_and_an_environment_in_the_project_is_not(project: Project) -> None:
    project.installed("installed.py", "")
    project.write("model.py")
    assert project.run("import installed, pydantic, yaml") == ["model.py"]


def test_a_package_of_the_project_in_editable_mode_is_where_it_is_in_the_project(project: Project) -> None:
    project.write("src/pkg/__init__.py")
    project.installed("pkg.pth", f"{project.folder / 'src'}\n")
    assert project.run("import pkg") == ["src/pkg/__init__.py"]


def test_a_module_from_the_search_path_is_copied_without_what_is_beside_it(project: Project) -> None:
    project.write("../tools/helper.py")
    project.write("../tools/unused.py")
    project.search_path.append(project.around / "tools")
    assert project.run("import helper") == [f"{PACKAGES}/helper/helper.py"]


def test_both_places_of_a_namespace_package_are_copied(project: Project) -> None:
    project.write("../one/space/a.py")
    project.write("../two/space/b.py")
    project.search_path += [project.around / "one", project.around / "two"]
    found = project.run("import space.a, space.b")
    assert found == [f"{PACKAGES}/space.1/space/b.py", f"{PACKAGES}/space/space/a.py"]
    assert [Path(root).name for root in project.told["roots"]] == ["space", "space.1"]


def test_both_places_of_a_namespace_package_are_copied_when_it_is_named(project: Project) -> None:
    project.write("../one/space/a.py")
    project.write("../two/space/b.py")
    project.search_path += [project.around / "one", project.around / "two"]
    assert project.run(copied=("space",)) == [f"{PACKAGES}/space.1/space/b.py", "space/a.py"]
    assert str(Path(PACKAGES, "space.1")) in " ".join(project.told["roots"])


def test_one_place_of_a_namespace_package_can_be_in_the_project(project: Project) -> None:
    project.write("space/a.py")
    project.write("../two/space/b.py")
    project.search_path += [project.around / "two"]
    assert project.run("import space.a, space.b") == [f"{PACKAGES}/space/space/b.py", "space/a.py"]


def test_what_a_config_names_is_copied_before_it_is_imported(project: Project) -> None:
    project.write("../tools/later/__init__.py")
    project.search_path.append(project.around / "tools")
    assert project.run(names=("later", "nothing_such", "sys")) == [f"{PACKAGES}/later/later/__init__.py"]


def test_what_links_in_site_packages_lead_to_counts_as_installed(project: Project) -> None:
    """Some installers keep files elsewhere, and link to them."""
    project.installed("kept.pth", "")
    (packages,) = (project.folder / ".venv/lib").glob("*/site-packages")
    os.symlink(project.write("../store/linked.py").resolve(), packages / "linked.py")
    assert project.run("import linked") == []


# -- with names -------------------------------------------------------------------------------------------------------


def test_what_is_named_too_keeps_its_place_in_the_project(project: Project) -> None:
    git(project.folder, "init", "-q")
    project.write("sub/table.csv")
    project.write("../beside/b.csv")
    found = project.run(script="sub/train.py", folder="sub", copied=("auto", "table.csv", "../../beside/b.csv", "."))
    assert found == ["b.csv", "sub/table.csv"]


def test_a_run_from_a_copy_copies_the_same_files(project: Project) -> None:
    """As by hand, to see what is in it."""
    project.write("model.py")
    project.run("import model")
    first = project.told
    (copy,) = (project.around / "cache/code").glob("[!.]*")
    done = subprocess.run([project.python, copy / "train.py"], capture_output=True, text=True, cwd=project.folder)
    again = json.loads(done.stdout)
    assert (again["files"], again["digest"]) == (first["files"], first["digest"])
