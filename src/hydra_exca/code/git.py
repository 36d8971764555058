"""The git repository of a folder: its commit, and the changes since. Nothing is written to it."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import typing as tp
from pathlib import Path

TIMEOUT_S = 60.0  # some commands walk through the whole folder
_NO_REPOSITORY = "not a git repository"
# set by a hook or another program: they would lead git to another repository than that of the folder
_MISLEADING_VARIABLES = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"),
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS"),
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

    ``remote`` is what it was cloned from, None if from nowhere.
    """

    root: Path
    path: str
    remote: str | None

    def read_commit(self) -> str | None:
        """The commit that is checked out, None before the first one."""
        return _read_line(self.root, "rev-parse", "--verify", "-q", "HEAD")

    def read_branch(self) -> str | None:
        """The branch that is checked out, None where HEAD is detached."""
        return _read_line(self.root, "symbolic-ref", "--short", "-q", "HEAD")


class GitError(Exception):
    """Git does not answer, or refuses to; the message says why."""


class NoRepositoryError(GitError):
    """There is no repository around a folder, or git is not installed."""


def find_repository(folder: Path) -> Repository | None:
    """The repository around ``folder``, None if it is in none. Raises GitError if git is missing or refuses to say."""
    try:
        output = os.fsdecode(_run_git(folder, "rev-parse", "--show-toplevel", "--show-prefix"))
    except NoRepositoryError as error:
        if _NO_REPOSITORY in str(error):
            return None
        raise
    root, _, path = output.removesuffix("\n").partition("\n")
    if output.count("\n") != 2:  # a line break in one of the names
        root = _text(_run_git(folder, "rev-parse", "--show-toplevel"))
        path = _read_line(folder, "rev-parse", "--show-prefix") or ""
    remote = _read_line(folder, "config", "--get", "remote.origin.url")
    return Repository(Path(root), path, None if remote is None else plain_remote(remote))


def plain_remote(url: str) -> str:
    """One spelling for all URLs of the same repository, without a user's name and password.

    >>> plain_remote("https://me:secret@host.org/team/code.git"), plain_remote("git@host.org:team/code")
    ('host.org/team/code', 'host.org/team/code')
    """
    url, with_scheme = re.subn(r"^[A-Za-z][\w+.\-]*://", "", url.strip().partition("?")[0])
    url = re.sub(r"^.*@" if with_scheme else r"^[^@/]*@", "", url)  # a password may contain an @ or a slash
    url = re.sub(r"^([\w.\-]+):(?!\d+/)", r"\1/", url)
    return url.removesuffix("/").removesuffix(".git")


def ignored_names(folder: Path) -> list[str]:
    """The paths below a folder that git ignores. A folder ends with a slash; ``./`` is the folder itself.

    A repository of another owner is asked, too: git only reads its patterns. Raises NoRepositoryError if there is no
    repository, and GitError if git fails.
    """
    arguments = ("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory")
    return _names(_run_git(folder, "-c", "safe.directory=*", *arguments))


def tracked_files(root: Path) -> set[str]:
    """The files that git tracks, relative to root, with those of submodules. Raises GitError if git fails."""
    return set(_names(_run_git(root, "ls-files", "-z", "--recurse-submodules")))


def uncommitted_changes(root: Path, left_out: tp.Collection[Path] = (), *, untracked: bool = True) -> list[str]:
    """The files that differ from the commit, and those that git neither tracks nor ignores; sorted, relative to root.

    Untracked files below the folders ``left_out`` do not count. None count if git is configured to show no untracked
    files. Raises GitError if git fails.
    """
    # whoever keeps a home folder in git sets this, so that git does not look for new files there
    untracked = untracked and _read_line(root, "config", "--get", "status.showUntrackedFiles") not in ("no", "false")
    which = f"--untracked-files={'all' if untracked else 'no'}"
    lines = _names(_run_git(root, "status", "--porcelain", "-z", "--no-renames", which))
    home = root.resolve()
    below = [folder.resolve() for folder in left_out if home in folder.resolve().parents]
    prefixes = tuple(f"{folder.relative_to(home)}/" for folder in below)
    return sorted(line[3:] for line in lines if line[:2] != "??" or not line[3:].startswith(prefixes))


def make_patch(root: Path, limit: int | None = None) -> bytes:
    """The difference between the tracked files and the commit, as a patch for ``git apply``.

    Raises GitError if git fails, or if the patch has more than ``limit`` bytes.
    """
    import tempfile  # slow to import, and no job needs it

    with tempfile.TemporaryFile() as file:  # the patch may be larger than the memory
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


def _text(output: bytes) -> str:
    return os.fsdecode(output).strip()


def _names(output: bytes) -> list[str]:
    return [os.fsdecode(name) for name in output.split(b"\0") if name]


def _run_git(folder: Path, *arguments: str, to: tp.IO[bytes] | int = subprocess.PIPE) -> bytes:
    if not _may_be_in_repository(folder):
        raise NoRepositoryError(_NO_REPOSITORY)
    environment = {name: value for name, value in os.environ.items() if name not in _MISLEADING_VARIABLES}
    try:
        process = subprocess.run(
            ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments],
            env={**environment, **_QUIET},
            stdin=subprocess.DEVNULL,
            stdout=to,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=True,
        )
    except FileNotFoundError as error:
        raise NoRepositoryError(f"git cannot be started: {error.strerror}") from error
    except OSError as error:
        raise GitError(f"git cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise GitError(f"git {arguments[0]} took longer than {TIMEOUT_S:g} s") from error
    except subprocess.CalledProcessError as error:
        raise _refusal(error) from error
    return process.stdout or b""


def _refusal(error: subprocess.CalledProcessError) -> GitError:
    """What git said when it ended with an error."""
    message = _text(error.stderr).partition("\n")[0] or f"git ended with {error.returncode}"
    return NoRepositoryError(message) if _NO_REPOSITORY in message else GitError(message)


def _may_be_in_repository(folder: Path) -> bool:
    """Whether git is worth starting: there is a .git in the folder or above it."""
    here = Path(os.path.realpath(folder))
    return any(os.path.lexists(place / ".git") for place in (here, *here.parents))
