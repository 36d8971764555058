"""Programs that look for the root of their project, as rootutils does, also where their code runs from a copy."""

from __future__ import annotations

from pathlib import Path

import pytest
from apps import App
from repositories import git

SCRIPT = """
import os
import sys
from pathlib import Path

import hydra
import rootutils
from apps import note, tell_returns

ROOT = rootutils.setup_root(__file__, indicator={indicator!r}, pythonpath=True)

from src.utils.data import read_data


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def main(cfg):
    note("run", cfg.seed)
    return {{
        "root": cfg.paths.root_dir,
        "variable": os.environ["PROJECT_ROOT"],
        "read by the config": Path(cfg.paths.data_dir, "values.txt").read_text(),
        "read by the code": read_data(),
        "code": [__file__, sys.modules["src.utils.data"].__file__, str(ROOT)],
        "cwd": os.getcwd(),
    }}


if __name__ == "__main__":
    tell_returns()
    main()
"""
DATA = """
import os
from pathlib import Path


def read_data():
    return Path(os.environ["PROJECT_ROOT"], "data/values.txt").read_text()
"""
FILES = {
    "configs/train.yaml": "defaults: [_self_, paths: default]\nseed: 1\n",
    "configs/paths/default.yaml": "root_dir: ${oc.env:PROJECT_ROOT}\ndata_dir: ${paths.root_dir}/data/\n",
    "src/__init__.py": "",
    "src/utils/__init__.py": "",
    "src/utils/data.py": DATA,
    "data/values.txt": "the data",
}
CLUSTERS = ["inline", "local", pytest.param("slurm", marks=pytest.mark.slurm)]


def template(folder: Path, indicator: str) -> App:
    """A project as lightning-hydra-template lays it out: the script in `src`, the root marked by a file."""
    app = App(folder, files={**FILES, "src/train.py": SCRIPT.format(indicator=indicator)})
    (folder / "train.py").unlink()
    if indicator == ".git":
        git(folder, "init", "-q")
    elif not (folder / indicator).exists():
        app.write(indicator, "")
    return app


@pytest.mark.parametrize("place", ["exca", "../cache"], ids=["cache inside", "cache outside"])
@pytest.mark.parametrize("indicator", [".project-root", "pyproject.toml", ".git"])
def test_a_variable_with_the_root_leads_to_the_project_and_imports_to_the_copy(
    tmp_path: Path, indicator: str, place: str
) -> None:
    app = template(tmp_path / "project", indicator)
    options = ["hydra.launcher.node_env=[PROJECT_ROOT]", f"hydra.launcher.folder={place}"]
    (value,) = app.run("seed=2", *options, cluster="local", script=["src/train.py"]).values
    assert (value["root"], value["variable"], value["cwd"]) == (str(app.folder),) * 3
    assert value["read by the config"] == value["read by the code"] == "the data"
    cache = (app.folder / place).resolve()
    assert all(Path(path).resolve().is_relative_to(cache / "code") for path in value["code"]), value["code"]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_program_that_looks_for_its_root_computes_what_it_does_without_us(tmp_path: Path, cluster: str) -> None:
    app = template(tmp_path, ".project-root")
    (without,) = app.run("seed=2", launcher="basic", script=["src/train.py"]).values
    option = "hydra.launcher.node_env=[PROJECT_ROOT]"
    (value,) = app.run("seed=2", option, cluster=cluster, script=["src/train.py"]).values
    del value["code"], without["code"]
    assert value == without


@pytest.mark.parametrize("chdir", [False, True])
def test_a_script_that_changes_to_its_own_folder_runs_where_it_does_without_us(tmp_path: Path, chdir: bool) -> None:
    head = "os.chdir(os.path.dirname(os.path.abspath(__file__)))\n"
    app = App(tmp_path / "project", "return os.getcwd()", head=head)
    value = app.run("seed=1", f"hydra.launcher.workdir.chdir={chdir}", cluster="local").values[0]
    assert Path(value).parent == app.cache / "code" if chdir else value == str(app.folder)


SETS_LATER = """
import later
return [os.environ["PLACE"], cfg.place, Path(later.__file__).parent.name]
"""


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_module_that_a_task_imports_sets_the_original_place(tmp_path: Path, cluster: str) -> None:
    """Also in the launching process, which imports it from the copy; the next sweep in it finds the same identity."""
    later = "import os\nfrom pathlib import Path\nos.environ['PLACE'] = str(Path(__file__).parent / 'data')\n"
    app = App(tmp_path, SETS_LATER, config="seed: 1\nplace: ${oc.env:PLACE}\n", files={"later.py": later})
    (value,) = app.run("hydra.launcher.node_env=[PLACE]", cluster=cluster).values
    assert value[:2] == [str(tmp_path / "data")] * 2
    assert (tmp_path / "exca/code" / value[2]).is_dir()
