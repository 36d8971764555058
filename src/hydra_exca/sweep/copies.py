"""What the options of ``workdir`` mean: which code is copied for a sweep."""

from __future__ import annotations

import contextlib
import typing as tp
from pathlib import Path

import pydantic
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_exca import paths, repository, workdir
from hydra_exca.code import CodeOptions
from hydra_exca.errors import ConfigError, Problem
from hydra_exca.workdir import AUTO, Rules

KEY = "hydra.launcher.workdir"
_MULTIRUN = "multirun.yaml"


class _Given(pydantic.BaseModel):
    """The options as they are given; their defaults are in the config groups."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    copied: str | list[str] | None = AUTO
    includes: list[str] = []
    excludes: list[str] = []
    git_ignored: bool = False
    folder: str | None = None
    log_commit: bool = False
    max_mb: float = pydantic.Field(50.0, gt=0)
    chdir: bool = False


def options(given: tp.Mapping[str, tp.Any], config: DictConfig, started_from: Path, key: str = KEY) -> CodeOptions:
    """What is to be copied: nothing where ``copied`` is empty. Raises ConfigError that lists all that is wrong.

    ``key`` is where the options are, for messages.
    """
    plain = {key: _plain(each) for key, each in given.items()}
    try:
        chosen = _Given.model_validate(plain)
    except pydantic.ValidationError as error:
        problems = [Problem(_told(each), f"{key}.{each['loc'][0]}") for each in error.errors()]
        raise ConfigError("The options of the copied code cannot work; nothing was run.", problems) from error
    copied = [chosen.copied] if isinstance(chosen.copied, str) else chosen.copied or ()
    rules = Rules(tuple(chosen.includes), tuple(chosen.excludes), not chosen.git_ignored, chosen.max_mb, key)
    return CodeOptions(
        copied=tuple(filter(None, copied)),
        rules=rules,
        with_script=True,
        folder=None if chosen.folder is None else started_from / Path(chosen.folder).expanduser(),
        log_commit=chosen.log_commit,
        chdir=chosen.chdir,
        left_out=tuple(_outputs(config, started_from, rules)),
        configs=tuple(_configs(config)),
    )


def _configs(config: DictConfig) -> tp.Iterator[Path]:
    """The folders of configs; one with the script in it may hold other yaml files, which the code reads."""
    script = workdir.script()
    for each in config.hydra.runtime.config_sources:
        if each.schema == "file" and not (script is not None and script.is_relative_to(Path(each.path).resolve())):
            yield Path(each.path)


def _plain(value: tp.Any) -> tp.Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _told(error: tp.Any) -> str:
    if error["type"] == "extra_forbidden":
        return f"there is no such option; there are {', '.join(_Given.model_fields)}"
    return f"{error['msg']}, and it is {error['input']!r}"


def targets(config: DictConfig) -> set[str]:
    """The top-level modules that ``_target_`` leads to, anywhere in a config but below ``hydra``."""
    found: set[str] = set()
    for key in config:
        if key != "hydra":
            node = OmegaConf.to_container(OmegaConf.create({"": config._get_node(key)}), resolve=False)  # noqa: SLF001
            found.update(_targets(node))
    return found


def _targets(value: tp.Any) -> tp.Iterator[str]:
    if isinstance(value, dict):
        target = value.get("_target_")
        if isinstance(target, str) and target.partition(".")[0].isidentifier():
            yield target.partition(".")[0]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _targets(each)


def _outputs(config: DictConfig, started_from: Path, rules: Rules) -> tp.Iterator[Path]:
    """Where Hydra writes: the folders of this run and sweep, and those that all runs and sweeps are in.

    Many apps run with ``hydra.run.dir=.``: of a folder with the code in it, it is what Hydra and we write there.
    """
    for key in ("run", "sweep"):
        unresolved = tp.cast("dict[str, tp.Any]", OmegaConf.to_container(config.hydra[key], resolve=False))
        before, is_interpolated, _ = str(unresolved["dir"]).partition("${")
        folders = {before.rpartition("/")[0] if is_interpolated else before}
        with contextlib.suppress(OmegaConfBaseException):  # it depends on the job
            folders.add(str(config.hydra[key].dir))
        for folder in sorted(filter(None, folders)):
            path = started_from / folder
            yield from _written(path, config) if _has_code(path, started_from, rules) else (path,)


def _written(folder: Path, config: DictConfig) -> tp.Iterator[Path]:
    names = [paths.SWEEP, paths.OUTPUT_POINTER, paths.OUTPUT_OWNER, paths.PROVENANCE, paths.PATCH]
    names += [_MULTIRUN, f"{config.hydra.job.name}.log", config.hydra.output_subdir or _MULTIRUN]
    return (folder / name for name in names)


def _has_code(folder: Path, started_from: Path, rules: Rules) -> bool:
    """Whether the code is in there: what the program was started from or has loaded, or what git knows."""
    place = folder.resolve()
    if not place.is_dir():
        return False
    if started_from.resolve().is_relative_to(place) or str(place) in workdir.loaded().folders:
        return True
    try:
        known = repository.known(place)
    except repository.GitError:
        return False
    return any(rules.includes_file(name) for name in known if not Path(name).name.startswith("."))
