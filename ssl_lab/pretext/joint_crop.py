"""Random crops of images and their masks together."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.modalities.image import as_float
from ssl_lab.pretext.base import Augmentation
from ssl_lab.pretext.views import Draw, Range, affine_maps, sampling_grid, warp
from ssl_lab.types import Batch


class JointCrop(Augmentation):
    """A crop of each image, enlarged to the image's size and perhaps mirrored, and the same of its mask.

    Both are resampled at the same places: the image bilinearly, the mask by the pixel that is nearest, so that no class
    appears that is not there. Crops are those of :class:`ssl_lab.pretext.views.View` and are not antialiased.

    Args:
        crop_scale: Share of the image's area that the crop keeps.
        crop_ratio: Width over height of the crop, times that of the image.
        size: Height and width of the result in pixels; None keeps the image's.
        flip_prob: Probability of a horizontal flip.

    Raises:
        ValueError: If a range, size or probability makes no sense.
    """

    column: ClassVar[str] = "image"

    def __init__(
        self,
        *,
        crop_scale: Range = (0.25, 1.0),
        crop_ratio: Range = (3 / 4, 4 / 3),
        size: tuple[int, int] | None = None,
        flip_prob: float = 0.5,
    ) -> None:
        super().__init__()
        for name, (low, high), highest in (("crop_scale", crop_scale, 1.0), ("crop_ratio", crop_ratio, math.inf)):
            if not 0 < low <= high <= highest:
                raise ValueError(
                    f"JointCrop needs {name} as [low, high], 0 < low <= high <= {highest}, found {[low, high]}."
                )
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(
                f"JointCrop needs a size of [height, width] in pixels, found {list(size)}. Use None for the image's."
            )
        if not 0 <= flip_prob <= 1:
            raise ValueError(f"JointCrop needs flip_prob from 0 to 1, found {flip_prob}. Use 0 to switch it off.")
        self.crop_scale, self.crop_ratio, self.flip_prob = crop_scale, crop_ratio, flip_prob
        self.size = None if size is None else (size[0], size[1])

    def forward(self, batch: Batch) -> Batch:
        """The batch with crops of its images as fp32 in [0, 1], and of its masks in their own type."""
        images, masks = batch["image"], batch["mask"]
        with torch.autocast(images.device.type, enabled=False):
            x = as_float(images).float()
            height, width = x.shape[2:]
            size = self.size or (height, width)
            theta = self.draw_maps(Draw(len(x), x.device), (height, width), size)
            return {**batch, "image": warp(x, theta, size), "mask": warp_masks(masks, theta, size)}

    def draw_maps(self, draw: Draw, image_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Random maps (B, 2, 3) from the result to the image, as of :func:`ssl_lab.pretext.views.affine_maps`."""
        shape = image_size[1] / image_size[0]
        ratio = (self.crop_ratio[0] * shape, self.crop_ratio[1] * shape)
        straight = torch.zeros(draw.batch_size, device=draw.device)
        return affine_maps(
            draw.boxes(image_size, scale=self.crop_scale, ratio=ratio),
            flip=draw.uniform(0, 1) < self.flip_prob,
            angle=straight,
            shear=straight,
            aspect=size[0] / size[1],
        )


def warp_masks(masks: Tensor, theta: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks of whole numbers (B, H, W) at the nearest pixel of each place, by affine maps (B, 2, 3) as of ``warp``."""
    grid = sampling_grid(theta, size)
    found = F.grid_sample(masks.unsqueeze(1).float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    return found.squeeze(1).to(masks.dtype)
