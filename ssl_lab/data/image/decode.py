"""From an encoded picture of any kind to uint8 pixels."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

Encoded: TypeAlias = "bytes | Path | NDArray[np.uint8] | Image.Image | None"
"""An image file, its content, pixels (H, W) or (H, W, 3), or a picture of Pillow; None if it is missing."""

DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""Errors that Pillow's many readers raise on damaged files."""

_COMMON = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_NO_READERS = (
    "BUFR",
    "EPS",
    "GRIB",
    "HDF5",
    "MPEG",
    "WMF",
)  # Pillow knows their names, or hands them to other programs

_ROWS_AT_ONCE = 256


@cache
def image_formats() -> tuple[str, ...]:
    """Formats that this Pillow decodes by itself, whatever a file's name says: EPS would run Ghostscript."""
    Image.init()
    return tuple(name for name in Image.ID if name in Image.OPEN and name not in _NO_READERS)


def image_endings() -> tuple[str, ...]:
    """Endings of the files that this Pillow decodes, the common ones first."""
    endings = (ending for ending, name in Image.registered_extensions().items() if name in image_formats())
    return (*_COMMON, *sorted(set(endings) - set(_COMMON)))


class Picture(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: Its pixels as they were asked for, uint8 (C, H, W).
        size: Height and width that it had before it was resized, upright.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]


def decode(
    encoded: Encoded, *, channels: int | None, image_size: int | tuple[int, int] | None
) -> NDArray[np.uint8] | None:
    """The pixels of :func:`decode_picture`, uint8 (C, H, W); None if the image cannot be read."""
    picture = decode_picture(encoded, channels=channels, image_size=image_size)
    return None if picture is None else picture.pixels


def decode_picture(
    encoded: Encoded, *, channels: int | None, image_size: int | tuple[int, int] | None
) -> Picture | None:
    """An image, upright; None if it cannot be read.

    The orientation stored by cameras is applied, transparent pixels are laid on white, 16-bit greys keep their upper
    8 bits, floats are greys in [0, 1], and CMYK, palette and other modes become grey or RGB. Pixels of 32 bits whose range
    cannot be known count as unreadable.

    Args:
        encoded: The image.
        channels: 1 for grey, 3 for RGB, None for whichever it is.
        image_size: Its short side is resized to this (bicubic, antialiased) and the centre square cut out; of a height
            and a width, it is resized to cover both and the centre cut out; None to keep its size.
    """
    if encoded is None:
        return None
    try:
        with _open(encoded) as image:
            height, width = image_size if isinstance(image_size, tuple) else (image_size, image_size)
            size = image.size if image.getexif().get(ExifTags.Base.Orientation, 1) >= 5 else image.size[::-1]
            if height is not None and width is not None:
                longest = 2 * max(height, width)
                image.draft(None, (longest, longest))  # JPEG: skip frequencies far above the target
            image = _to_grey_or_rgb(ImageOps.exif_transpose(image), channels)
            if height is not None and width is not None and image.size != (width, height):
                image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
            pixels = np.array(image)
    except DAMAGED:
        return None
    return Picture(np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), size)


def _open(encoded: bytes | Path | NDArray[np.uint8] | Image.Image) -> Image.Image:
    if isinstance(encoded, Image.Image):
        return encoded.copy()
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded)
    return Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded, formats=image_formats())


def _to_grey_or_rgb(image: Image.Image, channels: int | None) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_to_8_bit(np.array(image)))
    is_grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    target = {None: "L" if is_grey else "RGB", 1: "L", 3: "RGB"}[channels]
    return image if image.mode == target else image.convert(target)


def _to_8_bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Greys of more than 8 bits: the upper half of 16 bits, and floats in [0, 1].

    What a value means is read off its type, never off the brightest pixel, so that a dark image stays dark.

    Raises:
        ValueError: If the range of 32-bit integers or floats cannot be known.
    """
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError("float pixels outside of [0, 1]")
        return (values.astype(np.float64) * 255).astype(np.uint8)
    if values.dtype.itemsize > 2 and not (values.min() >= 0 and 255 < values.max() < 2**16):
        raise ValueError("32-bit pixels of unknown range")
    return (values // 256).astype(np.uint8)


def refuse_zeros_and_ones(pixels: NDArray[Any]) -> None:
    """Refuse masks and binarised images of whole numbers, which would be read as nearly black.

    Args:
        pixels: Whole numbers from 0 to 255, of any shape.

    Raises:
        ValueError: If there are zeros and ones, and no larger number.
    """
    lowest, highest = 1, 0
    for start in range(0, len(pixels), _ROWS_AT_ONCE):
        part = pixels[start : start + _ROWS_AT_ONCE]
        lowest, highest = min(lowest, int(part.min(initial=1))), max(highest, int(part.max(initial=0)))
        if highest > 1:
            return
    if (lowest, highest) == (0, 1):
        raise ValueError(
            "Cannot read images of the whole numbers 0 and 1 alone: as pixels from 0 to 255 they are nearly black. Give "
            "images.astype(bool), of which ones are white."
        )
