"""The launcher's options, sorted: what is ours, what every cluster takes, what only Slurm does."""

from __future__ import annotations

import dataclasses
import typing as tp
from pathlib import Path

from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf, SlurmQueueConf
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_exca import clusters, paths, text
from hydra_exca.errors import ConfigError, Problem
from hydra_exca.status import Mode, OnCodeChange, OnFailure, OnInterrupt

DEFAULT_FOLDER = "exca"
DEFAULT_VERSION = "0"
_ENGINE = ("array_parallelism", "max_num_timeout", "submitit_folder", "max_queued", "poll_s", "share_machine")


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """What ``hydra.launcher`` says, checked: paths absolute, the mode and the version valid ones.

    ``version_is_set``: somebody chose it, even if the one that nobody has to choose.
    """

    folder: Path
    cluster: str | None
    mode: Mode
    version: str
    version_is_set: bool
    project: str | None
    exclude_from_uid: tuple[str, ...]
    allow_missing: tuple[str, ...]
    node_env: tuple[str, ...]
    schema: str | None
    dry_run: bool
    link_outputs: bool
    trust_users: tuple[str, ...]
    workdir: dict[str, tp.Any]
    on_code_change: OnCodeChange
    record_env: tuple[str, ...]
    tasks_per_job: int
    workers_per_job: int
    per_task: dict[str, str]
    wait: bool
    on_failure: OnFailure
    on_interrupt: OnInterrupt | None
    jobs: clusters.Options

    @property
    def stderr_to_stdout(self) -> bool:
        return bool(self.jobs.common.get("stderr_to_stdout", False))


def read_options(
    options: tp.Mapping[str, tp.Any], started_from: Path, typed_version: str | None = None
) -> SweepOptions:
    """Sorts the launcher's options; ``started_from`` is where a relative folder counts from.

    ``typed_version`` is the version as it stands on the command line, if it does. Raises ConfigError that lists
    everything wrong with them.
    """
    plain = {key: _plain(value) for key, value in options.items()}
    _check_complete(plain)
    if typed_version is not None:
        plain["version"] = typed_version
    plain["version_is_set"] = typed_version is not None or plain["version"] != DEFAULT_VERSION
    own = {field.name: plain.pop(field.name) for field in dataclasses.fields(SweepOptions) if field.name in plain}
    engine = {key: plain.pop(key) for key in _ENGINE if key in plain}
    common_keys = set(OmegaConf.structured(BaseQueueConf).keys())
    own["per_task"] = own["per_task"] or {}
    _check(own, engine, plain)
    own["on_failure"] = OnFailure(own["on_failure"])
    own["on_code_change"] = OnCodeChange(own["on_code_change"])
    own["on_interrupt"] = None if own["on_interrupt"] is None else OnInterrupt(own["on_interrupt"])
    for key in ("exclude_from_uid", "allow_missing", "node_env", "trust_users", "record_env"):
        own[key] = tuple(own[key])
    own["folder"] = started_from / Path(own["folder"] or DEFAULT_FOLDER).expanduser()
    own["mode"] = Mode(own["mode"])
    if own["cluster"] == "debug" and own["mode"] is Mode.CACHED:
        own["mode"] = Mode.RETRY  # a stored error is what one wants to debug
    jobs = clusters.Options(
        common={key: value for key, value in plain.items() if key in common_keys},
        slurm={key: value for key, value in plain.items() if key not in common_keys},
        **engine,
    )
    return SweepOptions(**own, jobs=jobs)


def _check_complete(plain: tp.Mapping[str, tp.Any]) -> None:
    known = {field.name for field in dataclasses.fields(SweepOptions)} - {"version_is_set", "jobs"}
    lacking = sorted(known - plain.keys())
    if lacking:
        told = (
            f"has no {', '.join(lacking)}. A file of your own with the name launcher/exca.yaml stands in for that of "
            "the package: give it another name, and let it begin with `defaults: [exca, _self_]`"
        )
        raise ConfigError(
            "The launcher's options are incomplete; nothing was submitted.", [Problem(told, "hydra.launcher")]
        )


def version_as_typed(overrides: tp.Iterable[str]) -> str | None:
    """The version as it stands on the command line: as a number, 1.10 would be 1.1. None if it does not."""
    versions = [each.partition("=")[2] for each in overrides if each.lstrip("+").startswith("hydra.launcher.version=")]
    return versions[-1].strip("'\"") if versions else None


def _check(own: tp.Mapping[str, tp.Any], engine: tp.Mapping[str, tp.Any], jobs: tp.Mapping[str, tp.Any]) -> None:
    problems = [
        *_choices(own),
        *_names(own),
        *_numbers({**own, **engine}),
        *_packing(own, jobs),
        *check_per_task(own["per_task"]),
    ]
    if not own["wait"] and own["cluster"] in (None, "inline", "debug"):
        problems.append(Problem("false needs jobs of their own: cluster=local or slurm", "hydra.launcher.wait"))
    if problems:
        raise ConfigError("The launcher's options are invalid; nothing was submitted.", problems)


def _choices(own: tp.Mapping[str, tp.Any]) -> tp.Iterator[Problem]:
    named = (("mode", Mode), ("on_failure", OnFailure), ("on_interrupt", OnInterrupt), ("on_code_change", OnCodeChange))
    for name, choices in named:
        valid = [choice.value for choice in choices]
        if own[name] not in valid and not (name == "on_interrupt" and own[name] is None):
            yield Problem(f"invalid {name} {own[name]!r}: choose {text.choices(valid)}", f"hydra.launcher.{name}")


def _names(own: tp.Mapping[str, tp.Any]) -> tp.Iterator[Problem]:
    if not paths.is_version(own["version"]):
        rule = "it names a folder: letters, digits and ._+- only, 64 at most"
        yield Problem(f"{own['version']!r} cannot be a version; {rule}", "hydra.launcher.version")
    if own["project"] is not None and not paths.is_version(own["project"]):
        yield Problem(f"{own['project']!r} cannot name a project, as a version", "hydra.launcher.project")


_LEAST = {
    "tasks_per_job": 1,
    "workers_per_job": 1,
    "max_queued": 1,
    "array_parallelism": 1,
    "max_num_timeout": 0,
}


def _numbers(options: tp.Mapping[str, tp.Any]) -> tp.Iterator[Problem]:
    for name, least in _LEAST.items():
        value = options.get(name)
        if value is not None and value < least:
            yield Problem(f"{value} is less than {least}", f"hydra.launcher.{name}")
    if not options.get("poll_s", 1.0) > 0:
        yield Problem(f"{options['poll_s']} is no time in seconds", "hydra.launcher.poll_s")


def _packing(own: tp.Mapping[str, tp.Any], jobs: tp.Mapping[str, tp.Any]) -> tp.Iterator[Problem]:
    tasks, workers = own["tasks_per_job"], own["workers_per_job"]
    if workers > tasks:
        said = f"{workers} at a time are more than the {tasks} of a job: set tasks_per_job, too"
        yield Problem(said, "hydra.launcher.workers_per_job")
    several = [name for name in ("nodes", "tasks_per_node") if (jobs.get(name) or 1) > 1 or name in own["per_task"]]
    if tasks > 1 and several:
        said = f"{tasks} tasks do not go into jobs of several processes each ({', '.join(several)})"
        yield Problem(said, "hydra.launcher.tasks_per_job")


def _plain(value: tp.Any) -> tp.Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


PER_TASK_KEY = "hydra.launcher.per_task"


_COMMON = frozenset(BaseQueueConf.__dataclass_fields__)


# those of the launch as a whole
_NOT_OF_A_JOB = {"_target_", "submitit_folder", "stderr_to_stdout", "max_num_timeout", "array_parallelism"}


_KNOWN = frozenset(SlurmQueueConf.__dataclass_fields__) - _NOT_OF_A_JOB


def check_per_task(per_task: tp.Any) -> list[Problem]:
    """What is wrong with the option itself: names that are no options of a job, places that are none in a config."""
    if not isinstance(per_task, dict) or not all(isinstance(path, str) for path in per_task.values()):
        return [
            Problem(f"{per_task!r} is no {{option: place in the config}}, as {{mem_gb: model.mem}} is", PER_TASK_KEY)
        ]
    unknown = [name for name in per_task if name not in _KNOWN]
    return [
        Problem(f"invalid option {name!r}: choose {text.choices(sorted(_KNOWN))}", PER_TASK_KEY) for name in unknown
    ]


def resources_of_task(
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
                problems.append(
                    Problem(f"{name} is to come from {path!r}, which the config does not have", PER_TASK_KEY)
                )
            elif value is not None:
                found[name if name in _COMMON else f"slurm_{name}"] = _valid(name, value)
        except OmegaConfBaseException as error:
            problems.append(Problem(f"{name} from {path!r}: {str(error).splitlines()[0]}", PER_TASK_KEY))
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
