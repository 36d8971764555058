"""Options of a job that come from its own config: ``hydra.launcher.per_task``."""

from __future__ import annotations

import typing as tp

from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf, SlurmQueueConf
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_exca.errors import Problem

KEY = "hydra.launcher.per_task"
_COMMON = frozenset(BaseQueueConf.__dataclass_fields__)
# those of the launch as a whole
_NOT_OF_A_JOB = {"_target_", "submitit_folder", "stderr_to_stdout", "max_num_timeout", "array_parallelism"}
_KNOWN = frozenset(SlurmQueueConf.__dataclass_fields__) - _NOT_OF_A_JOB


def check(per_task: tp.Any) -> list[Problem]:
    """What is wrong with the option itself: names that are no options of a job, places that are none in a config."""
    if not isinstance(per_task, dict) or not all(isinstance(path, str) for path in per_task.values()):
        return [Problem(f"{per_task!r} is no {{option: place in the config}}, as {{mem_gb: model.mem}} is", KEY)]
    unknown = [name for name in per_task if name not in _KNOWN]
    return [Problem(f"{name!r} is none of {', '.join(sorted(_KNOWN))}", KEY) for name in unknown]


def of(
    per_task: tp.Mapping[str, str], config_of_task: tp.Callable[[], DictConfig]
) -> tuple[dict[str, tp.Any], list[Problem]]:
    """The resources that a task's config asks for, under submitit's names, and what is wrong with them.

    A value None leaves the launcher's own option.
    """
    found: dict[str, tp.Any] = {}
    problems: list[Problem] = []
    if not per_task:
        return found, problems
    config = config_of_task()
    for name, path in per_task.items():
        try:
            value = OmegaConf.select(config, path, throw_on_missing=True, throw_on_resolution_failure=True)
            if value is None and not _is_there(config, path):
                problems.append(Problem(f"{name} is to come from {path!r}, which the config does not have", KEY))
            elif value is not None:
                found[name if name in _COMMON else f"slurm_{name}"] = _valid(name, value)
        except OmegaConfBaseException as error:
            problems.append(Problem(f"{name} from {path!r}: {str(error).splitlines()[0]}", KEY))
    return found, problems


def _is_there(config: DictConfig, path: str) -> bool:
    missing = object()
    return OmegaConf.select(config, path, default=missing) is not missing or _is_none(config, path)


def _is_none(config: DictConfig, path: str) -> bool:
    parent, _, key = path.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return OmegaConf.is_config(node) and key in node


def _valid(name: str, value: tp.Any) -> tp.Any:
    """The value as the launcher's own option would take it."""
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    return OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(SlurmQueueConf), {name: whole}))[name]  # type: ignore[index,call-overload]
