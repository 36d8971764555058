"""Worlds, assumed values of all that belongs to a run, and the stage on which resolvers see one or another of them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
import os
import re
import typing as tp
import warnings
from pathlib import Path

import omegaconf.base
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.basecontainer import BaseContainer

from hydra_exca.canonical import encode
from hydra_exca.leaves import Json

from .frozen import Frozen
from .trees import MISSING, copied, leaves_of, mapped, named, raw, unresolved
from .variants import Variant, Variants

RUN_KEYS = ("runtime.output_dir", "runtime.cwd", "run", "sweep", "job.id")
RUN_ENV = ("SLURM_*",)
# A custom resolver may read these from os.environ by itself, also where none of them is set yet.
SLURM_NAMES = {
    *("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_JOB_NAME", "SLURM_JOB_NODELIST", "SLURM_JOB_PARTITION", "SLURM_PROCID"),
    *("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_NNODES"),
    *("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_GPUS", "SLURM_GPUS_ON_NODE", "SLURM_JOB_GPUS"),
    *("SLURM_MEM_PER_NODE", "SLURM_NODELIST", "SLURM_JOB_NUM_NODES", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE"),
    *("SLURM_TMPDIR", "SLURM_SUBMIT_DIR", "SLURM_SUBMIT_HOST", "SLURM_STEP_ID", "SLURM_CLUSTER_NAME"),
    *("SLURM_JOB_ACCOUNT", "SLURM_JOB_QOS", "SLURM_JOB_USER", "SLURMD_NODENAME", "SLURM_RESTART_COUNT"),
    *("SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX"),
}
# These only pass on what they are given or find in the config, where it is seen anyway.
TRANSPARENT = {"oc.create", "oc.decode", "oc.deprecated", "oc.select", "oc.dict.keys", "oc.dict.values"}
RUN_VARIABLE = "oc.env of the run"
OWN = TRANSPARENT | {"oc.env", RUN_VARIABLE, "now", "hydra", "python_version"}


@dataclasses.dataclass(frozen=True)
class World:
    """Assumed values of all that belongs to a run. The real world has no ``root``: there, things are as they are.

    ``variable`` is what oc.env gives of each variable of the run; None where they are not set.
    """

    now: dt.datetime
    root: str = ""
    cwd: str = ""
    job_id: str = ""
    variable: str | None = None
    environ: str = ""


# The times share no field of strftime. Below /dev/null no resolver finds or creates anything. The digits are those
# that index short lists and that scripts have special cases for: oc.env gives these, while a resolver that reads
# os.environ by itself finds the run's variables unset in one world and set in the other.
_FIRST, _SECOND = "/dev/null/first", "/dev/null/another/second.world"
FIRST = World(dt.datetime(2001, 2, 3, 4, 5, 6, 70809), _FIRST, f"{_FIRST}/cwd", "0", "0")
SECOND = World(dt.datetime(1987, 11, 24, 19, 48, 57, 654321), _SECOND, f"{_SECOND}/cwd", "1", "1", "2")


def here(folder: str) -> World:
    """Constant like `FIRST`, but in the real working directory, whose files a resolver may find.

    The run's variables are not set: what stands in for them shows.
    """
    return dataclasses.replace(FIRST, cwd=folder, variable=None)


def without_folder(form: Json, folder: str) -> Json:
    """A canonical form in which the paths below a folder do not say where it is."""
    return _masked(form, {str(each): "<run>" for each in _spellings(folder)})


def says_more(first: Json, here: Json, folder: str) -> bool:
    """Whether a value in `here`, whose working directory is ``folder``, is not just what it was in `FIRST`.

    It is that where both are alike made of the names of the working directory and of the folders that it is in.
    """
    return encode(_related(first, FIRST.cwd)) != encode(_related(here, folder))


def _related(form: Json, folder: str) -> Json:
    names: dict[str, str] = {}
    for place in _spellings(folder):
        names |= {str(each): f"<run{'/..' * level}>" for level, each in enumerate([place, *place.parents][:-1])}
    return _masked(form, names, {place.name: "<name>" for place in _spellings(folder)})


def _spellings(folder: str) -> set[Path]:
    return {Path(os.path.abspath(folder)), Path(os.path.realpath(folder))} - {Path("/")}


def _masked(form: Json, parts: tp.Mapping[str, str], wholes: tp.Mapping[str, str] | None = None) -> Json:
    """A form in which texts have other ``parts``, and are others where they are ``wholes``; keys, too."""
    pattern = re.compile("|".join(map(re.escape, sorted(parts, key=len, reverse=True))) or r"(?!)")

    def masked(node: Json) -> Json:
        if isinstance(node, dict):
            return {masked(key): masked(child) for key, child in node.items()}
        if isinstance(node, list):
            return list(map(masked, node))
        if not isinstance(node, str):
            return node
        return (wholes or {}).get(node) or pattern.sub(lambda hit: parts[hit[0]], node)

    return masked(form)


def is_steady(resolver: str, arguments: str) -> bool:
    """Whether a resolver gives all jobs of a launch the same, in whichever world."""
    return resolver in ("now", "oc.env") or (resolver == "hydra" and arguments == "runtime.cwd")


def is_assumed(resolver: str, arguments: str) -> bool:
    """Whether it gives them the same where all that belongs to a run is assumed."""
    return is_steady(resolver, arguments) or (resolver == "hydra" and arguments in ("runtime.output_dir", "job.id"))


@dataclasses.dataclass(frozen=True)
class Call:
    """A resolver that was called; ``key`` is the variable of oc.env, the path below hydra, else the arguments."""

    name: str
    key: str

    def within(self, *keys: str) -> bool:
        return self.name == "hydra" and any(f"{self.key}.".startswith(f"{key}.") for key in keys)

    @property
    def run(self) -> bool:
        return self.name in ("now", RUN_VARIABLE) or self.within(*RUN_KEYS)

    @property
    def custom(self) -> bool:
        return self.name not in OWN

    @property
    def foreign(self) -> bool:
        return self.custom or self.name == "oc.env"


Calls: tp.TypeAlias = frozenset[Call]


@dataclasses.dataclass(frozen=True)
class Failure:
    """What stands for a value that did not resolve; ``missing`` is the ``???`` it refers to, if that is why."""

    error: str
    missing: str = ""


class Stage:
    """While it is open, resolvers see the world that is played, and each call of one is noted.

    The one place that touches private parts of OmegaConf and Hydra: neither has a public way to list resolvers or to
    observe their calls, or to put back that there was no HydraConfig. Closing puts everything back.
    """

    def __init__(
        self, config: DictConfig, node_env: tp.Sequence[str], environment: tp.Mapping[str, str] | None = None
    ) -> None:
        """``environment`` is what the job has beside the variables of this process."""
        self._frozen = Frozen(config)
        self._run_env = (*RUN_ENV, *node_env)
        self._environ = {**os.environ, **(environment or {})}
        self._calls: set[Call] = set()
        self._is_played = False
        self.real = self._world = World(dt.datetime.now())
        self.own: set[int] = set()

    def __enter__(self) -> Stage:
        old = BaseContainer._resolvers  # noqa: SLF001
        with contextlib.ExitStack() as undo:
            undo.callback(setattr, BaseContainer, "_resolvers", old)
            undo.callback(_set_environ, dict(os.environ))
            instances = Singleton._instances  # noqa: SLF001
            if HydraConfig not in instances:
                undo.callback(instances.pop, HydraConfig, None)
            undo.callback(setattr, HydraConfig.instance(), "cfg", HydraConfig.instance().cfg)
            undo.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # oc.deprecated warns each time; the job says it once
            traced = {name: self._traced(name, resolver) for name, resolver in old.items()}
            BaseContainer._resolvers = traced  # noqa: SLF001
            undo.enter_context(parsed_once())
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    @property
    def full(self) -> DictConfig:
        """A copy of the whole config: what ``${hydra:}`` reads."""
        return self._full.config

    @property
    def task(self) -> DictConfig:
        """A copy as the job gets it: without the hydra node."""
        return self._task.config

    @functools.cached_property
    def _full(self) -> Variants:
        return Variants(self._frozen.copy())

    @functools.cached_property
    def _task(self) -> Variants:
        task = self._frozen.copy()
        with read_write(task), open_dict(task):
            del task["hydra"]
        return Variants(task)

    @functools.cached_property
    def _places(self) -> list[tuple[tp.Any, tp.Any, tp.Any]]:
        """Where the run-dependent values of ``full`` are: config, key, and what stands there."""
        hydra = self.full.hydra
        found = [(hydra.runtime, "cwd"), (hydra.job, "id"), (hydra.runtime, "output_dir")]
        found += [(holder, key) for holder in (hydra.run, hydra.sweep) for key in holder]
        return [(holder, key, unresolved(holder)[key]) for holder, key in found]

    @functools.cached_property
    def folder(self) -> str:
        """The working directory of the run; to be asked for first in the real world."""
        cwd = unresolved(self.full.hydra.runtime).get("cwd")
        return os.getcwd() if cwd in (None, MISSING) else str(cwd)

    def play(self, world: World) -> None:
        self._world = world
        names = {*SLURM_NAMES, *self._run_env, *filter(self._is_run, self._environ)}
        others = {name: value for name, value in self._environ.items() if name not in names}
        assumed = {name: world.environ for name in names if world.environ and not re.search(r"[*?[]", name)}
        _set_environ(others | assumed if world.root else self._environ)
        tp.cast(tp.Any, HydraConfig.instance()).cfg = self.full
        for holder, key, text in self._places:
            _set(holder, key, self._assumed(key) if world.root else text)
        if not world.root:
            self._fill_in(self.full.hydra)
        self._is_played = True

    def show(self, variant: Variant) -> None:
        """The configs as those of one job, until the next is shown or another world is played."""
        self._task.show(variant, with_hydra=False)
        if not self._is_played:
            return
        self._full.show(variant)
        if self._world.root:
            self._full.put(("hydra", "job", "id"), self._world.job_id)
        else:
            for holder, key, text in self._places:
                if text == MISSING and key == "output_dir":
                    _set(holder, key, text)
            self._fill_in(self.full.hydra)

    def read(self, holder: tp.Any, key: tp.Any) -> tuple[tp.Any, Calls]:
        """The value at a key (a config, something plain, or a Failure) and the calls it took."""
        self._calls = set()
        value: tp.Any
        try:
            value = MISSING if OmegaConf.is_missing(holder, key) else holder[key]
            value = value if OmegaConf.is_config(value) else copied(value)
        except Exception as error:  # noqa: BLE001 - resolvers are the user's code
            text = str(error).split("\n    full_key:")[0]
            hit = re.search(r"Missing mandatory value: (\S+)", text)
            value = Failure(text, hit[1] if hit else "")
        return value, frozenset(self._calls)

    def masked(self, value: tp.Any, variant: Variant) -> tp.Any:
        """A value of a job in the real world without the paths of this run in its strings."""
        self.play(self.real)
        self.show(variant)
        texts = {str(self.read(holder, key)[0]) for holder, key, _ in self._places}
        paths = sorted((text for text in texts if os.sep in text), key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, paths)) or r"(?!)")
        return mapped(value, lambda leaf: pattern.sub("<run>", leaf) if isinstance(leaf, str) else leaf)

    def _assumed(self, key: tp.Any) -> str:
        return {"id": self._world.job_id, "cwd": self._world.cwd}.get(key) or f"{self._world.root}/{key}"

    def _fill_in(self, hydra: tp.Any) -> None:
        """Sets what Hydra itself only sets when the job starts, as far as it can be told now."""
        missing = [(holder, key) for holder, key, _ in self._places if OmegaConf.is_missing(holder, key)]
        for holder, key in missing:
            if key == "output_dir":
                parts = [self.read(hydra.sweep, part)[0] for part in ("dir", "subdir")]
                if all(isinstance(part, str) and part != MISSING for part in parts):
                    _set(holder, key, os.path.abspath(os.path.join(*parts)))
            elif key in ("id", "cwd"):
                _set(holder, key, "0" if key == "id" else os.getcwd())

    def _is_run(self, name: str) -> bool:
        return named(name, self._run_env)

    def _traced(self, name: str, resolver: tp.Callable[..., tp.Any]) -> tp.Callable[..., tp.Any]:
        def call(root: tp.Any, parent: tp.Any, node: tp.Any, args: tp.Any, args_str: tp.Any) -> tp.Any:
            known_as = self._note(name, args)
            if known_as == RUN_VARIABLE and self._world.variable is not None:
                return self._world.variable
            if name == "now" and len(args) == 1:
                return self._time(root, args, args_str)
            with _uncached(root, name):
                return resolver(root, parent, node, args, args_str)

        return call

    def _note(self, name: str, args: tp.Sequence[tp.Any]) -> str:
        key = str(args[0]) if args else ""
        if name == "oc.env" and self._is_run(key):
            name = RUN_VARIABLE
        elif name == "hydra":
            key = ".".join(filter(None, re.split(r"[.\[\]]+", key)))
        elif name not in OWN:
            key = ", ".join(map(str, args))
        if name not in TRANSPARENT:
            self._calls.add(Call(name, key))
        return name

    def _time(self, root: tp.Any, args: tp.Any, args_str: tp.Any) -> tp.Any:
        # Hydra hands the times that composing the sweep has used on to its jobs, in the cache of their configs.
        known = {} if self._world.root else OmegaConf.get_cache(root).get("now", {})
        return known.get(args_str) or self._world.now.strftime(args[0])


def may_call_users(config: DictConfig) -> bool:
    """Whether anything in a config can call a resolver of the user, which may keep or change whatever it is given."""
    names = [re.escape(name) for name in BaseContainer._resolvers if name not in OWN]  # noqa: SLF001
    if not names:
        return False
    # a name may also be put together, or come from outside of the config
    call = re.compile(rf"\$\{{\s*(?:{'|'.join(names)})\s*:|\}}\s*:|oc\.decode")
    return any(isinstance(text, str) and call.search(text) for _, text in leaves_of(raw(config)))


@contextlib.contextmanager
def noting_calls() -> tp.Iterator[set[str]]:
    """The names of resolvers that are called meanwhile."""
    called: set[str] = set()
    old = BaseContainer._resolvers  # noqa: SLF001

    def noted(name: str, resolver: tp.Callable[..., tp.Any]) -> tp.Callable[..., tp.Any]:
        def call(*args: tp.Any) -> tp.Any:
            called.add(name)
            return resolver(*args)

        return call

    BaseContainer._resolvers = {name: noted(name, resolver) for name, resolver in old.items()}  # noqa: SLF001
    try:
        yield called
    finally:
        BaseContainer._resolvers = old  # noqa: SLF001


@contextlib.contextmanager
def parsed_once() -> tp.Iterator[None]:
    """Meanwhile OmegaConf parses each text once. A parse tree is only read, and parsing takes most of resolving."""
    old = getattr(omegaconf.base, "parse", None)
    if old is None:
        yield
        return
    setattr(omegaconf.base, "parse", functools.lru_cache(maxsize=4096)(old))  # noqa: B010 - it is not exported
    try:
        yield
    finally:
        setattr(omegaconf.base, "parse", old)  # noqa: B010


@contextlib.contextmanager
def _uncached(root: tp.Any, name: str) -> tp.Iterator[None]:
    """Neither reads nor leaves anything in a resolver's cache: what is cached calls nothing that could be noted."""
    cache = OmegaConf.get_cache(root)
    kept = cache.pop(name, None)
    try:
        yield
    finally:
        cache.pop(name, None)
        if kept is not None:
            cache[name] = kept


def _set_environ(wanted: tp.Mapping[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in wanted.items() if os.environ.get(name) != value})


def _set(holder: DictConfig, key: tp.Any, value: tp.Any) -> None:
    with read_write(holder), open_dict(holder):
        holder[key] = value
