"""The options of ``workdir``: which code is copied for a sweep."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as tp
from pathlib import Path

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_exca import paths
from hydra_exca.code import git
from hydra_exca.code.launch_code import CodeOptions
from hydra_exca.code.rules import Rules
from hydra_exca.code.selection import loaded_files, script_file
from hydra_exca.errors import ConfigError, Problem

from .configs.omegaconf_private import node_at
from .launcher_conf import WorkdirConf

KEY = "hydra.launcher.workdir"
_MULTIRUN = "multirun.yaml"


def read_code_options(given: tp.Mapping[str, tp.Any], config: DictConfig, key: str, *, can_chdir: bool) -> CodeOptions:
    """The code to copy, none where ``copied`` is empty. Raises ConfigError that lists every problem.

    ``key`` is where the options are, for messages. Other launchers than ours say where their jobs start, and make their
    folders: jobs of a sweep ``can_chdir`` with ours only.
    """
    chosen, problems = _apply_schema(given)
    copied = _copied_names(chosen.copied)
    if copied is None:
        problems["copied"] = f"{chosen.copied!r} is neither auto, nor a name, a list of names or null"
    if chosen.max_mb <= 0:
        problems["max_mb"] = f"{chosen.max_mb:g} is too small: it must be greater than 0"
    if chosen.chdir and copied and config.hydra.mode is RunMode.MULTIRUN and not can_chdir:
        problems["chdir"] = "jobs can only run in the copy with hydra/launcher=exca"
    if problems or copied is None:
        found = [Problem(message, f"{key}.{name}") for name, message in problems.items()]
        raise ConfigError("The options of the copied code are invalid; nothing was run.", found)
    return _code_options(chosen, copied, config, key)


def _code_options(chosen: WorkdirConf, copied: list[str], config: DictConfig, key: str) -> CodeOptions:
    started_from = Path(config.hydra.runtime.cwd)
    rules = Rules(tuple(chosen.includes), tuple(chosen.excludes), not chosen.git_ignored, chosen.max_mb, key)
    return CodeOptions(
        copied=tuple(copied),
        rules=dataclasses.replace(rules, never_copied=tuple(_output_places(config, started_from, rules))),
        with_script=True,
        folder=None if chosen.folder is None else started_from / Path(chosen.folder).expanduser(),
        log_commit=chosen.log_commit,
        chdir=chosen.chdir,
        configs=tuple(_config_folders(config)),
    )


def _copied_names(copied: tp.Any) -> list[str] | None:
    """The names of what is to be copied; None if the option is neither a name, a list of names nor null."""
    names = [copied] if isinstance(copied, str) else copied or []
    is_valid = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    return list(filter(None, names)) if is_valid else None


def _apply_schema(given: tp.Mapping[str, tp.Any]) -> tuple[WorkdirConf, dict[str, str]]:
    """The options that fit the schema, and what is wrong with the others, by name."""
    merged: tp.Any = OmegaConf.structured(WorkdirConf)
    names = [field.name for field in dataclasses.fields(WorkdirConf)]
    problems = {}
    for name, value in given.items():
        if name not in names:
            problems[name] = f"there is no such option; there are {', '.join(names)}"
            continue
        try:
            merged = OmegaConf.merge(merged, {name: value})
        except OmegaConfBaseException as error:
            problems[name] = str(error).splitlines()[0]
    return tp.cast(WorkdirConf, OmegaConf.to_object(merged)), problems


def _config_folders(config: DictConfig) -> tp.Iterator[Path]:
    """The folders of configs; one with the script in it may hold other yaml files, which the code reads."""
    script = script_file()
    for source in config.hydra.runtime.config_sources:
        folder = Path(source.path)
        if source.schema == "file" and not (script is not None and script.is_relative_to(folder.resolve())):
            yield folder


def target_names(config: DictConfig) -> set[str]:
    """The top-level modules that ``_target_`` leads to, anywhere in a config but below ``hydra``."""
    return {target.partition(".")[0] for target in targets(config)}


def targets(config: DictConfig) -> set[str]:
    """The dotted names in ``_target_``, anywhere in a config but below ``hydra``."""
    names: set[str] = set()
    for key in config:
        if key != "hydra":
            node = OmegaConf.to_container(OmegaConf.create({"": node_at(config, key)}), resolve=False)
            names.update(_find_targets(node))
    return names


def _find_targets(value: tp.Any) -> tp.Iterator[str]:
    if isinstance(value, dict):
        target = value.get("_target_")
        if isinstance(target, str) and target.partition(".")[0].isidentifier():
            yield target
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for child in value:
            yield from _find_targets(child)


def _output_places(config: DictConfig, started_from: Path, rules: Rules) -> tp.Iterator[Path]:
    """Where Hydra writes: the folders of this run and sweep, and those that all runs and sweeps are in.

    Many apps run with ``hydra.run.dir=.``: of a folder with the code in it, it is what Hydra and we write there.
    """
    for key in ("run", "sweep"):
        unresolved = tp.cast("dict[str, tp.Any]", OmegaConf.to_container(config.hydra[key], resolve=False))
        before, is_interpolated, _ = str(unresolved["dir"]).partition("${")
        folders = {before.rpartition("/")[0] if is_interpolated else before}
        with contextlib.suppress(OmegaConfBaseException):  # it depends on the job
            folders.add(str(config.hydra[key].dir))
        for path in (started_from / folder for folder in sorted(filter(None, folders))):
            yield from _written_files(path, config) if _has_code(path, started_from, rules) else (path,)


def _written_files(folder: Path, config: DictConfig) -> tp.Iterator[Path]:
    names = [paths.SWEEP, paths.OUTPUT_POINTER, paths.OUTPUT_OWNER, paths.PROVENANCE, paths.PATCH]
    names += [_MULTIRUN, f"{config.hydra.job.name}.log", config.hydra.output_subdir or _MULTIRUN]
    return (folder / name for name in names)


def _has_code(folder: Path, started_from: Path, rules: Rules) -> bool:
    """Whether the code is in there: what the program was started from or has loaded, or what git knows."""
    place = folder.resolve()
    if not place.is_dir():
        return False
    if started_from.resolve().is_relative_to(place) or str(place) in loaded_files().folders:
        return True
    try:
        tracked = git.tracked_files(place)
    except git.GitError:
        return False
    return any(rules.includes_file(name) for name in tracked if not Path(name).name.startswith("."))
