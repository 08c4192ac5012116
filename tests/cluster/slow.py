"""Batches and evaluations that take long without computing: time for a signal to come in between."""

import os
import time
from pathlib import Path

from lightning.pytorch.callbacks import Callback

from ssl_lab.evaluation.protocol import Protocol


class Slow(Callback):
    """Sleeps after each batch."""

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *args) -> None:
        time.sleep(self.seconds)


class SlowOnce(Protocol):
    """A final evaluation that takes long in the first life of a job array's task, and leaves a mark when it begins."""

    needs = "features"

    def __init__(self, *, seconds: float, marks: str) -> None:
        self.seconds = seconds
        self.marks = Path(marks)

    def run(self, fn, datamodule, *, device, split="test"):
        task = os.environ.get("SLURM_ARRAY_TASK_ID")  # None in a job of its own
        mark = self.marks / f"in_evaluation_{task}"
        if split == "test" and task is not None and not mark.exists():
            mark.touch()
            time.sleep(self.seconds)
        return {"slow/one": 1.0}
