"""The settings of a launch, from those of an infra."""

from __future__ import annotations

import functools
import os
import re
import time
from pathlib import Path

import pydantic

from hydra_exca import files, script
from hydra_exca.code import active
from hydra_exca.code.active import located
from hydra_exca.code.launch_code import CodeOptions, LaunchCode
from hydra_exca.code.rules import Rules
from hydra_exca.errors import ConfigError

LOGS = "{folder}/logs/{user}/%j"
MAX_PICKLE_SIZE_GB = 1.0  # submitit's
_KEY = "infra.workdir"
_CHANGE_S = 5.0  # how old the state of the code may be that stored results are compared with


def unknown_placeholder(logs: Path | str) -> str | None:
    """The first placeholder in the setting ``logs`` that is none of {folder}, {user} and %j."""
    if logs == LOGS:  # of nearly all infras, and there may be many
        return None
    rest = re.sub(r"\{folder\}|\{user\}|%j", "", str(logs))
    found = re.search(r"\{[^{}]*\}|%[A-Za-z]", rest)
    return None if found is None else found[0]


def refuse_while_loading() -> None:
    """Raises RuntimeError in a job that is loading the script: what it asks for there it would wait for itself."""
    if script.is_loading():
        raise RuntimeError("a job loads the script, and that starts tasks: put them below `if __name__ == '__main__':`")


def logs_pattern(template: Path | str) -> str:
    """The path of the logs, with placeholders for what only the job knows."""
    text = str(template).replace("{user}", files.user_name(os.getuid()))
    return text if text.startswith("{folder}") else str(located(text))


def environment_path(conda_env: Path | str | None) -> str | None:
    """An environment's name, or its path from wherever it is looked up."""
    if conda_env is None:
        return None
    if isinstance(conda_env, str) and os.sep not in conda_env and not conda_env.startswith(("~", ".")):
        return conda_env
    return str(located(conda_env))


class WorkDir(pydantic.BaseModel):
    """A copy of code, made when jobs are submitted, that the method runs in: it is their working directory.

    ``copied`` names files, folders and importable packages, installed in editable mode or not. Of folders it takes the
    files that match ``includes`` (none: all), and passes over the files and folders that match ``excludes``. The copy
    goes into the cache, where it is read-only, or to ``folder``. With ``log_commit`` all of it must be committed to
    git. It may have ``max_mb`` million bytes. Without ``chdir`` the working directory stays what it is.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    copied: tuple[Path | str, ...] = pydantic.Field(min_length=1)
    folder: Path | str | None = None
    log_commit: bool = False
    includes: tuple[str, ...] = ("*.py",)
    excludes: tuple[str, ...] = ("__pycache__", ".git")
    max_mb: float | None = pydantic.Field(None, gt=0)
    chdir: bool = True


def recent_code(workdir: WorkDir | None, cache: Path) -> LaunchCode | None:
    """The code that a launch would copy, as it was a moment ago: it is compared for each stored result that is used."""
    if workdir is None:
        return None
    settings, copy = WorkDir.model_validate(workdir), active.current_of_thread()
    key = settings.model_dump_json(), str(active.home()), None if copy is None else copy.digest
    return _recent_code(key, cache, int(time.monotonic() / _CHANGE_S))


@functools.lru_cache(maxsize=32)
def _recent_code(key: tuple[str, str, str | None], cache: Path, period: int) -> LaunchCode | None:
    """The code, as it was when it was first asked for in this ``period`` of time."""
    return readable(launch_code(WorkDir.model_validate_json(key[0]), cache))


def readable(code: LaunchCode | None) -> LaunchCode | None:
    """The code, None if it cannot be copied: a launch that has something to submit says why."""
    try:
        return None if code is None or not code.digest else code
    except ConfigError:
        return None


def launch_code(workdir: WorkDir | None, cache: Path) -> LaunchCode | None:
    """The copy of the code that a launch makes, None where it runs the code itself; ``cache`` holds its results."""
    if workdir is None:
        return None
    settings = WorkDir.model_validate(workdir)  # it may have been assigned, as a dictionary
    options = CodeOptions(
        copied=tuple(map(str, settings.copied)),
        rules=Rules(settings.includes, settings.excludes, max_mb=settings.max_mb, key=_KEY),
        folder=None if settings.folder is None else located(settings.folder),
        log_commit=settings.log_commit,
        chdir=settings.chdir,
    )
    return LaunchCode(options, cache)
