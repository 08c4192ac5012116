"""A multilayer perceptron from latents to images."""

from __future__ import annotations

from math import prod

from torch import Tensor

from ssl_lab.generators.base import Generator
from ssl_lab.heads import Activation, mlp
from ssl_lab.modalities.image import ImageSpec


class MLPGenerator(Generator):
    """Fully connected layers up to all pixels of the image.

    Args:
        spec: The image data to generate.
        latent_dim: Width K of the latent vector.
        hidden_dims: Widths of the hidden layers.
        activation: ``relu`` or ``tanh``.
    """

    def __init__(
        self,
        spec: ImageSpec,
        *,
        latent_dim: int,
        hidden_dims: tuple[int, ...] = (400,),
        activation: Activation = "relu",
    ) -> None:
        super().__init__(spec, latent_dim=latent_dim)
        self.layers = mlp((latent_dim, *hidden_dims, prod(spec.shape)), activation)

    def forward(self, z: Tensor) -> Tensor:
        """Images (B, C, H, W), unbounded, from latents (B, K)."""
        return self.layers(z).unflatten(1, self.spec.shape)  # type: ignore[no-any-return]
