"""The git repository of a folder: its commit, and the changes since. Nothing is written."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import typing as tp
from pathlib import Path

TIMEOUT_S = 30.0
_WALK_S = 60.0  # where it goes through all that is there
_NO_REPOSITORY = "not a git repository"
# of a hook or another program: they would lead git elsewhere than to the folder that is asked about
_MISLEADING_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
    "GIT_EXTERNAL_DIFF",
    "GIT_DIFF_OPTS",
)
# nothing is written, asked for or fetched; messages are the same everywhere
_QUIET = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
# a user's settings must not change the form; no program of the repository's choice is started
_DIFF = (
    *("diff", "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames"),
    *("--no-relative", "--src-prefix=a/", "--dst-prefix=b/", "--submodule=short", "HEAD", "--"),
)


@dataclasses.dataclass(frozen=True)
class Repository:
    """The repository around a folder, which is at ``path`` in it.

    ``commit`` and ``remote`` are None where there is none yet, ``branch`` also where HEAD is detached.
    """

    root: Path
    path: str
    commit: str | None
    remote: str | None
    branch: str | None = None


class Origin(tp.NamedTuple):
    """Where a folder is in its repository, and what that was cloned from, None if from nowhere."""

    root: Path
    path: str
    remote: str | None


class GitError(Exception):
    """Git does not answer, or refuses to; its text says why."""


class NoRepositoryError(GitError):
    """There is nothing to ask: no repository around a folder, or no git."""


def find_repository(folder: Path) -> Repository | None:
    """The repository around ``folder``, None if it is in none, or git is not installed or does not say."""
    return look_up_repository(folder)[0]


def look_up_repository(folder: Path) -> tuple[Repository | None, str | None]:
    """The repository around ``folder``; where git cannot tell, or refuses to, why."""
    try:
        origin = _origin(folder)
    except GitError as error:
        return None, None if _NO_REPOSITORY in str(error) else str(error)
    repository = Repository(
        root=origin.root,
        path=origin.path,
        commit=_read_line(folder, "rev-parse", "--verify", "-q", "HEAD"),
        remote=origin.remote,
        branch=_read_line(folder, "symbolic-ref", "--short", "-q", "HEAD"),
    )
    return repository, None


def find_origin(folder: Path) -> Origin | None:
    """Where the folder is in its repository: the part of `find_repository` that every launch needs, and faster."""
    try:
        return _origin(folder)
    except GitError:
        return None


def _origin(folder: Path) -> Origin:
    output = os.fsdecode(_run_git(folder, "rev-parse", "--show-toplevel", "--show-prefix"))
    root, _, path = output.removesuffix("\n").partition("\n")
    if output.count("\n") != 2:  # a line break in one of the names
        root = _text(_run_git(folder, "rev-parse", "--show-toplevel"))
        path = _read_line(folder, "rev-parse", "--show-prefix") or ""
    remote = _read_line(folder, "config", "--get", "remote.origin.url")
    return Origin(Path(root), path, None if remote is None else plain_remote(remote))


def plain_remote(url: str) -> str:
    """One spelling for the ways to reach the same repository, without anybody's password.

    >>> plain_remote("https://me:secret@host.org/team/code.git"), plain_remote("git@host.org:team/code")
    ('host.org/team/code', 'host.org/team/code')
    """
    url, with_scheme = re.subn(r"^[A-Za-z][\w+.\-]*://", "", url.strip().partition("?")[0])
    url = re.sub(r"^.*@" if with_scheme else r"^[^@/]*@", "", url)  # a password may have an @ or a slash in it
    url = re.sub(r"^([\w.\-]+):(?!\d+/)", r"\1/", url)
    return url.removesuffix("/").removesuffix(".git")


def ignored_names(folder: Path) -> list[str]:
    """What git ignores below a folder, whole folders as one with a slash at the end; ``./`` is the folder itself.

    A repository of another owner is looked at, too: only its lists of what to ignore are read. Raises
    NoRepositoryError if there is none, and GitError if git does not say.
    """
    asked = ("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory")
    output = _run_git(folder, "-c", "safe.directory=*", *asked, timeout_s=_WALK_S)
    return [os.fsdecode(name) for name in output.split(b"\0") if name]


def tracked_files(root: Path) -> set[str]:
    """The files that git knows, as seen from root, those of submodules too. Raises GitError if git fails."""
    output = _run_git(root, "ls-files", "-z", "--recurse-submodules")
    return {os.fsdecode(name) for name in output.split(b"\0") if name}


def uncommitted_changes(root: Path, left_out: tp.Collection[Path] = (), *, untracked: bool = True) -> list[str]:
    """The files that differ from the commit, and those that git neither knows nor ignores; sorted, as seen from root.

    Of the folders ``left_out`` only what git knows counts; so it does everywhere where git is configured to show no
    untracked files. Raises GitError if git fails.
    """
    # who keeps all of a home folder in git has it so that git does not look for new files there
    untracked = untracked and _read_line(root, "config", "--get", "status.showUntrackedFiles") not in ("no", "false")
    files = f"--untracked-files={'all' if untracked else 'no'}"
    output = _run_git(root, "status", "--porcelain", "-z", "--no-renames", files)
    lines = [os.fsdecode(line) for line in output.split(b"\0") if line]
    home = root.resolve()
    excluded_prefixes = [f"{folder.resolve().relative_to(home)}/" for folder in left_out if _is_below(folder, home)]
    return sorted(
        line[3:] for line in lines if not (line[:2] == "??" and line[3:].startswith(tuple(excluded_prefixes)))
    )


def _is_below(folder: Path, root: Path) -> bool:
    return folder.resolve() != root and folder.resolve().is_relative_to(root)


def make_patch(root: Path, limit: int | None = None) -> bytes:
    """How the files that git knows differ from the commit, for ``git apply``.

    Raises GitError if git does not say, or if there is more than ``limit`` bytes of it.
    """
    import tempfile  # takes its time, and no job needs it

    with tempfile.TemporaryFile() as file:  # it may be larger than the memory
        _run_git(root, *_DIFF, to=file)
        size = file.seek(0, os.SEEK_END)
        if limit is not None and size > limit:
            raise GitError(f"it has {size / 1e6:.1f} MB, and the limit is {limit / 1e6:g} MB")
        file.seek(0)
        return file.read()


def _read_line(folder: Path, *arguments: str) -> str | None:
    try:
        return _text(_run_git(folder, *arguments))
    except GitError:
        return None


def _text(said: bytes) -> str:
    return os.fsdecode(said).strip()


def _run_git(
    folder: Path, *arguments: str, to: tp.IO[bytes] | int = subprocess.PIPE, timeout_s: float | None = None
) -> bytes:
    if not _may_be_in_repository(folder):
        raise NoRepositoryError(_NO_REPOSITORY)
    environment = {name: value for name, value in os.environ.items() if name not in _MISLEADING_VARIABLES}
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(
            command,
            env={**environment, **_QUIET},
            stdin=subprocess.DEVNULL,
            stdout=to,
            stderr=subprocess.PIPE,
            timeout=timeout_s or TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        kind = NoRepositoryError if isinstance(error, FileNotFoundError) else GitError
        raise kind(f"git cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise GitError(f"git {arguments[0]} took longer than {timeout_s or TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        said = _text(done.stderr).partition("\n")[0] or f"git ended with {done.returncode}"
        raise (NoRepositoryError if _NO_REPOSITORY in said else GitError)(said)
    return done.stdout or b""


def _may_be_in_repository(folder: Path) -> bool:
    """Whether git is worth asking: a file or folder .git is in or above the folder, or that cannot be seen."""
    here = Path(os.path.realpath(folder))
    return any(map(_may_exist, (folder / ".git" for folder in (here, *here.parents))))


def _may_exist(path: Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
