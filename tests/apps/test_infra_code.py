"""Infras whose code is copied are told of changed code as sweeps are, with their own option."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CLUSTERS = [None, "local", pytest.param("slurm", marks=pytest.mark.slurm)]
SCRIPT = """\
import logging
import sys

import lib
import pydantic

from hydra_exca import TaskInfra

logging.basicConfig(level="INFO")


class Train(pydantic.BaseModel):
    seed: int = 0
    infra: TaskInfra = TaskInfra(folder="cache")

    @infra.apply
    def fit(self) -> str:
        if lib.VALUE == "bad":
            raise ValueError("no luck")
        return lib.VALUE


if __name__ == "__main__":
    workdir = {"copied": ["lib.py", "train.py", "plot.py"], "chdir": False}
    infra = {"cluster": CLUSTER, "workdir": workdir, **OPTIONS}
    for seed in range(2):
        print(Train(seed=seed, infra=infra).fit())
"""
OTHER_CODE = "computed with different code (changed: lib.py)"


class Script:
    """A script with an infra, whose method imports a module and not the other one."""

    def __init__(self, folder: Path, cluster: str | None) -> None:
        self.folder = folder
        self.cluster = cluster
        self.write("lib.py", "VALUE = 'old'\n")
        self.write("plot.py", "")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def run(self, options: str = "") -> tuple[list[str], str]:
        """What it prints, and what is said."""
        text = SCRIPT.replace("CLUSTER", repr(self.cluster)).replace("OPTIONS", f"{{{options}}}")
        self.write("train.py", text)
        command = [sys.executable, "train.py"]
        ended = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        return ended.stdout.split(), ended.stderr


@pytest.fixture(params=CLUSTERS)
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Script:
    return Script(tmp_path, request.param)


def test_an_edit_of_what_the_method_used_is_said_and_the_result_used(program: Script) -> None:
    assert program.run()[0] == ["old", "old"]
    program.write("lib.py", "VALUE = 'new'\n")
    values, said = program.run()
    assert values == ["old", "old"] and "infra.on_code_change=" in said
    assert said.count(f"1 stored result was {OTHER_CODE}") == 1  # for both objects


def test_an_edit_of_another_file_is_not_said(program: Script) -> None:
    program.run()
    program.write("plot.py", "edited = 1\n")
    assert "different code" not in program.run()[1]


def test_without_an_edit_nothing_is_said(program: Script) -> None:
    program.run()
    assert "different code" not in program.run()[1]


def test_rerun_recomputes(program: Script) -> None:
    program.run("'on_code_change': 'rerun'")
    program.write("lib.py", "VALUE = 'new'\n")
    assert program.run("'on_code_change': 'rerun'")[0] == ["new", "new"]
    assert "different code" not in program.run("'on_code_change': 'rerun'")[1]


def test_error_refuses(program: Script) -> None:
    program.run("'on_code_change': 'error'")
    program.write("lib.py", "VALUE = 'new'\n")
    values, said = program.run("'on_code_change': 'error'")
    assert values == [] and "Nothing was run, because of on_code_change=error" in said


def test_ignore_says_nothing(program: Script) -> None:
    program.run("'on_code_change': 'ignore'")
    program.write("lib.py", "VALUE = 'new'\n")
    values, said = program.run("'on_code_change': 'ignore'")
    assert values == ["old", "old"] and "different code" not in said


def test_a_failure_is_run_again_after_an_edit(program: Script) -> None:
    program.write("lib.py", "VALUE = 'bad'\n")
    assert program.run()[0] == []
    program.write("lib.py", "VALUE = 'new'\n")
    values, said = program.run()
    assert values == ["new", "new"] and f"1 stored failure was {OTHER_CODE}; it is run again" in said
