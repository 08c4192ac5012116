"""Reading the facts of a run's data, whose classes are looked at before they are imported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ssl_lab.cli.trust.targets import check_targets
from ssl_lab.limited import load_json
from ssl_lab.runs.directory import SPEC
from ssl_lab.runs.moved import spec_of_today
from ssl_lab.types import Spec, restored

_OURS = re.compile(r"ssl_lab\.(types|modalities\.[a-z_]+)\.[A-Z]\w*")


def read_spec(run_dir: Path, settings: DictConfig, file: Path = SPEC) -> Spec:
    """The facts of the data that a run was trained on, as :func:`ssl_lab.runs.directory.write_spec` left them.

    Args:
        run_dir: The run directory.
        settings: Those of the run, which were looked at: facts may be of classes that stand beside theirs.
        file: The file of the run directory that holds them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds something else, or names what could run code.
    """
    path = run_dir / file
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}, which holds the facts of the run's data. Restore the file.")
    facts = spec_of_today(load_json(path))
    modules = {target.rpartition(".")[0] for target in _targets(OmegaConf.to_container(settings))}
    for target in _targets(facts):
        if not _OURS.fullmatch(str(target)) and str(target).rpartition(".")[0] not in modules:
            check_targets({"_target_": target}, str(path), data=True)
    try:
        spec = restored(facts)
    except (TypeError, ValueError, LookupError, AttributeError, ImportError) as error:
        raise ValueError(f"{path} does not hold the facts of a data set ({error}). Restore the file.") from error
    if not isinstance(spec, Spec):
        raise ValueError(f"{path} does not hold the facts of a data set, but {facts!r:.100}. Restore the file.")
    return spec


def _targets(node: Any) -> list[Any]:
    """All values of ``_target_`` below plain values."""
    if isinstance(node, dict):
        return [*([node["_target_"]] if "_target_" in node else []), *_targets(list(node.values()))]
    return [target for each in node for target in _targets(each)] if isinstance(node, list) else []
