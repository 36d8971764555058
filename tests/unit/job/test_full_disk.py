"""A disk that is full: no task has failed by that, and nothing that was computed is thrown away in silence."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import re
import subprocess
import threading
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pytest
from infra_models import Fills, LosesDisk

from hydra_exca import files
from hydra_exca.clusters import local
from hydra_exca.errors import CacheError, ExcaError, JobLostError

pytestmark = pytest.mark.app  # it mounts a disk
SIZES = [1, 200_000]  # a value in the outcome, and one in a file of its own


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk with room for about 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], check=True)
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setattr(files, "_PAUSES_S", (0.0, 0.0))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def model(disk: Path, size: int, fills: bool = False) -> Fills:
    infra = {"folder": disk / "cache"}
    return Fills(size=size, ballast=str(disk / "ballast") if fills else "", infra=infra)  # type: ignore[arg-type]


def runs(disk: Path) -> int:
    return len((disk.parent / "notes").read_text().splitlines())


@pytest.mark.parametrize("size", SIZES)
def test_a_value_that_cannot_be_written_is_no_failure_of_its_task(disk: Path, size: int) -> None:
    with pytest.raises(CacheError, match=rf"{disk}/cache/.* cannot be written: No space left on device"):
        model(disk, size, fills=True).fit()
    (disk / "ballast").unlink()
    again = model(disk, size)
    assert again.infra.status() == "not submitted"
    assert (again.fit(), model(disk, size).fit(), runs(disk)) == (b"x" * size, b"x" * size, 2)


@pytest.mark.parametrize("size", SIZES)
def test_a_value_is_written_once_there_is_room(disk: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    warned = []

    def make_room(record: logging.LogRecord) -> bool:
        warned.append(record.getMessage())
        (disk / "ballast").unlink()
        return True

    monkeypatch.setattr(files.log, "filters", [make_room])
    assert model(disk, size, fills=True).fit() == b"x" * size
    assert len(warned) == 1 and "No space left on device. Trying again" in warned[0]
    assert (model(disk, size).fit(), runs(disk)) == (b"x" * size, 1)


def test_a_disk_that_is_full_from_the_beginning_is_an_error_that_names_it(disk: Path) -> None:
    Fills(ballast=str(disk / "ballast")).fit()
    with pytest.raises(ExcaError, match=rf"{disk}/cache.* cannot be read or written: No space left on device"):
        model(disk, 1).fit()
    assert runs(disk) == 1


def test_a_job_whose_disk_takes_nothing_more_is_lost_and_has_not_failed(tmp_path: Path) -> None:
    (tmp_path / "lost").touch()
    task = LosesDisk(lost=str(tmp_path / "lost"), infra={"folder": tmp_path / "cache", "cluster": "local"})  # type: ignore[arg-type]
    with pytest.raises(JobLostError, match="its disk took nothing more from it"):
        task.fit()
    assert task.infra.status() == "not submitted"
    (tmp_path / "lost").unlink()
    assert task.fit() == 1


def test_a_job_whose_log_cannot_be_opened_is_started_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = [True]

    def refuse(path: Path, mode: str) -> tp.IO[bytes]:
        if refused and refused.pop():
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return open(path, "ab")

    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setattr(local, "open", refuse, raising=False)
    task = Fills(infra={"folder": tmp_path, "cluster": "local"})  # type: ignore[arg-type]
    assert (task.infra.job().result(), refused) == (b"x", [])


def test_a_program_ends_though_the_folder_of_jobs_that_wait_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: str) -> tp.IO[bytes]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    monkeypatch.setattr(local, "open", refuse, raising=False)
    task = Fills(infra={"folder": tmp_path, "cluster": "local"})  # type: ignore[arg-type]
    job = task.infra.job()
    with pytest.raises(CacheError, match="cannot be read or written: No such file or directory"):
        job.result()
    starters = [thread for thread in threading.enumerate() if thread.name == "exca-starts-jobs"]
    for thread in starters:
        thread.join(20)
    assert not any(thread.is_alive() for thread in starters)
    assert task.infra.status() == "not submitted"  # else the next call would wait for this process to start it


@pytest.mark.parametrize("cluster", [None, "local"])
def test_whatever_a_launch_cannot_write_the_error_names_the_disk_and_the_next_call_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: str | None
) -> None:
    opened, left = os.open, [0]

    def fill(path: tp.Any, flags: int, *mode: tp.Any, **more: tp.Any) -> int:
        is_made = flags & os.O_CREAT and os.fspath(path) != os.environ["NOTES"]
        left[0] -= bool(is_made)
        if is_made and left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return opened(path, flags, *mode, **more)

    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setattr(files, "_PAUSES_S", ())
    monkeypatch.setattr(os, "open", fill)
    errors = []
    for number in itertools.count(1):
        folder, left[0] = tmp_path / str(number), number
        try:
            Fills(infra={"folder": folder, "cluster": cluster}).fit()
        except ExcaError as error:
            errors.append(str(error))
        if left[0] > 0:
            break
        assert Fills(infra={"folder": folder}).fit()
    assert len(errors) > 5 and all(
        re.search("cannot be (read or )?written: No space left on device", error) for error in errors
    )
