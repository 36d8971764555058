"""The tracer: lets resolvers see one world or another, and records which of them are called."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
import os
import re
import typing as tp

from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import InterpolationKeyError, UnsupportedInterpolationType

from hydra_exca.clusters.slurm import variables
from hydra_exca.globs import matches_glob
from hydra_exca.sweep.configs.omegaconf_private import cached_parsing, wrapped_resolvers
from hydra_exca.sweep.configs.overlay import ConfigOverlay, JobVariant
from hydra_exca.sweep.configs.pickled_copy import PickledCopy
from hydra_exca.sweep.configs.resolvers import (
    LISTED_ENVIRON,
    OWN,
    READ_SIZE,
    RUN_VARIABLE,
    TRANSPARENT,
    without_cache,
)
from hydra_exca.sweep.configs.thread_state import ignored_warnings, own_environ, own_hydra_config
from hydra_exca.sweep.configs.tree import MISSING, Path, copy_tree, map_leaves, raw

from .world import World

RUN_KEYS = ("runtime.output_dir", "runtime.cwd", "run", "sweep", "job.id")
# Also what no list of ours has: variables of a site, or of another Slurm.
RUN_ENV = ("SLURM_*", *variables.IDS_AND_PLACES)
# A custom resolver may read these from os.environ by itself, also where none of them is set yet.
_SLURM_NAMES = variables.IDS_AND_PLACES | variables.SIZES


@dataclasses.dataclass(frozen=True)
class ResolverCall:
    """A resolver that was called; ``key`` is the variable of oc.env, the path below hydra, else the arguments."""

    name: str
    key: str

    def is_below(self, *hydra_keys: str) -> bool:
        return self.name == "hydra" and any(f"{self.key}.".startswith(f"{key}.") for key in hydra_keys)

    @property
    def belongs_to_run(self) -> bool:
        return self.name in ("now", RUN_VARIABLE, READ_SIZE) or self.is_below(*RUN_KEYS)

    @property
    def is_custom(self) -> bool:
        return self.name not in OWN

    @property
    def is_external(self) -> bool:
        """Whether its value comes from outside of the config, and not from the run."""
        return self.is_custom or self.name == "oc.env"


Calls: tp.TypeAlias = frozenset[ResolverCall]


@dataclasses.dataclass(frozen=True)
class ResolveFailure:
    """What stands for a value that did not resolve; ``missing`` is the ``???`` it refers to, if that is why.

    ``is_absent``: it refers to a key or a resolver that does not exist, and nothing outside of the config is why.
    """

    error: str
    missing: str = ""
    is_absent: bool = False


class Tracer:
    """Inside the `with` block, this thread's resolvers see the world that was set, and each call of one is recorded."""

    def __init__(
        self,
        config: DictConfig,
        node_env: tp.Sequence[str],
        environment: tp.Mapping[str, str] | None = None,
        sizes: tp.Mapping[str, str] | None = None,
    ) -> None:
        """``environment`` is what the job has beside the variables of this process.

        ``sizes`` are those that a job on Slurm will find, instead of the sizes of a job around this process.
        """
        self._pickled = PickledCopy(config)
        self._node_env = node_env
        self._run_env = (*RUN_ENV, *node_env)
        here = dict(os.environ)
        if sizes is not None:
            here = {**{name: value for name, value in here.items() if not variables.is_size(name)}, **sizes}
        self._environ = {**here, **(environment or {})}
        self._calls: set[ResolverCall] = set()
        self._has_world = False
        self.real = self._world = World(dt.datetime.now())
        self.task_nodes: set[int] = set()
        cwd = raw(config.hydra.runtime).get("cwd")
        self.folder = os.getcwd() if cwd in (None, MISSING) else str(cwd)

    def __enter__(self) -> Tracer:
        with contextlib.ExitStack() as undo:
            self._own_environ = undo.enter_context(own_environ())
            undo.enter_context(ignored_warnings())  # oc.deprecated would warn on every pass; the job itself warns once
            undo.enter_context(wrapped_resolvers(self._traced))
            undo.enter_context(cached_parsing())
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    @functools.cached_property
    def full(self) -> ConfigOverlay:
        """A copy of the whole config: what ``${hydra:}`` reads."""
        return ConfigOverlay(self._pickled.copy())

    @functools.cached_property
    def task(self) -> ConfigOverlay:
        """A copy as the job gets it: without the hydra node."""
        config = self._pickled.copy()
        with read_write(config), open_dict(config):
            del config["hydra"]
        return ConfigOverlay(config)

    @functools.cached_property
    def _run_paths(self) -> list[Path]:
        """Where in ``full`` the run-dependent values are."""
        folders = [(name, key) for name in ("run", "sweep") for key in self.full.config.hydra[name]]
        return [("hydra", *path) for path in (("runtime", "cwd"), ("job", "id"), ("runtime", "output_dir"), *folders)]

    def set_world(self, world: World) -> None:
        """What resolvers see, from the next `show_job` on."""
        if not self._has_world:
            self._undo.enter_context(own_hydra_config(self.full.config))
            self._has_world = True
        self._world = world
        names = {*_SLURM_NAMES, *self._run_env, *filter(self._is_run_variable, self._environ)}
        others = {name: value for name, value in self._environ.items() if name not in names}
        assumed = {name: world.environ for name in names if world.environ and not re.search(r"[*?[]", name)}
        assumed |= {name: world.size for name in assumed if world.size and self.is_size(name)}
        _set_environ(others | assumed if world.root else self._environ)

    def show_job(self, variant: JobVariant) -> None:
        """The configs as those of one job, until the next is shown."""
        self.task.show_job(variant, with_hydra=False)
        if not self._has_world:
            return
        self.full.show_job(variant)
        if not self._world.root:
            self._set_output_dir()
            return
        for path in self._run_paths:
            self.full.set_leaf(path, self._assumed(path[-1]))

    def read_value(self, holder: tp.Any, key: tp.Any) -> tuple[tp.Any, Calls]:
        """The value at a key (a config, a plain value, or a `ResolveFailure`) and the calls it took."""
        self._calls = set()
        self._own_environ.forget_reads()
        value: tp.Any
        try:
            value = MISSING if OmegaConf.is_missing(holder, key) else holder[key]
            value = value if OmegaConf.is_config(value) else copy_tree(value)
        except Exception as error:  # noqa: BLE001 - resolvers are the user's code
            text = str(error).split("\n    full_key:")[0]
            hit = re.search(r"Missing mandatory value: (\S+)", text)
            is_absent = isinstance(error, (InterpolationKeyError, UnsupportedInterpolationType))
            is_absent = is_absent and not any(call.is_external for call in self._calls)
            value = ResolveFailure(text, hit[1] if hit else "", is_absent)
        if any(call.is_custom for call in self._calls):
            self._record_reads()
        return value, frozenset(self._calls)

    def is_size(self, name: str) -> bool:
        """Whether a variable is a size of the job that counts."""
        return variables.is_size(name) and not matches_glob(name, self._node_env)

    def _record_reads(self) -> None:
        self._calls |= {ResolverCall(READ_SIZE, name) for name in self._own_environ.names_read() if self.is_size(name)}
        self._calls |= {ResolverCall(LISTED_ENVIRON, "")} if self._own_environ.is_listed else set()

    def mask_run_paths(self, value: tp.Any, variant: JobVariant) -> tp.Any:
        """A value of a job in the real world without the paths of this run in its strings."""
        self.set_world(self.real)
        self.show_job(variant)
        texts = {
            str(OmegaConf.select(self.full.config, ".".join(path), throw_on_resolution_failure=False))
            for path in self._run_paths
        }
        paths = sorted((text for text in texts if os.sep in text), key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, paths)) or r"(?!)")
        return map_leaves(value, lambda leaf: pattern.sub("<run>", leaf) if isinstance(leaf, str) else leaf)

    def _assumed(self, key: str) -> str:
        return {"id": self._world.job_id, "cwd": self._world.cwd}.get(key) or f"{self._world.root}/{key}"

    def _set_output_dir(self) -> None:
        """Sets what Hydra itself only sets when the job starts, as far as it is known now."""
        hydra = self.full.config.hydra
        if OmegaConf.is_missing(hydra.runtime, "output_dir"):
            parts = [self.read_value(hydra.sweep, key)[0] for key in ("dir", "subdir")]
            if all(isinstance(part, str) and part != MISSING for part in parts):
                self.full.set_leaf(("hydra", "runtime", "output_dir"), os.path.abspath(os.path.join(*parts)))

    def _is_run_variable(self, name: str) -> bool:
        return matches_glob(name, self._run_env)

    def _traced(self, name: str, resolver: tp.Callable[..., tp.Any]) -> tp.Callable[..., tp.Any]:
        def call(root: tp.Any, parent: tp.Any, node: tp.Any, args: tp.Any, args_str: tp.Any) -> tp.Any:
            recorded_name = self._record_call(name, args)
            if recorded_name == RUN_VARIABLE and self._world.variable is not None:
                return self._world.size_variable if self.is_size(str(args[0])) else self._world.variable
            if name == "now" and len(args) == 1:
                return self._strftime(root, args, args_str)
            with without_cache(root, name):
                return resolver(root, parent, node, args, args_str)

        return call

    def _record_call(self, name: str, args: tp.Sequence[tp.Any]) -> str:
        key = str(args[0]) if args else ""
        if name == "oc.env" and self._is_run_variable(key):
            name = RUN_VARIABLE
        elif name == "hydra":
            key = ".".join(filter(None, re.split(r"[.\[\]]+", key)))
        elif name not in OWN:
            key = ", ".join(map(str, args))
        if name not in TRANSPARENT:
            self._calls.add(ResolverCall(name, key))
        return name

    def _strftime(self, root: tp.Any, args: tp.Any, args_str: tp.Any) -> tp.Any:
        # Hydra passes the times that were used while composing on to the jobs, in the resolver cache of their configs.
        used_times = {} if self._world.root else OmegaConf.get_cache(root).get("now", {})
        return used_times.get(args_str) or self._world.now.strftime(args[0])


def _set_environ(wanted: tp.Mapping[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in wanted.items() if os.environ.get(name) != value})
