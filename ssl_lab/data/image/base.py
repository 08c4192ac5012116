"""Images of any source, decoded once into a memory map."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_lab.data.columns import Columns
from ssl_lab.data.image.decode import Encoded, decode
from ssl_lab.data.image.given import GivenImages
from ssl_lab.data.labelled import LabelledModule
from ssl_lab.data.splits import UNLABELLED, CutModule, Part, find_split, plan_splits
from ssl_lab.data.store import build_once, fingerprint
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.types import Classes, Spec

STORE_VERSION = 2  # raise it when the same source would be decoded to other files
MAX_STATISTICS_IMAGES = 10_000
CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Encoded images by split.

    Attributes:
        labels: Label of every image by source split, -1 where unknown.
        class_names: Names in label order; empty without labels.
        read: Name (for messages) and encoded image for each of the given rows of a source split, in order.
    """

    labels: Mapping[str, NDArray[np.int64]]
    class_names: tuple[str, ...]
    read: Callable[[str, NDArray[np.int64]], Iterator[tuple[str, Encoded]]]


@dataclass(kw_only=True, eq=False, repr=False)
class ImageModule(GivenImages, CutModule, LabelledModule):
    """Images that are decoded once, by the first process to want them, into memory maps in the cache folder.

    Files that cannot be read are left out with one warning that counts them.

    Args:
        image_size: The short side is resized to this and the centre square cut out; None if all have one size.
        channels: 1 for grey, 3 for RGB, None for those of the first image.
    """

    image_size: int | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: If images cannot have this size or number of channels.
        """
        super().__post_init__()
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(
                f"image_size counts pixels, found {self.image_size}. Choose 1 or more, or null to keep sizes."
            )
        if self.channels not in (None, 1, 3):
            raise ValueError(f"Images have 1 channel (grey) or 3 (RGB), found {self.channels}. Choose 1, 3 or null.")

    @property
    @abstractmethod
    def _identity(self) -> tuple[str, Any]:
        """A readable name and plain data that change with the content of the source; found without decoding it."""

    @abstractmethod
    def _source(self) -> ImageSource:
        """Open the source."""

    @cached_property
    def _folder(self) -> Path:
        name, identity = self._identity
        options = [self.image_size, self.channels, self.val_fraction, self.test_fraction, self.split_seed]
        name = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
        return build_once(f"{name}-{fingerprint([STORE_VERSION, identity, options])}", self._build)

    @cached_property
    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self._folder / "facts.json").read_text())
        if facts["num_skipped"]:
            warnings.warn(
                f"{facts['num_skipped']} images of {self._identity[0]} could not be read and were left out: "
                f"{', '.join(facts['skipped'])}{', ...' if facts['num_skipped'] > len(facts['skipped']) else ''}.",
                stacklevel=2,
            )
        return facts

    @cached_property
    def spec(self) -> Spec:
        """Facts of the data; the first reading of all decodes the images."""
        return self._image_spec

    @cached_property
    def _image_spec(self) -> ImageSpec:
        return image_spec(self._images("train"), class_names=tuple(self._facts["class_names"]))

    def columns(self, split: str) -> Columns:
        """Images uint8 (N, C, H, W) as a memory map, and labels (N,) where there are any.

        Raises:
            ValueError: If there is no such split; names those that exist.
        """
        stored = find_split(split, self._facts["num_images"])
        columns: dict[str, Any] = {"image": self._images(stored)}
        labels = np.load(self._folder / f"{stored}_labels.npy")
        if (labels != UNLABELLED).any():
            columns["label"] = torch.from_numpy(labels)
        return self.few(split, columns)

    def column_digest(self, split: str, name: str) -> str:
        """Digest of a column's content; that of images was taken when they were decoded."""
        digests = self._facts.get("digests", {})  # which older caches lack
        known: str | None = digests.get(find_split(split, self._facts["num_images"])) if name == "image" else None
        return known if known and not self.keeps_few(split) else super().column_digest(split, name)

    def origin(self, split: str) -> tuple[str, NDArray[np.int64]]:
        """The source split, and the row of each image there; those that could not be read are missing."""
        source, rows = self._source_rows(find_split(split, self._facts["num_images"]))
        return source, rows[self._kept] if self.keeps_few(split) else rows

    def _source_rows(self, split: str) -> tuple[str, NDArray[np.int64]]:
        """The source split that a stored split was cut from, and the row of each of its images there."""
        return self._facts["source_splits"][split], np.load(self._folder / f"{split}_rows.npy")

    def _images(self, split: str) -> np.memmap[Any, np.dtype[np.uint8]]:
        shape = (self._facts["num_images"][split], *self._facts["shape"])
        # Copy-on-write: torch warns about arrays that it could not write to.
        return np.memmap(self._folder / f"{split}_images.bin", dtype=np.uint8, mode="c", shape=shape)

    def _build(self, folder: Path) -> None:
        source = self._source()
        parts = plan_splits(
            source.labels,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            split_seed=self.split_seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd files; unreadable ones are counted
            facts = self._decode(source, parts, folder)
        (folder / "facts.json").write_text(json.dumps(facts))

    def _decode(self, source: ImageSource, parts: Mapping[str, Part], folder: Path) -> dict[str, Any]:
        shape = self._first_shape(source.read("train", parts["train"].rows))
        to_pixels = partial(decode, channels=shape[0], image_size=self.image_size)
        skipped: list[str] = []
        num_images: dict[str, int] = {}
        digests: dict[str, str] = {}
        for split, part in parts.items():
            kept = []
            digest = hashlib.sha256()
            with open(folder / f"{split}_images.bin", "wb") as file:
                for row, (name, pixels) in zip(
                    part.rows, _decode_all(source.read(part.source, part.rows), to_pixels), strict=True
                ):
                    if pixels is None:
                        skipped.append(name)
                        continue
                    if pixels.shape != shape:
                        raise ValueError(
                            f"Without image_size all images must have one size, but {name} has (C, H, W) = "
                            f"{pixels.shape} and the first {shape}. Set data.image_size."
                        )
                    file.write(pixels.tobytes())
                    digest.update(pixels.tobytes())
                    kept.append(row)
                file.flush()
                os.fsync(file.fileno())
            if not kept:
                raise ValueError(
                    f"The {split} split of {self._identity[0]} has {len(part.rows)} images, none of which can be read "
                    f"(first: {', '.join(skipped[:3])}). Check the files."
                )
            np.save(folder / f"{split}_rows.npy", np.array(kept, dtype=np.int64))
            np.save(folder / f"{split}_labels.npy", source.labels[part.source][kept].astype(np.int64))
            num_images[split], digests[split] = len(kept), digest.hexdigest()
        return {
            "shape": shape,
            "class_names": source.class_names,
            "num_images": num_images,
            "digests": digests,
            "source_splits": {split: part.source for split, part in parts.items()},
            "num_skipped": len(skipped),
            "skipped": skipped[:5],
        }

    def _first_shape(self, items: Iterator[tuple[str, Encoded]]) -> tuple[int, ...]:
        for _, encoded in items:
            pixels = decode(encoded, channels=self.channels, image_size=self.image_size)
            if pixels is not None:
                return pixels.shape
        raise ValueError(f"None of the training images of {self._identity[0]} can be read. Check the files.")


def image_spec(images: NDArray[np.uint8], *, class_names: tuple[str, ...]) -> ImageSpec:
    """Facts of a training split; mean and deviation over at most 10,000 evenly spaced images.

    Args:
        images: Pixels uint8 (N, C, H, W).
        class_names: Names in label order; empty without labels.
    """
    rows = np.linspace(0, len(images) - 1, min(len(images), MAX_STATISTICS_IMAGES)).astype(np.int64)
    total, total_squares = np.zeros(images.shape[1]), np.zeros(images.shape[1])
    for start in range(0, len(rows), CHUNK):
        pixels = images[rows[start : start + CHUNK]] / 255.0
        total += pixels.sum(axis=(0, 2, 3))
        total_squares += (pixels**2).sum(axis=(0, 2, 3))
    count = len(rows) * images.shape[2] * images.shape[3]
    mean = total / count
    std = np.sqrt((total_squares / count - mean**2).clip(min=1 / 255**2))  # a constant channel must not divide by 0
    return ImageSpec(
        targets={"label": Classes(names=class_names)} if class_names else {},
        shape=tuple(images.shape[1:]),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
    )


def _decode_all(
    items: Iterator[tuple[str, Encoded]], to_pixels: Callable[[Encoded], NDArray[np.uint8] | None]
) -> Iterator[tuple[str, NDArray[np.uint8] | None]]:
    """Decode in threads, in order, one chunk at a time to bound memory."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(items, CHUNK)):
            names, encoded = zip(*chunk, strict=True)
            yield from zip(names, pool.map(to_pixels, encoded), strict=True)
