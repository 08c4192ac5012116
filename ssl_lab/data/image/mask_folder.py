"""Folders of images with a mask each, which says the class of every pixel."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from ssl_lab.data.base import PRETRAIN
from ssl_lab.data.columns import Columns
from ssl_lab.data.files.inventory import DataFile, Inventory, Source, left_out_note, places, take_inventory, title_of
from ssl_lab.data.files.layout import first_of, shown
from ssl_lab.data.files.text_files import read_lines
from ssl_lab.data.image.base import ImageModule, ImageSource
from ssl_lab.data.image.decode import DAMAGED, Encoded, image_endings, image_formats
from ssl_lab.data.splits import UNLABELLED, find_split
from ssl_lab.types import Classes, Spec

IGNORED = 255
"""The value of pixels that do not count, in the column ``mask``."""
MASK_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".gif")
"""Of files that keep whole numbers; JPEG does not."""
CLASSES = "classes.txt"

Key = tuple[str, ...]
"""Folders of a file below its root, without the one that says the split, and its name without the ending."""


@dataclass(kw_only=True, eq=False, repr=False)
class MaskFolder(ImageModule):
    """Images and masks of the same names in two folders: ``root/images/a.jpg`` and ``root/masks/a.png``.

    Splits are folders in both (``images/train/a.jpg``, ``masks/train/a.png``), folders that the settings name for each
    split, or lists of names; what is missing of ``val`` and ``test`` is cut from ``train``. Images for pretraining alone
    (``images/unlabeled``) need no masks. Any other image without a mask, or mask without an image, is refused.

    Masks are indexed or grey pictures whose values are the numbers of the classes. Batches hold them as ``mask``, uint8
    (B, H, W), 255 where a pixel does not count. Where images are resized, masks are too, by the nearest pixel.

    Args:
        root: Folder of the whole data set.
        images: Folder of the images below ``root``, or one for each split: ``{train: ..., test: ...}``.
        masks: Folder of the masks below ``root``, or one for each split.
        lists: Folder below ``root`` of the files train.txt, val.txt and test.txt, which name an image a line, with or
            without folders and ending, in any folder; images that no list names are left out. None for splits as
            folders.
        classes: Names of the classes in the order of their numbers; None for the lines of ``root/classes.txt``, or where
            there is none for numbers up to the largest in the masks of ``train``.
        ignore_index: Value of pixels that do not count, from 0 to 255; None where all count.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If images and masks do not fit each other, or a mask holds a value that is no class.
    """

    root: str = field(kw_only=False)
    images: Source = "images"
    masks: Source = "masks"
    lists: str | None = None
    classes: Sequence[str] | None = None
    ignore_index: int | None = IGNORED
    batch_size: int = 16
    eval_batch_size: int = 32
    label_fraction: float = field(default=1.0, init=False)
    label_seed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: If no pixel can have this value, or there are too many classes.
        """
        super().__post_init__()
        if self.ignore_index is not None and not 0 <= self.ignore_index <= 255:
            raise ValueError(
                f"ignore_index is a value of masks of 8 bits, found {self.ignore_index}. Choose 0 to 255, or null where all "
                "pixels count."
            )
        if self.classes is not None and not 0 < len(self.classes) <= IGNORED:
            raise ValueError(f"Masks hold 1 to {IGNORED} classes, found {len(self.classes)} names. Set data.classes.")

    origin_column: ClassVar[str] = "path"

    def name_of(self, source: str, row: int) -> str:
        """The path of the image."""
        return self._pairs[source][row][0].path

    @property
    def title(self) -> str:
        """Name of the folder."""
        return title_of(self.root)

    @cached_property
    def spec(self) -> Spec:
        """Facts of the data; the first reading of all decodes images and masks."""
        return replace(self._image_spec, targets={"mask": Classes(names=tuple(self._facts["mask_classes"]))})

    def columns(self, split: str) -> Columns:
        """Images uint8 (N, C, H, W) and masks uint8 (N, H, W) as memory maps; images for pretraining alone have no masks.

        Raises:
            NoSuchSplitError: If there is no such split; names those that exist.
        """
        columns = dict(super().columns(split))
        stored = find_split(split, self._facts["num_images"])
        if (file := self._folder / f"{stored}_masks.bin").exists():
            shape = (self._facts["num_images"][stored], *self._facts["shape"][1:])
            columns["mask"] = np.memmap(file, dtype=np.uint8, mode="c", shape=shape)
        return columns

    @cached_property
    def _inventories(self) -> tuple[Inventory, Inventory]:
        def look(setting: str, source: Source, kinds: Sequence[str]) -> Inventory:
            named: Source = _below(self.root, source)
            if self.lists is not None:
                named = {"train": places(named)}  # lists say the splits, whatever folders are called
            return take_inventory(
                named,
                kinds,
                setting=f"data.{setting}",
                ending=lambda name: os.path.splitext(name)[1].lower(),
                one_of_many=True,
            )

        return look("images", self.images, image_endings()), look("masks", self.masks, MASK_ENDINGS)

    @cached_property
    def _pairs(self) -> dict[str, list[tuple[DataFile, DataFile | None]]]:
        """Images and their masks by split, in order of their names."""
        images, masks = (_by_key(inventory, self.title) for inventory in self._inventories)
        notes = []
        if self.lists is not None:
            wanted = _read_lists(Path(self.root).expanduser() / self.lists, images["train"])
            unlisted = len(images["train"]) - len({key for keys in wanted.values() for key in keys})
            notes = [f"{unlisted} in no list"] if unlisted else []
            images = {split: {key: images["train"][key] for key in keys} for split, keys in wanted.items()}
            there = masks["train"]
            masks = {split: {key: there[key] for key in keys if key in there} for split, keys in wanted.items()}
        pairs: dict[str, list[tuple[DataFile, DataFile | None]]] = {}
        for split, found in images.items():
            known = masks.get(split, {})
            bare = [shown(file.name) for key, file in found.items() if key not in known]
            alone = [shown(file.name) for key, file in known.items() if key not in found]
            if alone or (bare and (split != PRETRAIN or known)):
                raise ValueError(
                    f"Cannot pair the images and masks of {split} of {self.title}: of {len(found):,} images {len(bare):,} "
                    f"have no mask{_named(bare)}, and of {len(known):,} masks {len(alone):,} have no image{_named(alone)}. "
                    "A mask has the folders and the name of its image. Add what is missing, or move the others away."
                )
            pairs[split] = [(found[key], known.get(key)) for key in sorted(found)]
        if lacking := sorted(set(masks) - set(images)):
            raise ValueError(
                f"Cannot use the masks of {', '.join(lacking)} of {self.title}: there are no such images. Move them away."
            )
        bare_split = "" if all(mask for each in pairs.values() for _, mask in each) else f" but for {PRETRAIN}"
        notes.append(f"masks for all{bare_split}{left_out_note(self._inventories[1].left_out)}")
        self._inventories[0].tell(self.title, *notes, *self.cut_notes(pairs))
        return pairs

    @cached_property
    def _identity(self) -> tuple[str, Any]:
        files = [
            [split, [file and [file.path, *file.facts] for file in pair]]
            for split, pairs in self._pairs.items()
            for pair in pairs
        ]
        return self.title, [files, self._class_names, self.ignore_index, "masks 1"]

    @cached_property
    def _class_names(self) -> list[str] | None:
        file = Path(self.root).expanduser() / CLASSES
        if self.classes is None and not file.is_file():
            return None
        where = "data.classes" if self.classes is not None else str(file)
        names = [str(name).strip() for name in (read_lines(file) if self.classes is None else self.classes)]
        while names and self.classes is None and not names[-1]:
            names.pop()
        if not 0 < len(names) <= IGNORED:
            raise ValueError(f"Cannot use {where}: it names {len(names)} classes. Name 1 to {IGNORED}, one a line.")
        strange = next((k for k, name in enumerate(names) if not name or name in names[:k]), None)
        if strange is not None:
            found = f"{names[strange]!r} again" if names[strange] else "blank"
            raise ValueError(
                f"Cannot use {where}: the name of class {strange} is {found}. Give every class a name of its own."
            )
        return names

    def _source(self) -> ImageSource:
        pairs = self._pairs

        def read(split: str, rows: NDArray[np.int64]) -> Iterator[tuple[str, Encoded]]:
            for row in rows:
                image = pairs[split][row][0]
                yield shown(image.path), Path(image.path)

        labels = {split: np.full(len(each), UNLABELLED) for split, each in pairs.items()}
        return ImageSource(labels=labels, class_names=(), read=read)

    def _build(self, folder: Path) -> None:
        super()._build(folder)
        facts = json.loads((folder / "facts.json").read_text())
        names = self._class_names
        held: list[tuple[str, str, list[int]]] = []  # split, mask, and the classes that it shows
        for split, source in facts["source_splits"].items():
            pairs = [self._pairs[source][row] for row in np.load(folder / f"{split}_rows.npy")]
            if any(mask is None for _, mask in pairs):
                continue
            with open(folder / f"{split}_masks.bin", "wb") as file:
                for image, mask in pairs:
                    assert mask is not None
                    values = self._read(image, mask, tuple(facts["shape"][1:]))
                    held.append((split, shown(mask.name), np.unique(values[values != IGNORED]).tolist()))
                    file.write(values.tobytes())
                file.flush()
                os.fsync(file.fileno())
        number = len(names or ()) or 1 + max(
            (k for split, _, each in held if split == "train" for k in each), default=-1
        )
        strange = {k: name for _, name, each in reversed(held) for k in each if k >= number}
        if number < 1:
            raise ValueError(
                f"Cannot read the masks of {self.title}: all pixels of train have the value {self.ignore_index}, which does "
                "not count. Set data.classes or data.ignore_index, or correct the masks."
            )
        if strange:
            raise ValueError(
                f"Cannot read the masks of {self.title}: they hold the values "
                f"{first_of([f'{k} ({strange[k]})' for k in sorted(strange)])}, but classes are 0 to {number - 1} and "
                f"ignore_index={self.ignore_index}. Set data.classes or data.ignore_index, or correct the masks."
            )
        facts["mask_classes"] = names or [str(k) for k in range(number)]
        (folder / "facts.json").write_text(json.dumps(facts))

    def _read(self, image: DataFile, mask: DataFile, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Classes of the pixels, uint8 (H, W), 255 where they do not count."""
        try:
            with Image.open(mask.path, formats=image_formats()) as picture:
                mode, values = picture.mode, np.array(picture)
        except DAMAGED as error:
            raise ValueError(f"Cannot read the mask {shown(mask.path)}: {error}. Replace the file.") from error
        if mode not in ("1", "L", "P", "I", "I;16"):
            raise ValueError(
                f"Cannot read the classes of {shown(mask.path)}: it is a picture of mode {mode}. Masks are indexed or grey "
                "pictures whose values are the numbers of the classes."
            )
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 255:
            raise ValueError(
                f"Cannot read the classes of {shown(mask.path)}: it holds the value {low if low < 0 else high}, and classes "
                "are 0 to 254. Correct the mask."
            )
        values = values.astype(np.uint8)
        if self.image_size is not None:
            _check_shape(image, mask, values.shape)
            fitted = ImageOps.fit(Image.fromarray(values), (size[1], size[0]), Image.Resampling.NEAREST)
            values = np.array(fitted)
        if values.shape != size:
            raise ValueError(
                f"Cannot pair {shown(mask.path)} with its image: the mask has {values.shape[0]}x{values.shape[1]} pixels, "
                f"the image {size[0]}x{size[1]}. Make them equal, or set data.image_size."
            )
        if self.ignore_index is None or self.ignore_index == IGNORED:
            if self.ignore_index is None and (values == IGNORED).any():
                raise ValueError(f"Cannot read {shown(mask.path)}: 255 is not a class. Set data.ignore_index=255.")
            return values
        if (values == IGNORED).any():
            raise ValueError(
                f"Cannot read {shown(mask.path)}: it holds both 255 and ignore_index={self.ignore_index}. Leave one."
            )
        return np.where(values == self.ignore_index, np.uint8(IGNORED), values)


def _check_shape(image: DataFile, mask: DataFile, found: tuple[int, ...]) -> None:
    """Refuse a mask (H, W) that is not of its image's shape: both would be cut to a square, each to another part."""
    with Image.open(image.path, formats=image_formats()) as picture:
        width, height = picture.size
        if picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # lies on its side
            width, height = height, width
    if abs(found[0] * width - found[1] * height) > max(width, height):  # a pixel of rounding aside
        raise ValueError(
            f"Cannot pair {shown(mask.path)} with its image: the mask has {found[0]}x{found[1]} pixels, the image "
            f"{height}x{width}, which is another shape. Replace one of them."
        )


def _below(root: str, source: Source) -> Source:
    """Folders below another."""
    if isinstance(source, str):
        return str(Path(root) / source)
    return {
        split: str(Path(root) / named) if isinstance(named, str) else [str(Path(root) / each) for each in named]
        for split, named in source.items()
    }


def _by_key(inventory: Inventory, title: str) -> dict[str, dict[Key, DataFile]]:
    """Files by split and what pairs them."""
    found: dict[str, dict[Key, DataFile]] = {}
    for split, files in inventory.files.items():
        keys = found.setdefault(split, {})
        for file, group in zip(files, inventory.groups[split], strict=True):
            key = (*group, os.path.splitext(file.parts[-1])[0])
            if key in keys:
                raise ValueError(
                    f"Cannot pair images and masks of {title}: {shown(keys[key].name)} and {shown(file.name)} of {split} "
                    f"{'differ in their endings alone' if keys[key].parts[:-1] == file.parts[:-1] else 'have one name'}. "
                    "Move one away."
                )
            keys[key] = file
    return found


def _read_lists(folder: Path, images: Mapping[Key, DataFile]) -> dict[str, list[Key]]:
    """Read the images named by the lists of a folder, by split.

    Raises:
        ValueError: If there are no lists, a name is no image's, or one image is named twice.
    """
    lists = {split: file for split in ("train", "val", "test") if (file := folder / f"{split}.txt").is_file()}
    if "train" not in lists:
        raise ValueError(
            f"Cannot read the splits of data.lists={folder}: there is no train.txt. Give the folder of train.txt, val.txt "
            "and test.txt, or null."
        )
    by_stem: dict[str, list[Key]] = {}
    for key in images:
        by_stem.setdefault(key[-1], []).append(key)
    splits: dict[str, list[Key]] = {}
    used: dict[Key, str] = {}
    for split, file in lists.items():
        splits[split] = []
        for number, line in enumerate(read_lines(file), start=1):
            if not line.strip():
                continue
            *folders, name = Path(line.split()[0]).parts
            fitting = by_stem.get(name) or by_stem.get(os.path.splitext(name)[0], [])
            fitting = [key for key in fitting if key[:-1] == tuple(folders)] or fitting
            if len(fitting) != 1 or fitting[0] in used:
                reason = (
                    "no image" if not fitting else "several images" if len(fitting) > 1 else "an image named before"
                )
                raise ValueError(
                    f"Cannot use line {number} of {file}: {shown(line.strip())} is {reason}. Correct the list."
                )
            used[fitting[0]] = split
            splits[split].append(fitting[0])
    return splits


def _named(names: Sequence[str]) -> str:
    return f" ({first_of(names, num=3)})" if names else ""
