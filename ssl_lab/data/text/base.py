"""Text of any source, as rows of token ids."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ssl_lab.data.base import PRETRAIN, Sample
from ssl_lab.data.columns import Columns
from ssl_lab.data.files.inventory import tell_once
from ssl_lab.data.files.layout import shown
from ssl_lab.data.splits import UNLABELLED, CutModule, Part, find_split, plan_splits
from ssl_lab.data.text.given import TEXT_ENDINGS, is_filled, read_samples
from ssl_lab.data.text.ids import unknown_share
from ssl_lab.data.text.token_rows import TokenRows, frame_of
from ssl_lab.data.text.tokenized import Tokenized
from ssl_lab.data.text.tokenizer import (
    FRAMINGS,
    load_tokenizer,
    plain_backend,
    train_tokenizer,
    with_frame,
)
from ssl_lab.data.text.words import continuing_tokens
from ssl_lab.modalities.text import TextSpec
from ssl_lab.types import Batch, Classes, Spec

CHUNK = 1000
NUM_LENGTHS = 8  # of the batches on a CPU, at most
_OF_TEXTS = ("input_ids", "document_ids", "second_input_ids", "negative_input_ids")


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """Texts by split.

    Attributes:
        labels: Label of every text by source split, -1 where unknown.
        class_names: Names in label order; empty without labels.
        read: The texts of the given rows of a source split; None counts as blank.
        is_table: Whether a blank text is a row without content, and not a gap between the lines of a file.
    """

    labels: Mapping[str, NDArray[np.int64]]
    class_names: tuple[str, ...] = ()
    read: Callable[[str, NDArray[np.int64]], Sequence[str | None]]
    is_table: bool = False


@dataclass(frozen=True, kw_only=True)
class TextCounts:
    """Amount of raw text of a split.

    Attributes:
        num_documents: Texts that are not blank.
        num_words: Words between white space.
        num_bytes: Bytes in UTF-8.
    """

    num_documents: int
    num_words: int
    num_bytes: int


@dataclass(kw_only=True, eq=False, repr=False)
class TokenModule(Tokenized):
    """Rows of token ids, whatever they are made from.

    Attributes:
        class_column: The column that holds classes, where there are any.

    Args:
        framing: ``encoder``: class and separator tokens around each piece of text. ``causal``: an end-of-text token after
            each document.
        packing: Put pieces of several documents into a row.
    """

    framing: str = "encoder"
    packing: bool = False
    batch_size: int = 64
    eval_batch_size: int = 256

    class_column = "label"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: If the framing is unknown.
        """
        super().__post_init__()
        if self.framing not in FRAMINGS:
            raise ValueError(f"Cannot use framing={self.framing!r}. Set data.framing to one of {FRAMINGS}.")

    @property
    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, with ``decode`` and ``save_pretrained``."""

    @abstractmethod
    def text_counts(self, split: str) -> TextCounts:
        """Count the raw text of a split.

        Raises:
            ValueError: If there is no such split; names those that exist.
        """

    @abstractmethod
    def padding_share(self, split: str) -> float:
        """Share of all tokens of a split that are padding.

        Raises:
            ValueError: If there is no such split; names those that exist.
        """

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order; empty without labels."""
        return ()

    @classmethod
    def settings_in_run(cls, run_dir: Path, spec: Spec, own: Mapping[str, Any] | None) -> dict[str, Any]:
        """The run's tokenizer, length and framing."""
        framing = {"framing": own["framing"]} if own is not None and "framing" in own else {}
        return {**super().settings_in_run(run_dir, spec, own), **framing}

    @cached_property
    def spec(self) -> TextSpec:
        """Facts of the data; the first reading trains or loads the tokenizer."""
        classes = {self.class_column: Classes(names=self.class_names)} if self.class_names else {}
        return TextSpec(
            targets=classes,
            length=self.max_length,
            vocab_size=len(self.tokenizer),
            pad_id=self.tokenizer.pad_token_id,
            mask_id=self.tokenizer.mask_token_id,
            eos_id=self.tokenizer.eos_token_id,
            special_ids=tuple(sorted(self.tokenizer.all_special_ids)),
            continues_word=continuing_tokens(self.tokenizer),
        )

    def as_batch(self, rows: dict[str, Tensor]) -> Batch:
        """Ids and numbers of documents as int64, and attention masks, 1 where there is a token.

        On the CPU, where padding takes as long as text, columns end with the longest text of the batch, rounded up to an
        eighth of ``max_length``, so that there are eight shapes at most. On a GPU, finding it would wait for the device.
        Rows with columns of tokens that are not known here stay whole.
        """
        texts = {name: column.long() for name, column in rows.items() if name.endswith("_ids")}
        masks = {
            name.replace("input_ids", "attention_mask"): (ids != self.tokenizer.pad_token_id).long()
            for name, ids in texts.items()
            if name.endswith("input_ids")
        }
        if "document_ids" in texts:
            masks["attention_mask"] = (texts["document_ids"] > 0).long()
        tokens = {**texts, **masks}
        known = all(name in _OF_TEXTS or column.ndim == 1 for name, column in rows.items())
        if known and masks["attention_mask"].device.type == "cpu":
            length = self._longest(masks.values())
            tokens = {name: column[:, :length] for name, column in tokens.items()}
        return {**rows, **tokens}

    def _longest(self, masks: Iterable[Tensor]) -> int:
        """Length of the longest text in masks (B, max_length), rounded up."""
        places = torch.arange(1, self.max_length + 1)
        longest = max(int((mask.any(0) * places).max()) for mask in masks)
        step = -(-self.max_length // NUM_LENGTHS)
        return min(self.max_length, max(1, -(-longest // step)) * step)

    def readable(self, split: str, row: int) -> str:
        """The text of a row, from its tokens."""
        ids = self.columns(split)["input_ids"][np.array([row])]  # type: ignore[index]
        return str(self.tokenizer.decode(ids[0].tolist(), skip_special_tokens=True))

    @property
    def fields(self) -> Mapping[str, str]:
        """The text."""
        return {"text": "text"}

    @property
    def given_endings(self) -> tuple[str, ...]:
        """Return the endings of plain text and tables, gzipped or not."""
        return TEXT_ENDINGS

    def samples_in(self, file: Path, fields: Mapping[str, str]) -> list[Sample]:
        """A text a line of plain text, or a row of a table each."""
        return read_samples(file, fields)

    def give(self, samples: Sequence[Sample], spec: Spec) -> list[int]:
        """Tokenise texts as labelled ones are: a text is a row, truncated to ``max_length``; blank ones cannot be read."""
        kept = [k for k, sample in enumerate(samples) if all(map(is_filled, sample.values()))]
        self._given = self._columns_given([samples[k] for k in kept]) if kept else {"input_ids": torch.empty(0)}
        return kept

    def _columns_given(self, samples: Sequence[Sample]) -> Columns:
        """Columns of samples without blank texts."""
        encoded = self._encode([sample["text"] for sample in samples])
        lengths = np.array([len(ids) for ids in encoded])
        rows = self.token_rows([np.concatenate(encoded)], [lengths], labelled=True)
        return {name: torch.from_numpy(column.whole()) for name, column in rows.columns().items()}

    @cached_property
    def _backend(self) -> Tokenizer:
        return plain_backend(self.tokenizer)

    def _encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Ids of whole texts, without special tokens."""
        encoded = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(each.ids, np.int32) for each in encoded]

    def metrics(self) -> Mapping[str, float]:
        """``data/padding_share`` of the rows that are trained on, and where it is not 0, ``data/unknown_share``.

        The latter is the share of tokens that the tokenizer does not know, in up to 1,000 rows spread over the split.
        """
        unknown = unknown_share(self.tokenizer, self.columns(PRETRAIN)["input_ids"])
        return {"data/padding_share": self.padding_share(PRETRAIN)} | (
            {"data/unknown_share": unknown} if unknown else {}
        )

    def token_rows(
        self, ids: Sequence[NDArray[Any]], lengths: Sequence[NDArray[Any]], *, labelled: bool = False
    ) -> TokenRows:
        """Rows of stored documents as this module's settings have them; of labelled ones, each the begin of a document."""
        return TokenRows(
            ids,
            lengths,
            frame=frame_of(self.tokenizer, self.framing),
            max_length=self.max_length,
            vocab_size=len(self.tokenizer),
            packing=self.packing and not labelled,
            truncate=labelled,
        )


@dataclass(kw_only=True, eq=False, repr=False)
class TextModule(TokenModule, CutModule):
    """Texts as token ids: pieces of unlabelled documents, or one labelled text a sample.

    An unlabelled document is cut into pieces of ``max_length`` tokens and a remainder. With ``framing=encoder`` each piece
    has its own class and separator token; with ``causal`` the document ends with an end-of-text token, and there are no
    others. A row is one piece, padded; with ``packing`` remainders share rows and ``document_ids`` tells them apart.
    A labelled text is one sample, truncated to ``max_length``.

    Args:
        tokenizer_kind: Kind of tokenizer to train: ``wordpiece``, ``bpe``, ``unigram`` or ``characters``.
        vocab_size: Number of ids of a tokenizer that is trained.
    """

    tokenizer_kind: str = "wordpiece"
    vocab_size: int = 8192

    @abstractmethod
    def _source(self) -> TextSource:
        """Open the source."""

    @cached_property
    def _texts(self) -> TextSource:
        return self._source()

    @cached_property
    def _parts(self) -> dict[str, Part]:
        for note in self.cut_notes(self._texts.labels):
            tell_once(f"{shown(self.title)}: {note}.")
        return plan_splits(
            self._texts.labels,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            split_seed=self.split_seed,
        )

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, with ``decode`` and ``save_pretrained``; the first reading trains it where it is ours."""
        if self.tokenizer_name is not None:
            tokenizer = load_tokenizer(self.tokenizer_name, framing=self.framing)
            return with_frame(tokenizer) if self.framing == "encoder" else tokenizer
        return train_tokenizer(
            self.tokenizer_kind,
            lambda: self._chunks(self._parts["train"]),
            vocab_size=self.vocab_size,
            framing=self.framing,
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order; empty without labels."""
        return self._texts.class_names

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the stored splits."""
        return tuple(self._parts)

    def documents(self, split: str) -> Iterator[list[str]]:
        """The texts of a stored split that are not blank, some at a time.

        Raises:
            ValueError: If there is no such split.
        """
        for texts in self._chunks(self._parts[find_split(split, self._parts)]):
            yield [text for text in texts if text.strip()]

    def text_counts(self, split: str) -> TextCounts:
        """Count the raw text of a split; reads all of it.

        Raises:
            ValueError: If there is no such split; names those that exist.
        """
        totals = np.zeros(3, dtype=np.int64)
        for texts in self.documents(split):
            totals += (len(texts), sum(len(text.split()) for text in texts), sum(len(text.encode()) for text in texts))
        documents, words, num_bytes = totals.tolist()
        return TextCounts(num_documents=documents, num_words=words, num_bytes=num_bytes)

    @cached_property
    def _tokenized(self) -> dict[str, dict[str, Tensor]]:
        return {split: self._tokenize(split, part) for split, part in self._parts.items()}

    def columns(self, split: str) -> Columns:
        """Padded token ids (N, max_length) of the smallest signed integer type, labels (N,) where there are any.

        With packing there is also ``document_ids`` (N, max_length), the number of the document within its row.

        Raises:
            ValueError: If there is no such split; names those that exist.
        """
        return self._tokenized[find_split(split, self._parts)]

    def padding_share(self, split: str) -> float:
        """Share of all tokens of a split that are padding.

        Raises:
            ValueError: If there is no such split; names those that exist.
        """
        columns = self._tokenized[find_split(split, self._parts)]
        if "document_ids" in columns:
            padding = [columns["document_ids"] == 0]
        else:
            padding = [
                ids == self.tokenizer.pad_token_id for name, ids in columns.items() if name.endswith("input_ids")
            ]
        return sum(int(where.sum()) for where in padding) / sum(where.numel() for where in padding)

    def _chunks(self, part: Part) -> Iterator[list[str]]:
        for start in range(0, len(part.rows), CHUNK):
            yield [text or "" for text in self._texts.read(part.source, part.rows[start : start + CHUNK])]

    def _tokenize(self, split: str, part: Part) -> dict[str, Tensor]:
        labels = self._texts.labels[part.source][part.rows]
        labelled = bool((labels != UNLABELLED).any())
        if labelled and self.packing and split == find_split(PRETRAIN, self._parts):
            warnings.warn(
                "data.packing=true has no effect on labelled text, where each text is a separate sample. Set "
                "data.label_column=null to pack it.",
                stacklevel=2,
            )
        encoded = []
        if labelled:
            filled = [bool(text.strip()) for texts in self._chunks(part) for text in texts]
            labels = labels[np.array(filled)]
        for texts in self.documents(split):
            encoded += self._encode(texts)
        if not encoded:
            raise ValueError(
                f"The {split} split has no text: all of its {len(part.rows)} samples are blank. Check the files, or "
                "the text column."
            )
        if self._texts.is_table and len(encoded) < len(part.rows):
            num_blank = len(part.rows) - len(encoded)
            warnings.warn(f"{num_blank} of {len(part.rows)} texts of {split} are blank and left out.", stacklevel=2)
        lengths = np.array([len(ids) for ids in encoded])
        rows = self.token_rows([np.concatenate(encoded)], [lengths], labelled=labelled)
        columns = {name: torch.from_numpy(column.whole()) for name, column in rows.columns().items()}
        if labelled:
            columns["label"] = torch.from_numpy(labels)
        return columns
