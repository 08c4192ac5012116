"""Coloured shapes drawn from known factors: a data set without files, whose answers are exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ssl_lab.data.image.base import image_spec
from ssl_lab.data.image.given import GivenImages
from ssl_lab.data.splits import find_split
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.types import Batch

SHAPES = ("square", "ellipse", "triangle")
FACTORS = ("shape", "hue", "scale", "orientation", "x", "y")
RANGES = ((0.0, 3.0), (0.0, 0.75), (0.15, 0.32), (0.0, math.pi / 2), (0.3, 0.7), (0.3, 0.7))
"""Where each factor lies; a shape is never cut off by the border, and no two values look alike but the ends of
orientation for squares."""

_HUES = ("red", "yellow", "green", "cyan", "blue", "violet")
_SPLITS = ("train", "val", "test")
_ROWS_AT_ONCE = 512


@dataclass(kw_only=True, eq=False, repr=False)
class Shapes(GivenImages):
    """One coloured square, ellipse or triangle per image, on black, in any place, size and orientation.

    A batch also holds ``factors``, float32 (B, 6): the number of the shape, its hue (0 red to 0.75 violet), scale (the
    square root of its share of the image), orientation (radians, counter-clockwise), and centre x (from the left) and y
    (from the top) as shares of the side. All are uniform and independent; row i of a split is a function of the seed, the
    split and i alone. The label is the shape. Boxes, masks and captions are made of factors on request.

    Args:
        image_size: Side S of the images, in pixels; a split takes 3 S^2 bytes an image.
        num_train: Number of images to train on.
        num_val: Number of images of the ``val`` split, 0 for none.
        num_test: Number of images of the ``test`` split.
        draw_seed: Seed of the factors.

    Raises:
        ValueError: If the images are smaller than 8 pixels, or a split would have a negative number of them or train none.
    """

    image_size: int = 32
    num_train: int = 10_000
    num_val: int = 1000
    num_test: int = 2000
    draw_seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.image_size < 8 or min(self.num_train - 1, self.num_val, self.num_test) < 0:
            raise ValueError(
                f"Shapes need image_size >= 8, num_train >= 1, and num_val and num_test >= 0; found {self.image_size}, "
                f"{self.num_train}, {self.num_val} and {self.num_test}."
            )
        self.num_images = dict(zip(_SPLITS, (self.num_train, self.num_val, self.num_test), strict=True))
        self._drawn: dict[str, dict[str, Tensor]] = {}

    @cached_property
    def spec(self) -> ImageSpec:
        """Facts of the data."""
        return image_spec(self.columns("train")["image"].numpy(), class_names=SHAPES)

    def columns(self, split: str) -> dict[str, Tensor]:
        """Images uint8 (N, 3, S, S), factors float32 (N, 6) and labels of a split, drawn when it is first asked for.

        Raises:
            ValueError: If there is no such split; names those that exist.
        """
        split = find_split(split, [name for name, number in self.num_images.items() if number])
        if split not in self._drawn:
            factors = draw_factors(self.num_images[split], seed=(self.draw_seed, _SPLITS.index(split)))
            image = torch.cat([draw(part, self.image_size) for part in factors.split(_ROWS_AT_ONCE)])
            self._drawn[split] = {"image": image, "factors": factors, "label": factors[:, 0].long()}
        return self._drawn[split]

    def masks(self, batch: Batch) -> Tensor:
        """Masks of the shapes, bool (B, S, S): True where a pixel's centre is inside."""
        return signed_distance(batch["factors"], self.image_size) <= 0

    def boxes(self, batch: Batch) -> Tensor:
        """Smallest upright boxes around the shapes, float32 (B, 4): left, top, right, bottom in pixels."""
        return bounding_boxes(batch["factors"]) * self.image_size

    def captions(self, batch: Batch) -> list[str]:
        """A sentence about each image, such as ``a small red square at the top left``."""
        return [caption(row) for row in batch["factors"].tolist()]


def draw_factors(number: int, *, seed: tuple[int, int]) -> Tensor:
    """Independent uniform factors, float32 (N, 6); a larger N starts with the same rows."""
    low, high = np.array(RANGES).T
    factors = low + (high - low) * np.random.default_rng(seed).random((number, len(FACTORS)))
    factors[:, 0] = np.floor(factors[:, 0])
    return torch.from_numpy(factors.astype(np.float32))


def draw(factors: Tensor, image_size: int) -> Tensor:
    """Images uint8 (B, 3, S, S); a pixel at the edge is as bright as the share of it that is covered, nearly."""
    covered = (0.5 - signed_distance(factors, image_size) * image_size).clamp(0, 1)
    colour = rgb(factors[:, 1]).view(-1, 3, 1, 1)
    return (255 * colour * covered.unsqueeze(1)).round().byte()


def signed_distance(factors: Tensor, image_size: int) -> Tensor:
    """Distance (B, S, S) of pixel centres from the edge of the shape in shares of the side, negative within.

    Exact along sides, below the true distance beyond corners; of an ellipse to first order near its edge.
    """
    shape, _, scale, orientation, x, y = (column.view(-1, 1, 1) for column in factors.unbind(1))
    centres = (torch.arange(image_size, device=factors.device) + 0.5) / image_size
    right, up = centres.view(1, 1, -1) - x, y - centres.view(1, -1, 1)
    u = right * orientation.cos() + up * orientation.sin()
    v = up * orientation.cos() - right * orientation.sin()
    by_shape = [_beyond_sides(u, v, scale, 4), _beyond_ellipse(u, v, scale), _beyond_sides(u, v, scale, 3)]
    return torch.stack(by_shape).gather(0, shape.long().expand_as(u).unsqueeze(0)).squeeze(0)


def bounding_boxes(factors: Tensor) -> Tensor:
    """Left, top, right and bottom (B, 4) in shares of the side."""
    shape, _, scale, orientation, x, y = factors.unbind(1)
    cos, sin = orientation.cos(), orientation.sin()
    a, b = _half_axes(scale)
    ellipse = torch.stack([(a * cos).hypot(b * sin), (a * sin).hypot(b * cos)], dim=1)
    reach = {1: torch.cat([-ellipse, ellipse], dim=1)}
    for number, sides in ((0, 4), (2, 3)):
        angles = orientation.unsqueeze(1) + (2 * torch.arange(sides, device=factors.device) + 1) * math.pi / sides
        radius = (_inradius(scale, sides) / math.cos(math.pi / sides)).unsqueeze(1)
        right, down = radius * angles.cos(), -radius * angles.sin()
        reach[number] = torch.stack([right.amin(1), down.amin(1), right.amax(1), down.amax(1)], dim=1)
    chosen = torch.stack([reach[k] for k in range(3)]).gather(0, shape.long().view(1, -1, 1).expand(1, -1, 4))
    return chosen.squeeze(0) + torch.stack([x, y, x, y], dim=1)


def rgb(hue: Tensor) -> Tensor:
    """Full colours (B, 3) in [0, 1] of hues in [0, 1): 0 is red, 1/3 green, 2/3 blue."""
    sixths = (6 * hue.unsqueeze(1) + torch.tensor([0.0, 4.0, 2.0], device=hue.device)) % 6
    return ((sixths - 3).abs() - 1).clamp(0, 1)


def caption(factors: list[float]) -> str:
    """A sentence about one image: size, colour, shape and place, each of the range's thirds a word."""
    size, across, down = (_third(factors[FACTORS.index(name)], name) for name in ("scale", "x", "y"))
    colour = _HUES[min(round(6 * factors[1]), 5)]
    place = f"{('top', 'centre', 'bottom')[down]} {('left', 'centre', 'right')[across]}".replace(
        "centre centre", "centre"
    )
    return f"a {('small', 'medium', 'large')[size]} {colour} {SHAPES[int(factors[0])]} at the {place}"


def _third(value: float, name: str) -> int:
    low, high = RANGES[FACTORS.index(name)]
    return min(2, int(3 * (value - low) / (high - low)))


def _beyond_sides(u: Tensor, v: Tensor, scale: Tensor, sides: int) -> Tensor:
    """Distance from the regular polygon of area ``scale`` squared whose first side faces along u."""
    angles = [2 * math.pi * k / sides for k in range(sides)]
    farthest = torch.stack([u * math.cos(angle) + v * math.sin(angle) for angle in angles]).amax(0)
    return farthest - _inradius(scale, sides)


def _beyond_ellipse(u: Tensor, v: Tensor, scale: Tensor) -> Tensor:
    """Distance from the ellipse of the same area, twice as long along u as along v: f / |grad f| for f = level - 1."""
    a, b = _half_axes(scale)
    level = ((u / a).square() + (v / b).square()).sqrt()
    gradient = ((u / a.square()).square() + (v / b.square()).square()).sqrt() / level.clamp(min=1e-6)
    return (level - 1) / gradient.clamp(min=1e-6)


def _inradius(scale: Tensor, sides: int) -> Tensor:
    return scale / math.sqrt(sides * math.tan(math.pi / sides))


def _half_axes(scale: Tensor) -> tuple[Tensor, Tensor]:
    short = scale / math.sqrt(2 * math.pi)
    return 2 * short, short
