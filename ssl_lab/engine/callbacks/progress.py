"""Progress of a run: how long it will take, then a bar that fits a terminal, or a line a minute where there is none."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

from ssl_lab import distributed
from ssl_lab.devices import device_name, synchronise
from ssl_lab.engine.steps import steps_done
from ssl_lab.runs.environment import cpu_threads
from ssl_lab.types import Batch

_FIRST_LINE_SEC, _LINE_SEC, _BAR_SEC = 10.0, 60.0, 0.2
_MEASURED = ((3, 1.0), (1, 5.0))  # at least so many steps in so many seconds say how long a step takes


class Pace:
    """Time left, from the steps of this process since training began, with evaluations between them."""

    def __init__(self, trainer: L.Trainer) -> None:
        self.trainer = trainer
        self.start, self.first = time.monotonic(), steps_done(trainer)

    @property
    def total(self) -> float:
        """Steps of the whole run; infinite if nothing limits it."""
        trainer = self.trainer
        num_epochs = float("inf") if trainer.max_epochs in (None, -1) else float(trainer.max_epochs or 0)
        steps = num_epochs * float(trainer.num_training_batches)
        if trainer.max_steps not in (None, -1) and trainer.global_step:  # several optimizers step for one batch
            steps = min(steps, trainer.max_steps * steps_done(trainer) / trainer.global_step)
        return steps

    def left(self) -> str:
        """Such as ``12 min left``; empty if it is not known."""
        done, total = steps_done(self.trainer), self.total
        if done <= self.first or total == float("inf"):
            return ""
        return f"{_duration((total - done) * (time.monotonic() - self.start) / (done - self.first))} left"


class ProgressLines(Callback):
    """Prints a line after ten seconds, then every minute, and at the end: epoch, step, loss, throughput, time left.

    The first rank alone does. A line is what log files and Slurm's output can hold.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._pace = Pace(trainer)
        self._due = time.monotonic() + _FIRST_LINE_SEC
        self._since, self._num_samples = time.monotonic(), 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Print a line if it is time."""
        self._num_samples += len(batch["index"]) * distributed.world_size()
        self._trained = time.monotonic()
        if self._trained >= self._due:
            self._print(trainer, pl_module, self._trained)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print what training ended with; an evaluation after the last step does not count as training."""
        if self._num_samples:
            self._print(trainer, pl_module, self._trained, ended=True)

    def _print(self, trainer: L.Trainer, pl_module: L.LightningModule, now: float, *, ended: bool = False) -> None:
        speed = self._num_samples / max(now - self._since, 1e-9)
        self._due, self._since, self._num_samples = now + _LINE_SEC, now, 0
        if trainer.is_global_zero:
            total = self._pace.total
            of = "" if total == float("inf") else f"/{total:,.0f}"
            left = "" if steps_done(trainer) >= total else self._pace.left()
            parts = [
                f"{_epoch(trainer, ended=ended)}, step {steps_done(trainer):,}{of}",
                f"loss {float(pl_module.last_loss):.4g}",  # type: ignore[arg-type]
            ]
            print(", ".join(filter(None, [*parts, f"{speed:,.0f} samples/s", left])), flush=True)


class ExpectedTime(Callback):
    """Says once, within the first seconds, how long training takes: by the first steps but for the very first.

    The first step is slower than others, as kernels are chosen and operations counted. The device is waited for at both
    ends of the measurement alone. Time between epochs, which evaluation takes, does not count. Nothing is said of a
    training of less than ten seconds. A resumed run says how long the rest takes.

    Args:
        evaluates: Whether evaluations come on top.
    """

    def __init__(self, *, evaluates: bool = True) -> None:
        self.evaluates = evaluates

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to measure after the next step."""
        self._pace: Pace | None = None
        self._begun = steps_done(trainer)
        self._told = not trainer.is_global_zero

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave out what passed since the last step."""
        if self._pace is not None:
            self._pace.start += time.monotonic() - self._step_end

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Say it if enough steps were measured."""
        if self._told:
            return
        if self._pace is None:
            synchronise(pl_module.device)
            self._pace = Pace(trainer)
        self._step_end = time.monotonic()
        steps, seconds = steps_done(trainer) - self._pace.first, self._step_end - self._pace.start
        if any(steps >= enough and seconds >= least for enough, least in _MEASURED):
            synchronise(pl_module.device)
            self._told = True
            self._tell(trainer, pl_module, (time.monotonic() - self._pace.start) / steps)

    def _tell(self, trainer: L.Trainer, pl_module: L.LightningModule, step_sec: float) -> None:
        assert self._pace is not None
        num_steps = self._pace.total - self._begun
        if not _FIRST_LINE_SEC <= num_steps * step_sec < float("inf"):
            return
        device, number = device_name(pl_module.device), trainer.world_size
        hardware = cpu_threads() if device is None else device
        words = (
            f"{'The rest of training' if self._begun else 'Training'} takes about {about(num_steps * step_sec)}: "
            f"{num_steps:,.0f} steps of {about(step_sec)} on {hardware if number == 1 else f'{number} x {hardware}'}"
            f"{', without evaluations' if self.evaluates else ''}."
        )
        say(trainer, words)


class CompactBar(TQDMProgressBar):
    """A bar that leaves room for loss, throughput and the time left of the whole run in 80 columns."""

    BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"

    def on_train_start(self, *args: Any) -> None:
        """Start the clock."""
        super().on_train_start(*args)
        self._pace, self._drawn = Pace(self.trainer), 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Name the epoch as lines do."""
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(_epoch(trainer))

    def on_train_batch_end(self, *args: Any) -> None:
        """Draw at most five times a second: reading the loss makes the step wait for its device."""
        now = time.monotonic()
        if now - self._drawn >= _BAR_SEC or args[-1] + 1 == self.total_train_batches:
            self._drawn = now
            super().on_train_batch_end(*args)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Return the metrics shown behind the bar."""
        known: dict[str, Any] = super().get_metrics(trainer, pl_module)  # type: ignore[assignment]
        shown: dict[str, Any] = {}
        if "train/loss" in known:
            shown["loss"] = f"{float(known['train/loss']):.4g}"
        if "perf/samples_per_sec" in known:
            shown["samples/s"] = f"{float(known['perf/samples_per_sec']):,.0f}"
        if left := self._pace.left():
            shown["left"] = left.removesuffix(" left")
        return shown


def _epoch(trainer: L.Trainer, *, ended: bool = False) -> str:
    """The current epoch, or once training has ended the last one, which may be cut short."""
    limit, number = trainer.max_epochs, trainer.current_epoch + (not ended)
    if limit in (None, -1):
        return f"epoch {number}"
    return f"epoch {min(number, limit or 0)}/{limit}"


def say(trainer: L.Trainer, words: str) -> None:
    """Print a line; above the bar where there is one."""
    bar = trainer.progress_bar_callback
    bar.print(words) if bar is not None else print(words, flush=True)


def about(seconds: float) -> str:
    """A time in the unit that suits it: ``145 ms``, ``2.4 s``, ``3 min``."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.1f} s" if seconds < 10 else _duration(seconds)


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
