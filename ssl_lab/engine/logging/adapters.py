"""What a logger shows beside scalars: an adapter is registered for the logger's class, yours included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from torch import Tensor

from ssl_lab.types import Encoder

Pixels = np.ndarray[Any, Any]


class Adapter:
    """Sends settings, pictures, sentences and features to one logger; this one sends settings alone.

    Subclasses override what their logger can show. An error that they raise becomes a warning, after which the logger gets
    no more data and the run continues.

    Args:
        logger: The logger.

    Example:
        >>> class MyAdapter(Adapter):
        ...     def image(self, key, pixels, step):
        ...         self.logger.save_picture(key, pixels, step)
        >>> adapter_of.register(MyLogger, MyAdapter)
    """

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def settings(self, params: Mapping[str, Any]) -> None:
        """Send the configuration, a nested mapping of plain values."""
        self.logger.log_hyperparams(params)

    def image(self, key: str, pixels: Pixels, step: int) -> None:
        """Show an image, uint8 (H, W, 3), under a key such as ``pictures/views``."""

    def sentences(self, key: str, markdown: str, step: int) -> None:
        """Show sentences, one a paragraph, under a key such as ``pictures/masked_sentences``."""

    def embedding(self, features: Tensor, labels: Sequence[str], images: Tensor | None, step: int) -> None:
        """Show features (N, D) with a label each, and thumbnails (N, C, H, W) in [0, 1]."""

    def begin_anew(self) -> None:
        """Note that a changed run repeats steps: where the logger cannot forget, it continues in a run of its own."""

    def forget_from(self, step: int) -> None:
        """Leave out what a process that was killed logged at this step and later, if the logger can."""

    def upload(self, run_dir: Path, encoder: Encoder) -> None:
        """Upload the last checkpoint and the encoder's weights, if the logger was asked to."""

    def finish(self, *, failed: bool) -> None:
        """Write out what the logger still holds, so that a sweep's next trial gets a run of its own."""
        self.logger.finalize("failed" if failed else "success")


@singledispatch
def adapter_of(logger: Logger) -> Adapter:
    """Return the adapter registered for the class of a logger or the nearest of its bases."""
    return Adapter(logger)


def reason(error: BaseException) -> str:
    """Return the message of an error's first cause, on one line."""
    while error.__cause__ is not None:  # TensorBoard's logger calls a full disk a value that it does not take
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
