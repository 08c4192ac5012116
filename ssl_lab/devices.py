"""Differences between devices: float64, random streams, waiting, names. CPU, CUDA and what ``torch.accelerator`` finds.

Apple GPUs compute in no more than float32. Sums and decompositions that need float64 happen there on the CPU, by the same
functions as elsewhere, and not in compensated float32 on the device: what they get is small, sums are read by the CPU
anyway, and results keep their digits on every machine. On other devices each function below is the plain call of torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

CPU = torch.device("cpu")
_WITHOUT_FLOAT64 = {"mps"}


def has_float64(device: torch.device) -> bool:
    """Return whether tensors on the device can be float64."""
    return device.type not in _WITHOUT_FLOAT64


def float64_device(device: torch.device) -> torch.device:
    """Where float64 is computed for a device: there, or on the CPU."""
    return device if has_float64(device) else CPU


def wide(x: Tensor) -> Tensor:
    """A tensor in float64, on its device or on the CPU; differentiable."""
    return x.to(float64_device(x.device), torch.float64)


def placed(x: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device, or on the CPU if it is float64 and the device has none."""
    return x.to(float64_device(device) if x.dtype == torch.float64 else device)


def narrow(x: Tensor, device: torch.device) -> Tensor:
    """A result of float64 back on the device, rounded to float32 if the device has no float64."""
    return x.to(device) if has_float64(device) else x.to(device, torch.float32)


def find_device() -> torch.device:
    """The accelerator of this machine, such as ``cuda`` or ``mps``, if there is one."""
    return torch.accelerator.current_accelerator(check_available=True) or CPU


def synchronise(device: torch.device) -> None:
    """Wait until an accelerator has finished its queued work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def device_name(device: torch.device) -> str | None:
    """The maker's name of a GPU where torch knows it, else the device's type; None for the CPU."""
    if device.type == "cpu":
        return None
    name = getattr(torch.get_device_module(device), "get_device_name", None)
    return device.type if name is None else name(device)


def random_state(device: torch.device) -> Tensor | None:
    """State of an accelerator's own random stream; None for the CPU."""
    return None if device.type == "cpu" else torch.get_device_module(device).get_rng_state()


def set_random_state(device: torch.device, state: Tensor) -> None:
    """Put back what :func:`random_state` gave."""
    torch.get_device_module(device).set_rng_state(state)


@contextmanager
def keep_random_state(device: torch.device) -> Iterator[None]:
    """The streams of the CPU and of the device go on afterwards as if nothing had been drawn inside."""
    if device.type in ("cpu", "cuda"):
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
        return
    state = random_state(device)  # fork_rng numbers devices, which Apple's module does not
    with torch.random.fork_rng([]):
        try:
            yield
        finally:
            if state is not None:
                set_random_state(device, state)
