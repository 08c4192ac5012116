"""Shared parts of ``ssl-lab pretrain`` and ``ssl-lab finetune``: from a configuration to a training that can run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ssl_lab.cli import build as config
from ssl_lab.cli.data_of_run import check_same_classes, data_beside
from ssl_lab.cli.ranks import check_processes, refuse_ranks_in_sweep
from ssl_lab.data.base import DataModule
from ssl_lab.engine import judge
from ssl_lab.engine.baselines import check_baselines
from ssl_lab.engine.callbacks.evaluation import Evaluation
from ssl_lab.engine.callbacks.pictures import Pictures
from ssl_lab.engine.checkpoints.saving import Saving
from ssl_lab.engine.checks import check_samples
from ssl_lab.engine.pretrain import pretrain
from ssl_lab.methods.base import Method


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training whose settings fit together, before anything of it is written.

    Attributes:
        method: What is trained.
        datamodule: The data.
        trainer: The trainer, which knows the run directory.
        evaluation: How it is judged.
        pictures: How often pictures are drawn.
        saving: How often checkpoints are saved.
    """

    method: Method
    datamodule: DataModule
    trainer: L.Trainer
    evaluation: Evaluation
    pictures: Pictures
    saving: Saving

    def log_settings(self, cfg: DictConfig) -> None:
        """Send the configuration to the loggers."""
        for logger in self.trainer.loggers:
            logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]

    def run(self, checkpoint: Path | None, **settings: Any) -> dict[str, float]:
        """Train and judge, from a checkpoint or from scratch; ``settings`` are more arguments of :func:`pretrain`."""
        return pretrain(
            self.method,
            self.datamodule,
            self.trainer,
            evaluation=self.evaluation,
            pictures=self.pictures,
            saving=self.saving,
            ckpt_path=checkpoint,
            **settings,
        )


def build_training(
    cfg: DictConfig,
    run_dir: Path,
    method: Method,
    datamodule: DataModule,
    *,
    mode: RunMode | None,
    objective: str | None = None,
    keep_best: str | None = None,
    **sweep: str,
) -> Training:
    """Build protocols, cadences and trainer, and refuse what cannot be measured or started.

    Args:
        cfg: The configuration; cadences that it does not have keep their defaults, and without one there are no pictures.
        run_dir: The run directory.
        method: What is trained.
        datamodule: The data.
        mode: Whether the training is one of several in this process.
        objective: Metric that the summary names.
        keep_best: Metric that chooses the checkpoint that is judged.
        **sweep: Launcher and sweeper of a sweep, as :func:`refuse_ranks_in_sweep` takes them.

    Raises:
        ValueError: If a cadence is no number of epochs, batches or minutes, a protocol needs what the method or the data
            do not offer, or the trainer needs processes that there cannot be.
    """
    evaluation = Evaluation(
        config.build_protocols(cfg.evaluation, partial(data_beside, cfg, datamodule)),
        every_n_epochs=cfg.evaluate_every_n_epochs,
        max_train_samples=cfg.get("evaluate_max_train_samples", Evaluation.max_train_samples),
        objective=objective,
        baselines=cfg.get("baselines", Evaluation.baselines),
    )
    pictures = Pictures(every_n_epochs=cfg.get("pictures_every_n_epochs"))
    saving = Saving(
        every_n_minutes=cfg.save_every_n_minutes, every_n_steps=cfg.get("save_every_n_steps"), keep_best=keep_best
    )
    judge.check_needs(method, evaluation.protocols, datamodule)
    check_same_classes(method, evaluation.protocols, datamodule.spec, datamodule)
    if not evaluation.baselines:
        check_baselines(evaluation.protocols, datamodule)
    trainer = config.build_trainer(cfg, run_dir, progress_bar=sys.stdout.isatty())
    check_processes(trainer)
    refuse_ranks_in_sweep(trainer, mode, **sweep)
    check_samples(method, datamodule, trainer.world_size)
    return Training(
        method=method,
        datamodule=datamodule,
        trainer=trainer,
        evaluation=evaluation,
        pictures=pictures,
        saving=saving,
    )
