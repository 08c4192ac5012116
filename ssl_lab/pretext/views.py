"""Random views of a whole batch of images, drawn and applied on its device.

Every transform first draws one parameter per sample, then applies a deterministic function of images and parameters;
there is no loop over samples and nothing waits for the device. Geometry is one affine ``grid_sample``. Crops are not
antialiased: they mostly enlarge.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab.pretext import colour

Range = tuple[float, float]


class View(nn.Module):
    """One random view: crop, flip and affine map, then colour jitter, grey, blur and solarisation.

    Args:
        crop_scale: Share of the image's area that the crop keeps.
        crop_ratio: Width over height of the crop.
        size: Side of the view in pixels; None keeps the image's.
        flip_prob: Probability of a horizontal flip.
        rotate_degrees: Largest rotation to either side.
        shear_degrees: Largest shear to either side.
        translate: Largest shift as a share of the crop's side.
        brightness: Factors from 1 - b to 1 + b.
        contrast: Likewise, around the mean grey of the image.
        saturation: Likewise, around the grey image; without effect on one channel.
        hue: Largest turn of the hue to either side, in full turns; without effect on one channel.
        jitter_prob: Probability of the four colour changes, applied in this order.
        grayscale_prob: Probability of dropping colour.
        blur_prob: Probability of a Gaussian blur.
        blur_sigma: Its standard deviation in pixels.
        solarize_prob: Probability of inverting bright pixels.
        solarize_threshold: What is bright.

    Raises:
        ValueError: If a range or probability makes no sense.

    References:
        Chen et al., SimCLR (2020), appendix A. arXiv:2002.05709. Grill et al., BYOL (2020), appendix B.
    """

    def __init__(
        self,
        *,
        crop_scale: Range = (0.08, 1.0),
        crop_ratio: Range = (3 / 4, 4 / 3),
        size: int | None = None,
        flip_prob: float = 0.5,
        rotate_degrees: float = 0.0,
        shear_degrees: float = 0.0,
        translate: float = 0.0,
        brightness: float = 0.8,
        contrast: float = 0.8,
        saturation: float = 0.8,
        hue: float = 0.2,
        jitter_prob: float = 0.8,
        grayscale_prob: float = 0.2,
        blur_prob: float = 0.5,
        blur_sigma: Range = (0.1, 2.0),
        solarize_prob: float = 0.0,
        solarize_threshold: float = 0.5,
    ) -> None:
        super().__init__()
        _check_range("crop_scale", crop_scale, 1.0)
        _check_range("crop_ratio", crop_ratio, math.inf)
        _check_range("blur_sigma", blur_sigma, math.inf)
        probabilities = {
            "flip_prob": flip_prob,
            "jitter_prob": jitter_prob,
            "grayscale_prob": grayscale_prob,
            "blur_prob": blur_prob,
            "solarize_prob": solarize_prob,
            "brightness": brightness,
            "contrast": contrast,
            "saturation": saturation,
            "solarize_threshold": solarize_threshold,
            "2 * hue": 2 * hue,
        }
        for name, value in probabilities.items():
            if not 0 <= value <= 1:
                raise ValueError(f"View needs {name} in [0, 1], found {value}.")
        self.crop_scale, self.crop_ratio, self.size = tuple(crop_scale), tuple(crop_ratio), size
        self.flip_prob, self.translate = flip_prob, translate
        self.rotate_degrees, self.shear_degrees = rotate_degrees, shear_degrees
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.jitter_prob, self.grayscale_prob = jitter_prob, grayscale_prob
        self.blur_prob, self.blur_sigma = blur_prob, tuple(blur_sigma)
        self.solarize_prob, self.solarize_threshold = solarize_prob, solarize_threshold

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A view of each image: uint8 or float in [0, 1] (B, C, H, W) to fp32 in [0, 1] (B, C, size, size)."""
        x = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        draw = _Draw(x, generator)
        height, width = (self.size, self.size) if self.size else x.shape[2:]
        x = warp(x, self.draw_affine(x, draw), (height, width))
        color = x.shape[1] == 3

        changed = colour.adjust_brightness(x, draw.uniform(1 - self.brightness, 1 + self.brightness))
        changed = colour.adjust_contrast(changed, draw.uniform(1 - self.contrast, 1 + self.contrast))
        if color:
            changed = colour.adjust_saturation(changed, draw.uniform(1 - self.saturation, 1 + self.saturation))
            if self.hue > 0:
                changed = colour.adjust_hue(changed, draw.uniform(-self.hue, self.hue))
        x = draw.choose(self.jitter_prob, changed, x)
        if color and self.grayscale_prob > 0:
            x = draw.choose(self.grayscale_prob, colour.to_grey(x).expand_as(x), x)
        if self.blur_prob > 0:
            x = draw.choose(self.blur_prob, gaussian_blur(x, draw.uniform(*self.blur_sigma)), x)
        if self.solarize_prob > 0:
            x = draw.choose(self.solarize_prob, colour.solarize(x, self.solarize_threshold), x)
        return x

    def draw_affine(self, x: Tensor, draw: _Draw) -> Tensor:
        """Maps (B, 2, 3) from view to image coordinates in [-1, 1]: a random box, flipped, turned and sheared.

        The box has a random share of the area and ratio and is cut to fit the image where it would not.
        """
        height, width = x.shape[2:]
        area = draw.uniform(*self.crop_scale)
        ratio = torch.exp(draw.uniform(math.log(self.crop_ratio[0]), math.log(self.crop_ratio[1]))) * height / width
        w, h = torch.sqrt(area * ratio).clamp(max=1), torch.sqrt(area / ratio).clamp(max=1)
        x0, y0 = draw.uniform(-1, 1) * (1 - w), draw.uniform(-1, 1) * (1 - h)
        if self.translate > 0:
            x0 = x0 + draw.uniform(-self.translate, self.translate) * 2 * w
            y0 = y0 + draw.uniform(-self.translate, self.translate) * 2 * h
        flip = torch.where(draw.uniform(0, 1) < self.flip_prob, -1.0, 1.0)
        angle = draw.uniform(-self.rotate_degrees, self.rotate_degrees) * math.pi / 180
        shear = torch.tan(draw.uniform(-self.shear_degrees, self.shear_degrees) * math.pi / 180)
        cos, sin = angle.cos(), angle.sin()
        aspect = height / width
        row_x = torch.stack([w * flip * cos, w * (shear * cos - sin) * aspect, x0], 1)
        row_y = torch.stack([h * flip * sin / aspect, h * (shear * sin + cos), y0], 1)
        return torch.stack([row_x, row_y], 1)


class TwoViews(nn.Module):
    """Two views of each image, drawn in one pass over a batch of 2B; BYOL's differ in their settings.

    Args:
        first: Settings of the first view.
        second: Settings of the second; None for the same.
    """

    def __init__(self, first: nn.Module, second: nn.Module | None = None) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Views of images (B, C, H, W), shape (2, B, C, size, size)."""
        if self.second is None:
            both: Tensor = self.first(torch.cat([images, images]), generator)
            return both.unflatten(0, (2, len(images)))
        return torch.stack([self.first(images, generator), self.second(images, generator)])


def warp(x: Tensor, theta: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resampling of images (B, C, H, W) by affine maps (B, 2, 3); beyond the image its edge goes on."""
    grid = F.affine_grid(theta, [len(x), x.shape[1], *size], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image (C, H, W) by its own standard deviation in pixels, shape (B,), edges reflected.

    The kernel is a tenth of the image's side wide, as in SimCLR, and at least three pixels.
    """
    batch, channels, height, width = x.shape
    radius = max(1, round(0.05 * min(height, width)))
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.unsqueeze(1)).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0).unsqueeze(1)
    x = F.pad(x, [radius] * 4, mode="reflect").reshape(1, batch * channels, height + 2 * radius, width + 2 * radius)
    x = F.conv2d(x, kernel.unsqueeze(2), groups=batch * channels)
    x = F.conv2d(x, kernel.unsqueeze(3), groups=batch * channels)
    return x.view(batch, channels, height, width)


class _Draw:
    """Random numbers, one per sample."""

    def __init__(self, x: Tensor, generator: torch.Generator | None) -> None:
        self.count, self.device, self.generator = len(x), x.device, generator

    def uniform(self, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(self.count, device=self.device, generator=self.generator)

    def choose(self, probability: float, changed: Tensor, x: Tensor) -> Tensor:
        chosen = self.uniform(0, 1) < probability
        return torch.where(chosen.view(-1, 1, 1, 1), changed, x)


def _check_range(name: str, values: Range, highest: float) -> None:
    low, high = values
    if not 0 < low <= high <= highest:
        raise ValueError(f"View needs 0 < low <= high <= {highest} for {name}, found {list(values)}.")
