"""A tag for every word: head, loss, tags, and scores of spans."""

from __future__ import annotations

import math
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, final, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab.data.base import GIVEN, DataModule
from ssl_lab.data.text.tag_schemes import is_iob2
from ssl_lab.data.text.token_labels import NO_WORD
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.evaluation.protocol import Protocol, check_none_broken, outputs_of
from ssl_lab.optim import Optim
from ssl_lab.tasks.base import full_precision
from ssl_lab.tasks.metrics import SPANS_METRICS
from ssl_lab.tasks.spans import span_scores
from ssl_lab.tasks.text import TextTask, trim
from ssl_lab.types import Batch


@final
class TokenClassification(TextTask):
    """A linear head on the state of each word's first token, trained with cross entropy over all words.

    Args:
        encoder: Text encoder.
        optim: Optimizer and schedule.
        layer_decay: Factor of the learning rate from each block to the one below it.
        freeze: ``none``, ``embeddings``, ``encoder``, or the number of first blocks.
        dropout: Of the states.

    Raises:
        ValueError: If the data has no tags.

    References:
        Devlin et al., BERT (2018), section 5.3. arXiv:1810.04805
    """

    needs_columns: ClassVar[tuple[str, ...]] = ("token_labels",)
    columns_from: ClassVar[Mapping[str, str]] = {"token_labels": "data=token_labels for texts with a label per token"}
    source_of_classes: ClassVar[str] = "Choose data=token_labels"

    def __init__(
        self,
        encoder: TextTransformer,
        optim: Optim,
        *,
        layer_decay: float = 1.0,
        freeze: str | int = "none",
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoder, optim, layer_decay=layer_decay, freeze=freeze, dropout=dropout)
        classes = encoder.spec.classes("token_labels")
        assert classes is not None
        self._tag_names = classes.names
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(encoder.embed_dim, classes.number))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Encode, classify the words."""
        batch = trim(batch, "token_labels")
        known = batch["token_labels"] >= 0
        logits = self.head(self.hidden(batch)[known])
        total = F.cross_entropy(full_precision(logits), batch["token_labels"][known], reduction="sum")
        return self.mean_over_targets(total, known.sum())

    def scores(self, batch: Batch) -> Tensor:
        """Return the scores of the tags at each token (B, L, C)."""
        return self.head(self.hidden(batch))  # type: ignore[no-any-return]

    def score_names(self) -> tuple[str, ...]:
        """The tags."""
        return self._tag_names

    def predict_tags(self, batch: Batch) -> Tensor:
        """The most probable tag at every position (B, L); 0 in padding, -1 where a score is not finite."""
        logits = self.head(self.hidden(trim(batch)))
        tags = logits.argmax(-1).masked_fill(~logits.isfinite().all(-1), -1)
        return F.pad(tags, (0, batch["input_ids"].shape[1] - tags.shape[1]))

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features, and tags."""
        return {**super().capabilities(), "tags": self.in_eval_mode(torch.no_grad()(self.predict_tags))}

    def predict(self, datamodule: DataModule, *, device: torch.device) -> list[dict[str, Any]]:
        """The words of each sentence and their tags."""
        tags = _tags_of_words(
            self.capabilities()["tags"], datamodule, GIVEN, self._tag_names, device=device, use="written"
        )
        assert isinstance(datamodule, TaggedSentences)
        words = [words for words, _ in datamodule.sentences(GIVEN)]
        return [{"words": list(each), "tags": [next(tags) for _ in each]} for each in words]


@runtime_checkable
class TaggedSentences(typing.Protocol):
    """Data whose rows are pieces of sentences, cut between words."""

    def sentences(self, split: str) -> Sequence[tuple[Sequence[str], Sequence[str]]]:
        """Words and tags of a split, whole sentences in their order."""


def _tags_of_words(
    fn: Callable[[Batch], Tensor],
    datamodule: DataModule,
    split: str,
    names: Sequence[str],
    *,
    device: torch.device,
    use: str = "judged",
) -> Iterator[str]:
    """The tag of each word of a split, one after the other, by the numbers ``fn(batch) -> (B, L)``.

    Raises:
        ValueError: If a word has scores that are not finite.
    """

    def of_words(batch: Batch) -> tuple[Tensor, ...]:
        return (fn(batch)[batch["token_labels"] != NO_WORD],)

    (numbers,) = outputs_of(of_words, datamodule, split, device=device)
    kind = "" if split == GIVEN else split
    check_none_broken(int((numbers < 0).sum()), len(numbers), kind, what="Scores", unit="words", use=use)
    return iter([names[number] for number in numbers.tolist()])


class TaggedSpans(Protocol):
    """Precision, recall and F1 of spans: a span counts if its words and its name are exactly right.

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
    columns_from = TokenClassification.columns_from
    needs_data: ClassVar[type | None] = TaggedSentences
    shared: ClassVar[bool] = True
    signature = "exact spans, IOB2 read strictly, micro-average (seqeval's mode strict)"

    def run(
        self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Score the tags ``fn(batch) -> (B, L)`` at the first token of each word; -1 is that of scores that are not finite.

        Raises:
            ValueError: If a word has such scores.
        """
        assert isinstance(datamodule, TaggedSentences)
        classes = datamodule.spec.classes("token_labels")
        assert classes is not None
        names = classes.names
        flat = _tags_of_words(fn, datamodule, split, names, device=device)
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
            metrics |= dict(zip(spans, span_scores(gold, found), strict=True))
        return metrics
