"""All uses of private parts of Hydra. Only in versions that are known does anything rely on them.

In what Hydra 1.3 and 1.4 differ is in `_Hydra13` and `_Hydra14`.
"""

from __future__ import annotations

import copy
import functools
import re
import sys
import types
import typing as tp
from pathlib import Path

import hydra
import omegaconf
from hydra import version
from hydra._internal import config_loader_impl, utils
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core import utils as job_utils
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, ValueType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import split_key

from hydra_exca.code.snapshot import Snapshot
from hydra_exca.sweep.configs.pickled_copy import PickledCopy


class _Hydra13:
    """Hydra 1.3."""

    RESOLVERS: tp.ClassVar[frozenset[str]] = frozenset()
    MAIN_ARGUMENTS: tp.ClassVar[dict[str, tp.Any]] = {"version_base": "1.3"}
    SHOWS_REMOTE_TRACEBACKS = False

    @staticmethod
    def defaults_list(loader: tp.Any, config_name: str | None, lines: list[str], run_mode: RunMode) -> tp.Any:
        return loader.compute_defaults_list(config_name=config_name, overrides=lines, run_mode=run_mode)

    @staticmethod
    def repository(loader: tp.Any, config_name: str | None, lines: list[str]) -> tp.Any:
        return loader._parse_overrides_and_create_caching_repo(config_name, lines)[1]  # noqa: SLF001

    @staticmethod
    def override_dirname(overrides: tp.Sequence[Override], settings: dict[str, tp.Any]) -> str | None:
        chosen = {key: settings[key] for key in ("kv_sep", "item_sep", "exclude_keys")}
        function: tp.Any = getattr(config_loader_impl, "get_overrides_dirname")  # noqa: B009 - Hydra 1.4 has none
        return str(function(overrides=list(overrides), **chosen))

    @staticmethod
    def changes_directory(chdir: bool | None) -> bool:
        """The default depends on the version that the program is written for."""
        base_at_least: tp.Any = getattr(version, "base_at_least")  # noqa: B009 - Hydra 1.4 has none
        return not base_at_least("1.2") if chdir is None else chdir

    @staticmethod
    def leave_out_of_jobs(config: DictConfig, key: str) -> None:
        """Only the sweep's own ``hydra.launcher`` is used, and nothing compares it with those of jobs."""


class _Hydra14:
    """Hydra 1.4: overrides may be aliases, and those of a sweep are expanded already."""

    RESOLVERS: tp.ClassVar[frozenset[str]] = frozenset({"hydra_override_dirname", "hydra_deprecated_override_dirname"})
    MAIN_ARGUMENTS: tp.ClassVar[dict[str, tp.Any]] = {}
    SHOWS_REMOTE_TRACEBACKS = True

    @staticmethod
    def defaults_list(loader: tp.Any, config_name: str | None, lines: list[str], run_mode: RunMode) -> tp.Any:
        return loader._compute_defaults_list(config_name, lines, run_mode, _PARSER.parse_overrides(lines))  # noqa: SLF001

    @staticmethod
    def repository(loader: tp.Any, config_name: str | None, lines: list[str]) -> tp.Any:
        parsed = _PARSER.parse_overrides(lines)
        return loader._parse_overrides_and_create_caching_repo(config_name, lines, parsed)[1]  # noqa: SLF001

    @staticmethod
    def override_dirname(overrides: tp.Sequence[Override], settings: dict[str, tp.Any]) -> str | None:
        """A resolver makes it from the overrides in the config."""
        return None

    @staticmethod
    def changes_directory(chdir: bool | None) -> bool:
        return bool(chdir)

    @staticmethod
    def leave_out_of_jobs(config: DictConfig, key: str) -> None:
        """Overrides cannot delete from a typed config, which has such a key only if an override has added it."""
        lines = config.hydra.overrides.hydra
        if OmegaConf.get_type(OmegaConf.select(config, key.rpartition(".")[0])) is dict:
            lines.append(f"~{key}")
        else:
            kept = [line for line in lines if not f"{dotted_key(parse_overrides(line))}.".startswith(f"{key}.")]
            config.hydra.overrides.hydra = kept


_FRAME = re.compile(r'^  File "(.+)", line (\d+), in (.+)$', re.MULTILINE)


def _minor(version_text: str) -> str:
    return ".".join(version_text.split(".")[:2])


_KNOWN: dict[str, type[_Hydra13] | type[_Hydra14]] = {"1.3": _Hydra13, "1.4": _Hydra14}
_KNOWN_OMEGACONF = ("2.3", "2.4")
_THIS = _KNOWN.get(_minor(hydra.__version__), _Hydra14)

RESOLVERS = _THIS.RESOLVERS
"""Resolvers of Hydra that make their values of the config alone."""

MAIN_ARGUMENTS = _THIS.MAIN_ARGUMENTS
"""What hydra.main is to be given, unless the program gives something else: without it, Hydra 1.3 warns."""


SHOWS_REMOTE_TRACEBACKS = _THIS.SHOWS_REMOTE_TRACEBACKS
"""Whether a JobReturn raises an error of another process with its frames there, and Hydra prints those alone."""


def why_unknown(loader: ConfigLoader) -> str:
    """Why private parts cannot be relied on to compose, "" if they can.

    They can if tests compare what these versions compose, and how they run jobs, with what we do.
    """
    if _minor(hydra.__version__) not in _KNOWN:
        return f"Hydra {hydra.__version__} is none of the known versions, {' and '.join(_KNOWN)}"
    if _minor(omegaconf.__version__) not in _KNOWN_OMEGACONF:
        return f"OmegaConf {omegaconf.__version__} is none of the known versions, {' and '.join(_KNOWN_OMEGACONF)}"
    return "" if type(loader) is ConfigLoaderImpl else f"{type(loader).__qualname__} is not Hydra's own config loader"


def is_under_main() -> bool:
    """Whether this thread runs below hydra.main, which ends the program on an error; hydra-zen's ``launch`` returns."""
    frame = sys._getframe()  # noqa: SLF001  documented, and public
    while frame is not None and frame.f_code is not utils.run_and_report.__code__:
        frame = tp.cast(types.FrameType, frame.f_back)
    return frame is not None


class CachingReader:
    """Composes with Hydra's own loader, and reads each config file only once.

    So all jobs of a sweep use the same files, and composing takes half of the time.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        self._loader: tp.Any = loader
        self._is_known = not why_unknown(loader)
        self._read: dict[tp.Any, PickledCopy] = {}

    def compose(self, master: DictConfig, lines: tp.Sequence[str]) -> DictConfig:
        """A job's config."""
        if not self._is_known:
            return tp.cast(DictConfig, self._loader.load_sweep_config(master, list(lines)))
        before = self._loader.repository
        self._loader.repository = _CachingRepository(before, self._read)
        try:
            return tp.cast(DictConfig, self._loader.load_sweep_config(master, list(lines)))
        finally:
            self._loader.repository = before


class _CachingRepository:
    """A repository of configs that reads each of them once, and returns copies, because composing changes them."""

    def __init__(self, repository: tp.Any, read: dict[tp.Any, PickledCopy]) -> None:
        self._repository = repository
        self._read = read

    def load_config(self, config_path: str) -> tp.Any:
        sources = tuple((source.provider, source.scheme(), source.path) for source in self._repository.get_sources())
        if (config_path, sources) not in self._read:
            result = self._repository.load_config(config_path=config_path)
            if result is None:  # there may be such a config later
                return None
            self._read[config_path, sources] = PickledCopy(result)
        return self._read[config_path, sources].copy()

    def __deepcopy__(self, memo: dict[int, tp.Any]) -> _CachingRepository:
        """Shares the ConfigStore: Hydra copies its sources for each composition, and most of that is this store."""
        memo.setdefault(id(ConfigStore.instance()), ConfigStore.instance())
        return _CachingRepository(copy.deepcopy(self._repository, memo), self._read)

    def __getattr__(self, name: str) -> tp.Any:
        return getattr(self._repository, name)


def config_groups(loader: ConfigLoader, master: DictConfig) -> tp.Callable[[str], bool]:
    """A function that says whether a key is a config group of the jobs, whose search path may be their own."""
    overrides: tp.Any = OmegaConf.to_container(master.hydra.overrides.hydra)
    repository = _THIS.repository(loader, master.hydra.job.config_name, overrides)
    return functools.cache(lambda key: bool(repository.group_exists(key)))


def choose_groups(loader: ConfigLoader, master: DictConfig, lines: tp.Sequence[str]) -> None:
    """Computes the defaults list of a job, as Hydra does first."""
    overrides: tp.Any = OmegaConf.to_container(master.hydra.overrides.hydra)
    _THIS.defaults_list(loader, master.hydra.job.config_name, [*overrides, *lines], RunMode.RUN)


def override_dirname(overrides: tp.Sequence[Override], settings: dict[str, tp.Any]) -> str | None:
    """``hydra.job.override_dirname`` as Hydra writes it for these overrides, None if it is not written.

    ``settings`` are ``hydra.job.config.override_dirname``.
    """
    return _THIS.override_dirname(overrides, settings)


def callbacks_of(context: HydraContext) -> list[tp.Any]:
    """The callbacks of a sweep, in their order; Hydra calls what is appended, too, here and in the jobs."""
    callbacks: list[tp.Any] = context.callbacks.callbacks
    return callbacks


def changes_directory(chdir: bool | None) -> bool:
    """Whether jobs with this ``hydra.job.chdir`` run in their output directory."""
    return _THIS.changes_directory(chdir)


def remote_fields(traceback: str) -> dict[str, tp.Any]:
    """The fields of a JobReturn with the frames of a task that has raised, if this Hydra has them.

    Hydra prints those below its own function, which stored texts do not have.
    """
    frames = _FRAME.findall(traceback.rpartition("Traceback (most recent call last):\n")[2])
    if not frames or not SHOWS_REMOTE_TRACEBACKS:
        return {}
    run_job = job_utils.run_job.__code__
    above = (run_job.co_filename, run_job.co_name, run_job.co_firstlineno)
    return {"_remote_traceback": [above, *((file, name, int(line)) for file, line, name in frames)]}


def leave_out_of_jobs(config: DictConfig, key: str) -> None:
    """Removes a key from the configs of the jobs, if it was removed from the sweep's and Hydra compares them."""
    _THIS.leave_out_of_jobs(config, key)


def dotted_key(override: Override) -> str:
    """The key of an override, dotted: Hydra 1.4 also takes ``a[0]`` and, for a key with a dot in it, ``a\\.b``."""
    is_path = getattr(override, "is_value_path", False)
    return ".".join(split_key(override.key_or_group)) if is_path else override.key_or_group


@functools.lru_cache(maxsize=2**15)
def parse_overrides(line: str) -> Override:
    """The parsed override. The same line gives the same object: do not change it."""
    match = _NUMBER_OR_WORD.fullmatch(line)
    if match is None or match["value"].lower() in _NO_WORDS:
        return _PARSER.parse_overrides([line])[0]
    value = match["value"] if match["number"] is None else int(match["number"])
    return Override(OverrideType.CHANGE, match["key"], ValueType.ELEMENT, value, input_line=line)


_PARSER = OverridesParser.create()
# Most sweeps consist of these. Hydra's grammar reads them in the same way, but takes a tenth of a millisecond each.
_NUMBER_OR_WORD = re.compile(
    r"(?P<key>[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*)=(?P<value>(?P<number>-?(0|[1-9][0-9]*))|[A-Za-z_]\w*)",
    re.ASCII,
)
_NO_WORDS = {"null", "true", "false", "nan", "inf"}


def read_configs_from(loader: ConfigLoader, snapshot: Snapshot) -> None:
    """Makes Hydra read config files from a copy of the code. Files that were not copied are read where they are."""
    repository = getattr(loader, "repository", None)
    if hasattr(repository, "sources"):
        before = repository.repository if isinstance(repository, _CopiedRepository) else repository
        loader.repository = _CopiedRepository(before, snapshot)  # type: ignore[attr-defined]


class _CopiedRepository:
    """A repository of configs whose files are read from a copy of the code."""

    def __init__(self, repository: tp.Any, snapshot: Snapshot) -> None:
        self.repository = repository
        self._snapshot = snapshot
        self._prefer_copies()

    def initialize_sources(self, config_search_path: tp.Any) -> None:
        self.repository.initialize_sources(config_search_path)
        self._prefer_copies()

    def _prefer_copies(self) -> None:
        self.repository.sources = [_preferring_copy(source, self._snapshot) for source in self.repository.sources]

    def __deepcopy__(self, memo: dict[int, tp.Any]) -> _CopiedRepository:
        return _CopiedRepository(copy.deepcopy(self.repository, memo), self._snapshot)

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return _CopiedRepository, (self.repository, self._snapshot)

    def __getattr__(self, name: str) -> tp.Any:
        return getattr(self.repository, name)


def _preferring_copy(source: ConfigSource, snapshot: Snapshot) -> ConfigSource:
    if isinstance(source, _CopiedSource):
        source = source.original
    if source.scheme() != "file":
        return source
    copied = copy.copy(source)
    copied.path = str(snapshot.copy_of(Path(source.path)))
    return source if copied.path == source.path else _CopiedSource(source, copied)


class _CopiedSource(ConfigSource):
    """A folder of configs and its copy, which has priority: files that git ignores are only in the folder."""

    def __init__(self, original: ConfigSource, copied: ConfigSource) -> None:
        super().__init__(original.provider, f"{original.scheme()}://{original.path}")
        self.original = original
        self._copied = copied

    @staticmethod
    def scheme() -> str:
        return "file"

    def load_config(self, config_path: str) -> ConfigResult:
        source = self._copied if self._copied.is_config(config_path) else self.original
        result = source.load_config(config_path)
        result.path = f"{self.scheme()}://{self.path}"
        return result

    def available(self) -> bool:
        return self._copied.available() or self.original.available()

    def is_group(self, config_path: str) -> bool:
        return self._copied.is_group(config_path) or self.original.is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        return self._copied.is_config(config_path) or self.original.is_config(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        sources = [source for source in (self._copied, self.original) if source.is_group(config_path)]
        return sorted({name for source in sources for name in source.list(config_path, results_filter)})
