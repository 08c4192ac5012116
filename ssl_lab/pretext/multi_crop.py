"""Two large and several small views of each image."""

from __future__ import annotations

from typing import ClassVar

import torch

from ssl_lab.modalities.image import ImageSpec
from ssl_lab.pretext.base import Views
from ssl_lab.pretext.captions import CAPTIONS
from ssl_lab.pretext.views import TwoViews, View, images_above_views
from ssl_lab.types import Batch, ImageGrid, Spec


class MultiCrop(Views):
    """Two global views and ``num_local`` smaller ones of each image.

    Args:
        global_views: Draws the two large views.
        local_view: Settings of each small view; its ``size`` is smaller and its ``crop_scale`` lower.
        num_local: Number of small views; 0 for none.

    Raises:
        ValueError: If the number of small views is negative.

    References:
        Caron et al., SwAV (2020), section 3.2. arXiv:2006.09882
    """

    takes: ClassVar[type[Spec]] = ImageSpec
    several_sizes: ClassVar[bool] = True

    def __init__(self, global_views: TwoViews, local_view: View, *, num_local: int = 6) -> None:
        super().__init__()
        if num_local < 0:
            raise ValueError(f"The number of local views must be at least 0, found {num_local}.")
        self.global_views = global_views
        self.local_view = local_view
        self.num_local = num_local

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Batch, ...]:
        """Views of the images of a batch, (B, C, H, W): two large ones (2B, C, size, size), then the small ones if any."""
        large = self.global_views(batch, generator)
        if self.num_local == 0:
            return (large,)
        small = self.local_view(batch["image"].repeat(self.num_local, 1, 1, 1), generator)
        return large, {"image": small}

    def show(self, batch: Batch) -> dict[str, ImageGrid]:
        """The first twelve images, uint8, with their global views, and their local views if there are any."""
        images = batch["image"][:12]
        large, *small = self({"image": images})
        pictures = {"views": images_above_views(images, large)}
        if small:
            rows = small[0]["image"].unflatten(0, (-1, len(images)))
            pictures["local_views"] = ImageGrid(images=rows, caption=CAPTIONS["local_views"])
        return pictures
