"""Batches that take long without computing: time for a signal to come in between."""

import time

from lightning.pytorch.callbacks import Callback


class Slow(Callback):
    """Sleeps after each batch."""

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *args) -> None:
        time.sleep(self.seconds)
