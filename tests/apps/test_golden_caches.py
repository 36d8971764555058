"""Results that were stored with one version of Hydra are found with each other one.

`tests/golden/hydra-<version>` has what the app in `tests/golden/app` stored with that version of Hydra.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = {"plain", "structured", "missing", "zen", "resolvers"}


@pytest.mark.parametrize("version", ["1.3", "1.4"])
def test_all_results_of_a_version_of_hydra_are_found(version: str, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "app", tmp_path, dirs_exist_ok=True)
    shutil.copytree(GOLDEN / f"hydra-{version}", tmp_path / "cache")
    command = [sys.executable, "train.py", "-m", f"case={','.join(CASES)}", "hydra.sweep.dir=sweep"]
    environment = {**os.environ, "GOLDEN_IS_STORED": "yes"}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert [row["how"] for row in rows] == ["cached"] * len(CASES), rows
