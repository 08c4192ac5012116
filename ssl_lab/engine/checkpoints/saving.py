"""Checkpoints: when and how they are written so that a crash at any moment loses nothing."""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback

from ssl_lab import distributed
from ssl_lab.engine.callbacks.non_finite import NonFiniteLossError, StopOnNonFiniteLoss, remedy
from ssl_lab.engine.checkpoints.checkpoint import read_checkpoint
from ssl_lab.engine.checkpoints.signals import STOP_SIGNALS, InterruptedRunError
from ssl_lab.engine.logging.loggers import MetricsFile
from ssl_lab.engine.logging.text_log import LOG
from ssl_lab.engine.steps import check_count, evaluation_due, is_last_epoch, log_interval, steps_done
from ssl_lab.files import flush_to_disk
from ssl_lab.runs.directory import BEST_CHECKPOINT, LAST_CHECKPOINT, PREVIOUS_CHECKPOINT
from ssl_lab.types import Batch

_BEST = "best_value"
_LOOK_EVERY_SEC = 2.0
_RETRY_SEC = 30.0  # after a checkpoint that could not be written; twice as long after each further one


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Settings for how often a run saves a checkpoint, and which one it evaluates at the end.

    Attributes:
        every_n_minutes: Minutes between checkpoints; 0 to save whenever the time is looked at.
        every_n_steps: Batches between checkpoints; None for time alone.
        keep_best: Metric of the validation split, ``eval/...``, whose highest value chooses the checkpoint that is judged
            on the test split; None for the last one.

    Raises:
        ValueError: If the minutes are negative or NaN, or the batches fewer than 1.
    """

    every_n_minutes: float = 10.0
    every_n_steps: int | None = None
    keep_best: str | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.every_n_minutes is None or not self.every_n_minutes >= 0:
            found = "null" if self.every_n_minutes is None else self.every_n_minutes
            raise ValueError(f"Cannot use save_every_n_minutes={found}. Set it to 0 or more.")
        check_count("save_every_n_steps", self.every_n_steps, none="saving by time alone")


class SaveCheckpoint(Callback):
    """Keeps ``checkpoints/last.ckpt`` up to date: every few minutes or steps, at the end, and when a signal asks to stop.

    The one before stays as ``previous.ckpt``. SIGINT, SIGTERM and SIGUSR1 only set a flag; all ranks agree at the end of a
    batch, save together, and stop. A second SIGINT stops at once. A checkpoint that cannot be written, such as on a full
    disk, is one warning, and the last one stays. Training continues, and tries again after half a minute, then after twice as
    long each time, up to ``every_n_minutes``.

    Args:
        run_dir: The run directory.
        guard: Asked before each save, so that a good checkpoint is never overwritten by a bad one.
        every_n_minutes: Time between periodic saves.
        every_n_steps: Batches between periodic saves; None for time alone.
        last_is_damaged: Whether the run resumes from ``previous.ckpt``, which the damaged one then must not replace.
    """

    def __init__(
        self,
        run_dir: Path,
        guard: StopOnNonFiniteLoss,
        *,
        every_n_minutes: float = 10.0,
        every_n_steps: int | None = None,
        last_is_damaged: bool = False,
    ) -> None:
        self.last_is_damaged = last_is_damaged
        self.run_dir = run_dir
        self.guard = guard
        self.every_n_minutes = every_n_minutes
        self.every_n_steps = every_n_steps
        self._num_failures = 0  # since the last checkpoint that was written
        self._signal: str | None = None
        self._previous_handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the signals, where this thread may; Lightning has set its own handlers before."""
        self._tried_at, self._saved_step = time.monotonic(), steps_done(trainer)
        self._looked_at, self._looked_step, self._next_look = self._tried_at, self._saved_step, 0
        for number in STOP_SIGNALS:
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
        """Save if a signal came, it is time or training ends.

        Never between two batches whose gradients are accumulated: a checkpoint does not hold gradients.
        """
        step = steps_done(trainer)
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return
        ends = is_last_epoch(trainer) and (trainer.is_last_batch or trainer.global_step >= trainer.max_steps > 0)
        counted = self.every_n_steps if self._num_failures == 0 else None  # else time decides, on all ranks alike
        if ends or (counted and step - self._saved_step >= counted):
            self._save_after_step(trainer)  # at the end before the last evaluation, which may fail
        stop, due = self._look(trainer, step)
        if due and not stop:
            self._save_after_step(trainer)
        if stop:
            saved = self._save_after_step(trainer)
            state = f"in {self.run_dir / LAST_CHECKPOINT}" if saved else "lost, the checkpoint before stays"
            raise InterruptedRunError(
                f"{stop} stopped the run at step {step}; its state is {state}. Continue with ssl-lab pretrain "
                f"run={self.run_dir}.",
                stop,
            )

    def _look(self, trainer: L.Trainer, step: int) -> tuple[str | None, bool]:
        """Return the signal that any rank received, and whether a save is due; ranks talk about every two seconds."""
        now = time.monotonic()
        wait = 60 * self.every_n_minutes
        if self._num_failures:
            wait = min(wait, _RETRY_SEC * 2 ** (self._num_failures - 1))
        due = now - self._tried_at > wait
        if distributed.world_size() == 1:
            return self._signal, due
        if step < self._next_look:
            return None, False
        seconds = (now - self._looked_at) / max(step - self._looked_step, 1)
        names = [None, *(number.name for number in STOP_SIGNALS)]
        facts = torch.zeros(len(names) + 2, device=trainer.strategy.root_device)
        facts[names.index(self._signal)] = 1
        facts[-2], facts[-1] = float(due), seconds
        total = distributed.reduce_sum(facts).tolist()
        every = int(_LOOK_EVERY_SEC * distributed.world_size() / max(total[-1], 1e-9))
        self._looked_at, self._looked_step = now, step
        self._next_look = step + min(max(every, 1), log_interval(trainer))
        came = [name for name, count in zip(names[1:], total[1:-2], strict=True) if count > 0]
        return (came[0] if came else None), total[-2] > 0

    def _save_after_step(self, trainer: L.Trainer) -> bool:
        """Save, with the step's metrics in metrics.csv, which Lightning would log a moment later; whether it went well."""
        trainer._logger_connector.update_train_step_metrics()
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.flush()
        return self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the final state, and stop before the evaluation if a signal came during the last one."""
        self.save(trainer, must=True)
        came = [name for name in distributed.gather_objects(self._signal) if name is not None]
        if came:
            raise InterruptedRunError(
                f"{came[0]} stopped the run at its end, before it was judged. Continue with ssl-lab pretrain "
                f"run={self.run_dir}.",
                came[0],
            )

    def save(self, trainer: L.Trainer, *, must: bool = False) -> bool:
        """Save finite weights (write beside, flush to disk, rename) and return whether it went well.

        Raises:
            NonFiniteLossError: If they are not; the last checkpoint stays.
            OSError: If the state cannot be written, and ``must`` be.
        """
        self.guard.check(trainer)
        parameters = list(trainer.lightning_module.parameters())
        finite = bool(torch.stack([torch.isfinite(distributed.own_shard(p)).all() for p in parameters]).all())
        if distributed.any_rank(not finite, parameters[0].device):
            raise NonFiniteLossError(
                f"Weights became NaN or infinite by step {steps_done(trainer)}, though the loss was finite; they were not "
                f"saved. {remedy(trainer)}"
            )
        step = steps_done(trainer)
        keep = step != self._saved_step and not self.last_is_damaged
        previous = self.run_dir / PREVIOUS_CHECKPOINT if keep else None
        reason = _write_checkpoint(trainer, self.run_dir / LAST_CHECKPOINT, previous=previous)
        self._tried_at = time.monotonic()
        if reason is None:
            if self._num_failures:
                LOG.info("step %d: the state could be saved again", step)
            self._saved_step, self.last_is_damaged, self._num_failures = step, False, 0
            return True
        self._num_failures += 1
        message = (
            f"The state of step {step} could not be saved ({reason}); the checkpoint of step {self._saved_step} stays. Make "
            f"room in {self.run_dir}."
        )
        if must:
            raise OSError(f"{message} Then continue with ssl-lab pretrain run={self.run_dir}.")
        if self._num_failures == 1:
            warnings.warn(f"{message} Training continues and saves when there is room.", stacklevel=2)
        return False


class KeepBest(Callback):
    """Keeps the weights with the highest value of a metric of the validation split in ``checkpoints/best.ckpt``.

    Of equal values the first one counts. Stands after the callback that evaluates. The file holds its value: one that a
    killed process wrote after the last checkpoint counts as measured.

    Args:
        run_dir: The run directory.
        metric: Name of the metric, ``eval/...``.
        every_n_epochs: Epochs between evaluations that measure it; those of other metrics in between do not count.
    """

    def __init__(self, run_dir: Path, metric: str, *, every_n_epochs: int) -> None:
        self.path = run_dir / BEST_CHECKPOINT
        self.metric = metric
        self.every_n_epochs = every_n_epochs
        self.best: float | None = None
        self._resumed = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on from the value of the file, which may be newer than the checkpoint that was restored."""
        if not self._resumed:
            return
        self.best = distributed.on_first_rank(self._read)

    def _read(self) -> float | None:
        if not self.path.is_file():
            return None
        try:
            return read_checkpoint(self.path).get(_BEST, self.best)  # files of earlier versions lack it
        except ValueError as error:
            warnings.warn(f"{error} The next evaluation replaces it.", stacklevel=1)
            return None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if the metric has risen.

        Raises:
            ValueError: If training ends and nothing was measured.
        """
        if not evaluation_due(trainer, self.every_n_epochs):
            return
        self.look(trainer, {name: float(value) for name, value in trainer.callback_metrics.items()})
        if self.best is None and is_last_epoch(trainer):
            raise ValueError(
                f"Cannot choose the checkpoint with the best {self.metric}: nothing was measured on the val split. Give "
                "data whose val split has labels, or select=last."
            )

    def look(self, trainer: L.Trainer, metrics: Mapping[str, float]) -> None:
        """Save if the metric has risen.

        Raises:
            ValueError: If others of the validation split were measured instead.
            OSError: If it could not be written.
        """
        measured = sorted(name for name in metrics if name.startswith("eval/"))
        if measured and self.metric not in metrics:
            raise ValueError(
                f"Cannot choose the checkpoint with the best {self.metric}: found {', '.join(measured)}. Set "
                "objective to one of them, or select=last."
            )
        if measured and (self.best is None or metrics[self.metric] > self.best):
            extra = {_BEST: metrics[self.metric]}
            reason = _write_checkpoint(trainer, self.path, weights_only=True, extra=extra)
            if reason is not None:
                raise OSError(f"The best checkpoint {self.path} could not be written ({reason}). Make room there.")
            self.best = metrics[self.metric]

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from it."""
        self.best, self._resumed = state_dict["best"], True


class _CarefulIO(TorchCheckpointIO):
    """Writes straight to the file, and remembers what failed: an error on rank 0 alone would leave the others waiting."""

    def __init__(self, extra: Mapping[str, Any]) -> None:
        super().__init__()
        self.extra = extra  # what the checkpoint holds beside the trainer's state
        self.reason: str | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write to ``path``."""
        try:
            torch.save({**checkpoint, **self.extra}, path)
        except (OSError, RuntimeError) as error:
            self.reason = str(error)


def _write_checkpoint(
    trainer: L.Trainer,
    path: Path,
    *,
    previous: Path | None = None,
    weights_only: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> str | None:
    """Write to a temporary file, flush, move the old one to ``previous`` and rename; returns the reason of a failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    trainer.strategy.checkpoint_io = io = _CarefulIO(extra or {})
    trainer.save_checkpoint(temporary, weights_only=weights_only)
    if trainer.is_global_zero and io.reason is None:
        try:
            flush_to_disk(temporary)
            if previous is not None and path.is_file():
                path.replace(previous)
            temporary.replace(path)
            flush_to_disk(path.parent)
        except OSError as error:
            io.reason = str(error)
    if io.reason is not None:
        temporary.unlink(missing_ok=True)
    return distributed.broadcast_object(io.reason)
