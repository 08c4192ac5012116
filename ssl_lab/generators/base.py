"""Base class of networks from latents to images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from ssl_lab.modalities.image import ImageSpec


class Generator(nn.Module, ABC):
    """A network from latent vectors (B, K) to images (B, C, H, W) of a data set's size.

    Outputs are unbounded; callers squash them (logits of a Bernoulli, or a sigmoid for pixels in [0, 1]).

    Attributes:
        spec: The image data it is built for.
        latent_dim: Width K of the latent vector.
    """

    def __init__(self, spec: ImageSpec, *, latent_dim: int) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ValueError(
                f"{type(self).__name__} makes images of latents, found latent_dim={latent_dim}. Set 1 or more."
            )
        self.spec = ImageSpec.of(spec, type(self).__name__)
        self.latent_dim = latent_dim

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """Images (B, C, H, W), unbounded, from latents (B, K)."""


NewGenerator: TypeAlias = Callable[..., Generator]
"""Called as ``new_generator(spec, latent_dim=K)``: a class of generators, or one with its other settings bound. One that
also takes ``num_classes`` makes images of a class, and is then called with latents and classes int64 (B,)."""
