"""What watches over a training run: checkpoints, signals, non-finite losses, random streams, throughput."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from ssl_lab import distributed
from ssl_lab.data.base import DataModule
from ssl_lab.engine.run_dir import BEST_CHECKPOINT, LAST_CHECKPOINT
from ssl_lab.methods.base import Method
from ssl_lab.types import Batch


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite."""


class InterruptedRunError(RuntimeError):
    """A signal asked the run to stop; its state was saved."""


def steps_done(trainer: L.Trainer) -> int:
    """Batches trained on so far, whatever the number of optimizers."""
    return trainer.fit_loop.total_batch_idx + 1


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


def has_validation_split(datamodule: DataModule) -> bool:
    """Whether there is anything to look at during training."""
    try:
        datamodule.columns("val")
    except ValueError:
        return False
    return True


def _remedy(trainer: L.Trainer) -> str:
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
                f"{_remedy(trainer)}"
            )


class SaveCheckpoint(Callback):
    """Keeps ``checkpoints/last.ckpt`` up to date: every few minutes, at the end, and when a signal asks to stop.

    SIGINT and SIGTERM only set a flag; all ranks agree at the end of a batch, save together, and stop. A second SIGINT
    stops at once.

    Args:
        run_dir: The run directory.
        guard: Asked before each save, so that a good checkpoint is never overwritten by a bad one.
        every_n_minutes: Time between periodic saves.
    """

    def __init__(self, run_dir: Path, guard: StopOnNonFiniteLoss, *, every_n_minutes: float = 10.0) -> None:
        self.path = run_dir / LAST_CHECKPOINT
        self.guard = guard
        self.every_n_minutes = every_n_minutes
        self._signal: str | None = None
        self._previous_handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the signals, where this thread may; Lightning has set its own handlers before."""
        self._last_save = time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous_handlers[number] = signal.signal(number, self._on_signal)
            except ValueError:  # not the main thread, as in some notebooks: signals stay as they are
                return

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._give_back()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number).name

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Save if a signal came, the time is up or training ends; ranks talk to each other only every so often.

        Never between two batches whose gradients are accumulated: a checkpoint does not hold gradients.
        """
        step = steps_done(trainer)
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return
        if is_last_epoch(trainer) and (trainer.is_last_batch or trainer.global_step >= trainer.max_steps > 0):
            self.save(trainer)  # before the last evaluation, which may fail
        if distributed.world_size() > 1 and step % log_interval(trainer):
            return
        stop = distributed.any_rank(self._signal is not None, pl_module.device)
        due = time.monotonic() - self._last_save > 60 * self.every_n_minutes
        if stop or distributed.any_rank(due, pl_module.device):
            self.save(trainer)
        if stop:
            raise InterruptedRunError(
                f"{self._signal or 'A signal'} stopped the run at step {step}; its state is in {self.path}. Continue with "
                f"the same command and run_dir={self.path.parents[1]} ckpt=last."
            )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the final state."""
        self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write beside, flush to the disk, and rename; never weights that are not finite."""
        self.guard.check(trainer)
        parameters = list(trainer.lightning_module.parameters())
        finite = bool(torch.stack([torch.isfinite(distributed.own_shard(p)).all() for p in parameters]).all())
        if distributed.any_rank(not finite, parameters[0].device):
            raise NonFiniteLossError(
                f"Weights became NaN or infinite by step {steps_done(trainer)}, though the loss was finite; they were not "
                f"saved. {_remedy(trainer)}"
            )
        _write_checkpoint(trainer, self.path)
        self._last_save = time.monotonic()


class KeepBest(Callback):
    """Keeps the weights with the highest value of a metric of the validation split in ``checkpoints/best.ckpt``.

    Of equal values the first one counts. Stands after the callback that evaluates.

    Args:
        run_dir: The run directory.
        metric: Name of the metric, ``eval/...``.
    """

    def __init__(self, run_dir: Path, metric: str) -> None:
        self.path = run_dir / BEST_CHECKPOINT
        self.metric = metric
        self.best: float | None = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if the metric has risen.

        Raises:
            ValueError: If training ends and nothing was measured.
        """
        self.look(trainer, {name: float(value) for name, value in trainer.callback_metrics.items()})
        if self.best is None and is_last_epoch(trainer):
            raise ValueError(
                f"The checkpoint with the best {self.metric} was asked for, but nothing was measured on the val split. Give "
                "data whose val split has labels, or select=last."
            )

    def look(self, trainer: L.Trainer, metrics: Mapping[str, float]) -> None:
        """Save if the metric has risen.

        Raises:
            ValueError: If others of the validation split were measured instead.
        """
        measured = sorted(name for name in metrics if name.startswith("eval/"))
        if measured and self.metric not in metrics:
            raise ValueError(
                f"The checkpoint with the best {self.metric} was asked for, but measured were {', '.join(measured)}. Set "
                "objective to one of them, or select=last."
            )
        if measured and (self.best is None or metrics[self.metric] > self.best):
            self.best = metrics[self.metric]
            _write_checkpoint(trainer, self.path, weights_only=True)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from it."""
        self.best = state_dict["best"]


def _write_checkpoint(trainer: L.Trainer, path: Path, *, weights_only: bool = False) -> None:
    """Write beside, flush to the disk, and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    trainer.save_checkpoint(temporary, weights_only=weights_only)
    if trainer.is_global_zero:
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    distributed.barrier()


class ExactPosition(Callback):
    """Carries random streams and the position in the data through checkpoints; gives every rank its own stream.

    The model is built from the same seed on all ranks; from the start of training rank r draws views, masks and latents
    from ``seed + r``. A resumed run goes on where its streams were, with the very next batch. (Lightning stores the
    loader's position but restores it only if nothing has asked for the number of steps before, which schedules do.)
    """

    def __init__(self) -> None:
        self._restored: list[dict[str, torch.Tensor]] | None = None
        self._position: dict[str, int] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the position in the data; seed or restore the streams."""
        if self._position is not None:
            trainer.train_dataloader.load_state_dict(self._position)  # type: ignore[union-attr]
        states, rank = self._restored, distributed.rank()
        if states is None or rank >= len(states):
            torch.manual_seed((torch.initial_seed() + rank) % 2**63)
            return
        torch.set_rng_state(states[rank]["cpu"])
        if "cuda" in states[rank] and torch.cuda.is_available():
            torch.cuda.set_rng_state(states[rank]["cuda"])

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the streams of all ranks and the position."""
        state = {"cpu": torch.get_rng_state()}
        if pl_module.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state()
        checkpoint["random_states"] = distributed.gather_objects(state)
        checkpoint["data_position"] = trainer.train_dataloader.state_dict()  # type: ignore[union-attr]

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep both until training starts."""
        self._restored = checkpoint["random_states"]
        self._position = checkpoint["data_position"]


class Throughput(Callback):
    """Logs ``optim/lr``, ``perf/samples_per_sec`` (all ranks) and ``perf/data_wait_frac`` over each logging interval.

    For text also ``perf/tokens_per_sec`` without padding, counted on the device and read at the end of an interval. Beside
    them stand the data module's own figures, such as ``data/padding_share``.
    Time between epochs, which evaluation and pictures take, counts neither as training nor as waiting.
    """

    def __init__(self, datamodule: DataModule) -> None:
        self.datamodule = datamodule
        self.num_samples = 0
        self.training_time_sec = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._window_start = self._batch_end = self._train_start = time.perf_counter()
        self._window_samples, self._waited = 0, 0.0
        self._window_tokens: torch.Tensor | None = None
        self._data_metrics = dict(self.datamodule.metrics())

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave out what passed since the last epoch's last batch."""
        now = time.perf_counter()
        pause = now - self._batch_end
        self._window_start += pause
        self._train_start += pause
        self._batch_end = now

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """What passed since the last batch ended was spent waiting for data."""
        self._waited += time.perf_counter() - self._batch_end

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Log at the end of each interval."""
        count = len(batch["index"]) * distributed.world_size()
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
            if self._window_tokens is not None:
                pl_module.log("perf/tokens_per_sec", distributed.reduce_sum(self._window_tokens) / elapsed)
                self._window_tokens = None
            pl_module.log_dict(self._data_metrics)
            pl_module.log("optim/lr", trainer.optimizers[0].param_groups[0]["lr"])
            self._window_start, self._window_samples, self._waited = now, 0, 0.0
