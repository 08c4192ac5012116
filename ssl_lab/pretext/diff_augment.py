"""The same differentiable augmentation for real and generated images."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DiffAugment(nn.Module):
    """Changes of colour, translation and cutout, through which a generator's gradient passes.

    What a discriminator sees of real and of generated images is augmented in the same way, so that it cannot learn few
    real images by heart, and the generator need not imitate the augmentation. Every image gets its own draw; a whole batch
    is changed at once.

    Colours are changed as in the paper's code, whose pixels lie in [-1, 1]: brightness is shifted by up to a quarter of
    the range either way, saturation scaled by 0 to 2 about the mean of the pixel's channels, contrast by 0.5 to 1.5 about
    the mean of the image. What translation and cutout uncover is mid-grey. Values may leave [0, 1] and are not clipped, as
    a clipped pixel would have no gradient.

    Args:
        colour: Whether to change colours.
        translation: Largest shift either way as a share of each side; 0 for none.
        cutout: Sides of the square that is greyed as a share of the image's; 0 for none.

    Raises:
        ValueError: If a share is not in [0, 1).

    References:
        Zhao et al., Differentiable Augmentation for Data-Efficient GAN Training (2020). arXiv:2006.10738
    """

    def __init__(self, *, colour: bool = True, translation: float = 0.125, cutout: float = 0.5) -> None:
        super().__init__()
        if not (0 <= translation < 1 and 0 <= cutout < 1):
            raise ValueError(
                f"DiffAugment needs shares of the image's sides in [0, 1), found translation={translation} and "
                f"cutout={cutout}. Use 0 to switch one off."
            )
        self.colour, self.translation, self.cutout = colour, translation, cutout

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augmented images of the same shape and type, from float images (B, C, H, W) in [0, 1]."""
        x = images - 0.5
        batch, _, height, width = x.shape

        def uniform(low: float, high: float) -> Tensor:
            draws = torch.rand(batch, 1, 1, 1, device=x.device, generator=generator).to(x.dtype)
            return low + (high - low) * draws

        def below(count: int) -> Tensor:
            return torch.randint(count, (batch, 1), device=x.device, generator=generator)

        if self.colour:
            x = change_colour(x, uniform(-0.25, 0.25), uniform(0, 2), uniform(0.5, 1.5))
        if self.translation > 0:
            down, right = (round(self.translation * side) for side in (height, width))
            x = translate(x, below(2 * down + 1) - down, below(2 * right + 1) - right)
        if self.cutout > 0:
            sides = round(self.cutout * height), round(self.cutout * width)
            # Centres lie anywhere in the image, so that parts of squares may lie outside.
            tops, lefts = below(height + 1 - sides[0] % 2), below(width + 1 - sides[1] % 2)
            x = cut_out(x, tops - sides[0] // 2, lefts - sides[1] // 2, sides)
        return x + 0.5


def change_colour(x: Tensor, shift: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Images (B, C, H, W) plus a shift, then scaled about the mean of channels, then about the mean of the image.

    Shift and factors have shape (B, 1, 1, 1).
    """
    x = x + shift
    x = torch.lerp(x.mean(1, keepdim=True), x, saturation)
    return torch.lerp(x.mean((1, 2, 3), keepdim=True), x, contrast)


def translate(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Images (B, C, H, W) moved by whole pixels, each int64 (B, 1); uncovered pixels are 0."""
    rows = torch.arange(x.shape[2], device=x.device) - down
    columns = torch.arange(x.shape[3], device=x.device) - right
    inside = _within(rows, x.shape[2])[:, None, :, None] * _within(columns, x.shape[3])[:, None, None, :]
    x = x.gather(2, rows.clamp(0, x.shape[2] - 1)[:, None, :, None].expand_as(x))
    x = x.gather(3, columns.clamp(0, x.shape[3] - 1)[:, None, None, :].expand_as(x))
    return x * inside


def cut_out(x: Tensor, top: Tensor, left: Tensor, sides: tuple[int, int]) -> Tensor:
    """Images (B, C, H, W) with a rectangle of 0, its upper left corner at int64 (B, 1), which may lie outside."""
    rows = torch.arange(x.shape[2], device=x.device) - top
    columns = torch.arange(x.shape[3], device=x.device) - left
    return x * ~(_within(rows, sides[0])[:, None, :, None] * _within(columns, sides[1])[:, None, None, :])


def _within(positions: Tensor, count: int) -> Tensor:
    return (positions >= 0) & (positions < count)
