"""Arrays, tensors and lists."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_lab.api.given import Given, ImageFiles, Images, Texts
from ssl_lab.api.labels import as_labels
from ssl_lab.api.pixels import as_array, as_one_size, as_pixels
from ssl_lab.api.reader import KINDS, Asked, Reader, called, is_a


class Arrays(Reader):
    """A NumPy array or tensor of images, or an array of texts."""

    def takes(self, data: Any) -> bool:
        """Whether it is one."""
        return is_a(data, "numpy.ndarray", "torch.Tensor")

    def read(self, data: Any, asked: Asked) -> Given:
        """As images; of strings, as texts or files."""
        array = as_array(data)
        if array.dtype.kind in "UTO" and array.ndim == 1 and array.size and all(isinstance(one, str) for one in array):
            return Lists().read(array.tolist(), asked)
        if array.dtype.kind == "O" and array.ndim == 1 and array.size and not isinstance(array[0], str):
            raise ValueError(
                f"Cannot read images from an array of objects ({called(array[0])}): they differ in size or kind. Give them "
                "as a list with image_size=, or as one array of uint8."
            )
        pixels = as_pixels(array)
        if asked.image_size is not None and pixels.shape[2:] != (asked.image_size, asked.image_size):
            pixels = as_one_size(pixels, image_size=asked.image_size)
        return images_of(pixels, asked.labels)


class Lists(Reader):
    """A list of texts, of image files, or of single images."""

    def takes(self, data: Any) -> bool:
        """Whether it is one."""
        return isinstance(data, list)

    def read(self, data: Any, asked: Asked) -> Given:
        """Read a list by the type of its elements, which must all be of one kind."""
        if not data:
            raise ValueError(f"Cannot read data from an empty list. Give {KINDS}.")
        kinds = {kind_of(one): called(one) for one in data}
        if len(kinds) > 1:
            raise ValueError(
                f"Cannot read a list of mixed things ({', '.join(sorted(kinds.values()))}). Give texts, image files or "
                "images "
                "alone, and labels as labels=."
            )
        (kind,) = kinds
        if kind == "path":
            return texts_or_files([os.fspath(one) for one in data], asked)
        if kind == "tuple":
            raise ValueError(
                f"Cannot read a list of tuples ({called(data[0])} of {len(data[0])}). Give the images and their labels "
                "apart: "
                "labels=[...], or give the Dataset itself."
            )
        return images_of(as_one_size(data, image_size=asked.image_size), asked.labels)


def kind_of(value: Any) -> str:
    """Whether an element is a ``path`` (or text), a ``tuple`` of things, or an ``image``; else the name of its class."""
    if isinstance(value, str | os.PathLike):
        return "path"
    if isinstance(value, tuple | list | dict):
        return "tuple"
    return "image" if hasattr(value, "__array__") or hasattr(value, "__array_interface__") else type(value).__name__


def images_of(pixels: Any, labels: Any, *, names: Sequence[str] | None = None, title: str = "images") -> Images:
    """Images uint8 (N, C, H, W) with their labels, if there are any."""
    if labels is None:
        return Images(pixels={"train": pixels}, title=title, labelled=False)
    numbers, found = as_labels(labels, len(pixels), names)
    if (numbers < 0).all():
        return Images(pixels={"train": pixels}, title=title, labelled=False)
    return Images(pixels={"train": pixels}, labels={"train": numbers}, class_names=found, title=title, labelled=True)


def texts_or_files(texts: list[str], asked: Asked) -> Given:
    """Image files, if all of the texts end as such do; else texts.

    Raises:
        ValueError: If image files are missing.
    """
    from ssl_lab.data.image.decode import image_endings

    labels = None
    if asked.labels is not None:
        numbers, names = as_labels(asked.labels, len(texts))
        labels = {"train": [names[k] if k >= 0 else None for k in numbers]} if (numbers >= 0).any() else None
    if all(text.lower().endswith(image_endings()) and "\n" not in text for text in texts):
        paths = [str(Path(text).expanduser().absolute()) for text in texts]
        if missing := [text for text, path in zip(texts, paths, strict=True) if not Path(path).is_file()]:
            raise ValueError(
                f"Cannot read {missing[0]}: there is no such file, as for {len(missing) - 1} more of {len(texts)}. Give "
                "paths "
                "that exist."
            )
        return ImageFiles(
            paths={"train": paths}, labels=labels or {}, image_size=asked.image_size, labelled=labels is not None
        )
    return Texts(texts={"train": texts}, labels=labels or {}, labelled=labels is not None)
