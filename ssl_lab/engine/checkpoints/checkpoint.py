"""Reading checkpoints: tensors and plain containers only, never code."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from ssl_lab.methods.base import Method
from ssl_lab.runs.directory import LAST_CHECKPOINT, PREVIOUS_CHECKPOINT
from ssl_lab.tensors import DAMAGED, load_plain


class DamagedCheckpointError(ValueError):
    """A checkpoint's file is not as it was written."""


def sound_checkpoint(path: Path) -> tuple[Path, dict[str, Any]]:
    """Read ``path``, or, with a warning, the run's previous checkpoint if ``path`` is damaged; returns path and contents.

    Raises:
        ValueError: If it holds code, or both are damaged.
    """
    previous = path.with_name(PREVIOUS_CHECKPOINT.name)
    try:
        return path, read_checkpoint(path)
    except DamagedCheckpointError as error:
        if path.name != LAST_CHECKPOINT.name or not previous.is_file():
            raise
        contents = read_checkpoint(previous)
        step = contents.get("global_step")
        warnings.warn(f"{error} The run resumes from {previous}, optimizer step {step}.", stacklevel=2)
        return previous, contents


def checkpoint_identity(path: Path) -> dict[str, Any]:
    """Identify a run's checkpoint among later ones at the same path: its ``step``, and a ``digest`` of the file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    return {"step": read_checkpoint(path).get("global_step"), "digest": digest}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint's contents on the CPU, every byte of its tensors checked.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated or a bit of it has changed, is no checkpoint, or holds anything but tensors and
            plain containers.
    """
    try:
        contents = load_plain(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no checkpoint {path}. Give ckpt= an existing file, or last.") from error
    except pickle.UnpicklingError as error:
        code = "weights_only" in str(error).lower()
        reason = "code or objects instead of tensors" if code else "no valid checkpoint"
        first_line = str(error).strip().splitlines()[0]
        raise (ValueError if code else DamagedCheckpointError)(
            f"{path} holds {reason} and was not loaded ({first_line}). Use a checkpoint that ssl_lab wrote."
        ) from error
    except DAMAGED as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DamagedCheckpointError(
            f"{path} is truncated or damaged ({reason}). Use another checkpoint, or start the run anew."
        ) from error
    weights = contents.get("state_dict") if isinstance(contents, dict) else None
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and (isinstance(value, torch.Tensor) or name.endswith("_extra_state"))
        for name, value in weights.items()
    ):
        raise ValueError(
            f"{path} is not a checkpoint of a run: it has no state_dict of named tensors. Use checkpoints/last.ckpt of a run."
        )
    return contents  # type: ignore[no-any-return]


def load_weights(method: Method, path: Path) -> None:
    """Load a run's weights into a method built from the same configuration.

    Raises:
        ValueError: If the weights are those of another network.
    """
    try:
        method.load_state_dict(read_checkpoint(path)["state_dict"])
    except RuntimeError as error:
        raise ValueError(
            f"The weights in {path} do not fit the configured network: {str(error).splitlines()[-1].strip()} Use the "
            "configuration of the run that wrote them."
        ) from error
