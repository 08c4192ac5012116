"""Image data sets of the Hugging Face hub and local copies of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_lab.data.files.inventory import tell_once
from ssl_lab.data.files.labels import encode_labels
from ssl_lab.data.files.layout import shown
from ssl_lab.data.files.tables import check_column
from ssl_lab.data.hub import identity, load_splits
from ssl_lab.data.hugging_face import datasets
from ssl_lab.data.image.base import CHUNK, ImageModule, ImageSource
from ssl_lab.data.image.decode import Encoded

_LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")
_IMAGE_TYPES = ("string", "large_string", "binary", "large_binary")


@dataclass(kw_only=True, eq=False, repr=False)
class HubImages(ImageModule):
    """Any Hugging Face image data set, from the hub or from a local copy.

    Args:
        path: Identifier on the hub (``uoft-cs/cifar10``), a local parquet file, or a folder of
            ``{train,val,test}.parquet``.
        name: Name of the configuration, for a data set of the hub that has several.
        image_column: Column of the images; None to find it by its type.
        label_column: Column of the labels; None to find it by its type or its usual names.
        options: Further arguments of ``datasets.load_dataset``.
    """

    path: str = field(kw_only=False)
    name: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    options: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """The last part of the path."""
        return Path(self.path).name

    @cached_property
    def _splits(self) -> dict[str, datasets.Dataset]:
        splits = load_splits(self.path, name=self.name, options=self.options, words=label_columns(self.label_column))
        for note in self.cut_notes(splits):
            tell_once(f"{shown(self.title)}: {note}.")
        return splits

    @cached_property
    def _identity(self) -> tuple[str, Any]:
        return Path(self.path).name, [identity(self._splits), self.image_column, self.label_column]

    def _source(self) -> ImageSource:
        return hub_image_source(self._splits, image_column=self.image_column, label_column=self.label_column)


def hub_image_source(
    splits: Mapping[str, datasets.Dataset], *, image_column: str | None = None, label_column: str | None = None
) -> ImageSource:
    """Images and labels of a Hugging Face data set.

    Args:
        splits: The data by split.
        image_column: Column of the images; None to find it by its type.
        label_column: Column of the labels; None to find it by its type or its usual names.

    Raises:
        ValueError: If a column is missing, or cannot be found without its name.
    """
    train = splits["train"]
    image_column = image_column or _find_image_column(train)
    check_column(train, image_column, setting="image_column")
    feature = train.features[image_column]
    if isinstance(feature, datasets.Value) and feature.dtype not in _IMAGE_TYPES:
        raise ValueError(
            f"image_column={image_column!r} holds {feature}, but an image is a path or the content of a file. Set "
            f"data.image_column to one of {train.column_names}."
        )
    labels, class_names = encode_labels(splits, label_column or _find_label_column(train))
    encoded = {
        split: rows.select_columns(image_column).cast_column(image_column, datasets.Image(decode=False))
        for split, rows in splits.items()
    }

    def read(split: str, rows: NDArray[np.int64]) -> Iterator[tuple[str, Encoded]]:
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            cells = encoded[split][chunk][image_column]
            for row, cell in zip(chunk, cells, strict=True):
                yield _name_and_content(cell or {}, f"{split}[{row}]")

    return ImageSource(labels=labels, class_names=class_names, read=read)


def _name_and_content(cell: Mapping[str, Any], place: str) -> tuple[str, Encoded]:
    path = cell.get("path")
    content = cell.get("bytes")
    name = f"{place} {path}" if path else place
    return name, content if content is not None or path is None else Path(path)


def _find_image_column(rows: datasets.Dataset) -> str:
    features = rows.features
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    images = images or [name for name, feature in features.items() if _holds_bytes(feature)]
    if not images:
        raise ValueError(
            f"Cannot choose the image column: none of {', '.join(rows.column_names)} holds images. Give data with a "
            "column of images."
        )
    if len(images) > 1:
        raise ValueError(
            f"Cannot choose the image column: several columns hold images ({', '.join(images)}). Set "
            f"data.image_column={images[0]} (or another)."
        )
    return str(images[0])


def _holds_bytes(feature: Any) -> bool:
    if isinstance(feature, datasets.Value):
        return feature.dtype in ("binary", "large_binary")
    return isinstance(feature, dict) and "bytes" in feature


def label_columns(named: str | None) -> tuple[str, ...]:
    """Names that the column of labels may have: the one that is named, or the usual ones."""
    return _LABEL_NAMES if named is None else (named,)


def _find_label_column(rows: datasets.Dataset) -> str | None:
    classes = [name for name, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)]
    usual = [name for name in _LABEL_NAMES if name in (classes or rows.column_names)]
    if usual or not classes:
        return usual[0] if usual else None
    if len(classes) > 1:
        raise ValueError(f"Several columns hold classes, {classes}. Set data.label_column to one of them.")
    return str(classes[0])
