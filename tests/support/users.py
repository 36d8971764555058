"""Two real users who share a folder, as processes of this one: only root can start them."""

from __future__ import annotations

import multiprocessing
import os
import stat
import typing as tp
from pathlib import Path

import pytest

GROUP = 61000
VICTIM, ATTACKER = 61001, 61002
fork = multiprocessing.get_context("fork")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two other users")


def as_user(user: int, function: tp.Callable[[], tp.Any]) -> tp.Any:
    """What ``function`` returns in a process of a user with umask 002; its error as text."""
    here, there = fork.Pipe(False)

    def become() -> None:
        os.setgroups([])
        os.setgid(GROUP)
        os.setuid(user)
        os.umask(0o002)
        os.environ["HOME"] = "/nonexistent"
        try:
            there.send(function())
        except Exception as error:  # noqa: BLE001  it is handed on
            there.send(f"{type(error).__name__}: {error}")

    child = fork.Process(target=become)
    child.start()
    assert here.poll(60)
    answer = here.recv()
    child.join(30)
    return answer


def share(folder: Path) -> Path:
    """Makes a folder that both users may write."""
    folder.mkdir()
    os.chown(folder, -1, GROUP)
    os.chmod(folder, 0o2775)
    return folder


def show(folder: Path) -> None:
    """Lets everybody read a folder of a test; those around it, too, that pytest has made for this user alone."""
    for each in (folder, *folder.parents):
        mode = stat.S_IMODE(each.stat().st_mode)
        if mode | 0o055 != mode:
            each.chmod(mode | 0o055)
