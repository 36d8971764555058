"""All uses of private parts of Hydra. Only in versions that are known does anything rely on them."""

from __future__ import annotations

import copy
import functools
import re
import sys
import types
import typing as tp
from pathlib import Path

import hydra
from hydra._internal import utils
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, ValueType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hydra_exca.code.snapshot import Snapshot
from hydra_exca.sweep.configs.pickled_copy import PickledCopy


def is_known_hydra() -> bool:
    """Whether tests compare what this version of Hydra composes, and how it runs jobs, with what we do."""
    return hydra.__version__.startswith("1.3.")


def is_known_loader(loader: ConfigLoader) -> bool:
    """Whether this is the loader of Hydra itself, in a version whose private parts can be relied on."""
    return is_known_hydra() and type(loader) is ConfigLoaderImpl


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
        self._is_known = is_known_loader(loader)
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
    private: tp.Any = loader
    _, repository = private._parse_overrides_and_create_caching_repo(master.hydra.job.config_name, overrides)  # noqa: SLF001
    return functools.cache(lambda key: bool(repository.group_exists(key)))


def choose_groups(loader: ConfigLoader, master: DictConfig, lines: tp.Sequence[str]) -> None:
    """Computes the defaults list of a job, as Hydra does first."""
    overrides: tp.Any = OmegaConf.to_container(master.hydra.overrides.hydra)
    loader.compute_defaults_list(
        config_name=master.hydra.job.config_name, overrides=[*overrides, *lines], run_mode=RunMode.RUN
    )


def override_dirname(overrides: tp.Sequence[Override], settings: dict[str, tp.Any]) -> str:
    """``hydra.job.override_dirname`` for these overrides, under ``hydra.job.config.override_dirname``."""
    from hydra._internal.config_loader_impl import get_overrides_dirname  # Hydra 1.4 has none

    chosen = {key: settings[key] for key in ("kv_sep", "item_sep", "exclude_keys")}
    return str(get_overrides_dirname(overrides=list(overrides), **chosen))


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
