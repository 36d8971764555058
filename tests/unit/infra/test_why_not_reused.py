"""TaskInfra.why_not_reused: what differs from the nearest stored result."""

from __future__ import annotations

from pathlib import Path

import pytest
from infra_models import Counted


def test_a_task_says_what_differs_from_the_nearest_result_until_it_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    infra = {"folder": tmp_path / "cache"}
    assert Counted(x=1, infra=infra).infra.why_not_reused() is None
    Counted(x=1, infra=infra).fit()
    other = Counted(x=2, infra=infra)
    why = other.infra.why_not_reused()
    assert why is not None and why.startswith("nearest stored: ") and "x: " in why and why.endswith(" -> 2")
    other.fit()
    assert other.infra.why_not_reused() is None
