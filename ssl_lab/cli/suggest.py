"""Suggestions for a setting or a choice that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ssl_lab.cli.commands.list import TITLES
from ssl_lab.cli.experiments import keep_composable
from ssl_lab.cli.help import command_settings
from ssl_lab.cli.paths import choices, config_dir, own_config_dir

_MAX_SHOWN = 12


def unknown_setting(key: str, command: str, overrides: Sequence[str]) -> str:
    """A message about a key that no composed setting has: looked for in the chosen class, elsewhere, in other choices.

    Args:
        key: The key.
        command: The command that got the setting.
        overrides: The arguments of the command.
    """
    given = {one.partition("=")[0].lstrip("+~"): one.partition("=")[2] for one in overrides}
    value = given.get(key, "VALUE")
    composed = _compose(command, overrides)
    if composed is None:
        return f"There is no setting {key!r}. See all settings with --cfg job."
    cfg, chosen = composed
    experiment = chosen.get("experiment")
    if given and key not in given and experiment:
        return (
            f"experiment={experiment} sets {key}, which the other choices of the command do not have. Choose what goes with "
            f"the experiment, or leave experiment= out."
        )
    if targets := [name for name in chosen if name.split("@")[0] == key and name != key]:
        return f"There is no setting {key!r}. Give it as {targets[0]}={value}."
    if key in chosen:
        return unknown_choice(key, value)
    if is_group(key):
        own = ", ".join(str(name) for name in cfg if name != "hydra")
        return f"ssl-lab {command} has no setting {key!r}. Its settings: {own}."
    parts = key.split(".")
    if parts[0] not in (*chosen, *cfg) and any(parts[0] == group for group, _, _ in command_settings(command).groups):
        return f"Cannot set {key} without a choice of {parts[0]}. Add {parts[0]}=NAME, see ssl-lab list {parts[0]}."
    depth = next(d for d in range(len(parts) - 1, -1, -1) if isinstance(_select(cfg, parts[:d]), DictConfig))
    owner, name = ".".join(parts[:depth]), parts[depth]
    node = _select(cfg, parts[:depth])
    known = [str(one) for one in node if not str(one).startswith("_") and one != "hydra"]
    choice = chosen.get(owner) or next((chosen[one] for one in chosen if one.endswith(f"@{owner}")), None)
    if name in known:
        is_value = f"{'.'.join(parts[: depth + 1])} is one value, which has no settings of its own"
        reason = is_value if depth + 1 < len(parts) else "another argument removes it"
        return f"Cannot set {key}: {reason}. See all settings with --cfg job."
    head = f"{choice} has no setting {name!r}." if choice else f"There is no setting {key!r}."
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.75):
        return f"{head} Did you mean {'.'.join(filter(None, (owner, close[0])))}?"
    everything = sorted(
        (dotted for dotted in _dotted(cfg) if dotted != key), key=lambda one: one.startswith("evaluation.")
    )
    if elsewhere := [dotted for dotted in everything if dotted.split(".")[-1] == parts[-1]]:
        return f"{head} {parts[-1]} is set as {' or '.join(f'{one}={value}' for one in elsewhere[:3])}."
    group = next((one.split("@")[0] for one in chosen if one == owner or one.endswith(f"@{owner}")), None)
    if group and (others := [one for one in choices(group) if one != choice and name in _keys(group, one)]):
        if "timm" in others and _is_timm_model(choice):
            return f"{head} {group}=timm {group}.name={choice} {key}={value} has."
        return f"{head} {', '.join(f'{group}={one}' for one in others[:3])} {'have' if len(others) > 1 else 'has'} it."
    by_name = {dotted.split(".")[-1]: dotted for dotted in reversed(everything)} if not owner else {}
    if close := difflib.get_close_matches(name, [*by_name, *_groups()], n=1, cutoff=0.75):
        return f"{head} Did you mean {by_name.get(close[0], close[0])}?"
    shown = known if owner else known[:_MAX_SHOWN]
    return f"{head} {owner or 'At the top'} has {', '.join(shown) or 'none'}. See all settings with --cfg job."


def unknown_reference(key: str, reader: str, command: str, overrides: Sequence[str]) -> str:
    """A message about a setting that refers to one that there is not, such as an evaluation to that of another method.

    Args:
        key: What is referred to.
        reader: The setting that refers to it.
        command: The command.
        overrides: Its arguments.
    """
    composed = _compose(command, overrides)
    group, owner = reader.partition(".")[0], key.partition(".")[0]
    if composed is None or group not in composed[1] or owner not in composed[1]:
        return f"Cannot read {reader}: found no {key}, which it refers to. Set {reader}, see --cfg job."
    choice, lacks, experiment = composed[1][group], composed[1][owner], composed[1].get("experiment")
    is_given = any(one.startswith(f"{group}=") for one in overrides)
    chosen_by = f" of experiment={experiment}" if experiment and not is_given else ""
    listed = {name: title for title, name in TITLES.items()}.get(group, "")
    return (
        f"Cannot use {group}={choice}{chosen_by} with {owner}={lacks}: {reader} reads {key}, which {owner}={lacks} does not "
        f"have. Choose another {group}=, see ssl-lab list {listed}."
    )


def unknown_choice(group: str, name: str) -> str:
    """A message about a choice that a group does not have, with those that are near, and the group that has it."""
    known = list(choices(group))
    if not known:
        return f"There is no {group}/{name}. See what there is with ssl-lab list."
    near = [one for one in known if name in one or one in name] if len(name) > 2 else []
    near = list(dict.fromkeys([*difflib.get_close_matches(name.lower().replace("-", "_"), known, n=3), *near]))[:3]
    hint = f" Did you mean {' or '.join(f'{group}={one}' for one in near)}?" if near else ""
    if homes := [other for other in _groups() if other != group and name in choices(other)]:
        hint = f" {name} is a choice of {' and of '.join(homes[:2])}: {homes[0]}={name}."
    return f"There is no {group} {name!r}.{hint} Choose from: {', '.join(known)}."


def _compose(command: str, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]] | None:
    """Settings of a command with the choices of its arguments alone, and these; None if they do not go together."""
    from hydra import compose, initialize_config_dir

    groups = set(_groups())
    chosen = []
    for one in overrides:
        key, equals, value = one.partition("=")
        if equals and key.split("@")[0] in groups:
            chosen.append(f"{key}={value.split(',')[0]}")
    for attempt in (chosen, [one for one in chosen if "@" not in one], [one for one in chosen if "experiment=" in one]):
        try:
            attempt = keep_composable(command, attempt)
            with initialize_config_dir(str(config_dir()), version_base="1.3"):
                cfg = compose(command, attempt, return_hydra_config=True)
        except Exception:  # a message about one error must not end in another
            continue
        found = OmegaConf.to_container(cfg.hydra.runtime.choices)
        assert isinstance(found, dict)
        return cfg, {str(key): value for key, value in found.items() if isinstance(value, str)}
    return None


def _select(cfg: DictConfig, parts: Sequence[str]) -> Any:
    return OmegaConf.select(cfg, ".".join(parts), throw_on_missing=False) if parts else cfg


def _dotted(node: Any, prefix: str = "") -> Iterator[str]:
    for name in node:
        key = f"{prefix}{name}"
        if key == "hydra" or str(name).startswith("_"):
            continue
        yield key
        below = node._get_node(name)
        if isinstance(below, DictConfig) and not below._is_none() and not below._is_missing():
            yield from _dotted(below, f"{key}.")


def is_group(key: str) -> bool:
    """Return whether a key chooses a file of settings."""
    return key.lstrip("+~").partition("@")[0] in _groups()


@cache
def _groups() -> tuple[str, ...]:
    """Names of all groups of settings."""
    folders = (folder for folder in (config_dir(), own_config_dir()) if folder is not None)
    return tuple(dict.fromkeys(path.name for folder in folders for path in sorted(folder.iterdir()) if path.is_dir()))


def _keys(group: str, choice: str) -> list[str]:
    path = config_dir() / group / f"{choice}.yaml"
    return [str(name) for name in OmegaConf.load(path)] if path.is_file() else []


def _is_timm_model(name: str | None) -> bool:
    if name is None or find_spec("timm") is None:
        return False
    import timm

    return bool(timm.is_model(name))
