"""``hydra-exca logs``: what tasks have printed, and what they print until they end."""

from __future__ import annotations

import sys
import typing as tp
from pathlib import Path

import click

from hydra_exca import paths
from hydra_exca.catalog import entry_finder, places, task_logs
from hydra_exca.catalog.listing import list_launches
from hydra_exca.catalog.record import ListedTask
from hydra_exca.catalog.task_logs import FollowedTask
from hydra_exca.errors import CacheError
from hydra_exca.status import Status
from hydra_exca.text import relative_path

COMPLETED, FAILED = 0, 1


def find_which(which: str | None, cache: Path) -> list[ListedTask]:
    """The tasks that are meant: those of a launch, by default the newest, or one task.

    Raises CacheError if there is none, or if the name is ambiguous.
    """
    if which is None:
        tokens = list_launches(cache)
        if not tokens:
            raise CacheError(f"{cache} has no launches")
        return places.tasks_of_launch(paths.launch_folder(cache, tokens[-1])).tasks
    launch = places.find_launch(which, cache)
    if launch is not None:
        return places.tasks_of_launch(launch).tasks
    found = entry_finder.find_entry(which, cache)
    return [ListedTask(str(found.path), found.cache)]


def print_logs(tasks: tp.Sequence[ListedTask], is_following: bool, rank: int) -> int:
    """Prints logs, with the name of each file where the text of another one begins; returns the exit status."""
    followed = [FollowedTask(task, rank) for task in tasks]
    if not is_following:
        task_logs.check_has_logs(followed)
    last: Path | None = None
    for path, data in task_logs.follow(followed, is_following):
        if path != last:
            click.echo(f"==> {relative_path(path)} <==", err=True)
            last = path
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    ends = {task.status for task in followed}
    return COMPLETED if not is_following or ends == {Status.COMPLETED} else FAILED
