"""Classification metrics under the names that every protocol uses."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor


def has_two_classes(labels: Tensor) -> bool:
    """Return whether labels (M,) hold two classes or more; warn if not."""
    found = len(labels.unique())
    if found < 2:
        warnings.warn(
            f"The scored split has {found} {'class' if found == 1 else 'classes'}, so scores of classification say nothing "
            "and are not given. Score a split with two classes or more.",
            stacklevel=2,
        )
    return found >= 2


def classification_scores(name: str, predictions: Tensor, labels: Tensor, num_classes: int) -> dict[str, float]:
    """Accuracy, macro F1 and macro recall of predicted classes, both int64 (M,); see :func:`scores_of_counts`."""
    return scores_of_counts(name, class_counts(predictions, labels, num_classes))


def class_counts(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Samples of each class that are predicted rightly, predicted so at all, and labelled so, int64 (3, K).

    Counts of parts of a split add up to those of the split.

    Args:
        predictions: Predicted classes, int64 (M,).
        labels: Their classes, int64 (M,), without unknown ones.
        num_classes: K.
    """
    kinds = (labels[predictions == labels], predictions, labels)
    return torch.stack([torch.bincount(kind, minlength=num_classes) for kind in kinds])


def scores_of_counts(name: str, counts: Tensor) -> dict[str, float]:
    """Accuracy, and F1 and recall as means over the classes that are predicted or labelled, of counts (3, K).

    All are NaN, with a warning, where the labels hold fewer than two classes: a constant answer would be perfect.
    """
    right, predicted, labelled = counts.float()
    if not has_two_classes(counts[2].nonzero()):
        return dict.fromkeys((f"{name}/top1", f"{name}/macro_f1", f"{name}/recall"), math.nan)
    seen = ((predicted + labelled) > 0).float()
    scores = {"macro_f1": 2 * right / (predicted + labelled).clamp(min=1), "recall": right / labelled.clamp(min=1)}
    return {
        f"{name}/top1": float(counts[0].sum().float() / counts[2].sum().float()),
        **{f"{name}/{kind}": float((score / seen.sum()).sum()) for kind, score in scores.items()},
    }
