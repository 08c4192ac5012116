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
from ssl_lab.evaluation.protocol import Protocol, check_finite, outputs_of
from ssl_lab.types import Batch


class TextClasses(Protocol):
    """Accuracy, macro recall and macro F1 of predicted classes over the labelled rows of the split.

    Metrics: ``finetune/accuracy``, ``finetune/recall``, ``finetune/macro_f1``, all in [0, 1].
    """

    metrics = CLASSES_METRICS
    needs: ClassVar[str] = "class_logits"
    needs_labels: ClassVar[bool] = True
    shared: ClassVar[bool] = True

    def run(
        self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Score the largest of the scores ``fn(batch) -> (B, C)``."""
        logits, y = outputs_of(lambda batch: (fn(batch), batch["label"]), datamodule, split, device=device)
        check_finite(logits, split, what="Scores")
        predicted = logits.argmax(1)
        known = y >= 0
        if not known.any():
            raise ValueError(
                f"Cannot score classes on the {split} split: none of its {len(y)} rows has a label. Score another "
                "split, or set data.label_column."
            )
        num_classes = datamodule.spec.num_classes
        assert num_classes is not None
        found = classification_scores("finetune", predicted[known], y[known], num_classes)
        return {name.replace("top1", "accuracy"): value for name, value in found.items()}


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
