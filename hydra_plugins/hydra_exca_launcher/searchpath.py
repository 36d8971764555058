"""Makes the config groups of the package and their schema visible to every app."""

import functools
import importlib.util
import os
import pickle

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

_SCHEME = "exca"
_SCHEMA = "hydra/launcher/schema/exca.yaml"
_Names = list[str]  # in the class, list is a method


class ExcaSearchPath(SearchPathPlugin):
    """Appends our config groups, so that a user's file of the same name wins."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="hydra-exca-launcher", path=f"{_SCHEME}://hydra_exca.conf")


class ExcaConfigs(ConfigSource):
    """The yaml files of our config groups, and the schema of ``hydra.launcher``, made when it is asked for.

    In the ConfigStore, the schema would be made at every start of every app and copied, with all that is there,
    each time that Hydra composes; by ``pkg://``, each look for a file would be one through importlib. Nobody chooses
    the schema, so it is in no list.
    """

    @staticmethod
    def scheme() -> str:
        return _SCHEME

    def available(self) -> bool:
        return os.path.isdir(_folder(self.path))

    def is_group(self, config_path: str) -> bool:
        return os.path.isdir(self._place(config_path))

    def is_config(self, config_path: str) -> bool:
        name = self._normalize_file_name(config_path.rstrip("/"))
        return name == _SCHEMA or os.path.isfile(self._place(name))

    def list(self, config_path: str, results_filter: ObjectType | None) -> _Names:
        found: _Names = []
        for name in os.listdir(self._place(config_path)):
            self._list_add_result(found, os.path.join(config_path, name), name, results_filter)
        return sorted(set(found))

    def load_config(self, config_path: str) -> ConfigResult:
        name = self._normalize_file_name(config_path)
        if name == _SCHEMA:
            return self._result(_schema(), {"package": None})
        try:
            with open(self._place(name), encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise ConfigLoadError(f"Config not found: {name}") from error
        return self._result(_parsed(text), self._get_header_dict(text))

    def _result(self, config: bytes, header: dict[str, str | None]) -> ConfigResult:
        return ConfigResult(config=pickle.loads(config), path=self.full_path(), provider=self.provider, header=header)

    def _place(self, config_path: str) -> str:
        return os.path.join(_folder(self.path), config_path)


# Hydra composes three times to launch a sweep: a pickle is loaded in a twentieth of the time that each takes to make
@functools.cache
def _parsed(text: str) -> bytes:
    return pickle.dumps(OmegaConf.create(text))


@functools.cache
def _schema() -> bytes:
    from . import _config  # it is slow to import, and few apps need it

    return pickle.dumps(OmegaConf.structured(_config.ExcaLauncherConf))


@functools.cache
def _folder(package: str) -> str:
    """Where a package is, "" if it is not there."""
    spec = importlib.util.find_spec(package)
    return next(iter(spec.submodule_search_locations or ()), "") if spec is not None else ""
