"""Compares what a sweep composes with what Hydra's own loader composes, in a small Hydra app of a test's own."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from configs import compare_descriptions, describe_error, described, differences, nodes, outcome, shared
from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from hypothesis_profiles import is_small
from omegaconf import DictConfig, ListConfig, OmegaConf

from hydra_exca.sweep.compose import loader

Job = list[str]
# Hydra 1.4 imports each plugin once: what they register must be there before a test's fixtures keep its singletons
Plugins.instance()


@dataclasses.dataclass
class Composed:
    """What composing one job gave: a config, or an error; and what it warned of."""

    config: DictConfig | None
    error: str
    warned: set[str]

    @functools.cached_property
    def described(self) -> dict[str, str]:
        return {} if self.config is None else described(self.config)


class Sweep:
    """A Hydra app about to sweep: its configs in a folder, its command line, and our loader."""

    def __init__(
        self, conf: Path | str | None, *command_line: str, name: str | None = "config", base: str | None = "1.3"
    ) -> None:
        GlobalHydra.instance().clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version.setbase(base)
            path = conf if conf is None or "://" in str(conf) else str(conf)
            hydra = Hydra.create_main_hydra2("app", create_config_search_path(path))
            self.master = hydra.compose_config(name, list(command_line), RunMode.MULTIRUN)
        told = [outcome(lambda: self.master.hydra.sweep.dir), outcome(lambda: self.master.hydra.run.dir)]
        assert told  # sweepers ask for these: the times in them are in the cache, the same for all jobs
        self.theirs: ConfigLoader = type(hydra.config_loader)(copy.deepcopy(hydra.config_loader.get_search_path()))
        self.context = HydraContext(hydra.config_loader, Callbacks())
        self.loader = loader.sweep_loader(self.context)

    # composing, by Hydra and by the two doors of ours

    def by_hydra(self, job: Job) -> Composed:
        return _composed(lambda: self.theirs.load_sweep_config(self.master, list(job)))

    def by_sweeper(self, job: Job) -> Composed:
        return _composed(lambda: self.context.config_loader.load_sweep_config(self.master, list(job)))

    def by_launcher(self, job: Job) -> Composed:
        return _composed(lambda: self.loader.take_composition(self.master, list(job)).config())

    def forget(self) -> None:
        """As between two batches."""
        self.loader.forget_compositions()

    def jobs(self) -> list[Job]:
        """Jobs of all kinds that the configs of the app give rise to, some of which are wrong."""
        return [["+a_new.key=1"], [], *([each] for each in _overrides(self))]


def check(sweep: Sweep, *jobs: Sequence[str], orders: bool = True) -> None:
    """Each job is what Hydra makes of it: in the order of a sweep and, with ``orders``, in others, after changes."""
    asked = [list(job) for job in (jobs[:3] if is_small() else jobs)]
    theirs = [sweep.by_hydra(job) for job in asked]
    warned: set[str] = set()
    given: list[DictConfig] = []
    for name, order in _orders(sweep, len(asked), others=orders and not is_small()):
        for number, door in order:
            ours = door(asked[number])
            warned |= ours.warned
            _compare(f"{name}: {asked[number]}", ours, theirs[number], resolve=name == "sweeper")
            _is_its_own(sweep, f"{name}: {asked[number]}", ours, given)
    missing = set().union(*(each.warned for each in theirs)) - warned
    assert not missing, f"only Hydra warns: {missing}"


Door = Callable[[Job], Composed]


def at_most(jobs: list[Job], count: int) -> list[Job]:
    """Of all parts of a list, at most so many."""
    count = max(1, count // 5) if is_small() else count
    return jobs[:: max(1, -(-len(jobs) // count))]


def check_app(conf: Path | str | None, name: str | None, count: int, base: str | None = "1.1") -> None:
    try:
        sweep = Sweep(conf, name=name, base=base)
    except (HydraException, ValueError):
        return  # some are there to be wrong
    check(sweep, *at_most(sweep.jobs(), count), orders=False)


def _orders(sweep: Sweep, count: int, *, others: bool) -> Iterator[tuple[str, list[tuple[int, Door]]]]:
    numbers = range(count)
    yield "sweeper", [(number, sweep.by_sweeper) for number in numbers]
    yield "launcher", [(number, sweep.by_launcher) for number in numbers]
    if not others:
        return
    sweep.forget()
    doors = itertools.cycle([sweep.by_launcher, sweep.by_sweeper, sweep.by_sweeper, sweep.by_launcher])
    yield "backwards", [(number, next(doors)) for number in reversed(numbers)]
    yield "again", [(number, next(doors)) for number in numbers[::3] for _ in range(2)]


def _compare(what: str, ours: Composed, theirs: Composed, *, resolve: bool) -> None:
    assert ours.error == theirs.error, f"{what}\nours: {ours.error or 'no error'}\nHydra: {theirs.error or 'no error'}"
    assert not ours.warned - theirs.warned, f"{what}: only ours warns: {ours.warned - theirs.warned}"
    if ours.config is not None and theirs.config is not None:
        found = compare_descriptions(ours.described, theirs.described)
        found = found or (differences(ours.config, theirs.config) if resolve else [])
        assert not found, "\n".join([what, *found[:12]])


def _is_its_own(sweep: Sweep, what: str, ours: Composed, given: list[DictConfig]) -> None:
    """Nothing of it is part of another, and whatever is done to it changes no other."""
    if ours.config is None:
        return
    common = [line for each in [sweep.master, *given[-3:]] for line in shared(each, ours.config)]
    assert not common, "\n".join([what, *common[:12]])
    spoil(ours.config)
    given.append(ours.config)


def spoil(config: DictConfig) -> None:
    """Changes all of a config that can be changed: values, flags, keys, what objects hold, and caches."""
    every = [node for _, node in nodes(config)]
    for node in every:
        node._set_flag(["readonly", "struct"], False)
    for node in every:
        node._metadata.resolver_cache["spoiled"]["spoiled"] = "spoiled"
        content = node.__dict__.get("_content", node.__dict__.get("_val"))
        if isinstance(node, DictConfig) and isinstance(content, dict):
            content["spoiled"] = content.pop(next(iter(content))) if content else DictConfig({})
        elif isinstance(node, ListConfig) and isinstance(content, list):
            content.append(DictConfig({}))
        elif isinstance(content, list | dict | set):
            content.clear()
        elif "_val" in node.__dict__:
            node.__dict__["_val"] = "spoiled"
        node._set_flag("readonly", True)


def _composed(compose: Callable[[], DictConfig]) -> Composed:
    config, error = None, ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            config = compose()
            len(config)  # one that is deferred has its class from here on
        except Exception as raised:  # noqa: BLE001 - whatever Hydra raises is to be the same
            error = describe_error(raised)
    return Composed(config, error, {f"{each.category.__name__}: {each.message}" for each in caught})


# -- jobs made of a config ---------------------------------------------------------------------------------------------


def _overrides(sweep: Sweep) -> Iterator[str]:
    yield from _choices(sweep)
    for path, value in leaves(sweep.master):
        if not path.startswith("hydra."):
            yield from (f"{path}={each}" for each in like(value))
            yield f"~{path}"
            yield f"++{path}=7"


def _choices(sweep: Sweep) -> Iterator[str]:
    for group in sweep.master.hydra.runtime.choices:
        name, _, package = str(group).partition("@")
        if not name.startswith("hydra"):
            for option in sweep.theirs.get_group_options(name, ObjectType.CONFIG):
                yield f"{name}{'@' if package else ''}{package}={option}"
            yield f"~{group}"
            yield f"{group}=nothing_of_this_name"


def leaves(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """The dotted keys of all values of a config, with the values as they stand there."""
    for key, value in cast(dict[str, Any], OmegaConf.to_container(config, resolve=False)).items():
        yield from _leaves(str(key), value)


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    yield path, value
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(f"{path}.{key}", each)


def like(value: Any) -> list[str]:
    """What to override a value with: something of its kind, and something that often is not."""
    kinds: list[tuple[type, list[str]]] = [
        (bool, ["true", "no_bool"]),
        (int, ["12", "1.5"]),
        (float, ["1e-3", "word"]),
        (list, ["[1,2]", "word"]),
        (dict, ["{new:1}", "null"]),
        (str, ["word", "3"]),
    ]
    return next((values for kind, values in kinds if isinstance(value, kind)), ["word", "null"])


def write(folder: Path, files: dict[str, str]) -> Path:
    """Writes config files, each by its name without `.yaml`."""
    for name, text in files.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder
