"""Images with one or several captions each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ssl_lab.data.base import PRETRAIN
from ssl_lab.data.columns import Columns
from ssl_lab.data.files.copies import Copy, copies
from ssl_lab.data.files.inventory import Source, places, tell_once, title_of
from ssl_lab.data.files.layout import shown
from ssl_lab.data.files.referenced import Referenced, find_referenced
from ssl_lab.data.files.tables import check_column, check_text_column
from ssl_lab.data.hub import identity, load_splits
from ssl_lab.data.hugging_face import datasets
from ssl_lab.data.image.base import ImageModule, ImageSource
from ssl_lab.data.image.decode import Encoded, image_endings
from ssl_lab.data.image.hub_images import hub_image_source, label_columns
from ssl_lab.data.loader import BatchLoader
from ssl_lab.data.splits import find_split, split_named
from ssl_lab.data.text.base import CHUNK
from ssl_lab.data.text.ids import token_ids
from ssl_lab.data.text.tokenized import Tokenized
from ssl_lab.data.text.tokenizer import load_tokenizer, train_wordpiece
from ssl_lab.modalities.pair import PairSpec
from ssl_lab.modalities.text import TextSpec
from ssl_lab.types import Batch


@dataclass(frozen=True)
class _Captioned:
    """The images of a source split: the first table row and the captions of each."""

    rows: NDArray[np.int64]
    captions: list[list[str]]


@dataclass(kw_only=True, eq=False, repr=False)
class ImageTextPairs(Tokenized, ImageModule):
    """Images with captions from a table: csv, tsv, json, jsonl or parquet, local or on the hub.

    A row holds an image, as path or content, and a caption or a list of them; rows that name the same file are one
    image with several captions. Images without a caption are left out. Images are decoded once; captions are
    truncated to ``max_length``.

    In training each image comes with one caption: it starts at a random one and moves to the next in every epoch, a
    function of (seed, epoch, index). In evaluation it comes with all, and its first is its text.

    Args:
        path: Identifier on the hub, a local file, a folder of files whose names say their split, or a file for each
            split.
        name: Name of the configuration, for a data set of the hub that has several.
        image_column: Column of the images.
        caption_column: Column of the captions.
        label_column: Column of the labels; None to find it by its type or its usual names.
        split_column: Column that says train, val or test; rows with other words are left out. None to take the source's
            splits and to cut what it lacks.
        image_root: Folder that image paths are relative to; None for the folder of the table.
        options: Further arguments of ``datasets.load_dataset``.
        vocab_size: Number of ids of a tokenizer that is trained.
        seed: Seed of the order of training images and of the caption each starts at.

    Raises:
        ValueError: If ``max_length`` leaves no ids for words.
    """

    path: Source = field(kw_only=False)
    name: str | None = None
    image_column: str = "image"
    caption_column: str = "caption"
    label_column: str | None = None
    split_column: str | None = None
    image_root: str | None = None
    options: Mapping[str, Any] | None = None
    image_size: int | None = 224
    channels: int | None = 3
    vocab_size: int = 8192
    max_length: int = 32
    eval_batch_size: int = 256
    label_fraction: float = field(default=1.0, init=False)  # captions are learned from
    label_seed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        self._root = _folder_of(self.path) if self.image_root is None else Path(self.image_root).expanduser()

    @property
    def title(self) -> str:
        """The last part of the path; where each split names files, the folder of the first."""
        return title_of(self.path)

    @cached_property
    def _tables(self) -> dict[str, datasets.Dataset]:
        words = (self.caption_column, self.split_column, *label_columns(self.label_column))
        tables = load_splits(self.path, name=self.name, options=self.options, words=words, aside=image_endings())
        check_column(tables["train"], self.image_column, setting="image_column")
        check_text_column(tables, self.caption_column, setting="caption_column", lists=True)
        if self.split_column is None:
            return tables
        if len(tables) > 1:
            raise ValueError(
                f"split_column={self.split_column!r} cuts one table, but {self.path} has {', '.join(tables)}. Give one "
                "table, or set data.split_column=null."
            )
        return _split_by(tables["train"], self.split_column)

    @cached_property
    def _captioned(self) -> dict[str, _Captioned]:
        return {split: self._group(split, rows) for split, rows in self._tables.items()}

    @cached_property
    def _files(self) -> Referenced | None:
        """The named image files; None if the table holds their content."""
        if not self._holds_paths:
            return None
        names = {split: [name for name in rows[self.image_column] if name] for split, rows in self._tables.items()}
        files = find_referenced(chain.from_iterable(names.values()), self._root, image_endings())
        if files.missing and len(files.missing) == len(files.real):
            raise FileNotFoundError(
                f"Cannot find the image {shown(files.missing[0])} in {self._root.absolute()}, nor any other. Set "
                "data.image_root to the folder that paths are relative to."
            )
        split_of: dict[Any, tuple[str, str]] = {}
        for split, named in names.items():
            for name in dict.fromkeys(named):
                other, same = split_of.setdefault(files.real[name], (split, name))
                if other != split and {other, split} != {"train", PRETRAIN}:
                    raise ValueError(
                        f"The image {shown(name)} is in the rows of {other} and of {split}"
                        + (f", there as {shown(same)}" if same != name else "")
                        + ". Give each image one split, so that none is trained on and tested."
                    )
        size = {name: size for name, size, *_ in files.facts if size > 0}
        found = {
            split: [Copy(str(self._root / name), name, size[name]) for name in dict.fromkeys(named) if name in size]
            for split, named in names.items()
        }
        if notes := [*files.notes(), *copies(found, [files.facts, names])]:
            tell_once(f"{self.title}: {', '.join(notes)}.")
        return files

    @cached_property
    def _identity(self) -> tuple[str, Any]:
        columns = [self.image_column, self.caption_column, self.label_column, self.split_column]
        files = [str(self._root.absolute()), self._files.facts] if self._files is not None else []
        return self.title, [identity(self._tables), columns, files]

    @property
    def _holds_paths(self) -> bool:
        feature = self._tables["train"].features[self.image_column]
        return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")

    def _group(self, split: str, rows: datasets.Dataset) -> _Captioned:
        images: Sequence[Any] = range(len(rows))
        if self._files is not None:
            images = [self._files.real[name] if name else None for name in rows[self.image_column]]
        rows_of: dict[Any, list[int]] = {}
        for row, image in enumerate(images):
            rows_of.setdefault(image, []).append(row)
        texts = [_as_list(cell) for cell in rows[self.caption_column]]
        captions = {found[0]: [text for row in found for text in texts[row]] for found in rows_of.values()}
        num_images = len(captions)
        captions = {row: found for row, found in captions.items() if found}
        if not captions:
            raise ValueError(
                f"The {split} split has no captions: {self.caption_column!r} is blank in all of its {len(rows)} rows. Set "
                "data.caption_column."
            )
        if len(captions) < num_images:
            warnings.warn(
                f"{num_images - len(captions)} of {num_images} images of {split} have no caption and are left out.",
                stacklevel=2,
            )
        return _Captioned(np.array(list(captions), dtype=np.int64), list(captions.values()))

    def _source(self) -> ImageSource:
        table = hub_image_source(self._tables, image_column=self.image_column, label_column=self.label_column)

        def read(split: str, rows: NDArray[np.int64]) -> Iterator[tuple[str, Encoded]]:
            for name, encoded in table.read(split, self._captioned[split].rows[rows]):
                yield name, self._root / encoded if isinstance(encoded, Path) else encoded

        labels = {split: labels[self._captioned[split].rows] for split, labels in table.labels.items()}
        return ImageSource(labels=labels, class_names=table.class_names, read=read)

    def _captions(self, split: str) -> list[list[str]]:
        """Captions of each image of a stored split."""
        source, rows = self._source_rows(split)
        return [self._captioned[source].captions[row] for row in rows]

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, with ``decode`` and ``save_pretrained``; the first reading trains it where it is ours."""
        if self.tokenizer_name is not None:
            return load_tokenizer(self.tokenizer_name)
        captions = self._captions("train")
        return train_wordpiece(lambda: captions, vocab_size=self.vocab_size)

    @cached_property
    def spec(self) -> PairSpec:
        """Facts of the data; the first reading of all decodes the images, and trains or loads the tokenizer."""
        image = self._image_spec
        text = TextSpec(
            length=self.max_length,
            vocab_size=len(self.tokenizer),
            pad_id=self.tokenizer.pad_token_id,
            mask_id=self.tokenizer.mask_token_id,
            special_ids=tuple(sorted(self.tokenizer.all_special_ids)),
        )
        return PairSpec(image=image, text=text, targets=image.targets)

    @cached_property
    def _tokenized(self) -> dict[str, NDArray[np.int16] | NDArray[np.int32]]:
        return {split: self._tokenize(self._captions(split)) for split in self._facts["num_images"]}

    def columns(self, split: str) -> Columns:
        """Images uint8 (N, C, H, W) as a memory map, captions (N, K, L), and labels (N,) where there are any.

        Raises:
            ValueError: If there is no such split; names those that exist.
        """
        return {**super().columns(split), "captions": self._tokenized[find_split(split, self._tokenized)]}

    def _tokenize(self, captions: list[list[str]]) -> NDArray[np.int16] | NDArray[np.int32]:
        texts = [text for found in captions for text in found]
        chunks = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
        ids = torch.cat([token_ids(self.tokenizer, chunk, max_length=self.max_length) for chunk in chunks]).numpy()
        num_captions = np.array([len(found) for found in captions])
        shape = (len(captions), num_captions.max(), self.max_length)
        padded = np.full(shape, self.tokenizer.pad_token_id, dtype=ids.dtype)
        padded[np.arange(shape[1]) < num_captions[:, None]] = ids
        return padded

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches of images with one caption each."""
        loader = super().train_dataloader()
        generator = torch.Generator().manual_seed(self.seed)
        start = torch.randint(2**31, (loader.num_samples,), generator=generator).to(loader.device)

        def with_one_caption(rows: dict[str, Tensor]) -> Batch:
            captions = rows["captions"]
            num_captions = (captions[:, :, 0] != self.tokenizer.pad_token_id).sum(1)
            turn = (start[rows["index"]] + loader.sampler.epoch) % num_captions
            text = self._text(captions[torch.arange(len(turn), device=turn.device), turn])
            return {**text, **{name: column for name, column in rows.items() if name != "captions"}}

        loader.as_batch = with_one_caption
        return loader

    def as_batch(self, rows: dict[str, Tensor]) -> Batch:
        """All captions, and the first as the image's text."""
        return {**rows, "captions": rows["captions"].long(), **self._text(rows["captions"][:, 0])}

    def _text(self, ids: Tensor) -> dict[str, Tensor]:
        ids = ids.long()
        return {"input_ids": ids, "attention_mask": (ids != self.tokenizer.pad_token_id).long()}


def _folder_of(path: Source) -> Path:
    local = Path(places(path)[0]).expanduser()
    return local if local.is_dir() else local.parent


def _split_by(rows: datasets.Dataset, column: str) -> dict[str, datasets.Dataset]:
    """The rows of each split that a column names."""
    check_column(rows, column, setting="split_column")
    words = [str(word) for word in rows[column]]
    splits = [split_named(word) for word in words]
    if "train" not in splits:
        raise ValueError(
            f"Cannot read splits from split_column={column!r}: no row says train; it holds {sorted(set(words))[:10]}. "
            "Set data.split_column to another column, or to null."
        )
    if others := sorted({word for word, split in zip(words, splits, strict=True) if split is None}):
        warnings.warn(
            f"{splits.count(None)} of {len(splits)} rows are left out: {column!r} says {', '.join(others[:5])}, not train, "
            "val or test.",
            stacklevel=2,
        )
    names = sorted({split for split in splits if split is not None})
    return {name: rows.select(np.flatnonzero([split == name for split in splits])) for name in names}


def _as_list(cell: str | list[str] | None) -> list[str]:
    texts = [cell] if isinstance(cell, str) else cell or []
    return [text for text in texts if text and text.strip()]
