"""Evaluation of a run: by what, how often, and the callback that looks at the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ssl_lab.data.base import DataModule
from ssl_lab.engine.checkpoints.sharded import gathered
from ssl_lab.engine.judge import write_descriptions
from ssl_lab.engine.logging.text_log import LOG
from ssl_lab.engine.steps import check_count, evaluation_due, optimizer_steps_done, steps_done
from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.evaluation.on_data import OnData, measures, on_split
from ssl_lab.evaluation.protocol import Protocol
from ssl_lab.measured import base_name
from ssl_lab.methods.base import Method


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a run: during training on the validation split, and at the end on the test split.

    Attributes:
        protocols: What measures; none for no evaluation.
        every_n_epochs: Epochs between two evaluations on the validation split, for protocols that do not say it themselves.
        max_train_samples: Of a larger train split, how many samples probes are fitted to during training; a fixed random
            part, None for all. The evaluation on the test split always takes all.
        objective: Metric that the summary names as the run's objective.
        baselines: Whether raw input and the encoder before training are judged at the end, too.

    Raises:
        ValueError: If a number is below 1.
    """

    protocols: Sequence[Protocol] = ()
    _: KW_ONLY
    every_n_epochs: int = 10
    max_train_samples: int | None = 10_000
    objective: str | None = None
    baselines: bool = True

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_count("evaluate_every_n_epochs", self.every_n_epochs)
        check_count("evaluate_max_train_samples", self.max_train_samples, none="all samples")

    def cadence_of(self, protocol: Protocol) -> int:
        """Epochs between two evaluations by a protocol."""
        own = protocol.every_n_epochs if isinstance(protocol, OnData) else None
        return self.every_n_epochs if own is None else own

    def cadence_of_metric(self, metric: str) -> int:
        """Epochs between two evaluations that measure a metric, ``eval/knn/top1``."""
        name = base_name(metric.partition("/")[2])
        return next((self.cadence_of(p) for p in self.protocols if measures(p, name)), self.every_n_epochs)


class EvaluateDuringTraining(Callback):
    """Runs protocols on the validation split every few epochs and logs ``eval/<protocol>/<metric>``.

    Those whose data have no such split are left out. All run after the last epoch.
    """

    def __init__(self, datamodule: DataModule, evaluation: Evaluation) -> None:
        self.datamodule = datamodule
        self.evaluation = evaluation
        self.protocols = on_split(evaluation.protocols, datamodule, "val")
        self.step = -1  # steps done at the last evaluation

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate if it is time; the loss and the random streams of training stay untouched."""
        assert isinstance(pl_module, Method)
        due = [p for p in self.protocols if evaluation_due(trainer, self.evaluation.cadence_of(p))]
        if due or evaluation_due(trainer, self.evaluation.every_n_epochs):
            metrics = self.evaluate(gathered(trainer, pl_module), due)
            pl_module.log_dict(metrics)
            self.step = steps_done(trainer)
            if trainer.is_global_zero:
                write_descriptions(Path(trainer.default_root_dir), self.evaluation.protocols, metrics)
            found = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            LOG.info("step %d: %s", optimizer_steps_done(trainer), found or "not evaluated")

    def evaluate(self, method: Method, protocols: Sequence[Protocol]) -> dict[str, float]:
        """Metrics of the validation split by name, ``eval/<protocol>/<metric>``."""
        metrics = evaluate(
            method.capabilities(),
            protocols,
            self.datamodule,
            device=method.device,
            split="val",
            max_train_samples=self.evaluation.max_train_samples,
        )
        return {f"eval/{name}": value for name, value in metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        """When the last evaluation was."""
        return {"step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from it."""
        self.step = state_dict["step"]
