"""The Slurm that the test runs of a machine share."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import shared_slurm

pytestmark = pytest.mark.app
fork = multiprocessing.get_context("fork")


def use(folder: Path, connection: Connection) -> None:
    with shared_slurm.in_use(folder):
        connection.send("in use")
        connection.recv()


def was_stopped(folder: Path) -> bool:
    stops: list[bool] = []
    shared_slurm.stop_if_unused(lambda: stops.append(True), folder)
    return bool(stops)


def test_a_run_that_ends_leaves_it_to_one_that_uses_it_and_the_last_one_stops_it(tmp_path: Path) -> None:
    ours, theirs = fork.Pipe()
    other = fork.Process(target=use, args=(tmp_path, theirs))
    other.start()
    ours.recv()
    shared_slurm.mark_as_started(tmp_path)
    while_used = was_stopped(tmp_path)
    ours.send("end")
    other.join()
    assert (while_used, was_stopped(tmp_path)) == (False, True)


def test_a_run_that_is_killed_does_not_keep_it(tmp_path: Path) -> None:
    ours, theirs = fork.Pipe()
    other = fork.Process(target=use, args=(tmp_path, theirs))
    other.start()
    ours.recv()
    shared_slurm.mark_as_started(tmp_path)
    other.kill()
    other.join()
    assert was_stopped(tmp_path)


def test_one_that_a_user_has_started_is_stopped_by_no_run(tmp_path: Path) -> None:
    with shared_slurm.in_use(tmp_path):
        pass
    assert not was_stopped(tmp_path)
