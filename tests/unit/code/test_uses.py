"""What is recorded of the code that a task used."""

from __future__ import annotations

from pathlib import Path

import pytest

from hydra_exca.code import observer
from hydra_exca.code.manifest import store_fingerprints
from hydra_exca.code.uses import UseRecorder


@pytest.mark.parametrize(("name", "is_known"), [("lib.py", True), ("deep/lib.py", False)])
def test_what_a_stored_result_used_is_known_if_the_copies_have_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_known: bool
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "lib.py").touch()
    store_fingerprints(tmp_path, "used-1", {name: "file"}, ())
    monkeypatch.setattr(
        observer, "observed_facts", lambda others, unknown: [(observer.RESULT, str(tmp_path), "used-1")]
    )
    assert (UseRecorder(tmp_path, (), copy).record() is not None) is is_known
