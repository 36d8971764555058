"""Which changed files count: those that the processes of a task have used, and new ones that they would use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from apps import PACKED, App, Result

CLUSTERS = ["inline", "local", pytest.param("slurm", marks=pytest.mark.slurm)]
OTHER_CODE = "computed with different code"
FILES = {
    "model.py": "VALUE = 'old'\n",
    "plot.py": "",
    "tests/test_model.py": "",
    "plugins/first.py": "NAME = 'first'\n",
}


class Project(App):
    """An app with a module that it imports, and files that it does not use. ``sweep`` runs the task ``seed=1``."""

    def __init__(
        self, folder: Path, body: str = "return model.VALUE\n", *, cluster: str = "local", head: str = ""
    ) -> None:
        super().__init__(folder, body, head=f"import model\n{head}", files=FILES)
        self.cluster = cluster

    def sweep(self, *overrides: str, **how: Any) -> Result:
        return self.run("seed=1", *overrides, **{"cluster": self.cluster, **how})

    def counts(self, *overrides: str) -> bool:
        """Whether another sweep says that the code of its result is different."""
        return OTHER_CODE in self.sweep(*overrides).text


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="module", params=CLUSTERS)
def swept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One with a stored result; the tests take back what they change."""
    project = Project(tmp_path_factory.mktemp("swept"), cluster=request.param)
    project.sweep()
    return project


@pytest.mark.parametrize(
    "name",
    [
        "notes.ipynb",
        "tests/test_more.py",
        ".github/workflows/ci.yml",
        ".gitlab-ci.yml",
        "figures.py",
        "scripts/figures.py",
        "plot.py",
        "tests/test_model.py",
    ],
)
def test_a_file_that_no_process_of_the_task_used_does_not_count(swept: Project, name: str) -> None:
    path = swept.folder / name
    before = path.read_text() if path.exists() else None
    swept.write(name, "edited = 1\n")
    counts = swept.counts()
    if before is None:
        path.unlink()
    else:
        path.write_text(before)
    assert not counts


@pytest.mark.parametrize("name", ["model.py", "train.py"])
def test_a_file_that_the_task_imported_counts(swept: Project, name: str) -> None:
    before = (swept.folder / name).read_text()
    swept.write(name, before + "# edited\n")
    counts = swept.sweep().text
    (swept.folder / name).write_text(before)
    assert f"1 stored result was {OTHER_CODE} (changed: {name})" in counts


TRIES = "try:\n    import extra\nexcept ImportError:\n    pass\n"
FINDS = "import importlib.util\nimportlib.util.find_spec('extra')\n"
LISTS = "import os, pathlib\nfiles = sorted({how})\n"
PACKAGE = {"lib/other.py": "", "pkg/__init__.py": "", "pkg/used.py": "", "pkg/sub/__init__.py": "", "space/used.py": ""}


@pytest.mark.parametrize(
    ("body", "name", "counts"),
    [
        ("import this", "this.py", True),
        ("import wave", "wave/__init__.py", True),
        ("import wave", "wave/other.py", False),  # a folder without __init__.py is found last
        ("import wave", "scripts/wave.py", False),  # not in a folder where modules are looked for
        ("import model", "model/__init__.py", True),  # a package comes before a module
        ("import model", "model/other.py", False),
        (TRIES, "extra.py", True),
        (TRIES, "extra/__init__.py", True),
        (TRIES, "extra/deep/other.py", True),
        (TRIES, "other.py", False),
        (FINDS, "extra.py", True),
        (
            "import importlib\ntry:\n    importlib.import_module('extra')\nexcept ImportError:\n    pass",
            "extra.py",
            True,
        ),
        ("import pkg.used", "pkg/more.py", True),
        ("import pkg", "pkg/more.py", True),
        ("import pkg.used", "pkg/more/__init__.py", True),
        ("import pkg.used", "pkg/test/more/unused.py", True),
        ("import pkg.used", "pkg/sub/more.py", False),
        ("import space.used", "space/more.py", True),
        ("import sys\nsys.path.insert(0, 'lib')\nimport wave", "lib/wave.py", True),
        ("import sys\nsys.path.append('lib')\nimport wave", "lib/wave.py", False),  # it comes too late
        ("import sys\nsys.path.insert(0, 'linked')\nimport wave", "lib/wave.py", True),
        (f"import os\nsys.path.insert(0, '')\nimport wave\nos.chdir('tests')\n{TRIES}", "tests/extra.py", True),
        (LISTS.format(how="os.listdir('plugins')"), "plugins/more.py", True),
        (LISTS.format(how="[entry.name for entry in os.scandir('plugins')]"), "plugins/more.py", True),
        (LISTS.format(how="pathlib.Path('plugins').iterdir()"), "plugins/more.py", True),
        (LISTS.format(how="pathlib.Path('plugins').glob('*.py')"), "plugins/more.py", True),
        (LISTS.format(how="pathlib.Path('.').rglob('plugins/*.py')"), "plugins/deep/more.py", True),
        (LISTS.format(how="__import__('glob').glob('plugins/*.py')"), "plugins/more.py", True),
        (LISTS.format(how="[m.name for m in __import__('pkgutil').iter_modules(['plugins'])]"), "plugins/a.py", True),
        (LISTS.format(how="os.listdir('plugins')"), "tests/more.py", False),
        (LISTS.format(how="os.listdir(pathlib.Path(model.__file__).parent / 'plugins')"), "plugins/more.py", True),
    ],
)
def test_a_new_module_counts_if_the_task_would_use_it(tmp_path: Path, body: str, name: str, counts: bool) -> None:
    project = Project(tmp_path, body, cluster="inline")
    for place, text in PACKAGE.items():
        project.write(place, text)
    (tmp_path / "linked").symlink_to("lib")
    project.sweep()
    project.write(name, "")
    assert project.counts() is counts


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_a_new_module_counts_in_a_folder_that_was_named_to_be_copied(tmp_path: Path, cluster: str) -> None:
    project = Project(tmp_path, TRIES, cluster=cluster)
    project.write("lib/other.py", "")
    copied = "hydra.launcher.workdir.copied=[model.py, lib]"
    project.sweep(copied)
    project.write("lib/unrelated.py", "")
    assert not project.counts(copied)
    project.write("lib/extra.py", "")
    assert project.counts(copied)


OPENS = {
    "exec(open('plot.py').read())": True,
    "import runpy\nrunpy.run_path('plot.py')": True,
    "import pathlib\npathlib.Path('plot.py').read_bytes()": True,
    "import os\nos.close(os.open(b'plot.py', os.O_RDONLY))": True,
    "import os\npkg = os.open('pkg', os.O_RDONLY)\nos.close(os.open('plot.py', os.O_RDONLY, dir_fd=pkg))": True,
    "import plot\nimport sys\ndel sys.modules['plot']": True,
    "import importlib.resources\nimport pkg\nimportlib.resources.files(pkg).joinpath('plot.py').read_text()": True,
    "import os\nos.path.exists('plot.py')": False,
    "import inspect\ninspect.getsource(model)": False,
    "import os\nif os.fork() == 0:\n    import plot\n    os._exit(0)\nos.wait()": True,
    "import os\nif os.fork() == 0:\n    os._exit(0)\nos.wait()": False,
    "in_pool('fork', 'plot')": True,
    "in_pool('spawn', 'plot')": True,
    "in_pool('forkserver', 'plot')": True,
    "in_pool('fork', 'this')": False,
    "in_pool('spawn', 'this')": False,
    "in_pool('forkserver', 'this')": False,
    "import multiprocessing as m\np = m.get_context('spawn').Process(target=deep)\np.start()\np.join()": True,
    "import concurrent.futures as f\nwith f.ProcessPoolExecutor(1) as pool:\n    pool.submit(load).result()": True,
    "joblib = pytest.importorskip('joblib')\njoblib.Parallel(2)(joblib.delayed(load)() for _ in range(2))": True,
    "import subprocess\nsubprocess.run(['true'])": True,
    "import os\nos.system('true')": True,
    "import os\nos.popen('true').close()": True,
    "import os\nos.spawnlp(os.P_WAIT, 'true', 'true')": True,
    "import os\nos.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)": True,
}
HELPERS = """
import importlib, multiprocessing

import pytest

def load(name="plot"):
    importlib.import_module(name)

def in_pool(method, name):
    with multiprocessing.get_context(method).Pool(1) as pool:
        pool.apply(load, (name,))

def deep():
    child = multiprocessing.get_context("spawn").Process(target=load)
    child.start()
    child.join()
"""


@pytest.mark.parametrize("body", OPENS)
def test_an_edited_file_counts_if_a_process_of_the_task_opened_it_or_may_have(tmp_path: Path, body: str) -> None:
    project = Project(tmp_path, body, cluster="inline", head="from helpers import deep, in_pool, load, pytest")
    project.write("helpers.py", HELPERS)
    project.write("pkg/__init__.py", "")
    project.write("pkg/plot.py", "")
    assert project.sweep().returncode == 0
    project.write("pkg/plot.py" if "pkg" in body else "plot.py", "edited = 1\n")
    assert project.counts() is OPENS[body]


@pytest.mark.parametrize(
    "body",
    [
        "sys.path += [None, b'lib', Path('lib')]\nimport colorsys",
        "os.chdir(folder := tempfile.mkdtemp())\nos.rmdir(folder)\nsys.path[:0] = ['', 'lib']\nimport colorsys",
        "import _thread\n_thread.start_new_thread(os.system, ('touch done',))\nwait_for('done')",
        "import importlib.resources as r\nimport space.used\nassert [*r.files('space').iterdir()]",
        "add_lazily('broken')",
    ],
)
def test_a_program_runs_as_it_does_without_the_record(tmp_path: Path, body: str) -> None:
    project = Project(tmp_path, f"{body}\nreturn 1", head=f"import tempfile\n{LAZY}")
    project.write("broken.py", "raise RuntimeError('imported')\n")
    project.write("space/used.py", "")
    assert project.sweep().values == [1]


def test_a_link_on_the_way_to_a_module_counts(tmp_path: Path) -> None:
    project = Project(tmp_path, head="import first\n")
    (tmp_path / "first.py").symlink_to("second.py")
    (tmp_path / "second.py").symlink_to("plot.py")
    project.sweep()
    (tmp_path / "second.py").unlink()
    (tmp_path / "second.py").symlink_to("model.py")
    assert project.counts()


SAVES = """
saved = Path(HydraConfig.get().runtime.output_dir, "saved")
if not saved.exists():
    import plot
    saved.touch()
    raise ValueError("no luck")
return 1
"""


def test_all_files_count_if_an_earlier_attempt_has_left_a_file(tmp_path: Path) -> None:
    project = Project(tmp_path, SAVES)
    project.sweep()
    assert project.sweep("hydra.launcher.mode=retry").values == [1]
    project.write("plot.py", "edited = 1\n")
    assert project.counts()


LAZY = """
def add_lazily(name):
    import importlib.util
    spec = importlib.util.find_spec(name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
"""


KILLED = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
FAILS = "if model.VALUE == 'old':\n    raise ValueError('no luck')\nreturn model.VALUE\n"
AGAIN = "1 stored failure was computed with different code (changed: model.py); it is run again"


def test_all_files_count_for_a_task_that_was_killed(tmp_path: Path) -> None:
    project = Project(tmp_path, KILLED)
    project.sweep()
    project.write("plot.py", "edited = 1\n")
    assert project.counts()


def test_all_files_count_where_it_is_not_recorded_what_was_used(project: Project) -> None:
    project.sweep()
    for record in project.folder.glob("exca/code/.files/used-*"):
        record.unlink()
    project.write("plot.py", "edited = 1\n")
    assert project.counts()


def test_each_task_of_a_process_has_used_what_the_process_has_imported(tmp_path: Path) -> None:
    """The second one uses the module that the first one has imported."""
    project = Project(tmp_path, "import plot\nreturn cfg.seed\n")
    project.run("seed=1,2", cluster=PACKED)
    project.write("plot.py", "edited = 1\n")
    assert f"2 stored results were {OTHER_CODE} (changed: plot.py)" in project.run("seed=1,2", cluster="local").text


def test_a_process_that_another_task_has_started_does_not_matter(tmp_path: Path) -> None:
    project = Project(tmp_path, "import subprocess\ncfg.seed == 1 and subprocess.run(['true'])\n", cluster="inline")
    project.run("seed=1,2")
    project.write("plot.py", "edited = 1\n")
    assert f"1 stored result was {OTHER_CODE} (changed: plot.py)" in project.run("seed=1,2").text


def test_tasks_that_use_the_same_files_share_one_record(project: Project) -> None:
    project.run("seed=1,2,3", cluster="local")
    assert len(list(project.folder.glob("exca/code/.files/used-*"))) == 1


@pytest.mark.parametrize("name", ["config.yaml", "settings.toml"])
def test_a_file_that_is_not_python_counts(project: Project, name: str) -> None:
    project.sweep()
    project.write(name, "edited: 1\n")
    assert project.counts()


def test_a_hidden_file_that_the_task_opened_counts(tmp_path: Path) -> None:
    project = Project(tmp_path, "return open('.data/values.yaml').read()\n")
    project.write(".data/values.yaml", "a: 1\n")
    project.sweep()
    project.write(".data/values.yaml", "a: 2\n")
    assert project.counts()


@pytest.mark.parametrize("name", ["model.py", "plugins/first.py"])
def test_a_removed_module_counts_if_the_task_used_it_or_listed_its_folder(tmp_path: Path, name: str) -> None:
    project = Project(
        tmp_path, "import os\nos.listdir('plugins')\n", head="try:\n    import model\nexcept ImportError:\n    pass\n"
    )
    project.write("train.py", (tmp_path / "train.py").read_text().replace("import model\ntry", "try"))
    project.sweep()
    (project.folder / name).unlink()
    assert project.counts()


def test_a_removed_module_that_the_task_did_not_use_does_not_count(project: Project) -> None:
    project.sweep()
    (project.folder / "plot.py").unlink()
    assert not project.counts()


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_failure_is_run_again_after_an_edit_and_one_line_says_so(tmp_path: Path, cluster: str) -> None:
    project = Project(tmp_path, FAILS, cluster=cluster)
    project.sweep()
    project.write("model.py", "VALUE = 'new'\n")
    again = project.sweep()
    assert again.values == ["new"] and again.text.count("stored failure") == 1 and AGAIN in again.text


def test_a_failure_is_not_run_again_after_an_edit_that_does_not_count(tmp_path: Path) -> None:
    project = Project(tmp_path, FAILS)
    project.sweep()
    project.write("plot.py", "edited = 1\n")
    again = project.sweep()
    assert "no luck" in again.text and OTHER_CODE not in again.text and again.counts["run"] == 0


@pytest.mark.parametrize("option", ["hydra.launcher.mode=read-only", "hydra.launcher.on_code_change=ignore"])
def test_a_failure_is_not_run_again_with(tmp_path: Path, option: str) -> None:
    project = Project(tmp_path, FAILS)
    project.sweep()
    project.write("model.py", "VALUE = 'new'\n")
    again = project.sweep(option)
    assert (
        again.returncode == 1 and "no luck" in again.text and "run again" not in again.text.replace("not run again", "")
    )


NESTED = """
import pydantic
from hydra_exca import TaskInfra

class Features(pydantic.BaseModel):
    infra: TaskInfra = TaskInfra(folder="features")

    @infra.apply
    def make(self):
        import plot
        return 1
"""


def test_what_a_stored_result_that_a_task_uses_has_used_counts_for_the_task(tmp_path: Path) -> None:
    project = Project(tmp_path, "return features.Features().make()\n", head="import features")
    project.write("features.py", NESTED)
    project.sweep()
    project.run("seed=2", cluster="local")  # finds the features
    project.write("tests/test_model.py", "edited = 1\n")
    assert OTHER_CODE not in project.run("seed=2", cluster="local").text
    project.write("plot.py", "edited = 1\n")
    assert f"1 stored result was {OTHER_CODE} (changed: plot.py)" in project.run("seed=2", cluster="local").text


def test_what_a_stored_result_has_used_counts_if_it_is_used_as_the_script_is_loaded(tmp_path: Path) -> None:
    project = Project(tmp_path, head="import features\nfeatures.Features().make()\n")
    project.write("features.py", NESTED)
    project.sweep()
    project.write("plot.py", "edited = 1\n")
    assert project.counts()


def test_a_file_counts_that_a_module_opens_which_has_the_name_of_one_of_python(tmp_path: Path) -> None:
    project = Project(tmp_path, "return colorsys.Features().make()\n", head="import colorsys")
    project.write("colorsys.py", NESTED.replace("import plot", "open('plot.py').close()"))
    project.sweep()
    project.write("plot.py", "edited = 1\n")
    assert project.counts()


RANKS = """
if os.environ["SLURM_PROCID"] == "1":
    import plot
    Path("done").touch()
wait_for("done")
"""


@pytest.mark.slurm
@pytest.mark.parametrize(("name", "counts"), [("plot.py", True), ("tests/test_model.py", False)])
def test_what_another_rank_imports_counts(tmp_path: Path, name: str, counts: bool) -> None:
    project = Project(tmp_path, RANKS, cluster="slurm")
    first = project.sweep("hydra.launcher.tasks_per_node=2")
    assert first.returncode == 0, first.text
    project.write(name, "edited = 1\n")
    assert project.counts("hydra.launcher.tasks_per_node=2") is counts
