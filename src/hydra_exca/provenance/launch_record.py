"""The record of a launch and of each of its jobs: code, user, host, installed distributions.

Only environment variables that were named are recorded. A fact that cannot be found is None, with the reason if there
is one; it is never an error.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import socket
import time
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.code import git
from hydra_exca.errors import CorruptEntryError

from . import host

_T = tp.TypeVar("_T")
Record = dict[str, tp.Any]
_MB = 1_000_000
_LISTED = 1000  # changed files: the record is written for every task
_OF_THE_LAUNCH = ("argv", "user", "working_directory", "git", "git_omitted")


class Patch:
    """How the code of a launch differs from its commit.

    It may be large, so it is in memory only until it is written for the first time, and afterwards in that file.
    """

    def __init__(self, content: bytes | Path) -> None:
        self._content = content

    def read(self) -> bytes:
        """Raises OSError if its file is gone."""
        return files.read_file(self._content) if isinstance(self._content, Path) else self._content

    def write(self, path: Path, *, durable: bool = True) -> None:
        if path != self._content:
            files.write_file(path, self.read(), durable=durable)
            self._content = path

    def is_gone(self) -> bool:
        """Whether the file that has it was removed."""
        return isinstance(self._content, Path) and not self._content.exists()


@dataclasses.dataclass(frozen=True)
class LaunchDescription:
    """The record of a launch, and the difference of its code from the commit, None if that is not kept."""

    record: Record
    kept_patch: Patch | None = None


def describe_launch(
    folder: Path,
    env: tp.Sequence[str] = (),
    max_mb: float = 50.0,
    left_out: tp.Collection[Path] = (),
    max_age_s: float = 0.0,
    argv: tp.Sequence[str] = (),
) -> LaunchDescription:
    """The record of a launch from this process, whose code is in ``folder``, and its command line ``argv``.

    ``env`` names the variables of the environment that are recorded, here and in the jobs. A patch of more than
    ``max_mb`` is left out, and so are untracked files below the folders ``left_out``. What git says may be
    ``max_age_s`` seconds old.
    """
    state = _enclosing_git_state(folder)
    if state is None and max_age_s:
        state = _recent_git_state(folder, max_mb, tuple(left_out), int(time.monotonic() / max_age_s))
        state = None if state[2] is not None and state[2].is_gone() else state
    code, omitted, patch = state or _git_state(folder, max_mb, tuple(left_out))
    record = {
        "argv": list(argv),
        "user": host.describe_user(),
        "host": socket.gethostname(),
        "working_directory": os.getcwd(),
        "git": code,
        "git_omitted": omitted,
        "python": host.describe_python(),
        "platform": platform.platform(),
        "distributions": host.distributions(),
        "env": host.recorded_environment(env),
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

    Facts that depend only on the Python and the host are those of the launch, if it had the same. The memory is the
    peak of this process, or of a process that it has started and waited for; with several tasks in one process, it
    includes that of the earlier ones. The GPUs are all that the host has; ``root`` is where their drivers list them.
    """
    ended = time.time() if exit is not None and ended is None else ended
    hostname, python = socket.gethostname(), host.describe_python()
    same_host = hostname == launched.get("host") and "platform" in launched
    same_python = host.is_same_python(python, launched.get("python")) and "distributions" in launched
    allowed = launched.get("env_allowed", ())
    return {
        **{key: launched.get(key) for key in _OF_THE_LAUNCH},
        "overrides": list(overrides),
        "host": hostname,
        "python": python,
        "platform": launched["platform"] if same_host else platform.platform(),
        "distributions": launched["distributions"] if same_python else host.distributions(),
        "env": host.recorded_environment(allowed),
        "env_allowed": list(allowed),
        "slurm": host.describe_slurm(),
        "pid": os.getpid(),
        "gpus": host.gpu_models(root),
        "started": started,
        "ended": ended,
        "seconds": None if started is None or ended is None else ended - started,
        "exit": exit,
        "peak_memory_bytes": host.peak_memory(),
    }


_enclosing: tuple[Record, Path] | None = None


def set_enclosing_launch(launched: Record, patch: Path) -> None:
    """Makes the launches of this process, a job, record the code of the launch that it belongs to, and its patch."""
    global _enclosing
    _enclosing = launched, patch


_GitState = tuple[Record | None, str | None, Patch | None]
"""What git says of the code, why it says nothing, and the patch."""


def _enclosing_git_state(folder: Path) -> _GitState | None:
    """The state at the launch that this process is a job of: the repository may have changed since."""
    if _enclosing is None:
        return None
    launched, patch = _enclosing
    code = launched.get("git")
    if code is None or not folder.resolve().is_relative_to(code["root"]):
        return None
    if code["patch"] is None:
        return code, None, None
    try:
        return code, None, Patch(files.read_file(patch))
    except (OSError, CorruptEntryError) as error:
        return {**code, "patch": None, "patch_omitted": str(error)}, None, None


@functools.lru_cache(maxsize=32)
def _recent_git_state(folder: Path, max_mb: float, left_out: tuple[Path, ...], period: int) -> _GitState:
    """The state, as it was when it was first asked for in this ``period`` of time."""
    return _git_state(folder, max_mb, left_out)


def _git_state(folder: Path, max_mb: float, left_out: tuple[Path, ...]) -> _GitState:
    repository, omitted = _or_reason(lambda: git.find_repository(folder))
    if repository is None:
        return None, omitted, None
    root, commit = repository.root, repository.read_commit()
    changed, changed_omitted = _or_reason(lambda: git.uncommitted_changes(root, left_out))
    if changed is not None and len(changed) > _LISTED:
        changed_omitted = f"{len(changed) - _LISTED} more are changed"
    patch, patch_omitted = None, None
    if changed != []:
        patch, patch_omitted = _or_reason(lambda: _make_patch(root, commit, max_mb))
    record = {
        "root": str(root),
        "path": repository.path,
        "commit": commit,
        "branch": repository.read_branch(),
        "remote": repository.remote,
        "dirty": None if changed is None else bool(changed),
        "changed": (changed or [])[:_LISTED],
        "changed_omitted": changed_omitted,
        "patch": paths.PATCH if patch else None,
        "patch_omitted": patch_omitted,
    }
    return record, None, None if patch is None else Patch(patch)


def _make_patch(root: Path, commit: str | None, max_mb: float) -> bytes | None:
    if commit is None:
        raise git.GitError("there is no commit yet")
    return git.make_patch(root, int(max_mb * _MB)) or None


def _or_reason(ask: tp.Callable[[], _T]) -> tuple[_T | None, str | None]:
    """What git answers, or why it does not."""
    try:
        return ask(), None
    except (git.GitError, OSError) as error:
        return None, str(error)
