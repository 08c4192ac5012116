"""The residual discriminator of SNGAN and WGAN-GP without its last layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab.encoders.image import ImageEncoder, outputs
from ssl_lab.modalities.image import ImageSpec


class SNGANEncoder(ImageEncoder):
    """Residual blocks without normalisation of activations, summed over positions.

    Args:
        spec: The image data it is built for.
        widths: Channels after each block. None for the paper's: four of 128 up to 32 pixels, beyond that 64 and twice as
            many with each further block, one more block than halvings.
        num_halvings: Number of blocks, from the first, that halve the sides. None for the paper's: two up to 32
            pixels, beyond that as long as sides are even and larger than 4 pixels.
        spectral_norm: Divide each kernel by its largest singular value (SNGAN); without it a penalty must bound the slope
            (WGAN-GP).

    Raises:
        ValueError: If the image is too small for the halvings, or there are more of them than blocks.

    References:
        Gulrajani et al., Improved Training of Wasserstein GANs (2017), appendix F. arXiv:1704.00028
        Miyato et al., Spectral Normalization for GANs (2018), appendix B.4. arXiv:1802.05957
    """

    def __init__(
        self,
        spec: ImageSpec,
        *,
        widths: Sequence[int] | None = None,
        num_halvings: int | None = None,
        spectral_norm: bool = True,
    ) -> None:
        super().__init__(spec, embed_dim=0)  # known below
        sides = spec.shape[1:]
        small = max(sides) <= 32
        if num_halvings is None:
            num_halvings = 2 if small else _num_halvings(*sides)
        if widths is None:
            widths = [128] * 4 if small else [64 * 2**level for level in range(num_halvings + 1)]
        if not widths:
            raise ValueError(
                "Cannot build an SNGAN encoder of encoder.widths=[]. Give the channels of at least one block, or null."
            )
        self.embed_dim = widths[-1]
        if num_halvings > len(widths) or min(sides) < 2**num_halvings:
            raise ValueError(
                f"SNGANEncoder halves sides {num_halvings} times in {len(widths)} blocks, found images of "
                f"{sides[0]}x{sides[1]}. Set encoder.num_halvings lower, or data.image_size higher."
            )
        self.strides = tuple(2 ** min(level + 1, num_halvings) for level in range(len(widths)))
        self.blocks = nn.Sequential()
        w_in = spec.shape[0]
        for level, w_out in enumerate(widths):
            self.blocks.append(_Block(w_in, w_out, first=level == 0, halves=level < num_halvings))
            w_in = w_out
        if spectral_norm:
            for module in list(self.blocks.modules()):
                if isinstance(module, nn.Conv2d):
                    nn.utils.parametrizations.spectral_norm(module)

    def encode(self, x: Tensor) -> Tensor:
        """Sum over positions after the last ReLU."""
        return F.relu(self.blocks(x)).sum((2, 3))

    def encode_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the output of each block, the last after a ReLU."""
        *before, last = outputs(self.blocks, x)
        return *before, F.relu(last)


class _Block(nn.Module):
    """Two 3x3 convolutions beside a 1x1 convolution; the first block of all has no ReLU at its input."""

    def __init__(self, w_in: int, w_out: int, *, first: bool, halves: bool) -> None:
        super().__init__()
        w_hidden = w_out if first else w_in
        layers: list[nn.Module] = [] if first else [nn.ReLU()]  # not in place: the shortcut reads the input
        layers += [nn.Conv2d(w_in, w_hidden, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(w_hidden, w_out, 3, padding=1)]
        # Means of four pixels and 1x1 convolutions may change places; a mean first costs a quarter.
        shortcut: list[nn.Module] = [nn.AvgPool2d(2)] if halves else []
        if halves or w_in != w_out:
            shortcut.append(nn.Conv2d(w_in, w_out, 1))
        if halves:
            layers.append(nn.AvgPool2d(2))
        self.residual, self.shortcut = nn.Sequential(*layers), nn.Sequential(*shortcut)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight, gain=math.sqrt(2) if module.kernel_size == (3, 3) else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x) + self.shortcut(x)  # type: ignore[no-any-return]


def _num_halvings(height: int, width: int) -> int:
    count = 0
    while height % 2 == width % 2 == 0 and min(height, width) > 4:
        height, width, count = height // 2, width // 2, count + 1
    return count
