"""Colour changes of a batch, one parameter per image; each equals torchvision's function of the same name.

Images are floats in [0, 1], shape (B, C, H, W) with one or three channels; parameters have shape (B,).
"""

from __future__ import annotations

import torch
from torch import Tensor

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601, as in torchvision


def to_grey(x: Tensor) -> Tensor:
    """Luma, shape (B, 1, H, W)."""
    if x.shape[1] == 1:
        return x
    weights = torch.tensor(GREY_WEIGHTS, device=x.device, dtype=x.dtype).view(1, 3, 1, 1)
    return (x * weights).sum(1, keepdim=True)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Scale towards black."""
    return (x * factor.view(-1, 1, 1, 1)).clamp(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Scale towards the mean grey of each image."""
    return _blend(x, to_grey(x).mean((2, 3), keepdim=True), factor)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Scale towards the grey image."""
    return _blend(x, to_grey(x), factor)


def adjust_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of three-channel images, in full turns from -0.5 to 0.5."""
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, 1.0)
    red, green, blue = x.unbind(1)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = hue / 6 + turn.view(-1, 1, 1)
    offsets = torch.tensor([5.0, 3.0, 1.0], device=x.device, dtype=x.dtype).view(1, 3, 1, 1)
    k = (offsets + 6 * hue.unsqueeze(1)) % 6  # Smith's formula for all three channels at once
    return value.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp(0, 1)


def solarize(x: Tensor, threshold: float) -> Tensor:
    """Invert pixels at or above the threshold."""
    return torch.where(x >= threshold, 1 - x, x)


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    factor = factor.view(-1, 1, 1, 1)
    return (factor * x + (1 - factor) * other).clamp(0, 1)
