"""What the settings of an infra mean for a launch."""

from __future__ import annotations

import dataclasses
import os
import re
import typing as tp
from pathlib import Path

from hydra_exca import script
from hydra_exca.code import Code
from hydra_exca.errors import ConfigError, Problem
from hydra_exca.payload import Payload, located
from hydra_exca.store import files

from . import code as codes
from .code import WorkDir

LOGS = "{folder}/logs/{user}/%j"
MAX_PICKLE_SIZE_GB = 1.0  # submitit's
_OF_JOBS = ("local", "slurm", "auto")


class Running(tp.Protocol):
    """An infra, as far as its jobs depend on it."""

    cluster: tp.Any
    nodes: int | None
    tasks_per_node: int | None
    slurm_use_srun: bool
    conda_env: Path | str | None
    logs: Path | str
    workdir: WorkDir | None


def conflict(infra: Running) -> str | None:
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
        return f"logs={str(infra.logs)!r} has {unknown[0]!r} in it, which is none of {{folder}}, {{user}} and %j"
    return None


def refuse_while_loading() -> None:
    """Raises RuntimeError in a job that is loading the script: what it asks for there it would wait for itself."""
    if script.is_loading():
        raise RuntimeError("a job loads the script, and that starts tasks: put them below `if __name__ == '__main__':`")


def check(infra: Running, code: Code | None) -> None:
    """Raises ConfigError if a launch with these settings cannot work; they may have been assigned one by one."""
    problem = conflict(infra)
    if problem is not None:
        raise ConfigError("The settings of the infra cannot work; nothing was run.", [Problem(problem, "infra")])
    if code is not None:
        code.check()


def code(infra: Running, cache: Path) -> Code | None:
    """The copy that the method is to run in, None where it runs from the code itself."""
    return None if infra.workdir is None else codes.of(WorkDir.model_validate(infra.workdir), cache)


def prepared(infra: Running, code: Code | None, payload: Payload) -> Payload:
    """What all jobs have in common, as the settings want it."""
    if code is not None:
        payload = code.applied(payload)
    if infra.conda_env is not None:
        payload = payload.of_another_python()
    return dataclasses.replace(payload, logs=logs(infra.logs))


def logs(template: Path | str) -> str:
    """Where logs go, but for what only the job knows."""
    text = str(template).replace("{user}", files.user_name(os.getuid()))
    return text if text.startswith("{folder}") else str(located(text))


def environment(conda_env: Path | str | None) -> str | None:
    """An environment's name, or its path from wherever it is looked up."""
    if conda_env is None:
        return None
    if isinstance(conda_env, str) and os.sep not in conda_env and not conda_env.startswith(("~", ".")):
        return conda_env
    return str(located(conda_env))
