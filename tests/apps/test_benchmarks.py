"""The benchmarks run, so that they do not rot. What they measure is nothing that a test could hold."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

BENCHMARKS = ROOT / "benchmarks"
GROUPS = ("calls", "startup", "workdir")  # those that take seconds


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of a quick run."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = ["--quick", "--rows", *GROUPS, "--json", "all.json", "--markdown", "page.md", "--folder", "."]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS), *command], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    (folder / "said.md").write_text(done.stdout)
    return folder


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "all.json").read_text())
    return found


def test_every_group_that_was_asked_for_gives_rows(measured: Path) -> None:
    found = results(measured)
    assert ({row["group"] for row in found["rows"]}, found["left_out"]) == (set(GROUPS), [])


def test_every_row_has_a_sample_of_ours(measured: Path) -> None:
    for row in results(measured)["rows"]:
        assert row["samples"]["hydra-exca"] and all(map(math.isfinite, row["medians"].values())), row["title"]


def test_the_table_and_the_page_show_every_row(measured: Path) -> None:
    for name in ("said.md", "page.md"):
        text = (measured / name).read_text()
        assert [row["title"] for row in results(measured)["rows"] if row["title"] not in text] == []


def test_the_results_say_which_machine_and_versions_they_are_of(measured: Path) -> None:
    machine = results(measured)["machine"]
    assert machine["cores"] == len(os.sched_getaffinity(0)) and machine["memory_gb"] > 0
    assert {"date", "commit", "cpu", "kernel", "python"} <= set(machine)
    assert {"hydra-core", "exca", "joblib", "pydantic"} <= {name for name, each in machine["versions"].items() if each}


def test_a_group_that_this_machine_cannot_measure_is_left_out_and_named(tmp_path: Path) -> None:
    bare = {**os.environ, "PATH": str(tmp_path)}  # no Slurm there
    command = [sys.executable, str(BENCHMARKS), "--quick", "--rows", "slurm"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=bare, check=True)
    assert "left out: slurm: there is no sbatch on this machine" in done.stdout
