"""Answers to questions against those that people gave."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.data.text.question_answering import QuestionAnswering
from ssl_lab.evaluation.metrics import ANSWERS_METRICS
from ssl_lab.evaluation.protocol import Protocol, check_finite, outputs_of
from ssl_lab.types import Batch


class Answers(Protocol):
    """Exact match and F1 of words, SQuAD v1.1's official metric: the mean over questions of the best of their answers.

    A question's answer is the best span of all its windows, by score, in the characters of the text.

    Metrics: ``finetune/exact_match``, ``finetune/f1``, in [0, 1] (papers write them x 100).

    References:
        Rajpurkar et al., SQuAD (2016), section 6.1. arXiv:1606.05250
    """

    metrics = ANSWERS_METRICS
    needs: ClassVar[str] = "answer_spans"
    needs_columns: ClassVar[tuple[str, ...]] = ("start_position",)
    shared: ClassVar[bool] = True
    signature = "SQuAD v1.1, official normalisation"

    def run(
        self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Score the spans ``fn(batch) -> (B, 3)``: first token, last token, score.

        Raises:
            ValueError: If a span or a score is not finite.
        """
        assert isinstance(datamodule, QuestionAnswering)
        (spans,) = outputs_of(lambda batch: (fn(batch),), datamodule, split, device=device)
        check_finite(spans, split, what="Answer spans")
        best: dict[int, tuple[float, int]] = {}
        for row, (number, score) in enumerate(
            zip(datamodule.question_of_row(split).tolist(), spans[:, 2].tolist(), strict=True)
        ):
            if number not in best or score > best[number][0]:
                best[number] = score, row
        questions = datamodule.questions(split)
        exact = f1 = 0.0
        for number, question in enumerate(questions):
            row = best[number][1]
            start, end = spans[row, :2].int().tolist()
            answer = datamodule.text_of(split, row, start, end)
            exact += max(float(normalise(answer) == normalise(gold)) for gold in question.answers)
            f1 += max(word_f1(answer, gold) for gold in question.answers)
        return {"finetune/exact_match": exact / len(questions), "finetune/f1": f1 / len(questions)}


def normalise(answer: str) -> str:
    """An answer without case, punctuation, articles and superfluous blanks, as in the official script."""
    text = "".join(char for char in answer.lower() if char not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def word_f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall of the words that both normalised answers share, counted with multiplicity."""
    found, wanted = normalise(answer).split(), normalise(gold).split()
    num_shared = _num_shared(found, wanted)
    return 2 * num_shared / (len(found) + len(wanted)) if num_shared else 0.0


def _num_shared(found: Sequence[str], wanted: Sequence[str]) -> int:
    return sum((Counter(found) & Counter(wanted)).values())
