"""Temporary files of killed processes go away; those of living ones stay, and so do all other files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import typing as tp
from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest

from hydra_exca import TaskInfra, files, paths

pytestmark = pytest.mark.app
fork = multiprocessing.get_context("fork")
POINTS = [("link", paths.OUTCOME), ("link", "claim."), ("link", paths.PROJECT), ("unlink", paths.OUTCOME), ("link", "")]


class Train(pydantic.BaseModel):
    rate: float = 0.1
    infra: TaskInfra = TaskInfra(keep_in_ram=False)

    @infra.apply
    def run(self) -> list[float]:
        return [self.rate] * 2000  # in a file of its own


def call(folder: Path) -> tp.Any:
    return Train(rate=0.5, infra={"folder": folder}).run()  # type: ignore[arg-type]


def killed(function: Callable[[], object]) -> None:
    """Runs a function in a process of its own that kills itself; returns when that is gone."""
    child = fork.Process(target=function)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL


def leftovers(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.tmp"))


def test_a_temporary_file_says_which_process_uses_it(tmp_path: Path) -> None:
    mine = tmp_path / files.temporary_name("a" * 255)
    mine.write_text("")
    killed(lambda: ((tmp_path / files.temporary_name("b")).write_text(""), os.kill(os.getpid(), signal.SIGKILL)))
    for other in (".profile.tmp", "c.tmp", ".c.0123456789ab.tmp", ".c.0123456789ab-00000000-1-1.tmp"):
        (tmp_path / other).write_text("")
    before = set(os.listdir(tmp_path))
    files.clear_leftovers(tmp_path)
    assert [name[:3] for name in before - set(os.listdir(tmp_path))] == [".b."]


def test_of_another_machine_a_temporary_file_is_left_for_a_day(tmp_path: Path) -> None:
    for name in (".c.0123456789ab.tmp", ".c.0123456789ab-00000000-1-1.tmp", ".profile.tmp"):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time.time() - 90_000,) * 2)
    files.clear_leftovers(tmp_path)
    assert os.listdir(tmp_path) == [".profile.tmp"]


@pytest.mark.parametrize(("call_name", "name"), POINTS)
def test_the_next_call_removes_what_a_killed_one_has_left(tmp_path: Path, call_name: str, name: str) -> None:
    real = getattr(os, call_name)

    def kill(path: tp.Any, *more: tp.Any, **options: tp.Any) -> tp.Any:
        if f".{name}" in os.path.basename(path):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(path, *more, **options)

    def run() -> None:
        setattr(os, call_name, kill)
        call(tmp_path)

    killed(run)
    assert leftovers(tmp_path)
    for _ in range(2):
        assert call(tmp_path) == [0.5] * 2000
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("number", range(1, 12))
def test_the_next_call_removes_what_one_has_left_that_was_killed_at_any_write(tmp_path: Path, number: int) -> None:
    real, count = os.write, iter(range(1, 10_000))

    def kill(descriptor: int, data: tp.Any) -> int:
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(descriptor, data)

    def run() -> None:
        os.write = kill
        call(tmp_path)
        os.kill(os.getpid(), signal.SIGKILL)

    killed(run)
    for _ in range(2):
        assert call(tmp_path) == [0.5] * 2000
    assert leftovers(tmp_path) == []


def test_another_thread_may_take_the_last_folder_to_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken(set[str]):
        """Is empty by the time something is taken out of it."""

        def __len__(self) -> int:
            return 1

    monkeypatch.setattr(files, "_linked", Taken())
    files.clear_linked()
