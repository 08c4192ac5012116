"""Hugging Face data sets in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ssl_lab.api.given import Given, Images, Texts
from ssl_lab.api.pixels import as_one_size
from ssl_lab.data.hub import without_bars


@dataclass(frozen=True, kw_only=True)
class Table(Given):
    """A ``datasets.Dataset`` by split.

    Attributes:
        splits: The data.
        label: Column of the labels, if there is one.
        is_images: Whether a column holds images; else one holds texts.
        image_size: What images are resized to.
    """

    splits: Mapping[str, datasets.Dataset]
    label: str | None
    is_images: bool
    image_size: int | None

    @property
    def task(self) -> str:  # type: ignore[override]
        """The task that learns the labels."""
        return "image_classification" if self.is_images else "classification"

    def settings(self) -> dict[str, Any]:
        """A folder of the cache with a parquet file for each split."""
        from ssl_lab.data.store import build_once

        digest = hashlib.sha256()
        for split, rows in sorted(self.splits.items()):
            digest.update(f"{split} {len(rows)} {rows.features}".encode())
            for batch in rows.with_format("arrow").iter(1000):
                for column in batch.column_names:
                    cells = batch[column].to_pylist()
                    digest.update(repr((column, cells)).encode())
                    if isinstance(rows.features[column], datasets.Image):
                        digest.update(repr([_state_of_file(cell) for cell in cells]).encode())

        title = "images" if self.is_images else "texts"

        def build(folder: Path) -> None:
            (folder / title).mkdir()
            for split, rows in self.splits.items():
                rows.to_parquet(str(folder / title / f"{split}.parquet"))

        with without_bars():
            path = str(build_once(f"table-{digest.hexdigest()[:20]}", build) / title)
        column = {} if self.label is None else {"data.label_column": self.label}
        if not self.is_images:
            return {"data": "text_files", "data.path": path, **column}
        size = {} if self.image_size is None else {"data.image_size": self.image_size}
        return {"data": "hub_images", "data.path": path, **column, **size}

    def batches(self, run_data: Any, spec: Any) -> Iterator[dict[str, Any]]:
        """Batches of all rows of all splits."""
        for rows in self.splits.values():
            for batch in rows.iter(256):
                yield from self._in_memory(batch).batches(run_data, spec)

    def samples(self) -> list[Any]:
        """Each image or text."""
        return [
            one for rows in self.splits.values() for batch in rows.iter(256) for one in self._in_memory(batch).samples()
        ]

    def _in_memory(self, batch: Mapping[str, Any]) -> Given:
        features = next(iter(self.splits.values())).features
        if self.is_images:
            column = next(name for name, each in features.items() if isinstance(each, datasets.Image))
            return Images(pixels={"train": np.asarray(as_one_size(batch[column], image_size=self.image_size))})
        column = _text_column(features, besides=self.label)
        return Texts(texts={"train": list(batch[column])})


def _state_of_file(cell: Mapping[str, Any] | None) -> tuple[str, int, int, int] | None:
    """Absolute path, size and times of an image file: its relative path alone does not identify its content."""
    if not cell or cell.get("bytes") is not None or not cell.get("path") or not Path(cell["path"]).is_file():
        return None
    path = Path(cell["path"]).absolute()
    found = path.stat()
    return str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _text_column(features: Mapping[str, Any], *, besides: str | None) -> str:
    """The column ``text``, or else the only one of strings, as in training.

    Raises:
        ValueError: If there is none, or there are several.
    """
    texts = [name for name, each in features.items() if getattr(each, "dtype", None) == "string" and name != besides]
    if "text" in features or len(texts) == 1:
        return "text" if "text" in features else texts[0]
    found = f"several columns hold texts ({', '.join(texts)})" if texts else "no column holds texts"
    raise ValueError(f"Cannot read texts from this Dataset: {found}. Keep one: dataset.select_columns('NAME').")
