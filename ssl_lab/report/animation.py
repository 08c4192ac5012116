"""A picture that was saved again and again during training, as one animation."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from ssl_lab.files import replace_file

MAX_FRAMES = 60
_FRAME_MS, _LAST_FRAME_MS = 250, 2000


def write_animation(frames: Mapping[int, Path], out: Path) -> Path | None:
    """Write the pictures of increasing steps as a GIF that loops and rests on the last one.

    At most 60 frames, evenly spread, on white; pictures of another size than the last are left out. The file is replaced
    as a whole.

    Returns:
        ``out``, or None if there are fewer than two frames.
    """
    images = _read(list(frames.values()))
    if len(images) < 2:
        return None
    return replace_file(out, as_gif(images))


def small_webp(frames: Mapping[int, Path], *, side: int, max_bytes: int) -> bytes | None:
    """The same for a page, as a WebP that stays transparent: smaller, and with fewer frames until it fits.

    Returns:
        The file's content, or None if there are fewer than two frames.
    """
    images = _read(list(frames.values()))
    for image in images:
        image.thumbnail((side, side))
    while len(images) >= 2:
        content = _as_webp(images)
        if len(content) <= max_bytes:
            return content
        images = images[(len(images) - 1) % 2 :: 2] if len(images) > 2 else []  # the last one stays
    return None


def opened(path: Path) -> Image.Image | None:
    """A PNG picture, or None if its file is damaged or anything else."""
    try:
        with Image.open(path, formats=("PNG",)) as file:
            return file.copy()
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError):
        return None  # all of them are Pillow's words for it


def as_gif(images: Sequence[Image.Image]) -> bytes:
    """Images of one size as a GIF on white: its transparency knows no shades, so words would get rough edges."""
    white = Image.new("RGBA", images[0].size, "white")
    return _saved([_of_256_colours(Image.alpha_composite(white, image).convert("RGB")) for image in images], "GIF")


def _as_webp(images: Sequence[Image.Image]) -> bytes:
    return _saved([_of_256_colours(image).convert("RGBA") for image in images], "WEBP", lossless=True)


def _of_256_colours(image: Image.Image) -> Image.Image:
    return image.quantize(256, method=Image.Quantize.FASTOCTREE)


def _saved(images: Sequence[Image.Image], kind: str, **settings: bool) -> bytes:
    first, *others = images
    file = io.BytesIO()
    times = [_FRAME_MS] * len(others) + [_LAST_FRAME_MS]
    first.save(file, kind, save_all=True, append_images=others, duration=times, loop=0, **settings)
    return file.getvalue()


def _read(paths: Sequence[Path]) -> list[Image.Image]:
    if len(paths) > MAX_FRAMES:
        paths = [paths[round(k * (len(paths) - 1) / (MAX_FRAMES - 1))] for k in range(MAX_FRAMES)]
    images = [image.convert("RGBA") for image in map(opened, paths) if image is not None]
    return [image for image in images if image.size == images[-1].size]
