"""Random views of a whole batch of images, drawn and applied on its device.

Every transform first draws one parameter per sample, then applies a deterministic function of images and parameters;
there is no loop over samples and nothing waits for the device. Everything is computed in fp32, under autocast too.
Geometry is one affine ``grid_sample``. Crops are not antialiased: they mostly enlarge.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab.modalities.image import ImageSpec
from ssl_lab.pretext import colour
from ssl_lab.pretext.base import Augmentation, Views
from ssl_lab.pretext.captions import CAPTIONS
from ssl_lab.types import Batch, ImageGrid, Spec

Range = tuple[float, float]


class View(nn.Module):
    """One random view: crop, flip and affine map, then colour jitter, grey, blur and solarisation.

    Boxes are those of torchvision's RandomResizedCrop, without its rounding to whole pixels. Colour jitter is
    torchvision's ColorJitter: its changes come in a random order, here another one for every sample. (A quarter of a batch
    turns its hue first, a quarter second, and so on.)

    Args:
        crop_scale: Share of the image's area that the crop keeps.
        crop_ratio: Width over height of the crop.
        size: Side of the view in pixels; None keeps the image's.
        flip_prob: Probability of a horizontal flip.
        rotate_degrees: Largest rotation to either side, about the centre of the crop.
        shear_degrees: Largest horizontal shear to either side.
        translate: Largest shift as a share of the crop's side.
        brightness: Strength b of the change of brightness, by a factor from 1 - b to 1 + b.
        contrast: Strength of the change of contrast, likewise, around the mean grey of the image.
        saturation: Strength of the change of saturation, likewise, around the grey image; without effect on one channel.
        hue: Largest turn of the hue to either side, in full turns; without effect on one channel.
        jitter_prob: Probability of the four colour changes.
        grayscale_prob: Probability of dropping colour.
        blur_prob: Probability of a Gaussian blur.
        blur_sigma: Smallest and largest standard deviation of the blur, in pixels.
        solarize_prob: Probability of inverting bright pixels.
        solarize_threshold: Value in [0, 1] above which a pixel is bright.

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
        self.crop_scale = _checked_range("crop_scale", crop_scale, 1.0)
        self.crop_ratio = _checked_range("crop_ratio", crop_ratio, math.inf)
        self.blur_sigma = _checked_range("blur_sigma", blur_sigma, math.inf)
        shares = {
            "flip_prob": flip_prob,
            "jitter_prob": jitter_prob,
            "grayscale_prob": grayscale_prob,
            "blur_prob": blur_prob,
            "solarize_prob": solarize_prob,
            "translate": translate,
            "brightness": brightness,
            "contrast": contrast,
            "saturation": saturation,
            "solarize_threshold": solarize_threshold,
        }
        bounds = {
            **{name: (value, 1.0) for name, value in shares.items()},
            "hue": (hue, 0.5),
            "rotate_degrees": (rotate_degrees, 180.0),
            "shear_degrees": (shear_degrees, 80.0),
        }
        for name, (value, highest) in bounds.items():
            if not 0 <= value <= highest:
                raise ValueError(f"View needs {name} from 0 to {highest}, found {value}. Use 0 to switch it off.")
        if size is not None and size < 1:
            raise ValueError(f"View needs a size of at least 1 pixel, found {size}. Use None to keep the image's.")
        self.size, self.flip_prob, self.translate = size, flip_prob, translate
        self.rotate_degrees, self.shear_degrees = rotate_degrees, shear_degrees
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.jitter_prob, self.grayscale_prob, self.blur_prob = jitter_prob, grayscale_prob, blur_prob
        self.solarize_prob, self.solarize_threshold = solarize_prob, solarize_threshold

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A view of each image: uint8 or float in [0, 1] (B, C, H, W) to fp32 in [0, 1] (B, C, size, size)."""
        with torch.autocast(images.device.type, enabled=False):
            x = images.float() / 255 if images.dtype == torch.uint8 else images.float()
            draw = Draw(len(x), x.device, generator)
            size = (self.size, self.size) if self.size is not None else (x.shape[2], x.shape[3])
            x = warp(x, self.draw_maps(draw, (x.shape[2], x.shape[3]), size), size)
            if self.jitter_prob > 0:
                x = self.jitter(x, draw)
            if self.grayscale_prob > 0:
                x = draw.choose(self.grayscale_prob, colour.to_grey(x), x)
            if self.blur_prob > 0:
                sigma = draw.uniform(*self.blur_sigma)
                x = gaussian_blur(x, sigma * draw.chosen(self.blur_prob))
            if self.solarize_prob > 0:
                x = draw.choose(self.solarize_prob, colour.solarize(x, self.solarize_threshold), x)
            return x.clamp(0, 1)

    def draw_maps(self, draw: Draw, image_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Random maps (B, 2, 3) from a view of ``size`` to an image of ``image_size``, as of :func:`affine_maps`."""
        box = draw.boxes(image_size, scale=self.crop_scale, ratio=self.crop_ratio)
        if self.translate > 0:
            centre, sides = box.chunk(2, 1)
            shift = draw.uniform(-self.translate, self.translate, 2)
            box = torch.cat([centre + 2 * shift * sides, sides], 1)
        return affine_maps(
            box,
            flip=draw.uniform(0, 1) < self.flip_prob,
            angle=torch.deg2rad(draw.uniform(-self.rotate_degrees, self.rotate_degrees)),
            shear=torch.deg2rad(draw.uniform(-self.shear_degrees, self.shear_degrees)),
            aspect=size[0] / size[1],
        )

    def jitter(self, x: Tensor, draw: Draw) -> Tensor:
        """Colour jitter with random amounts, neutral ones where it is not chosen; one channel has no saturation, no hue."""
        around = [(1.0, self.brightness), (1.0, self.contrast), (1.0, self.saturation), (0.0, self.hue)]
        if x.shape[1] == 1:
            around = around[:2]
        elif self.hue == 0:
            around = around[:3]  # spares the most expensive change
        chosen = draw.chosen(self.jitter_prob)
        amounts = torch.stack([centre + chosen * draw.uniform(-width, width) for centre, width in around], 1)
        hue_rows = draw.groups(4) if len(around) > colour.HUE else ()
        return colour.color_jitter(x, amounts, draw.orders(min(len(around), colour.HUE)), hue_rows)


class OneView(Augmentation):
    """A view of each image in its place.

    Args:
        view: Draws it: images (B, C, H, W) to fp32 in [0, 1].
    """

    column: ClassVar[str] = "image"

    def __init__(self, view: nn.Module) -> None:
        super().__init__()
        self.view = view

    def forward(self, batch: Batch) -> Batch:
        """The batch with views instead of its images."""
        return {**batch, "image": self.view(batch["image"])}


class TwoViews(Views):
    """Two views of each image, drawn in one pass over a batch of 2B; BYOL's differ in their settings.

    Args:
        first: Settings of the first view.
        second: Settings of the second view; None for those of the first.

    Raises:
        ValueError: If the two views differ in size.
    """

    takes: ClassVar[type[Spec]] = ImageSpec

    def __init__(self, first: View, second: View | None = None) -> None:
        super().__init__()
        if second is not None and first.size != second.size:
            raise ValueError(f"Two views need one size, found {first.size} and {second.size}. Set both to the same.")
        self.first = first
        self.second = second

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """Views of the images of a batch, (B, C, H, W) to (2B, C, size, size) in [0, 1]."""
        images = batch["image"]
        if self.second is None:
            return {"image": self.first(torch.cat([images, images]), generator)}
        return {"image": torch.cat([self.first(images, generator), self.second(images, generator)])}

    def show(self, batch: Batch) -> dict[str, ImageGrid]:
        """The first twelve images, uint8, above two views of each and in their size."""
        images = batch["image"][:12]
        return {"views": images_above_views(images, self({"image": images}))}


def images_above_views(images: Tensor, views: Batch) -> ImageGrid:
    """Images (B, C, H, W), uint8, above two views of each, (2B, C, h, w), and in their size."""
    both = views["image"]
    above = F.interpolate(images.float() / 255, both.shape[-2:], mode="bilinear", antialias=True)
    rows = torch.cat([above, both]).unflatten(0, (3, -1))
    return ImageGrid(images=rows, row_names=("image", "view 1", "view 2"), caption=CAPTIONS["views"])


def affine_maps(box: Tensor, *, flip: Tensor, angle: Tensor, shear: Tensor, aspect: float) -> Tensor:
    r"""Maps from coordinates of a view to those of its image, both in [-1, 1], shape (B, 2, 3).

    A point of the view is mirrored (F), sheared (S), turned (R) in pixels of the view, and scaled into the box:
    :math:`x \mapsto c + \mathrm{diag}(w, h)\, R\, S\, F\, x`.

    Args:
        box: Centre (x, y) of the crop in [-1, 1], then its width and height as shares of the image's, shape (B, 4).
        flip: Whether to mirror left and right, bool (B,).
        angle: Rotation in radians, (B,).
        shear: Horizontal shear in radians, (B,).
        aspect: Height over width of the view in pixels.
    """
    x, y, w, h = box.unbind(1)
    mirror = torch.where(flip, -1.0, 1.0)
    cos, sin, slope = angle.cos(), angle.sin(), shear.tan()
    row_x = torch.stack([w * cos * mirror, w * (cos * slope - sin) * aspect, x], 1)
    row_y = torch.stack([h * sin / aspect * mirror, h * (sin * slope + cos), y], 1)
    return torch.stack([row_x, row_y], 1)


def warp(x: Tensor, theta: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resampling of images (B, C, H, W) by affine maps (B, 2, 3); beyond the image its edge repeats."""
    grid = sampling_grid(theta, size)
    if torch.compiler.is_compiling() and x.device.type == "cpu":
        return _opaque_sample(x, grid)  # type: ignore[no-any-return]
    return _sample(x, grid)


def sampling_grid(theta: Tensor, size: tuple[int, int]) -> Tensor:
    """Positions in the image of each pixel of a view of ``size``, (B, height, width, 2) in [-1, 1], x before y."""
    height, width = size
    ys = ((2 * torch.arange(height, device=theta.device) + 1) / height - 1).view(1, height, 1, 1)
    xs = ((2 * torch.arange(width, device=theta.device) + 1) / width - 1).view(1, 1, width, 1)
    along_x, along_y, shift = theta.mT.reshape(len(theta), 3, 1, 1, 2).unbind(1)
    return along_x * xs + (along_y * ys + shift)  # F.affine_grid multiplies matrices for this, several times slower


def _sample(x: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


# On a CPU, what torch.compile makes of grid_sample is four times slower than the kernel: to it, this is one operation.
_opaque_sample = torch.library.custom_op(
    "ssl_lab::grid_sample", _sample, mutates_args=(), schema="(Tensor x, Tensor grid) -> Tensor"
)


@_opaque_sample.register_fake
def _(x: Tensor, grid: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:2], *grid.shape[1:3])


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image (C, H, W) by its own standard deviation in pixels, shape (B,), edges reflected; 0 keeps the image.

    The kernel is a tenth of the image's side wide, as in SimCLR, and at least three pixels.
    """
    batch, channels, height, width = x.shape
    radius = max(1, round(0.05 * min(height, width)))
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-6).unsqueeze(1)).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0).unsqueeze(1)
    x = F.pad(x, [radius] * 4, mode="reflect").reshape(1, batch * channels, height + 2 * radius, width + 2 * radius)
    x = F.conv2d(x, kernel.unsqueeze(2), groups=batch * channels)
    x = F.conv2d(x, kernel.unsqueeze(3), groups=batch * channels)
    return x.view(batch, channels, height, width)


class Draw:
    """Random parameters of a batch, one per sample, on its device.

    Args:
        batch_size: Number of samples B.
        device: Where the parameters are wanted.
        generator: Source of randomness; None is the device's global stream.
    """

    def __init__(self, batch_size: int, device: torch.device, generator: torch.Generator | None = None) -> None:
        self.batch_size, self.device, self.generator = batch_size, device, generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform numbers in [low, high), shape (B, *shape)."""
        draws = torch.rand(self.batch_size, *shape, device=self.device, generator=self.generator)
        return low + (high - low) * draws

    def chosen(self, probability: float) -> Tensor:
        """1 with a probability, 0 otherwise; float (B,)."""
        return (self.uniform(0, 1) < probability).float()

    def choose(self, probability: float, changed: Tensor, x: Tensor) -> Tensor:
        """Samples of ``changed`` with a probability, of ``x`` otherwise."""
        return torch.lerp(x, changed, self.chosen(probability).view(-1, 1, 1, 1))  # where is slower on a CPU

    def orders(self, count: int) -> Tensor:
        """Permutations of 0..count-1, all equally likely, int64 (B, count)."""
        return self.uniform(0, 1, count).argsort(1)

    def groups(self, count: int) -> tuple[Tensor, ...]:
        """A random division of the samples into groups as equal as can be, each of row numbers, int64."""
        return self.uniform(0, 1).argsort().tensor_split(count)

    def boxes(self, image_size: tuple[int, int], *, scale: Range, ratio: Range) -> Tensor:
        """Crops with a random share of the area and ratio, shape (B, 4) as in :func:`affine_maps`.

        As in torchvision, the first of ten tries that fits the image counts; where none does, the largest centred box
        with a permitted ratio.
        """
        aspect = image_size[0] / image_size[1]
        area = self.uniform(*scale, 10)
        shape = torch.exp(self.uniform(math.log(ratio[0]), math.log(ratio[1]), 10)) * aspect
        sides = torch.stack([torch.sqrt(area * shape), torch.sqrt(area / shape)], 1)
        fits = (sides <= 1).all(1)
        first = fits.long().argmax(1).view(-1, 1, 1).expand(-1, 2, 1)
        largest = min(1.0, ratio[1] * aspect), min(1.0, 1 / (ratio[0] * aspect))
        found = fits.any(1)
        sides = sides.gather(2, first).squeeze(2)
        # Numbers, not a tensor of them: copying one to the device would wait for it.
        sides = torch.stack([torch.where(found, sides[:, i], largest[i]) for i in range(2)], 1)
        centres = torch.where(found.unsqueeze(1), self.uniform(-1, 1, 2) * (1 - sides), 0.0)
        return torch.cat([centres, sides], 1)


def _checked_range(name: str, values: Range, highest: float) -> Range:
    low, high = values
    if not 0 < low <= high <= highest:
        raise ValueError(f"View needs {name} as [low, high], 0 < low <= high <= {highest}, found {list(values)}.")
    return low, high
