"""Monitors of a training run: non-finite losses, random streams, throughput."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from ssl_lab import distributed
from ssl_lab.engine.steps import log_interval, steps_done
from ssl_lab.methods.base import Method
from ssl_lab.runs.directory import LAST_CHECKPOINT
from ssl_lab.types import Batch


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite."""


def remedy(trainer: L.Trainer) -> str:
    """Suggest a remedy for non-finite losses; several optimizers that step by turns cannot be clipped."""
    clip = "clip with trainer.gradient_clip_val=1, " if trainer.lightning_module.automatic_optimization else ""
    return f"Lower optim.lr, {clip}or use trainer.precision=32-true."


class StopOnNonFiniteLoss(Callback):
    """Stops training when the loss is NaN or infinite, before a checkpoint could be overwritten.

    The first bad step is remembered on the device; the host looks at it every ``log_every_n_steps`` steps and before
    each checkpoint, so that the step itself never waits for the device.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing bad has happened yet."""
        self._first_bad = torch.tensor(-1, device=pl_module.device)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Remember the first bad step, and look every so often."""
        assert isinstance(pl_module, Method)
        step = steps_done(trainer)
        bad = ~torch.isfinite(pl_module.last_loss) & (self._first_bad < 0)
        self._first_bad = torch.where(bad, step, self._first_bad)
        if step % log_interval(trainer) == 0 or (distributed.world_size() == 1 and bad.device.type == "cpu"):
            self.check(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look before evaluation does."""
        self.check(trainer)

    def check(self, trainer: L.Trainer) -> None:
        """Raise on all ranks if any has seen a bad loss."""
        step = int(self._first_bad)
        if distributed.any_rank(step >= 0, self._first_bad.device):
            step = max(distributed.gather_objects(step))
            epoch, batch_idx = divmod(step - 1, int(trainer.num_training_batches))
            checkpoint = self.run_dir / LAST_CHECKPOINT
            kept = (
                f"The last good checkpoint is {checkpoint}" if checkpoint.is_file() else "No checkpoint was saved yet"
            )
            raise NonFiniteLossError(
                f"The loss became NaN or infinite at step {step} (epoch {epoch}, batch index {batch_idx}). {kept}. "
                f"{remedy(trainer)}"
            )
