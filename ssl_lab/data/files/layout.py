"""Where the paths of a data set say the split: in the names of folders, in the names of files, or nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from ssl_lab.data.base import PRETRAIN
from ssl_lab.data.splits import named_plainly, split_named, splits_in

Parts = tuple[str, ...]
"""A path below the root, folder by folder; the last is the file."""

BY_NAME = -1
"""The level of file names; levels of folders count from 0."""

LAYOUTS = (
    "a folder for each split (train/..., val/..., test/..., unlabeled/...), or the same below each class; files named by "
    "split (train.txt, test.txt); no split names at all"
)


def shown(path: str) -> str:
    """A path as it can be printed, whatever bytes its names are made of."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def first_of(names: Sequence[str], *, num: int = 5) -> str:
    """The first names and how many more there are."""
    return ", ".join(map(shown, names[:num])) + (f" and {len(names) - num} more" if len(names) > num else "")


class Layout:
    """Position of the split's name in a path.

    The whole data set decides, never one file. Names that look like splits beside names that do not are no splits if the
    only one is train (a class called train), or if they are a minority of plain words (a page ``training.txt``).

    Args:
        paths: The usable files, links resolved.
        where: The folder, for messages.
        setting: The setting that names it, for messages.
        one_of_many: A file is one sample of many, as an image is, and its name rarely means something.

    Attributes:
        level: A level of folders, ``BY_NAME``, or None where there are no splits.

    Raises:
        ValueError: If some names are splits and it is unclear what the others are, or training data are missing.
    """

    def __init__(self, paths: Sequence[Parts], *, where: str, setting: str, one_of_many: bool) -> None:
        self._one_of_many = one_of_many
        depth = max((len(path) for path in paths), default=1) - 1
        levels = (*range(depth), BY_NAME)
        splits = {level: _splits_of(self._name(path, level) for path in paths) for level in levels}
        if one_of_many and len(splits[BY_NAME]) < 2:
            splits[BY_NAME] = {None}  # val_1.png, val_2.png
        clear = {level: found for level, found in splits.items() if None not in found and found != {PRETRAIN}}
        trained = [level for level, found in clear.items() if "train" in found]
        if clear and not trained:
            found = sorted(map(str, next(iter(clear.values()))))
            raise ValueError(
                f"Cannot train on {where}: its files are named after {' and '.join(found)}, none after train. Name the "
                f"training files train, or name each split: {setting}={{train: ..., test: ...}}."
            )
        self.level: int | None = next((k for k in trained if len(clear[k]) > 1), trained[0] if trained else None)
        if self.level is None:
            for level in levels:
                if level != BY_NAME or not one_of_many:
                    names = sorted({self._name(path, level) for path in paths})
                    _refuse_mixture(names, top=level in (0, BY_NAME), where=where, setting=setting)

    def split(self, path: Parts) -> str | None:
        """The split named by a path; ``train`` where there are no splits."""
        return "train" if self.level is None else split_named(self._name(path, self.level))

    def group(self, path: Parts) -> Parts:
        """The folders of a path but for the one that says the split."""
        folders = path[:-1]
        return folders if self.level in (None, BY_NAME) else folders[: self.level] + folders[self.level + 1 :]

    def _name(self, path: Parts, level: int) -> str:
        """The name at a level; the file's own where the level is above it."""
        if level == BY_NAME or len(path) > level + 1:
            return path[level]
        return "files beside them" if self._one_of_many else path[-1]


def _splits_of(names: Iterable[str]) -> set[str | None]:
    """The splits that names say; None alone if one says none."""
    splits: set[str | None] = set()
    for name in names:
        split = split_named(name)
        if split is None:
            return {None}
        splits.add(split)
    return splits


def _refuse_mixture(names: Sequence[str], *, top: bool, where: str, setting: str) -> None:
    """Raise ValueError if some names are those of splits and the others could be anything."""
    named = [name for name in names if splits_in(name)]
    others = [name for name in names if split_named(name) is None]
    splits = {split for name in named for split in splits_in(name)}
    if not others or splits <= {"train"} or not (top or "train" in splits):
        return
    if all(map(named_plainly, named)) and len(others) > len(named):
        return
    raise ValueError(
        f"Cannot tell the splits of {where}: {first_of(named)} {'are' if len(named) > 1 else 'is'} named after splits, but "
        f"{first_of(others)} {'are' if len(others) > 1 else 'is'} not. Name all after a split, move the others away, or name "
        f"each split, which may be a folder: {setting}={{train: ..., test: ...}}. Known layouts: {LAYOUTS}."
    )
