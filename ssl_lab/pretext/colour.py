"""Colour changes of a batch, one parameter per image; each equals torchvision's function of the same name.

Images are floats in [0, 1], shape (B, C, H, W) with one or three channels; parameters have shape (B,).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def to_grey(x: Tensor) -> Tensor:
    """Luma of ITU-R 601 with torchvision's weights, shape (B, 1, H, W)."""
    return x if x.shape[1] == 1 else 0.2989 * x[:, 0:1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]


def color_jitter(x: Tensor, amounts: Tensor, order: Tensor, hue_rows: Sequence[Tensor] = ()) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image, in a random order per image.

    The first three blend an image with another one. Turning hues is dearer: images that do it at the same time form a
    group, so that each image does it once.

    Args:
        x: Images.
        amounts: Columns are the factors of brightness (around black), contrast (around the mean grey of the image) and
            saturation (around the grey image), and the turn of the hue; shape (B, K), the first K of the four.
        order: Which blend comes first, second, ...: a permutation in each row, int64 (B, min(K, 3)).
        hue_rows: The images whose hue turns before the first blend, before the second, ..., after the last: four groups.

    Returns:
        Images in [0, 1], shape of ``x``.
    """
    steps = amounts.gather(1, order)
    if hue_rows:
        x = x.clone()  # its rows are replaced below
    for place in range(order.shape[1] + 1):
        if hue_rows:
            rows = hue_rows[place]
            x.index_copy_(0, rows, adjust_hue(x[rows], amounts[rows, HUE]))
        if place < order.shape[1]:
            kind, amount = order[:, place].view(-1, 1, 1, 1), steps[:, place].view(-1, 1, 1, 1)
            grey = to_grey(x)
            mean = grey.mean((2, 3), keepdim=True)
            base = torch.addcmul(mean * (kind == CONTRAST), grey, (kind == SATURATION).float())
            x = torch.lerp(base, x, amount).clamp_(0, 1)
    return x


def adjust_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of three-channel images, in full turns from -0.5 to 0.5.

    Maximum and minimum of the channels are kept; the colour between them is read off the hexagon of HSV.
    """
    red, green, blue = x.unbind(1)
    low = torch.minimum(torch.minimum(red, green), blue)
    high = torch.maximum(torch.maximum(red, green), blue)
    chroma = high - low
    # The sextant as seen from red (0), green (2) or blue (4), whichever is highest. lerp by 0 or 1 is exact, and
    # on a CPU many times faster than where.
    from_green, from_blue = torch.add(blue - red, chroma, alpha=2), torch.add(red - green, chroma, alpha=4)
    sextant = torch.lerp(from_green, from_blue, (high - green).sign())
    sextant = torch.lerp(green - blue, sextant, (high - red).sign())
    sextant = sextant / chroma.clamp(min=1e-12) + 6 * turn.view(-1, 1, 1)
    sextant = sextant - 6 * torch.floor(sextant / 6)
    share = torch.stack([(sextant - 3).abs() - 1, 2 - (sextant - 2).abs(), 2 - (sextant - 4).abs()], 1).clamp(0, 1)
    return torch.addcmul(low.unsqueeze(1), chroma.unsqueeze(1), share)


def solarize(x: Tensor, threshold: float) -> Tensor:
    """Invert pixels at or above the threshold."""
    return torch.where(x >= threshold, 1 - x, x)
