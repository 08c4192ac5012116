"""Classification metrics under the names that every protocol uses."""

from __future__ import annotations

import math
import warnings

from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score, multiclass_recall


def has_two_classes(labels: Tensor) -> bool:
    """Whether labels (M,) hold two classes or more; a warning says so if not."""
    found = len(labels.unique())
    if found < 2:
        warnings.warn(
            f"The scored split has {found} {'class' if found == 1 else 'classes'}, so scores of classification say nothing "
            "and are not given. Score a split with two classes or more.",
            stacklevel=2,
        )
    return found >= 2


def classification_scores(name: str, predictions: Tensor, labels: Tensor, num_classes: int) -> dict[str, float]:
    """Accuracy, macro F1 and macro recall of predicted classes, both int64 (M,).

    All are NaN, with a warning, where the labels hold fewer than two classes: a constant answer would be perfect.
    """
    if not has_two_classes(labels):
        return dict.fromkeys((f"{name}/top1", f"{name}/macro_f1", f"{name}/recall"), math.nan)
    return {
        f"{name}/top1": float(multiclass_accuracy(predictions, labels, num_classes, average="micro")),
        f"{name}/macro_f1": float(multiclass_f1_score(predictions, labels, num_classes, average="macro")),
        f"{name}/recall": float(multiclass_recall(predictions, labels, num_classes, average="macro")),
    }
