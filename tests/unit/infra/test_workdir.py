"""infra.workdir: the method runs in a copy of the code, as it was when it was submitted."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest
from apps import wait_until
from places import SUPPORT
from running_models import Where

from hydra_exca import ConfigError, TaskFailedError, TaskInfra
from hydra_exca.code import active
from hydra_exca.code.selection import select_sources
from hydra_exca.code.writing import take_snapshot

SLURM = pytest.param("slurm", marks=pytest.mark.slurm)
JOBS_OF_THEIR_OWN = ["local", SLURM]
# a process that nobody waits for outlives the objects that started it
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
# the second of two jobs starts when the first, which waits for a file, has ended
MODEL = """
import json, os, sys
from pathlib import Path

import pydantic
from apps import note, wait_for
from hydra_exca import TaskInfra

VALUE = "launched"


class Train(pydantic.BaseModel):
    x: int = 1
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> dict[str, str]:
        note("start", self.x)
        if self.x == 1:
            wait_for(os.environ["GO"])
        return {"value": VALUE, "cwd": os.getcwd(), "file": os.path.abspath(__file__)}
"""
MAIN = """
def main() -> None:
    tasks = [Train(x=x, infra=json.loads(sys.argv[1])) for x in (1, 2)]
    with tasks[0].infra.job_array(max_workers=1) as array:
        array.extend(tasks)
    print(json.dumps([task.fit() for task in tasks]))


if __name__ == "__main__":
    main()
"""
FINDER = """
import importlib.machinery, importlib.util, sys

class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "pkg":
            return importlib.util.spec_from_file_location(
                name, {init!r}, submodule_search_locations=[{folder!r}]
            )

sys.meta_path.append(Finder)
"""


class Project:
    """A folder with code in it, and programs that are started there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.python = sys.executable

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def settings(self, cluster: str | None = "local", **workdir: tp.Any) -> dict[str, tp.Any]:
        infra: dict[str, tp.Any] = {"folder": str(self.cache), "cluster": cluster}
        return {**infra, "workdir": workdir} if workdir else infra

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {"PYTHONPATH": path, "NOTES": str(self.folder / "notes"), "GO": str(self.folder / "go")}
        return subprocess.Popen(
            [self.python, script, *arguments],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *arguments: str) -> tp.Any:
        """What a program prints as JSON."""
        with self.start(script, *arguments) as process:
            out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        return json.loads(out.splitlines()[-1])

    def edited_while_queued(self, script: str, edited: str, **settings: tp.Any) -> list[dict[str, str]]:
        """What two jobs return, of which the second starts after a module was edited."""
        with self.start(script, json.dumps(self.settings(**settings))) as process:
            notes = self.folder / "notes"
            wait_until(lambda: notes.exists() or process.poll() is not None, "the first job")
            path = self.folder / edited
            path.write_text(path.read_text().replace("launched", "edited"))
            (self.folder / "go").touch()
            out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        return json.loads(out)

    @property
    def copies(self) -> list[Path]:
        return sorted((self.cache / "code").glob("[!.]*"))


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    gc.collect()  # here, where what a forgotten process warns of is filtered


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def installed(project: Project, how: str) -> None:
    """Makes ``pkg`` in ``src`` a package that an environment of the project has in editable mode."""
    project.write("src/pkg/__init__.py", "")
    project.write("src/pkg/model.py", MODEL)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project.folder / "venv"], check=True)
    (packages,) = (project.folder / "venv/lib").glob("*/site-packages")
    here = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "parent.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in here))
    folder = project.folder / "src/pkg"
    if how == "path":
        (packages / "pkg.pth").write_text(f"{folder.parent}\n")
    else:
        (packages / "_pkg_finder.py").write_text(FINDER.format(init=str(folder / "__init__.py"), folder=str(folder)))
        (packages / "pkg.pth").write_text("import _pkg_finder\n")
    project.python = str(project.folder / "venv/bin/python")


# -- the code of the submission ---------------------------------------------------------------------------------------


@pytest.mark.app
@pytest.mark.parametrize("cluster", JOBS_OF_THEIR_OWN)
def test_a_job_that_waits_runs_the_module_as_it_was_when_it_was_submitted(project: Project, cluster: str) -> None:
    project.write("model.py", MODEL)
    project.write("main.py", "import json, sys\nfrom model import Train\n" + MAIN)
    found = project.edited_while_queued("main.py", "model.py", cluster=cluster, copied=["model.py"])
    (copy,) = project.copies
    assert [each["value"] for each in found] == ["launched"] * 2
    assert [each["cwd"] for each in found] == [str(copy)] * 2
    assert [each["file"] for each in found] == [str(copy / "model.py")] * 2


@pytest.mark.app
def test_without_a_copy_a_job_that_waits_runs_what_is_there_when_it_starts(project: Project) -> None:
    project.write("model.py", MODEL)
    project.write("main.py", "import json, sys\nfrom model import Train\n" + MAIN)
    assert [each["value"] for each in project.edited_while_queued("main.py", "model.py")] == ["launched", "edited"]


@pytest.mark.app
@pytest.mark.parametrize("cluster", JOBS_OF_THEIR_OWN)
def test_the_script_itself_runs_as_it_was(project: Project, cluster: str) -> None:
    project.write("main.py", MODEL + MAIN)
    found = project.edited_while_queued("main.py", "main.py", cluster=cluster, copied=["main.py"])
    assert [each["value"] for each in found] == ["launched"] * 2


@pytest.mark.app
@pytest.mark.parametrize("copied", [["pkg"], ["src"], ["."], ["src/pkg"]], ids=str)
@pytest.mark.parametrize("how", ["path", "finder"])
def test_a_copied_package_comes_before_the_one_installed_in_editable_mode(
    project: Project, how: str, copied: list[str]
) -> None:
    installed(project, how)
    project.write("main.py", "import json, sys\nfrom pkg.model import Train\n" + MAIN)
    found = project.edited_while_queued("main.py", "src/pkg/model.py", copied=copied)
    assert [each["value"] for each in found] == ["launched"] * 2
    assert Path(found[1]["file"]).is_relative_to(project.copies[0])


@pytest.mark.slurm
def test_on_slurm_a_copied_package_comes_before_the_installed_one(project: Project) -> None:
    installed(project, "path")
    project.write("main.py", "import json, sys\nfrom pkg.model import Train\n" + MAIN)
    found = project.edited_while_queued("main.py", "src/pkg/model.py", cluster="slurm", copied=["pkg"])
    assert [each["value"] for each in found] == ["launched"] * 2


@pytest.mark.app
def test_a_package_is_copied_also_where_a_folder_around_it_has_its_name(project: Project) -> None:
    """As in a checkout whose folder is called as the package in it."""
    installed(project, "path")
    project.write("main.py", "import json, sys\nfrom pkg.model import Train\n" + MAIN)
    os.symlink(".", project.folder / "pkg")
    found = project.edited_while_queued("main.py", "src/pkg/model.py", copied=["pkg"])
    assert [each["value"] for each in found] == ["launched"] * 2


# -- jobs that submit jobs --------------------------------------------------------------------------------------------

NESTED = """
import json, os, sys
from pathlib import Path

import pydantic
from apps import note, wait_for
from hydra_exca import TaskInfra
from lib.value import VALUE


class Inner(pydantic.BaseModel):
    x: int = 1
    infra: TaskInfra = TaskInfra(folder="cache")

    @infra.apply
    def fit(self) -> list[str]:
        return [VALUE, os.getcwd()]


class Outer(pydantic.BaseModel):
    inner: Inner = Inner()
    infra: TaskInfra = TaskInfra(folder="cache")

    @infra.apply
    def fit(self) -> list[list[str]]:
        note("start")
        wait_for(os.environ["GO"])
        return [[VALUE, os.getcwd()], self.inner.fit(), Inner(x=2).fit()]


if __name__ == "__main__":
    outer, inner = map(json.loads, sys.argv[1:])
    print(json.dumps(Outer(infra=outer, inner={"infra": inner}).fit()))
"""


def nested(project: Project, outer: dict[str, tp.Any], inner: dict[str, tp.Any]) -> list[list[str]]:
    """Value and working directory of a job, of one that it submits, and of a task that it runs itself.

    The library is edited before the second is submitted.
    """
    project.write("lib/value.py", "VALUE = 'launched'\n")
    project.write("main.py", NESTED)
    with project.start("main.py", json.dumps(outer), json.dumps(inner)) as process:
        notes = project.folder / "notes"
        wait_until(lambda: notes.exists() or process.poll() is not None, "the outer job")
        project.write("lib/value.py", "VALUE = 'edited'\n")
        (project.folder / "go").touch()
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(out)


JOB = {"cluster": "local", "folder": "cache"}


def code(*copied: str, **more: tp.Any) -> dict[str, tp.Any]:
    return {**JOB, "workdir": {"copied": list(copied), **more}}


@pytest.mark.app
def test_a_job_that_submits_with_the_same_workdir_copies_nothing_again(project: Project) -> None:
    same = code("main.py", "lib", includes=["*"])
    values = nested(project, same, same)
    (copy,) = project.copies
    assert values[:2] == [["launched", str(copy)]] * 2


@pytest.mark.app
def test_a_job_of_a_job_runs_the_code_of_the_first_submission_whatever_it_copies(project: Project) -> None:
    absolute = [str(project.folder / "lib"), str(project.folder / "main.py")]
    values = nested(project, code("main.py", "lib"), code(*absolute))
    assert [value for value, _ in values] == ["launched"] * 3
    assert len(project.copies) == 1


@pytest.mark.app
@pytest.mark.parametrize("cluster", [None, "local"])
def test_a_job_of_a_job_that_needs_other_code_than_the_first_is_an_error(
    project: Project, capfd: pytest.CaptureFixture[str], cluster: str | None
) -> None:
    """What is there now would be other code than that of the first submission."""
    project.write("more.py", "")
    with pytest.raises(AssertionError):
        nested(project, {**code("main.py", "lib"), "cluster": cluster}, code("main.py", "more.py"))
    assert "infra.workdir.copied: 'more.py' is not in " in capfd.readouterr().err


@pytest.mark.app
def test_a_job_of_a_job_without_a_workdir_runs_in_the_copy_too(project: Project) -> None:
    values = nested(project, code("main.py", "lib"), JOB)
    assert values[:2] == [["launched", str(project.copies[0])]] * 2


@pytest.mark.app
@pytest.mark.parametrize("cluster", [None, "local"])
def test_relative_folders_count_from_where_the_program_was_started(project: Project, cluster: str | None) -> None:
    nested(project, {**code("main.py", "lib"), "cluster": cluster}, JOB)
    entries = sorted(path.parent.parent.name for path in project.cache.glob("*/*/outcome.json"))
    assert entries == ["main.Inner.fit,0", "main.Inner.fit,0", "main.Outer.fit,0"]
    assert not list(project.copies[0].rglob("outcome.json"))


def test_relative_folders_count_from_outside_also_where_the_method_goes_to_a_folder_of_the_copy(here: Path) -> None:
    copy = take_snapshot(select_sources(["lib"], here), here / "cache")
    with active.inside(copy):
        os.chdir("lib")
        assert active.located("results") == here / "results"
        os.chdir("/")
        assert active.located("results") == Path("/results")
    assert active.located("results") == here / "results"


# -- in this process --------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a test, with code in it."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/part.py").write_text("A = 1\n")
    (tmp_path / "lib/data.csv").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def infra(here: Path, cluster: str | None = None, **workdir: tp.Any) -> dict[str, tp.Any]:
    return {"folder": here / "cache", "cluster": cluster, "workdir": {"copied": ["lib"], **workdir}}


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.app
@pytest.mark.parametrize("cluster", [None, "debug"])
def test_in_this_process_the_working_directory_is_the_copy_while_the_method_runs(
    here: Path, cluster: str | None
) -> None:
    found = Path(Where(infra=infra(here, cluster)).fit())
    assert found.parent == here / "cache/code" and listing(found) == ["lib/part.py"]
    assert Path.cwd() == here


@pytest.mark.app
@pytest.mark.parametrize("cluster", [None, "local"])
def test_without_chdir_only_imports_lead_into_the_copy(here: Path, cluster: str | None) -> None:
    task = Where(infra=infra(here, cluster, chdir=False))
    assert task.fit() == str(here)
    assert (task.infra.uid_folder() / "code").resolve().parent == here / "cache/code"  # type: ignore[operator]


@pytest.mark.app
def test_a_copy_that_is_too_large_is_refused_with_its_largest_files(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)infra\.workdir\.max_mb: .*lib/part.py"):
        Where(infra=infra(here, max_mb=1e-7, copied=["lib"])).fit()


@pytest.mark.app
def test_the_working_directory_comes_back_after_an_error(here: Path) -> None:
    with pytest.raises(TaskFailedError, match="negative"):
        Where(x=-1, infra=infra(here)).fit()
    assert Path.cwd() == here


@pytest.mark.app
def test_the_working_directory_comes_back_after_several_threads(here: Path) -> None:
    found: dict[int, str] = {}

    def run(x: int) -> None:
        found[x] = Where(x=x, infra=infra(here)).fit()

    threads = [threading.Thread(target=run, args=(x,)) for x in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (copy,) = (here / "cache/code").glob("[!.]*")
    assert found == {2: str(copy), 3: str(copy)} and Path.cwd() == here


def test_making_an_object_and_asking_about_it_copies_nothing(here: Path) -> None:
    task = Where(infra=infra(here, copied=["nothing_such"]))
    assert (task.infra.status(), task.infra.uid_folder() is None) == ("not submitted", False)
    assert not (here / "cache").exists()


@pytest.mark.app
def test_a_stored_result_needs_no_copy(here: Path) -> None:
    stored = Where(infra=infra(here)).fit()
    assert Where(infra=infra(here, copied=["nothing_such"])).fit() == stored
    assert len(list((here / "cache/code").glob("[!.]*"))) == 1


def test_a_workdir_changes_no_uid(here: Path) -> None:
    assert Where(infra=infra(here)).infra.uid() == Where().infra.uid()


@pytest.mark.app
def test_an_entry_shows_the_code_that_computed_it(here: Path) -> None:
    task = Where(infra=infra(here, "local"))
    computed = task.fit()
    link = task.infra.uid_folder() / "code"  # type: ignore[operator]
    assert link.resolve() == Path(computed).resolve() and not os.path.isabs(os.readlink(link))
    Where(infra={"folder": here / "cache", "mode": "force"}).fit()
    assert not link.is_symlink()


@pytest.mark.app
def test_a_workdir_may_be_assigned_as_a_dictionary(here: Path) -> None:
    task = Where(infra={"folder": here / "cache"})
    task.infra.workdir = {"copied": ["lib"]}  # type: ignore[assignment]
    assert Path(task.fit()).parent == here / "cache/code"


def test_an_object_with_a_workdir_is_made_again_from_its_configuration(here: Path) -> None:
    task = Where(infra=infra(here, log_commit=True))
    assert Where(**task.infra.config(uid=False)) == task == task.infra.clone_obj()


# -- what is copied ---------------------------------------------------------------------------------------------------


@pytest.mark.app
@pytest.mark.parametrize(
    ("workdir", "copied"),
    [
        ({"copied": ["lib"]}, ["lib/part.py"]),
        ({"copied": ["lib/data.csv"]}, ["lib/data.csv"]),
        ({"copied": ["lib"], "includes": ["*.csv"]}, ["lib/data.csv"]),
        ({"copied": ["lib"], "includes": []}, ["lib/data.csv", "lib/part.py"]),
        ({"copied": ["lib"], "includes": ["*"], "excludes": ["*.py"]}, ["lib/data.csv"]),
        ({"copied": ["lib", "more"], "excludes": ["lib"], "includes": ["*"]}, ["lib/data.csv", "lib/part.py", "more"]),
    ],
)
def test_of_a_folder_the_files_are_copied_that_are_asked_for(
    here: Path, workdir: dict[str, tp.Any], copied: list[str]
) -> None:
    (here / "more").write_text("")
    assert listing(Path(Where(infra=infra(here, **workdir)).fit())) == copied


@pytest.mark.app
def test_an_absolute_path_goes_by_its_last_name(here: Path) -> None:
    assert listing(Path(Where(infra=infra(here, copied=[here / "lib"])).fit())) == ["lib/part.py"]
    (here / "deep/er").mkdir(parents=True)
    (here / "deep/er/part.py").write_text("")
    found = Where(x=0, infra=infra(here, copied=["deep/er", str(here / "deep/er")])).fit()
    assert listing(Path(found)) == ["deep/er/part.py", "er/part.py"]


@pytest.mark.app
def test_an_importable_package_is_copied_by_its_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "src/some_package").mkdir(parents=True)
    (here / "src/some_package/__init__.py").write_text("")
    monkeypatch.syspath_prepend(here / "src")
    assert listing(Path(Where(infra=infra(here, copied=["some_package"])).fit())) == ["some_package/__init__.py"]


@pytest.mark.app
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"copied": ["nothing_such"]}, "infra.workdir.copied: 'nothing_such' is not a file, a folder or a package"),
        ({"copied": ["empty"]}, "infra.workdir.includes: no file in 'empty'"),
        ({"copied": ["lib", "empty/../other/lib"]}, "infra.workdir.copied: two of them would be copied to 'lib'"),
        ({"copied": ["lib"], "folder": "no/where"}, r"infra.workdir.folder: .*/no does not exist"),
        ({"copied": ["lib"], "folder": "empty/../lib"}, "infra.workdir.folder: .* exists and is not a copy of code"),
    ],
    ids=lambda each: "",
)
@pytest.mark.parametrize("cluster", [None, "local"])
def test_what_cannot_be_copied_is_said_and_nothing_runs(
    here: Path, cluster: str | None, settings: dict[str, tp.Any], told: str
) -> None:
    (here / "empty").mkdir()
    (here / "other/lib").mkdir(parents=True)
    task = Where(infra=infra(here, cluster, **settings))
    with pytest.raises(ConfigError, match=told):
        task.fit()
    assert task.infra.status() == "not submitted"
    assert Where(infra=infra(here, cluster)).fit()


@pytest.mark.app
def test_what_cannot_be_copied_leaves_a_stored_value_where_it_is(here: Path) -> None:
    stored = Where(infra=infra(here)).fit()
    with pytest.raises(ConfigError, match="is not a copy of code"):
        Where(infra={**infra(here, folder="lib"), "mode": "force"}).fit()
    assert Where(infra=infra(here)).fit() == stored


@pytest.mark.parametrize("wrong", [{}, {"copied": []}, {"copied": "lib"}, {"copied": ["lib"], "include": ["*"]}])
def test_a_wrong_workdir_is_refused_at_once(wrong: dict[str, tp.Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match="workdir"):
        TaskInfra(folder="cache", workdir=wrong)  # type: ignore[arg-type]


def test_a_workdir_without_a_folder_is_an_error_when_it_is_to_run(here: Path) -> None:
    with pytest.raises(ConfigError, match="set infra.folder"):
        Where(infra={"workdir": {"copied": ["lib"]}}).fit()


# -- a place of its own -----------------------------------------------------------------------------------------------


@pytest.mark.app
def test_the_copy_goes_to_the_folder_that_is_named_and_is_used_again(here: Path) -> None:
    (here / "sent").mkdir()
    for x in (0, 1):
        assert Where(x=x, infra=infra(here, "local", folder="sent")).fit() == str(here / "sent")
    assert not list((here / "cache/code").glob("[!.]*"))


@pytest.mark.app
@pytest.mark.parametrize("changed", ["lib/part.py", "sent/lib/part.py"])
def test_a_folder_with_another_code_is_not_used(here: Path, changed: str) -> None:
    Where(infra=infra(here, folder="sent")).fit()
    (here / changed).write_text("changed = True\n")
    with pytest.raises(ConfigError, match="infra.workdir.folder: .*sent"):
        Where(x=0, infra=infra(here, folder="sent")).fit()


@pytest.mark.app
def test_what_jobs_leave_in_the_folder_does_not_count(here: Path) -> None:
    Where(infra=infra(here, folder="sent", includes=["*"], copied=["."])).fit()
    (here / "sent/result.txt").write_text("")
    assert Where(x=0, infra=infra(here, folder="sent", includes=["*"], copied=["."])).fit() == str(here / "sent")


# -- commits ----------------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=me", "-c", "user.email=me@host", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def committed(here: Path) -> Path:
    git(here, "init", "-q")
    git(here, "add", "lib")
    git(here, "commit", "-q", "-m", "first")
    return here


@pytest.mark.app
def test_the_commit_of_committed_code_is_logged(committed: Path, caplog: pytest.LogCaptureFixture) -> None:
    (committed / "untracked.py").write_text("")
    with caplog.at_level(logging.INFO, "exca.workdir"):
        Where(infra=infra(committed, log_commit=True)).fit()
    assert git(committed, "rev-parse", "HEAD") in caplog.text


@pytest.mark.app
@pytest.mark.parametrize("changed", ["lib/part.py", "lib/data.csv", "lib/new.py"])
def test_code_that_is_not_committed_is_an_error_that_lists_it(committed: Path, changed: str) -> None:
    (committed / changed).write_text("changed = True\n")
    with pytest.raises(ConfigError, match=rf"infra.workdir.log_commit: .*{changed}"):
        Where(infra=infra(committed, "local", log_commit=True)).fit()
    assert not (committed / "cache").exists()


@pytest.mark.app
def test_code_that_git_ignores_is_not_committed(committed: Path) -> None:
    (committed / ".git/info/exclude").write_text("new.py\n")
    (committed / "lib/new.py").write_text("")
    with pytest.raises(ConfigError, match="lib/new.py"):
        Where(infra=infra(committed, log_commit=True)).fit()


@pytest.mark.app
def test_code_in_no_repository_has_no_commit(here: Path) -> None:
    with pytest.raises(ConfigError, match="is in no git repository"):
        Where(infra=infra(here, log_commit=True)).fit()


@pytest.mark.app
def test_a_stored_result_needs_no_commit(committed: Path) -> None:
    stored = Where(infra=infra(committed)).fit()
    (committed / "lib/part.py").write_text("changed = True\n")
    assert Where(infra=infra(committed, log_commit=True)).fit() == stored
