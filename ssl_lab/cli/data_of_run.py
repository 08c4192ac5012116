"""Data as the encoder of a run reads them, and data that it cannot read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig, open_dict

from ssl_lab.cli.arguments import literal
from ssl_lab.cli.build import build_data
from ssl_lab.cli.instantiate import class_of
from ssl_lab.data.base import DataModule
from ssl_lab.evaluation.on_data import by_data
from ssl_lab.evaluation.protocol import Protocol
from ssl_lab.methods.base import Method
from ssl_lab.runs.ways import LOADING
from ssl_lab.tasks.base import FineTuning
from ssl_lab.types import Spec


def check_same_data(run_dirs: Sequence[Path], cfgs: Sequence[DictConfig]) -> None:
    """Refuse to put runs side by side that were trained on different data.

    Raises:
        ValueError: Naming two runs whose data differ, in what, and the remedy.
    """
    first, *others = [{name: value for name, value in cfg.data.items() if name not in LOADING} for cfg in cfgs]
    for run_dir, other in zip(run_dirs[1:], others, strict=True):
        differing = [name for name in {**first, **other} if first.get(name) != other.get(name)]
        if differing:
            found = ", ".join(f"{name}: {first.get(name)} and {other.get(name)}" for name in differing)
            raise ValueError(
                f"One table of several runs needs the same data, but {run_dirs[0]} and {run_dir} differ in theirs ({found}). "
                "Give data=NAME to judge all of them on it, or evaluate them one by one."
            )


def data_for_run(cfg: DictConfig, run_dir: Path, spec: Spec, data: DictConfig | None) -> DataModule:
    """The run's own data, or other data, read as the run's encoder needs it.

    Raises:
        ValueError: If the encoder cannot read it.
    """
    datamodule = data_in_run(cfg, run_dir, spec, data)
    check_readable(spec, datamodule.spec)
    return datamodule


def data_in_run(cfg: DictConfig, run_dir: Path, spec: Spec, data: DictConfig | None) -> DataModule:
    """The same, whether the encoder can read it or not."""
    node: Any = (data if data is not None else cfg.data).copy()
    with open_dict(node):
        node.update(settings_in_run(node, run_dir, spec, None if data is None else cfg.data))
    return build_data(node, seed=cfg.seed)


def data_beside(cfg: DictConfig, datamodule: DataModule, data: DictConfig) -> DataModule:
    """Other data for a run that begins, read by the tokenizer of the run's own data, which no run directory holds yet."""
    with TemporaryDirectory() as folder:
        for name, artifact in datamodule.artifacts().items():
            artifact.save_pretrained(str(Path(folder, name)))
        found = data_in_run(cfg, Path(folder), datamodule.spec, data)
        found.artifacts()  # loaded while the folder is there
    return found


def check_readable(spec: Spec, found: Spec) -> None:
    """Refuse data that the encoder of a run cannot read.

    Raises:
        ValueError: Saying what it was trained on.
    """
    if not spec.accepts(found):
        raise ValueError(
            f"The run was trained on {spec}, but data= is {found}. Choose data of the same modality and number of channels: "
            "see ssl-lab list data."
        )


def settings_in_run(data: DictConfig, run_dir: Path, spec: Spec, own: DictConfig | None) -> dict[str, Any]:
    """Settings of data that the encoder of a run needs; see :meth:`DataModule.settings_in_run`."""
    kind = class_of(data)
    found = kind.settings_in_run(run_dir, spec, own) if issubclass(kind, DataModule) else {}
    return {name: literal(value) for name, value in found.items()}


def check_same_classes(method: Method, protocols: Sequence[Protocol], spec: Spec, datamodule: DataModule) -> None:
    """Refuse to score a classifier on labels of other classes than its own.

    Raises:
        ValueError: Naming both.
    """
    if not isinstance(method, FineTuning):
        return
    of_predictions = [protocol for protocol in protocols if protocol.needs != "features"]
    for data, _ in by_data(of_predictions, datamodule):
        for column in method.needs_columns:
            learned, found = spec.classes(column), data.spec.classes(column)
            if learned is not None and learned != found:
                names = "of no label" if found is None else ", ".join(found.names)
                raise ValueError(
                    f"The run's {type(method).__name__} tells {', '.join(learned.names)} apart, but {data.title} has the "
                    f"classes {names}. Choose data with the same classes, or an evaluation= of features."
                )
