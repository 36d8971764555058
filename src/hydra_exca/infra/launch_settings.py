"""The settings of a launch, from those of an infra."""

from __future__ import annotations

import dataclasses
import os
import re
import typing as tp
from pathlib import Path

import pydantic

from hydra_exca import files, script
from hydra_exca.code.active import located
from hydra_exca.code.launch_code import CodeOptions, LaunchCode
from hydra_exca.code.rules import Rules
from hydra_exca.errors import ConfigError, Problem
from hydra_exca.job.payload import Payload

LOGS = "{folder}/logs/{user}/%j"
MAX_PICKLE_SIZE_GB = 1.0  # submitit's
_OF_JOBS = ("local", "slurm", "auto")


class JobSettings(tp.Protocol):
    """An infra, as far as its jobs depend on it."""

    cluster: tp.Any
    nodes: int | None
    tasks_per_node: int | None
    slurm_use_srun: bool
    conda_env: Path | str | None
    logs: Path | str
    workdir: WorkDir | None


def find_conflict(infra: JobSettings) -> str | None:
    """Which of the settings do not go together, None if all do."""
    if infra.conda_env is not None and infra.cluster not in _OF_JOBS:
        return (
            f"conda_env={str(infra.conda_env)!r} is for jobs, and with cluster={infra.cluster!r} the method runs under "
            "the python that runs here: use cluster local, slurm or auto, or conda_env=None"
        )
    if infra.cluster in ("slurm", "auto") and (infra.tasks_per_node or 1) > 1 and not infra.slurm_use_srun:
        return f"tasks_per_node={infra.tasks_per_node} needs slurm_use_srun=True: srun is what starts several"
    given = "" if infra.logs == LOGS else re.sub(r"\{folder\}|\{user\}|%j", "", str(infra.logs))
    unknown = re.findall(r"\{[^{}]*\}|%[A-Za-z]", given) if given else []
    if unknown:
        return f"logs={str(infra.logs)!r} has the unknown placeholder {unknown[0]!r}: use {{folder}}, {{user}} and %j"
    return None


def refuse_while_loading() -> None:
    """Raises RuntimeError in a job that is loading the script: what it asks for there it would wait for itself."""
    if script.is_loading():
        raise RuntimeError("a job loads the script, and that starts tasks: put them below `if __name__ == '__main__':`")


def check_settings(infra: JobSettings, code: LaunchCode | None) -> None:
    """Raises ConfigError if a launch with these settings cannot work; they may have been assigned one by one."""
    problem = find_conflict(infra)
    if problem is not None:
        raise ConfigError("The settings of the infra cannot work; nothing was run.", [Problem(problem, "infra")])
    if code is not None:
        code.check()


def launch_code(infra: JobSettings, cache: Path) -> LaunchCode | None:
    """The copy that the method is to run in, None where it runs from the code itself."""
    return None if infra.workdir is None else make_launch_code(WorkDir.model_validate(infra.workdir), cache)


def prepare_payload(infra: JobSettings, code: LaunchCode | None, payload: Payload) -> Payload:
    """The common part of all jobs, changed as the settings ask."""
    if code is not None:
        payload = payload.importing_from(code.snapshot(), code.replaced_directory)
    if infra.conda_env is not None:
        payload = payload.of_another_python()
    return dataclasses.replace(payload, logs=logs_pattern(infra.logs))


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


_KEY = "infra.workdir"


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


def make_launch_code(settings: WorkDir, cache: Path) -> LaunchCode:
    """The code that is copied for a launch; ``cache`` is the folder of its results."""
    options = CodeOptions(
        copied=tuple(map(str, settings.copied)),
        rules=Rules(settings.includes, settings.excludes, max_mb=settings.max_mb, key=_KEY),
        folder=None if settings.folder is None else located(settings.folder),
        log_commit=settings.log_commit,
        chdir=settings.chdir,
    )
    return LaunchCode(options, cache)
