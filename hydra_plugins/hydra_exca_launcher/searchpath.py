"""Makes the config groups of the package and their schema visible to every app."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class ExcaSearchPath(SearchPathPlugin):
    """Appends our config groups, so that a user's file of the same name wins."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from . import _config  # after the plugin scan, not by it

        _config.register()
        search_path.append(provider="hydra-exca-launcher", path="pkg://hydra_exca.conf")
