"""Features of a training step without a second forward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import Module

from ssl_lab.types import Batch, Encoder


class EncoderTap:
    """Keeps the output of the encoder's first forward pass in a training step, or of its first :meth:`Encoder.embed`.

    Passes in eval mode, such as evaluation's, go unnoticed. A method that encodes several views in one pass puts view
    after view, so row i of the features belongs to sample i modulo the batch size.

    Args:
        encoder: The encoder to listen to, until :meth:`remove`.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._first_pass: tuple[tuple[Any, ...], Any] | None = None
        self._embedded: Tensor | None = None
        self._embed = encoder.embed
        self._removed = False
        self._hook = encoder.register_forward_hook(self._remember)
        encoder.embed = self._listen  # type: ignore[method-assign]  # which need not pass through forward

    def _remember(self, encoder: Module, inputs: tuple[Any, ...], output: Any) -> None:
        if encoder.training and self._first_pass is None:
            self._first_pass = inputs, output

    def _listen(self, batch: Batch) -> Tensor:
        features = self._embed(batch)
        if not self._removed and self._encoder.training and self._first_pass is None and self._embedded is None:
            self._embedded = features.detach()
        return features

    def take(self) -> Tensor | None:
        """Detached features fp32 (N, embed_dim) of the step, once; None if the encoder was not run as a whole."""
        taken, self._first_pass = self._first_pass, None
        features, self._embedded = self._embedded, None
        if taken is not None:
            inputs, output = taken
            features = self._encoder.pool(output, *inputs)
        return features.detach().float() if isinstance(features, Tensor) and features.ndim == 2 else None

    def forget(self) -> None:
        """Let go of the step's features."""
        self._first_pass = self._embedded = None

    def remove(self) -> None:
        """Stop listening."""
        self._hook.remove()
        self._removed = True
        if self._encoder.__dict__.get("embed") == self._listen:  # else another tap listens to this one
            self._encoder.embed = self._embed  # type: ignore[method-assign]
