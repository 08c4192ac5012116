"""Where in a text the answer to a question begins and ends: head, loss, best spans, and their scores."""

from __future__ import annotations

import re
import string
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, final, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab.data.base import GIVEN, DataModule
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.evaluation.protocol import Protocol, check_finite, outputs_of
from ssl_lab.optim import Optim
from ssl_lab.tasks.base import full_precision
from ssl_lab.tasks.metrics import ANSWERS_METRICS
from ssl_lab.tasks.text import TextTask, trim
from ssl_lab.types import Batch


@final
class QuestionAnswering(TextTask):
    """Extractive question answering: two scores per token, that the answer begins and that it ends there.

    The loss is the mean of both cross entropies over the window's tokens; a window without the answer points at its first
    token. The best span of a window maximises the sum of both scores over all spans within the text of at most
    ``max_answer_length`` tokens (the published code searches the 20 best starts and ends).

    Args:
        encoder: Text encoder.
        optim: Optimizer and schedule.
        layer_decay: Factor of the learning rate from each block to the one below it.
        freeze: ``none``, ``embeddings``, ``encoder``, or the number of first blocks.
        dropout: Of the states; none in the paper.
        max_answer_length: Tokens of an answer.

    Raises:
        ValueError: If ``max_answer_length`` is not positive.

    References:
        Devlin et al., BERT (2018), section 4.2. arXiv:1810.04805
    """

    needs_columns: ClassVar[tuple[str, ...]] = ("start_position",)
    columns_from: ClassVar[Mapping[str, str]] = {"start_position": "data=squad for questions with answers in a text"}

    def __init__(
        self,
        encoder: TextTransformer,
        optim: Optim,
        *,
        layer_decay: float = 1.0,
        freeze: str | int = "none",
        dropout: float = 0.0,
        max_answer_length: int = 30,
    ) -> None:
        super().__init__(encoder, optim, layer_decay=layer_decay, freeze=freeze, dropout=dropout)
        if max_answer_length < 1:
            raise ValueError(f"method.max_answer_length must be at least 1 token, found {max_answer_length}.")
        self.max_answer_length = max_answer_length
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(encoder.embed_dim, 2))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Encode, point at both ends."""
        batch = trim(batch, "context_mask")
        start, end = self.logits(batch)
        total = F.cross_entropy(start, batch["start_position"], reduction="sum")
        total = total + F.cross_entropy(end, batch["end_position"], reduction="sum")
        count = torch.tensor(len(start), device=start.device)
        return self.mean_over_targets(total / 2, count)

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores of the first and of the last token of the answer, both fp32 (B, L); padding has the lowest."""
        scores = full_precision(self.head(self.hidden(batch))).masked_fill(
            batch["attention_mask"].unsqueeze(-1) == 0, -1e4
        )
        start, end = scores.unbind(-1)
        return start, end

    def scores(self, batch: Batch) -> Tensor:
        """Return the scores that the answer begins and ends at each token (B, L, 2)."""
        return self.head(self.hidden(batch))  # type: ignore[no-any-return]

    def score_names(self) -> tuple[str, ...]:
        """Both ends."""
        return ("start", "end")

    def best_spans(self, batch: Batch) -> Tensor:
        """First token, last token and score of the best span of each window, fp32 (B, 3)."""
        batch = trim(batch, "context_mask")
        return best_spans(*self.logits(batch), batch["context_mask"], max_length=self.max_answer_length)

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features, and best spans."""
        return {**super().capabilities(), "answer_spans": self.in_eval_mode(torch.no_grad()(self.best_spans))}

    def predict(self, datamodule: DataModule, *, device: torch.device) -> list[dict[str, Any]]:
        """The answer to each question in the characters of its text, and the score of its span: a sum of two logits."""
        assert isinstance(datamodule, AnsweredQuestions)
        found = _answers(self.capabilities()["answer_spans"], datamodule, GIVEN, device=device, use="written")
        return [{"answer": answer, "score": score} for answer, score in found]


def best_spans(start: Tensor, end: Tensor, allowed: Tensor, *, max_length: int) -> Tensor:
    """The span i <= j < i + max_length of allowed tokens with the largest start_i + end_j, of each row.

    Args:
        start: Scores of the first token (B, L).
        end: Scores of the last token (B, L).
        allowed: Where a span may begin and end, bool (B, L).
        max_length: Tokens of a span.

    Returns:
        First token, last token, score: fp32 (B, 3); the score is -inf where nothing is allowed.
    """
    start, end = (scores.masked_fill(~allowed, -torch.inf) for scores in (start, end))
    length = start.shape[1]
    # ends[:, i, k] is the score of an answer from i to i + k
    ends = F.pad(end, (0, max_length - 1), value=-torch.inf).unfold(1, max_length, 1)
    scores, place = (start.unsqueeze(2) + ends).flatten(1).max(1)
    first = place // max_length
    last = (first + place % max_length).clamp(max=length - 1)
    return torch.stack([first.float(), last.float(), scores], 1)


class AskedQuestion(typing.Protocol):
    """A question with the answers that people gave."""

    @property
    def answers(self) -> Sequence[str]:
        """Accepted answers."""


@runtime_checkable
class AnsweredQuestions(typing.Protocol):
    """Data whose rows are windows of tokens of texts, each with a question that the text answers."""

    def questions(self, split: str) -> Sequence[AskedQuestion]:
        """Questions of a split in their order."""

    def question_of_row(self, split: str) -> Tensor:
        """The number of each row's question, int64 (N,)."""

    def text_of(self, split: str, row: int, start: int, end: int) -> str:
        """The characters of the text from token ``start`` to token ``end`` of a row, both inclusive."""


def _answers(
    fn: Callable[[Batch], Tensor], datamodule: Any, split: str, *, device: torch.device, use: str = "judged"
) -> list[tuple[str, float]]:
    """The best span ``fn(batch) -> (B, 3)`` of all windows of each question, as text, and its score.

    Raises:
        ValueError: If a span or a score is not finite.
    """
    (spans,) = outputs_of(lambda batch: (fn(batch),), datamodule, split, device=device)
    check_finite(spans, "" if split == GIVEN else split, what="Answer spans", use=use)
    best: dict[int, tuple[float, int]] = {}
    for row, (number, score) in enumerate(
        zip(datamodule.question_of_row(split).tolist(), spans[:, 2].tolist(), strict=True)
    ):
        if number not in best or score > best[number][0]:
            best[number] = score, row
    found = []
    for number in range(len(datamodule.questions(split))):
        score, row = best[number]
        start, end = spans[row, :2].int().tolist()
        found.append((datamodule.text_of(split, row, start, end), score))
    return found


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
    columns_from = QuestionAnswering.columns_from
    needs_data: ClassVar[type | None] = AnsweredQuestions
    shared: ClassVar[bool] = True
    signature = "SQuAD v1.1, official normalisation"

    def run(
        self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Score the spans ``fn(batch) -> (B, 3)``: first token, last token, score.

        Raises:
            ValueError: If a span or a score is not finite.
        """
        assert isinstance(datamodule, AnsweredQuestions)
        questions = datamodule.questions(split)
        exact = f1 = 0.0
        for question, (answer, _) in zip(questions, _answers(fn, datamodule, split, device=device), strict=True):
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
