"""Pairs of texts, with a score or a hard negative where there are any."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_lab.data.base import PRETRAIN, Sample
from ssl_lab.data.columns import Columns
from ssl_lab.data.files.inventory import Source, title_of
from ssl_lab.data.files.tables import as_numbers, check_column, check_text_column
from ssl_lab.data.hub import load_splits
from ssl_lab.data.hugging_face import datasets
from ssl_lab.data.splits import UNLABELLED, Part, find_split
from ssl_lab.data.text.base import TextModule, TextSource
from ssl_lab.data.text.ids import token_ids


@dataclass(kw_only=True, eq=False, repr=False)
class TextPairs(TextModule):
    r"""Rows of two texts that belong together or whose similarity was judged, from the hub or from local files.

    A batch holds the first text as any text data do, so that every text method can train on it, and beside it
    ``second_input_ids``, ``negative_input_ids`` where there are hard negatives, and ``score`` where there are scores. Texts
    are truncated to ``max_length``.

    Args:
        path: Identifier on the hub; a local csv, tsv, json, jsonl or parquet file, gzipped or not; a folder of such
            files, whose names may say their split; or files or folders for each split.
        name: Name of the configuration, for a data set of the hub that has several.
        first_column: Column of the first text, the anchor.
        second_column: Column of the second text.
        negative_column: Column of texts that are like the first but mean something else; None if there are none.
        score_column: Column of similarities, any scale; None if there are none. Rows with a blank score are left out and
            counted; a split without any score counts as lacking.
        positive_score: Pairs scored at least this are pretrained on, and no others; None for all. All stay in
            ``train``, ``val`` and ``test``.
        options: Further arguments of ``datasets.load_dataset``, such as ``sep``, ``names`` and ``header`` for csv.

    Raises:
        ValueError: If ``positive_score`` is given without ``score_column``.
    """

    path: Source = field(kw_only=False)
    name: str | None = None
    first_column: str = "sentence1"
    second_column: str = "sentence2"
    negative_column: str | None = None
    score_column: str | None = None
    positive_score: float | None = None
    options: Mapping[str, Any] | None = None
    max_length: int = 64
    framing: str = field(default="encoder", init=False)
    packing: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.positive_score is not None and self.score_column is None:
            raise ValueError(
                f"Cannot use positive_score={self.positive_score}: these pairs have no scores. Set data.score_column, "
                "or data.positive_score=null."
            )
        self.text_columns = {"input_ids": self.first_column, "second_input_ids": self.second_column}
        if self.negative_column is not None:
            self.text_columns["negative_input_ids"] = self.negative_column

    def origin(self, split: str) -> tuple[str, NDArray[np.int64]]:
        """The source split and the row of each pair there."""
        part = self._parts[find_split(split, self._parts)]
        return part.source, part.rows

    @property
    def fields(self) -> Mapping[str, str]:
        """Both texts."""
        return {"text": self.first_column, "second_text": self.second_column}

    def _columns_given(self, samples: Sequence[Sample]) -> Columns:
        columns = {"input_ids": "text", "second_input_ids": "second_text"}
        return {
            name: token_ids(self.tokenizer, [sample[field] for sample in samples], max_length=self.max_length)
            for name, field in columns.items()
            if field in samples[0]
        }

    @property
    def title(self) -> str:
        """The last part of the path; where each split names files, the folder of the first."""
        return title_of(self.path)

    @cached_property
    def _splits(self) -> dict[str, datasets.Dataset]:
        splits = load_splits(self.path, name=self.name, options=self.options, words=tuple(self.text_columns.values()))
        settings = dict(zip(self.text_columns, ("first_column", "second_column", "negative_column"), strict=False))
        for name, column in self.text_columns.items():
            check_text_column(splits, column, setting=settings[name])
        return splits

    @cached_property
    def _scores(self) -> dict[str, NDArray[np.float32]]:
        """Scores of every row by source split, NaN where unknown."""
        column = self.score_column
        if column is None:
            return {}
        check_column(self._splits["train"], column, setting="score_column")
        scores = {
            split: as_numbers(rows[column] if column in rows.column_names else [None] * len(rows), column=column)
            for split, rows in self._splits.items()
        }
        if np.isnan(scores["train"]).all():
            raise ValueError(
                f"score_column={column!r} is blank in all {len(scores['train'])} rows of train. Set data.score_column."
            )
        for values in scores.values():
            if (values == -1).all() and not (scores["train"] == -1).any():  # withheld, as in GLUE's test splits
                values[:] = np.nan
        return scores

    @cached_property
    def _rows(self) -> dict[str, NDArray[np.int64]]:
        """Rows of every source split whose texts, and score if the split has any, are not blank; others are counted."""
        found = {}
        for split, rows in self._splits.items():
            texts = [rows[column] for column in self.text_columns.values()]
            filled = np.array([all(text and text.strip() for text in row) for row in zip(*texts, strict=True)], bool)
            known = np.ones(len(rows), bool)
            if self._scores and not np.isnan(self._scores[split]).all():
                known = ~np.isnan(self._scores[split])
            found[split] = np.flatnonzero(filled & known)
            counted = {"a blank text": int((~filled).sum()), "no score": int((filled & ~known).sum())}
            if reasons := [f"{number} have {what}" for what, number in counted.items() if number]:
                warnings.warn(
                    f"{len(rows) - len(found[split])} of {len(rows)} pairs of {split} are left out: {', '.join(reasons)}.",
                    stacklevel=2,
                )
        return found

    @cached_property
    def _parts(self) -> dict[str, Part]:
        parts = {name: Part(part.source, self._rows[part.source][part.rows]) for name, part in super()._parts.items()}
        if self.positive_score is None:
            return parts
        train = parts["train"]
        positive = train.rows[self._scores[train.source][train.rows] >= self.positive_score]
        if len(positive) == 0:
            raise ValueError(
                f"Cannot use positive_score={self.positive_score}: the highest score of {len(train.rows)} training "
                f"pairs is {self._scores[train.source][train.rows].max()}. Lower data.positive_score."
            )
        return {**parts, PRETRAIN: Part(train.source, positive)}

    def _source(self) -> TextSource:
        def read(split: str, rows: NDArray[np.int64]) -> list[str | None]:
            chosen = self._splits[split][rows]
            return [text for column in self.text_columns.values() for text in chosen[column]]

        labels = {}  # of a split with scores 0, so that one without counts as lacking
        for split, rows in self._rows.items():
            has_scores = bool(self._scores) and not np.isnan(self._scores[split]).all()
            labels[split] = np.full(len(rows), 0 if has_scores else UNLABELLED)
        return TextSource(labels=labels, read=read)

    def _tokenize(self, split: str, part: Part) -> dict[str, Tensor]:
        rows = self._splits[part.source][part.rows]
        columns = {
            name: token_ids(self.tokenizer, list(rows[column]), max_length=self.max_length)
            for name, column in self.text_columns.items()
        }
        if self._scores:
            columns["score"] = torch.from_numpy(self._scores[part.source][part.rows])
        return columns
