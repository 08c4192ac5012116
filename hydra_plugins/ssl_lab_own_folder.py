"""Settings of one's own: ``conf/`` in the folder from which ``ssl-lab`` is started, behind those of the package."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from ssl_lab.cli.paths import config_dir, own_config_dir
from ssl_lab.cli.trust.own_settings import SCHEME, OwnSettings

__all__ = ["OwnFolder", "OwnSettings"]


class OwnFolder(SearchPathPlugin):
    """Adds the folder for ``ssl-lab`` alone; other Hydra applications of the environment are left as they are."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder if there is one."""
        own = own_config_dir()
        if own and any(element.path.removeprefix("file://") == str(config_dir()) for element in search_path.get_path()):
            search_path.append("own", f"{SCHEME}://{own}")
