"""A multilayer perceptron on pixels."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from ssl_lab.encoders.image import ImageEncoder
from ssl_lab.heads import ACTIVATIONS, Activation, mlp
from ssl_lab.modalities.image import ImageSpec


class MLPEncoder(ImageEncoder):
    """Fully connected layers on the flattened image, the last one with its activation.

    Args:
        spec: The image data it is built for.
        hidden_dims: Widths of the layers; the last is the embedding's width.
        activation: ``relu`` or ``tanh``.
    """

    def __init__(
        self, spec: ImageSpec, *, hidden_dims: tuple[int, ...] = (400,), activation: Activation = "relu"
    ) -> None:
        if not hidden_dims:
            raise ValueError("Cannot build an MLP of encoder.hidden_dims=[]. Give the width of at least one layer.")
        super().__init__(spec, embed_dim=hidden_dims[-1])
        layers = mlp((prod(spec.shape), *hidden_dims), activation)
        self.layers = nn.Sequential(nn.Flatten(), *layers, ACTIVATIONS[activation]())

    def encode(self, x: Tensor) -> Tensor:
        """Activations of the last layer."""
        return self.layers(x)  # type: ignore[no-any-return]
