"""The run directory: everything a run leaves behind, written so that no reader ever sees half a file."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

import torch

from ssl_lab.files import write_atomically
from ssl_lab.limited import load_json
from ssl_lab.types import DataSpec

LAST_CHECKPOINT = Path("checkpoints/last.ckpt")
PREVIOUS_CHECKPOINT = Path("checkpoints/previous.ckpt")
BEST_CHECKPOINT = Path("checkpoints/best.ckpt")
_MOST_IDS = 1 << 24
_MOST_PIXELS = 1 << 28
HEARTBEAT = Path("heartbeat.json")
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


def write_spec(run_dir: Path, spec: DataSpec) -> None:
    """Write the facts of the data to ``spec.json``, the many ids of ``continues_word`` as runs (``"7 9-12"``)."""
    write_json(run_dir / "spec.json", {**asdict(spec), "continues_word": _as_runs(spec.continues_word)})


def read_spec(run_dir: Path) -> DataSpec:
    """The facts of the data a run was trained on, as :func:`write_spec` left them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds something else, or ids for which no memory suffices.
    """
    path = run_dir / "spec.json"
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}, which holds the facts of the run's data. Restore the file.")
    facts = load_json(path)
    try:
        runs = [run.split("-") for run in str(facts.pop("continues_word", "")).split()]
        sizes = [facts.get("vocab_size") or 0, facts.get("target_vocab_size") or 0, *(int(run[-1]) for run in runs)]
        if max(sizes) > _MOST_IDS or sum(int(run[-1]) - int(run[0]) + 1 for run in runs) > _MOST_IDS:
            raise ValueError(f"it has more than {_MOST_IDS:,} ids of tokens")
        if any(not isinstance(size, int) or size < 1 for size in facts["shape"]) or prod(facts["shape"]) > _MOST_PIXELS:
            raise ValueError(f"its samples have the shape {facts['shape']}")
        ids = tuple(i for run in runs for i in range(int(run[0]), int(run[-1]) + 1))
        rest: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
        return DataSpec(**rest, continues_word=ids)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ValueError(f"{path} does not hold the facts of a data set ({error}). Restore the file.") from error


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


def _as_runs(ids: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for i in ids:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


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
