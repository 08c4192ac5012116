"""Settings files of the own folder, read as data: they come from others as often as from oneself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigResult

from ssl_lab.cli.trust.own_code import lies_in_folder
from ssl_lab.cli.trust.targets import NOT_NAMING, Trust, check_targets, texts, use
from ssl_lab.limited import load_yaml

SCHEME = "ssl-lab-own"
_RESOLVERS = ("oc.env:", "oc.select:", "now:", "hydra:", "trial_name:")
_HYDRA_GROUPS = ("hydra/launcher", "hydra/sweeper", "hydra/sweeper/sampler", "hydra/sweeper/pruner")
_HYDRA_SETTINGS = ("sweeper", "sweep", "run")  # of which none runs anything; others start programs


class OwnSettings(FileConfigSource):
    """``conf/`` of the folder in which the command is started; each file is checked when Hydra asks for it."""

    @staticmethod
    def scheme() -> str:
        """Return the prefix of the folder's path in Hydra's search path."""
        return SCHEME

    def __init__(self, provider: str, path: str) -> None:
        super(FileConfigSource, self).__init__(provider=provider, path=path)

    def load_config(self, config_path: str) -> ConfigResult:
        """The file's settings.

        Raises:
            ValueError: If it could run code that the command does not name.
        """
        file = Path(self.path, self._normalize_file_name(config_path))
        content = load_yaml(file, object)
        result = super().load_config(config_path)
        if not Trust.instance().everything:
            _check(file, config_path.removesuffix(".yaml"), content or {}, result.header.get("package"))
        check_targets(content, _shown(file), data=True)
        use(_shown(file))
        return result


def _check(file: Path, name: str, content: Any, package: str | None) -> None:
    """Allow the classes that a chosen file in the folder names; refuse settings that could start programs."""
    if name in Trust.instance().files and name.partition("/")[0] not in NOT_NAMING:
        Trust.instance().targets |= {target for target in _all_targets(content) if lies_in_folder(target)}
        Trust.instance().files |= set(_chosen(content, name))
    for text in texts(content):
        for inner in re.findall(r"\$\{\s*([^${}]*)", text):
            if not re.fullmatch(r"[\w.@\[\]/-]+\s*", inner) and not inner.startswith(_RESOLVERS):
                raise ValueError(
                    f"{_shown(file)}: {text[:100]!r} is not read, since it could make new settings. Write the value itself, "
                    "or add trust=true if you know the file."
                )
    for problem in _of_hydra(name, content, package):
        raise ValueError(
            f"{_shown(file)} sets {problem}, with which programs can be started. Give it on the command line, or add "
            "trust=true if you know the file."
        )
    for key, value in _defaults(content):
        if ".." in f"{key}{value}" or str(value).startswith("/"):
            raise ValueError(f"{_shown(file)}: its defaults lead out of conf/: {key}: {value}. Put the file there.")


def _of_hydra(name: str, content: Any, package: str | None) -> Iterator[str]:
    """Settings of Hydra's own in a file, but for those that run nothing."""
    if name.partition("/")[0] == "hydra" or "hydra" in re.split(r"\W", package or ""):
        yield f"hydra (as {name})"
    for key, _ in _defaults(content):
        group, _, place = key.partition("@")
        if "hydra" in re.split(r"\W", place) or (group.startswith("hydra") and group not in _HYDRA_GROUPS):
            yield key
    node = content.get("hydra") if isinstance(content, dict) else None
    if node is None:
        return
    if not isinstance(node, dict):
        yield "hydra"
        return
    for key, value in node.items():
        if key not in _HYDRA_SETTINGS or (isinstance(value, dict) and "_target_" in value):
            yield f"hydra.{key}"
    sweeper = node.get("sweeper")
    params = sweeper.get("params") if isinstance(sweeper, dict) else None
    if isinstance(sweeper, dict) and isinstance(params, dict | None):
        for key in params or {}:
            if "hydra" in re.split(r"\W", str(key)):
                yield f"hydra.sweeper.params.{key}"
    elif sweeper is not None:
        yield "hydra.sweeper"
    yield from (str(key) for key in content if str(key).startswith("hydra."))


def _defaults(content: Any) -> Iterator[tuple[str, Any]]:
    """The choices of a file's defaults list: group and name, the words before the group left out."""
    entries = content.get("defaults") if isinstance(content, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        for key, value in entry.items() if isinstance(entry, dict) else [("", entry)]:
            yield re.sub(r"^(override |optional )+", "", str(key)).lstrip("/"), value


def _chosen(content: Any, name: str) -> Iterator[str]:
    """Files that a file's defaults list chooses."""
    for key, value in _defaults(content):
        for choice in value if isinstance(value, list) else [value]:
            group = key.partition("@")[0]
            yield from (f"{group}/{choice}", f"{name.rpartition('/')[0]}/{group}/{choice}".replace("//", "/"))


def _all_targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _all_targets(value)


def _shown(file: Path) -> str:
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)
