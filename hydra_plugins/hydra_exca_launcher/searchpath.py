"""Makes the config groups of the package and their schema visible to every app."""

from hydra._internal.core_plugins import importlib_resources_config_source as package_source
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

_SCHEMA = "hydra/launcher/schema/exca.yaml"


class ExcaSearchPath(SearchPathPlugin):
    """Appends our config groups, so that a user's file of the same name wins."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="hydra-exca-launcher", path=f"{ExcaConfigs.scheme()}://hydra_exca.conf")


class ExcaConfigs(package_source.ImportlibResourcesConfigSource):
    """The yaml files of our config groups, and the schema of ``hydra.launcher``, made when it is asked for.

    In the ConfigStore, the schema would be made at every start of every app. Nobody chooses it, so it is in no list.
    """

    @staticmethod
    def scheme() -> str:
        return "exca"

    def is_config(self, config_path: str) -> bool:
        return self._normalize_file_name(config_path.rstrip("/")) == _SCHEMA or super().is_config(config_path)

    def load_config(self, config_path: str) -> ConfigResult:
        if self._normalize_file_name(config_path) != _SCHEMA:
            return super().load_config(config_path)
        from hydra_exca.sweep.launcher_conf import ExcaLauncherConf  # it is slow to import, and few apps need it

        schema = OmegaConf.structured(ExcaLauncherConf)
        return ConfigResult(config=schema, path=self.full_path(), provider=self.provider, header={"package": None})
