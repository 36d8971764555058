"""The callback in jobs of other launchers."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from hydra_exca.sweep import other_launchers
from hydra_exca.sweep.callback import ExcaCallback


def test_a_job_that_an_earlier_version_has_queued_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = other_launchers.SentCode(Path("launch"), {"commit": "1"}, None, {})
    callback = ExcaCallback()
    vars(callback).update(_sent=sent)
    del vars(callback)["_recorded"]
    with monkeypatch.context() as patch:
        patch.setattr(other_launchers.SentCode, "__qualname__", "Sent")
        data = pickle.dumps(callback)
    assert b"SentCode" not in data
    arrived = pickle.loads(data)
    assert (arrived._sent, arrived._recorded) == (sent, ({"commit": "1"}, Path("launch")))


def test_a_callback_that_has_sent_nothing_records_nothing_in_a_job() -> None:
    assert pickle.loads(pickle.dumps(ExcaCallback()))._recorded is None
