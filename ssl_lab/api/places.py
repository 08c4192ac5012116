"""Folders, files, and names of data sets."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_lab.api.given import Configured, Given, ImageFiles
from ssl_lab.api.in_memory import Arrays
from ssl_lab.api.reader import Asked, Reader
from ssl_lab.cli.paths import choices
from ssl_lab.extras import needed_to

_TEXT_ENDINGS = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet")


class Places(Reader):
    """A folder, a file, or the name of a data set."""

    def takes(self, data: Any) -> bool:
        """Whether it is one."""
        return isinstance(data, str | os.PathLike)

    def read(self, data: Any, asked: Asked) -> Given:
        """As images or texts, by the files that are there."""
        path = Path(data).expanduser()
        if path.suffix.lower() == ".npy" and path.is_file():
            return Arrays().read(_array(path), asked)
        asked.none(f"{data!r}")
        if not path.exists():
            if isinstance(data, str) and data in choices("data"):
                return Configured(named={"data": data})
            close = difflib.get_close_matches(str(data), [*choices("data")], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else " For one text, give a list: [text]."
            raise ValueError(
                f"Cannot read data from {str(data)[:100]!r}: there is no such folder or file, and no data set of that name."
                f"{hint}"
            )
        if path.is_dir():
            return _folder(path, asked.image_size)
        return _file(path, asked.image_size)


def _folder(path: Path, image_size: int | None) -> Given:
    from ssl_lab.data.image.decode import image_endings
    from ssl_lab.predict.inputs import walk_files

    found = {"image": 0, "text": 0, "arrays": int((path / "train_images.npy").is_file())}
    for file in walk_files(path, {}):
        name = file.name.lower()
        found["image"] += name.endswith(image_endings())
        found["text"] += name.removesuffix(".gz").endswith(_TEXT_ENDINGS)
        if sum(found.values()) > 10_000:
            break
    if found["arrays"]:
        return Configured(named={"data": "arrays", "data.path": str(path.absolute())})
    if not any(found.values()):
        raise ValueError(
            f"Cannot read data from {path}: the folder has no images and no text files. Give a folder that has some, of "
            "images "
            f"or of {', '.join(_TEXT_ENDINGS)}."
        )
    if found["image"] >= found["text"]:
        size = {} if image_size is None else {"data.image_size": image_size}
        return FolderOfImages(named={"data": "image_folder", "data.root": str(path.absolute()), **size})
    return TextFiles(named={"data": "text_files", "data.path": str(path.absolute())})


def _file(path: Path, image_size: int | None) -> Given:
    from ssl_lab.data.image.decode import image_endings

    if path.name.lower().endswith(image_endings()):
        return ImageFiles(paths={"train": [str(path.absolute())]}, image_size=image_size, labelled=False)
    if path.suffix.lower() == ".parquet" and _holdsimages_of(path):
        size = {} if image_size is None else {"data.image_size": image_size}
        return Configured(named={"data": "hub_images", "data.path": str(path.absolute()), **size})
    if path.name.lower().removesuffix(".gz").endswith(_TEXT_ENDINGS):
        return TextFiles(named={"data": "text_files", "data.path": str(path.absolute())})
    raise ValueError(
        f"Cannot read data from {path}: ssl_lab reads images, {', '.join(_TEXT_ENDINGS)} and .npy. Give such a file, or "
        "a folder."
    )


@dataclass(frozen=True, kw_only=True)
class TextFiles(Configured):
    """Text files that are read as they lie."""


@dataclass(frozen=True, kw_only=True)
class FolderOfImages(Configured):
    """A folder of images that are read as they lie."""

    task = "image_classification"

    def batches(self, run_data: Any, spec: Any) -> Any:
        """The images in the order of their paths."""
        from ssl_lab.data.image.decode import image_endings
        from ssl_lab.predict.inputs import files_below

        files = files_below(Path(self.named["data.root"]))
        paths = [str(file) for file in files if file.name.lower().endswith(image_endings())]
        return ImageFiles(paths={"train": paths}).batches(run_data, spec)


def _array(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"Cannot read images from {path}: it is damaged, or holds objects rather than numbers. Write one array of uint8 "
            "by numpy.save."
        ) from error


def _holdsimages_of(path: Path) -> bool:
    with needed_to(f"read {path}"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    types = [field.type for field in pq.read_schema(path)]
    return any(
        pa.types.is_binary(one) or pa.types.is_struct(one) and one.get_field_index("bytes") >= 0 for one in types
    )
