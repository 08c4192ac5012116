"""Images that are mixtures of two, with the shares of their classes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from ssl_lab.types import Batch


class Mixing(nn.Module):
    """MixUp and CutMix of a whole batch on its device: each image with its neighbour, all by one share.

    Args:
        num_classes: Number of classes C.
        mixup_alpha: Parameter of the beta distribution that MixUp draws the share from; 0 for no MixUp.
        cutmix_alpha: The same of CutMix, whose share is that of the area; with both, each batch draws one of them.

    Raises:
        ValueError: If a parameter is negative.

    References:
        Zhang et al., mixup: Beyond Empirical Risk Minimization (2017). arXiv:1710.09412
        Yun et al., CutMix (2019). arXiv:1905.04899
    """

    column: ClassVar[str] = "image"

    def __init__(self, num_classes: int, *, mixup_alpha: float = 0.0, cutmix_alpha: float = 0.0) -> None:
        super().__init__()
        for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
            if not 0 <= alpha < float("inf"):
                raise ValueError(f"Cannot use method.{name}={alpha}. Choose 0 for none, or above, such as 0.8 or 1.")
        self.num_classes = num_classes
        self.transforms: list[nn.Module] = [
            kind(alpha=float(alpha), num_classes=num_classes)
            for kind, alpha in ((v2.MixUp, mixup_alpha), (v2.CutMix, cutmix_alpha))
            if alpha > 0
        ]

    def forward(self, batch: Batch) -> tuple[Batch, Tensor]:
        """Mixed images of a batch, as fp32 in [0, 1].

        Returns:
            The batch, and the shares of the classes (B, C): a row's sum is 1, or less where an image had no label.
        """
        labels, images = batch["label"], batch["image"]
        images = images.float() / 255 if images.dtype == torch.uint8 else images
        classes = torch.arange(self.num_classes, device=labels.device)
        shares = (labels.unsqueeze(1) == classes).to(images.dtype)
        chosen = self.transforms[int(torch.randint(len(self.transforms), ()))]
        images, shares = chosen(images, shares)
        return {**batch, "image": images}, shares
