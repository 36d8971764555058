"""What git ignores in a folder."""

from __future__ import annotations

import logging
import os
import subprocess

log = logging.getLogger("exca.workdir")
_TIMEOUT_S = 60
# of a hook or another program: they would lead git elsewhere than to the folder that is asked about
_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE")
_IN_NONE = "not a git repository"


def ignored_by_git(folder: str) -> frozenset[str]:
    """What git ignores below a folder, whole folders as one; nothing where it is in no repository, or ignored itself.

    A repository of another owner is looked at, too: only its lists of what to ignore are read.
    """
    command = ["git", "-C", folder, "--no-optional-locks", "-c", "safe.directory=*", "-c", "core.fsmonitor=false"]
    command += ["ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"]
    environment = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    try:
        done = subprocess.run(
            command, env={**environment, "LC_ALL": "C"}, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
        said = os.fsdecode(done.stderr).strip() if done.returncode != 0 else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        said = _IN_NONE if isinstance(error, FileNotFoundError) else str(error)
    if said:
        if _IN_NONE not in said:
            log.warning("exca: git does not tell what it ignores in %s, so that is copied, too: %s", folder, said)
        return frozenset()
    names = [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
    return frozenset() if "./" in names else frozenset(f"{folder}/{name.rstrip('/')}" for name in names)
