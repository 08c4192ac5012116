"""Images that lie in NumPy files, as those that were given as arrays in Python."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_lab.data.base import PRETRAIN
from ssl_lab.data.columns import Columns, as_tensor, take
from ssl_lab.data.files.inventory import tell_once
from ssl_lab.data.image.base import image_spec
from ssl_lab.data.image.decode import refuse_zeros_and_ones
from ssl_lab.data.image.given import GivenImages
from ssl_lab.data.labelled import LabelledModule
from ssl_lab.data.splits import UNLABELLED, CutModule, Part, find_split, plan_splits
from ssl_lab.data.store import build_once
from ssl_lab.limited import load_json
from ssl_lab.modalities.image import ImageSpec

_SPLITS = ("train", "val", "test", PRETRAIN)
_FACTS = "facts.json"


@dataclass(kw_only=True, eq=False, repr=False)
class ImageArrays(GivenImages, CutModule, LabelledModule):
    """Images of one size in a folder of NumPy files, memory-mapped.

    ``train_images.npy``, and ``val_images.npy``, ``test_images.npy`` and ``pretrain_images.npy`` where they exist, hold
    uint8 (N, C, H, W). ``train_labels.npy`` and so on hold int64 (N,), -1 where unknown. ``facts.json`` may name the data,
    ``title``, and their classes, ``class_names``. Splits that are missing are cut from ``train``.

    Args:
        path: The folder.

    Raises:
        FileNotFoundError: If it has no ``train_images.npy``.
        ValueError: If a file holds something else.
    """

    path: str = field(kw_only=False)

    @property
    def title(self) -> str:
        """The name in ``facts.json``, or that of the folder."""
        return str(self._facts.get("title") or Path(self.path).name)

    @cached_property
    def _facts(self) -> Mapping[str, Any]:
        path = self._root / _FACTS
        facts = load_json(path) if path.is_file() else {}
        if not isinstance(facts, dict) or not all(isinstance(name, str) for name in facts.get("class_names", [])):
            raise ValueError(f"Cannot read {path}: class_names should be a list of texts. Restore the file.")
        return facts

    @property
    def _root(self) -> Path:
        root = Path(self.path).expanduser()
        if not (root / "train_images.npy").is_file():
            raise FileNotFoundError(
                f"Cannot read images from {root}: it has no train_images.npy. Arrays given in Python are kept in the cache "
                "folder: give the same arrays again, or set data.path to a folder that has the file."
            )
        return root

    @cached_property
    def _stored(self) -> dict[str, NDArray[Any]]:
        found = {
            s: _load(self._root / f"{s}_images.npy") for s in _SPLITS if (self._root / f"{s}_images.npy").is_file()
        }
        shape = found["train"].shape[1:]
        for split, images in found.items():
            if (
                images.dtype != np.uint8
                or images.ndim != 4
                or images.shape[1:] != shape
                or images.shape[1] not in (1, 3)
            ):
                raise ValueError(
                    f"Cannot read {self._root / f'{split}_images.npy'}: found {images.dtype} {images.shape}. Store uint8 "
                    "(N, C, H, W) of 1 or 3 channels, of one size in all splits."
                )
        return found

    @cached_property
    def _labels(self) -> dict[str, NDArray[np.int64]]:
        found = {}
        for split, images in self._stored.items():
            path = self._root / f"{split}_labels.npy"
            labels = np.array(_load(path)) if path.is_file() else np.full(len(images), UNLABELLED)
            if labels.dtype.kind not in "iu" or labels.shape != (len(images),) or labels.min(initial=-1) < UNLABELLED:
                raise ValueError(
                    f"Cannot read {path}: found {labels.dtype} {labels.shape} for {len(images)} images. Store a whole number "
                    "for each, -1 where it is unknown."
                )
            found[split] = labels.astype(np.int64)
            missing = int((labels == UNLABELLED).sum())
            if 0 < missing < len(labels):
                warnings.warn(
                    f"{missing} of {len(labels)} images of {split} have no label. Probes and fine-tuning leave them out.",
                    stacklevel=2,
                )
        return found

    @cached_property
    def _class_names(self) -> tuple[str, ...]:
        number = max(int(labels.max(initial=-1)) for labels in self._labels.values()) + 1
        names = tuple(self._facts.get("class_names", ()))
        if names and len(names) < number:
            raise ValueError(
                f"Cannot name the classes of {self.title}: {len(names)} names for labels up to {number - 1}. Name all "
                "of them."
            )
        return names or tuple(map(str, range(number)))

    @cached_property
    def _parts(self) -> dict[str, Part]:
        parts = plan_splits(
            self._labels, val_fraction=self.val_fraction, test_fraction=self.test_fraction, split_seed=self.split_seed
        )
        classes = f"{len(self._class_names)} classes" if self._class_names else "no labels"
        held_out = ", ".join(f"{split} {len(parts[split].rows):,}" for split in _SPLITS if split in parts)
        notes = [f"{held_out} images", classes, *self.cut_notes(self._stored)]
        tell_once(f"{self.title}: {'; '.join(notes)}.")
        return parts

    @cached_property
    def spec(self) -> ImageSpec:
        """Facts of the data."""
        part = self._parts["train"]
        images = np.asarray(self._stored[part.source])
        rows = (
            part.rows if len(part.rows) <= 10_000 else part.rows[np.linspace(0, len(part.rows) - 1, 10_000).astype(int)]
        )
        refuse_zeros_and_ones(images)
        return image_spec(images[rows], class_names=self._class_names)

    @cached_property
    def _columns(self) -> dict[str, Columns]:
        return {split: self._cut_out(part) for split, part in self._parts.items()}

    def _cut_out(self, part: Part) -> Columns:
        images = self._stored[part.source]
        whole = len(part.rows) == len(images)
        column: Any = images if whole else take(images, part.rows)
        if images.nbytes <= self.device_cache_gib * 2**30:  # in memory, where batches are cut fastest
            column = as_tensor(np.asarray(images)[part.rows])
        labels = self._labels[part.source][part.rows]
        return {"image": column, **({"label": torch.from_numpy(labels)} if (labels != UNLABELLED).any() else {})}

    def columns(self, split: str) -> Columns:
        """Images uint8 (N, C, H, W) and, where there are any, labels (N,) of a split.

        Raises:
            NoSuchSplitError: If there is no such split; names those that exist.
        """
        return self.few(split, self._columns[find_split(split, self._parts)])


def store_arrays(
    images: Mapping[str, NDArray[np.uint8]],
    labels: Mapping[str, NDArray[np.int64]],
    *,
    class_names: tuple[str, ...],
    title: str,
) -> Path:
    """The cache folder of these images, written once for equal content.

    Args:
        images: uint8 (N, C, H, W) by split.
        labels: int64 (N,) by split, for those that have any.
        class_names: Names in label order; empty without labels.
        title: What tables call the data.
    """
    digest = hashlib.sha256(repr((title, class_names)).encode())
    files: dict[str, NDArray[Any]] = {f"{split}_images.npy": pixels for split, pixels in images.items()}
    files |= {f"{split}_labels.npy": numbers for split, numbers in labels.items()}
    for name, array in sorted(files.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)

    def build(folder: Path) -> None:
        for name, array in files.items():
            np.save(folder / name, array)
        facts = {"title": title, "class_names": list(class_names)}
        (folder / _FACTS).write_text(json.dumps(facts, indent=2), encoding="utf-8")

    return build_once(f"arrays-{digest.hexdigest()[:20]}", build)


def _load(path: Path) -> NDArray[Any]:
    """A memory map of an array, copy-on-write: torch warns about arrays that it could not write to."""
    try:
        return np.load(path, mmap_mode="c")  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"Cannot read {path}: {error}. Restore the file, or store it by numpy.save.") from error
