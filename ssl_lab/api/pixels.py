"""Arrays, tensors and pictures of any layout as uint8 (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_lab.data.image.decode import decode, refuse_zeros_and_ones

_ROWS_AT_ONCE = 4096
_CHANNELS = (1, 3)


def as_array(data: Any) -> NDArray[Any]:
    """An array, tensor or picture as a NumPy array."""
    if hasattr(data, "detach"):  # a tensor, on whatever device
        data = data.detach().cpu()
        data = (data.float() if str(data.dtype) == "torch.bfloat16" else data).numpy()  # which NumPy does not have
    return np.asarray(data)


def as_pixels(data: Any) -> NDArray[np.uint8]:
    """Images as uint8 (N, C, H, W).

    Args:
        data: (N, H, W, C), (N, C, H, W) or (N, H, W), with 1 or 3 channels; whole numbers from 0 to 255, not 0 and 1 alone,
            floats in [0, 1], or booleans.

    Raises:
        ValueError: If the array holds something else; says what was found and what to do.
    """
    array = as_array(data)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"Cannot read images from an array of {array.dtype}: its elements are not numbers. Give images of "
            "one size as one array of uint8, such as numpy.stack(images)."
        )
    found = _as_bytes(_channels_first(array))
    if array.dtype.kind in "iu":
        refuse_zeros_and_ones(found)
    return found


def as_one_size(images: Iterable[Any], *, image_size: int | None) -> NDArray[np.uint8]:
    """Single images (H, W), (H, W, C), (C, H, W) or pictures of PIL as uint8 (N, C, H, W).

    Args:
        images: At least one.
        image_size: The short side is resized to this and the centre square cut out; None if all have one size.

    Raises:
        ValueError: If one is no image, or sizes or channels differ.
    """
    found: list[NDArray[np.uint8]] = []
    whole = True
    for k, image in enumerate(images):
        pixels = _one(image, k)
        if image_size is not None:
            pixels = _resized(pixels, image_size)
        if found and pixels.shape != found[0].shape:
            same_channels = len(pixels) == len(found[0])
            remedy = (
                "Give image_size=, to which all are resized" if same_channels else "Convert all to RGB, or all to grey"
            )
            raise ValueError(
                f"Cannot put images of different size into one array: image 0 has (C, H, W) {found[0].shape}, image {k} has "
                f"{pixels.shape}. {remedy}."
            )
        found.append(pixels)
        whole = whole and (hasattr(image, "mode") or as_array(image).dtype.kind in "iu")
    stack = np.stack(found)
    if whole:
        refuse_zeros_and_ones(stack)
    return stack


def _one(image: Any, number: int) -> NDArray[np.uint8]:
    if hasattr(image, "convert") and hasattr(image, "mode"):  # PIL's
        found = decode(image, channels=None, image_size=None)
        if found is None:
            raise ValueError(
                f"Cannot read image {number}: it is damaged, or a picture of mode {image.mode} whose range is unknown. "
                "Leave it out, or convert it to RGB or grey."
            )
        return found
    array = as_array(image)
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3):
        raise ValueError(
            f"Cannot read image {number}: found {type(image).__name__} of {array.dtype} {array.shape}. Give arrays of "
            "numbers "
            "(H, W), (H, W, C) or (C, H, W), or pictures of PIL."
        )
    return _as_bytes(_channels_first(array[None]))[0]


def _resized(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    picture = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    found = decode(picture, channels=len(pixels), image_size=size)
    assert found is not None
    return found


def _channels_first(array: NDArray[Any]) -> NDArray[Any]:
    shape = array.shape
    if array.ndim == 3:
        if shape[2] in _CHANNELS or (shape[2] == 4 and shape[1] > 4):
            raise ValueError(
                f"Cannot read an array of shape {shape}: it looks like one image (H, W, C). Give images (N, H, W, C): one as "
                "image[None], grey ones of this shape as images[:, None]."
            )
        if shape[0] == 3:
            raise ValueError(
                f"Cannot tell whether an array of shape {shape} is one image (C, H, W) or three grey ones. Give one as "
                "image[None], or three as images[:, None]."
            )
        return array[:, None]
    if array.ndim != 4:
        known = "images have 3 or 4 axes, (N, H, W), (N, H, W, C) or (N, C, H, W)"
        flat = " Give flat pixels their shape back, such as images.reshape(-1, 8, 8)." if array.ndim == 2 else ""
        raise ValueError(f"Cannot read images from an array of shape {shape}: {known}.{flat}")
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first and last and shape[1:] != (1, 1, 1):
        raise ValueError(
            f"Cannot tell the channels of an array of shape {shape}: both its second and its last axis could be. Give larger "
            "images, or grey ones as (N, H, W)."
        )
    if not first and not last:
        four = " Leave transparency out: images[..., :3]." if 4 in (shape[1], shape[3]) else ""
        raise ValueError(
            f"Cannot read images of shape {shape}: neither its second nor its last axis has 1 (grey) or 3 (RGB) "
            f"channels.{four}"
        )
    return array if first else array.transpose(0, 3, 1, 2)


def _as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    if len(array) == 0:
        raise ValueError("Cannot read images from an empty array: it has no rows. Give at least one image.")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    out = np.empty(array.shape, dtype=np.uint8)
    for start in range(0, len(array), _ROWS_AT_ONCE):
        part = array[start : start + _ROWS_AT_ONCE]
        low, high = part.min(), part.max()
        if array.dtype.kind == "f":
            _check_floats(float(low), float(high), start, part)
            out[start : start + len(part)] = np.rint(part.astype(np.float32) * 255)
        else:
            if low < 0 or high > 255:
                raise ValueError(
                    f"Cannot read images of whole numbers from {low} to {high}: pixels go from 0 to 255. Scale them, or give "
                    "floats in [0, 1]."
                )
            out[start : start + len(part)] = part.astype(np.uint8) * (255 if array.dtype.kind == "b" else 1)
    return out


def _check_floats(low: float, high: float, start: int, part: NDArray[Any]) -> None:
    if not np.isfinite(low) or not np.isfinite(high):
        bad = start + int(np.flatnonzero(~np.isfinite(part.reshape(len(part), -1)).all(1))[0])
        raise ValueError(
            f"Cannot read image {bad}: it has pixels that are NaN or infinite. Leave it out, or correct it."
        )
    if low < 0 or high > 1:
        normalised = low < 0
        remedy = (
            "Leave out what normalises them: encoders of ssl_lab do that themselves"
            if normalised
            else "Give uint8, images.astype('uint8'), if they go to 255, or divide them by their largest possible value"
        )
        raise ValueError(f"Cannot read images of floats from {low:.4g} to {high:.4g}: floats are in [0, 1]. {remedy}.")
