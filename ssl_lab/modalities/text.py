"""Texts as rows of token ids: ``input_ids`` and ``attention_mask``, int64 (B, L).

``document_ids``: int64 (B, L), only where a row holds several documents: their numbers 1, 2, ... within the row, 0 for
padding.
``second_input_ids``, ``second_attention_mask``: the same of the other text of a pair; ``negative_input_ids``,
``negative_attention_mask``: of a text like the first that means something else.
``score``: float32 (B,), how similar the texts of a pair are, NaN where unknown.
``token_labels``: int64 (B, L), class of each word at its first token, -1 where unknown, -100 where no word begins.
``token_type_ids``: int64 (B, L), 0 in the first of two joined texts, 1 in the second. ``context_mask``: bool (B, L), where an
answer may be. ``start_position``, ``end_position``: int64 (B,), its first and last token, 0 where there is none.
``target_input_ids``, ``target_attention_mask``: int64 (B, T), the text that is to be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lab.types import Batch, Spec, Target

MOST_IDS = 1 << 24
"""Token ids of one vocabulary; more than any tokenizer has."""


def check_vocabulary(*sizes: int | None) -> None:
    """Raise ValueError if a vocabulary is so large that no memory suffices."""
    if max((size or 0 for size in sizes), default=0) > MOST_IDS:
        raise ValueError(f"There are more than {MOST_IDS:,} ids of tokens.")


@dataclass(frozen=True, kw_only=True)
class WrittenText(Target):
    """A text that is to be written, such as a translation.

    Attributes:
        length: Number of its tokens, with those that begin and end it.
        vocab_size: Number of token ids of its tokenizer.
        pad_id: Padding id.
        begin_id: Id that begins it.
        end_id: Id that ends it.
    """

    length: int
    vocab_size: int
    pad_id: int
    begin_id: int
    end_id: int

    def __post_init__(self) -> None:
        """Check the vocabulary."""
        check_vocabulary(self.vocab_size)


@dataclass(frozen=True, kw_only=True)
class TextSpec(Spec):
    """Facts of a set of texts.

    Attributes:
        length: Tokens L of a row, special ones included.
        vocab_size: Number of token ids the tokenizer can produce.
        pad_id: Padding id; None if the tokenizer has none.
        mask_id: Mask id; None if the tokenizer has none.
        eos_id: Id that ends a document; None if the tokenizer has none.
        special_ids: Ids that are not words: padding, mask, class, separator, unknown.
        continues_word: Ids of tokens that continue the word of the token before; empty if ids do not tell.

    Raises:
        ValueError: If there can be no such texts.
    """

    modality: ClassVar[str] = "text"
    kind: ClassVar[str] = "texts"
    columns: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")
    raw_name: ClassVar[str] = "word counts"
    as_recorded: ClassVar[bool] = False
    length: int
    vocab_size: int
    pad_id: int | None = None
    mask_id: int | None = None
    eos_id: int | None = None
    special_ids: tuple[int, ...] = ()
    continues_word: tuple[int, ...] = field(default=(), repr=False, hash=False)  # most of a vocabulary

    def __post_init__(self) -> None:
        """Check the sizes."""
        if self.length < 1:
            raise ValueError(f"Cannot use texts of {self.length} tokens. Give 1 or more.")
        check_vocabulary(self.vocab_size)

    @property
    def shape(self) -> tuple[int, ...]:
        """The length (L,)."""
        return (self.length,)

    def accepts(self, other: Spec) -> bool:
        """Return whether these are texts of one vocabulary, of any length, as far as both define their ids."""
        if not isinstance(other, TextSpec) or other.vocab_size != self.vocab_size:
            return False
        return self.continues_word == other.continues_word or not (self.continues_word and other.continues_word)

    def raw(self, batch: Batch) -> Tensor:
        """Count each word of the vocabulary, scaled to length 1, specials left out."""
        ids = batch["input_ids"]
        counts = torch.zeros(len(ids), self.vocab_size, device=ids.device)
        counts.scatter_add_(1, ids, batch["attention_mask"].float())
        counts[:, list(self.special_ids)] = 0
        return F.normalize(counts, dim=1)

    def example(self, num_samples: int) -> dict[str, Tensor]:
        """An example batch of texts; all but the first end with padding."""
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(self.vocab_size, (num_samples, self.length), generator=generator)
        lengths = torch.randint(1, self.length + 1, (num_samples, 1), generator=generator)
        lengths[0] = self.length
        mask = (torch.arange(self.length) < lengths).long()
        return {"input_ids": ids.where(mask == 1, self.pad_id or 0), "attention_mask": mask}

    def exported_inputs(self) -> dict[str, Any]:
        """Shapes and lengths of the ids."""
        column = {"type": "int64", "shape": ["batch", "length"]}
        return {"inputs": dict.fromkeys(self.columns, column), "length": [2, self.length]}

    def exported_sizes(self) -> dict[int, tuple[str, int, int]]:
        """Texts of two tokens up to the longest that was trained on."""
        return {1: ("length", 2, self.length)}

    def __str__(self) -> str:
        """As in ``texts of up to 128 tokens``."""
        return f"{self.kind} of up to {self.length} tokens"

    def to_json(self) -> dict[str, Any]:
        """The many ids of ``continues_word`` as runs (``"7 9-12"``)."""
        return {**super().to_json(), "continues_word": _as_runs(self.continues_word)}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        """Read the runs of ``continues_word`` back.

        Raises:
            ValueError: If they are ids for which no memory suffices.
        """
        runs = [run.split("-") for run in str(facts.get("continues_word", "")).split()]
        spans = [(int(run[0]), int(run[-1])) for run in runs]
        if sum(last - first + 1 for first, last in spans) > MOST_IDS:
            raise ValueError(f"There are more than {MOST_IDS:,} ids of tokens.")
        ids = tuple(i for first, last in spans for i in range(first, last + 1))
        return cls(**{**facts, "continues_word": ids})


def _as_runs(ids: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for i in ids:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
