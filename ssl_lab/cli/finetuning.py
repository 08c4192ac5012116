"""One training of ``ssl-lab finetune``: its start weights, seed and labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from hydra.types import RunMode
from omegaconf import DictConfig
from torch import Tensor

from ssl_lab import distributed
from ssl_lab.cli import build as config
from ssl_lab.cli.errors import explain
from ssl_lab.cli.starting import start_of
from ssl_lab.cli.training import build_training
from ssl_lab.data.base import DataModule
from ssl_lab.data.labelled import LabelledModule
from ssl_lab.encoders.lora import has_adapters, trained_words
from ssl_lab.engine.beginning import Beginning
from ssl_lab.engine.checkpoints.signals import is_first_rank
from ssl_lab.engine.logging.text_log import text_log
from ssl_lab.report.page import write_report
from ssl_lab.runs.directory import find_checkpoint, has_checkpoint, read_json, update_summary
from ssl_lab.runs.files import read_summary
from ssl_lab.tasks.base import FineTuning
from ssl_lab.types import Spec


@dataclass(frozen=True)
class Cell:
    """One training: start weights, seed and configuration."""

    start: str
    seed: int
    cfg: DictConfig

    @property
    def run_dir(self) -> Path:
        """Its run directory."""
        return Path(self.cfg.run_dir)


def train_cell(
    cell: Cell,
    args: Sequence[str],
    datamodule: DataModule,
    spec: Spec,
    weights: Mapping[str, Tensor] | None,
    *,
    resume: bool,
    alone: bool,
) -> dict[str, Any]:
    """Train one cell like any run, from its checkpoint or from scratch; returns its summary.

    A training that is replaced stays as it is until the new one has done its first step, and is kept in ``replaced/``.
    """
    cfg, run_dir = cell.cfg, cell.run_dir
    L.seed_everything(cell.seed, verbose=False)
    begin_with = start_of(cfg).load if weights is None else lambda encoder: encoder.load_state_dict(weights)
    method = config.build_method(cfg, spec, begin_with=begin_with)
    assert isinstance(method, FineTuning)
    method.check(datamodule.spec)
    training = build_training(
        cfg,
        run_dir,
        method,
        datamodule,
        mode=RunMode.RUN if alone else RunMode.MULTIRUN,
        keep_best=cfg.objective if cfg.select == "best" else None,
    )
    trainer = training.trainer
    checkpoint = find_checkpoint(run_dir) if resume and has_checkpoint(run_dir) else None
    beginning = _beginning(run_dir, anew=not resume)
    if trainer.is_global_zero:

        def write_settings() -> None:
            config.save_config(cfg, list(args), datamodule, run_dir, encoder=method.encoder, spec=method.encoder.spec)
            training.log_settings(cfg)
            pretraining = None if cfg.run is None else read_summary(Path(cfg.run), []).get("method")
            update_summary(run_dir, seed=cell.seed, start=cell.start, pretraining=pretraining, checkpoint=cfg.select)

        beginning.do(write_settings)
        print(
            f"{type(method).__name__} on {datamodule.title}, {_samples(datamodule)}, {cell.start} weights, seed {cell.seed}: "
            f"{run_dir}",
            flush=True,
        )
        if has_adapters(method.encoder):
            print(trained_words(method, method.encoder), flush=True)
    try:
        with text_log(run_dir, beginning) if trainer.is_global_zero else nullcontext():
            training.run(checkpoint, beginning=beginning)
    except Exception as error:
        if trainer.is_global_zero and beginning.done:
            update_summary(run_dir, error=explain(error, command="finetune"))  # with the line of the user's file
        raise
    finally:
        if trainer.is_global_zero and beginning.done and (run_dir / "summary.json").is_file():
            write_report(run_dir)
    distributed.barrier()
    return kept_values(run_dir)


def _beginning(run_dir: Path, *, anew: bool) -> Beginning:
    """Say when a training may write: at once, or after its first step if it replaces another one."""
    if not anew or not has_checkpoint(run_dir):
        return Beginning(run_dir)
    started = read_json(run_dir / "summary.json").get("started", "an unknown time")
    beginning = Beginning(run_dir, waits=True, forced=True, changes=[f"trained anew, in place of the run of {started}"])
    if is_first_rank():
        beginning.do(lambda: _clear_results(run_dir))
    return beginning


def _clear_results(run_dir: Path) -> None:
    """Remove results and checkpoints of another training, which ``replaced/`` keeps."""
    for path in [run_dir / "evaluation.json", *(run_dir / "checkpoints").glob("*.ckpt")]:
        path.unlink(missing_ok=True)


def _samples(datamodule: DataModule) -> str:
    """Describe the training samples in words; with the smallest and largest class where few labels are kept."""
    columns = datamodule.columns("train")
    words = f"{len(next(iter(columns.values()))):,} training samples"
    if not isinstance(datamodule, LabelledModule) or not datamodule.keeps_few("train"):
        return words
    counts = np.unique(np.asarray(columns["label"]), return_counts=True)[1]
    each = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    return f"{words} ({each} of each of {len(counts)} classes)"


def kept_values(run_dir: Path) -> dict[str, Any]:
    """Read the table's values of a finished training; metrics that are not finite as NaN.

    Raises:
        ValueError: If its summary lacks them.
    """
    summary = read_json(run_dir / "summary.json")
    metrics = summary.get("metrics")
    if not isinstance(metrics, dict) or not {"step", "training_time_sec"} <= set(summary):
        raise ValueError(
            f"Cannot take {run_dir} into the table: its summary.json says that it has finished, but holds no results. "
            "Restore the file, or give another run_dir=."
        )
    return {
        "metrics": {name: math.nan if value is None else value for name, value in metrics.items()},
        **{name: summary[name] for name in ("step", "training_time_sec")},
    }
