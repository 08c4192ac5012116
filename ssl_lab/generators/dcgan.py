"""The DCGAN generator."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from ssl_lab.generators.base import Generator
from ssl_lab.generators.conditional import ConditionalSequential, batch_norm
from ssl_lab.heads import num_doublings
from ssl_lab.modalities.image import ImageSpec


class DCGANGenerator(Generator):
    """A latent vector becomes a few pixels, then transposed 4x4 convolutions double the sides.

    Args:
        spec: The image data to generate.
        latent_dim: Width K of the latent vector.
        num_classes: Makes batch normalisation class-conditional.
        width: Channels before the last layer, doubled at each earlier one.

    Raises:
        ValueError: If the sides of the images are odd.

    References:
        Radford et al., Unsupervised Representation Learning with DCGANs (2015). arXiv:1511.06434
    """

    def __init__(self, spec: ImageSpec, *, latent_dim: int, num_classes: int | None = None, width: int = 64) -> None:
        super().__init__(spec, latent_dim=latent_dim)
        depth = num_doublings(spec)
        start = tuple(size // 2**depth for size in spec.shape[1:])
        widths = [width * 2**level for level in reversed(range(depth))]
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, widths[0] * start[0] * start[1], bias=False),
            nn.Unflatten(1, (widths[0], *start)),
            batch_norm(widths[0], num_classes),
            nn.ReLU(inplace=True),
        ]
        for w_in, w_out in pairwise(widths):
            layers += [nn.ConvTranspose2d(w_in, w_out, 4, stride=2, padding=1, bias=False)]
            layers += [batch_norm(w_out, num_classes), nn.ReLU(inplace=True)]
        layers.append(nn.ConvTranspose2d(widths[-1], spec.shape[0], 4, stride=2, padding=1))
        self.layers = ConditionalSequential(*layers)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), unbounded, from latents (B, K), and classes int64 (B,) where it is conditional."""
        return self.layers(z, label)  # type: ignore[no-any-return]
