"""The options of ``hydra.launcher``, checked, and sorted: those of the sweep, of any cluster, and of Slurm alone."""

from __future__ import annotations

import dataclasses
import enum
import typing as tp
from pathlib import Path

from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf, SlurmQueueConf
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_exca import clusters, paths, text
from hydra_exca.errors import ConfigError, Problem
from hydra_exca.launch.retry_policy import RULES, RetryPolicy
from hydra_exca.status import Mode, OnCodeChange, OnFailure, OnInterrupt, OnUnresolved, ProgressKind

from .configs.tree import to_resolved

KEY = "hydra.launcher"
PER_TASK_KEY = f"{KEY}.per_task"
DEFAULT_FOLDER = "exca"
DEFAULT_VERSION = "0"
INVALID_OPTIONS = "The launcher's options are invalid; nothing was submitted."

_ENUMS: dict[str, type[enum.Enum]] = {
    "mode": Mode,
    "on_failure": OnFailure,
    "on_interrupt": OnInterrupt,
    "on_code_change": OnCodeChange,
    "on_unresolved": OnUnresolved,
    "progress": ProgressKind,
}
_LISTS = ("exclude_from_uid", "allow_missing", "node_env", "trust_users", "record_env", "secret_keys")
_MINIMA = {"tasks_per_job": 1, "workers_per_job": 1, "max_queued": 1, "array_parallelism": 1, "max_num_timeout": 0}
_OF_SUBMISSION = (
    "python",
    "array_parallelism",
    "max_num_timeout",
    "submitit_folder",
    "max_queued",
    "poll_s",
    "share_machine",
)
_OF_ANY_CLUSTER = frozenset(BaseQueueConf.__dataclass_fields__)
_OF_THE_LAUNCH = {"_target_", "submitit_folder", "stderr_to_stdout", "max_num_timeout", "array_parallelism"}
_OF_THE_LAUNCH |= {"python", "srun_args", "use_srun"}  # only hydra-submitit-launcher 1.4 would know their types
_OF_A_JOB = frozenset(SlurmQueueConf.__dataclass_fields__) - _OF_THE_LAUNCH
_ABSENT = object()


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """The valid options of a launch, with an absolute folder, and as it was typed.

    ``version_is_set``: the user chose the version, even if it is the default.
    """

    folder: Path
    typed_folder: Path
    cluster: str | None
    mode: Mode
    version: str
    version_is_set: bool
    project: str | None
    exclude_from_uid: tuple[str, ...]
    allow_missing: tuple[str, ...]
    node_env: tuple[str, ...]
    on_unresolved: OnUnresolved
    schema: str | None
    dry_run: bool
    link_outputs: bool
    trust_users: tuple[str, ...]
    workdir: dict[str, tp.Any]
    on_code_change: OnCodeChange
    record_env: tuple[str, ...]
    secret_keys: tuple[str, ...]
    tasks_per_job: int
    workers_per_job: int
    per_task: dict[str, str]
    wait: bool
    fail_jobs: bool
    retries: RetryPolicy
    on_failure: OnFailure
    on_interrupt: OnInterrupt | None
    progress: ProgressKind
    jobs: clusters.Options


_OF_RETRIES = tuple(field.name for field in dataclasses.fields(RetryPolicy))
_OF_THE_SWEEP = {field.name for field in dataclasses.fields(SweepOptions)} - {"typed_folder", "version_is_set", "jobs"}
_OF_THE_SWEEP |= set(_OF_RETRIES)


def read_options(
    options: tp.Mapping[str, tp.Any], started_from: Path, typed_version: str | None = None
) -> SweepOptions:
    """The options of ``hydra.launcher``; a relative folder is one of ``started_from``.

    ``typed_version`` is the version as it was typed on the command line, if it was. Raises ConfigError that lists
    everything wrong with them.
    """
    plain = {key: to_plain(value) for key, value in options.items()}
    _check_complete(plain)
    plain["version"] = plain["version"] if typed_version is None else typed_version
    plain |= {name: plain[name] or {} for name in ("per_task", *RULES.values())}
    problems = list(_find_problems(plain))
    if problems:
        raise ConfigError(INVALID_OPTIONS, problems)
    is_set = typed_version is not None or plain["version"] != DEFAULT_VERSION
    own = _typed_values({name: plain.pop(name) for name in _OF_THE_SWEEP}, started_from)
    return SweepOptions(**own, version_is_set=is_set, jobs=_job_options(plain))


def _typed_values(own: dict[str, tp.Any], started_from: Path) -> dict[str, tp.Any]:
    own |= {name: kind(own[name]) for name, kind in _ENUMS.items() if own[name] is not None}
    own |= {name: tuple(own[name]) for name in _LISTS}
    own["retries"] = _retry_policy({name: own.pop(name) for name in _OF_RETRIES})
    own["typed_folder"] = Path(own["folder"] or DEFAULT_FOLDER).expanduser()
    own["folder"] = started_from / own["typed_folder"]
    if own["cluster"] == "debug" and own["mode"] is Mode.CACHED:
        own["mode"] = Mode.RETRY  # a task that failed is what one wants to debug
    return own


def _retry_policy(given: dict[str, tp.Any]) -> RetryPolicy:
    rules = {
        option: {_submitit_name(name): value for name, value in given[option].items()} for option in RULES.values()
    }
    return RetryPolicy(**{**given, **rules})


def _submitit_name(option: str) -> str:
    """The name of a job's option: those that only Slurm knows have a prefix."""
    return option if option in _OF_ANY_CLUSTER else f"slurm_{option}"


def _job_options(options: dict[str, tp.Any]) -> clusters.Options:
    submission = {name: options.pop(name) for name in _OF_SUBMISSION if name in options}
    common = {key: value for key, value in options.items() if key in _OF_ANY_CLUSTER}
    slurm = {key: value for key, value in options.items() if key not in _OF_ANY_CLUSTER}
    return clusters.Options(common, slurm, **submission)


def typed_version(overrides: tp.Iterable[str]) -> str | None:
    """The version as it was typed on the command line, None if it was not: parsed as a number, 1.10 would be 1.1."""
    prefix = f"{KEY}.version="
    versions = [line.partition("=")[2] for line in overrides if line.lstrip("+").startswith(prefix)]
    return versions[-1].strip("'\"") if versions else None


def to_plain(value: tp.Any) -> tp.Any:
    """A value of a config in plain containers."""
    return to_resolved(value) if OmegaConf.is_config(value) else value


def _check_complete(options: tp.Mapping[str, tp.Any]) -> None:
    missing = sorted(_OF_THE_SWEEP - options.keys())
    if missing:
        message = (
            f"has no {', '.join(missing)}. A launcher/exca.yaml of your own replaces that of the package: give it "
            "another name, and begin it with `defaults: [exca, _self_]`"
        )
        raise ConfigError("The launcher's options are incomplete; nothing was submitted.", [Problem(message, KEY)])


def _find_problems(options: tp.Mapping[str, tp.Any]) -> tp.Iterator[Problem]:
    for name, kind in _ENUMS.items():
        valid = [choice.value for choice in kind]
        if options[name] not in valid and not (name == "on_interrupt" and options[name] is None):
            yield Problem(f"invalid {name} {options[name]!r}: choose {text.choices(valid)}", f"{KEY}.{name}")
    for name in ("version", "project"):
        if options[name] is not None and not paths.is_version(options[name]):
            rule = "it is part of a folder's name: at most 64 letters, digits and ._+-"
            yield Problem(f"invalid {name} {options[name]!r}: {rule}", f"{KEY}.{name}")
    yield from _check_numbers(options)
    yield from _find_conflicts(options)
    yield from _check_per_task(options["per_task"])
    yield from _check_retries({name: options[name] for name in _OF_RETRIES})


def _check_numbers(options: tp.Mapping[str, tp.Any]) -> tp.Iterator[Problem]:
    for name, minimum in _MINIMA.items():
        value = options.get(name)
        if value is not None and value < minimum:
            yield Problem(f"{value} is too small: the minimum is {minimum}", f"{KEY}.{name}")
    if not options.get("poll_s", 1.0) > 0:
        yield Problem(f"{options['poll_s']} is too small: it must be more than 0 seconds", f"{KEY}.poll_s")


def _find_conflicts(options: tp.Mapping[str, tp.Any]) -> tp.Iterator[Problem]:
    """The options that do not go together."""
    tasks, workers, cluster = options["tasks_per_job"], options["workers_per_job"], options["cluster"]
    if workers > tasks:
        message = f"{workers} workers share the {tasks} of a job: raise tasks_per_job, too"
        yield Problem(message, f"{KEY}.workers_per_job")
    several = _multiplying_options(options)
    if tasks > 1 and several:
        message = f"a job of several processes ({', '.join(several)}) computes one task, not {tasks}"
        yield Problem(message, f"{KEY}.tasks_per_job")
    if "tasks_per_node" in several and cluster in ("slurm", "auto") and options.get("use_srun") is False:
        yield Problem("it needs use_srun=true: srun is what starts several processes", f"{KEY}.tasks_per_node")
    if not options["wait"] and cluster in (None, "inline", "debug"):
        yield Problem("wait=false needs jobs that outlive this process: use cluster local or slurm", f"{KEY}.wait")


def _multiplying_options(options: tp.Mapping[str, tp.Any]) -> list[str]:
    """The options by which jobs have several processes, or may have."""
    names = ("nodes", "tasks_per_node")
    return [name for name in names if (options.get(name) or 1) > 1 or name in options["per_task"]]


def _check_per_task(per_task: tp.Any) -> tp.Iterator[Problem]:
    if not isinstance(per_task, dict) or not all(isinstance(key, str) for key in per_task.values()):
        yield Problem(f"{per_task!r} is not a mapping of options to keys, as {{mem_gb: model.mem}} is", PER_TASK_KEY)
        return
    for name in sorted(per_task.keys() - _OF_A_JOB):
        yield Problem(f"invalid option {name!r}: choose {text.choices(sorted(_OF_A_JOB))}", PER_TASK_KEY)


def _check_retries(given: tp.Mapping[str, tp.Any]) -> tp.Iterator[Problem]:
    broken = [option for option in RULES.values() if not isinstance(given[option], dict)]
    for option in broken:
        yield Problem(
            f"{given[option]!r} is not a mapping of options to values, as {{mem_gb: 2x}} is", f"{KEY}.{option}"
        )
    for option, message in RetryPolicy(**{**given, **{option: {} for option in broken}}).problems(_OF_A_JOB):
        yield Problem(message, f"{KEY}.{option}")


def resources_of_task(
    per_task: tp.Mapping[str, str], config_of_task: tp.Callable[[], DictConfig]
) -> tuple[dict[str, tp.Any], list[Problem]]:
    """The resources that a task's config asks for, under submitit's names, and what is wrong with them.

    A key that is null leaves the option as the launcher has it.
    """
    resources: dict[str, tp.Any] = {}
    problems: list[Problem] = []
    config = config_of_task() if per_task else DictConfig({})
    for name, key in per_task.items():
        try:
            value = OmegaConf.select(
                config, key, default=_ABSENT, throw_on_missing=True, throw_on_resolution_failure=True
            )
            if value is _ABSENT:
                problems.append(Problem(f"{name} is read from {key!r}, which the config does not have", PER_TASK_KEY))
            elif value is not None:
                resources[_submitit_name(name)] = _convert(name, value)
        except OmegaConfBaseException as error:
            problems.append(Problem(f"{name} from {key!r}: {str(error).splitlines()[0]}", PER_TASK_KEY))
    return resources, problems


def _convert(name: str, value: tp.Any) -> tp.Any:
    """The value as the launcher's own option would take it."""
    integral = int(value) if isinstance(value, float) and value.is_integer() else value
    merged: tp.Any = OmegaConf.merge(OmegaConf.structured(SlurmQueueConf), {name: integral})
    return to_plain(merged[name])
