"""Folders of image files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_lab.data.decode import Encoded
from ssl_lab.data.images import ImageModule, ImageSource
from ssl_lab.data.splits import UNLABELLED, split_named
from ssl_lab.data.store import file_facts

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")


class ImageFolder(ImageModule):
    """Image files below a folder, labelled by the sub-folder they lie in.

    Three layouts are understood. ``root/cat/1.jpg``: two sub-folders or more are classes, whose images may lie deeper.
    ``root/1.jpg`` or a single sub-folder: no labels. ``root/train/...``, with ``val``, ``test`` and ``unlabeled``
    where they exist: each in one of the first two layouts.

    Args:
        root: The folder.
        image_size: The short side is resized to this and the centre square cut out; None if all have one size.
        channels: 1 for grey, 3 for RGB, None for what the first image has.
        val_fraction: Share of the training images held out as ``val`` where the source has none; 0 for none.
        test_fraction: The same for ``test``.
        split_seed: Seed of both cuts.
        batch_size: Samples per device and training step.
        eval_batch_size: Samples per batch in evaluation.
        seed: Seed of the order of training samples.
        device_cache_gib: A training split up to this size is kept on the training device as a whole.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If it has no images, an empty class, or images beside its classes.
    """

    def __init__(
        self,
        root: str,
        *,
        image_size: int | None = None,
        channels: int | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        batch_size: int = 256,
        eval_batch_size: int = 512,
        seed: int = 0,
        device_cache_gib: float = 4.0,
    ) -> None:
        super().__init__(
            image_size=image_size,
            channels=channels,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
            device_cache_gib=device_cache_gib,
        )
        self.root = Path(root).expanduser()

    @property
    def title(self) -> str:
        """Name of the folder."""
        return self.root.name

    @cached_property
    def _identity(self) -> tuple[str, Any]:
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"A folder of images was asked for at {self.root.absolute()}, but there is none. Set data.root."
            )
        return self.root.name, [str(self.root.absolute()), file_facts(self.root)]

    def _source(self) -> ImageSource:
        folders = _split_folders(self.root)
        files = {split: _files_by_class(folder) for split, folder in folders.items()}
        class_names = tuple(name for name in sorted(files["train"]) if name)
        paths: dict[str, list[Path]] = {}
        labels = {}
        for split, by_class in files.items():
            strangers = sorted(set(by_class) - set(class_names) - {""})
            if strangers:
                raise ValueError(
                    f"{folders[split]} has the class folders {strangers[:5]} that {folders['train']} lacks; those "
                    f"there are {list(class_names)[:20]}. Use the same class folders in each split."
                )
            paths[split] = [path for name in sorted(by_class) for path in by_class[name]]
            numbers = [
                class_names.index(name) if name else UNLABELLED for name in sorted(by_class) for _ in by_class[name]
            ]
            labels[split] = np.array(numbers, dtype=np.int64)

        def read(split: str, rows: NDArray[np.int64]) -> Iterator[tuple[str, Encoded]]:
            for row in rows:
                yield str(paths[split][row]), paths[split][row]

        return ImageSource(labels=labels, class_names=class_names, read=read)


def _split_folders(root: Path) -> dict[str, Path]:
    """Folders by split where all sub-folders are named after splits, else the root as ``train``."""
    named = {split_named(folder.name): folder for folder in _sub_folders(root)}
    if "train" in named and None not in named:
        return {str(split): folder for split, folder in named.items()}
    return {"train": root}


def _files_by_class(folder: Path) -> dict[str, list[Path]]:
    """Sorted image files by class; the class of unlabelled images is ``""``."""
    loose = sorted(path for path in folder.iterdir() if path.is_file() and _is_image(path))
    by_class = {sub.name: _images_below(sub) for sub in _sub_folders(folder)}
    if not loose and not any(by_class.values()):
        raise ValueError(
            f"Images were expected in {folder}, but there are none ({', '.join(SUFFIXES)}). Set data.root."
        )
    if loose and by_class:
        raise ValueError(
            f"Sub-folders of {folder} are classes, but {len(loose)} images lie beside them (first: {loose[0].name}): "
            "their labels are unknown. Move them into class folders, or all images into one folder without labels."
        )
    if loose or len(by_class) == 1:
        return {"": loose or next(iter(by_class.values()))}
    empty = [name for name, files in by_class.items() if not files]
    if empty:
        raise ValueError(
            f"Sub-folders of {folder} are classes, but these have no images: {empty[:5]}. Remove them, or fill them."
        )
    return by_class


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    walk = os.walk(folder, followlinks=True)
    return sorted(Path(parent, name) for parent, _, names in walk for name in names if _is_image(Path(name)))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
