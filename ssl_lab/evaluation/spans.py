"""Spans of words that carry a name: entities, chunks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import ClassVar

import torch
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.data.text.tag_schemes import is_iob2
from ssl_lab.data.text.token_labels import NO_WORD, TokenLabels
from ssl_lab.evaluation.metrics import SPANS_METRICS
from ssl_lab.evaluation.protocol import Protocol, check_none_broken, outputs_of
from ssl_lab.types import Batch


class TaggedSpans(Protocol):
    """Precision, recall and F1 of spans, by seqeval: a span counts if its words and its name are exactly right.

    Tags are read as IOB2 (``B-NP``, ``I-NP``, ``O``), strictly: an ``I-`` that continues no span of its name begins none.
    Micro-averages over all spans of the split; sentences are whole again, however they were cut into rows. Tags that are
    not IOB2, such as parts of speech, have no spans, and only the accuracy of tags is given. Where all words have one tag, no
    score says anything and all are not a number.

    Metrics: ``finetune/precision``, ``finetune/span_recall``, ``finetune/f1``, ``finetune/token_accuracy``, in [0, 1].

    References:
        Ramshaw and Marcus, Text Chunking using Transformation-Based Learning (1995). arXiv:cmp-lg/9505040
        Nakayama, seqeval (2018). github.com/chakki-works/seqeval
    """

    metrics = SPANS_METRICS
    needs: ClassVar[str] = "tags"
    needs_columns: ClassVar[tuple[str, ...]] = ("token_labels",)
    shared: ClassVar[bool] = True
    signature = "seqeval, mode strict, scheme IOB2, micro-average"

    def run(
        self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Score the tags ``fn(batch) -> (B, L)`` at the first token of each word; -1 is that of scores that are not finite.

        Raises:
            ValueError: If a word has such scores.
        """
        assert isinstance(datamodule, TokenLabels)
        (numbers,) = outputs_of(
            lambda batch: (fn(batch)[batch["token_labels"] != NO_WORD],), datamodule, split, device=device
        )
        check_none_broken(int((numbers < 0).sum()), len(numbers), split, what="Scores", unit="words")
        names = datamodule.spec.class_names
        flat = iter([names[number] for number in numbers.tolist()])
        gold = [tags for _, tags in datamodule.sentences(split)]
        found = [[next(flat) for _ in tags] for tags in gold]
        assert next(flat, None) is None, "every word is predicted once"
        pairs = [(a, b) for tags, guesses in zip(gold, found, strict=True) for a, b in zip(tags, guesses, strict=True)]
        metrics = {"finetune/token_accuracy": sum(a == b for a, b in pairs) / len(pairs)}
        spans = ("finetune/precision", "finetune/span_recall", "finetune/f1") if all(map(is_iob2, names)) else ()
        if len({tag for tag, _ in pairs}) < 2:
            warnings.warn(
                f"All {len(pairs)} words of the {split} split have the tag {pairs[0][0]}, so no scores are given.",
                stacklevel=2,
            )
            return dict.fromkeys((*metrics, *spans), math.nan)
        if spans:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about spans that were never predicted, which are worth 0
                settings = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
                metrics |= {
                    "finetune/precision": float(precision_score(gold, found, **settings)),
                    "finetune/span_recall": float(recall_score(gold, found, **settings)),
                    "finetune/f1": float(f1_score(gold, found, **settings)),
                }
        return metrics
