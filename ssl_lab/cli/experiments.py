"""An experiment whose choices the command line replaces: what of it still has a meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ssl_lab.cli.checked import takes
from ssl_lab.cli.paths import config_dir, own_config_dir


def drop_replaced(cfg: DictConfig, choices: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """Take an experiment's settings of a replaced choice out of the configuration where the new choice lacks them.

    Args:
        cfg: The configuration, which is changed.
        choices: What is chosen in each group.
        overrides: The arguments of the command.

    Returns:
        A sentence for each replaced choice of which settings fall away.
    """
    experiment = choices.get("experiment")
    given = {one.partition("=")[0].lstrip("+~") for one in overrides}
    replaced = [group for group in choices if group in given - {"experiment"}]
    if not experiment or not replaced:
        return []
    told = []
    for group in replaced:
        package = group.partition("@")[2] or group
        dropped = [key for key in _lacking(cfg, _settings_of(experiment), package) if key not in given]
        for key in dropped:
            parent, _, name = key.rpartition(".")
            with open_dict(cfg):
                del OmegaConf.select(cfg, parent)[name]
        if dropped:
            told.append(
                f"experiment={experiment} sets {', '.join(dropped)}, which {group}={choices[group]} does not have: left out."
            )
    return told


def _settings_of(experiment: str) -> DictConfig:
    for folder in filter(None, (config_dir(), own_config_dir())):
        path = folder / "experiment" / f"{experiment}.yaml"
        if path.is_file():
            settings = OmegaConf.load(path)
            assert isinstance(settings, DictConfig)
            return settings
    return OmegaConf.create()


def _lacking(cfg: DictConfig, settings: DictConfig, key: str) -> Iterator[str]:
    """Keys below a node that are set, but that the signature of what the node builds does not take."""
    node, asked = OmegaConf.select(cfg, key, throw_on_missing=False), OmegaConf.select(settings, key)
    if isinstance(node, DictConfig) and isinstance(asked, DictConfig):
        known = takes(node)
        for name in map(str, asked):
            if known is not None and name in node and name not in known and not name.startswith("_"):
                yield f"{key}.{name}"
            else:
                yield from _lacking(cfg, settings, f"{key}.{name}")
