"""Similarity of two texts: head, loss, and correlations."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from scipy.stats import pearsonr, spearmanr
from torch import Tensor, nn

from ssl_lab.data.base import GIVEN, DataModule
from ssl_lab.devices import wide
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.evaluation.protocol import Protocol, check_finite, outputs_of
from ssl_lab.modalities.text import TextSpec
from ssl_lab.optim import Optim
from ssl_lab.tasks.base import full_precision
from ssl_lab.tasks.metrics import SCORES_METRICS
from ssl_lab.tasks.text import TextTask, trim
from ssl_lab.types import Batch


@final
class Similarity(TextTask):
    r"""A cross-encoder: both texts in one row, a linear head on the pooled states, mean squared error of the score.

    .. math:: L = \frac1N \sum_i \left(\hat{y}_i - \frac{s_i - s_{min}}{s_{max} - s_{min}}\right)^2

    The row is the first text with its special tokens, then the second without its class token; BERT also reads which text a
    token belongs to. Pairs without a score are left out.

    Args:
        encoder: Text encoder.
        optim: Optimizer and schedule.
        layer_decay: Factor of the learning rate from each block to the one below it.
        freeze: ``none``, ``embeddings``, ``encoder``, or the number of first blocks.
        dropout: Of the pooled states.
        min_score: Score of texts that have nothing in common.
        max_score: Score of texts that mean the same.

    Raises:
        ValueError: If ``max_score`` is not above ``min_score``.

    References:
        Devlin et al., BERT (2018), section 4.1. arXiv:1810.04805
    """

    needs_columns: ClassVar[tuple[str, ...]] = ("second_input_ids", "score")
    columns_from: ClassVar[Mapping[str, str]] = {
        "second_input_ids": "data=text_pairs for pairs of texts",
        "score": "data=text_pairs with data.score_column",
    }

    def __init__(
        self,
        encoder: TextTransformer,
        optim: Optim,
        *,
        layer_decay: float = 1.0,
        freeze: str | int = "none",
        dropout: float = 0.1,
        min_score: float = 0.0,
        max_score: float = 5.0,
    ) -> None:
        super().__init__(encoder, optim, layer_decay=layer_decay, freeze=freeze, dropout=dropout)
        if max_score <= min_score:
            raise ValueError(
                f"Cannot score from {min_score} to {max_score}. Set method.max_score above method.min_score."
            )
        self.min_score, self.max_score = min_score, max_score
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(encoder.embed_dim, 1))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Encode both texts together, predict their score."""
        known = ~batch["score"].isnan()
        targets = (batch["score"] - self.min_score) / (self.max_score - self.min_score)
        predicted = self.similarities(batch)
        total = F.mse_loss(predicted[known], targets[known].to(predicted.dtype), reduction="sum")
        return self.mean_over_targets(total, known.sum())

    def similarities(self, batch: Batch) -> Tensor:
        """Predicted scores (B,), scaled to 0 and 1 at the ends; at least fp32."""
        joined = trim(join_texts(batch, self.encoder.spec))
        pooled = self.encoder.pool(self.hidden(joined), joined["input_ids"], joined["attention_mask"])
        return full_precision(self.head(pooled).squeeze(1))

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features of the first text, and similarities of pairs."""
        return {**super().capabilities(), "similarities": self.in_eval_mode(torch.no_grad()(self.similarities))}

    def predict(self, datamodule: DataModule, *, device: torch.device) -> list[dict[str, Any]]:
        """The score of each pair, on the scale of the data's scores; it may lie a little beyond their ends."""
        similarities = self.capabilities()["similarities"]
        (found,) = outputs_of(lambda batch: (similarities(batch),), datamodule, GIVEN, device=device)
        check_finite(found, what="Scores", use="written")
        scores = self.min_score + (self.max_score - self.min_score) * found
        return [{"similarity": score} for score in scores.tolist()]


def join_texts(batch: Batch, spec: TextSpec) -> dict[str, Tensor]:
    """Both texts of each pair in one row (B, 2L): ids, mask and token types, padding at the end.

    A special token at the head of the second text, the class token, is left out.
    """
    first, second = batch["input_ids"], batch["second_input_ids"]
    masks = batch["attention_mask"], batch["second_attention_mask"]
    special = torch.tensor(spec.special_ids, device=first.device)
    starts_special = torch.isin(second[:, :1], special) & (masks[1].sum(1, keepdim=True) > 1)
    second_mask = torch.cat([masks[1][:, :1] * ~starts_special, masks[1][:, 1:]], 1)
    ids, mask = torch.cat([first, second], 1), torch.cat([masks[0], second_mask], 1)
    types = torch.cat([torch.zeros_like(first), torch.ones_like(second)], 1)
    order = torch.argsort(mask, dim=1, descending=True, stable=True)
    mask = mask.gather(1, order)
    assert spec.pad_id is not None
    return {
        "input_ids": torch.where(mask == 1, ids.gather(1, order), spec.pad_id),
        "attention_mask": mask,
        "token_type_ids": types.gather(1, order) * mask,
    }


class PairScores(Protocol):
    """Correlation of predicted with judged similarities over all scored pairs of the split.

    Metrics: ``finetune/spearman``, ``finetune/pearson``, in [-1, 1]; equal values share their mean rank. They are 0 if all
    predictions are equal.

    References:
        Cer et al., SemEval-2017 Task 1: Semantic Textual Similarity (2017). arXiv:1708.00055
    """

    metrics = SCORES_METRICS
    needs: ClassVar[str] = "similarities"
    needs_columns: ClassVar[tuple[str, ...]] = ("second_input_ids", "score")
    columns_from = Similarity.columns_from
    shared: ClassVar[bool] = True

    def run(
        self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Correlate ``fn(batch) -> (B,)`` with the scores."""
        x, y = outputs_of(lambda batch: (wide(fn(batch)), wide(batch["score"])), datamodule, split, device=device)
        known = ~y.isnan()
        if known.sum() < 2:
            raise ValueError(
                f"Cannot score a correlation on the {split} split: {int(known.sum())} of its {len(y)} pairs have a "
                "score. Set data.score_column, or score another split."
            )
        check_finite(x, split, what="Scores")
        if (y[known] == y[known][0]).all():
            warnings.warn(
                f"All scored pairs of the {split} split have one score, so no correlation is given.", stacklevel=2
            )
            return {"finetune/spearman": math.nan, "finetune/pearson": math.nan}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about constant predictions, which are worth 0
            found = {
                "finetune/spearman": float(spearmanr(x[known].numpy(), y[known].numpy()).statistic),
                "finetune/pearson": float(pearsonr(x[known].numpy(), y[known].numpy()).statistic),
            }
        return {name: 0.0 if value != value else value for name, value in found.items()}
