"""Runs in a process of its own: what the tasks of small Hydra apps return, and what identities they get from us.

``python corpus_probe.py REQUEST`` does what a `Request` says as JSON, each app in a fork of this process. Hydra runs
the tasks as its basic launcher does, without what we do to a task.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import enum
import functools
import itertools
import json
import logging
import os
import shutil
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.core.utils import run_job
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

import hydra_exca.sweep.launcher  # what follows is a fork of a process that has it
from hydra_exca.errors import ConfigError

Job = list[str]
NO_IDENTITY = "error"
NAMES_CODE = ("_target_", "function")  # the apps have other code under the same name with a 2


@dataclasses.dataclass
class Request:
    """``folder`` has a copy of each app that may be changed. ``parts`` are names of functions in `PARTS`."""

    folder: str
    apps: list[str]
    parts: list[str]
    options: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Case:
    """One task: what was changed, its identity, and its value, None if it was not asked for; or the error of either."""

    changed: str
    identity: str
    value: str | None
    error: str = ""


def launcher_options(folder: Path) -> list[str]:
    """The overrides of our launcher that an app comes with."""
    given = folder / "launcher.txt"
    return given.read_text().splitlines() if given.exists() else []


def main(request: Request) -> None:
    for app in request.apps:
        if os.fork() == 0:
            try:
                cases = _AppProbe(request, app).cases()
                Path(request.folder, f"{app}.json").write_text(json.dumps([dataclasses.asdict(each) for each in cases]))
                os._exit(0)
            except BaseException:  # noqa: BLE001 - the fork must not return into main
                traceback.print_exc()
                os._exit(1)
        _, status = os.wait()
        if status:
            sys.exit(f"{app} failed")


class _AppProbe:
    """An app that starts a sweep as its script does, up to where its launcher would launch."""

    def __init__(self, request: Request, app: str) -> None:
        self._request = request
        folder = Path(request.folder, app)
        self._outputs = Path(request.folder, f"{app}.outputs")
        os.chdir(folder)
        sys.path[0] = str(folder)
        options = [f"hydra.launcher.folder={self._outputs}/exca", *launcher_options(folder), *request.options]
        sys.argv = ["app.py", "-m", "hydra/launcher=exca", *options, f"hydra.sweep.dir={self._outputs}/sweep"]
        sys.orig_argv = [sys.executable, *sys.argv]
        main = types.ModuleType("__main__")
        main.__file__ = str(folder / "app.py")
        sys.modules["__main__"] = main
        Hydra.multirun = lambda hydra, **given: self._take(hydra, **given)
        exec(compile(Path("app.py").read_bytes(), main.__file__, "exec", dont_inherit=True), vars(main))

    def _take(self, hydra: Hydra, config_name: str, task_function: Any, overrides: Job) -> None:
        self._given = config_name, task_function, overrides
        self._search_path = hydra.config_loader.get_search_path()
        self._start()

    def _start(self) -> None:
        """As Hydra starts a sweep: it reads and composes the configs again."""
        config_name, task_function, overrides = self._given
        GlobalHydra.instance().clear()
        hydra = Hydra.create_main_hydra2("app", copy.deepcopy(self._search_path))
        config = hydra.compose_config(config_name, overrides, RunMode.MULTIRUN, with_log_configuration=False)
        context = HydraContext(hydra.config_loader, Callbacks())
        self._launcher = Plugins.instance().instantiate_launcher(context, task_function, config)
        self._loader = context.config_loader

    def cases(self) -> list[Case]:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            found = [case for part in self._request.parts for case in PARTS[part](self)]
        shutil.rmtree(self._outputs, ignore_errors=True)
        return found

    # one part each

    def override_cases(self) -> Iterator[Case]:
        """Tasks with each leaf of the composed config changed by an override, and each group by its options."""
        jobs = [[], *([each] for each in self._overrides())]
        yield from self._cases([" ".join(job) for job in jobs], jobs)

    def identity_cases(self) -> Iterator[Case]:
        """Some of these tasks, which do not run."""
        jobs = [[], *([each] for each in itertools.islice(self._overrides(), 0, None, 6))]
        yield from self._cases([" ".join(job) for job in jobs], jobs, values=False)

    def yaml_cases(self) -> Iterator[Case]:
        """Tasks with each scalar of each yaml file changed in the file."""
        for path in sorted(Path("conf").rglob("*.yaml")):
            text, job = path.read_text(), self._job_that_uses(path)
            for start, end, replacement in _changed_scalars(path, text):
                path.write_text(text[:start] + replacement + text[end:])
                line = text[:end].rpartition("\n")[2]
                yield self._case_of_changed_file(f"{path} {line.strip()} -> {replacement}", job)
            path.write_text(text)
        self._start()

    def _case_of_changed_file(self, changed: str, job: Job) -> Case:
        try:
            self._start()
        except HydraException as error:
            return Case(changed, "", None, f"Hydra: {error}")
        return next(self._cases([changed], [job]))

    def carried_cases(self) -> Iterator[Case]:
        """The task with each value that its function carries changed."""
        function = self._launcher.task_function
        for place, changed in changed_parts(function):
            self._launcher.task_function = changed
            yield from self._cases([f"function{place}"], [[]])
        self._launcher.task_function = function

    # identity and value of a task

    def _cases(self, changes: list[str], jobs: list[Job], *, values: bool = True) -> Iterator[Case]:
        """One for each of the jobs, which are one batch, without those that fail without us, too."""
        ended = [self._value(job, runs=values) for job in jobs]
        identities = iter(self._identities([job for job, (_, error) in zip(jobs, ended, strict=True) if not error]))
        for change, (value, error) in zip(changes, ended, strict=True):
            yield Case(change, "" if error else next(identities), value, error)

    def _identities(self, jobs: list[Job]) -> list[str]:
        """As a launch gives them to a batch; of jobs that are refused, the error."""
        self._launcher.state.clear()
        try:
            batch = hydra_exca.sweep.launcher._Batch(self._launcher)._compose(jobs, 0)
            return [task.identity.key for task in batch]
        except (ConfigError, RuntimeError) as error:  # the second of the function
            if len(jobs) == 1:
                return [f"{NO_IDENTITY}: {error}"]
        half = len(jobs) // 2
        return self._identities(jobs[:half]) + self._identities(jobs[half:])

    def _value(self, job: Job, *, runs: bool) -> tuple[str | None, str]:
        """What the program returns and writes, None if it does not run; and the error.

        The launcher composes, which other tests compare with Hydra, and takes what is composed here. Hydra runs it.
        """
        try:
            config = self._loader.load_sweep_config(self._launcher.config, job)
            len(config)  # it is deferred until here
            return self._run(config) if runs else None, ""
        except Exception as error:  # noqa: BLE001 - whatever a changed config makes of a program
            return None, f"{type(error).__name__}: {error}"

    def _run(self, config: DictConfig) -> str:
        with read_write(config), open_dict(config):
            config.hydra.job.id = config.hydra.job.num = 0
            config.hydra.output_subdir = None  # its three files take longer than all the rest
        shutil.rmtree(self._outputs, ignore_errors=True)
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            returned = run_job(
                task_function=self._launcher.task_function,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=self._launcher.hydra_context,
                configure_logging=False,
            )
            value = returned.return_value
        return json.dumps([_exact(value), _output_files(Path(config.hydra.runtime.output_dir))])

    # what there is to change

    def _overrides(self) -> Iterator[str]:
        config = OmegaConf.to_container(self._launcher.config, resolve=False)
        hydra = config.pop("hydra")
        yield from ("+a_new_key=1", "+a_new.key=1", "+a_new.key='1'")
        for key, value in config.items():
            yield from _overrides_of(str(key), value)
            yield f"~{key}"
        yield f"hydra.job.name={hydra['job']['name']}"
        yield "hydra.job.name=another"
        yield f"hydra.job.chdir={json.dumps(not hydra['job']['chdir'])}"
        yield "hydra.sweep.subdir=another/${hydra.job.num}"
        yield "+hydra.job.env_set.CORPUS_NEW=1"
        yield from (f"{choice}={option}" for choice, option in self._choices())

    def _choices(self) -> Iterator[tuple[str, str]]:
        """The groups of the config as overrides name them, with their options."""
        for choice in self._launcher.config.hydra.runtime.choices:
            group, _, package = str(choice).partition("@")
            if not group.startswith("hydra"):
                for option in self._loader.get_group_options(group, ObjectType.CONFIG):
                    yield f"{group}@{package}" if package else group, option

    def _job_that_uses(self, path: Path) -> Job:
        """The task as it is, if this file is part of it, or the one that chooses the file."""
        group, option = path.parent.relative_to("conf").as_posix(), path.stem
        choices = self._launcher.config.hydra.runtime.choices
        chosen = {key: choices[key] for key in choices if str(key).partition("@")[0] == group}
        return [] if not chosen or option in chosen.values() else [f"{next(iter(chosen))}={option}"]


PARTS: dict[str, Callable[[_AppProbe], Iterator[Case]]] = {
    "overrides": _AppProbe.override_cases,
    "identities": _AppProbe.identity_cases,
    "yaml": _AppProbe.yaml_cases,
    "carried": _AppProbe.carried_cases,
}


def _output_files(folder: Path) -> dict[str, str]:
    """What the program itself has written to its output directory."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(files)}


def _exact(value: Any) -> Any:
    """A value as JSON that tells types apart; the order of keys does not count."""
    if isinstance(value, dict):
        return {"dict": sorted(([_exact(key), _exact(each)] for key, each in value.items()), key=json.dumps)}
    if isinstance(value, list | tuple):
        return [_exact(each) for each in value]
    return f"{type(value).__name__} {value!r}"


# -- other values ------------------------------------------------------------------------------------------------------


def _others(value: Any, key: str = "") -> list[Any]:
    """A value of the same type that is not this one, and one that equals it or looks like it."""
    if value is None:
        return [0, "None"]
    if isinstance(value, bool):
        return [not value, int(value)]
    if isinstance(value, int):
        return [value + 1, float(value)]
    if isinstance(value, float):
        return [2 * value + 1, str(value)]
    if isinstance(value, enum.Enum):
        return [each for each in type(value) if each is not value][:1]
    if key in NAMES_CODE:
        return [f"{value}2"]
    return [f"{value}x"] if str(value).isidentifier() else [f"x{value}", ""]


def _overrides_of(path: str, value: Any) -> Iterator[str]:
    """Overrides that change each leaf below a key, and one that says again what it is."""
    if isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
        for key, each in value.items():
            yield from _overrides_of(f"{path}.{key}", each)
        return
    yield f"{path}={_as_override(value)}"
    yield from (f"{path}={_as_override(other)}" for other in _variants(value, path.rpartition(".")[2]))


def _variants(value: Any, key: str) -> Iterator[Any]:
    """The value with one of its leaves changed."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from ({**value, name: other} for other in _variants(each, str(name)))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from ([*value[:index], other, *value[index + 1 :]] for other in _variants(each, key))
        yield [*value, 1]
    else:
        yield from _others(value, key)


def _as_override(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_as_override(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_as_override, value)) + "]"
    if isinstance(value, str):
        return "'" + value.replace("'", "\\'") + "'"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return value.name if isinstance(value, enum.Enum) else str(value)


def _changed_scalars(path: Path, text: str) -> Iterator[tuple[int, int, str]]:
    """The places of all scalars of a yaml file that are no keys, with something else to put there."""
    for keys, node in _value_nodes((), yaml.compose(text)):
        start, end = node.start_mark.index, node.end_mark.index
        value = yaml.safe_load(text[start:end])
        if keys[:1] == ("defaults",):
            others = _other_options(path, keys[-1], value)
        else:
            others = [json.dumps(_others(value, keys[-1])[0])]
        yield from ((start, start + len(text[start:end].rstrip()), other) for other in others[:1])


def _other_options(path: Path, key: str, value: str) -> list[str]:
    """Other options of the group that an entry of a defaults list names, or of the file's own group."""
    group = key.split()[-1].partition("@")[0]
    folder = Path("conf", group[1:]) if group.startswith("/") else path.parent / ("" if group == "defaults" else group)
    return [] if value == "_self_" else sorted({each.stem for each in folder.glob("*.yaml")} - {value, path.stem})


def _value_nodes(keys: tuple[str, ...], node: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _value_nodes((*keys, name.value), value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _value_nodes(keys, value)
    elif node is not None:
        yield keys, node


# -- what functions carry ----------------------------------------------------------------------------------------------


def changed_parts(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The value with one of the leaves changed that it is made of, with that leaf's path.

    Functions are changed in place, until the next one is asked for.
    """
    if isinstance(value, bool | int | float | str | None):
        yield place, _others(value)[0]
        return
    kinds: list[tuple[Any, Callable[[Any, str], Iterator[tuple[str, Any]]]]] = [
        (type | types.ModuleType | logging.Logger | enum.Enum, lambda value, place: iter(())),
        (list | tuple | set | frozenset, _changed_items),
        (dict, _changed_values),
        (functools.partial, _changed_arguments),
        (types.MethodType, _changed_owner),
        (types.FunctionType, _changed_in_place),
        (object, _changed_attributes),
    ]
    yield from next(changed(value, place) for kind, changed in kinds if isinstance(value, kind))


def _changed_items(items: Any, place: str) -> Iterator[tuple[str, Any]]:
    for index, each in enumerate(items):
        for path, other in changed_parts(each, f"{place}.{index}"):
            yield path, type(items)(other if number == index else item for number, item in enumerate(items))


def _changed_values(values: dict[Any, Any], place: str) -> Iterator[tuple[str, Any]]:
    for key, each in values.items():
        yield from ((path, {**values, key: other}) for path, other in changed_parts(each, f"{place}.{key}"))


def _changed_arguments(called: functools.partial[Any], place: str) -> Iterator[tuple[str, Any]]:
    for path, (args, keywords) in changed_parts((called.args, called.keywords), place):
        yield path, functools.partial(called.func, *args, **keywords)


def _changed_owner(method: types.MethodType, place: str) -> Iterator[tuple[str, Any]]:
    for path, owner in changed_parts(method.__self__, f"{place}.self"):
        yield path, types.MethodType(method.__func__, owner)


def _changed_in_place(function: types.FunctionType, place: str) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        held = cell.cell_contents
        for path, cell.cell_contents in changed_parts(held, f"{place}.{name}"):
            yield path, function
        cell.cell_contents = held
    if "<locals>" in function.__qualname__ and not hasattr(function, "__wrapped__"):
        defaults = function.__defaults__
        for path, function.__defaults__ in changed_parts(defaults, f"{place}.defaults"):
            yield path, function
        function.__defaults__ = defaults


def _changed_attributes(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if type(value).__module__.startswith("hydra_zen"):  # zen: the rest are switches, and made of the function
        for path, before in changed_parts(value.pre_call, f"{place}.pre_call"):
            yield path, _with_attributes(value, pre_call=before, _pre_call_iterable=(before,))
        return
    for name, held in getattr(value, "__dict__", {}).items():
        for path, other in changed_parts(held, f"{place}.{name}"):
            yield path, _with_attributes(value, **{name: other})


def _with_attributes(value: Any, **attributes: Any) -> Any:
    copied = copy.copy(value)
    for name, other in attributes.items():
        object.__setattr__(copied, name, other)
    return copied


if __name__ == "__main__":
    main(Request(**json.loads(Path(sys.argv[1]).read_text())))
