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
        A line for each replaced choice: which settings fall away, and which stay.
    """
    experiment = choices.get("experiment")
    given = {one.partition("=")[0].lstrip("+~") for one in overrides}
    replaced = [group for group in choices if group in given - {"experiment"}]
    if not experiment or not replaced:
        return []
    told = []
    for group in replaced:
        package = group.partition("@")[2] or group
        settings = _settings_of(experiment)
        dropped = [key for key in _lacking(cfg, settings, package) if key not in given]
        kept = [key for key in _leaves(OmegaConf.select(settings, package), package) if key not in {*dropped, *given}]
        for key in dropped:
            parent, _, name = key.rpartition(".")
            with open_dict(cfg):
                del OmegaConf.select(cfg, parent)[name]
        sentences = []
        if dropped:
            lacks = f"which {group}={choices[group]} does not have: left out"
            sentences.append(f"experiment={experiment} sets {', '.join(dropped)}, {lacks}.")
        if kept:
            values = ", ".join(f"{key}={OmegaConf.select(cfg, key)}" for key in kept)
            sentences.append(f"{group}={choices[group]} keeps {values} of experiment={experiment}.")
        if sentences:
            told.append(" ".join(sentences))
    return told


def _settings_of(experiment: str) -> DictConfig:
    for folder in filter(None, (config_dir(), own_config_dir())):
        path = folder / "experiment" / f"{experiment}.yaml"
        if path.is_file():
            settings = OmegaConf.load(path)
            assert isinstance(settings, DictConfig)
            return settings
    return OmegaConf.create()


def _leaves(node: Any, key: str) -> Iterator[str]:
    """Names of the values below a node."""
    for name in map(str, node) if isinstance(node, DictConfig) else ():
        below = node._get_node(name)
        if isinstance(below, DictConfig):
            yield from _leaves(below, f"{key}.{name}")
        elif not name.startswith("_"):
            yield f"{key}.{name}"


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
