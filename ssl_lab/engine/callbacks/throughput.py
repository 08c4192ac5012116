"""Times, rates and memory of training."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import ModelParallelStrategy

from ssl_lab import distributed
from ssl_lab.data.base import DataModule
from ssl_lab.engine.flops import FlopCounter, peak_flops
from ssl_lab.engine.steps import log_interval, steps_done
from ssl_lab.types import Batch

resource: Any
try:
    import resource
except ImportError:  # Windows does not tell the memory of a process in this way
    resource = None

_OF_ALL_LIVES = ("num_samples", "training_time_sec", "evaluation_time_sec", "wall_time_sec")


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
        """Count the time since the last batch ended as waiting for data."""
        self._waited += time.perf_counter() - self._batch_end
        if self._counts_flops and not isinstance(trainer.strategy, ModelParallelStrategy):  # whose gathers it miscounts
            self._flops.start()
        self._counts_flops = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Log at the end of each interval."""
        count = len(batch["index"]) * distributed.world_size()
        num_elements = pl_module.encoder.spec.num_elements(batch)  # type: ignore[union-attr, operator]
        if counted := self._flops.stop():
            self._flops_per_element = counted / num_elements
        self._window_elements += num_elements
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


def _kib() -> float:
    assert resource is not None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)


def _memory(device: torch.device) -> dict[str, float]:
    found = {} if resource is None else {"perf/memory_gib": _kib() / 2**20}
    if device.type == "cuda":
        found["perf/gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return found
