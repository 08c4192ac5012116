"""Images: ``image``, uint8 (B, C, H, W) as stored, or float in [0, 1] once a pretext has touched it.

``mask``: uint8 (B, H, W), the class of each pixel, 255 where it does not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.types import Batch, Spec

MOST_PIXELS = 1 << 28
"""Of one image; more than any memory holds in a batch."""
MOST_RAW = 4096
"""Values of the raw features of an image, such as those of 1 x 64 x 64 or 3 x 36 x 36 pixels."""


def as_float(images: Tensor) -> Tensor:
    """Pixels as floats in [0, 1]: uint8 is divided by 255, floats pass through."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


@dataclass(frozen=True, kw_only=True)
class ImageSpec(Spec):
    """Facts of a set of images.

    Attributes:
        shape: Channels, height and width (C, H, W).
        mean: Mean of each channel over the training split, pixels scaled to [0, 1].
        std: Standard deviation of each channel, same scale.

    Raises:
        ValueError: If there can be no images of this shape.
    """

    modality: ClassVar[str] = "image"
    kind: ClassVar[str] = "images"
    columns: ClassVar[tuple[str, ...]] = ("image",)
    raw_name: ClassVar[str] = "raw pixels"
    shape: tuple[int, ...]  # type: ignore[assignment]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the shape."""
        if len(self.shape) != 3 or min(self.shape) < 1 or math.prod(self.shape) > MOST_PIXELS:
            raise ValueError(f"Cannot use images of shape {self.shape}. Give channels, height and width.")

    def raw(self, batch: Batch) -> Tensor:
        """All pixels in [0, 1]; of an image with more than 4,096 values those of a thumbnail."""
        x = as_float(batch["image"])
        shrink = math.sqrt(MOST_RAW / x[0].numel())
        if shrink < 1:
            height, width = (max(1, int(side * shrink)) for side in x.shape[2:])
            x = F.adaptive_avg_pool2d(x, (height, width))
        return x.flatten(1)

    def example(self, num_samples: int) -> dict[str, Tensor]:
        """Pixels float in [0, 1]."""
        return {"image": torch.rand(num_samples, *self.shape, generator=torch.Generator().manual_seed(0))}

    def accepts(self, other: Spec) -> bool:
        """Return whether these are images with as many channels."""
        return isinstance(other, ImageSpec) and other.shape[0] == self.shape[0]

    def exported_inputs(self) -> dict[str, Any]:
        """Layout and range of the pixels; they are normalised inside."""
        image = {"type": "float32", "shape": ["batch", *self.shape], "layout": "NCHW", "range": [0.0, 1.0]}
        return {"inputs": {"image": image}, "normalised_inside": {"mean": self.mean, "std": self.std}}
