"""The run directory: all files that a run leaves, written so that no reader sees half a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_lab.files import write_atomically
from ssl_lab.limited import load_json

if TYPE_CHECKING:
    from ssl_lab.types import Spec

LAST_CHECKPOINT = Path("checkpoints/last.ckpt")
PREVIOUS_CHECKPOINT = Path("checkpoints/previous.ckpt")
BEST_CHECKPOINT = Path("checkpoints/best.ckpt")
START_WEIGHTS = Path("checkpoints/start.safetensors")
"""The encoder before training, of a run that begins with weights of a file or another run."""
HEARTBEAT = Path("heartbeat.json")
SPEC = Path("spec.json")
DATA_SPEC = Path("data_spec.json")
"""Facts of the data that a head was trained on, where the encoder was built for other data."""
METRICS = Path("metrics.json")
"""File with the meaning of a run's evaluation metrics, by :func:`ssl_lab.metrics.descriptions`."""


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; NaN becomes null."""
    text = json.dumps(_finite(value), indent=2, default=str)
    write_atomically(path, lambda temporary: _write_text(temporary, text + "\n"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON mapping within limits; empty if the file is missing.

    Raises:
        UnreadableFileError: If it cannot be read or holds something else.
    """
    return load_json(path) if path.is_file() else {}  # type: ignore[no-any-return]


def write_spec(run_dir: Path, spec: Spec, file: Path = SPEC) -> None:
    """Write the facts of the data to ``spec.json``, or another file of the run directory."""
    write_json(run_dir / file, spec.to_json())


def update_summary(run_dir: Path, **facts: Any) -> None:
    """Merge facts into the run's ``summary.json``."""
    path = run_dir / "summary.json"
    write_json(path, {**read_json(path), **facts})


def find_checkpoint(run_dir: Path) -> Path:
    """The run's last checkpoint; the one before, where the process died between moving it and moving the new one.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = run_dir / LAST_CHECKPOINT
    if not path.is_file() and (run_dir / PREVIOUS_CHECKPOINT).is_file():
        return run_dir / PREVIOUS_CHECKPOINT
    if not path.is_file():
        raise FileNotFoundError(
            f"No checkpoint at {path}. Name the directory of a run that has saved one, which holds config.yaml and "
            "checkpoints/: run_dir= to resume it, run= to evaluate it."
        )
    return path


def has_checkpoint(run_dir: Path) -> bool:
    """Return whether a run has a checkpoint to resume from."""
    return any((run_dir / path).is_file() for path in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    return value
