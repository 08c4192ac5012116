"""The residual generator of SNGAN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ssl_lab.generators.base import Generator
from ssl_lab.generators.conditional import ConditionalSequential, batch_norm
from ssl_lab.modalities.image import ImageSpec


class ResNetGenerator(Generator):
    """A latent vector becomes a few pixels, then residual blocks double the sides.

    Args:
        spec: The image data to generate.
        latent_dim: Width K of the latent vector.
        num_classes: Makes the blocks' batch normalisation class-conditional (Miyato and Koyama, 2018).
        widths: Channels before the first block and after each; every block doubles the sides. None for the paper's: 256
            throughout up to 32 pixels, beyond that 64 at the image and twice as many at each step towards the latents;
            blocks as long as sides stay even and of at least 4 pixels.

    Raises:
        ValueError: If the sides of the images cannot be halved as often as there are blocks.

    References:
        Gulrajani et al., Improved Training of Wasserstein GANs (2017), appendix F. arXiv:1704.00028
        Miyato et al., Spectral Normalization for GANs (2018), appendix B.4. arXiv:1802.05957
        Miyato and Koyama, cGANs with Projection Discriminator (2018). arXiv:1802.05637
    """

    def __init__(
        self,
        spec: ImageSpec,
        *,
        latent_dim: int,
        num_classes: int | None = None,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__(spec, latent_dim=latent_dim)
        height, width = spec.shape[1:]
        widths = widths or _paper_widths(height, width)
        num_blocks = len(widths) - 1
        if num_blocks < 1 or height % 2**num_blocks or width % 2**num_blocks:
            raise ValueError(
                f"ResNetGenerator doubles sides once or more: {num_blocks} times with widths {list(widths)}, which cannot "
                f"end at images of {height}x{width}. Change the number of entries of generator.widths, or set "
                "data.image_size to a multiple of a power of two."
            )
        start = height // 2**num_blocks, width // 2**num_blocks
        self.from_latent = nn.Linear(latent_dim, widths[0] * start[0] * start[1])
        self.unflatten = nn.Unflatten(1, (widths[0], *start))
        self.blocks = nn.ModuleList(_Block(w_in, w_out, num_classes) for w_in, w_out in pairwise(widths))
        self.to_image = nn.Sequential(
            nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True), nn.Conv2d(widths[-1], spec.shape[0], 3, padding=1)
        )
        nn.init.xavier_uniform_(self.from_latent.weight)
        nn.init.xavier_uniform_(self.to_image[-1].weight)  # type: ignore[arg-type]

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), unbounded, from latents (B, K), and classes int64 (B,) where it is conditional."""
        x = self.unflatten(self.from_latent(z))
        for block in self.blocks:
            x = block(x, label)
        return self.to_image(x)  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Two 3x3 convolutions, each after normalisation and ReLU, beside a 1x1 convolution; sides double."""

    def __init__(self, w_in: int, w_out: int, num_classes: int | None) -> None:
        super().__init__()
        self.residual = ConditionalSequential(
            batch_norm(w_in, num_classes),
            nn.ReLU(inplace=True),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(w_in, w_out, 3, padding=1),
            batch_norm(w_out, num_classes),
            nn.ReLU(inplace=True),
            nn.Conv2d(w_out, w_out, 3, padding=1),
        )
        # Before doubling instead of after it, as in the paper's code: the same numbers, at a quarter of the cost.
        self.shortcut = nn.Sequential(nn.Conv2d(w_in, w_out, 1), nn.Upsample(scale_factor=2))
        for module in self.residual:
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight, gain=math.sqrt(2))
        nn.init.xavier_uniform_(self.shortcut[0].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        return self.residual(x, label) + self.shortcut(x)  # type: ignore[no-any-return]


def _paper_widths(height: int, width: int) -> list[int]:
    num_blocks = 0
    while height % 2 == width % 2 == 0 and min(height, width) >= 8:
        height, width, num_blocks = height // 2, width // 2, num_blocks + 1
    if max(height, width) * 2**num_blocks <= 32:
        return [256] * (num_blocks + 1)
    return [64 * 2**step for step in reversed(range(num_blocks + 1))]
