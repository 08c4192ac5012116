"""Text data sets of the Hugging Face hub, and local files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import datasets

from ssl_lab.data.files.inventory import Source, title_of
from ssl_lab.data.files.labels import encode_labels
from ssl_lab.data.files.tables import check_text_column
from ssl_lab.data.hub import load_splits
from ssl_lab.data.text.base import TextModule, TextSource

_SAMPLE_BY = ("line", "paragraph", "document")


class HubText(TextModule):
    r"""Any Hugging Face text data set, from the hub or from local files, labelled or not.

    A tab-separated file without header is read by
    ``options={"names": ["sentence", "label"], "header": None}``.

    Args:
        path: Identifier on the hub; a local csv, tsv, json, jsonl, parquet or txt file, gzipped or not; a folder of
            such files, named by split or not; or files or folders for each split, see :func:`take_inventory`.
        name: Configuration of a data set with several.
        text_column: Column of the text; None if it is called ``text`` or is the only one of strings.
        label_column: Column of the labels, numbers or names; None to leave the text unlabelled.
        sample_by: What is one document of a plain text file: ``line``, ``paragraph`` (blank lines between) or
            ``document`` (the file). None for ``paragraph``, but ``line`` where each split is one file without blank lines.
        options: Further arguments of ``datasets.load_dataset``, such as ``sep``, ``names`` and ``header`` for csv.
        tokenizer: Folder or hub identifier of a tokenizer; None to train one on the ``train`` split.
        tokenizer_kind: What is trained: ``wordpiece``, ``bpe``, ``unigram`` or ``characters``.
        vocab_size: Number of ids of a tokenizer that is trained.
        max_length: Tokens of a sample, special tokens included.
        framing: ``encoder``: class and separator tokens around each piece of text. ``causal``: an end-of-text token after
            each document.
        packing: Put pieces of several unlabelled documents into a row.
        val_fraction: Share of the training texts held out as ``val`` where the source has none; 0 for none.
        test_fraction: The same for ``test``.
        split_seed: Seed of both cuts.
        batch_size: Samples per device and training step.
        eval_batch_size: Samples per batch in evaluation.
        seed: Seed of the order of training samples.
        device_cache_gib: A training split up to this size is kept on the training device as a whole.

    Raises:
        ValueError: If ``sample_by`` is unknown.
    """

    def __init__(
        self,
        path: Source,
        *,
        name: str | None = None,
        text_column: str | None = None,
        label_column: str | None = None,
        sample_by: str | None = None,
        options: Mapping[str, Any] | None = None,
        tokenizer: str | None = None,
        tokenizer_kind: str = "wordpiece",
        vocab_size: int = 8192,
        max_length: int = 128,
        framing: str = "encoder",
        packing: bool = False,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        seed: int = 0,
        device_cache_gib: float = 4.0,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            tokenizer_kind=tokenizer_kind,
            vocab_size=vocab_size,
            max_length=max_length,
            framing=framing,
            packing=packing,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
            device_cache_gib=device_cache_gib,
        )
        if sample_by is not None and sample_by not in _SAMPLE_BY:
            raise ValueError(f"Cannot use sample_by={sample_by!r}. Set data.sample_by to one of {_SAMPLE_BY}.")
        self.path = path
        self.config_name = name
        self.text_column = text_column
        self.label_column = label_column
        self.sample_by = sample_by
        self.options = options

    @property
    def title(self) -> str:
        """The last part of the path; where each split names files, the folder of the first."""
        return title_of(self.path)

    def _source(self) -> TextSource:
        load = partial(
            load_splits,
            self.path,
            name=self.config_name,
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
    if len(columns) != 1:
        raise ValueError(
            f"The text column is found by its type, but {columns or 'no column'} of {rows.column_names} holds strings. "
            "Set data.text_column."
        )
    return str(columns[0])
