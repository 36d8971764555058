"""The callback in jobs of other launchers."""

from __future__ import annotations

import pickle
from pathlib import Path

from hydra_exca.sweep import other_launchers
from hydra_exca.sweep.callback import ExcaCallback


def test_a_job_that_an_earlier_version_has_queued_still_runs() -> None:
    sent = other_launchers.SentCode(Path("launch"), {"commit": "1"}, None, {})
    callback = ExcaCallback()
    vars(callback).update(_sent=sent)
    del vars(callback)["_recorded"]
    data = pickle.dumps(callback, protocol=0)
    assert data.count(b"SentCode") == 1
    arrived = pickle.loads(data.replace(b"SentCode", b"Sent"))
    assert (arrived._sent, arrived._recorded) == (sent, ({"commit": "1"}, Path("launch")))


def test_a_callback_that_has_sent_nothing_records_nothing_in_a_job() -> None:
    assert pickle.loads(pickle.dumps(ExcaCallback()))._recorded is None
