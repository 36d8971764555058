"""A sweep says why stored results are not reused."""

from __future__ import annotations

from pathlib import Path

import pytest
from apps import App

pytestmark = pytest.mark.app


def test_a_sweep_that_reuses_nothing_says_what_differs_and_a_dry_run_says_it_of_each_task(tmp_path: Path) -> None:
    app = App(tmp_path)
    first = app.run("seed=1", cluster="inline")
    assert "nothing stored is reused" not in first.stdout + first.stderr
    dry = app.run("seed=1,2", "+extra=3", "hydra.launcher.dry_run=true", cluster="inline")
    lines = [line for line in (dry.stdout + dry.stderr).splitlines() if "would run; nearest stored: " in line]
    assert len(lines) == 2
    assert "extra: (none) -> 3" in lines[0] and "seed: 1 -> 2" in lines[1] and "extra: (none) -> 3" in lines[1]
    run = app.run("seed=1", "+extra=3", cluster="inline")
    said = [line for line in (run.stdout + run.stderr).splitlines() if "nothing stored is reused" in line]
    assert len(said) == 1 and "extra: (none) -> 3" in said[0]
