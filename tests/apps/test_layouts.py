"""However a project is laid out, installed and started, its queued jobs run the code that was launched.

Each sweep here has jobs of which the last starts after every file of the project was edited.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from apps import PACKED, App, wait_until

LAUNCHED, EDITED = "launched", "edited"
LAST_WAITS = {
    "exca": ("seed=1,2", "+last=2", "hydra.launcher.array_parallelism=1"),
    "joblib": ("seed=1,2,3", "+last=3", "hydra/callbacks=exca", "hydra.launcher.n_jobs=2"),
    "basic": ("seed=1,2", "+last=2", "hydra/callbacks=exca"),
}
MODULE = f"VALUE = '{LAUNCHED}'\n"
SCRIPT = """
import json, os, sys
from pathlib import Path

{head}
import hydra
from apps import note, tell_returns, wait_for
from hydra.core.hydra_config import HydraConfig

HERE = "launched"
OWN = ("own", "own_eager", "own_lazy")


@hydra.main(version_base="1.3", config_path={config_path!r}, config_name="config")
def train(cfg):
    note("start", cfg.seed)
    if cfg.seed < cfg.last:
        wait_for(os.environ["GO"])
    {body}
    values = {{"script": HERE, "yaml": cfg.value, **found}}
    files = {{name: module.__file__ for name, module in list(sys.modules.items()) if name.partition(".")[0] in OWN}}
    return {{"values": values, "files": files}}


if __name__ == "__main__":
    tell_returns()
    train()
"""
# as setuptools writes it where a package is installed in editable mode and is not found by a folder alone
FINDER = """
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path

MAPPING = {mapping!r}


class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if any(each.startswith(name + ".") for each in MAPPING) and name not in MAPPING:
            namespace = ModuleSpec(name, None, is_package=True)
            namespace.submodule_search_locations = ["a place of this finder's own"]
            return namespace
        if name in MAPPING:
            folder = Path(MAPPING[name])
            for file in (folder / "__init__.py", folder.with_suffix(".py")):
                if file.exists():
                    return spec_from_file_location(name, file)


sys.meta_path.append(Finder)
"""


@dataclasses.dataclass(frozen=True)
class Layout:
    """A project: its files, how it is started, and what of it a task imports.

    ``head`` is what the script starts with, ``body`` what a task does to know the values that are ``found``.
    ``paths`` and ``hooks`` are folders and packages that an environment of its own has in editable mode.
    """

    files: dict[str, str]
    body: str
    head: str = ""
    script: str = "train.py"
    command: tuple[str, ...] = ()
    config_path: str = "conf"
    paths: tuple[str, ...] = ()
    hooks: dict[str, str] = dataclasses.field(default_factory=dict)
    ignored: str = ""


def project(folder: Path, layout: Layout) -> App:
    app = App(folder, files=layout.files)
    (folder / "train.py").unlink()
    (folder / "conf/config.yaml").unlink()
    conf = Path(layout.script).parent / layout.config_path
    app.write(os.path.normpath(conf / "config.yaml"), f"seed: 1\nvalue: {LAUNCHED}\n")
    app.write(layout.script, "")
    script = SCRIPT.format(head=layout.head, body=layout.body, config_path=layout.config_path)
    (folder / layout.script).write_text(script)
    subprocess.run(["git", "init", "-q", folder], check=True)
    app.write(".gitignore", layout.ignored)
    return app


def environment(folder: Path, layout: Layout) -> tuple[str, ...]:
    """What makes a command run in an environment of the project, where that has one."""
    if not layout.paths and not layout.hooks:
        return ()
    venv = folder / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (packages,) = venv.glob("lib/*/site-packages")
    here = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "a_parent.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in here))
    (packages / "own.pth").write_text("".join(f"{folder / path}\n" for path in layout.paths))
    mapping = {name: str(folder / path) for name, path in layout.hooks.items()}
    (packages / "own_finder.py").write_text(FINDER.format(mapping=mapping))
    (packages / "own_hook.pth").write_text("import own_finder\n")
    return ("sh", "-c", f'shift; exec {shlex.quote(str(venv / "bin/python"))} "$@"', "sh")


def edited_while_queued(
    folder: Path, layout: Layout, *overrides: str, cluster: str = "local", launcher: str = "exca"
) -> list[dict[str, Any]]:
    """What the tasks return."""
    app = project(folder, layout)
    how: dict[str, Any] = {"prefix": environment(folder, layout), "env": {"GO": str(folder / "go")}}
    how |= {"script": layout.command or (layout.script,), "cluster": cluster, "launcher": launcher}
    with app.start(*LAST_WAITS[launcher], *overrides, **how) as launch:
        wait_until(lambda: "start 1" in app.notes or launch.process.poll() is not None, "the first task to run")
        edit(folder)
        (folder / "go").touch()
        result = launch.result()
    assert result.returncode == 0, result.text
    return [{**value, "cache": str(app.cache)} for value in result.values]


def edit(folder: Path) -> None:
    """Edits each file of a project."""
    names = [path for path in folder.rglob("*") if path.suffix in (".py", ".yaml") and path.is_file()]
    for path in names:
        inside = path.relative_to(folder).parts
        if inside[0] not in ("exca", "sweep", ".venv"):
            path.write_text(path.read_text().replace(LAUNCHED, EDITED))


def assert_as_launched(found: list[dict[str, Any]]) -> None:
    assert [set(each["values"].values()) for each in found] == [{LAUNCHED}] * len(found)


def assert_from_copy(found: list[dict[str, Any]]) -> None:
    files = [(file, each["cache"]) for each in found for file in each["files"].values() if file is not None]
    assert [file for file, cache in files if not file.startswith(f"{cache}/code/")] == []


PACKAGE = {"own/__init__.py": "", "own/part.py": MODULE, "own/lazy.py": MODULE}
OF_PACKAGE = 'import own.part, own.lazy; found = {"part": own.part.VALUE, "lazy": own.lazy.VALUE}'
LAYOUTS = {
    "modules beside the script": Layout(
        {"own_eager.py": MODULE, "own_lazy.py": MODULE},
        'import own_lazy; found = {"eager": own_eager.VALUE, "lazy": own_lazy.VALUE}',
        head="import own_eager",
    ),
    "a script in a subfolder that adds the project's root": Layout(
        PACKAGE,
        OF_PACKAGE,
        head="sys.path.insert(0, str(Path(__file__).resolve().parents[1]))\nimport own.part",
        script="scripts/train.py",
        config_path="../conf",
    ),
    "a package in src, installed by a path": Layout(
        {f"src/{name}": text for name, text in PACKAGE.items()}, OF_PACKAGE, head="import own.part", paths=("src",)
    ),
    "a package in src, installed by an import hook": Layout(
        {f"src/{name}": text for name, text in PACKAGE.items()},
        OF_PACKAGE,
        head="import own.part",
        hooks={"own": "src/own"},
    ),
    "a flat package, installed by an import hook and imported by tasks alone": Layout(
        PACKAGE, OF_PACKAGE, script="scripts/train.py", hooks={"own": "own"}
    ),
    "a package in a namespace, installed by an import hook": Layout(
        {f"python/{name}": text for name, text in PACKAGE.items()},
        'import own.pkg.part, own.pkg.lazy; found = {"part": own.pkg.part.VALUE, "lazy": own.pkg.lazy.VALUE}',
        head="import own.pkg.part",
        hooks={"own.pkg": "python/own"},
    ),
    "a part of a package that is elsewhere, installed by an import hook": Layout(
        {**PACKAGE, "python/elsewhere/__init__.py": "", "python/elsewhere/value.py": MODULE},
        'import own.part, own.more.value; found = {"part": own.part.VALUE, "more": own.more.value.VALUE}',
        hooks={"own": "own", "own.more": "python/elsewhere"},
    ),
    "python -m, with relative imports": Layout(
        {**PACKAGE, "own/deep/__init__.py": "", "own/deep/value.py": "from ..part import VALUE\n"},
        'from .deep import value; from . import lazy; found = {"value": value.VALUE, "lazy": lazy.VALUE}',
        head="from .part import VALUE",
        script="own/train.py",
        command=("-m", "own.train"),
        config_path="../conf",
    ),
    "a namespace package": Layout(
        {"own/part.py": MODULE, "own/below/lazy.py": MODULE},
        'import own.below.lazy; found = {"part": own.part.VALUE, "lazy": own.below.lazy.VALUE}',
        head="import own.part",
    ),
    "a namespace package in two folders, one of them installed": Layout(
        {"own/part.py": MODULE, "libs/own/other.py": MODULE, "libs/own/lazy.py": MODULE},
        'import own.lazy; found = {"part": own.part.VALUE, "other": own.other.VALUE, "lazy": own.lazy.VALUE}',
        head="import own.part, own.other",
        paths=("libs",),
    ),
    "a module that git ignores": Layout(
        {**PACKAGE, "own/__init__.py": "from ._version import VALUE\n", "own/_version.py": MODULE},
        OF_PACKAGE.replace("found = {", 'found = {"version": own.VALUE, '),
        head="import own",
        ignored="_version.py\n",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_queued_job_runs_what_was_launched(tmp_path: Path, layout: Layout) -> None:
    found = edited_while_queued(tmp_path, layout)
    assert_as_launched(found)
    assert_from_copy(found)


SOME = ["a package in src, installed by an import hook", "python -m, with relative imports"]


@pytest.mark.slurm
@pytest.mark.parametrize("layout", [LAYOUTS[name] for name in SOME], ids=SOME)
def test_a_job_in_the_queue_of_slurm_runs_what_was_launched(tmp_path: Path, layout: Layout) -> None:
    assert_as_launched(edited_while_queued(tmp_path, layout, cluster="slurm"))


@pytest.mark.parametrize("layout", [LAYOUTS[name] for name in SOME], ids=SOME)
def test_a_process_of_another_launcher_runs_what_was_launched(tmp_path: Path, layout: Layout) -> None:
    found = edited_while_queued(tmp_path, layout, launcher="joblib")
    assert_as_launched(found)
    assert_from_copy(found)


def test_a_later_job_in_the_launching_process_runs_what_was_launched(tmp_path: Path) -> None:
    layout = LAYOUTS["a script in a subfolder that adds the project's root"]
    assert_as_launched(edited_while_queued(tmp_path, layout, launcher="basic"))


def test_tasks_of_one_job_run_what_was_launched(tmp_path: Path) -> None:
    layout = LAYOUTS["a package in src, installed by an import hook"]
    assert_as_launched(edited_while_queued(tmp_path, layout, cluster=PACKED))


@pytest.mark.parametrize("copied", ["[train.py,src,conf]", "[train.py,own]", "[auto,own]"])
def test_named_folders_and_packages_are_imported_from_the_copy(tmp_path: Path, copied: str) -> None:
    layout = LAYOUTS["a package in src, installed by an import hook"]
    assert_as_launched(edited_while_queued(tmp_path, layout, f"hydra.launcher.workdir.copied={copied}"))


def test_the_processes_that_a_task_starts_by_multiprocessing_run_what_was_launched(tmp_path: Path) -> None:
    body = (
        "import multiprocessing, own.part\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        found = {'here': own.part.VALUE, 'there': pool.apply(own.part.value)}"
    )
    part = f"{MODULE}\n\ndef value():\n    return VALUE\n"
    layout = Layout({"src/own/__init__.py": "", "src/own/part.py": part}, body, hooks={"own": "src/own"})
    assert_as_launched(edited_while_queued(tmp_path, layout))


def test_a_module_that_git_ignores_and_the_launch_did_not_import_comes_from_where_it_is(tmp_path: Path) -> None:
    body = 'import own.part, own.made; found = {"part": own.part.VALUE, "made": own.made.VALUE}'
    layout = Layout({**PACKAGE, "own/made.py": MODULE}, body, ignored="made.py\n")
    found = edited_while_queued(tmp_path, layout)
    assert [(each["values"]["part"], each["values"]["made"]) for each in found] == [(LAUNCHED, EDITED)] * 2
