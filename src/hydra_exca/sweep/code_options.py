"""The options of ``workdir``: which code is copied for a sweep."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import typing as tp
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_exca import paths
from hydra_exca.code import git
from hydra_exca.code.launch_code import CodeOptions
from hydra_exca.code.rules import AUTO, Rules
from hydra_exca.code.selection import LoadedFiles, loaded_files, script_file
from hydra_exca.errors import ConfigError, Problem

from .configs.omegaconf_private import node_at

KEY = "hydra.launcher.workdir"
_MULTIRUN = "multirun.yaml"


def _is_texts(value: tp.Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_text(value: tp.Any) -> bool:
    return value is None or isinstance(value, str)


def _is_bool(value: tp.Any) -> bool:
    return isinstance(value, bool)


def _is_size(value: tp.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


class _Option(tp.NamedTuple):
    default: tp.Any
    fits: tp.Callable[[tp.Any], bool]
    rule: str


# by hand, without a model: every launch reads them, and few scripts need pydantic
_OPTIONS = {
    "copied": _Option(AUTO, lambda value: _is_text(value) or _is_texts(value), "auto, a name, a list of names or null"),
    "includes": _Option([], _is_texts, "a list of text"),
    "excludes": _Option([], _is_texts, "a list of text"),
    "git_ignored": _Option(False, _is_bool, "true or false"),
    "folder": _Option(None, _is_text, "the name of a folder or null"),
    "log_commit": _Option(False, _is_bool, "true or false"),
    "max_mb": _Option(50.0, _is_size, "a number greater than 0"),
    "chdir": _Option(False, _is_bool, "true or false"),
}


def read_code_options(
    given: tp.Mapping[str, tp.Any], config: DictConfig, started_from: Path, key: str = KEY
) -> CodeOptions:
    """The code to copy, none where ``copied`` is empty. Raises ConfigError that lists all that is wrong.

    ``key`` is where the options are, for messages.
    """
    plain = {key: _plain(each) for key, each in given.items()}
    problems = [
        Problem(message, f"{key}.{name}") for name, value in plain.items() for message in _find_problems(name, value)
    ]
    if problems:
        raise ConfigError("The options of the copied code are invalid; nothing was submitted.", problems)
    chosen = {name: plain.get(name, option.default) for name, option in _OPTIONS.items()}
    copied = [chosen["copied"]] if isinstance(chosen["copied"], str) else chosen["copied"] or ()
    includes, excludes = tuple(chosen["includes"]), tuple(chosen["excludes"])
    rules = Rules(includes, excludes, not chosen["git_ignored"], float(chosen["max_mb"]), key)
    return CodeOptions(
        copied=tuple(filter(None, copied)),
        rules=dataclasses.replace(rules, never_copied=tuple(_outputs(config, started_from, rules))),
        with_script=True,
        folder=None if chosen["folder"] is None else started_from / Path(chosen["folder"]).expanduser(),
        log_commit=chosen["log_commit"],
        chdir=chosen["chdir"],
        configs=tuple(_configs(config)),
    )


def _configs(config: DictConfig) -> tp.Iterator[Path]:
    """The folders of configs; one with the script in it may hold other yaml files, which the code reads."""
    script = script_file()
    for each in config.hydra.runtime.config_sources:
        if each.schema == "file" and not (script is not None and script.is_relative_to(Path(each.path).resolve())):
            yield Path(each.path)


def _plain(value: tp.Any) -> tp.Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _find_problems(name: str, value: tp.Any) -> tp.Iterator[str]:
    if name not in _OPTIONS:
        yield f"there is no such option; there are {', '.join(_OPTIONS)}"
    elif not _OPTIONS[name].fits(value):
        yield f"it should be {_OPTIONS[name].rule}, and it is {value!r}"


def target_names(config: DictConfig) -> set[str]:
    """The top-level modules that ``_target_`` leads to, anywhere in a config but below ``hydra``."""
    names: set[str] = set()
    for key in config:
        if key != "hydra":
            node = OmegaConf.to_container(OmegaConf.create({"": node_at(config, key)}), resolve=False)
            names.update(_targets(node))
    return names


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
    loaded = functools.cache(loaded_files)
    for key in ("run", "sweep"):
        unresolved = tp.cast("dict[str, tp.Any]", OmegaConf.to_container(config.hydra[key], resolve=False))
        before, is_interpolated, _ = str(unresolved["dir"]).partition("${")
        folders = {before.rpartition("/")[0] if is_interpolated else before}
        with contextlib.suppress(OmegaConfBaseException):  # it depends on the job
            folders.add(str(config.hydra[key].dir))
        for folder in sorted(filter(None, folders)):
            path = started_from / folder
            yield from _written(path, config) if _has_code(path, started_from, rules, loaded) else (path,)


def _written(folder: Path, config: DictConfig) -> tp.Iterator[Path]:
    names = [paths.SWEEP, paths.OUTPUT_POINTER, paths.OUTPUT_OWNER, paths.PROVENANCE, paths.PATCH]
    names += [_MULTIRUN, f"{config.hydra.job.name}.log", config.hydra.output_subdir or _MULTIRUN]
    return (folder / name for name in names)


def _has_code(folder: Path, started_from: Path, rules: Rules, loaded: tp.Callable[[], LoadedFiles]) -> bool:
    """Whether the code is in there: what the program was started from or has loaded, or what git knows."""
    place = folder.resolve()
    if not place.is_dir():
        return False
    if started_from.resolve().is_relative_to(place) or str(place) in loaded().folders:
        return True
    try:
        tracked = git.tracked_files(place)
    except git.GitError:
        return False
    return any(rules.includes_file(name) for name in tracked if not Path(name).name.startswith("."))
