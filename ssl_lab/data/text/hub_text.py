"""Text data sets of the Hugging Face hub, and local files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_lab.data.columns import Columns
from ssl_lab.data.files.inventory import Source, title_of
from ssl_lab.data.files.labels import encode_labels
from ssl_lab.data.files.tables import check_text_column
from ssl_lab.data.hub import load_splits
from ssl_lab.data.hugging_face import datasets
from ssl_lab.data.labelled import LabelledModule
from ssl_lab.data.splits import find_split
from ssl_lab.data.text.base import TextModule, TextSource

_SAMPLE_BY = ("line", "paragraph", "document")


@dataclass(kw_only=True, eq=False, repr=False)
class HubText(TextModule, LabelledModule):
    r"""Any Hugging Face text data set, from the hub or from local files, labelled or not.

    A tab-separated file without header is read by
    ``options={"names": ["sentence", "label"], "header": None}``.

    Args:
        path: Identifier on the hub; a local csv, tsv, json, jsonl, parquet or txt file, gzipped or not; a folder of
            such files, whose names may say their split; or files or folders for each split.
        name: Name of the configuration, for a data set of the hub that has several.
        text_column: Column of the text; None if it is called ``text`` or is the only one of strings.
        label_column: Column of the labels, numbers or names; None to leave the text unlabelled.
        sample_by: What is one document of a plain text file: ``line``, ``paragraph`` (blank lines between) or
            ``document`` (the file). None for ``paragraph``, but ``line`` where each split is one file without blank lines.
        options: Further arguments of ``datasets.load_dataset``, such as ``sep``, ``names`` and ``header`` for csv.

    Raises:
        ValueError: If ``sample_by`` is unknown.
    """

    path: Source = field(kw_only=False)
    name: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    sample_by: str | None = None
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.sample_by is not None and self.sample_by not in _SAMPLE_BY:
            raise ValueError(f"Cannot use sample_by={self.sample_by!r}. Set data.sample_by to one of {_SAMPLE_BY}.")

    def origin(self, split: str) -> tuple[str, NDArray[np.int64]]:
        """The source split and the row of each labelled text there; unlabelled ones are cut into pieces, which have none."""
        if "label" not in self.columns(split):
            return super().origin(split)
        part = self._parts[find_split(split, self._parts)]
        rows = part.rows[[bool(text.strip()) for texts in self._chunks(part) for text in texts]]
        return part.source, rows[self._kept] if self.keeps_few(split) else rows

    @property
    def fields(self) -> Mapping[str, str]:
        """The text."""
        return {"text": self.text_column or "text"}

    @property
    def title(self) -> str:
        """The last part of the path; where each split names files, the folder of the first."""
        return title_of(self.path)

    def columns(self, split: str) -> Columns:
        """Token ids and labels of a split; see :class:`TextModule`.

        Raises:
            ValueError: If there is no such split; names those that exist.
        """
        return self.few(split, super().columns(split))

    def _source(self) -> TextSource:
        load = partial(
            load_splits,
            self.path,
            name=self.name,
            options=self.options,
            words=(self.text_column or "text", self.label_column),
        )
        splits = load(sample_by=self.sample_by or "paragraph")
        is_plain = splits["train"].builder_name == "text"
        if is_plain and self.sample_by is None and all(len(rows) == 1 for rows in splits.values()):
            splits = load(sample_by="line")
        column = self.text_column or _find_text_column(splits["train"], besides=self.label_column)
        check_text_column(splits, column, setting="text_column")
        labels, class_names = encode_labels(splits, self.label_column)
        texts = {split: rows.select_columns(column) for split, rows in splits.items()}
        return TextSource(
            labels=labels,
            class_names=class_names,
            read=lambda split, rows: list(texts[split][rows][column]),
            is_table=not is_plain,
        )


def _find_text_column(rows: datasets.Dataset, *, besides: str | None) -> str:
    columns = [
        name
        for name, feature in rows.features.items()
        if isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string") and name != besides
    ]
    if "text" in columns:
        return "text"
    if not columns:
        raise ValueError(
            f"Cannot choose the text column: none of {', '.join(rows.column_names)} holds strings. Give data with a "
            "column of texts."
        )
    if len(columns) > 1:
        raise ValueError(
            f"Cannot choose the text column: several columns hold strings ({', '.join(columns)}). Set "
            f"data.text_column={columns[0]} (or another)."
        )
    return str(columns[0])
