"""Text of any source, as blocks of token ids."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ssl_lab.data.base import DataModule
from ssl_lab.data.splits import UNLABELLED, Part, check_fractions, find_split, plan_splits
from ssl_lab.data.tokenizer import load_tokenizer, train_wordpiece
from ssl_lab.data.words import continuing_tokens
from ssl_lab.types import Batch, DataSpec

CHUNK = 1000


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """Texts by split.

    Attributes:
        labels: Label of every text by source split, -1 where unknown.
        class_names: Names in label order; empty without labels.
        read: The texts of the given rows of a source split; None counts as blank.
    """

    labels: Mapping[str, NDArray[np.int64]]
    class_names: tuple[str, ...] = ()
    read: Callable[[str, NDArray[np.int64]], Sequence[str | None]]


@dataclass(frozen=True, kw_only=True)
class TextCounts:
    """How much raw text a split has.

    Attributes:
        num_documents: Texts that are not blank.
        num_words: Words between white space.
        num_bytes: Bytes in UTF-8.
    """

    num_documents: int
    num_words: int
    num_bytes: int


class TextModule(DataModule):
    """Texts as token ids: blocks of unlabelled documents, or one labelled text a sample.

    An unlabelled document is cut into blocks of ``max_length`` tokens, each with its own class and separator token. A
    block never holds parts of two documents, and the remainder of a document is a block of its own, padded. A labelled
    text is one sample, truncated to ``max_length``.

    Args:
        tokenizer: Folder or hub identifier of a tokenizer; None to train WordPiece on the ``train`` split.
        vocab_size: Number of ids of a tokenizer that is trained.
        max_length: Tokens of a sample, special tokens included.
        val_fraction: Share of the training texts held out as ``val`` where the source has none; 0 for none.
        test_fraction: The same for ``test``.
        split_seed: Seed of both cuts.
        batch_size: Samples per device and training step.
        eval_batch_size: Samples per batch in evaluation.
        seed: Seed of the order of training samples.
        device_cache_gib: A training split up to this size is kept on the training device as a whole.
    """

    def __init__(
        self,
        *,
        tokenizer: str | None,
        vocab_size: int,
        max_length: int,
        val_fraction: float,
        test_fraction: float,
        split_seed: int,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        device_cache_gib: float,
    ) -> None:
        super().__init__(
            batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed, device_cache_gib=device_cache_gib
        )
        check_fractions(val_fraction=val_fraction, test_fraction=test_fraction)
        if max_length < 3:
            raise ValueError(
                f"max_length counts the class and separator tokens too, found {max_length}. Choose 3 or more."
            )
        self.tokenizer_name = tokenizer
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    @abstractmethod
    def _source(self) -> TextSource:
        """Open the source."""

    @cached_property
    def _texts(self) -> TextSource:
        return self._source()

    @cached_property
    def _parts(self) -> dict[str, Part]:
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
            return load_tokenizer(self.tokenizer_name)
        return train_wordpiece(lambda: self._chunks(self._parts["train"]), vocab_size=self.vocab_size)

    @cached_property
    def spec(self) -> DataSpec:
        """Facts of the data; the first reading trains or loads the tokenizer."""
        return DataSpec(
            modality="text",
            shape=(self.max_length,),
            num_classes=len(self._texts.class_names) or None,
            class_names=self._texts.class_names,
            vocab_size=len(self.tokenizer),
            pad_id=self.tokenizer.pad_token_id,
            mask_id=self.tokenizer.mask_token_id,
            eos_id=self.tokenizer.eos_token_id,
            special_ids=tuple(sorted(self.tokenizer.all_special_ids)),
            continues_word=continuing_tokens(self.tokenizer),
        )

    @cached_property
    def _tokenized(self) -> dict[str, dict[str, Tensor]]:
        return {split: self._tokenize(split, part) for split, part in self._parts.items()}

    def columns(self, split: str) -> dict[str, Tensor]:
        """Padded token ids (N, max_length) of the smallest signed integer type, and labels (N,) where there are any.

        Raises:
            ValueError: If there is no such split; names those that exist.
        """
        return self._tokenized[find_split(split, self._parts)]

    def as_batch(self, rows: dict[str, Tensor]) -> Batch:
        """Ids as int64 and their attention masks, 1 where there is a token."""
        texts = {name: column.long() for name, column in rows.items() if name.endswith("input_ids")}
        masks = {
            name.replace("input_ids", "attention_mask"): (ids != self.tokenizer.pad_token_id).long()
            for name, ids in texts.items()
        }
        return {**rows, **texts, **masks}

    def text_counts(self, split: str) -> TextCounts:
        """How much raw text a split has; reads all of it.

        Raises:
            ValueError: If there is no such split; names those that exist.
        """
        texts = [t for ts in self._chunks(self._parts[find_split(split, self._parts)]) for t in ts if t.strip()]
        return TextCounts(
            num_documents=len(texts),
            num_words=sum(len(text.split()) for text in texts),
            num_bytes=sum(len(text.encode()) for text in texts),
        )

    def _chunks(self, part: Part) -> Iterator[list[str]]:
        for start in range(0, len(part.rows), CHUNK):
            yield [text or "" for text in self._texts.read(part.source, part.rows[start : start + CHUNK])]

    def _tokenize(self, split: str, part: Part) -> dict[str, Tensor]:
        labels = self._texts.labels[part.source][part.rows]
        labelled = bool((labels != UNLABELLED).any())
        samples = []
        for texts in self._chunks(part):
            texts = texts if labelled else [text for text in texts if text.strip()]
            if texts:
                samples.append(token_ids(self.tokenizer, texts, max_length=self.max_length, in_blocks=not labelled))
        if not samples:
            raise ValueError(
                f"The {split} split has no text: all of its {len(part.rows)} samples are blank. Check the files, or "
                "the text column."
            )
        columns = {"input_ids": torch.cat(samples)}
        if labelled:
            columns["label"] = torch.from_numpy(labels)
        return columns


def token_ids(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, max_length: int, in_blocks: bool = False
) -> Tensor:
    """Padded ids of texts with class and separator tokens, in the smallest signed integer type that holds them.

    Args:
        tokenizer: The tokenizer.
        texts: N texts, at least one.
        max_length: Tokens of a row, special tokens included.
        in_blocks: Cut a longer text into several rows instead of truncating it.

    Returns:
        Ids (N, max_length); more rows if texts were cut into blocks.
    """
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_length,
        padding="max_length",
        padding_side="right",
        return_overflowing_tokens=in_blocks,
        return_tensors="pt",
    )
    fits_16_bits = len(tokenizer) <= torch.iinfo(torch.int16).max
    return encoded["input_ids"].to(torch.int16 if fits_16_bits else torch.int32)  # type: ignore[no-any-return]
