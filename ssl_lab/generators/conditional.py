"""Batch normalisation that knows an image's class."""

from __future__ import annotations

from torch import Tensor, nn


class ConditionalBatchNorm2d(nn.Module):
    r"""Batch normalisation whose scale and shift belong to the class: :math:`\gamma_y \hat x + \beta_y`.

    Mean and variance are those of the whole batch, whatever its classes.

    Args:
        num_features: Channels C.
        num_classes: Number of classes.

    References:
        Dumoulin et al., A Learned Representation for Artistic Style (2016). arXiv:1610.07629
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(num_features, affine=False)
        self.scale = nn.Embedding(num_classes, num_features)
        self.shift = nn.Embedding(num_classes, num_features)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Normalised activations of shape (B, C, H, W), with classes int64 (B,)."""
        scale, shift = self.scale(label), self.shift(label)
        return self.norm(x) * scale[:, :, None, None] + shift[:, :, None, None]  # type: ignore[no-any-return]


def batch_norm(num_features: int, num_classes: int | None) -> nn.Module:
    """Batch normalisation, class-conditional where there are classes."""
    if num_classes is None:
        return nn.BatchNorm2d(num_features)
    return ConditionalBatchNorm2d(num_features, num_classes)


class ConditionalSequential(nn.Sequential):
    """A chain of modules; those that take a class receive it."""

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Output for activations, with classes int64 (B,) where a module needs them."""
        for module in self:
            x = module(x, label) if isinstance(module, _TAKE_CLASSES) else module(x)
        return x


_TAKE_CLASSES = (ConditionalBatchNorm2d, ConditionalSequential)
