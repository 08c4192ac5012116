"""Random streams and the position in the data, carried through checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from ssl_lab import distributed
from ssl_lab.devices import random_state, set_random_state
from ssl_lab.engine.steps import optimizer_steps_done, steps_done
from ssl_lab.types import Batch


class ExactPosition(Callback):
    """Carries random streams and the position in the data through checkpoints; gives every rank its own stream.

    The model is built from the same seed on all ranks; from the start of training rank r draws views, masks and latents
    from ``seed + r``. A resumed run restores its streams, with the very next batch. (Lightning stores the
    loader's position but restores it only if nothing has asked for the number of steps before, which schedules do.)

    Args:
        data: Fingerprint of the data, which is stored beside the position in them.
    """

    def __init__(self, data: Mapping[str, str]) -> None:
        self.data = dict(data)
        self._restored: list[dict[str, torch.Tensor]] | None = None
        self._position: dict[str, int] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the position in the data; seed or restore the streams."""
        self._take_position(trainer)
        trainer.fit_loop.epoch_loop._batches_that_stepped = optimizer_steps_done(trainer)
        states, rank = self._restored, distributed.rank()
        if states is None or rank >= len(states):
            torch.manual_seed((torch.initial_seed() + rank) % 2**63)
            return
        torch.set_rng_state(states[rank]["cpu"])
        kind = pl_module.device.type
        if kind != "cpu" and kind in states[rank]:
            set_random_state(pl_module.device, states[rank][kind])

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare sizes with the checkpoint's even where no step was left to do."""
        self._take_position(trainer)

    def _take_position(self, trainer: L.Trainer) -> None:
        if self._position is not None and trainer.train_dataloader is not None:
            trainer.train_dataloader.load_state_dict(self._position)
            self._position = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Give the step that loggers write its number, which Lightning loses by 1 when a run resumes twice."""
        done = trainer.global_step if pl_module.automatic_optimization else steps_done(trainer) - 1
        trainer.fit_loop.epoch_loop._batches_that_stepped = done

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the streams of all ranks and the position.

        The batch is over: Lightning counts it later than it saves, and would leave out the end of an epoch, with what is
        measured there, where the run resumes from its last batch.
        """
        for progress in checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"].values():
            if isinstance(progress, dict):
                progress["completed"] = progress["processed"]
        state = {"cpu": torch.get_rng_state()}
        on_device = random_state(pl_module.device)
        if on_device is not None:
            state[pl_module.device.type] = on_device
        checkpoint["data"] = self.data
        checkpoint["random_states"] = distributed.gather_objects(state)
        checkpoint["data_position"] = trainer.train_dataloader.state_dict()  # type: ignore[union-attr]

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep both until training starts."""
        self._restored = checkpoint["random_states"]
        self._position = checkpoint["data_position"]
