"""Two large and several small views of each image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab.pretext.views import TwoViews, View
from ssl_lab.types import ImageGrid


class MultiCrop(nn.Module):
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

    def __init__(self, global_views: TwoViews, local_view: View, *, num_local: int = 6) -> None:
        super().__init__()
        if num_local < 0:
            raise ValueError(f"The number of local views must be at least 0, found {num_local}.")
        self.global_views = global_views
        self.local_view = local_view
        self.num_local = num_local

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Views of images (B, C, H, W): (2, B, C, size, size), and (num_local, B, C, local size, local size)."""
        large = self.global_views(images, generator)
        if self.num_local == 0:
            return large, large.new_empty(0, *images.shape)
        small = self.local_view(images.repeat(self.num_local, 1, 1, 1), generator)
        return large, small.unflatten(0, (self.num_local, len(images)))


@torch.no_grad()
def show_multi_crop(images: Tensor, views: nn.Module) -> dict[str, ImageGrid]:
    """The first twelve images (B, C, H, W), uint8, with their global views, and their local views if there are any."""
    large, small = views(images[:12])
    above = F.interpolate(images[:12].float() / 255, large.shape[-2:], mode="bilinear", antialias=True)
    rows = torch.cat([above.unsqueeze(0), large])
    pictures = {"views": ImageGrid(images=rows, row_names=("image", "view 1", "view 2"))}
    return pictures | {"local_views": ImageGrid(images=small)} if len(small) else pictures
