"""Sweeps of Optuna: a sweeper that chooses what runs next by what has come back."""

from __future__ import annotations

from pathlib import Path

import pytest
from apps import App

pytestmark = pytest.mark.hydra_14  # of hydra-optuna-sweeper the version that works with today's optuna

CONFIG = """
defaults: [_self_, override hydra/sweeper: optuna]
x: 0
hydra:
  sweeper:
    n_trials: 6
    n_jobs: 2
    max_failure_rate: 0.5
    sampler: {seed: 3}
    params: {x: "interval(-5, 5)"}
"""


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_trials_give_their_values_to_the_sweeper_and_are_found_again(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, 'note("run")\nreturn (cfg.x - 2) ** 2', config=CONFIG)
    first = app.run(cluster=cluster)
    assert first.returncode == 0 and app.notes == ["run"] * 6, first.text
    assert f"Best value: {min(first.values)}" in first.text
    again = app.run(cluster=cluster)
    assert again.values == first.values and app.notes == ["run"] * 6, again.text


def test_a_failed_trial_is_one_of_the_sweepers_failures(tmp_path: Path) -> None:
    app = App(tmp_path, 'note("run")\nif cfg.x < -2:\n    raise ValueError("no")\nreturn cfg.x', config=CONFIG)
    result = app.run("hydra.sweeper.n_jobs=6")
    assert result.returncode == 0 and app.notes == ["run"] * 6, result.text
    best = min(value for value in result.values if value is not None)
    assert "exca: failed: x=-" in result.text and f"Best value: {best}" in result.text
