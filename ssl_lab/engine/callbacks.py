"""What watches over a training run: non-finite losses, random streams, throughput."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import ModelParallelStrategy

from ssl_lab import distributed
from ssl_lab.data.base import DataModule
from ssl_lab.engine.flops import FlopCounter, num_elements, peak_flops
from ssl_lab.engine.run_dir import LAST_CHECKPOINT
from ssl_lab.methods.base import Method
from ssl_lab.types import Batch

_OF_ALL_LIVES = ("num_samples", "training_time_sec", "evaluation_time_sec", "wall_time_sec")


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite."""


def steps_done(trainer: L.Trainer) -> int:
    """Batches trained on so far, whatever the number of optimizers."""
    return trainer.fit_loop.total_batch_idx + 1


def optimizer_steps_done(trainer: L.Trainer) -> int:
    """Steps as all files and loggers count them: of the optimizer, or batches where several optimizers take turns."""
    method = trainer.lightning_module
    return trainer.global_step if method is None or method.automatic_optimization else steps_done(trainer)


def log_interval(trainer: L.Trainer) -> int:
    """Steps between two logged rows."""
    return max(1, int(trainer.log_every_n_steps))  # type: ignore[attr-defined]


def is_last_epoch(trainer: L.Trainer) -> bool:
    """Whether training ends with this epoch."""
    enough_steps = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    return enough_steps or trainer.current_epoch + 1 == trainer.max_epochs


def evaluation_due(trainer: L.Trainer, every_n_epochs: int) -> bool:
    """Whether the epoch that ends is one after which to look at the validation split: every n-th, and the last."""
    return (trainer.current_epoch + 1) % every_n_epochs == 0 or is_last_epoch(trainer)


def has_split(datamodule: DataModule, split: str) -> bool:
    """Whether the data has such a split: ``val`` to look at during training, ``test`` to judge the end on."""
    try:
        datamodule.columns(split)
    except ValueError:
        return False
    return True


def remedy(trainer: L.Trainer) -> str:
    """What helps against losses that are not finite; several optimizers that step by turns cannot be clipped."""
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
        if "cuda" in states[rank] and torch.cuda.is_available():
            torch.cuda.set_rng_state(states[rank]["cuda"])

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
        if pl_module.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state()
        checkpoint["data"] = self.data
        checkpoint["random_states"] = distributed.gather_objects(state)
        checkpoint["data_position"] = trainer.train_dataloader.state_dict()  # type: ignore[union-attr]

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep both until training starts."""
        self._restored = checkpoint["random_states"]
        self._position = checkpoint["data_position"]


class Throughput(Callback):
    """Logs ``optim/lr``, ``perf/samples_per_sec`` (all ranks) and ``perf/data_wait_frac`` over each logging interval.

    ``perf/tflops`` are floating-point operations in 1e12 a second of this process, counted by torch in the first step, and
    ``perf/mfu`` their share of the GPU's peak. ``perf/memory_gib`` is the most main memory that the process has held so
    far, ``perf/gpu_memory_gib`` the most that tensors have held on its GPU.

    For text also ``perf/tokens_per_sec`` without padding, counted on the device and read at the end of an interval. Beside
    them stand the data module's own figures, such as ``data/padding_share``.
    Time between epochs, which evaluation and pictures take, counts neither as training nor as waiting:
    ``perf/evaluation_frac`` is its share of the time since training started.

    Samples and times continue in each life of a run from those of its checkpoint.
    """

    def __init__(self, datamodule: DataModule) -> None:
        self.datamodule = datamodule
        self.num_samples = 0
        self.training_time_sec = 0.0
        self.evaluation_time_sec = 0.0
        self._flops = FlopCounter()
        self._counts_flops = True
        self._life_start = time.perf_counter()
        self._earlier_lives_sec = 0.0

    @property
    def wall_time_sec(self) -> float:
        """Duration of all lives, as far as they led to where the run is."""
        return self._earlier_lives_sec + time.perf_counter() - self._life_start

    def state_dict(self) -> dict[str, Any]:
        """Samples and times so far."""
        return {name: getattr(self, name) for name in _OF_ALL_LIVES}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from them."""
        self.num_samples = state_dict["num_samples"]
        self.training_time_sec = state_dict["training_time_sec"]
        self.evaluation_time_sec = state_dict["evaluation_time_sec"]
        self._earlier_lives_sec = state_dict["wall_time_sec"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._window_samples, self._waited = 0, 0.0
        self._window_tokens: torch.Tensor | None = None
        self._data_metrics = dict(self.datamodule.metrics())
        self._flops_per_element, self._window_elements = 0.0, 0
        device = pl_module.device
        self._peak_flops = peak_flops(device, str(trainer.precision)) if device.type == "cuda" else None
        self._window_start = self._batch_end = time.perf_counter()
        self._train_start = self._batch_end - self.training_time_sec

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Count no further operations."""
        self._flops.stop()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave out what passed since the last epoch's last batch."""
        pause = self._pause()
        self._window_start += pause
        self._train_start += pause

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count what followed the last batch."""
        self._pause()

    def _pause(self) -> float:
        now = time.perf_counter()
        pause = now - self._batch_end
        self.evaluation_time_sec += pause
        self._batch_end = now
        return pause

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """What passed since the last batch ended was spent waiting for data."""
        self._waited += time.perf_counter() - self._batch_end
        if self._counts_flops and not isinstance(trainer.strategy, ModelParallelStrategy):  # whose gathers it miscounts
            self._flops.start()
        self._counts_flops = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Log at the end of each interval."""
        count = len(batch["index"]) * distributed.world_size()
        if counted := self._flops.stop():
            self._flops_per_element = counted / num_elements(batch)
        self._window_elements += num_elements(batch)
        self.num_samples += count
        self._window_samples += count
        if "attention_mask" in batch:
            num_tokens = batch["attention_mask"].sum()
            self._window_tokens = num_tokens if self._window_tokens is None else self._window_tokens + num_tokens
        now = self._batch_end = time.perf_counter()
        self.training_time_sec = now - self._train_start
        if steps_done(trainer) % log_interval(trainer) == 0:
            elapsed = max(now - self._window_start, 1e-9)
            pl_module.log("perf/samples_per_sec", self._window_samples / elapsed, prog_bar=True)
            pl_module.log("perf/data_wait_frac", self._waited / elapsed)
            whole = self.training_time_sec + self.evaluation_time_sec
            pl_module.log("perf/evaluation_frac", self.evaluation_time_sec / max(whole, 1e-9))
            if self._window_tokens is not None:
                pl_module.log("perf/tokens_per_sec", distributed.reduce_sum(self._window_tokens) / elapsed)
                self._window_tokens = None
            flops = self._flops_per_element * self._window_elements / elapsed
            if flops:
                pl_module.log("perf/tflops", flops / 1e12)
            if flops and self._peak_flops:
                pl_module.log("perf/mfu", flops / self._peak_flops)
            pl_module.log_dict({**_memory(pl_module.device), **self._data_metrics})
            pl_module.log("optim/lr", trainer.optimizers[0].param_groups[0]["lr"])
            self._window_start, self._waited = now, 0.0
            self._window_samples = self._window_elements = 0


def _memory(device: torch.device) -> dict[str, float]:
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    found = {"perf/memory_gib": kib / 2**20}
    if device.type == "cuda":
        found["perf/gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return found
