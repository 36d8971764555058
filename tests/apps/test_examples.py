"""The examples, as their READMEs say to run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from repositories import copy_of_project


def sweep(folder: Path, *overrides: str) -> str:
    command = [sys.executable, "train.py", "-m", *overrides, "hydra/launcher=exca", "hydra/launcher/cluster=local"]
    environment = {**os.environ, "MPLBACKEND": "agg"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(params=["digits", "typed"])
def example(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("EXCA_FOLDER", raising=False)
    return copy_of_project(tmp_path / request.param, f"examples/{request.param}")


def test_an_example_returns_its_accuracy_keeps_its_picture_and_runs_once(example: Path) -> None:
    sweep(example, "model=svm,forest", "hydra.sweep.dir=sweep")
    rows = json.loads((example / "sweep" / "sweep.json").read_text())
    outcomes = [json.loads(path.read_bytes()) for path in example.glob("exca/*/*/outcome.json")]
    assert all(Path(row["output"], "confusion_matrix.png").stat().st_size > 1000 for row in rows)
    assert all(0.9 < outcome["value"]["inline"] <= 1 for outcome in outcomes) and len(outcomes) == 2
    assert "2 tasks: 2 reused in" in sweep(example, "model=svm,forest", "hydra.sweep.dir=again")
