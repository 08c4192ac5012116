"""A sign of life that others can read."""

from __future__ import annotations

import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ssl_lab.engine.beginning import Beginning
from ssl_lab.engine.callbacks.throughput import Throughput
from ssl_lab.engine.checkpoints.signals import slurm_job
from ssl_lab.engine.steps import optimizer_steps_done
from ssl_lab.runs.directory import HEARTBEAT, write_json


class Heartbeat(Callback):
    """Writes ``heartbeat.json`` twice a minute: when, how far, how fast, and by whom.

    A thread writes, so that a long evaluation is no silence; it ends with the process, whatever ends that.

    Args:
        run_dir: The run directory.
        throughput: What measures the speed.
        beginning: The first beat waits for it.
        every_n_seconds: Time between two beats.
    """

    def __init__(
        self, run_dir: Path, throughput: Throughput, beginning: Beginning, *, every_n_seconds: float = 30.0
    ) -> None:
        self.path = run_dir / HEARTBEAT
        self.throughput = throughput
        self.beginning = beginning
        self.every_n_seconds = every_n_seconds
        self._done = threading.Event()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin, on rank 0."""
        if trainer.is_global_zero:
            beats = threading.Thread(target=self._beat, args=(trainer,), daemon=True, name="heartbeat")
            self.beginning.do(beats.start)

    def stop(self) -> None:
        """No more beats."""
        self._done.set()

    def _beat(self, trainer: L.Trainer) -> None:
        while True:
            try:
                write_json(self.path, self._facts(trainer))
            except OSError:
                pass  # a full disk: the next beat may be luckier
            if self._done.wait(self.every_n_seconds):
                return

    def _facts(self, trainer: L.Trainer) -> dict[str, Any]:
        speed = self.throughput
        return {
            "time": time.time(),
            "step": optimizer_steps_done(trainer),
            "epoch": trainer.current_epoch,
            "samples_per_sec": speed.num_samples / max(speed.training_time_sec, 1e-9),
            "host": platform.node(),
            "pid": os.getpid(),
            "slurm_job_id": slurm_job(),
        }
