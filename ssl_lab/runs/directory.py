"""The run directory: everything a run leaves behind, written so that no reader ever sees half a file."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ssl_lab.files import write_atomically
from ssl_lab.limited import load_json
from ssl_lab.types import Spec

LAST_CHECKPOINT = Path("checkpoints/last.ckpt")
PREVIOUS_CHECKPOINT = Path("checkpoints/previous.ckpt")
BEST_CHECKPOINT = Path("checkpoints/best.ckpt")
HEARTBEAT = Path("heartbeat.json")
SPEC = Path("spec.json")
METRICS = Path("metrics.json")
"""What the names of a run's evaluation metrics mean, as :func:`ssl_lab.metrics.descriptions` says it."""


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; NaN becomes null."""
    text = json.dumps(_finite(value), indent=2, default=str)
    write_atomically(path, lambda temporary: _write_text(temporary, text + "\n"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON mapping within limits; empty if there is no such file.

    Raises:
        UnreadableFileError: If it cannot be read or holds something else.
    """
    return load_json(path) if path.is_file() else {}  # type: ignore[no-any-return]


def write_spec(run_dir: Path, spec: Spec) -> None:
    """Write the facts of the data to ``spec.json``."""
    write_json(run_dir / SPEC, spec.to_json())


def update_summary(run_dir: Path, **facts: Any) -> None:
    """Merge facts into the run's ``summary.json``."""
    path = run_dir / "summary.json"
    write_json(path, {**read_json(path), **facts})


def environment() -> dict[str, Any]:
    """Versions, source commit and hardware, for the summary."""
    packages = ("ssl_lab", "torch", "torchvision", "lightning", "transformers")
    if torch.cuda.is_available():
        hardware = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    else:
        hardware = f"{cpu_threads()} ({platform.machine()})"
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "commit": _commit(),
        "hardware": hardware,
    }


def cpu_threads() -> str:
    """How many threads torch computes with, in words."""
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


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    return value
