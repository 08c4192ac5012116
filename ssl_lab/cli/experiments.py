"""Drop settings of an experiment that no longer apply when the command replaces its choices."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, open_dict

from ssl_lab.cli.instantiate import takes
from ssl_lab.cli.paths import config_dir, own_config_dir
from ssl_lab.limited import load_yaml


def keep_composable(command: str, overrides: Sequence[str]) -> list[str]:
    """Overrides with which an experiment composes although the command line replaces a choice.

    An experiment may choose parts of a choice, such as the views of its method. Hydra refuses that where the new choice
    has no such part. Each such part is added, for :func:`drop_replaced` to take it out again with a line that says so.

    Args:
        command: The command.
        overrides: Its arguments, for one run.
    """
    experiment = next((one.partition("=")[2] for one in reversed(overrides) if one.startswith("experiment=")), "")
    parts = dict(_parts_of(experiment))
    given = {one.partition("=")[0] for one in overrides}
    settings = [one for one in overrides if not one.startswith("-")]
    added: list[str] = []
    while parts.keys() - given and any(_package(part).partition(".")[0] in given for part in parts):
        try:
            with initialize_config_dir(str(config_dir()), version_base="1.3"):
                compose(command, [*settings, *added])
        except ConfigCompositionException as error:
            refused = re.search(r"In 'experiment/.*': Could not override '(.*?)'", str(error))
            if refused is not None and refused[1] in parts.keys() - given:
                part = parts.pop(refused[1])
                added += [f"{refused[1]}={part}", f"+{refused[1]}={part}"]  # the first alone overrides, the second adds
                continue
        break
    return [*overrides, *added]


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
    parts = dict(_parts_of(experiment)) if experiment else {}
    given = {one.partition("=")[0].lstrip("+~") for one in overrides}
    given -= {part for part in parts if f"+{part}={parts[part]}" in overrides}  # of keep_composable
    if not experiment:
        return []
    own = dict(_choices_of(experiment))
    replaced = [group for group in choices if group in given - {"experiment"} and choices[group] != own.get(group)]
    lines = []
    for group in replaced:
        package = group.partition("@")[2] or group
        settings = _settings_of(experiment)
        for part in map(_package, parts):
            if part.startswith(f"{package}.") and OmegaConf.select(settings, part) is None:
                OmegaConf.update(settings, part, {}, force_add=True)
        dropped = [key for key in _lacking(cfg, settings, package) if key not in given]
        leaves = _leaves(OmegaConf.select(settings, package), package)
        kept = [
            key for key in leaves if key not in given and not f"{key}.".startswith(tuple(f"{one}." for one in dropped))
        ]
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
            holds, them = ("hold", "them") if len(kept) > 1 else ("holds", "it")
            sentences.append(
                f"{values} of experiment={experiment} also {holds} with {group}={choices[group]}, unless you set {them}."
            )
        if sentences:
            lines.append(" ".join(sentences))
    return lines


def other_evaluations(choices: Mapping[str, Any], overrides: Sequence[str]) -> str | None:
    """A line that names the evaluations of a method's experiments, if a run takes the default one, which none of them has.

    Args:
        choices: What is chosen in each group.
        overrides: The arguments of the command.
    """
    if {"evaluation", "experiment"} & {one.partition("=")[0] for one in overrides}:
        return None
    found = [dict(_choices_of(path.stem)) for path in sorted((config_dir() / "experiment").glob("*.yaml"))]
    usual = dict.fromkeys(each.get("evaluation") for each in found if each.get("method") == choices["method"])
    if not usual or usual.keys() & {None, "none", choices["evaluation"]}:
        return None
    names = " or ".join(f"evaluation={name}" for name in usual)
    return (
        f"evaluation={choices['evaluation']} is the default; experiments with method={choices['method']} use {names}."
    )


def _settings_of(experiment: str) -> DictConfig:
    for folder in filter(None, (config_dir(), own_config_dir())):
        path = folder / "experiment" / f"{experiment}.yaml"
        if path.is_file():
            return OmegaConf.create(load_yaml(path))
    return OmegaConf.create()


def _parts_of(experiment: str) -> Iterator[tuple[str, str]]:
    """The choices that an experiment makes within others, as ``views@method.views`` and ``digits``."""
    return ((group, choice) for group, choice in _choices_of(experiment) if "." in _package(group))


def _choices_of(experiment: str) -> Iterator[tuple[str, str]]:
    """The choices that an experiment makes, as ``data`` and ``digits``."""
    for entry in _settings_of(experiment).get("defaults", []):
        for key, value in entry.items() if isinstance(entry, DictConfig) else ():
            group = re.sub(r"^override\s+/?", "", str(key))
            if group != key and isinstance(value, str):
                yield group, value


def _package(group: str) -> str:
    return group.partition("@")[2]


def _leaves(node: Any, key: str) -> Iterator[str]:
    """Names of the values below a node."""
    for name in map(str, node) if isinstance(node, DictConfig) else ():
        below = node._get_node(name)
        if isinstance(below, DictConfig):
            yield from _leaves(below, f"{key}.{name}")
        elif not name.startswith("_"):
            yield f"{key}.{name}"


def _lacking(cfg: DictConfig, settings: DictConfig, key: str) -> Iterator[str]:
    """Keys below a node that the signature of its target does not take."""
    node, asked = OmegaConf.select(cfg, key, throw_on_missing=False), OmegaConf.select(settings, key)
    if isinstance(node, DictConfig) and isinstance(asked, DictConfig):
        known = takes(node)
        for name in map(str, asked):
            if known is not None and name in node and name not in known and not name.startswith("_"):
                yield f"{key}.{name}"
            else:
                yield from _lacking(cfg, settings, f"{key}.{name}")
