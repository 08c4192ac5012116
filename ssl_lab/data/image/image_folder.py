"""Folders of image files."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ssl_lab.data.base import PRETRAIN
from ssl_lab.data.files.inventory import Inventory, Source, places, take_inventory, title_of
from ssl_lab.data.files.layout import Parts, first_of, shown
from ssl_lab.data.image.base import ImageModule, ImageSource
from ssl_lab.data.image.decode import Encoded, image_endings
from ssl_lab.data.splits import UNLABELLED


@dataclass(kw_only=True, eq=False, repr=False)
class ImageFolder(ImageModule):
    """Image files below a folder, labelled by the folder they lie in.

    ``root/cat/1.jpg``: two folders or more are classes, whose images may lie deeper. ``root/1.jpg`` or a single folder:
    no labels. ``root/train/...``, with ``val``, ``test`` and ``unlabeled`` where they exist: each in one of these
    layouts; several folders of one split, such as ``train_clean`` and ``train_other``, are joined. ``root/cat/train/...``
    is read too. Links are followed; a real file is used once. Files that are left out are counted.

    Args:
        root: The folder; or a folder, or several, for each split, whose sub-folders are classes whatever their names.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If it has no images, an empty class, images beside its classes, or an unclear layout.
    """

    root: Source = field(kw_only=False)

    origin_column: ClassVar[str] = "path"

    def name_of(self, source: str, row: int) -> str:
        """The path of the image."""
        return self._inventory.files[source][row].path

    @property
    def title(self) -> str:
        """Name of the folder."""
        return title_of(self.root)

    def _look(self) -> Inventory:
        return take_inventory(
            self.root,
            image_endings(),
            setting="data.root",
            ending=lambda name: os.path.splitext(name)[1].lower(),
            one_of_many=True,
        )

    @cached_property
    def _inventory(self) -> Inventory:
        return self._look()

    @cached_property
    def _classes(self) -> dict[str, list[str]]:
        classes = _class_of_each(self._inventory)
        known = set(classes["train"]) - {""}
        notes = [f"{len(known)} classes" if known else "no labels"]
        for split in ("val", "test"):
            lacking = sorted(known - set(classes.get(split, known)))
            if lacking and set(classes[split]) != {""}:
                notes.append(f"{split} has no images of {first_of(lacking)}")
        self._inventory.tell(self.title, *notes, *self.cut_notes(classes))
        return classes

    @property
    def has_classes(self) -> bool:
        """Return whether its folders are classes; known before images are decoded."""
        return set(self._classes["train"]) != {""}

    @cached_property
    def _identity(self) -> tuple[str, Any]:
        roots = [str(Path(place).expanduser().absolute()) for place in places(self.root)]
        return self.title, [
            roots,
            self._inventory.facts(),
            {s: sorted(set(names)) for s, names in self._classes.items()},
        ]

    def _source(self) -> ImageSource:
        class_names = tuple(sorted(set(self._classes["train"]) - {""}))
        number = {name: k for k, name in enumerate(class_names)} | {"": UNLABELLED}
        files = self._inventory.files
        labels = {s: np.array([number[name] for name in names], np.int64) for s, names in self._classes.items()}

        def read(split: str, rows: NDArray[np.int64]) -> Iterator[tuple[str, Encoded]]:
            for row in rows:
                file = files[split][row]
                yield shown(file.path), Path(file.path)

        return ImageSource(labels=labels, class_names=tuple(map(shown, class_names)), read=read)

    def _build(self, folder: Path) -> None:
        super()._build(folder)
        if self._look().facts(strict=False) != self._inventory.facts(strict=False):
            raise ValueError(f"Files of {self.title} changed while they were read. Start again when they are complete.")


def _class_of_each(inventory: Inventory) -> dict[str, list[str]]:
    """The class of each file by split, ``""`` where it has none; names of all splits are compared.

    Raises:
        ValueError: If images lie beside classes, a class is empty or missing in train, or one file has two classes.
    """
    groups = {split: [_composed(group) for group in each] for split, each in inventory.groups.items()}
    depth = _num_around(list(chain.from_iterable(groups.values())))
    classes = {split: [_class(group, depth) for group in each] for split, each in groups.items()}
    loose = {split: [k for k, name in enumerate(names) if not name] for split, names in classes.items()}
    for split, rows in loose.items():
        if 0 < len(rows) < len(classes[split]):
            if depth > 0:
                return {split: [""] * len(names) for split, names in classes.items()}
            raise ValueError(
                f"Sub-folders of {split} are classes ({first_of(sorted({*classes[split]} - {''}))}), but {len(rows)} images "
                f"lie beside them (first: {shown(inventory.files[split][rows[0]].name)}): their labels are unknown. Move "
                "them into class folders, or all images into one folder without labels."
            )
    known = set(classes["train"]) - {""}
    for split, names in classes.items():
        strangers = sorted(set(names) - known - {""})
        if split == PRETRAIN or len(set(names)) == 1:  # labels are not needed, or it is a folder called images
            classes[split] = [name if name in known else "" for name in names]
        elif strangers:
            raise ValueError(
                f"The {split} split has the class folders {strangers[:5]} that train lacks; those there are "
                f"{sorted(known)[:20]}. Use the same class folders in each split."
            )
    if len(known) < 2:
        return {split: [""] * len(names) for split, names in classes.items()}
    _check_classes(inventory, known, depth)
    return classes


def _check_classes(inventory: Inventory, known: set[str], depth: int) -> None:
    same = Counter(name.casefold() for name in known)
    alike = sorted(name for name in known if same[name.casefold()] > 1)
    if alike:
        raise ValueError(f"The class folders {alike[:6]} differ only in capitals. Give each class one name.")
    empty = sorted({_composed(group)[depth] for group in inventory.bare if len(group) == depth + 1} - known)
    if empty:
        raise ValueError(f"Sub-folders are classes, but these hold no images: {empty[:5]}. Remove them, or fill them.")
    for group, path, kept_group, kept_path in inventory.again:
        if _class(_composed(group), depth) != _class(_composed(kept_group), depth):
            raise ValueError(
                f"Cannot label {shown(kept_path)}: {shown(path)} in another class is the same file. Remove one of them."
            )


def _num_around(groups: Sequence[Parts]) -> int:
    """Count the nested folders that contain all images."""
    depth = 0
    while all(len(group) > depth for group in groups) and len({group[depth] for group in groups}) == 1:
        depth += 1
    return depth


def _class(group: Parts, depth: int) -> str:
    return group[depth] if len(group) > depth else ""


def _composed(group: Parts) -> Parts:
    """Names with each accent and its letter as one character: macOS stores them apart."""
    return tuple(unicodedata.normalize("NFC", name) for name in group)
