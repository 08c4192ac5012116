"""Floating-point operations: how many a training step takes, and how many the device could do."""

from __future__ import annotations

import time

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from torch.utils.flop_counter import FlopCounterMode

from ssl_lab.devices import find_device, synchronise


class FlopCounter:
    """Counts the operations between two calls."""

    def __init__(self) -> None:
        self._counter: FlopCounterMode | None = None

    def start(self) -> None:
        """Count from here."""
        self._counter = FlopCounterMode(display=False)
        self._counter.__enter__()

    def stop(self) -> int:
        """Operations since the start, once; 0 if nothing was counted."""
        if self._counter is None:
            return 0
        self._counter.__exit__(None, None, None)
        counted, self._counter = self._counter.get_total_flops(), None
        return counted


def peak_flops(device: torch.device, precision: str) -> float:
    """Operations a second: the data sheet's, or on a CPU the best of a few matrix products in processor time.

    Args:
        device: The device.
        precision: Lightning's name of the precision.
    """
    dtype = {"16": torch.float16, "bf": torch.bfloat16}.get(precision[:2], torch.float32)
    known = get_available_flops(device, dtype)
    if known:
        return float(known)
    clock = _processor_time_per_thread if device.type == "cpu" else synchronised_time
    side = 2048
    a = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        start = clock()
        a @ a
        best = min(best, clock() - start)
    return 2 * side**3 / best


def _processor_time_per_thread() -> float:
    return time.process_time() / torch.get_num_threads()


def synchronised_time() -> float:
    """The time once the accelerator has finished its queued work."""
    synchronise(find_device())
    return time.perf_counter()
