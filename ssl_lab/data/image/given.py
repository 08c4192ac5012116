"""Pictures that a user gives, read like those of a data set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_lab.data.base import DataModule, Sample
from ssl_lab.data.image.decode import decode_picture, image_endings, refuse_zeros_and_ones
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.pair import PairSpec
from ssl_lab.types import Spec

_IMAGE = "image"


@dataclass(kw_only=True, eq=False, repr=False)
class GivenImages(DataModule):
    """Data of images, which also reads pictures of any size that a user gives: files, their content, or pixels.

    Attributes:
        given_sizes: Height and width of each picture of the split ``given`` before it was resized.
    """

    @property
    def mirrored(self) -> bool | None:
        """Whether a mirrored picture is such a picture too; None where the data do not say."""
        return None

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        self.given_sizes: list[tuple[int, int]] = []

    @property
    def fields(self) -> Mapping[str, str]:
        """The picture; tables hold none."""
        return {_IMAGE: _IMAGE}

    @property
    def given_endings(self) -> tuple[str, ...]:
        """Return the endings of image files."""
        return image_endings()

    def samples_in(self, file: Path, fields: Mapping[str, str]) -> list[Sample]:
        """The file is a picture."""
        return [{_IMAGE: file}]

    def give(self, samples: Sequence[Sample], spec: Spec) -> list[int]:
        """Decode pictures as the data's are: upright, grey or RGB, the short side resized and the centre cut out.

        Args:
            samples: ``image`` as a file, its content, or pixels (H, W), (H, W, C) or (C, H, W): uint8, or floats in [0, 1].
            spec: Facts of the data; pictures get its shape.
        """
        facts = spec.image if isinstance(spec, PairSpec) else ImageSpec.of(spec, type(self).__name__)
        channels, height, width = facts.shape
        read = partial(decode_picture, channels=channels, image_size=(height, width))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(lambda sample: read(as_encoded(sample[_IMAGE])), samples))
        kept = {k: picture for k, picture in enumerate(found) if picture is not None}
        images = [picture.pixels for picture in kept.values()]
        self.given_sizes = [picture.size for picture in kept.values()]
        empty = torch.empty(0, *facts.shape, dtype=torch.uint8)
        self._given = {_IMAGE: torch.from_numpy(np.stack(images)) if images else empty}
        return list(kept)


def as_encoded(image: Any) -> bytes | Path | NDArray[np.uint8] | None:
    """A picture in one of the forms that are decoded.

    Raises:
        ValueError: If pixels are neither of a known layout nor of a known range.
    """
    if image is None or isinstance(image, bytes | Path):
        return image
    if isinstance(image, str):
        return Path(image)
    return _as_pixels(image.numpy(force=True) if isinstance(image, Tensor) else np.asarray(image))


def _as_pixels(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels uint8 (H, W) or (H, W, 3)."""
    if values.ndim == 3 and values.shape[2] not in (1, 3, 4) and values.shape[0] in (1, 3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)) or 0 in values.shape:
        raise ValueError(
            f"Cannot read an array of shape {values.shape} as a picture. Give pixels (H, W), (H, W, C) or (C, H, W) with "
            "1, 3 or 4 channels."
        )
    if values.dtype == np.bool_:
        values = values.astype(np.float32)
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(
                f"Cannot read floats from {values.min():.3g} to {values.max():.3g} as pixels. Give floats in [0, 1], or "
                "uint8."
            )
        values = np.rint(values * 255).astype(np.uint8)
    elif values.dtype == np.uint8:
        refuse_zeros_and_ones(values)
    if values.dtype != np.uint8:
        raise ValueError(f"Cannot read pixels of type {values.dtype}. Give uint8, or floats in [0, 1].")
    return np.ascontiguousarray(values)
