"""Masking of the patches of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchMasking(nn.Module):
    """Removes the same number of patches from every image, drawn independently for each.

    Of L patches in random order the first ``int(L * (1 - mask_ratio))`` stay: all samples in one sort on the device, and
    every shape is known beforehand.

    Args:
        mask_ratio: Share of the patches that is removed.

    Raises:
        ValueError: If the share is not in (0, 1).

    References:
        He et al., Masked Autoencoders Are Scalable Vision Learners (2021). arXiv:2111.06377
    """

    def __init__(self, mask_ratio: float = 0.75) -> None:
        super().__init__()
        if not 0 < mask_ratio < 1:
            raise ValueError(f"The share of patches to remove, mask_ratio, lies between 0 and 1, found {mask_ratio}.")
        self.mask_ratio = mask_ratio

    def num_kept(self, num_patches: int) -> int:
        """Return the number of an image's patches that stay."""
        return int(num_patches * (1 - self.mask_ratio))

    def forward(
        self, batch_size: int, num_patches: int, device: torch.device, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Numbers of the patches that stay (B, K) and of those that are removed (B, L - K), int64, in random order.

        Both side by side are a permutation of all patches; its ``argsort(1)`` restores their order.
        """
        keys = torch.rand(batch_size, num_patches, device=device, generator=generator)
        order = keys.argsort(1)
        kept = self.num_kept(num_patches)
        return order[:, :kept], order[:, kept:]
