"""What ssl_lab can be given: data as settings of a run, and as samples in the order in which they were given."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

_ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Given(ABC):
    """Recognised data.

    Attributes:
        kind: What messages call the samples.
        task: The task that learns their labels.
        labelled: Whether there are labels; None where that is not known before the data are read.
    """

    kind: ClassVar[str] = "samples"
    task: ClassVar[str | None] = None
    labelled: bool | None = None

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Settings of a run on these data; data in memory are written to the cache folder."""

    def batches(self, run_data: Any, spec: Any) -> Iterator[dict[str, Any]]:
        """Batches of all samples in order, as a run's encoder reads them.

        Raises:
            ValueError: If the run reads other data, or these have no order.
        """
        raise self._has_no_order()

    def samples(self) -> list[Any]:
        """All samples in order, as :func:`ssl_lab.cli.using.predict` takes them.

        Raises:
            ValueError: If they have no order.
        """
        raise self._has_no_order()

    def _has_no_order(self) -> ValueError:
        return ValueError(f"Cannot read these {self.kind} in order. Give an array, a list, a folder, or a Dataset.")


@dataclass(frozen=True, kw_only=True)
class Configured(Given):
    """Data that settings name already: a data set of ``ssl_lab.list()``, a DataModule, a table.

    Attributes:
        named: The settings.
    """

    named: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """The settings."""
        return dict(self.named)


@dataclass(frozen=True, kw_only=True)
class Images(Given):
    """Images in memory.

    Attributes:
        pixels: uint8 (N, C, H, W) by split.
        labels: Labels by split, for those that have any.
        class_names: Names in label order.
        title: What tables call the data.
    """

    kind: ClassVar[str] = "images"
    task: ClassVar[str | None] = "image_classification"
    pixels: Mapping[str, NDArray[np.uint8]]
    labels: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    title: str = "images"

    def settings(self) -> dict[str, Any]:
        """The arrays' folder in the cache."""
        from ssl_lab.data.image.arrays import store_arrays

        folder = store_arrays(self.pixels, self.labels, class_names=self.class_names, title=self.title)
        return {"data": "arrays", "data.path": str(folder)}

    def batches(self, run_data: Any, spec: Any) -> Iterator[dict[str, Any]]:
        """Batches of ``image`` uint8 (B, C, H, W) of the channels and size of the run's data, as those of files become.

        Raises:
            ValueError: If the run reads no images.
        """
        import torch

        from ssl_lab.modalities.image import ImageSpec

        if not isinstance(spec, ImageSpec):
            raise ValueError(f"Cannot embed images: the run reads {spec}. Give what it was trained on.")
        for images in self.pixels.values():
            for start in range(0, len(images), _ROWS_AT_ONCE):
                part = images[start : start + _ROWS_AT_ONCE]
                yield {
                    "image": torch.from_numpy(np.array(part if part.shape[1:] == spec.shape else _fitted(part, spec)))
                }

    def samples(self) -> list[Any]:
        """Each image."""
        return [image for images in self.pixels.values() for image in images]


def _fitted(images: NDArray[np.uint8], spec: Any) -> NDArray[np.uint8]:
    """Images of the channels and size that an encoder is used on, as those of files become."""
    from ssl_lab.data.image.decode import decode_picture

    channels, height, width = spec.shape
    found = []
    for image in images:
        pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
        picture = decode_picture(pixels, channels=channels, image_size=(height, width))
        assert picture is not None
        found.append(picture.pixels)
    return np.stack(found)


@dataclass(frozen=True, kw_only=True)
class Texts(Given):
    """Texts in memory.

    Attributes:
        texts: By split.
        labels: Numbers or names by split, for those that have any.
    """

    kind: ClassVar[str] = "texts"
    task: ClassVar[str | None] = "classification"
    texts: Mapping[str, Sequence[str]]
    labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """A folder of the cache with a table for each split."""
        columns = {
            split: {"text": list(texts), **({"label": list(self.labels[split])} if split in self.labels else {})}
            for split, texts in self.texts.items()
        }
        column = {"data.label_column": "label"} if self.labels else {}
        return {"data": "text_files", "data.path": str(store_tables("texts", columns)), **column}

    def batches(self, run_data: Any, spec: Any) -> Iterator[dict[str, Any]]:
        """Batches of token ids by the run's tokenizer, one row a text, which is cut off where rows end.

        Raises:
            ValueError: If the run reads no texts, or one is blank.
        """
        import torch

        from ssl_lab.modalities.text import TextSpec

        if not isinstance(spec, TextSpec):
            raise ValueError(f"Cannot embed texts: the run reads {spec}. Give what it was trained on.")
        from ssl_lab.data.text.tokenizer import plain_backend

        backend = plain_backend(run_data.tokenizer)
        for texts in self.texts.values():
            if blank := [k for k, text in enumerate(texts) if not text.strip()]:
                raise ValueError(f"Cannot embed text {blank[0]}: it is blank. Leave it out.")
            for start in range(0, len(texts), _ROWS_AT_ONCE):
                part = list(texts[start : start + _ROWS_AT_ONCE])
                found = backend.encode_batch_fast(part, add_special_tokens=False)
                ids = [np.array(each.ids, np.int32) for each in found]
                rows = run_data.token_rows([np.concatenate(ids)], [np.array(list(map(len, ids)))], labelled=True)
                columns = {name: torch.from_numpy(column.whole()) for name, column in rows.columns().items()}
                yield run_data.as_batch(columns)

    def samples(self) -> list[Any]:
        """Each text."""
        return [text for texts in self.texts.values() for text in texts]


@dataclass(frozen=True, kw_only=True)
class ImageFiles(Given):
    """Image files by path.

    Attributes:
        paths: By split, each whole.
        labels: Numbers or names by split, for those that have any.
        image_size: What they are resized to; None if all have one size.
    """

    kind: ClassVar[str] = "images"
    task: ClassVar[str | None] = "image_classification"
    paths: Mapping[str, Sequence[str]]
    labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    image_size: int | None = None

    def settings(self) -> dict[str, Any]:
        """A folder of the cache with a table of paths for each split."""
        columns: dict[str, dict[str, Sequence[Any]]] = {}
        for split, paths in self.paths.items():
            status = [os.stat(path) for path in paths]
            columns[split] = {
                "image": list(paths),
                "num_bytes": [found.st_size for found in status],
                "changed_ns": [found.st_mtime_ns for found in status],
                **({"label": list(self.labels[split])} if split in self.labels else {}),
            }
        size = {} if self.image_size is None else {"data.image_size": self.image_size}
        path = str(store_tables("images", columns))
        return {"data": "hub_images", "data.path": path, "data.image_column": "image", **size}

    def batches(self, run_data: Any, spec: Any) -> Iterator[dict[str, Any]]:
        """Batches of the files, resized to the size of the run's images.

        Raises:
            ValueError: If the run reads no images, or a file cannot be read.
        """
        from ssl_lab.data.image.decode import decode_picture
        from ssl_lab.modalities.image import ImageSpec

        channels, *size = ImageSpec.of(spec, "The encoder of images").shape
        for paths in self.paths.values():
            for start in range(0, len(paths), _ROWS_AT_ONCE):
                found = []
                for path in paths[start : start + _ROWS_AT_ONCE]:
                    picture = decode_picture(Path(path), channels=channels, image_size=(size[0], size[1]))
                    if picture is None:
                        raise ValueError(f"Cannot read {path}: it is not an image, or damaged. Leave it out.")
                    found.append(picture.pixels)
                yield from Images(pixels={"train": np.stack(found)}).batches(run_data, spec)

    def samples(self) -> list[Any]:
        """Each path."""
        return [Path(path) for paths in self.paths.values() for path in paths]


def store_tables(name: str, columns: Mapping[str, Mapping[str, Sequence[Any]]]) -> Path:
    """The folder of the cache that holds these tables as parquet files by split; they are written once."""
    from ssl_lab.data.store import build_once
    from ssl_lab.extras import needed_to

    with needed_to(f"read {name} given in Python"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    tables = {split: pa.table(dict(each)) for split, each in columns.items()}
    digest = hashlib.sha256()
    for split, table in sorted(tables.items()):
        digest.update(f"{split} {table.num_rows}".encode())
        for column in table.column_names:
            digest.update(repr((column, table[column].to_pylist())).encode())

    def build(folder: Path) -> None:
        (folder / name).mkdir()  # whose name is the title of the data
        for split, table in tables.items():
            pq.write_table(table, folder / name / f"{split}.parquet")

    return build_once(f"{name}-{digest.hexdigest()[:20]}", build) / name
