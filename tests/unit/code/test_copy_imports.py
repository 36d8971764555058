"""Once a copy of code is preferred, what is imported comes from it, and what is not in it from where it is."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.app

# what each program starts with; `copy()` makes a copy of what is named, and imports come from it then
START = """
import importlib, json, os, sys
from pathlib import Path
from hydra_exca.code.rules import Rules
from hydra_exca.code.importer import forget_originals, import_from_copy
from hydra_exca.code.selection import select_sources
from hydra_exca.code.writing import take_snapshot

def copy(*names, **rules):
    found = select_sources(names, Path.cwd(), Rules(**rules))
    made = take_snapshot(found, Path("cache").absolute(), Rules(**rules))
    import_from_copy(made)
    return made

def tell(**values):
    print(json.dumps(values, default=str))
"""


class Folder:
    """Files, and programs that run beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, *names: str) -> None:
        """Makes empty modules."""
        for name in names:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")

    def run(self, program: str) -> dict[str, Any]:
        """What a program tells, which is run without the folder on its search path."""
        text = textwrap.dedent(START) + textwrap.dedent(program)
        done = subprocess.run(
            [sys.executable, "-P", "-c", text], cwd=self.folder, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_copied_module_wins_over_a_folder_that_is_put_in_front_later(folder: Folder) -> None:
    folder.write("lib/own.py")
    told = folder.run("""
        made = copy("lib")
        sys.path.insert(0, os.path.abspath("lib"))
        import own
        tell(file=own.__file__, copy=made.folder)
    """)
    assert told["file"] == f"{told['copy']}/lib/own.py"


def test_what_was_not_copied_is_imported_from_where_it_is(folder: Folder) -> None:
    folder.write("lib/own.py", "other/there.py")
    told = folder.run("""
        copy("lib")
        sys.path.insert(0, os.path.abspath("other"))
        import there
        tell(file=there.__file__)
    """)
    assert told["file"] == str(folder.folder / "other/there.py")


def test_a_module_that_was_left_out_of_a_copied_package_is_that_of_the_original(folder: Folder) -> None:
    folder.write("own/__init__.py", "own/big.py", "own/part.py")
    told = folder.run("""
        copy("own", excludes=("big.py",))
        import own.big, own.part
        tell(big=own.big.__file__, part=own.part.__file__)
    """)
    assert told["big"] == str(folder.folder / "own/big.py")
    assert told["part"].startswith(str(folder.folder / "cache/code"))


def test_that_holds_where_the_cache_is_a_link_and_the_script_resolves_its_path(folder: Folder) -> None:
    folder.write("own/__init__.py", "own/big.py")
    (folder.folder / "scratch").mkdir()
    (folder.folder / "cache").symlink_to("scratch")
    told = folder.run("""
        made = copy("own", excludes=("big.py",))
        sys.path.insert(0, str(made.folder.resolve()))
        import own.big
        tell(big=own.big.__file__, own=own.__file__)
    """)
    assert told["big"] == str(folder.folder / "own/big.py")
    assert told["own"].startswith((str(folder.folder / "cache/code"), str(folder.folder / "scratch/code")))


def test_the_parts_of_a_namespace_are_those_of_the_copy_and_those_that_were_not_copied(folder: Folder) -> None:
    folder.write("one/own/first.py", "two/own/second.py", "three/own/third.py")
    told = folder.run("""
        sys.path[:0] = [os.path.abspath(name) for name in ("one", "two", "three")]
        copy("one", "two")
        import own.first, own.second, own.third
        tell(**{name: getattr(own, name).__file__ for name in ("first", "second", "third")})
    """)
    cache = str(folder.folder / "cache/code")
    assert told["first"].startswith(cache) and told["second"].startswith(cache)
    assert told["third"] == str(folder.folder / "three/own/third.py")


FINDER = """
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location

class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "own":
            return spec_from_file_location(name, os.path.abspath("lib/own/__init__.py"))
        if name == "space":
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = ["nowhere"]
            return spec
        if name == "space.own":
            return spec_from_file_location(name, os.path.abspath("lib/own/__init__.py"))
        return None

sys.meta_path.append(Finder)
"""


@pytest.mark.parametrize("name", ["own", "space.own"])
def test_what_the_hook_of_an_editable_installation_finds_is_that_of_the_copy(folder: Folder, name: str) -> None:
    folder.write("lib/own/__init__.py")
    told = folder.run(f"""
        {textwrap.indent(FINDER, " " * 8).strip()}
        made = copy("lib")
        sys.path[:] = [each for each in sys.path if not each.startswith(str(made.folder))]
        tell(file=importlib.import_module({name!r}).__file__, copy=made.folder)
    """)
    assert told["file"] == f"{told['copy']}/lib/own/__init__.py"


def test_the_search_path_leads_to_what_such_a_hook_has_found(folder: Folder) -> None:
    folder.write("lib/own/__init__.py")
    told = folder.run(f"""
        {textwrap.indent(FINDER, " " * 8).strip()}
        before = list(sys.path)
        made = copy(".")
        import own
        during = list(sys.path)
        import_from_copy(None)
        tell(added=during[len(before):], copy=made.folder, same=sys.path == before)
    """)
    assert told["added"] == [f"{told['copy']}/lib"] and told["same"]


def test_afterwards_imports_come_from_where_the_code_is(folder: Folder) -> None:
    folder.write("lib/own.py", "lib/later.py")
    told = folder.run("""
        sys.path.insert(0, os.path.abspath("lib"))
        before = list(sys.meta_path)
        copy("lib")
        import own
        import_from_copy(None)
        import later
        tell(later=later.__file__, same=sys.meta_path == before)
    """)
    assert told == {"later": str(folder.folder / "lib/later.py"), "same": True}


def test_modules_of_python_itself_are_not_those_of_a_copied_script_of_the_same_name(folder: Folder) -> None:
    folder.write("lib/sys.py", "lib/zipimport.py", "lib/own.py")
    told = folder.run("""
        copy("lib")
        sys.path.insert(0, os.path.abspath("lib"))
        import own, zipimport
        tell(zipimport=zipimport.__spec__.origin)
    """)
    assert told["zipimport"] == "frozen"


def test_a_process_that_has_imported_originals_imports_the_copy_when_told_to_forget_them(folder: Folder) -> None:
    folder.write("lib/own.py")
    told = folder.run("""
        sys.path.insert(0, os.path.abspath("lib"))
        import own
        made = copy("lib")
        forget_originals(made)
        import own, json as kept
        tell(file=own.__file__, copy=made.folder, kept=kept is json)
    """)
    assert told == {"file": f"{told['copy']}/lib/own.py", "copy": told["copy"], "kept": True}


def test_a_module_that_is_made_after_the_launch_in_a_copied_package_is_not_imported(folder: Folder) -> None:
    folder.write("own/__init__.py")
    told = folder.run("""
        copy("own")
        Path("own/new.py").touch()
        try:
            import own.new
        except ImportError as error:
            tell(name=error.name)
    """)
    assert told["name"] == "own.new"


def test_a_module_that_is_made_after_the_launch_in_a_copied_folder_of_the_search_path_is_not_imported(
    folder: Folder,
) -> None:
    folder.write("lib/own.py")
    told = folder.run("""
        sys.path.insert(0, os.path.abspath("lib"))
        copy("lib")
        Path("lib/new.py").touch()
        try:
            import new
        except ModuleNotFoundError as error:
            tell(message=str(error))
    """)
    assert "lib/new.py was not there when this was launched" in told["message"]


def test_such_a_module_hides_none_of_its_name_that_is_installed(folder: Folder) -> None:
    folder.write("lib/own.py", "installed/new.py")
    told = folder.run("""
        sys.path[:0] = [os.path.abspath("lib"), os.path.abspath("installed")]
        copy("lib")
        Path("lib/new.py").touch()
        import new
        tell(file=new.__file__)
    """)
    assert told["file"] == str(folder.folder / "installed/new.py")


@pytest.mark.parametrize("name", ["alone", "gen.part", "space.part"])
def test_what_git_ignores_in_a_copied_folder_of_the_search_path_is_imported_from_where_it_is(
    folder: Folder, name: str
) -> None:
    folder.write("lib/own.py", "lib/alone.py", "lib/gen/__init__.py", "lib/gen/part.py", "lib/space/part.py")
    (folder.folder / "lib/.gitignore").write_text("alone.py\ngen/\nspace/*.py\n")
    subprocess.run(["git", "init", "-q", folder.folder], check=True)
    told = folder.run(f"""
        made = copy("lib", ignores=True)
        tell(file=importlib.import_module({name!r}).__file__)
    """)
    assert told["file"] == str(folder.folder / f"lib/{name.replace('.', '/')}.py")


def test_a_module_of_a_folder_that_was_passed_over_as_written_is_imported_from_where_it_is(folder: Folder) -> None:
    folder.write("lib/own.py", "lib/plug/__init__.py", "lib/plug/.hydra/hydra.yaml")
    told = folder.run("""
        copy("lib")
        import plug
        tell(file=plug.__file__)
    """)
    assert told["file"] == str(folder.folder / "lib/plug/__init__.py")
