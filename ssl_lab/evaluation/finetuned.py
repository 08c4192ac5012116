"""How fine-tuned encoders are judged: predictions for a whole split, then one score of all of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import ClassVar

import torch
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.evaluation.metrics import CLASSES_METRICS, SCORES_METRICS
from ssl_lab.evaluation.probes.scores import classification_scores
from ssl_lab.evaluation.protocol import Protocol, check_finite, check_none_broken, outputs_of
from ssl_lab.types import Batch

_FROM_CLASSES = 10  # below, five guesses say little


class Classes(Protocol):
    """Accuracy, macro recall, macro F1, and from ten classes on top-5 accuracy of predictions for all labelled samples.

    Metrics: ``finetune/accuracy``, ``finetune/recall``, ``finetune/macro_f1``, ``finetune/top5``, all in [0, 1]. Of each
    batch the five highest classes are kept, so that memory does not grow with the number of classes.
    """

    metrics = CLASSES_METRICS
    needs: ClassVar[str] = "class_logits"
    needs_labels: ClassVar[bool] = True
    shared: ClassVar[bool] = True

    def run(
        self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Score the largest of the scores ``fn(batch) -> (B, C)``."""

        def highest(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
            logits = fn(batch)
            best = torch.cat([logits.argmax(1, keepdim=True), logits.topk(min(5, logits.shape[1])).indices], 1)
            return best, logits.isfinite().all(1), batch["label"]

        best, finite, y = outputs_of(highest, datamodule, split, device=device)
        check_none_broken(int((~finite).sum()), len(finite), split, what="Scores")
        known = y >= 0
        if not known.any():
            raise ValueError(
                f"Cannot score classes on the {split} split: none of its {len(y)} rows has a label. Score another "
                "split, or set data.label_column."
            )
        num_classes = datamodule.spec.num_classes
        assert num_classes is not None
        found = classification_scores("finetune", best[known, 0], y[known], num_classes)
        scores = {name.replace("top1", "accuracy"): value for name, value in found.items()}
        if num_classes >= _FROM_CLASSES:
            hits = (best[known, 1:] == y[known].unsqueeze(1)).any(1)
            given = not math.isnan(scores["finetune/accuracy"])
            scores["finetune/top5"] = float(hits.double().mean()) if given else math.nan
        return scores


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
    shared: ClassVar[bool] = True

    def run(
        self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Correlate ``fn(batch) -> (B,)`` with the scores."""
        x, y = outputs_of(lambda batch: (fn(batch).double(), batch["score"].double()), datamodule, split, device=device)
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
