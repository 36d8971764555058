"""Whose results they are: two projects never share a cache by accident, and one is known wherever it is."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import textwrap
import typing as tp
import uuid
from pathlib import Path

import pytest
from apps import App, is_one_message
from places import SUPPORT

from hydra_exca import checksums
from hydra_exca.code import git as git_state
from hydra_exca.code.snapshot import Snapshot
from hydra_exca.errors import CacheError
from hydra_exca.identity.uid import make_identity
from hydra_exca.provenance import project as projects
from hydra_exca.store import CacheFolder

MODEL = """\
import os
import pydantic
from apps import note
from hydra_exca import TaskInfra

class Train(pydantic.BaseModel):
    seed: int = 12
    infra: TaskInfra = TaskInfra(version="1")

    @infra.apply
    def fit(self) -> str:
        note("fit", self.seed)
        return os.path.basename(os.path.dirname(os.path.abspath(__file__)))
"""
FIT = 'print(Train(seed=1, infra={"folder": os.environ["CACHE"]}).fit())'


def run(folder: Path, code: str, cache: Path, *, stdin: bool = False, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in a folder, with the results in ``cache``."""
    path = os.pathsep.join([str(SUPPORT), *filter(None, [env.pop("PATH_TOO", ""), os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "NOTES": str(cache.parent / "notes"), "CACHE": str(cache), **env}
    (folder / "notebook.py").write_text(code)
    command = [sys.executable, "-" if stdin else "notebook.py"]
    given = code if stdin else ""
    return subprocess.run(command, cwd=folder, env=environment, input=given, capture_output=True, text=True)


def project(folder: Path) -> Path:
    """A folder with a train.py."""
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(MODEL)
    return folder


def fit(folder: Path, cache: Path, **env: str) -> str:
    """What the Train of a project returns, or the error's last line."""
    done = run(folder, f"import os\nfrom train import Train\n{FIT}", cache, **env)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def clone(folder: Path, url: str) -> None:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "remote", "add", "origin", url], check=True)


# -- of an infra -------------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_an_infra_refuses_the_results_of_another_project(tmp_path: Path) -> None:
    one, two, cache = project(tmp_path / "one"), project(tmp_path / "two"), tmp_path / "cache"
    assert fit(one, cache) == "one"
    refused = fit(two, cache)
    assert "holds results of another project (in ../one), and this one (in ../two)" in refused
    assert (tmp_path / "notes").read_text() == "fit 1\n"


@pytest.mark.app
def test_a_refusal_says_what_can_be_done_and_that_helps(tmp_path: Path) -> None:
    one, two, cache = project(tmp_path / "one"), project(tmp_path / "two"), tmp_path / "cache"
    fit(one, cache)
    record = cache / "train.Train.fit,1/project.json"
    assert "another folder or another version; a sweep can also have hydra.launcher.project" in fit(two, cache)
    assert f"remove {record}" in fit(two, cache)
    record.unlink()
    assert fit(two, cache) == "one"


@pytest.mark.app
def test_a_git_remote_that_comes_later_is_recorded_also_if_nothing_runs(tmp_path: Path) -> None:
    one, cache = project(tmp_path / "one"), tmp_path / "cache"
    fit(one, cache)
    clone(one, "git@host:me/project.git")
    assert fit(one, cache) == "one"
    other = project(tmp_path / "deeper/two")
    clone(other, "git@host:me/project.git")
    assert fit(other, cache) == "one"


@pytest.mark.app
@pytest.mark.parametrize("ask", ["infra.clear_job()", "infra.uid_folder(create=True)"])
def test_what_changes_an_entry_refuses_another_projects(tmp_path: Path, ask: str) -> None:
    one, two, cache = project(tmp_path / "one"), project(tmp_path / "two"), tmp_path / "cache"
    fit(one, cache)
    code = 'import os\nfrom train import Train\nTrain(seed=1, infra={"folder": os.environ["CACHE"]}).'
    done = run(two, code + ask, cache)
    assert "another project" in done.stderr
    assert len(list(cache.glob("*/*/outcome.json"))) == 1


@pytest.mark.app
def test_a_project_and_its_cache_can_be_moved_together(tmp_path: Path) -> None:
    here, there = project(tmp_path / "here/code"), tmp_path / "there"
    assert fit(here, tmp_path / "here/cache") == "code"
    os.rename(tmp_path / "here", there)
    assert (fit(there / "code", there / "cache"), (there / "notes").read_text()) == ("code", "fit 1\n")


@pytest.mark.app
def test_infras_of_two_clones_of_one_repository_share_their_results(tmp_path: Path) -> None:
    one, two, cache = project(tmp_path / "one"), project(tmp_path / "two"), tmp_path / "cache"
    clone(one, "git@host.org:team/code.git")
    clone(two, "https://me:secret@host.org/team/code")
    assert (fit(one, cache), fit(two, cache)) == ("one", "one")


@pytest.mark.app
def test_an_array_over_two_projects_records_each(tmp_path: Path) -> None:
    one, cache = project(tmp_path / "one"), tmp_path / "cache"
    other = one / "below"
    other.mkdir()
    (other / "sub.py").write_text("from train import Train\nclass Sub(Train):\n    extra: int = 1\n")
    code = """
        import os, sys
        sys.path.append("below")
        from train import Train
        from sub import Sub
        infra = {"folder": os.environ["CACHE"]}
        with Train(infra=infra).infra.job_array() as tasks:
            tasks += [Train(infra=infra), Sub(infra=infra)]
        print([task.fit() for task in tasks])
    """
    done = run(one, textwrap.dedent(code), cache)
    assert done.stdout.strip() == "['one', 'one']", done.stderr
    records = {path.parent.name: checksums.parse_record(path.read_bytes()) for path in cache.glob("*/project.json")}
    assert records == {"train.Train.fit,1": {"folder": "../one"}, "sub.Sub.fit,1": {"folder": "../one/below"}}


@pytest.mark.app
def test_what_a_console_defines_is_of_its_working_directory(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for name, refused in (("one", False), ("one", False), ("two", True)):
        (tmp_path / name).mkdir(exist_ok=True)
        done = run(tmp_path / name, f"{MODEL}\n{FIT}", cache, stdin=True)
        assert ("another project (in ../one)" in done.stderr) == refused == (done.returncode != 0), done.stderr
    assert (tmp_path / "notes").read_text() == "fit 1\n"


@pytest.mark.app
def test_a_console_that_changes_its_working_directory_finds_its_results(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    code = f"{MODEL}\n{FIT}\nos.chdir('..')\n{MODEL}\n{FIT}"
    done = run(tmp_path / "one", code, tmp_path / "cache", stdin=True)
    assert (done.returncode, (tmp_path / "notes").read_text()) == (0, "fit 1\n"), done.stderr


@pytest.mark.app
def test_what_comes_to_a_job_by_value_is_of_the_script_it_comes_from(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    code = MODEL.replace("Train", "Part") + MODEL.replace(
        "return ", "return Part(seed=1, infra=dict(folder=os.environ['CACHE'])).fit() or "
    )
    code += "print(Train(infra=dict(folder=f'{os.getcwd()}/own', cluster='local')).infra.job().exception())\n"
    for name, told in (("one", "None"), ("one", "None"), ("two", "this one (in ../two)")):
        (tmp_path / name).mkdir(exist_ok=True)
        done = run(tmp_path / name, code, cache)  # without a guard
        assert done.returncode == 0 and told in done.stdout, done.stdout + done.stderr


@pytest.mark.app
def test_a_project_is_looked_up_once_in_a_process(tmp_path: Path) -> None:
    folder, git = project(tmp_path / "one"), tmp_path / "bin/git"
    clone(folder, "git@host.org:team/code.git")
    git.parent.mkdir()
    git.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexec {shutil.which("git")} "$@"\n')
    git.chmod(0o755)
    code = "import pathlib\nfrom hydra_exca.provenance import project\nfrom train import Train\n"
    code += 'print([project.describe_project(Train, pathlib.Path("cache")) for _ in range(5)])\n'
    done = run(folder, code, tmp_path / "cache", PATH=f"{git.parent}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == len(set(asked)) > 0


# -- of a sweep and an infra -------------------------------------------------------------------------------------------


def sweep_app(folder: Path) -> App:
    app = App(folder, config="seed: 1\n")
    main = '\n\nif __name__ == "__main__":\n    tell_returns()\n'
    main += '    hydra_exca.main(config_path="conf", config_name="config")(Train.fit)()\n'
    (folder / "train.py").write_text(f"import hydra_exca\nfrom apps import tell_returns\n{MODEL}{main}")
    return app


@pytest.mark.app
@pytest.mark.parametrize("in_git", [False, True])
def test_a_sweep_and_an_infra_of_one_project_agree(tmp_path: Path, in_git: bool) -> None:
    app = sweep_app(tmp_path / "app")
    if in_git:
        clone(app.folder, "git@host.org:team/code.git")
    assert app.run("seed=1").values == ["app"]
    assert fit(app.folder, app.cache, NOTES=str(app.folder / "notes.txt")) == "app"
    assert app.notes == ["fit 1"]


@pytest.mark.app
def test_a_sweep_refuses_what_an_infra_of_another_project_has_computed(tmp_path: Path) -> None:
    fit(project(tmp_path / "one"), tmp_path / "cache")
    app = sweep_app(tmp_path / "two")
    result = app.run("seed=1", f"hydra.launcher.folder={tmp_path / 'cache'}")
    assert is_one_message(result) and "another project" in result.stderr and app.notes == []


@pytest.mark.app
@pytest.mark.parametrize("copied", ["lib", "."])
def test_a_job_that_imports_from_a_copy_is_of_the_project_it_was_copied_from(tmp_path: Path, copied: str) -> None:
    model = MODEL.replace("Train", "Part")
    body = 'from lib.part import Part\nPart(seed=cfg.seed, infra={"folder": "parts"}).fit()\nreturn 1\n'
    app = App(tmp_path / "app", body, files={"lib/__init__.py": "", "lib/part.py": model})
    for seed in (1, 2):
        app.write("lib/changed.py", f"SEED = {seed}\n")  # another copy
        result = app.run(f"seed={seed}", f"hydra.launcher.workdir.copied=[{copied}]", cluster="local")
        assert result.values == [1], result.text
    code = 'from lib.part import Part\nprint(Part(seed=2, infra={"folder": "parts"}).fit())'
    done = run(app.folder, code, app.cache)
    assert done.returncode == 0 and app.notes == ["fit 1", "fit 2"], done.stderr
    record = app.folder / "parts/lib.part.Part.fit,1/project.json"
    assert checksums.parse_record(record.read_bytes()) == {"folder": "../lib"}


# -- what is recorded --------------------------------------------------------------------------------------------------


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> tp.Iterator[tp.Callable[[Path, str], type]]:
    """Imports a class ``C`` of a new package, with a name of its own, that lies in a folder."""
    names = []

    def importing(folder: Path, place: str) -> type:
        name = f"package_{uuid.uuid4().hex}"
        file = folder / place.format(name)
        file.parent.mkdir(parents=True)
        file.write_text("class C: ...\n")
        monkeypatch.syspath_prepend(folder)
        names.append(name)
        module = ".".join(Path(place.format(name)).with_suffix("").parts)
        return tp.cast(type, importlib.import_module(module).C)

    yield importing
    for module in [module for module in sys.modules if module.partition(".")[0] in names]:
        del sys.modules[module]


@pytest.mark.app
def test_of_an_installed_package_only_the_package_is_recorded(
    tmp_path: Path, imported: tp.Callable[[Path, str], type]
) -> None:
    clone(tmp_path, "git@host.org:team/code.git")  # an environment in the folder of a project
    cls = imported(tmp_path / ".venv/lib/python3/site-packages", "{}/below/models.py")
    package = cls.__module__.partition(".")[0]
    assert projects.describe_project(cls, tmp_path / "cache") == {"package": package}


def test_a_module_that_is_installed_alone_is_its_own_package(
    tmp_path: Path, imported: tp.Callable[[Path, str], type]
) -> None:
    cls = imported(tmp_path / "dist-packages", "{0}.py")
    assert projects.describe_project(cls, tmp_path / "cache") == {"package": cls.__module__}


@pytest.mark.app
def test_the_same_package_in_two_environments_shares_its_results(tmp_path: Path) -> None:
    for name in ("one", "two"):
        package = tmp_path / name / "site-packages/pkg"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "train.py").write_text(MODEL)
    code = f"import os\nfrom pkg.train import Train\n{FIT}"
    for name in ("one", "two"):
        done = run(tmp_path / name, code, tmp_path / "cache", PATH_TOO=str(tmp_path / name / "site-packages"))
        assert done.stdout == "pkg\n", done.stderr
    assert (tmp_path / "notes").read_text() == "fit 1\n"


class Local:
    """A class of these tests."""


def test_of_a_copy_that_this_process_imports_from_the_original_is_recorded(
    tmp_path: Path, imported: tp.Callable[[Path, str], type]
) -> None:
    copy = tmp_path / "cache/code/0123456789abcdef"
    cls = imported(copy, "{}.py")
    copied = Snapshot(copy, "0", ((tmp_path / "src/original.py", Path(f"{cls.__module__}.py")),))
    assert projects.describe_project(cls, tmp_path / "cache", copy=copied) == {"folder": "../src"}


def test_of_any_other_copy_nothing_is_known(tmp_path: Path, imported: tp.Callable[[Path, str], type]) -> None:
    cls = imported(tmp_path / "cache/code/0123456789abcdef", "{}.py")
    assert projects.describe_project(cls, tmp_path / "cache") == {}


def test_a_name_that_is_given_is_all_that_is_recorded(tmp_path: Path) -> None:
    assert projects.describe_project(Local, tmp_path, "mine") == {"name": "mine"}


@pytest.mark.app
def test_two_results_of_one_question_are_not_one_dictionary(tmp_path: Path) -> None:
    projects.describe_project(Local, tmp_path)["folder"] = "changed"
    assert (
        projects.describe_project(Local, tmp_path)
        == {"folder": os.path.relpath(Path(__file__).parent, tmp_path)} | git_of_tests()
    )


def git_of_tests() -> dict[str, str]:
    """What git says of these tests, which may lie in a clone."""
    found = git_state.find_repository(Path(__file__).parent)
    remote = None if found is None else found.remote
    return {} if found is None or remote is None else {"remote": remote, "path": found.path}


# -- shelves -----------------------------------------------------------------------------------------------------------

FOLDER, REMOTE = {"folder": "../a"}, {"folder": "../b", "remote": "host/code", "path": "src/"}


@pytest.mark.parametrize(
    ("known", "project", "same"),
    [
        (FOLDER, FOLDER, True),
        (FOLDER, {"folder": "../b"}, False),
        (REMOTE, {**REMOTE, "folder": "../c"}, True),
        (REMOTE, {**REMOTE, "path": ""}, False),
        (REMOTE, {"folder": "../b"}, True),  # no git there
        ({"package": "pkg"}, {"package": "pkg"}, True),
        ({"package": "pkg"}, {"package": "other"}, False),
        ({"package": "pkg"}, REMOTE, False),
        ({"name": "mine"}, {"name": "mine"}, True),
        ({"name": "mine"}, {"package": "mine"}, False),
        (FOLDER, {}, True),
        ({}, FOLDER, True),
    ],
)
def test_a_shelf_knows_its_project(tmp_path: Path, known: dict[str, str], project: dict[str, str], same: bool) -> None:
    CacheFolder(tmp_path).factory_folder("train.main", "0").create(known)
    shelf = CacheFolder(tmp_path).factory_folder("train.main", "0")
    if same:
        shelf.create(project)
        shelf.open_entry(make_identity("train.main", "0", {"seed": 1}))
    else:
        with pytest.raises(CacheError, match="another project"):
            shelf.create(project)


def test_who_is_not_known_records_nothing(tmp_path: Path) -> None:
    shelf = CacheFolder(tmp_path).factory_folder("train.main", "0")
    shelf.create({})
    shelf.create(FOLDER)
    assert checksums.parse_record((shelf.path / "project.json").read_bytes()) == FOLDER
