"""Settings of the commands themselves, outside all groups: their types, and those that no command reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ssl_lab.cli.instantiate import check_value
from ssl_lab.cli.paths import config_dir

_TYPES: dict[str, Any] = {
    **dict.fromkeys(("seed", "num_samples", "num_images", "first", "second", "steps", "label", "num_workers"), int),
    **dict.fromkeys(("num_steps", "warmup_steps", "top_k", "max_new_tokens", "batch_size", "k"), int),
    **dict.fromkeys(("top_p", "temperature", "truncation", "shard_mib", "max_minutes"), float),
    **dict.fromkeys(
        (
            "adapt_to_data",
            "head",
            "baseline",
            "baselines",
            "overwrite",
            "private",
            "force",
            "compile",
            "activation_checkpointing",
        ),
        bool,
    ),
    **dict.fromkeys(("split", "format", "push_to_hub", "select", "resume", "objective"), str),
    **dict.fromkeys(("evaluate_every_n_epochs", "evaluate_max_train_samples", "pictures_every_n_epochs"), int | None),
    **{"save_every_n_minutes": float | None, "save_every_n_steps": int | None},
    **{"seeds": list[int], "splits": list[str], "metric": Mapping, "columns": Mapping},
}
"""Types that each setting takes; also null where that is its default."""


def check_own_settings(name: str, cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse values of a wrong type, and settings that would have no effect.

    Args:
        name: The command.
        cfg: Its configuration.
        overrides: Its arguments.

    Raises:
        ValueError: Naming the setting and what was found.
    """
    defaults = _defaults(name)
    for key, hint in _TYPES.items():
        if (
            key in cfg
            and not OmegaConf.is_missing(cfg, key)
            and not (cfg[key] is None and defaults.get(key, 0) is None)
        ):
            check_value(key, cfg[key], hint)
    for key in ("seed", "seeds"):
        found = None if OmegaConf.is_missing(cfg, key) else cfg.get(key)
        if any(not 0 <= seed < 1 << 32 for seed in ([found] if isinstance(found, int) else found or ())):
            raise ValueError(
                f"Cannot use {key}={found}: a seed is a number from 0 to {(1 << 32) - 1}. Choose such numbers."
            )
    for override in overrides:
        key = override.partition("=")[0]
        top = re.split(r"[./\[]", key.lstrip("+").rpartition("@")[2])[0]
        if re.fullmatch(r"(evaluation\.\w+\.)?data\.seed", key.lstrip("+")):
            raise ValueError(f"{override} has no effect: the order of samples comes from seed=. Set seed instead.")
        if key.startswith("+") and top not in {*defaults, "hydra", "_global_", ""} and not _refers_to(cfg, top):
            raise ValueError(
                f"{override} has no effect: ssl-lab {name} reads no setting {top!r}, and none refers to it as ${{{top}}}. "
                "Leave it out."
            )


@cache
def _defaults(name: str) -> dict[str, Any]:
    """The command's settings with their defaults, and a place for each of its groups."""
    own = OmegaConf.load(config_dir() / f"{name}.yaml")
    assert isinstance(own, DictConfig)
    found: dict[str, Any] = {}
    for entry in own.pop("defaults", []):
        if isinstance(entry, DictConfig):
            found |= {re.sub("^(override|optional) ", "", str(key)).rpartition("@")[2]: ... for key in entry}
        elif entry != "_self_":
            found |= _defaults(entry)
    return {**found, **{str(key): own._get_node(key)._value() for key in own}}  # type: ignore[union-attr]


def _refers_to(cfg: DictConfig, top: str) -> bool:
    pattern = re.compile(rf"\$\{{\s*{re.escape(top)}\s*[}}.\[]")
    return any(pattern.search(text) for text in _texts(OmegaConf.to_container(cfg)))


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    for below in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _texts(below)
