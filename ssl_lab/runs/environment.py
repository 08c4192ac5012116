"""Environment of a run: versions, source commit and hardware."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ssl_lab.devices import device_name, find_device


def environment() -> dict[str, Any]:
    """Versions, source commit and hardware, for the summary."""
    packages = ("ssl_lab", "torch", "torchvision", "lightning", "transformers")
    name = device_name(find_device())
    hardware = f"{torch.accelerator.device_count()} x {name}" if name else f"{cpu_threads()} ({platform.machine()})"
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "commit": _commit(),
        "hardware": hardware,
    }


def cpu_threads() -> str:
    """Describe the number of threads that torch computes with."""
    number = torch.get_num_threads()
    return f"{number} CPU thread{'s' if number != 1 else ''}"


def _commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=12"],  # writes nothing there
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
