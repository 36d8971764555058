"""hydra-exca explain and diff: what tells a task from others."""

from __future__ import annotations

import json
from pathlib import Path

import click.testing
import pytest
from made_cache import MadeCache

from hydra_exca.cli import main


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeCache:
    cache = MadeCache(tmp_path)
    cache.add({"seed": 1, "n": 600}, code="aa")
    cache.add({"seed": 1, "n": 500}, code="bb")
    cache.add({"seed": 7, "n": 7}, version="1")
    monkeypatch.delenv("EXCA_FOLDER", raising=False)
    monkeypatch.chdir(tmp_path)
    return cache


def invoke(*arguments: str, status: int = 0) -> str:
    done = click.testing.CliRunner().invoke(main, list(arguments))
    assert done.exit_code == status, done.output
    return done.stdout


def test_explain_names_the_nearest_other_entry_and_what_differs() -> None:
    lines = invoke("explain", "n=500").splitlines()
    assert lines[0].endswith(": completed") and "seed=1,n=600" in lines[1] and lines[2:] == ["  n: 600 -> 500"]
    known = json.loads(invoke("explain", "n=500", "--json"))
    assert known["differences"] == [{"name": "n", "stored": 600, "wanted": 500}]


def test_diff_lists_configuration_version_and_code() -> None:
    assert invoke("diff", "n=600", "n=500", status=1).splitlines()[1:] == ["  n: 600 -> 500", "  code: aa -> bb"]
    names = [each["name"] for each in json.loads(invoke("diff", "n=600", "n=7", "--json", status=1))]
    assert names == ["version", "seed", "n"]


def test_a_task_and_itself_have_no_difference() -> None:
    assert "nothing differs" in invoke("diff", "n=600", "n=600")
