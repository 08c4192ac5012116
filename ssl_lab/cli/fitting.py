"""Decide whether ``method.fit`` may start in a run directory or resume there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ssl_lab.cli.arguments import literal
from ssl_lab.cli.resume import differences, refuse_fixed, refuse_other_files
from ssl_lab.engine.checkpoints.signals import is_first_rank
from ssl_lab.limited import load_json
from ssl_lab.methods.base import Method
from ssl_lab.runs.directory import write_json

FIT = "fit.json"
"""File of a run directory with the settings of a fit."""
_NO_SETTINGS = ("training", "prepare_data_per_node", "allow_zero_length_dataloader_with_multiple_devices")
_LONGEST = 16


def changes_of_fit(built: Mapping[str, Any], cfg: DictConfig, run_dir: Path) -> tuple[str, ...]:
    """Describe the settings that differ from those of the fit in a run directory; empty without one.

    Args:
        built: What the method was built with, by :func:`settings_of`.
        cfg: The settings of the command.
        run_dir: The run directory.

    Raises:
        ValueError: If some differ and ``force`` is not set, or the directory holds something else.
    """
    if not (run_dir / FIT).is_file():
        if (run_dir / "config.yaml").is_file():
            raise ValueError(
                f"Cannot fit in {run_dir}: it holds a run of ssl_lab.pretrain. Choose another run_dir=, or resume "
                "that run by ssl_lab.pretrain(run=...)."
            )
        if is_first_rank():
            refuse_other_files(run_dir)
        return ()
    kept = load_json(run_dir / FIT, within=run_dir)
    before, after = kept.get("method", {}), json.loads(json.dumps(built))  # with lists in place of tuples
    none = "nothing"
    rebuilt = [
        f"{name}: {before.get(name, none)}, now {after.get(name, none)}"
        for name in {**before, **after}
        if before.get(name, none) != after.get(name, none)
    ]
    settings = OmegaConf.create(literal(kept.get("settings", {})))
    changes = [*rebuilt, *differences(settings, cfg)]
    if changes and not cfg.force:
        more = f"; and {len(changes) - 6} more" if len(changes) > 6 else ""
        raise ValueError(
            f"Cannot resume {run_dir}: it holds a run with other settings: {'; '.join(changes[:6])}{more}. Choose another "
            "run_dir=, restore them, or resume with the new ones by force=True."
        )
    if changes:
        refuse_fixed(settings, cfg, run_dir)
    return tuple(changes)


def write_fit(built: Mapping[str, Any], cfg: DictConfig, run_dir: Path) -> None:
    """Keep the settings of a fit in its run directory."""
    write_json(run_dir / FIT, {"settings": OmegaConf.to_container(cfg, resolve=True), "method": built})


def settings_of(method: Method) -> dict[str, Any]:
    """The settings that a method was built with, by the names of its parts."""
    found: dict[str, Any] = {"method": type(method).__name__, "optim": str(method.optim)}
    for name, module in method.named_modules():
        if name:
            found[name] = type(module).__name__
        own = {key: value for key, value in vars(module).items() if key not in _NO_SETTINGS and not key.startswith("_")}
        found |= {".".join(filter(None, [name, key])): value for key, value in own.items() if _is_plain(value)}
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return len(value) <= _LONGEST and all(map(_is_plain, value))
    return value is None or isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value))
