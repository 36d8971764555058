"""A task that asks another one which has no outcome, through no fault of either, has no outcome itself."""

from __future__ import annotations

import subprocess
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pytest
from infra_models import Asks, Counted, Fills

from hydra_exca.errors import CacheError, JobLostError

pytestmark = pytest.mark.app
CLUSTERS = [None, "local"]
START = """
import os
if os.path.exists({begun!r}):
    {then}
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for about 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tp.Callable[[str], Path]:
    """A function that makes each process, that starts once there is a file, begin with some code; returns the file."""
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))

    def prepare(then: str) -> Path:
        (tmp_path / "start").mkdir()
        (tmp_path / "start" / "sitecustomize.py").write_text(START.format(begun=str(tmp_path / "begun"), then=then))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "start"), prepend=":")
        return tmp_path / "begun"

    return prepare


def asks(of: Counted | Fills, begun: Path, cluster: str | None) -> Asks:
    return Asks(of=of, begun=str(begun), infra={"folder": begun.parent / "outer", "cluster": cluster})  # type: ignore[arg-type]


def counted(begun: Path) -> Counted:
    return Counted(infra={"folder": begun.parent / "inner", "cluster": "local"})  # type: ignore[arg-type]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_task_whose_inner_job_never_began_has_no_outcome(
    begun: tp.Callable[[str], Path], cluster: str | None
) -> None:
    path = begun("os._exit(3)")
    with pytest.raises(JobLostError, match="exit code 3, before the task began") as raised:
        asks(counted(path), path, cluster).fit()
    assert "Nothing is stored" in str(raised.value)
    (path.parent / "start" / "sitecustomize.py").unlink()
    again = asks(counted(path), path, cluster)
    assert (again.infra.status(), again.fit()) == ("not submitted", 10)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_task_whose_inner_job_could_not_write_has_no_outcome(
    disk: Path, begun: tp.Callable[[str], Path], cluster: str | None
) -> None:
    path = begun("from hydra_exca import files; files._PAUSES_S = (0.0,)")
    fills = Fills(size=600_000, infra={"folder": disk / "cache", "cluster": "local"})  # type: ignore[arg-type]
    with pytest.raises(CacheError, match="cannot be written: No space left on device"):
        asks(fills, path, cluster).fit()
    assert asks(fills, path, cluster).infra.status() == "not submitted"
