"""The record of a launch and of each of its jobs: code, user, host, installed distributions.

Only environment variables that were named are recorded. What cannot be found out is None, with the reason where
there is one; it is never an error.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import socket
import sys
import time
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.code import git as git_state

from . import host as host_facts

Record = dict[str, tp.Any]
_MB = 1_000_000
_LISTED = 1000  # changed files: the record is written for every task
_OF_THE_LAUNCH = ("argv", "user", "working_directory", "git", "git_omitted")


@dataclasses.dataclass(frozen=True)
class LaunchDescription:
    """What is known of a launch. ``patch`` is how its code differed from the commit, None if that is not kept."""

    record: Record
    patch: bytes | None = None


def describe_launch(
    folder: Path,
    env: tp.Sequence[str] = (),
    max_mb: float = 50.0,
    left_out: tp.Collection[Path] = (),
    max_age_s: float = 0.0,
) -> LaunchDescription:
    """The record of a launch from this process, whose code is in ``folder``.

    ``env`` names the variables of the environment that are recorded, here and in the jobs. A patch of more than
    ``max_mb`` is left out, and so are untracked files below the folders ``left_out``. What git says may be
    ``max_age_s`` seconds old.
    """
    git, omitted, patch = _enclosing_code(folder) or _recent_git_state(folder, max_mb, tuple(left_out), max_age_s)
    record = {
        "argv": list(sys.argv),
        "user": host_facts.describe_user(),
        "host": socket.gethostname(),
        "working_directory": os.getcwd(),
        "git": git,
        "git_omitted": omitted,
        "python": host_facts.describe_python(),
        "platform": platform.platform(),
        "distributions": host_facts.distributions(),
        "env": host_facts.recorded_environment(env),
        "env_allowed": sorted(env),
    }
    return LaunchDescription(record, patch)


def describe_job(
    launched: tp.Mapping[str, tp.Any],
    overrides: tp.Sequence[str] = (),
    started: float | None = None,
    exit: str | None = None,
    ended: float | None = None,
    root: Path = Path("/"),
) -> Record:
    """The record of a task that this process computes. It has ended if ``exit`` is given, at ``ended`` or now.

    What depends only on the python and the host is the launch's, where they are. The memory is the most that this
    process, or any process that it has started and waited for, ever had: of several tasks in one process, the later
    ones have that of the earlier ones, too. The GPUs are all of the host. ``root`` is where they are looked up.
    """
    ended = time.time() if exit is not None and ended is None else ended
    host, python = socket.gethostname(), host_facts.describe_python()
    same_host = host == launched.get("host") and "platform" in launched
    same_python = host_facts.is_same_python(python, launched.get("python")) and "distributions" in launched
    allowed = launched.get("env_allowed", ())
    return {
        **{key: launched.get(key) for key in _OF_THE_LAUNCH},
        "overrides": list(overrides),
        "host": host,
        "python": python,
        "platform": launched["platform"] if same_host else platform.platform(),
        "distributions": launched["distributions"] if same_python else host_facts.distributions(),
        "env": host_facts.recorded_environment(allowed),
        "env_allowed": list(allowed),
        "slurm": host_facts.describe_slurm(),
        "pid": os.getpid(),
        "gpus": host_facts.visible_gpus(root),
        "started": started,
        "ended": ended,
        "seconds": None if started is None or ended is None else ended - started,
        "exit": exit,
        "peak_memory_bytes": host_facts.peak_memory(),
    }


# the code


_enclosing: tuple[Record, Path] | None = None


def set_enclosing_launch(launched: Record, patch: Path) -> None:
    """This process is a job of that launch, whose patch is kept there: launches from here have the same code."""
    global _enclosing
    _enclosing = launched, patch


_Code = tuple[Record | None, str | None, bytes | None]
_recent_states: dict[tuple[tp.Any, ...], tuple[float, _Code]] = {}


def _enclosing_code(folder: Path) -> _Code | None:
    """What was known when this job was submitted: the repository may have changed since."""
    git = None if _enclosing is None else _enclosing[0].get("git")
    if _enclosing is None or git is None or not folder.resolve().is_relative_to(git["root"]):
        return None
    if git["patch"] is None:
        return git, None, None
    try:
        return git, None, _enclosing[1].read_bytes()
    except OSError as error:
        return {**git, "patch": None, "patch_omitted": str(error)}, None, None


def _recent_git_state(folder: Path, max_mb: float, left_out: tuple[Path, ...], max_age_s: float) -> _Code:
    key = (folder, max_mb, left_out)
    then, known = _recent_states.get(key, (0.0, None))
    now = time.monotonic()
    if known is None or now - then > max_age_s:
        known = _git_state(folder, max_mb, left_out)
        _recent_states[key] = now, known
    return known


def _git_state(folder: Path, max_mb: float, left_out: tuple[Path, ...]) -> _Code:
    found, why_not = git_state.look_up_repository(folder)
    if found is None:
        return None, why_not, None
    changed, changed_omitted = _changed_files(found.root, left_out)
    patch, patch_omitted = _make_patch(found, max_mb) if changed != [] else (None, None)
    record = {
        "root": str(found.root),
        "path": found.path,
        "commit": found.commit,
        "branch": found.branch,
        "remote": found.remote,
        "dirty": None if changed is None else bool(changed),
        "changed": (changed or [])[:_LISTED],
        "changed_omitted": changed_omitted,
        "patch": paths.PATCH if patch else None,
        "patch_omitted": patch_omitted,
    }
    return record, None, patch


def _changed_files(root: Path, left_out: tuple[Path, ...]) -> tuple[list[str] | None, str | None]:
    try:
        changed = git_state.uncommitted_changes(root, left_out)
    except git_state.GitError as error:
        return None, str(error)
    more = len(changed) - _LISTED
    return changed, f"{more} more are changed" if more > 0 else None


def _make_patch(found: git_state.Repository, max_mb: float) -> tuple[bytes | None, str | None]:
    if found.commit is None:
        return None, "there is no commit yet"
    try:
        return git_state.make_patch(found.root, int(max_mb * _MB)) or None, None
    except (git_state.GitError, OSError) as error:
        return None, str(error)
